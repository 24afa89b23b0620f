/**
 * Goal: LOCK_GULM's world with real daemons: three lock servers that run no clients, two nodes without a vote that do.
 * The servers master everything; one of them (the leader, and the master of a held name) is killed, and then a second.
 */
import t from 'tap';
import type { StatsData } from '../../src/protocol/admin.js';
import { TestCluster } from '../fixtures/cluster.js';
import { until as untilWithin } from '../fixtures/until.js';

t.setTimeout(180_000);

const SERVERS = [1, 2, 3];
/** Five daemons at once take their time on a small machine. */
const until = (what: string, done: () => Promise<boolean>) => untilWithin(what, done, 40_000);
const [A, B] = [4, 5];

async function startCluster(): Promise<TestCluster> {
  const cluster = await TestCluster.create({
    nodes: 5,
    extra: 'mastery = "servers"\n',
    nodeLines: (id) => (SERVERS.includes(id) ? '' : 'voter = false\n'),
  });
  await cluster.start();
  await until('everybody is in the domain', async () => (await cluster.status(A)).domains[0]?.members.length === 5);
  return cluster;
}

async function stats(cluster: TestCluster, at: number, of?: number): Promise<StatsData> {
  const { code, stdout, stderr } = await cluster.run(at, ['--json', 'stats', ...(of === undefined ? [] : [`n${of}`])]);
  if (code !== 0) throw new Error(stderr);
  return JSON.parse(stdout) as StatsData;
}

t.test('servers master, clients hold; a server that dies takes nothing along, and comes back', async (t) => {
  const cluster = await startCluster();
  t.teardown(() => cluster.close());
  const [a, b] = [await cluster.client(A), await cluster.client(B)];
  const leader = await cluster.leader();
  t.ok(SERVERS.includes(leader));

  // Names until each server masters some, all held by client nodes.
  const held = new Map<string, Awaited<ReturnType<typeof a.lock>>>();
  const masters = new Map<string, number>();
  for (let i = 0; new Set(masters.values()).size < 3; i++) {
    held.set(`n${i}`, await a.lock(`n${i}`, 'EX'));
    masters.set(`n${i}`, (await cluster.show(B, `n${i}`)).master?.id ?? 0);
    if (i > 200) throw new Error('200 names, and a server without any');
  }
  t.strictSame([...new Set(masters.values())].sort(), SERVERS, 'only servers master');
  const role = async (id: number) => (await stats(cluster, A, id)).role;
  t.strictSame(await Promise.all([...SERVERS, A].map(role)), [
    ...SERVERS.map((id) => (id === leader ? 'leader' : 'voter')),
    'member',
  ]);

  // The leader is also master of a name that A holds and B waits for.
  const name = [...masters].find(([, master]) => master === leader)?.[0] ?? '';
  const handle = held.get(name);
  let isGranted = false;
  const waiting = b.lock(name, 'EX').then((lock) => {
    isGranted = true;
    return lock;
  });
  await until('B waits', async () => (await cluster.show(A, name)).waiting.length === 1);
  await cluster.node(leader).kill();
  await until('another leads and the dead one is out', async () => {
    const s = await cluster.status(A);
    return s.leader !== null && s.leader.id !== leader && ['fenced', 'evicted'].includes(s.members[leader - 1]?.state ?? '');
  });
  t.ok(handle?.valid(), 'A keeps what it holds');
  t.notOk(isGranted);
  // While it is placed anew nobody answers for it.
  const shown = () => cluster.show(B, name).catch(() => null);
  await until('it has another server as master', async () => ((await shown())?.master?.id ?? leader) !== leader);
  const moved = await cluster.show(B, name);
  t.ok(SERVERS.includes(moved.master?.id ?? 0));
  t.equal(moved.waiting.length, 1, 'the waiter kept its place');
  await handle?.release();
  const next = await waiting;
  t.ok(next.token > (handle?.token ?? 0n), 'and gets it with a larger token');

  // It comes back, catches up, and gets new names.
  await cluster.node(leader).restart();
  await until('it is a server again', async () =>
    (await cluster.status(A)).domains.some((d) => d.name === 'default' && d.masters.length === 3 && d.state === 'active'),
  );
  const back = await stats(cluster, leader);
  t.equal(back.role, 'voter');
  t.equal(back.epoch, (await stats(cluster, A)).epoch, "the generation is everybody's");
  for (let i = 0; ; i++) {
    const fresh = await a.lock(`new${i}`, 'EX');
    const master = (await cluster.show(B, `new${i}`)).master?.id;
    await fresh.release();
    if (master === leader) break;
    if (i > 200) throw new Error('200 names, and none for the server that came back');
  }
  for (const lock of held.values()) if (lock !== handle) await lock.release();
  await next.release();
});

t.test('without a quorum of servers nothing is granted, and it is called arbitrating', async (t) => {
  const cluster = await startCluster();
  t.teardown(() => cluster.close());
  const refused = await cluster.run(A, ['node', 'shutdown', 'n1']);
  t.equal(refused.code, 0, `with two servers left that is no harm: ${refused.stderr}`);
  t.match(refused.stdout, /n1 has left/);
  await cluster.node(1).waitLog('the clean end', (l) => l.event === 'daemon-stopped');
  await until('n1 has left', async () => (await cluster.status(A)).members[0]?.state === 'left');
  t.match((await cluster.run(A, ['nodes'])).stdout, /n1 +left/);

  const costly = await cluster.run(A, ['node', 'shutdown', 'n2']);
  t.equal(costly.code, 77);
  t.match(costly.stderr, /1 of 3 voters would be left, and 2 are needed.*--force/);
  t.ok(cluster.node(2).isRunning);
  await cluster.node(2).kill();
  const b = await cluster.client(B);
  await until('the last server arbitrates', async () => (await cluster.status(3)).role === 'arbitrating');
  const status = await cluster.run(3, ['status']);
  t.match(status.stdout, /role +arbitrating: without a quorum nothing is granted; 1 of 3 voters reached, 2 needed/);
  t.match(await stats(cluster, 3), {
    role: 'arbitrating',
    leader: null,
    quorum: { has: 1, needs: 2, voters: 3, isQuorate: false },
  });
  await t.rejects(b.lock('new', 'EX', { timeout: 700 }), { code: /TSDLM_(TIMEOUT|UNAVAILABLE)/ });
  await cluster.node(1).restart();
  const lock = await b.lock('new', 'EX', { timeout: 20_000 });
  t.ok(lock.token > 0n, 'with a quorum it goes on');
  await lock.release();
});

t.test('tsdlm node shutdown refuses to lose locks; node expire fences; domain join keeps to the policy', async (t) => {
  const cluster = await startCluster();
  t.teardown(() => cluster.close());
  const a = await cluster.client(A);
  const lock = await a.lock('busy', 'EX');
  const refused = await cluster.run(B, ['node', 'shutdown', 'n4']);
  t.equal(refused.code, 77);
  t.match(refused.stderr, /1 locks that programs here hold would be lost \(default\/busy\)/);
  await lock.release();
  const own = await cluster.run(A, ['node', 'shutdown']);
  t.equal(own.code, 0, own.stderr);
  await cluster.node(A).waitLog('the clean end', (l) => l.event === 'daemon-stopped');

  const joined = await cluster.run(B, ['domain', 'join', 'apart', '--mastery', 'peer']);
  t.match(joined.stdout, /apart +peer +(active|recovering) +\d+ +n5 +n5/);
  const contradicted = await cluster.run(1, ['domain', 'join', 'apart', '--mastery', 'servers']);
  t.equal(contradicted.code, 77);
  t.match(contradicted.stderr, /domain apart has mastery "peer".*says "servers"/);
  const { warnings } = await cluster.status(B);
  t.notOk(
    warnings.some((w) => w.includes('mastery')),
    'another policy for one domain by command is no contradiction',
  );
  const served = await cluster.run(B, ['--json', 'domain', 'join', 'served']);
  t.match(JSON.parse(served.stdout), { mastery: 'servers', masters: [{ id: 1 }, { id: 2 }, { id: 3 }] });

  const unsure = await cluster.run(1, ['node', 'expire', 'n5']);
  t.equal(unsure.code, 64, 'the name is asked for, and nobody is there to type it');
  const expired = await cluster.run(1, ['node', 'expire', 'n5', '--yes']);
  t.equal(expired.code, 0, expired.stderr);
  t.match(expired.stdout, /n5 (counts as fenced by self|was expired, and is back)/);
  const raw = await cluster.run(1, ['stats', '--raw']);
  t.match(raw.stdout, /^role = (leader|voter)$/m);
  t.match(raw.stdout, /^mastered_resources = \d+$/m);
  t.match((await cluster.run(1, ['stats'])).stdout, /^quorum_needs + {1,2}= 2$/m);
  t.equal((await cluster.run(1, ['stats', 'nobody'])).code, 64);
});
