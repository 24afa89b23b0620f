/**
 * Goal: each rule of the queues, one test each. Method: engines in one process, views by hand; make the state, give one
 * input, look. Sources: fs/ocfs2/dlm (modes), fs/dlm lock.c (VAXcluster rules), design section 6.
 */
import t from 'tap';
import { EX, NL, PR } from '../../src/protocol/modes.js';
import { EngineWorld } from './harness.js';

t.test('modes: NL goes with all, PR with PR, EX with NL only', async (t) => {
  for (const [a, b, together] of [
    [NL, NL, true],
    [NL, PR, true],
    [NL, EX, true],
    [PR, PR, true],
    [PR, EX, false],
    [EX, PR, false],
    [EX, EX, false],
  ] as const) {
    const w = new EngineWorld([1]);
    w.lock(1, 'r', a);
    const second = w.lock(1, 'r', b);
    t.equal(w.last(second)?.startsWith('granted') ?? false, together, `${a} then ${b}`);
  }
});

t.test('queue: waiters are served first come first served', async (t) => {
  const w = new EngineWorld([1]);
  const a = w.lock(1, 'r', EX);
  const b = w.lock(1, 'r', EX);
  const c = w.lock(1, 'r', EX);
  w.unlock(1, a);
  t.equal(w.last(b), 'granted EX');
  t.equal(w.last(c), undefined);
  w.unlock(1, b);
  t.equal(w.last(c), 'granted EX');
});

t.test('queue: a new PR does not overtake a waiting EX', async (t) => {
  const w = new EngineWorld([1]);
  const a = w.lock(1, 'r', PR);
  const b = w.lock(1, 'r', EX);
  const c = w.lock(1, 'r', PR);
  t.equal(w.last(b), undefined);
  t.equal(w.last(c), undefined);
  w.unlock(1, a);
  t.equal(w.last(b), 'granted EX');
  w.unlock(1, b);
  t.equal(w.last(c), 'granted PR');
});

t.test('queue: all PR waiters at the head are granted together', async (t) => {
  const w = new EngineWorld([1]);
  const a = w.lock(1, 'r', EX);
  const readers = [w.lock(1, 'r', PR), w.lock(1, 'r', PR), w.lock(1, 'r', PR)];
  const writer = w.lock(1, 'r', EX);
  w.unlock(1, a);
  for (const r of readers) t.equal(w.last(r), 'granted PR');
  t.equal(w.last(writer), undefined);
});

t.test('queue: NL is granted whoever holds or waits', async (t) => {
  const w = new EngineWorld([1]);
  w.lock(1, 'r', EX);
  w.lock(1, 'r', EX);
  t.equal(w.last(w.lock(1, 'r', NL)), 'granted NL');
});

t.test('try: refused at once when somebody is in the way, and leaves nothing behind', async (t) => {
  const w = new EngineWorld([1]);
  const a = w.lock(1, 'r', EX);
  t.equal(w.last(w.lock(1, 'r', PR, { try: true })), 'denied TSDLM_CONFLICT');
  t.strictSame(w.of(a), ['granted EX'], 'no BAST');
  w.unlock(1, a);
  t.equal(w.last(w.lock(1, 'r', EX)), 'granted EX');
});

t.test('rule 22: a try is refused when anyone waits, though it were compatible', async (t) => {
  const w = new EngineWorld([1]);
  w.lock(1, 'r', PR);
  w.lock(1, 'r', EX);
  t.equal(w.last(w.lock(1, 'r', PR, { try: true })), 'denied TSDLM_CONFLICT');
});

t.test('rule 22: a try that cannot be decided ends with unavailable, never conflict', async (t) => {
  const w = new EngineWorld([1, 2]);
  w.settle();
  w.kill(2); // dead, and no new view yet: its answer to the mastery round never comes
  const l = w.lock(1, 'r', EX, { try: true });
  w.advance(700);
  t.equal(w.last(l), 'denied TSDLM_UNAVAILABLE');
});

t.test('convert: down is granted at once and lets waiters in', async (t) => {
  const w = new EngineWorld([1]);
  const a = w.lock(1, 'r', EX);
  const b = w.lock(1, 'r', PR);
  w.convert(1, a, PR);
  t.equal(w.last(a), 'granted PR');
  t.equal(w.last(b), 'granted PR');
});

t.test('convert: PR -> EX goes before new requests', async (t) => {
  const w = new EngineWorld([1]);
  const a = w.lock(1, 'r', PR);
  const b = w.lock(1, 'r', PR);
  const c = w.lock(1, 'r', EX);
  w.convert(1, a, EX);
  t.equal(w.of(b).at(-1), 'bast EX');
  w.unlock(1, b);
  t.equal(w.last(a), 'granted EX');
  t.equal(w.last(c), undefined);
});

t.test('rule 21: two PR -> EX conversions are a deadlock, the second is told at once, also on one node', async (t) => {
  for (const nodes of [[1], [1, 2]]) {
    const w = new EngineWorld(nodes);
    const a = w.lock(1, 'r', PR);
    w.settle();
    const second = nodes.at(-1) as number;
    const b = w.lock(second, 'r', PR);
    w.settle();
    w.convert(1, a, EX);
    w.settle();
    w.convert(second, b, EX);
    w.settle();
    t.equal(w.last(b), 'denied TSDLM_DEADLOCK');
    t.equal(b.mode, PR, 'keeps its mode');
    w.unlock(second, b);
    w.settle();
    t.equal(w.last(a), 'granted EX');
  }
});

t.test('rule 21: NL -> EX queues as a new request, behind those who waited before', async (t) => {
  const w = new EngineWorld([1]);
  const a = w.lock(1, 'r', NL);
  const b = w.lock(1, 'r', EX);
  const c = w.lock(1, 'r', EX);
  w.convert(1, a, EX);
  w.unlock(1, b);
  t.equal(w.last(c), 'granted EX');
  w.unlock(1, c);
  t.equal(w.last(a), 'granted EX');
});

t.test('BAST: whoever is in the way of the first waiter gets one, once per higher mode', async (t) => {
  const w = new EngineWorld([1]);
  const a = w.lock(1, 'r', EX);
  w.lock(1, 'r', PR);
  w.lock(1, 'r', PR);
  w.lock(1, 'r', EX);
  t.strictSame(w.of(a), ['granted EX', 'bast PR'], 'the head asks for PR only');
});

t.test('cancel: a waiting request goes, those behind it move up', async (t) => {
  const w = new EngineWorld([1]);
  w.lock(1, 'r', PR);
  const b = w.lock(1, 'r', EX);
  const c = w.lock(1, 'r', PR);
  w.engine(1).cancel(w.now, b);
  t.equal(w.last(b), 'denied TSDLM_CANCELLED');
  t.equal(w.last(c), 'granted PR');
});

t.test('cancel: a conversion goes back to the mode it had', async (t) => {
  const w = new EngineWorld([1, 2]);
  const a = w.lock(1, 'r', PR);
  w.settle();
  const b = w.lock(2, 'r', PR);
  w.settle();
  w.convert(2, b, EX);
  w.settle();
  w.engine(2).cancel(w.now, b);
  w.settle();
  t.equal(w.last(b), 'denied TSDLM_CANCELLED');
  t.equal(b.mode, PR);
  w.unlock(1, a);
  w.settle();
  t.equal(b.mode, PR);
});

t.test('trap 5: a grant that crosses a cancel of a remote request is given back by itself', async (t) => {
  const w = new EngineWorld([1, 2]);
  const a = w.lock(1, 'r', EX);
  w.settle();
  const b = w.lock(2, 'r', EX);
  w.settle();
  w.unlock(1, a); // the Grant is on its way to node 2
  w.engine(2).cancel(w.now, b);
  t.equal(w.last(b), 'denied TSDLM_CANCELLED');
  w.settle();
  t.equal(w.last(w.lock(1, 'r', EX)), 'granted EX');
});

t.test('timeout: a waiting request ends with TIMEOUT at its deadline', async (t) => {
  const w = new EngineWorld([1, 2]);
  w.lock(1, 'r', EX);
  w.settle();
  const b = w.lock(2, 'r', EX, { deadline: w.now + 300 });
  w.advance(250);
  t.equal(w.last(b), undefined);
  w.advance(150);
  t.equal(w.last(b), 'denied TSDLM_TIMEOUT');
});

t.test('LVB: what the last EX holder wrote is what the next PR holder gets, over nodes', async (t) => {
  const w = new EngineWorld([1, 2]);
  const a = w.lock(1, 'r', EX, { lvb: true });
  w.settle();
  t.equal(a.lvbState, 0, 'none at first');
  w.unlock(1, a, new Uint8Array(64).fill(7));
  const b = w.lock(2, 'r', PR, { lvb: true });
  w.settle();
  t.equal(b.lvbState, 1);
  t.equal(b.lvb?.[63], 7);
});

t.test('rule 18: the value block of an EX holder whose client died is invalid', async (t) => {
  const w = new EngineWorld([1]);
  const keep = w.lock(1, 'r', NL);
  const a = w.lock(1, 'r', EX, { lvb: true });
  w.engine(1).unlock(w.now, a, { lvbInvalid: true });
  const b = w.lock(1, 'r', PR, { lvb: true });
  t.equal(b.lvbState, 2);
  t.ok(keep);
});

t.test('tokens: every EX grant has a larger one, over nodes and over a purge', async (t) => {
  const w = new EngineWorld([1, 2, 3]);
  let last = 0n;
  for (let round = 0; round < 12; round++) {
    const node = 1 + (round % 3);
    const l = w.lock(node, 'r', EX);
    w.settle();
    const token = w.events.filter((e) => e.lock === l).at(-1)?.token ?? 0n;
    t.ok(token > last, `${token} > ${last}`);
    last = token;
    w.unlock(node, l);
    w.settle();
    if (round % 4 === 3) {
      w.advance(1500); // unused: every node forgets it
      for (const engine of w.engines.values()) t.equal(engine.state.domains.get('default')?.resources.size, 0);
    }
  }
});
