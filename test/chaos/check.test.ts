import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import t from 'tap';
import { type Judgement, judge } from './check.js';
import { type ClientRecord, counterText } from './records.js';

const grant = (h: number, token: number, at: number): ClientRecord => ({
  e: 'grant',
  h,
  n: 'a',
  m: 'EX',
  t: String(token),
  at,
});
const write = (h: number, v: number, at: number, late = false): ClientRecord[] => [
  { e: 'intent', h, n: 'a', v, at },
  { e: 'done', h, n: 'a', v, late },
];
const end = (h: number, until: number): ClientRecord => ({ e: 'end', h, until, why: 'release' });

/** Two clients and one counter; client 2 was killed. */
function judged(value: number, one: ClientRecord[], two: ClientRecord[], tail = ''): Judgement {
  const dir = mkdtempSync(join(tmpdir(), 'tsdlm-test-'));
  try {
    writeFileSync(join(dir, 'a'), counterText({ value, token: 9n }));
    const text = (records: ClientRecord[]): string => records.map((r) => `${JSON.stringify(r)}\n`).join('');
    writeFileSync(join(dir, 'client-1.jsonl'), text(one));
    writeFileSync(join(dir, 'client-2.jsonl'), text(two) + tail);
    return judge(dir, ['a'], (client) => client === '2', []);
  } finally {
    rmSync(dir, { recursive: true });
  }
}

const ONE = [grant(1, 5, 100), ...write(1, 1, 105), end(1, 110)];

t.test('what can all be true is accepted', async (t) => {
  const two = [grant(1, 6, 120), ...write(1, 2, 125), end(1, 130), grant(2, 7, 140)];
  const result = judged(2, ONE, two, '{"e":"int');
  t.same(result.problems, []);
  t.match(result, { grants: 3, acknowledged: 2, unknown: 0, late: 0, gapMs: 20, gapName: 'a' });
});

t.test('a lost increment and one too many are found', async (t) => {
  t.match(judged(0, ONE, []).problems, [/counter 'a' is 0: 1 acknowledged, 0 unknown/]);
  t.match(judged(2, ONE, []).problems, [/counter 'a' is 2: 1 acknowledged, 0 unknown/]);
});

t.test('the last increment of a killed client may have happened or not', async (t) => {
  const two: ClientRecord[] = [grant(1, 6, 120), { e: 'intent', h: 1, n: 'a', v: 2, at: 125 }];
  t.same(judged(1, ONE, two).problems, []);
  t.same(judged(2, ONE, two).problems, []);
  t.match(judged(3, ONE, two).problems, [/counter 'a' is 3/]);
});

t.test('two holds at one time are found, as far as it is known that they lasted', async (t) => {
  t.match(judged(1, ONE, [grant(1, 6, 109)]).problems, []);
  t.match(judged(1, ONE, [grant(1, 6, 105), { e: 'alive', h: 1, at: 107 }]).problems, [/^S1: .*client 1.*client 2/]);
  t.match(judged(1, ONE, [grant(1, 6, 90), { e: 'alive', h: 1, at: 101 }]).problems, [/^S1/, /^S2/]);
});

t.test('tokens that do not rise are found', async (t) => {
  t.match(judged(1, ONE, [grant(1, 5, 120), end(1, 121)]).problems, [/^S2: token 5/]);
});

t.test('a request without an answer is found, unless its client was killed', async (t) => {
  const wait: ClientRecord = { e: 'wait', w: 3, n: 'a', at: 200 };
  t.match(judged(1, [...ONE, wait], []).problems, [/client 1 was never answered for 'a'/]);
  t.same(judged(1, ONE, [wait]).problems, []);
});

t.test('a write that came back after its deadline may have undone others', async (t) => {
  const late = [grant(1, 6, 120), ...write(1, 2, 125, true), end(1, 130)];
  const result = judged(1, ONE, late);
  t.same(result.problems, []);
  t.equal(result.late, 1);
});

t.test('what a client itself found is passed on', async (t) => {
  t.same(judged(1, [...ONE, { e: 'bad', text: 'it was written', at: 1 }], []).problems, ['it was written']);
});
