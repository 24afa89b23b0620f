/** The voter set comes from the log: one vote at a time, in force from the append on, and never so that majorities miss each other. */
import t from 'tap';
import { RaftLog } from '../../src/membership/log.js';
import { initialView } from '../../src/membership/view.js';
import { type VoterChangeContext, VoterChanges } from '../../src/membership/voter-change.js';
import { LogTail } from '../../src/membership/voter-set.js';
import { Cluster } from './harness.js';
import { booted, nodes, single } from './single.js';

const voter = (index: number, table: number, node: number, on: boolean, term = 1) => ({
  index,
  term,
  cmd: { c: 'voter', table, node, on },
});

t.test('a change is in force when it stands in the log, and void when it is cut off again', async (t) => {
  const log = new RaftLog({ index: 0, term: 0, view: initialView(nodes(3, 1), 'c') }, []);
  const tail = new LogTail(1, log);
  t.same(tail.voters, [1, 2, 3]);
  const add = (entry: ReturnType<typeof voter>): void => {
    log.append(entry);
    tail.appended(entry);
  };
  add(voter(1, 0, 4, true));
  t.same([tail.voters, tail.votersAt], [[1, 2, 3, 4], 1]);
  add(voter(2, 1, 1, false));
  t.same([tail.voters, tail.votersAt, tail.isVoter, tail.mayLead], [[2, 3, 4], 2, false, true]);
  log.truncateFrom(2);
  tail.truncated(log);
  t.same([tail.voters, tail.votersAt, tail.isVoter], [[1, 2, 3, 4], 1, true]);
  log.truncateFrom(1);
  tail.truncated(log);
  t.same([tail.voters, tail.votersAt], [[1, 2, 3], 0]);
});

t.test('a follower counts by its log: a node that lost its vote there does not run for the lead', async (t) => {
  const { m, take, batches } = single(booted(3));
  const append = (prevIndex: number, entries: ReturnType<typeof voter>[], commit = 0, term = 1) =>
    m.receive(1010, 2, { k: 'RaftAppend', term, prevIndex, prevTerm: prevIndex === 0 ? 0 : 1, commit, entries });
  append(0, [voter(1, 0, 1, false)]);
  t.same(m.dump().voters, [2, 3]);
  append(0, [{ index: 1, term: 2, cmd: { c: 'noop' } } as never], 0, 2);
  t.same(m.dump().voters, [1, 2, 3], 'the entry is gone, the vote is back');
  append(0, [voter(1, 0, 1, false, 3)], 1, 3);
  t.same(m.dump().voters, [2, 3]);
  for (const batch of batches) m.persisted(1011, batch.ticket);
  take('RaftAppendReply');
  for (let now = 1100; now < 60_000; now += 100) m.tick(now);
  t.same(take('RaftVote'), [], 'it never asks for votes');
});

const context = (fields: Partial<VoterChangeContext> = {}): VoterChangeContext => ({
  isReady: true,
  safeAt: Number.NEGATIVE_INFINITY,
  waitMs: 1000,
  voters: [1, 2, 3],
  votersAt: 0,
  applied: 10,
  lastIndex: 10,
  matchOf: () => 10,
  isHeard: () => true,
  ...fields,
});

t.test('rule 24: the next change of the voters waits until no lease given under an earlier set can run', async (t) => {
  const changes = new VoterChanges();
  t.equal(changes.judge(0, 4, true, context()).what, 'taken');
  t.equal(changes.judge(0, 4, true, context({ isReady: false })).what, 'wait', 'nothing of the own term is applied');
  t.equal(changes.judge(0, 4, true, context({ safeAt: 5 })).what, 'wait', 'an earlier leader may have given leases');
  t.equal(changes.judge(0, 4, true, context({ votersAt: 11 })).what, 'wait', 'the last change is not committed');
  changes.committed(50);
  t.equal(changes.judge(1049, 4, true, context()).what, 'wait', 'lease and margin have not passed');
  t.equal(changes.judge(1050, 4, true, context()).what, 'taken');
});

t.test('a vote is given only to a node that has caught up, and never so that the quorum is lost', async (t) => {
  const changes = new VoterChanges();
  t.equal(changes.judge(0, 4, true, context({ lastIndex: 1000 })).what, 'wait');
  t.equal(changes.judge(0, 4, true, context({ isHeard: (n) => n !== 4 })).what, 'wait');
  t.equal(changes.judge(0, 1, false, context({ voters: [1] })).what, 'refuse', 'the last vote');
  t.equal(changes.judge(0, 2, false, context({ isHeard: (n) => n !== 3 })).what, 'refuse', '1 and 3 remain, 3 is silent');
  t.equal(changes.judge(0, 3, false, context({ isHeard: (n) => n !== 3 })).what, 'taken', 'the silent one may go');
  t.equal(changes.judge(0, 8, true, context({ voters: [1, 2, 3, 4, 5, 6, 7] })).what, 'refuse', 'seven is the most');
});

function change(c: Cluster, node: number, on: boolean): boolean {
  return c.until(() => {
    if (c.view().nodes.find((n) => n.id === node)?.voter === on) return true;
    c.voter(node, on);
    return false;
  }, 60_000);
}

t.test('a cluster of three becomes one of four, then of others, and every set is a working one', async (t) => {
  const c = new Cluster({ seed: 21, voters: 3, learners: 1, drift: 0.08 });
  c.startAll();
  t.ok(c.until(() => c.settled(), 10_000));
  t.ok(change(c, 4, true));
  c.kill(1);
  t.ok(
    c.until(() => c.state(1) === 'evicted' || c.state(1) === 'fenced', 60_000),
    'three of four go on',
  );
  t.ok(change(c, 1, false), 'the dead one loses its vote');
  c.kill(2);
  t.ok(
    c.until(() => ['evicted', 'fenced'].includes(c.state(2)), 60_000),
    'two of three go on: node 4 counts',
  );
  c.start(2);
  c.start(1);
  t.ok(c.until(() => c.settled(), 60_000));
  t.same(c.m(1).dump().voters, [2, 3, 4], 'a restarted node votes as the log says, not as it was configured');
  t.same(c.checks.problems, []);
});

t.test('a leader that loses its vote commits that, then another leads', async (t) => {
  for (const voters of [2, 3]) {
    const c = new Cluster({ seed: 22, voters });
    c.startAll();
    t.ok(c.until(() => c.settled(), 10_000));
    const old = c.leaderId();
    t.ok(change(c, old, false));
    t.ok(c.until(() => c.leaderId() !== 0 && c.leaderId() !== old, 10_000));
    t.ok(
      c.until(() => c.settled(), 20_000),
      'it stays a member',
    );
    t.equal(c.checks.commands('fenced').length, 0, 'nobody was fenced for it');
    t.same(c.checks.problems, []);
  }
});

t.test('a leader that dies after it took its own vote, before anybody has the entry, does not block the others', async (t) => {
  const c = new Cluster({ seed: 23, voters: 2 });
  c.startAll();
  t.ok(c.until(() => c.settled(), 10_000));
  const old = c.leaderId();
  c.isolate(old);
  t.equal(c.voter(old, false).what, 'taken');
  c.run(50);
  c.kill(old);
  c.heal();
  c.start(old);
  t.ok(c.until(() => c.settled(), 60_000));
  t.same(c.m(3 - old).dump().voters, [3 - old]);
  t.same(c.checks.problems, []);
});

t.test('rule 24: a member without a vote that was restarted does not say that it never acknowledged a lease', async (t) => {
  const c = new Cluster({ seed: 24, voters: 3, learners: 1 });
  c.startAll();
  t.ok(c.until(() => c.settled(), 10_000));
  c.kill(4);
  c.start(4);
  let age = -1;
  c.onSend = (from, _to, msg) => {
    if (from === 4 && msg.k === 'RaftVoteReply') age = msg.ackAgeMs;
  };
  const now = c.local(c.host(4));
  c.m(4).receive(now + 5000, 2, { k: 'RaftVote', term: 99, pre: false, lastIndex: 10_000, lastTerm: 98 });
  c.run(1000);
  t.ok(age >= 0 && age < 60_000, `age ${age} ms`);
});
