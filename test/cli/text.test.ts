import t from 'tap';
import { formatDuration, parseDuration } from '../../src/cli/duration.js';
import { plain, table } from '../../src/cli/table.js';
import { cutText } from '../../src/protocol/text.js';

t.test('durations need a unit', async (t) => {
  const good: [string, number][] = [
    ['0', 0],
    ['500ms', 500],
    ['5s', 5000],
    ['1.5s', 1500],
    ['2m', 120_000],
    ['1h', 3_600_000],
  ];
  for (const [text, ms] of good) t.equal(parseDuration(text, '--wait'), ms, text);
  for (const text of ['', '5', 's', '-1s', '1d', '5 s x', '1e3s', 'Infinity', 'NaN', '600h']) {
    t.throws(() => parseDuration(text, '--wait'), { code: 'TSDLM_USAGE', message: /--wait/ }, text);
  }
});

t.test('durations for people', async (t) => {
  const cases: [number, string][] = [
    [0, '0 ms'],
    [999, '999 ms'],
    [1000, '1.0 s'],
    [61_500, '1 min 1 s'],
    [3_720_000, '1 h 2 min'],
    [100_000_000, '1 d 3 h'],
  ];
  for (const [ms, text] of cases) t.equal(formatDuration(ms), text);
});

t.test('tables are aligned by characters, not bytes', async (t) => {
  t.equal(
    table(
      ['A', 'B'],
      [
        ['ä', 'x'],
        ['long', ''],
      ],
    ),
    'A     B\nä     x\nlong\n',
  );
  t.equal(plain('a\nb\u001b[1m'), 'a\\x0ab\\x1b[1m');
});

t.test('texts are cut at whole characters', async (t) => {
  t.equal(cutText('abc', 3), 'abc');
  t.equal(cutText('abcd', 3), 'abc');
  t.equal(cutText('aää', 4), 'aä');
  t.equal(cutText('aää', 2), 'a');
  t.equal(cutText('😀😀', 7), '😀');
});
