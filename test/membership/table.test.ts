/** The node table and the time limits are changed by command, online: who comes, goes, is readmitted; rule 14. */
import t from 'tap';
import { LimitsInForce, limitValues, waitOf } from '../../src/membership/limits-in-force.js';
import { freeId } from '../../src/membership/node-table.js';
import { LimitsChange } from '../../src/membership/table-change.js';
import { deriveTimeLimits } from '../../src/membership/time-limits.js';
import type { Command, View } from '../../src/membership/types.js';
import { applyCommand, initialView } from '../../src/membership/view.js';
import { Cluster } from './harness.js';
import { nodes } from './single.js';

const LONG = deriveTimeLimits({ heartbeatMs: 250, leaseMs: 10_000 });
const SHORT = deriveTimeLimits({ heartbeatMs: 250, leaseMs: 3000 });

function clusterView(limits = LONG): View {
  return applyCommand(initialView([], ''), {
    c: 'cluster',
    id: 'c',
    nodes: nodes(3, 0),
    journals: { 1: 'j1', 2: 'j2', 3: 'j3' },
    limits: limitValues(limits),
    mastery: 'peer',
  });
}

function settled(options: ConstructorParameters<typeof Cluster>[0]): Cluster {
  const c = new Cluster(options);
  for (const n of c.nodes) c.start(n.id);
  if (!c.until(() => c.leaderId() !== 0 && c.nodes.every((n) => c.m(n.id).isMember), 20_000)) throw new Error('no cluster');
  return c;
}

const has = (id: number) => (view: View) => view.nodes.some((n) => n.id === id);
const votes = (id: number, on: boolean) => (view: View) => view.nodes.find((n) => n.id === id)?.voter === on;

t.test('numbers and names of removed nodes are never used again', async (t) => {
  let view = clusterView();
  const run = (command: Command): View => {
    view = applyCommand(view, command);
    return view;
  };
  run({ c: 'voter', table: view.table, node: 3, on: false });
  run({ c: 'nodeRemove', table: view.table, node: 3 });
  t.same(view.retired, [{ id: 3, name: 'n3' }]);
  const before = view;
  for (const spec of [
    { id: 3, name: 'x', voter: false, fence: [['self']] },
    { id: 9, name: 'n3', voter: false, fence: [['self']] },
    { id: 1, name: 'x', voter: false, fence: [['self']] },
    { id: 9, name: 'n1', voter: false, fence: [['self']] },
  ]) {
    t.equal(run({ c: 'nodeAdd', table: view.table, spec }), before, `${spec.id} ${spec.name}`);
  }
  t.equal(freeId(view), 4);
  run({ c: 'nodeAdd', table: view.table, spec: { id: 4, name: 'n4', voter: true, fence: [['self']] } });
  t.match(view.nodes.at(-1), { id: 4, voter: false, wantsVote: true, state: 'out' });
  t.equal(run({ c: 'nodeRemove', table: view.table, node: 1 }).nodes.length, 3, 'a node with a vote is not removed');
});

t.test('rule 14: who waits counts by the longer limits until the change is settled, who gives by the new ones', async (t) => {
  let applied = clusterView(LONG);
  let tail = applied;
  const limits = new LimitsInForce(
    SHORT,
    () => applied,
    () => tail,
  );
  t.same([limits.leaseMs, limits.waitMs], [10_000, waitOf(LONG)], 'the configuration counts no more');
  tail = applyCommand(applied, { c: 'limits', table: applied.table, limits: limitValues(SHORT) });
  t.same([limits.leaseMs, limits.waitMs], [10_000, waitOf(LONG)], 'not applied: nothing is given by it');
  applied = tail;
  t.same([limits.leaseMs, limits.waitMs, limits.waitMarginMs], [3000, waitOf(LONG), LONG.marginMs]);
  t.equal(
    applyCommand(applied, { c: 'limits', table: applied.table, limits: limitValues(LONG) }),
    applied,
    'one change at a time',
  );
  tail = applyCommand(applied, { c: 'limitsSettled', table: applied.table });
  t.same(limits.waitMs, waitOf(LONG), 'settled, but not yet committed');
  applied = tail;
  t.same(limits.waitMs, waitOf(SHORT));
  tail = applyCommand(applied, { c: 'limits', table: applied.table, limits: limitValues(LONG) });
  t.same([limits.leaseMs, limits.waitMs], [3000, waitOf(LONG)], 'a longer lease is waited for before anybody can have it');
});

t.test('rule 14: settled when every member has acknowledged, and one former lease and margin later', async (t) => {
  let view = applyCommand(clusterView(LONG), { c: 'join', node: 1, inc: inc(1), keeps: false });
  view = applyCommand(view, { c: 'join', node: 2, inc: inc(2), keeps: false });
  view = applyCommand(view, { c: 'limits', table: view.table, limits: limitValues(SHORT) });
  const change = new LimitsChange();
  const acked = new Map([
    [1, 2],
    [2, 1],
  ]);
  const at = (now: number): boolean => change.isSettled(now, view, (n) => acked.get(n.id) ?? 0);
  t.notOk(at(0));
  t.notOk(at(1e6), 'node 2 has not acknowledged');
  acked.set(2, 2);
  t.notOk(at(1e6 + 10));
  t.notOk(at(1e6 + 10 + waitOf(LONG) - 1));
  t.ok(at(1e6 + 10 + waitOf(LONG)));
  change.begin();
  t.notOk(at(2e6), 'a new leader waits anew');
});

function inc(node: number) {
  return { bootId: `b${node}`, machineId: `m${node}`, startCount: 1, journalId: `j${node}` };
}

t.test('rule 14: a lease of 10 s becomes one of 3 s while a member that was just acknowledged is cut off', async (t) => {
  for (const seed of [1, 2, 3]) {
    const c = settled({ seed, voters: 5, limits: LONG, drift: 0.08 });
    const leader = c.leaderId();
    const victims = [1, 2, 3, 4, 5].filter((id) => id !== leader).slice(0, 2);
    for (const id of victims) c.isolate(id);
    t.equal(c.table((table) => ({ c: 'limits', table, limits: limitValues(SHORT) })).what, 'taken');
    c.run(600);
    c.kill(leader);
    c.run(60_000);
    t.same(c.checks.problems, [], 'no lease outlived what the new leader waited for');
    c.heal();
    c.start(leader);
    t.ok(
      c.until(() => c.settled() && c.view().limits?.former === null, 120_000),
      'the change is settled when all are back',
    );
    t.same(c.view().limits?.active, limitValues(SHORT));
  }
});

t.test('a fourth machine is added to a running cluster, gets a vote when it has caught up, another goes for good', async (t) => {
  const c = settled({ seed: 5, voters: 3, spares: 1, logKeep: 4 });
  c.start(4);
  c.run(3000);
  t.notOk(c.m(4).isMember, 'nobody knows it');
  t.ok(c.changed((table) => ({ c: 'nodeAdd', table, spec: c.spec(4, true) }), has(4)));
  t.ok(c.until(() => c.m(4).isMember && votes(4, true)(c.view()), 20_000));
  c.kill(1);
  t.equal(c.table((table) => ({ c: 'nodeRemove', table, node: 1 })).what, 'refuse', 'it may still act');
  t.ok(c.until(() => c.state(1) === 'evicted', 30_000));
  t.ok(c.changed((table) => ({ c: 'voter', table, node: 1, on: false }), votes(1, false)));
  t.ok(
    c.changed(
      (table) => ({ c: 'nodeRemove', table, node: 1 }),
      (v) => !has(1)(v),
    ),
  );
  c.start(1);
  c.run(20_000);
  t.notOk(c.m(1).isMember, 'it stays out');
  for (const id of [2, 3, 4]) t.ok(c.m(id).isMember && c.m(id).leaseUntil > 0);
  t.same(c.checks.problems, []);
});

t.test(
  'S5: a wiped voter counts for nothing until it is readmitted, then learns, then votes, under new start counts',
  async (t) => {
    const c = settled({ seed: 6, voters: 3 });
    const victim = c.leaderId() === 2 ? 3 : 2;
    c.kill(victim);
    c.start(victim);
    t.ok(c.until(() => c.m(victim).isMember, 20_000));
    const old = c.view().nodes.find((n) => n.id === victim)?.incarnation?.startCount ?? 0;
    c.wipe(victim);
    const granted: number[] = [];
    c.onSend = (from, _to, msg) => {
      if (from === victim && msg.k === 'RaftVoteReply' && msg.granted) granted.push(c.t);
    };
    c.start(victim);
    t.ok(c.until(() => c.m(victim).dump().journalLost === true, 5000));
    c.run(10_000);
    t.same(granted, []);
    t.ok(
      c.until(() => c.readmit(victim).what !== undefined && c.m(victim).isMember, 60_000),
      'it is a member again',
    );
    t.ok(
      c.until(() => votes(victim, true)(c.view()), 60_000),
      'and gets its vote back',
    );
    const now = c.view().nodes.find((n) => n.id === victim);
    t.ok((now?.incarnation?.startCount ?? 0) > old, `start count ${now?.incarnation?.startCount} after ${old}`);
    t.equal(now?.floor, old);
    t.same(c.checks.problems, []);
    c.kill([1, 2, 3].find((id) => id !== victim) ?? 0);
    t.ok(
      c.until(() => c.leaderId() !== 0 && c.view().nodes.some((n) => n.state === 'evicted'), 60_000),
      'its vote counts',
    );
  },
);

t.test('rule 12: a machine that was rebooted and lost its disk is over, even where its fence methods fail', async (t) => {
  const c = settled({ seed: 10, voters: 3, fence: [['script']] });
  c.fenceScript = () => ({ ok: false, afterMs: 50 });
  const victim = c.leaderId() === 2 ? 3 : 2;
  c.reboot(victim);
  c.wipe(victim);
  t.ok(c.until(() => c.state(victim) === 'fencing', 20_000));
  c.run(20_000);
  t.equal(c.state(victim), 'fencing', 'silent, and no method succeeds');
  c.start(victim);
  t.ok(c.until(() => c.state(victim) === 'evicted', 20_000));
  t.equal(c.view().nodes.find((n) => n.id === victim)?.fencedBy, 'reboot');
  t.notOk(c.m(victim).isMember, 'it is still not admitted');
  t.ok(c.until(() => c.readmit(victim).what !== undefined && c.m(victim).isMember, 60_000));
  t.same(c.checks.problems, []);
});

t.test('S5: a node that got its vote by command and lost its journal does not pass for a new one', async (t) => {
  const c = settled({ seed: 7, voters: 3, spares: 1 });
  t.ok(c.changed((table) => ({ c: 'nodeAdd', table, spec: c.spec(4, true) }), has(4)));
  c.start(4);
  t.ok(c.until(() => votes(4, true)(c.view()), 20_000));
  c.wipe(4);
  c.start(4);
  t.ok(c.until(() => c.m(4).dump().journalLost === true, 5000));
  c.kill(1);
  c.kill(2);
  c.run(30_000);
  t.equal(c.leaderId(), 0, 'two of four, of which one has forgotten, are no majority');
});

t.test('S5: votes and disks of a journal that the log does not know are not counted', async (t) => {
  const c = settled({ seed: 8, voters: 3 });
  c.wipe(3);
  // A node with an empty journal that takes part, as if somebody outdated had told it that it is new.
  c.host(3).disk.entries = [{ index: 1, term: 1, cmd: { c: 'noop' } }];
  c.host(3).disk.term = 1;
  c.start(3);
  c.run(2000);
  const [one, two] = [c.leaderId(), c.leaderId() === 1 ? 2 : 1];
  c.kill(two);
  c.run(10_000);
  t.notOk(c.m(one).isLeader, 'its heartbeats are not acknowledged by anybody who counts');
  t.equal(c.leaderId(), 0);
});

t.test('a witness votes and is in no domain', async (t) => {
  const c = new Cluster({ seed: 9, voters: 3 });
  (c.nodes[2] as { witness?: boolean }).witness = true;
  c.startAll();
  t.ok(c.until(() => c.settled(), 20_000));
  t.same(
    c.view().domains[0]?.members.map((m) => m.node),
    [1, 2],
  );
  c.propose(3, { c: 'domainJoin', node: 3, startCount: c.host(3).startCount, name: 'x', mastery: 'peer' });
  c.run(1000);
  t.same(c.view().domains.length, 1);
  c.kill(1);
  t.ok(
    c.until(() => c.state(1) === 'evicted', 30_000),
    'the quorum is one node and the witness',
  );
  t.same(c.checks.problems, []);
});
