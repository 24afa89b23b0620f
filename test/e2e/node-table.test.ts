/**
 * Membership by command, with real daemons and under load: a fourth node comes, votes, others lose their vote and go for good, the
 * lease is changed, and no lock is lost by it.
 */
import { readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { QUICK, world } from '../fixtures/e2e.js';
import { until, within } from '../fixtures/until.js';
import { Workload } from '../fixtures/workload.js';
import { Prng } from '../sim/prng.js';

const w = await world(t, { limits: QUICK, spares: 1 });
const [one, two, three, four] = [1, 2, 3, 4].map((id) => w.cluster.node(id));
if (!one || !two || !three || !four) throw new Error('no nodes');

const port = (id: number): string => `127.0.0.1:${w.cluster.ports[id - 1]}`;

async function tsdlm(at: number, ...args: string[]): Promise<{ code: number | null; stdout: string; stderr: string }> {
  const result = await w.cluster.run(at, args, 90_000);
  t.comment(`tsdlm ${args.join(' ')}: ${result.code} ${result.stdout}${result.stderr}`.trimEnd());
  return result;
}

const members = async (at: number) =>
  (await w.cluster.status(at)).members.map((m) => `${m.name}:${m.state}:${m.voter ? 'v' : '-'}`);

const load = new Workload(['a', 'b', 'c']);
for (const id of [1, 2]) load.add(await w.owner(id), new Prng(7, id));
const kept = await (await w.owner(2)).lock('kept', 'EX');

t.test('a fourth node is added to the running cluster, knows one peer, and gets its vote when it has caught up', async (t) => {
  four.start();
  await four.waitLog('it is refused', (l) => l.code === 'TSDLM_UNKNOWN_NODE');
  const added = await tsdlm(1, 'node', 'add', 'n4', port(4), '--id', '4');
  t.equal(added.code, 0, added.stderr);
  await four.joined(0);
  await until('it votes, as every node sees it', async () => {
    const seen = await Promise.all([1, 2, 3, 4].map(members));
    return seen.every((list) => list.join() === 'n1:in:v,n2:in:v,n3:in:v,n4:in:v');
  });
  const lock = await within('it locks', (await w.owner(4)).lock('from-four'), 15_000);
  await lock.release();
  const again = await tsdlm(2, 'node', 'add', 'n4', port(4), '--id', '4');
  t.equal(again.code, 0, 'said twice it changes nothing');
  const other = await tsdlm(2, 'node', 'add', 'n5', port(4), '--id', '4');
  t.equal(other.code, 77, 'its number is taken');
  t.match(other.stderr, /number 4 is that of node n4/);
});

t.test('rule 14: the lease is changed online, and status says so', async (t) => {
  const set = await tsdlm(3, 'limits', 'set', '--lease', '2500ms');
  t.equal(set.code, 0, set.stderr);
  await until('all go by it', async () =>
    (await Promise.all([1, 2, 3, 4].map((id) => w.cluster.status(id)))).every((s) => s.limits.leaseMs === 2500),
  );
  await until('the change is settled', async () => !(await w.cluster.status(1)).limits.isSettling);
  const back = await tsdlm(1, 'limits', 'set', '--lease', '1500ms');
  t.equal(back.code, 0, back.stderr);
  t.equal((await w.cluster.status(1)).limits.isSettling, true, 'who waits for a lease counts by the longer one for a while');
  const bad = await tsdlm(1, 'limits', 'set', '--lease', '100ms');
  t.notSame(bad.code, 0);
  t.match(bad.stderr, /lease 100 ms must be at least 6 heartbeats/);
});

t.test('one loses its vote, another goes for good and is refused', async (t) => {
  const demoted = await tsdlm(2, 'node', 'set', 'n1', '--role', 'member');
  t.equal(demoted.code, 0, demoted.stderr);
  const live = await tsdlm(2, 'node', 'remove', 'n3');
  t.equal(live.code, 77, 'a member is not removed');
  await three.stop();
  const removed = await tsdlm(2, 'node', 'remove', 'n3');
  t.equal(removed.code, 0, removed.stderr);
  t.same(await members(2), ['n1:in:-', 'n2:in:v', 'n4:in:v']);
  const since = two.log.length;
  three.start();
  const refused = await two.waitLog('it is refused', (l) => l.code === 'TSDLM_NODE_REMOVED', 15_000, since);
  t.match(refused.text, /node 3 \(n3\) was removed from the cluster for good/);
  await three.kill();
});

t.test('nobody lost a lock by any of this', async (t) => {
  t.equal(kept.lostAt, null);
  t.ok(kept.handle.valid());
  await kept.release();
  await within('the last requests end', load.stop(), 30_000);
  t.same(load.wrong, []);
  t.notOk(load.outcomes.has('TSDLM_LOST'), JSON.stringify(Object.fromEntries(load.outcomes)));
  t.ok((load.outcomes.get('granted') ?? 0) > 100, 'there was work');
  const fenced = [one, two, four].flatMap((n) => n.log.filter((l) => l.event === 'fencing'));
  t.same(fenced, [], 'nobody was fenced');
});

t.test('a restarted node starts from the table; a file edited against it is refused with both values', async (t) => {
  await one.stop();
  await one.restart(30_000);
  t.equal((await w.cluster.status(1)).members.find((m) => m.name === 'n1')?.voter, false, 'its file still gives it a vote');
  await one.stop();
  const good = readFileSync(one.config, 'utf8');
  for (const { text, code, say } of [
    {
      text: good.replace('lease_ms = 1500', 'lease_ms = 1800'),
      code: 'TSDLM_LIMITS_MISMATCH',
      say: /leaseMs is 1800 here and 1500.*tsdlm limits set/,
    },
    {
      text: good.replace(`port = ${w.cluster.ports[1]}`, 'port = 9'),
      code: 'TSDLM_CONFIG_MISMATCH',
      say: /address of node n2 is .*,9\] here and .*tsdlm node set n2 --address/,
    },
  ]) {
    writeFileSync(one.config, text);
    const result = await w.cluster.runDaemon(['--config', one.config]);
    t.equal(result.code, 78, result.stderr);
    t.match(result.stderr, say);
    t.match(result.stderr, code);
  }
  writeFileSync(one.config, good);
  await one.restart(30_000);
});

t.test('S5: a wiped node is let in as a new one, and gets its vote back', async (t) => {
  const voters = await tsdlm(2, 'node', 'voters', 'n1', 'n2', 'n4');
  t.equal(voters.code, 0, voters.stderr);
  const before = four.log.filter((l) => l.event === 'joined').length;
  await four.kill();
  rmSync(join(four.dir, 'state'), { recursive: true });
  four.start();
  await four.waitLog('it says so', (l) => l.event === 'journal-lost');
  t.match(four.log.find((l) => l.event === 'journal-lost')?.text, /tsdlm node readmit/, 'with the way out');
  const result = await tsdlm(2, 'node', 'readmit', 'n4');
  t.equal(result.code, 0, result.stderr);
  await until('it is a member again', () => four.log.filter((l) => l.event === 'joined').length > before);
  await until('it votes again', async () => (await members(2)).join() === 'n1:in:v,n2:in:v,n4:in:v');
  await one.kill();
  const lock = await within('its vote counts', (await w.owner(4)).lock('after'), 30_000);
  await lock.release();
});

await w.judge();
