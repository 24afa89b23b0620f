/** Mounts on real daemons, over the real socket: what a program with files open sees of the other nodes, and of deaths. */
import { once } from 'node:events';
import { type AddressInfo, createServer } from 'node:net';
import { join } from 'node:path';
import t from 'tap';
import { encode } from '../../src/dlmfs/9p-codec.js';
import { CASES, describeResult, type Peer, runCase } from '../dlmfs/conformance.js';
import type { NinepFs } from '../fixtures/9p-client.js';
import { connect9p, mount9p, type SocketMount } from '../fixtures/9p-socket.js';
import { QUICK, TEST_LIMIT_MS, type World, world } from '../fixtures/e2e.js';
import { until, within } from '../fixtures/until.js';

t.setTimeout(TEST_LIMIT_MS);
const RW_CREAT = 0o102;
const RW = 2;
const NB = 0o4000;
/** Nobody fences by itself: what a lapsed lease does not free stays held. */
const MANUAL = { limits: { ...QUICK, dead_ms: 30_000 }, nodeLines: () => 'fence = [["manual"]]\n' };

async function freePort(): Promise<number> {
  const server = createServer().listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address() as AddressInfo;
  server.close();
  await once(server, 'close');
  return port;
}

const socketOf = (w: World, id: number): string => join(w.cluster.node(id).dir, '9p.sock');
const mountOn = (w: World, id: number, aname = ''): Promise<SocketMount> => mount9p(socketOf(w, id), aname);

t.test('the conformance table over three daemons', async (t) => {
  const w = await world(t, MANUAL);
  const clients = await Promise.all([1, 2, 3].map((id) => w.cluster.client(id)));
  for (const on of [
    [1, 2, 3],
    [2, 2, 2],
  ]) {
    const owners: Record<string, NinepFs> = {};
    for (const [at, id] of on.entries()) owners['ABC'[at] as string] = (await mountOn(w, id)).fs;
    const settle = async (): Promise<void> => {
      for (let round = 0; round < 2; round++) {
        await Promise.all(clients.map(async (c) => (await c.lock(`settle${round}`, 'PR')).release()));
        for (const c of clients) await (await c.lock('settle', 'EX')).release();
      }
    };
    const peer: Peer = { kind: 'tsdlm', owners, settle, limitMs: 10_000 };
    let number = 0;
    for (const c of CASES) {
      const quiet = { ...c, steps: c.steps.filter((s) => s.call.op !== 'blocked') };
      const wrong = await runCase(peer, quiet, `n${on.join('')}-${++number}`);
      t.equal(wrong.map((r) => describeResult(quiet, r)).join('\n'), '', `${on.join()} ${c.id}: ${c.title}`);
    }
    for (const fs of Object.values(owners)) {
      t.same((fs as NinepFs).rpc.strays, []);
      await fs.close();
    }
  }
  t.same((await w.cluster.status(1)).files.orphans, []);
});

t.test('rule 2: without a method that ends the machine there is no file door, and it says why', async (t) => {
  const w = await world(t, { limits: QUICK });
  const { files } = await w.cluster.status(1);
  t.match(files, { socket: null, refusal: /fence method that ends the machine/ });
  await t.rejects(mount9p(socketOf(w, 1)), { code: 'ENOENT' });
  const result = await w.cluster.run(1, ['mount', '--print', '/dlm']);
  t.equal(result.code, 77);
  t.match(result.stderr, /unsafe_node_owned = true/);
});

t.test('rule 2: a cluster of one needs none', async (t) => {
  const port = await freePort();
  const w = await world(t, { nodes: 1, limits: QUICK, tables: () => `\n[files]\nlisten = "127.0.0.1:${port}"\n` });
  const tcp = await mount9p({ host: '127.0.0.1', port });
  await tcp.fs.mkdir('/tcp');
  await (await tcp.fs.open('/tcp/l', RW_CREAT)).close();
  await tcp.fs.close();
  t.equal((await w.cluster.status(1)).files.listen, `127.0.0.1:${port}`);
  const { fs } = await mountOn(w, 1);
  await fs.mkdir('/d');
  const handle = await fs.open('/d/l', RW_CREAT);
  await handle.close();
  const result = await w.cluster.run(1, ['--json', 'mount', '--print', '/dlm']);
  t.equal(result.code, 0, result.stderr);
  const { command } = JSON.parse(result.stdout) as { command: string[] };
  t.match(
    command.join(' '),
    /^mount -t 9p -o trans=unix,version=9p2000.L,cache=none,access=any,\S+aname=[0-9a-f]{16}:\/dlm \S+9p.sock \/dlm$/,
  );
});

t.test('rule 6: a connection that ends leaves its open files held; they are listed, and freed by word only', async (t) => {
  const w = await world(t, MANUAL);
  const { fs, socket, closed } = await mountOn(w, 1, '0011223344556677:/dlm');
  await fs.mkdir('/vip');
  await fs.open('/vip/master', RW_CREAT);
  await (await fs.open('/vip/kept', RW_CREAT)).close();
  const other = await mountOn(w, 2);
  await other.fs.mkdir('/vip');
  socket.destroy();
  await closed;
  // What nobody had open goes with the mount.
  await (await within('the kept one', other.fs.open('/vip/kept', RW_CREAT))).close();
  await until('the orphan hold is listed', async () => (await w.cluster.status(1)).files.orphans.length === 1);
  t.match((await w.cluster.status(1)).files.orphans, [
    { mount: '0011223344556677:/dlm', domain: 'vip', name: 'master', mode: 'EX', holders: 1 },
  ]);
  const waiting = other.fs.open('/vip/master', RW_CREAT);
  let isGranted = false;
  waiting.then(() => {
    isGranted = true;
  });
  const third = await mountOn(w, 3);
  await third.fs.mkdir('/vip');
  await t.rejects(third.fs.open('/vip/master', RW_CREAT | NB), {
    code: 'ETXTBSY',
  });
  const status = await w.cluster.run(1, ['status']);
  t.match(status.stdout, /orphan hold: vip\/master EX of mount 0011223344556677:\/dlm/);
  const list = await w.cluster.run(1, ['--json', 'ls', '--domain', 'vip']);
  const entries = (JSON.parse(list.stdout) as { locks: { name: string; isOrphan: boolean }[] }).locks;
  t.equal(entries.find((e) => e.name === 'master')?.isOrphan, true);

  const wrong = await w.cluster.run(1, ['unlock', '--orphan', '--domain', 'vip', 'kept']);
  t.equal(wrong.code, 1);
  t.notOk(isGranted, 'nobody was granted it meanwhile');
  const freed = await w.cluster.run(1, ['unlock', '--orphan', '--domain', 'vip', 'master']);
  t.match(freed.stdout, /released vip\/master EX/, freed.stderr);
  await (await within('the grant after that', waiting)).close();
  t.same((await w.cluster.status(1)).files.orphans, []);
});

t.test('rule 6: a killed daemon comes back with what was open as orphan holds, and without what was only kept', async (t) => {
  const w = await world(t, MANUAL);
  const { fs, closed } = await mountOn(w, 1, 'aabbccddeeff0011:/dlm');
  await fs.mkdir('/vip');
  const handle = await fs.open('/vip/master', RW_CREAT);
  await handle.write('value');
  await fs.open('/vip/reader', 0o100);
  const other = await mountOn(w, 2);
  await other.fs.mkdir('/vip');
  const waiting = other.fs.open('/vip/master', RW_CREAT);
  let isGranted = false;
  waiting.then(() => {
    isGranted = true;
  });
  await w.cluster.node(1).kill();
  await closed;
  await t.rejects(handle.write('more'), Error);
  await w.cluster.node(1).restart(30_000);
  await until('the orphan holds', async () => (await w.cluster.status(1)).files.orphans.length === 2);
  t.same((await w.cluster.status(1)).files.orphans.map((o) => [o.mount, o.name, o.mode]).sort(), [
    ['aabbccddeeff0011:/dlm', 'master', 'EX'],
    ['aabbccddeeff0011:/dlm', 'reader', 'PR'],
  ]);
  t.notOk(isGranted);
  // A new mount on the same node is another owner.
  const again = await mountOn(w, 1);
  await again.fs.mkdir('/vip');
  await t.rejects(again.fs.open('/vip/master', RW_CREAT | NB), { code: 'ETXTBSY' });
  const freed = await w.cluster.run(1, ['unlock', '--orphan', '--mount', 'aabbccddeeff0011:/dlm']);
  t.match(freed.stdout, /vip\/master EX/, freed.stderr);
  const granted = await within('the grant after that', waiting);
  const { bytesRead } = await granted.read(new Uint8Array(64), 0, 64, 0);
  t.equal(bytesRead, 0, 'S3: what the killed one wrote is lost, and it shows');
  await granted.close();
});

t.test('rule 6: a restart keeps what is open as orphan holds, and lets go of what was only kept', async (t) => {
  const w = await world(t, MANUAL);
  const { fs } = await mountOn(w, 1, 'aabbccddeeff0012:/dlm');
  await fs.mkdir('/vip');
  await fs.open('/vip/master', RW_CREAT);
  await (await fs.open('/vip/kept', RW_CREAT)).close();
  const other = await mountOn(w, 2);
  await other.fs.mkdir('/vip');
  let isGranted = false;
  const waiting = other.fs.open('/vip/master', RW_CREAT);
  waiting.then(() => {
    isGranted = true;
  });
  const asked = await w.cluster.run(1, ['restart']);
  t.equal(asked.code, 0, asked.stderr);
  t.equal((await w.cluster.node(1).ended()).code, 75);
  await w.cluster.node(1).restart(30_000);
  await until('the orphan hold', async () => (await w.cluster.status(1)).files.orphans.length > 0);
  t.same(
    (await w.cluster.status(1)).files.orphans.map((o) => o.name),
    ['master'],
  );
  await (await within('the kept one', other.fs.open('/vip/kept', RW_CREAT))).close();
  t.notOk(isGranted);
  await w.cluster.run(1, ['unlock', '--orphan', '--all']);
  await (await within('the grant', waiting)).close();
});

t.test('only Tclunk ends a hold: a stop with files open does not let the node leave', async (t) => {
  const w = await world(t, { ...MANUAL, nodes: 1 });
  const { fs } = await mountOn(w, 1);
  await fs.mkdir('/vip');
  await fs.open('/vip/master', RW_CREAT);
  const node = w.cluster.node(1);
  t.equal((await node.stop()).code, 0);
  await node.waitLog('the warning', (l) => l.event === 'stopped-with-open-files');
  await node.restart(30_000);
  await until('the orphan hold', async () => (await w.cluster.status(1)).files.orphans.length === 1);
  t.match((await w.cluster.run(1, ['unlock', '--orphan', '--all'])).stdout, /vip\/master EX/);
  const again = await mountOn(w, 1);
  await again.fs.mkdir('/vip');
  await (await again.fs.open('/vip/master', RW_CREAT | NB)).close();
  await again.fs.close();
  await until('nothing is mounted', async () => (await w.cluster.status(1)).files.mounts.length === 0);
  const since = node.log.length;
  t.equal((await node.stop()).code, 0);
  t.notOk(node.log.slice(since).some((l) => l.event === 'stopped-with-open-files'));
});

t.test(
  'a holder that is cut off keeps its file; opens at a node without a lease are undecided, not busy (rules 2, 22)',
  async (t) => {
    const w = await world(t, MANUAL);
    const one = await mountOn(w, 1);
    await one.fs.mkdir('/vip');
    const held = await one.fs.open('/vip/master', RW_CREAT);
    const other = await mountOn(w, 2);
    await other.fs.mkdir('/vip');
    await w.cluster.node(2).kill();
    await w.cluster.node(3).kill();
    await until('the lease is over', async () => (await w.cluster.status(1)).leaseLeftMs === 0);
    await t.rejects(within('the undecided try', one.fs.open('/vip/other', RW_CREAT | NB)), { code: 'ENOTCONN' });
    await t.rejects(within('a try on the own level', one.fs.open('/vip/master', RW | NB)), { code: 'ENOTCONN' });
    t.equal((await held.read(new Uint8Array(64), 0, 64, 0)).bytesRead, 64, 'the holder goes on');
    await Promise.all([2, 3].map((id) => w.cluster.node(id).restart(30_000)));
    await within('an open that waits', one.fs.open('/vip/master', RW), 20_000);
  },
);

t.test('hostile clients at the real socket are sent away, counted, and disturb nobody', async (t) => {
  const w = await world(t, { nodes: 1, limits: QUICK });
  const good = await mountOn(w, 1);
  await good.fs.mkdir('/d');
  const handle = await good.fs.open('/d/l', RW_CREAT);
  const garbage = [Buffer.from('GET / HTTP/1.1\r\n\r\n'), Buffer.alloc(64, 255), Buffer.from([7, 0, 0, 0, 120, 0, 0])];
  for (const bytes of garbage) {
    const bad = await connect9p(socketOf(w, 1));
    bad.socket.write(bytes);
    await within('its end', bad.closed);
  }
  // One that asks and never reads.
  const deaf = await connect9p(socketOf(w, 1));
  await deaf.rpc.version();
  const root = await deaf.rpc.attach();
  deaf.socket.pause();
  const ask = encode({ k: 'Tgetattr', tag: 9, fid: root, mask: 0x7ff });
  const many = Buffer.concat(Array.from({ length: 5000 }, () => ask));
  for (let i = 0; i < 40 && deaf.socket.writable; i++) deaf.socket.write(many);
  t.equal((await handle.write('fine')).bytesWritten, 4);
  t.equal((await handle.read(new Uint8Array(64), 0, 64, 0)).bytesRead, 64);
  deaf.socket.destroy();
  await until('they are counted', async () => (await w.cluster.status(1)).files.endedConnections >= garbage.length);
  t.ok(w.cluster.node(1).rssMb() < 400, `${w.cluster.node(1).rssMb()} MB`);
  await handle.close();
});
