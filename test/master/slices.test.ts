/**
 * Goal: recoveries in steps (T9): what comes between two steps finds everything as if it had been done at once. Method as in
 * queue-rules.test.ts; here a step is one operation, and the test says when the next one is taken.
 */
import t from 'tap';
import { placeResource } from '../../src/master/placement.js';
import { EX, NL, PR } from '../../src/protocol/modes.js';
import { EngineWorld } from './harness.js';

const STEPS = { sliceOps: 1, registerBatch: 1, registerWindow: 2 };
const NAMES = Array.from({ length: 30 }, (_, i) => `r${i}`);

/** Messages under way of one kind. */
const underWay = (w: EngineWorld, from: number, to: number, kind: string): number =>
  (w.queues.get(`${from}>${to}`) ?? []).filter((m) => m.k === kind).length;

function deliverAll(w: EngineWorld): void {
  for (let moved = true; moved; ) {
    moved = false;
    for (const key of [...w.queues.keys()]) {
      const [from, to] = key.split('>').map(Number) as [number, number];
      if (w.deliver(from, to)) moved = true;
    }
  }
}

t.test('T9: a lock of a dead node is free for who asks, though the pass has not come to its resource', async (t) => {
  const w = new EngineWorld([1, 2, 3], null, STEPS);
  for (const name of NAMES) w.lock(1, name, NL);
  w.settle();
  const held = NAMES.map((name) => w.lock(3, name, EX));
  const alive = w.lock(2, 'living', EX);
  w.lock(2, NAMES[20] as string, NL);
  w.settle();
  const [first] = held.map((l) => ({ te: l.te, tc: l.tc }));
  w.evict(3);
  t.ok(w.engine(1).state.domains.get('default')?.pass, 'the pass has only begun');
  const last = NAMES.at(-1) as string;
  const local = w.lock(1, last, EX);
  t.equal(w.last(local), 'granted EX', 'at once');
  t.ok(local.te > (first?.te ?? 0), 'with a token of the new epoch (rule 17)');
  w.unlock(2, alive);
  t.equal(w.last(alive), 'released', 'what others have is served, too');
  const remote = w.lock(2, NAMES[20] as string, EX);
  deliverAll(w);
  t.equal(w.last(remote), 'granted EX', 'and what others ask for');
  t.ok(w.engine(1).state.domains.get('default')?.pass, 'before the pass is through');
  w.settle();
  t.equal(w.engine(1).state.domains.get('default')?.isRecovering, false);
});

t.test('T9: a request that was refused with the old epoch is sent again before all else', async (t) => {
  const w = new EngineWorld([1, 2, 3], null, STEPS);
  for (const name of NAMES) w.lock(3, name, NL);
  w.settle();
  for (const name of NAMES) w.lock(2, name, PR);
  w.lock(1, 'living', NL);
  w.settle();
  w.lock(2, 'living', NL);
  w.settle();
  w.evict(3, true);
  w.applyNextView(1);
  const asked = w.lock(2, 'living', EX);
  while (w.deliver(2, 1));
  t.equal(w.last(asked), undefined, 'node 1 is past that epoch');
  w.applyNextView(2);
  while (w.deliver(2, 1));
  while (w.deliver(1, 2));
  t.equal(w.last(asked), 'granted EX');
  t.ok(w.engine(2).state.domains.get('default')?.pass, 'in the first step');
});

t.test('T9: the barrier waits for the last step of the last node', async (t) => {
  const w = new EngineWorld([1, 2, 3], null, STEPS);
  for (const name of NAMES) w.lock(3, name, NL);
  w.settle();
  const held = NAMES.map((name) => w.lock(2, name, EX));
  w.settle();
  const others = NAMES.map((name) => w.lock(1, name, EX));
  w.settle();
  w.evict(3);
  while (w.advanceOne(1)) deliverAll(w);
  let steps = 0;
  for (; w.engine(2).state.domains.get('default')?.pass; steps++) {
    t.equal(w.engine(1).state.domains.get('default')?.isRecovering, true);
    if (w.advanceOne(2) && w.engine(2).state.domains.get('default')?.pass)
      t.equal(underWay(w, 2, 1, 'RecoveryDone'), 0, 'not done before the pass is');
    deliverAll(w);
  }
  t.ok(steps >= NAMES.length / 2, `${steps} steps, besides what others asked for`);
  w.settle();
  for (const l of others) t.equal(w.last(l), undefined, 'nobody was granted what another holds');
  for (const l of held) w.unlock(2, l);
  w.settle();
  for (const l of others) t.equal(w.last(l), 'granted EX');
});

t.test('rule 25: registrations have a window of their own', async (t) => {
  const w = new EngineWorld([1, 2, 3], null, STEPS);
  for (const name of NAMES) w.lock(3, name, NL);
  w.settle();
  for (const name of NAMES) w.lock(2, name, PR);
  w.settle();
  w.evict(3);
  while (w.advanceOne(2));
  t.equal(underWay(w, 2, 1, 'Register'), STEPS.registerWindow, 'no more before they have been handled');
  t.equal(w.engine(2).hasWork, false, 'and nothing to do until then');
  while (w.deliver(2, 1)?.k !== 'Register');
  while (w.deliver(1, 2)?.k !== 'RegisterDone');
  t.equal(w.engine(2).hasWork, true);
  while (w.advanceOne(2));
  t.equal(underWay(w, 2, 1, 'Register'), STEPS.registerWindow);
  w.settle();
  for (const name of NAMES) t.equal(w.masterOf(name), placeResource(name, w.members));
});

t.test('T9: behind the barrier requests wait for their resource alone, in order', async (t) => {
  const w = new EngineWorld([1, 2, 3], null, STEPS);
  const mine = NAMES.filter((name) => placeResource(name, w.members.slice(0, 2)) === 1);
  for (const name of NAMES) w.lock(3, name, NL);
  w.settle();
  const held = mine.map((name) => w.lock(2, name, PR));
  w.settle();
  w.evict(3);
  const domain = w.engine(1).state.domains.get('default');
  for (let i = 0; i < 1000 && domain?.isRecovering; i++) {
    w.advanceOne(1);
    w.advanceOne(2);
    deliverAll(w);
  }
  const left = domain?.toRebuild.size ?? 0;
  t.ok(left > 1, `${left} resources are still to be rebuilt`);
  const name = mine.at(-1) as string;
  const cancelled = w.lock(2, name, EX);
  w.engine(2).cancel(w.now, cancelled);
  const waits = w.lock(2, name, EX);
  w.unlock(2, held.at(-1) as (typeof held)[number]);
  deliverAll(w);
  t.equal(domain?.toRebuild.size, left, 'none of this hurries');
  const fresh = w.lock(2, 'fresh', EX);
  deliverAll(w);
  w.advance(100);
  t.equal(w.last(fresh), 'granted EX', 'another name does not wait');
  w.settle();
  t.equal(w.last(cancelled), 'denied TSDLM_CANCELLED');
  t.equal(w.last(waits), 'granted EX');
});

t.test('T9: a second change in the middle finds every resource placed where the others have it', async (t) => {
  for (let steps = 0; steps <= NAMES.length + 5; steps++) {
    const w = new EngineWorld([1, 2, 3, 4], null, STEPS);
    for (const name of NAMES) w.lock(4, name, NL);
    w.settle();
    const held = NAMES.map((name) => w.lock(1, name, PR));
    for (const name of NAMES) w.lock(2, name, PR);
    w.settle();
    w.evict(4);
    // One node is through with the first change, one in the middle of it.
    while (w.advanceOne(1)) deliverAll(w);
    for (let i = 0; i < steps; i++) if (w.advanceOne(2)) deliverAll(w);
    w.members = [...w.members, { node: 5, startCount: 7, continues: 0, keeps: false }];
    w.addEngine(5, 7);
    w.epoch++;
    w.setView();
    w.settle();
    const two = NAMES.filter((name) => w.mastersOf(name).length !== 1);
    t.strictSame(two, [], `${steps} steps before the second change`);
    for (const l of held) w.unlock(1, l);
    const next = NAMES.map((name) => w.lock(3, name, EX));
    w.settle();
    t.equal(next.filter((l) => w.last(l) !== undefined).length, 0, 'the other holder is known to every new master');
  }
});

t.test('T9: what one new master has confirmed is confirmed, also behind many that wait for another', async (t) => {
  const w = new EngineWorld([1, 2, 3, 4], null, STEPS);
  for (const name of NAMES) w.lock(4, name, NL);
  w.settle();
  for (const name of NAMES) w.lock(1, name, PR);
  w.settle();
  w.evict(4);
  const domain = w.engine(1).state.domains.get('default');
  const ownedBy = (node: number): number => [...(domain?.unconfirmed ?? [])].filter((res) => res.owner === node).length;
  for (let i = 0; i < 1000; i++) {
    for (const node of [1, 2, 3]) w.advanceOne(node);
    for (const [from, to] of [
      [1, 2],
      [1, 3],
      [2, 3],
      [3, 2],
      [2, 1],
    ] as const)
      w.deliver(from, to);
    // Node 3 reaches node 1 only until the barrier: its confirmation is still on its way.
    const next = w.queues.get('3>1')?.[0];
    if (next?.k !== 'RecoveryActive' || next.dom !== domain?.dom) w.deliver(3, 1);
  }
  t.equal(ownedBy(2), 0, 'node 2 has confirmed');
  t.ok(ownedBy(3) > 0, 'node 3 has not');
  t.equal(w.engine(1).hasWork, false, 'and nobody looks for it all the time');
  w.settle();
  t.equal(domain?.unconfirmed.size, 0);
});
