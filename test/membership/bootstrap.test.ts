/** The first start of a cluster, and disks that were lost. */
import t from 'tap';
import { clusterIdOf } from '../../src/membership/bootstrap.js';
import { Cluster } from './harness.js';

t.test('blank voters find each other without an operator and agree on the cluster id', async (t) => {
  const c = new Cluster({ seed: 1, voters: 3, learners: 1 });
  c.startAll();
  t.ok(c.until(() => c.settled(), 10_000));
  const ids = new Set([1, 2, 3].map((id) => c.host(id).disk.boot?.clusterId));
  t.equal(ids.size, 1);
  t.match(c.view().clusterId, /^[0-9a-f]{16}$/);
  t.equal(c.view().clusterId, [...ids][0]);
  t.equal(c.host(4).disk.boot, null, 'a learner needs none');
});

t.test('nothing begins before all voters were seen once', async (t) => {
  const c = new Cluster({ seed: 2 });
  c.start(1);
  c.start(2);
  c.run(10_000);
  t.equal(c.leaderId(), 0);
  t.equal(c.host(1).disk.boot, null);
  c.start(3);
  t.ok(c.until(() => c.settled(), 10_000));
});

t.test('a voter that was slower adopts the set that it stands in', async (t) => {
  const c = new Cluster({ seed: 3 });
  c.startAll();
  c.until(() => c.host(1).disk.boot !== null || c.host(2).disk.boot !== null || c.host(3).disk.boot !== null, 5000);
  const slow = [1, 2, 3].find((id) => c.host(id).disk.boot === null);
  if (slow !== undefined) {
    c.kill(slow);
    c.host(slow).disk.boot = null;
    c.run(3000);
    c.start(slow);
  }
  t.ok(c.until(() => c.settled(), 20_000));
  t.equal(new Set([1, 2, 3].map((id) => c.host(id).disk.boot?.clusterId)).size, 1);
});

t.test('S5: the bootstrap survives a crash at any point', async (t) => {
  for (let seed = 1; seed <= 150; seed++) {
    const c = new Cluster({ seed, voters: 3, diskMs: [1, 300], delayMs: [1, 200], loss: 0.2 });
    c.startAll();
    for (let i = 0; i < 12; i++) {
      c.run(c.between([5, 400]));
      const id = 1 + Math.floor(c.random.next() * 3);
      c.kill(id);
      c.at(c.between([1, 200]), () => c.start(id));
    }
    c.loss = 0;
    c.startAll();
    if (!c.until(() => c.settled(), 30_000)) t.fail(`seed ${seed}: no cluster`);
    if (c.checks.problems.length > 0) t.fail(`seed ${seed}: ${c.checks.problems[0]}`);
  }
  t.pass('150 seeds');
});

t.test('a voter that lost its disk never votes again, is not admitted, and says why', async (t) => {
  const c = new Cluster({ seed: 5 });
  c.startAll();
  c.until(() => c.settled(), 10_000);
  c.wipe(2);
  c.run(2000);
  let granted = 0;
  c.onSend = (from, _to, msg) => {
    if (from === 2 && ((msg.k === 'RaftVoteReply' && msg.granted) || msg.k === 'HeartbeatAck' || msg.k === 'RaftAppendReply'))
      granted++;
  };
  c.start(2);
  c.run(30_000);
  t.equal(granted, 0);
  t.equal(c.m(2).isMember, false);
  const notes = c.host(2).notes.filter((n) => n.event === 'journal-lost');
  t.equal(notes.length, 1);
  t.match(notes[0], { level: 'error', data: { code: 'TSDLM_JOURNAL_LOST' } });
  // And without another voter there is no majority: the empty journal does not make one.
  const other = c.leaderId() === 1 ? 3 : 1;
  c.kill(other);
  c.run(30_000);
  t.equal(c.leaderId(), 0);
});

t.test('two voters that lost their disks do not make a new cluster beside the third', async (t) => {
  const c = new Cluster({ seed: 6 });
  c.startAll();
  c.until(() => c.settled(), 10_000);
  c.wipe(1);
  c.wipe(2);
  c.kill(3);
  c.start(1);
  c.start(2);
  c.run(20_000);
  t.equal(c.leaderId(), 0);
  c.start(3);
  c.run(20_000);
  t.equal(c.leaderId(), 0);
  t.ok(c.host(1).notes.some((n) => n.event === 'journal-lost'));
});

t.test('a learner with another journal than the cluster knows is refused', async (t) => {
  const c = new Cluster({ seed: 7, learners: 1 });
  c.startAll();
  c.until(() => c.settled(), 10_000);
  c.wipe(4);
  c.run(10_000);
  c.start(4);
  c.run(10_000);
  t.equal(c.m(4).isMember, false);
  t.match(
    c.host(4).notes.filter((n) => n.event === 'join-refused'),
    [{ level: 'error', data: { code: 'TSDLM_JOURNAL_LOST' } }],
  );
});

t.test('an answer to an earlier life of the journal counts for nothing', async (t) => {
  const c = new Cluster({ seed: 8 });
  c.start(1);
  c.run(100);
  const m = c.m(1);
  for (const from of [2, 3]) {
    m.receive(c.local(c.host(1)), from, {
      k: 'BootProbe',
      journalId: `j${from}`,
      reply: true,
      blank: true,
      known: { asked: 'the journal that was here before', boot: null },
    });
  }
  c.run(1000);
  t.equal(c.host(1).disk.boot, null);
});

t.test('a single voter begins at once', async (t) => {
  const c = new Cluster({ seed: 9, voters: 1 });
  c.startAll();
  t.ok(c.until(() => c.settled(), 3000));
  t.ok(c.t < 1500, `${Math.round(c.t)} ms`);
});

t.test('the cluster id follows from the set of journals and from nothing else', async (t) => {
  t.equal(clusterIdOf({ 1: 'a', 2: 'b', 10: 'c' }), clusterIdOf({ 10: 'c', 2: 'b', 1: 'a' }));
  t.not(clusterIdOf({ 1: 'a', 2: 'b' }), clusterIdOf({ 1: 'b', 2: 'a' }));
});
