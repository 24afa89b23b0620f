/** Elections, terms, votes and the log, seen from outside: through the whole membership core of small clusters. */
import t from 'tap';
import { limitValues } from '../../src/membership/limits-in-force.js';
import { deriveTimeLimits, worstElectionMs } from '../../src/membership/time-limits.js';
import { ERROR_CODES } from '../../src/protocol/errors.js';
import type { ControlMessage } from '../../src/protocol/peer-messages.js';
import { apply, Cluster } from './harness.js';
import { booted, nodes, single } from './single.js';

const limits = deriveTimeLimits();
const cluster = (id: string) => ({
  c: 'cluster',
  id,
  nodes: nodes(3, 0),
  journals: {},
  limits: limitValues(limits),
  mastery: 'peer',
});

t.test('three voters elect one leader and become members, within a second of the bootstrap', async (t) => {
  const c = new Cluster({ seed: 1 });
  c.startAll();
  t.ok(
    c.until(() => c.settled(), 5000),
    'all are members with a lease',
  );
  t.ok(c.t < 2500, `after ${Math.round(c.t)} ms`);
  t.same(c.checks.problems, []);
});

t.test('a killed leader is followed by another within the worst election time', async (t) => {
  for (let seed = 1; seed <= 20; seed++) {
    const c = new Cluster({ seed });
    c.startAll();
    c.until(() => c.settled(), 10_000);
    const old = c.leaderId();
    c.kill(old);
    const killed = c.t;
    t.ok(c.until(() => c.leaderId() !== 0, 5000));
    const worst = worstElectionMs(limits) + limits.electionMs;
    t.ok(c.t - killed <= worst, `seed ${seed}: ${Math.round(c.t - killed)} ms, at most ${worst}`);
    t.same(c.checks.problems, []);
  }
});

t.test('a leader that hears no majority for an election time-out stops leading', async (t) => {
  const c = new Cluster({ seed: 3 });
  c.startAll();
  c.until(() => c.settled(), 10_000);
  const old = c.leaderId();
  c.isolate(old);
  t.ok(c.until(() => !c.m(old).isLeader, limits.electionMs + 2 * limits.tickMs + limits.heartbeatMs));
});

t.test('pre-vote: a node that was cut off for long disturbs nobody when it is back', async (t) => {
  const c = new Cluster({ seed: 4 });
  c.startAll();
  c.until(() => c.settled(), 10_000);
  const leader = c.leaderId();
  const other = leader === 1 ? 2 : 1;
  const term = c.m(leader).term;
  c.isolate(other);
  c.run(20_000);
  c.heal();
  t.ok(c.until(() => c.settled(), 20_000));
  t.equal(c.leaderId(), leader);
  t.equal(c.m(leader).term, term);
});

t.test('a voter that hears a leader refuses votes, whatever the term', async (t) => {
  const { m, take } = single(booted(3));
  m.receive(1010, 2, { k: 'Heartbeat', term: 1, commit: 0, sentAt: 7 });
  m.persisted(1011, 1);
  take('HeartbeatAck');
  m.receive(1100, 3, { k: 'RaftVote', term: 9, pre: false, lastIndex: 50, lastTerm: 8 });
  m.receive(1100, 3, { k: 'RaftVote', term: 9, pre: true, lastIndex: 50, lastTerm: 8 });
  t.equal(m.term, 1);
  t.same(take('RaftVoteReply'), []);
});

t.test('S5: a vote leaves only after it is on disk, and a restart does not give another one in that term', async (t) => {
  const disk = booted(3);
  const one = single(disk);
  one.m.receive(1010, 2, { k: 'RaftVote', term: 3, pre: false, lastIndex: 0, lastTerm: 0 });
  t.same(one.take('RaftVoteReply'), [], 'not before the disk has it');
  t.same(one.batches.at(-1)?.hard, { term: 3, vote: 2 });
  one.m.persisted(1020, one.batches.at(-1)?.ticket ?? 0);
  t.match(one.take('RaftVoteReply'), [{ term: 3, granted: true, pre: false }]);

  for (const batch of one.batches) apply(disk, batch);
  const again = single(disk, 3, 2);
  again.m.receive(1010, 3, { k: 'RaftVote', term: 3, pre: false, lastIndex: 9, lastTerm: 2 });
  t.match(again.take('RaftVoteReply'), [{ term: 3, granted: false }]);
  again.m.receive(1020, 2, { k: 'RaftVote', term: 3, pre: false, lastIndex: 0, lastTerm: 0 });
  t.match(again.take('RaftVoteReply'), [{ term: 3, granted: true }], 'the same vote may be repeated');
});

t.test('S5: an append is acknowledged only after it is on disk', async (t) => {
  const { m, take, batches } = single(booted(3));
  const entries = [{ index: 1, term: 1, cmd: { c: 'noop' } }];
  m.receive(1010, 2, { k: 'RaftAppend', term: 1, prevIndex: 0, prevTerm: 0, commit: 1, entries });
  t.same(take('RaftAppendReply'), []);
  m.receive(1011, 2, { k: 'Heartbeat', term: 1, commit: 1, sentAt: 1 });
  m.persisted(1012, batches.at(-1)?.ticket ?? 0);
  t.match(take('RaftAppendReply'), [{ success: true, match: 1 }]);
});

t.test('S5: a view counts only once its entry is on our own disk', async (t) => {
  const { m, batches } = single(booted(3));
  const entries = [{ index: 1, term: 1, cmd: cluster('x') }];
  m.receive(1010, 2, { k: 'RaftAppend', term: 1, prevIndex: 0, prevTerm: 0, commit: 1, entries });
  t.equal(m.view.clusterId, '');
  m.persisted(1012, batches.at(-1)?.ticket ?? 0);
  t.equal(m.view.clusterId, 'x');
});

t.test('a candidate asks for votes only after its own vote is on disk', async (t) => {
  const { m, take, batches } = single(booted(3));
  m.tick(2100);
  t.equal(take('RaftVote').length, 2, 'pre-votes');
  m.receive(2110, 2, { k: 'RaftVoteReply', term: 1, pre: true, granted: true, ackAgeMs: 0, journal: 'j2' });
  t.same(take('RaftVote'), []);
  m.persisted(2120, batches.at(-1)?.ticket ?? 0);
  t.match(take('RaftVote'), [
    { term: 1, pre: false },
    { term: 1, pre: false },
  ]);
});

t.test('S5: crashes around elections on slow disks never let a node vote twice', async (t) => {
  let leaders = 0;
  for (let seed = 1; seed <= 150; seed++) {
    const c = new Cluster({ seed, voters: seed % 2 === 0 ? 3 : 5, diskMs: [5, 400], delayMs: [1, 150], loss: 0.1 });
    c.startAll();
    for (let step = 0; step < 40; step++) {
      c.run(c.between([20, 500]));
      const id = 1 + Math.floor(c.random.next() * c.hosts.size);
      if (c.random.next() < 0.3) c.kill(c.leaderId() || id);
      else c.kill(id);
      c.at(c.between([1, 300]), () => c.start(id));
      if (c.random.next() < 0.5) c.startAll();
    }
    leaders = Math.max(leaders, c.view().epoch);
    if (c.checks.problems.length > 0) t.fail(`seed ${seed}: ${c.checks.problems.slice(0, 2).join('\n')}`);
  }
  t.ok(leaders > 0);
});

t.test('an append that does not fit is refused with the place to try next; a divergent tail is replaced', async (t) => {
  const { m, take, batches } = single(booted(3));
  const entry = (index: number, term: number) => ({ index, term, cmd: { c: 'noop' } });
  const done = () => m.persisted(1012, batches.at(-1)?.ticket ?? 0);
  const append = (term: number, prevIndex: number, prevTerm: number, ...entries: ReturnType<typeof entry>[]) => {
    m.receive(1010, 2, { k: 'RaftAppend', term, prevIndex, prevTerm, commit: 0, entries });
    done();
    return take('RaftAppendReply').at(-1);
  };
  t.match(append(1, 0, 0, entry(1, 1), entry(2, 1), entry(3, 1)), { success: true, match: 3 });
  t.match(append(4, 9, 3), { success: false, match: 3 }, 'too short');
  t.match(append(4, 3, 3), { success: false, match: 2 }, 'another term there');
  t.match(append(4, 2, 1, entry(3, 3), entry(4, 4)), { success: true, match: 4 });
  t.equal(batches.at(-1)?.truncateFrom, 3);
  t.match(append(4, 2, 1, entry(3, 3)), { success: true, match: 3 }, 'a late repetition cuts nothing off');
  t.match(append(4, 4, 4, entry(5, 4)), { success: true, match: 5 });
});

t.test('a follower that was restarted, or was without a leader for a while, learns again what is committed', async (t) => {
  const disk = booted(3);
  disk.term = 1;
  disk.entries = [{ index: 1, term: 1, cmd: cluster('x') }];
  const { m } = single(disk);
  // The leader of this term knows from an acknowledgement of the last life that we have the entry: it sends it no more.
  m.receive(1010, 2, { k: 'Heartbeat', term: 1, commit: 1, sentAt: 1 });
  t.equal(m.view.clusterId, 'x');

  const c = new Cluster({ seed: 5, learners: 1 });
  c.startAll();
  c.until(() => c.settled(), 10_000);
  const id = c.leaderId() === 1 ? 2 : 1;
  for (let i = 0; i < 20; i++) {
    c.pause(id, 1200);
    c.run(600);
    c.propose(c.leaderId(), { c: 'epoch', epoch: c.view().epoch });
    c.run(1400);
    t.equal(c.m(id).view.epoch, c.view().epoch);
  }
});

t.test('rule 12: a node whose log ends before what it has acknowledged is told that its journal is an older copy', async (t) => {
  const disk = booted(3);
  disk.term = 1;
  disk.entries = [{ index: 1, term: 1, cmd: { c: 'cluster', id: 'x', nodes: nodes(3, 0), mastery: 'peer' } }];
  const { m, distrusts } = single(disk);
  m.receive(1010, 2, { k: 'Heartbeat', term: 1, commit: 1, sentAt: 1 });
  t.same(distrusts, []);
  // The leader names what this node has acknowledged in this term and synced: it must be there.
  m.receive(1020, 2, { k: 'Heartbeat', term: 1, commit: 4, sentAt: 2 });
  t.match(distrusts, [/acknowledged the log up to entry 4, and its journal ends at entry 1/]);

  const blank = single(booted(3));
  blank.m.receive(1010, 2, { k: 'Heartbeat', term: 1, commit: 4, sentAt: 1 });
  t.same(blank.distrusts, [], 'a blank journal may be one of a node that was admitted again');
});

t.test('rule 12: a refusal of an earlier request does not make this life distrust its journal', async (t) => {
  const { m, distrusts } = single(booted(3), 3, 2);
  const refusal = { k: 'Refuse', code: ERROR_CODES.TSDLM_STALE_INCARNATION, text: 'rolled back' } as const;
  m.receive(1010, 2, { ...refusal, startCount: 1 });
  t.same(distrusts, []);
  m.receive(1020, 2, { ...refusal, startCount: 2 });
  t.same(distrusts, ['rolled back']);
});

t.test('entries of an earlier term commit only with one of the leader of now', async (t) => {
  const disk = booted(3);
  disk.term = 2;
  disk.entries = [{ index: 1, term: 2, cmd: cluster('old') }];
  const { m, batches, take } = single(disk);
  const done = () => m.persisted(2120, batches.at(-1)?.ticket ?? 0);
  m.tick(2100);
  m.receive(2110, 2, { k: 'RaftVoteReply', term: 3, pre: true, granted: true, ackAgeMs: 0, journal: 'j2' });
  done();
  m.receive(2120, 2, { k: 'RaftVoteReply', term: 3, pre: false, granted: true, ackAgeMs: 0, journal: 'j2' });
  done();
  t.ok(m.isLeader);
  m.receive(2130, 2, { k: 'RaftAppendReply', term: 3, success: true, match: 1, journal: 'j2' });
  t.equal(m.view.clusterId, '', 'a majority has it, but that proves nothing');
  take('RaftAppend');
  m.receive(2140, 2, { k: 'RaftAppendReply', term: 3, success: true, match: 2, journal: 'j2' });
  t.equal(m.view.clusterId, 'old');
  t.equal(take('RaftAppend').at(-1)?.commit, 2);
});

t.test('malformed and hostile messages of consensus change nothing and crash nothing', async (t) => {
  const { m, sent } = single(booted(3));
  const bad: ControlMessage[] = [
    { k: 'RaftAppend', term: 1, prevIndex: 0, prevTerm: 0, commit: 9, entries: [{ index: 7, term: 1, cmd: null }] },
    { k: 'RaftAppend', term: 1, prevIndex: 0, prevTerm: 0, commit: 9, entries: [{ index: 1, term: 5, cmd: null }] },
    { k: 'RaftSnapshot', term: 1, index: 5, lastTerm: 1, state: { epoch: 'much' } },
    { k: 'RaftAppendReply', term: 1, success: true, match: 1e9, journal: 'j2' },
    { k: 'HeartbeatAck', term: 1, echo: 1e15, sentAt: 0, startCount: 1, match: 99, down: [], limits: 1, journal: 'j2' },
    { k: 'Lease', term: 1, echo: 1e15, remainingMs: 1e15, startCount: 1 },
    { k: 'Propose', cmd: null },
    { k: 'Refuse', code: 250, startCount: 1, text: 'x' },
    { k: 'BootProbe', journalId: '', reply: true, blank: true, known: [1, { asked: 2 }] },
  ];
  for (const msg of bad) m.receive(1010, 2, msg);
  for (const msg of bad) m.receive(1010, 77, msg);
  t.equal(m.view.epoch, 0);
  t.equal(m.leaseUntil, 0);
  t.ok(sent.length < 20);
});

t.test('a leader does not admit hostile acknowledgements and proposals of its followers', async (t) => {
  const { m, sent, batches } = single(booted(1), 1);
  m.tick(2100);
  for (let i = 0; i < 5; i++) m.persisted(2110 + i, batches.at(-1)?.ticket ?? 0);
  t.ok(m.isLeader);
  const epoch = m.view.epoch;
  m.propose(2120, { c: 'fenced', node: 1, startCount: 1, method: 'x' });
  m.propose(2120, { c: 'join', node: 2, inc: { bootId: '', machineId: '', startCount: 1, journalId: '' }, keeps: false });
  m.persisted(2130, batches.at(-1)?.ticket ?? 0);
  t.equal(m.view.epoch, epoch);
  t.same(
    sent.filter((s) => s.to === 1),
    [],
  );
});

t.test('a node that lags behind the log gets a snapshot, and a member among them starts over', async (t) => {
  const c = new Cluster({ seed: 8, learners: 1, logKeep: 5 });
  c.startAll();
  c.until(() => c.settled(), 10_000);
  const leader = c.leaderId();
  c.kill(4);
  c.until(() => c.state(4) === 'evicted', 20_000);
  for (let i = 0; i < 80; i++) {
    c.propose(leader, { c: 'epoch', epoch: c.m(leader).view.epoch });
    c.run(60);
  }
  t.ok((c.host(leader).disk.snapshot?.index ?? 0) > 50, 'the log was cut');
  t.ok(c.host(leader).disk.entries.length <= 11, `${c.host(leader).disk.entries.length} entries are left`);
  let snapshots = 0;
  c.onSend = (_from, to, msg) => {
    if (to === 4 && msg.k === 'RaftSnapshot') snapshots++;
  };
  c.start(4);
  t.ok(c.until(() => c.settled(), 20_000));
  t.equal(snapshots, 1);

  // Now a member that is only slow: far behind, its incarnation is over with the snapshot.
  c.cutBoth(leader, 4);
  c.loss = 0;
  const before = c.host(4).overs.length;
  for (let i = 0; i < 110; i++) {
    c.propose(leader, { c: 'epoch', epoch: c.m(leader).view.epoch });
    c.run(4);
  }
  c.heal();
  t.ok(c.until(() => c.settled(), 20_000));
  t.ok(
    c
      .host(4)
      .overs.slice(before)
      .some((o) => o.reason === 'snapshot'),
  );
  t.same(c.checks.problems, []);
});

t.test('the log is kept for a member that lags a little', async (t) => {
  const c = new Cluster({ seed: 9, logKeep: 5 });
  c.startAll();
  c.until(() => c.settled(), 10_000);
  const leader = c.leaderId();
  const slow = leader === 3 ? 2 : 3;
  let snapshots = 0;
  c.onSend = (_from, _to, msg) => {
    if (msg.k === 'RaftSnapshot') snapshots++;
  };
  c.cutBoth(leader, slow);
  for (let i = 0; i < 30; i++) {
    c.propose(leader, { c: 'epoch', epoch: c.m(leader).view.epoch });
    c.run(12);
  }
  c.heal();
  t.ok(c.until(() => c.settled(), 20_000));
  t.equal(snapshots, 0);
});

t.test('a whole cluster that was killed comes back with everything it had', async (t) => {
  const c = new Cluster({ seed: 12, voters: 3, learners: 2, logKeep: 6 });
  c.startAll();
  c.until(() => c.settled(), 10_000);
  for (let i = 0; i < 40; i++) {
    c.propose(1 + (i % 5), { c: 'epoch', epoch: c.view().epoch });
    c.run(30);
  }
  const { epoch } = c.view();
  for (const id of c.hosts.keys()) c.kill(id);
  c.run(1000);
  c.startAll();
  t.ok(c.until(() => c.settled(), 30_000));
  t.ok(c.view().epoch > epoch);
  t.same(c.checks.problems, []);
});

t.test('a journal with a hole in its log is refused', async (t) => {
  const disk = booted(3);
  disk.entries = [
    { index: 1, term: 1, cmd: { c: 'noop' } },
    { index: 3, term: 1, cmd: { c: 'noop' } },
  ];
  t.throws(() => single(disk), { code: 'TSDLM_JOURNAL_CORRUPT' });
  t.throws(() => single({ ...booted(3), snapshot: { index: 1, term: 1, view: {} as never } }), { code: 'TSDLM_JOURNAL_CORRUPT' });
  t.throws(() => single(booted(8), 8), { code: 'TSDLM_BAD_CONFIG' });
});
