/** Leases: who waits for whom, and how long. Times are real time of the harness; clocks drift where a test says so. */
import t from 'tap';
import { AckMemory, LeaderLeases, NEVER_MS, OwnLease } from '../../src/membership/lease.js';
import { DRIFT_MAX, deriveTimeLimits } from '../../src/membership/time-limits.js';
import { Cluster } from './harness.js';
import { booted, single } from './single.js';

const limits = deriveTimeLimits();
const { leaseMs, marginMs } = limits;

function ready(seed: number, options: ConstructorParameters<typeof Cluster>[0] = {}): Cluster {
  const c = new Cluster({ seed, ...options });
  c.startAll();
  if (!c.until(() => c.settled(), 15_000)) throw new Error('no cluster');
  return c;
}

t.test(
  'rule 14: a longer lease of an earlier leader is waited for, though we gave a shorter one to the same incarnation',
  async (t) => {
    // Found by random faults: lease 8 s -> 3 s was committed, the only voter restarted, renewed the member, and waited 3 s for it.
    const l = new LeaderLeases(1, () => [1], { leaseMs, waitMarginMs: marginMs });
    l.begin(0, 9000);
    l.grant(10, 7, 1);
    t.equal(l.overAt(7, 1), 9000);
  },
);

t.test('trap 1: a leader passes on no more than it holds from a quorum', async (t) => {
  const l = new LeaderLeases(1, () => [1, 2, 3, 4, 5], { leaseMs: limits.leaseMs, waitMarginMs: limits.marginMs });
  l.begin(0, 0);
  t.equal(l.grant(100, 7, 1), 0, 'nothing is acknowledged yet');
  l.acknowledged(200, 2, 100);
  t.equal(l.grant(200, 7, 1), 0, 'two of five are no majority');
  l.acknowledged(200, 3, 150);
  t.equal(l.grant(200, 7, 1), 100 + leaseMs - 200, 'the majority-th newest counts');
  l.acknowledged(250, 4, 240);
  t.equal(l.leaseEnd(250), 150 + leaseMs);
  t.equal(l.grant(151 + leaseMs, 7, 1), 0, 'none is left');
});

t.test('acknowledgements of learners, of the future and of before this leader count for nothing', async (t) => {
  const l = new LeaderLeases(1, () => [1, 2, 3], { leaseMs: limits.leaseMs, waitMarginMs: limits.marginMs });
  l.begin(1000, 0);
  l.acknowledged(1100, 9, 1050);
  l.acknowledged(1100, 2, 1200);
  l.acknowledged(1100, 2, 900);
  t.equal(l.leaseEnd(1100), Number.NEGATIVE_INFINITY);
});

t.test(
  'rule 24: who got no lease from this leader is over when the last leader says so, others after their own lease',
  async (t) => {
    const l = new LeaderLeases(1, () => [1, 2, 3], { leaseMs: limits.leaseMs, waitMarginMs: limits.marginMs });
    l.begin(1000, 4321);
    t.equal(l.overAt(2, 1), 4321);
    l.acknowledged(1100, 3, 1050);
    l.grant(1100, 2, 1);
    t.equal(l.overAt(2, 1), 1050 + leaseMs + marginMs);
    t.equal(l.overAt(2, 2), 1050 + leaseMs + marginMs, 'the next incarnation may have taken over what that one told (rule 1)');
    t.equal(l.overAt(3, 2), 4321);
  },
);

t.test('rule 24: the age of the last acknowledgement counts from the start for a voter that does not know better', async (t) => {
  const old = new AckMemory(500, false);
  t.equal(old.ageMs(700), 200);
  old.acknowledged(650);
  t.equal(old.ageMs(700), 50);
  t.equal(new AckMemory(500, true).ageMs(700), NEVER_MS, 'a journal that is new in this life acknowledged nothing before');
});

t.test('a lease never gets shorter and one that comes too late is none', async (t) => {
  const own = new OwnLease();
  own.extend(100, 90);
  t.equal(own.until, 0);
  own.extend(100, 300);
  own.extend(150, 200);
  t.equal(own.until, 300);
  t.notOk(own.isOver(299));
  t.ok(own.isOver(300));
});

t.test('rule 10: the margin covers the worst drift between two clocks', async (t) => {
  t.ok((leaseMs + marginMs) / (1 + DRIFT_MAX) > leaseMs / (1 - DRIFT_MAX));
});

t.test('rule 24: the dead leader is fenced within lease + margin + 1 s, and never before its lease is over', async (t) => {
  for (let seed = 1; seed <= 40; seed++) {
    const c = ready(seed, { drift: seed % 2 === 0 ? DRIFT_MAX : 0 });
    c.run(c.between([0, 2000]));
    const old = c.leaderId();
    const dead = c.t;
    c.kill(old);
    t.ok(c.until(() => c.state(old) === 'fenced' || c.state(old) === 'evicted', 20_000));
    const most = (leaseMs + marginMs + 1000) * (seed % 2 === 0 ? 1 + DRIFT_MAX : 1);
    t.ok(c.t - dead <= most, `seed ${seed}: ${Math.round(c.t - dead)} ms of at most ${Math.round(most)}`);
    t.same(c.checks.problems, []);
  }
});

t.test('a dead member is fenced within lease + margin + 1 s', async (t) => {
  for (let seed = 1; seed <= 40; seed++) {
    const c = ready(seed);
    c.run(c.between([0, 2000]));
    const victim = c.leaderId() === 2 ? 3 : 2;
    const dead = c.t;
    c.kill(victim);
    t.ok(c.until(() => c.state(victim) === 'evicted', 20_000));
    t.ok(c.t - dead <= leaseMs + marginMs + 1000, `seed ${seed}: ${Math.round(c.t - dead)} ms`);
    t.same(c.checks.problems, []);
  }
});

t.test('rule 24: members outlive the death of their leader without losing their leases', async (t) => {
  for (let seed = 1; seed <= 30; seed++) {
    const c = ready(seed, { voters: 5, learners: 1 });
    const old = c.leaderId();
    c.kill(old);
    c.run(15_000);
    for (const [id, host] of c.hosts) if (id !== old && host.overs.length > 0) t.fail(`seed ${seed}: node ${id} lost its lease`);
  }
  t.pass('30 seeds');
});

t.test('S4: a side without quorum has no lease after the old one, and fences nobody', async (t) => {
  const c = ready(5, { voters: 5 });
  const leader = c.leaderId();
  const mate = leader === 1 ? 2 : 1;
  for (const a of [leader, mate]) for (const b of c.hosts.keys()) if (b !== leader && b !== mate) c.cutBoth(a, b);
  c.run(leaseMs + 100);
  for (const id of [leader, mate]) {
    t.equal(c.m(id).leaseUntil, 0);
    t.equal(c.m(id).isMember, false);
    t.equal(c.host(id).fences.length, 0);
    t.equal(c.host(id).notes.filter((n) => n.event === 'fencing').length, 0);
  }
  c.run(10_000);
  t.same(
    [leader, mate].map((id) => c.state(id)),
    ['evicted', 'evicted'],
  );
  c.heal();
  t.ok(c.until(() => c.settled(), 20_000));
  t.same(c.checks.problems, []);
});

t.test('trap 9: a paused node that wakes looks at the clock before anything else', async (t) => {
  const c = ready(6);
  const id = c.leaderId() === 1 ? 2 : 1;
  const host = c.host(id);
  const m = c.m(id);
  const late = c.local(host, c.t + leaseMs + 1000);
  t.ok(m.isMember);
  // The first thing that it handles is a message, not a tick.
  m.receive(late, c.leaderId(), { k: 'Heartbeat', term: m.term, commit: 0, sentAt: 1 });
  t.equal(m.isMember, false);
  t.equal(m.leaseUntil, 0);
  t.match(host.overs, [{ reason: 'lease' }]);
});

t.test('a lapsed incarnation is not revived by a lease that comes late', async (t) => {
  const c = ready(7);
  const id = c.leaderId() === 1 ? 2 : 1;
  const m = c.m(id);
  const late = c.local(c.host(id), c.t + leaseMs + 1000);
  m.tick(late);
  m.receive(late + 1, c.leaderId(), {
    k: 'Lease',
    term: m.term,
    echo: late,
    remainingMs: leaseMs,
    startCount: c.host(id).startCount,
  });
  t.equal(m.leaseUntil, 0);
});

t.test('L3: a restart on the same boot replaces the old incarnation after its lease, and is not fenced meanwhile', async (t) => {
  for (let seed = 1; seed <= 20; seed++) {
    const c = ready(seed);
    const id = c.leaderId() === 1 ? 2 : 1;
    const old = c.host(id).startCount;
    c.kill(id);
    const killed = c.t;
    c.run(300);
    c.start(id);
    t.ok(c.until(() => c.m(id).isMember, 20_000));
    t.ok(c.t - killed > leaseMs * 0.9 && c.t - killed < leaseMs + marginMs + 1000, `${Math.round(c.t - killed)} ms`);
    t.equal(c.checks.commands('fencing').length, 0, 'nobody was fenced');
    const member = c.view().domains[0]?.members.find((m) => m.node === id);
    t.match(member, { startCount: old + 1, continues: old });
    t.same(c.checks.problems, []);
  }
});

t.test('rule 12: a rebooted node is admitted after lease + margin, and continues nothing', async (t) => {
  const c = ready(3);
  const id = c.leaderId() === 1 ? 2 : 1;
  c.reboot(id);
  c.run(300);
  c.start(id);
  t.ok(c.until(() => c.m(id).isMember, 20_000));
  t.equal(c.checks.commands('fencing').length, 0);
  t.equal(c.view().domains[0]?.members.find((m) => m.node === id)?.continues, 0);
  t.same(c.checks.problems, []);
});

t.test('rule 12: the same journal on another machine is not admitted before the old one was fenced', async (t) => {
  const c = ready(3);
  const id = c.leaderId() === 1 ? 2 : 1;
  c.kill(id);
  c.host(id).machineId = 'another machine';
  c.host(id).bootId = 'another boot';
  c.start(id);
  t.ok(c.until(() => c.m(id).isMember, 30_000));
  t.equal(c.checks.commands('fenced', id).length, 1);
  t.ok(c.host(id).notes.some((n) => n.event === 'join-refused'));
  t.same(c.checks.problems, []);
});

t.test('rule 12: a rolled-back journal (a start count that is not above the last) is refused with its code', async (t) => {
  const c = ready(3);
  const id = c.leaderId() === 1 ? 2 : 1;
  c.host(id).startCount += 5;
  c.reboot(id);
  c.start(id);
  c.until(() => c.m(id).isMember, 20_000);
  c.kill(id);
  c.host(id).startCount -= 4;
  c.host(id).isRolledBack = true;
  c.start(id);
  c.run(20_000);
  t.match(c.host(id).distrusts[0], /journal was rolled back or copied/, 'and its host is told never to use it again');
  t.equal(c.m(id).isMember, false);
  t.ok(c.host(id).notes.some((n) => n.event === 'join-refused' && n.data.code === 'TSDLM_STALE_INCARNATION'));
});

t.test('a single node has its lease at once after a first start, and waits for the old one after a restart', async (t) => {
  const c = new Cluster({ seed: 4, voters: 1 });
  c.startAll();
  t.ok(
    c.until(() => c.settled(), 1000),
    'a new journal has nothing to wait for',
  );
  c.kill(1);
  const killed = c.t;
  c.start(1);
  t.ok(c.until(() => c.settled(), 20_000));
  t.ok(c.t - killed >= leaseMs);
  t.same(c.checks.problems, []);
});

t.test('a whole cluster that is started for the first time waits for no old lease', async (t) => {
  const c = ready(2, { voters: 5 });
  t.ok(c.t < 3000, `${Math.round(c.t)} ms`);
});

t.test('rule 24: no lease for a member whose end is in the log already, committed or not', async (t) => {
  const { m, batches, take } = single(booted(1), 1, 1, 1);
  const done = (now: number) => m.persisted(now, batches.at(-1)?.ticket ?? 0);
  let now = 1000;
  const ack = (startCount: number) => {
    const { term } = m;
    m.receive(now, 2, {
      k: 'HeartbeatAck',
      term,
      echo: now,
      sentAt: now + 5000,
      startCount,
      match: 0,
      down: [],
      limits: 1,
      journal: 'j2',
    });
  };
  const step = (ms: number) => {
    for (let i = 0; i < ms / 50; i++) {
      now += 50;
      m.tick(now);
    }
  };
  for (let i = 0; i < 4; i++) {
    step(50);
    done(now);
  }
  t.ok(m.isLeader);
  ack(1);
  const inc = { bootId: 'b2', machineId: 'm2', startCount: 1, journalId: 'j2' };
  m.receive(now, 2, { k: 'Propose', cmd: { c: 'join', node: 2, inc, keeps: false } });
  ack(1);
  t.same(take('Lease'), [], 'not before the join is committed');
  done(now);
  ack(1);
  t.match(take('Lease'), [{ startCount: 1, echo: now + 5000, remainingMs: leaseMs }]);
  ack(2);
  t.same(take('Lease'), [], 'not for another incarnation');
  step(limits.deadMs + 100);
  take('Lease');
  t.equal(m.view.nodes[1]?.state, 'in', 'its end is in the log, not on the disk');
  ack(1);
  t.same(take('Lease'), []);
});
