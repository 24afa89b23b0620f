import t from 'tap';
import { createLog, loggable, tokenText } from '../../src/node/log.js';

function capture(level: 'debug' | 'info' | 'warn' = 'info') {
  const lines: Record<string, unknown>[] = [];
  const log = createLog(level, { node: 'n1' }, { write: (line: string) => void lines.push(JSON.parse(line)) });
  return { log, lines };
}

t.test('one JSON line per event, with the stable word', async (t) => {
  const { log, lines } = capture();
  log.info('started', { port: 1 });
  log.debug('too fine');
  log.error('bare');
  t.match(lines, [{ event: 'started', node: 'n1', port: 1 }, { event: 'bare' }]);
  t.equal(lines.length, 2);
});

t.test('S6: secrets never reach the log, at any depth', async (t) => {
  const { log, lines } = capture();
  log.warn('config', { key: 'k1secret', a: { password: 'k2secret', b: [{ psk: 'k3secret' }] }, raw: Buffer.from('k4secret') });
  t.notMatch(JSON.stringify(lines), /k\dsecret/);
  t.match(lines[0], { key: '[secret]', raw: '8 bytes' });
});

t.test('tokens and other bigints are text, errors are code and message, depth is bounded', async (t) => {
  t.equal(tokenText(3, 5), String(3n * 2n ** 40n + 5n));
  const loop: Record<string, unknown> = {};
  loop.self = loop;
  t.same(loggable({ token: 12345678901234567890n, e: Object.assign(new Error('no'), { code: 'X' }), u: undefined }), {
    token: '12345678901234567890',
    e: { message: 'no', code: 'X' },
    u: undefined,
  });
  t.doesNotThrow(() => JSON.stringify(loggable(loop)));
});
