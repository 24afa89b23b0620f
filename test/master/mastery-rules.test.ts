/**
 * Goal: mastery, one rule one test. Method as in queue-rules.test.ts.
 */
import t from 'tap';
import { EX, PR } from '../../src/protocol/modes.js';
import { EngineWorld, makeView } from './harness.js';

t.test('mastery: the first node that needs a name masters it, and the others find it', async (t) => {
  const w = new EngineWorld([1, 2, 3]);
  w.lock(2, 'r', PR);
  w.settle();
  t.equal(w.masterOf('r'), 2);
  const l = w.lock(3, 'r', PR);
  w.settle();
  t.equal(w.last(l), 'granted PR');
  t.strictSame(w.mastersOf('r'), [2]);
});

t.test('mastery: of several that ask at once the lowest number wins, in every order of delivery', async (t) => {
  for (let order = 0; order < 24; order++) {
    const w = new EngineWorld([1, 2, 3]);
    w.settle();
    const locks = [1, 2, 3].map((n) => w.lock(n, 'r', EX));
    for (let i = 0; i < 200; i++) {
      const keys = [...w.queues.keys()].filter((k) => (w.queues.get(k)?.length ?? 0) > 0);
      const key = keys[(order + i * 7) % Math.max(1, keys.length)];
      if (!key) break;
      const [from, to] = key.split('>').map(Number) as [number, number];
      w.deliver(from, to);
    }
    w.settle();
    t.strictSame(w.mastersOf('r'), [1]);
    t.equal(locks.filter((l) => w.last(l) === 'granted EX').length, 1);
  }
});

t.test('rule 9: a node that knows another owner never answers no', async (t) => {
  const w = new EngineWorld([1, 2, 3]);
  w.lock(3, 'r', PR);
  w.settle();
  w.lock(2, 'r', PR);
  w.settle();
  w.lock(1, 'r', PR);
  const request = w.deliver(1, 2);
  t.equal(request?.k, 'MasterRequest');
  const reply = w.deliver(2, 1);
  t.match(reply, { k: 'MasterReply', answer: 3, owner: 3 });
});

t.test(
  'rule 9: until the barrier a node may still become master of a name, so it says retry and never no (seed 8318)',
  async (t) => {
    const w = new EngineWorld([1, 2, 3]);
    w.settle();
    w.epoch++;
    w.makeViewPending();
    w.applyNextView(2);
    w.applyNextView(1);
    w.applyNextView(3);
    for (let i = 0; i < 3; i++) {
      w.deliver(2, 1);
      w.deliver(3, 1); // node 1 has reached the barrier and asks
    }
    const l = w.lock(1, 'r', EX);
    const asked = (w.queues.get('1>2') ?? []).find((m) => m.k === 'MasterRequest');
    t.ok(asked);
    t.equal(w.engine(2).state.domains.get('default')?.isRecovering, true);
    if (asked) w.engine(2).receive(w.now, 1, asked);
    t.match((w.queues.get('2>1') ?? []).at(-1), { k: 'MasterReply', answer: 4 });
    w.advance(300);
    t.equal(w.last(l), 'granted EX');
  },
);

t.test('rule 9: a round whose request was cancelled still ends, and nobody waits for it for ever', async (t) => {
  const w = new EngineWorld([1, 2, 3]);
  w.settle();
  const a = w.lock(1, 'r', EX);
  w.deliver(1, 2);
  w.engine(1).cancel(w.now, a);
  const b = w.lock(2, 'r', EX);
  w.settle();
  t.equal(w.last(b), 'granted EX');
});

t.test('epoch: lock messages of an older domain epoch are not handled, those of a newer wait for the view', async (t) => {
  const w = new EngineWorld([1, 2]);
  w.settle();
  const l = w.lock(1, 'r', EX);
  w.epoch++;
  w.makeViewPending();
  w.applyNextView(1); // node 1 asks again, in the new epoch
  for (let i = 0; i < 5; i++) w.deliver(1, 2);
  t.equal(w.engine(2).state.domains.get('default')?.ahead.length, 1, 'RecoveryDone waits');
  w.applyNextView(2);
  w.settle();
  t.equal(w.last(l), 'granted EX');
});

t.test('bad input: odd messages of a peer are refused without a word', async (t) => {
  const w = new EngineWorld([1, 2]);
  w.settle();
  const head = { dom: 1, dep: 1, ce: 1, cc: 0 };
  const e = w.engine(1);
  e.receive(w.now, 2, { k: 'Grant', ...head, id: 99, mode: 2, te: 1, tc: 1, lvbState: 0, lvb: null });
  e.receive(w.now, 2, { k: 'UnlockDone', ...head, id: 99 });
  e.receive(w.now, 2, { k: 'MasterReply', ...head, name: 'x', answer: 9, owner: 7, gen: 0 });
  e.receive(w.now, 2, { k: 'NotMaster', ...head, name: 'x', id: 5 });
  e.receive(w.now, 2, { k: 'DerefDone', ...head, name: 'x' });
  e.receive(w.now, 7, { k: 'MasterRequest', ...head, name: 'x' });
  e.receive(w.now, 2, { k: 'MasterRequest', dom: 77, dep: 1, ce: 0, cc: 0, name: 'x' });
  t.equal(w.queues.get('1>7'), undefined, 'a stranger gets no answer');
  t.equal(makeView(1, []).domains.length, 1);
});
