/**
 * Goal: recovery, hand-over and claims, one rule one test. Method as in queue-rules.test.ts.
 */
import t from 'tap';
import type { Lock } from '../../src/master/lock.js';
import { placeResource } from '../../src/master/placement.js';
import { EX, NL, PR } from '../../src/protocol/modes.js';
import { EngineWorld } from './harness.js';

t.test('recovery: what survivors hold and wait for is rebuilt at a new master', async (t) => {
  const w = new EngineWorld([1, 2, 3]);
  const names = Array.from({ length: 20 }, (_, i) => `r${i}`);
  const anchors = names.map((name) => w.lock(1, name, NL));
  w.settle();
  const held = names.map((name) => w.lock(2, name, EX));
  w.settle();
  const waiting = names.map((name) => w.lock(3, name, EX));
  w.settle();
  for (const name of names) t.equal(w.masterOf(name), 1);
  w.evict(1);
  w.settle();
  const masters = new Set(names.map((name) => w.masterOf(name)));
  t.strictSame([...masters].sort(), [2, 3], 'spread over the survivors');
  for (const name of names) t.equal(w.masterOf(name), placeResource(name, w.members));
  for (const l of held) w.unlock(2, l);
  w.settle();
  for (const l of waiting) t.equal(w.last(l), 'granted EX');
  t.ok(anchors);
});

t.test('rule 21: recovered waiters keep their order by stamp', async (t) => {
  const w = new EngineWorld([1, 2, 3, 4]);
  w.lock(1, 'r', NL);
  w.settle();
  const holder = w.lock(2, 'r', EX);
  w.settle();
  const order = [3, 2, 4, 3].map((node) => {
    const l = w.lock(node, 'r', EX);
    w.settle();
    return { node, l };
  });
  w.evict(1);
  w.settle();
  w.unlock(2, holder);
  w.settle();
  for (const { node, l } of order) {
    t.equal(w.last(l), 'granted EX');
    w.unlock(node, l);
    w.settle();
  }
});

t.test('recovery: a converting lock is not forgotten', async (t) => {
  const w = new EngineWorld([1, 2, 3]);
  w.lock(1, 'r', NL);
  w.settle();
  const a = w.lock(2, 'r', PR);
  const b = w.lock(3, 'r', PR);
  w.settle();
  w.convert(2, a, EX);
  w.settle();
  w.evict(1);
  w.settle();
  t.equal(a.mode, PR);
  w.unlock(3, b);
  w.settle();
  t.equal(w.last(a), 'granted EX');
});

t.test('rule 18: with no PR or EX copy left the value block is invalid, not old and not none', async (t) => {
  const w = new EngineWorld([1, 2, 3]);
  w.lock(1, 'r', NL);
  w.settle();
  const keep = w.lock(3, 'r', NL);
  const a = w.lock(2, 'r', EX, { lvb: true });
  w.settle();
  w.unlock(2, a, new Uint8Array(64).fill(8)); // the master dies before it answers
  w.evict(1);
  w.settle();
  const b = w.lock(3, 'r', PR, { lvb: true });
  w.settle();
  t.equal(b.lvbState, 2);
  t.ok(keep);
});

t.test('rule 18: a PR copy carries the value block through the death of the master', async (t) => {
  const w = new EngineWorld([1, 2, 3]);
  const a = w.lock(1, 'r', EX, { lvb: true });
  w.settle();
  w.unlock(1, a, new Uint8Array(64).fill(9));
  w.lock(2, 'r', PR);
  w.settle();
  w.evict(1);
  w.settle();
  const b = w.lock(3, 'r', PR, { lvb: true });
  w.settle();
  t.equal(b.lvbState, 1);
  t.equal(b.lvb?.[0], 9);
});

t.test('S3: the death of an EX holder makes the value block invalid at a living master', async (t) => {
  const w = new EngineWorld([1, 2]);
  w.lock(1, 'r', NL);
  w.settle();
  w.lock(2, 'r', EX, { lvb: true });
  w.settle();
  w.evict(2);
  w.settle();
  t.equal(w.lock(1, 'r', PR, { lvb: true }).lvbState, 2);
});

t.test('rule 25: a second death in the middle of a recovery starts it again', async (t) => {
  for (let cut = 0; cut < 30; cut++) {
    const w = new EngineWorld([1, 2, 3, 4]);
    w.lock(1, 'r', NL);
    w.settle();
    const a = w.lock(3, 'r', EX);
    w.settle();
    const b = w.lock(4, 'r', EX);
    w.settle();
    w.evict(1);
    for (let i = 0; i < cut; i++) {
      const keys = [...w.queues.keys()].filter((k) => (w.queues.get(k)?.length ?? 0) > 0);
      const key = keys[(i * 5) % Math.max(1, keys.length)];
      if (!key) break;
      const [from, to] = key.split('>').map(Number) as [number, number];
      w.deliver(from, to);
    }
    w.evict(2);
    w.settle();
    t.equal(w.last(a), 'granted EX');
    w.unlock(3, a);
    w.settle();
    t.equal(w.last(b), 'granted EX', `after ${cut} messages`);
    t.equal(w.mastersOf('r').length, 1);
  }
});

t.test('hand-over: a master that leaves takes queues and value block to others, nobody notices', async (t) => {
  const w = new EngineWorld([1, 2, 3]);
  const keep = w.lock(1, 'r', EX, { lvb: true });
  w.settle();
  w.unlock(1, keep, new Uint8Array(64).fill(5));
  const nl = w.lock(2, 'r', NL); // no PR or EX copy: only the leaving master knows the block
  w.settle();
  const me = w.members.find((m) => m.node === 1);
  t.ok(me);
  w.engine(1).stop(w.now);
  w.members = w.members.filter((m) => m.node !== 1);
  w.epoch++;
  w.setView(me ? [me] : []);
  w.settle();
  t.equal(w.engine(1).state.domains.get('default')?.handing.size, 0, 'all confirmed');
  w.kill(1);
  w.epoch++;
  w.setView();
  w.settle();
  const b = w.lock(3, 'r', PR, { lvb: true });
  w.settle();
  t.equal(b.lvbState, 1);
  t.equal(b.lvb?.[0], 5);
  t.equal(w.last(nl), 'granted NL');
});

t.test(
  'S3: a grant that the leaving master gave too late for its owner takes no value along (simulator: a vote taken)',
  async (t) => {
    for (const how of ['lock', 'try', 'convert'] as const) {
      const w = new EngineWorld([1, 2, 3]);
      const first = w.lock(1, 'r', EX, { lvb: true });
      w.settle();
      w.unlock(1, first, new Uint8Array(64).fill(5));
      const holder = w.lock(3, 'r', PR, { lvb: true });
      w.settle();
      const late = w.lock(2, 'r', how === 'convert' ? NL : how === 'lock' ? EX : NL, { lvb: true });
      w.settle();
      if (how === 'convert') w.convert(2, late, EX);
      w.settle();
      const behind = how === 'lock' ? w.lock(3, 'r', EX, { lvb: true }) : null;
      w.settle();
      const me = w.members.find((m) => m.node === 1);
      t.ok(me);
      w.engine(1).stop(w.now);
      w.members = w.members.filter((m) => m.node !== 1);
      // The owner of the late grant is in the new epoch; the leaving master is not yet, and grants.
      const tried = how === 'try' ? w.lock(2, 'r', EX, { lvb: true, try: true }) : null;
      w.unlock(3, holder);
      while (w.deliver(3, 1));
      w.epoch++;
      w.makeViewPending(me ? [me] : []);
      w.applyNextView(2);
      while (w.deliver(2, 1));
      t.ok(
        (w.queues.get('1>2') ?? []).some((m) => m.k === 'Grant' && m.mode === EX),
        `${how}: the grant is on its way`,
      );
      w.applyViews();
      w.settle();
      const last = tried ?? late;
      if (w.last(last) !== 'granted EX') w.advance(1000);
      const reader = w.last(last) === 'granted EX' ? last : w.lock(3, 'r', PR, { lvb: true });
      w.settle();
      t.equal(reader.lvbState, 1, how);
      t.equal(reader.lvb?.[0], 5, how);
      if (behind) {
        t.equal(w.last(late), 'granted EX', 'who was granted first is granted first');
        t.equal(w.last(behind), undefined);
      }
    }
  },
);

t.test('S3: what a leaving master hands over is not older than what its successor, dead by now, has granted', async (t) => {
  const w = new EngineWorld([1, 2, 3, 4]);
  const first = w.lock(1, 'r', EX, { lvb: true });
  w.settle();
  w.unlock(1, first, new Uint8Array(64).fill(5));
  for (const node of [2, 3, 4]) w.lock(node, 'r', NL);
  w.settle();
  const me = w.members.filter((m) => m.node === 1);
  w.engine(1).stop(w.now);
  w.members = w.members.filter((m) => m.node !== 1);
  w.epoch++;
  w.setView(me);
  // All but the word of the successors to who leaves arrives.
  const settle = (): void => {
    for (let isMoving = true; isMoving; ) {
      isMoving = [...w.engines.keys()].some((node) => w.advanceOne(node));
      for (const [key, queue] of [...w.queues]) {
        if (queue.length === 0 || (key.endsWith('>1') && queue[0]?.k === 'RecoveryActive')) continue;
        const [from, to] = key.split('>').map(Number) as [number, number];
        w.deliver(from, to);
        isMoving = true;
      }
    }
  };
  settle();
  const successor = w.masterOf('r');
  t.ok(successor > 1);
  const [writer, other] = [2, 3, 4].filter((node) => node !== successor) as [number, number];
  const held = w.lock(writer, 'r', EX, { lvb: true });
  settle();
  t.equal(w.last(held), 'granted EX');
  t.equal(held.lvb?.[0], 5);
  w.unlock(writer, held, new Uint8Array(64).fill(9));
  settle();
  t.equal(w.last(held), 'released');
  w.kill(successor);
  w.members = w.members.filter((m) => m.node !== successor);
  w.epoch++;
  w.setView(me);
  w.settle();
  const reader = w.lock(other, 'r', PR, { lvb: true });
  w.settle();
  t.equal(w.last(reader), 'granted PR');
  t.equal(reader.lvbState, 2, 'nobody knows it: the value of before the hand-over is not the last');
  t.equal(w.engine(1).state.domains.get('default')?.handing.size ?? 0, 0);
});

t.test('S3: a value whose release is under way while its master leaves is not forgotten', async (t) => {
  for (const how of ['unlock', 'down'] as const) {
    const w = new EngineWorld([1, 2, 3]);
    w.lock(1, 'r', NL);
    w.settle();
    const first = w.lock(2, 'r', EX, { lvb: true });
    w.settle();
    w.unlock(2, first, new Uint8Array(64).fill(1));
    w.settle();
    const held = w.lock(2, 'r', EX, { lvb: true });
    w.settle();
    for (const e of w.events.filter((x) => x.at === 1 && x.lock.name === 'r')) w.unlock(1, e.lock);
    w.settle();
    const me = w.members.filter((m) => m.node === 1);
    const value = new Uint8Array(64).fill(2);
    if (how === 'unlock') w.unlock(2, held, value);
    else w.convert(2, held, NL, false, value);
    w.engine(1).stop(w.now);
    w.members = w.members.filter((m) => m.node !== 1);
    w.epoch++;
    w.setView(me);
    w.settle();
    const reader = w.lock(3, 'r', PR, { lvb: true });
    w.settle();
    t.equal(reader.lvbState, 1, how);
    t.equal(reader.lvb?.[0], 2, how);
  }
});

t.test('S3: a conversion to the mode already held keeps what was written, at a remote master', async (t) => {
  const w = new EngineWorld([1, 2]);
  w.lock(1, 'r', NL);
  w.settle();
  const l = w.lock(2, 'r', EX, { lvb: true });
  w.settle();
  w.engine(2).writeLvb(l, new Uint8Array(64).fill(3));
  w.convert(2, l, EX);
  w.settle();
  w.unlock(2, l);
  const reader = w.lock(1, 'r', PR, { lvb: true });
  w.settle();
  t.equal(reader.lvb?.[0], 3);
});

t.test('rule 25: after a link reset nothing of that epoch counts any more between the pair', async (t) => {
  const w = new EngineWorld([1, 2]);
  w.settle();
  const l = w.lock(1, 'r', EX);
  w.queues.clear(); // what was in flight is lost
  w.engine(1).peerReset(w.now, 2, 1);
  w.engine(2).peerReset(w.now, 1, 1);
  t.ok(w.commands.some((c) => c.command.c === 'bump'));
  w.settle();
  t.equal(w.last(l), undefined);
  w.epoch++;
  w.setView();
  w.settle();
  t.equal(w.last(l), 'granted EX');
});

t.test('rule 25: a BAST that comes before the grant it belongs to is kept and applied at the grant', async (t) => {
  const w = new EngineWorld([1, 2]);
  w.lock(1, 'r', NL);
  w.settle();
  w.lock(2, 'r', NL); // node 2 knows the master now
  w.settle();
  const l = w.lock(2, 'r', EX);
  w.deliver(2, 1);
  w.lock(1, 'r', EX);
  const queue = w.queues.get('1>2') ?? [];
  t.strictSame(
    queue.map((m) => m.k),
    ['Grant', 'Bast'],
  );
  queue.reverse();
  w.settle();
  t.strictSame(w.of(l), ['granted EX', 'bast EX']);
});

t.test('rules 1 and 3: a restarted node claims its node-owned locks before anyone can take them', async (t) => {
  const w = new EngineWorld([1, 2, 3]);
  // Mastered by the restarting node itself: nobody else knows the lock.
  const own = w.lock(2, 'vip', EX, { nodeOwned: true });
  w.settle();
  t.equal(w.last(own), 'granted EX');
  // And one that another node masters.
  w.lock(1, 'disk', NL);
  w.settle();
  w.lock(2, 'disk', EX, { nodeOwned: true });
  w.settle();
  const records = [...(w.journals.get(2)?.values() ?? [])].flatMap((op) => (op.op === 'put' ? [op.record] : []));
  t.equal(records.length, 2);
  w.kill(2);
  w.addEngine(2, 2, records);
  w.members = w.members.map((m) => (m.node === 2 ? { node: 2, startCount: 2, continues: 1, keeps: false } : m));
  w.epoch++;
  w.setView();
  const vip = w.lock(1, 'vip', EX);
  const disk = w.lock(3, 'disk', EX);
  w.advance(1000);
  t.equal(w.last(vip), undefined, 'still owned by node 2');
  t.equal(w.last(disk), undefined, 'still owned by node 2');
  const back = w.events.filter((e) => e.at === 2 && e.what === 'granted' && e.lock.nodeOwned).map((e) => e.lock);
  t.equal(new Set(back.map((l) => l.name)).size, 2);
  for (const l of new Set(back)) if ((l as Lock).st === 3) w.unlock(2, l);
  w.settle();
  t.equal(w.last(vip), 'granted EX');
  t.equal(w.last(disk), 'granted EX');
});

t.test('rule 1: a claim whose master dies before it confirmed counts as held at the next master', async (t) => {
  const w = new EngineWorld([1, 2, 3]);
  const names = ['a', 'b', 'c', 'd', 'e', 'f'];
  for (const name of names) w.lock(1, name, NL);
  w.settle();
  for (const name of names) w.lock(2, name, EX, { nodeOwned: true });
  w.settle();
  const records = [...(w.journals.get(2)?.values() ?? [])].flatMap((op) => (op.op === 'put' ? [op.record] : []));
  const waiters = names.map((name) => w.lock(3, name, EX));
  w.settle();
  w.kill(2);
  w.addEngine(2, 2, records);
  w.members = w.members.map((m) => (m.node === 2 ? { node: 2, startCount: 2, continues: 1, keeps: false } : m));
  w.epoch++;
  w.setView();
  // Node 2 learns the master, its reclaims are on their way, and the master dies.
  for (let i = 0; i < 40; i++) {
    w.deliver(2, 3);
    w.deliver(3, 2);
    w.deliver(1, 2);
    if (i < 8) w.deliver(2, 1);
  }
  w.evict(1);
  w.advance(500);
  for (const l of waiters) t.equal(w.last(l), undefined, 'still owned by node 2');
  const back = new Set(
    w.events.filter((e) => e.at === 2 && e.what === 'granted' && (e.lock as Lock).st === 3).map((e) => e.lock),
  );
  for (const l of back) if (l.nodeOwned) w.unlock(2, l);
  w.advance(500);
  for (const l of waiters) t.equal(w.last(l), 'granted EX');
});

t.test('rule 1: a claim for a name that the others place at the claiming node itself (seed 439)', async (t) => {
  const w = new EngineWorld([1, 2, 3]);
  const names = ['a', 'b', 'c', 'd', 'e', 'f', 'g', 'h'];
  const own = names.map((name) => w.lock(2, name, PR, { nodeOwned: true }));
  w.settle();
  const others = names.map((name) => w.lock(3, name, PR));
  w.settle();
  const records = [...(w.journals.get(2)?.values() ?? [])].flatMap((op) => (op.op === 'put' ? [op.record] : []));
  w.kill(2);
  w.addEngine(2, 2, records);
  w.members = w.members.map((m) => (m.node === 2 ? { node: 2, startCount: 2, continues: 1, keeps: false } : m));
  t.ok(names.some((name) => placeResource(name, w.members) === 2));
  w.epoch++;
  w.setView();
  for (let i = 0; i < 10; i++) w.deliver(3, 2); // registrations come before any answer to node 2's rounds
  w.settle();
  for (const engine of w.engines.values()) t.equal(engine.state.domains.get('default')?.isRecovering, false);
  const writer = names.map((name) => w.lock(1, name, EX));
  w.settle();
  for (const l of others) w.unlock(3, l);
  w.settle();
  for (const l of writer) t.equal(w.last(l), undefined, 'node 2 still owns it');
  t.ok(own);
});

t.test('rule 3: a node-owned lock goes down in the journal before its conversion leaves the node', async (t) => {
  const w = new EngineWorld([1, 2]);
  w.lock(1, 'r', NL);
  w.settle();
  const l = w.lock(2, 'r', EX, { nodeOwned: true });
  w.settle();
  w.convert(2, l, PR);
  t.equal(w.queues.get('2>1')?.length ?? 0, 0, 'nothing sent yet');
  w.writeJournals();
  t.equal(w.queues.get('2>1')?.at(-1)?.k, 'ConvertRequest');
  const entry = [...(w.journals.get(2)?.values() ?? [])][0];
  t.match(entry, { record: { mode: PR } });
});

t.test('rule 3: claims of a node that was evicted meanwhile are void', async (t) => {
  const w = new EngineWorld([1, 2]);
  w.lock(2, 'vip', EX, { nodeOwned: true });
  w.settle();
  const records = [...(w.journals.get(2)?.values() ?? [])].flatMap((op) => (op.op === 'put' ? [op.record] : []));
  w.evict(2);
  const taken = w.lock(1, 'vip', EX);
  t.equal(w.last(taken), 'granted EX');
  w.addEngine(2, 2, records);
  w.members = [...w.members, { node: 2, startCount: 2, continues: 0, keeps: false }];
  w.epoch++;
  w.setView();
  w.settle();
  t.ok(w.events.some((e) => e.at === 2 && e.what === 'lost' && e.lock.name === 'vip'));
  t.equal(w.journals.get(2)?.size, 0, 'and out of the journal');
});

t.test('rule 3: a node-owned lock leaves the journal before its release leaves the node', async (t) => {
  const w = new EngineWorld([1, 2]);
  w.lock(1, 'r', NL);
  w.settle();
  const l = w.lock(2, 'r', EX, { nodeOwned: true });
  w.settle();
  w.unlock(2, l);
  t.equal(w.queues.get('2>1')?.length ?? 0, 0, 'nothing sent yet');
  w.writeJournals();
  t.equal(w.queues.get('2>1')?.at(-1)?.k, 'UnlockRequest');
});

t.test('rule 17: a new epoch lifts the clock before the first grant it allows', async (t) => {
  const w = new EngineWorld([1, 2]);
  w.lock(1, 'r', NL);
  w.settle();
  w.lock(2, 'r', EX);
  w.settle();
  const waiter = w.lock(1, 'r', EX);
  w.evict(2);
  w.settle();
  const token = w.events.filter((e) => e.lock === waiter && e.what === 'granted').at(-1)?.token ?? 0n;
  t.equal(token >> 40n, BigInt(w.epoch));
});

t.test(
  'lapse: session locks are lost, waiting requests go on in the next incarnation, node-owned ones are claimed',
  async (t) => {
    const w = new EngineWorld([1, 2]);
    w.settle();
    const held = w.lock(1, 'a', EX);
    w.settle();
    const owned = w.lock(1, 'b', EX, { nodeOwned: true });
    w.settle();
    w.lock(2, 'c', EX);
    w.settle();
    const waiting = w.lock(1, 'c', EX);
    w.settle();
    w.engine(1).reset(w.now);
    t.equal(w.last(held), 'lost TSDLM_LOST');
    t.equal(w.last(owned), 'granted EX', 'not told: an expired lease never frees it (rule 2)');
    w.engine(1).reincarnate(2);
    for (const key of [...w.queues.keys()]) w.queues.delete(key);
    w.members = w.members.map((m) => (m.node === 1 ? { node: 1, startCount: 2, continues: 1, keeps: false } : m));
    w.epoch++;
    w.setView();
    w.settle();
    t.equal(w.last(owned), 'granted EX');
    t.equal((owned as Lock).st, 3);
    const c2 = w.events.find((e) => e.at === 2 && e.lock.name === 'c')?.lock;
    t.ok(c2);
    if (c2) w.unlock(2, c2);
    w.settle();
    t.equal(w.last(waiting), 'granted EX');
  },
);
