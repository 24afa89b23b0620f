/** The port between daemons: whoever does not belong there is refused, named, and costs the daemon neither memory nor service. */
import { randomBytes } from 'node:crypto';
import { readFileSync, writeFileSync } from 'node:fs';
import { connect, type Socket } from 'node:net';
import t, { type Test } from 'tap';
import { bootId } from '../../src/node/facts.js';
import { PeerNet } from '../../src/node/peer-net.js';
import { QUICK, QUICK_LIMITS, TEST_LIMIT_MS, type World, world } from '../fixtures/e2e.js';
import { until, within } from '../fixtures/until.js';

/** More than a daemon may keep of what strangers send; they send several times as much. */
const GROWTH_MB_MAX = 64;
const GARBAGE_MB = 32;
const TIMES = 4;

t.setTimeout(TEST_LIMIT_MS);

/** A lock goes round: the daemons still serve. */
async function serves(t: Test, w: World, ids: number[]): Promise<void> {
  for (const id of ids) {
    const held = await within(`node ${id} grants`, (await w.owner(id)).lock('still works'));
    await held.release();
  }
  t.ok(
    ids.every((id) => w.cluster.node(id).isRunning),
    'the daemons live and serve',
  );
}

async function closed(socket: Socket): Promise<void> {
  if (socket.destroyed) return;
  await within('the connection is closed', new Promise<void>((resolve) => socket.once('close', () => resolve())));
}

function dial(port: number): Socket {
  const socket = connect({ host: '127.0.0.1', port });
  socket.on('error', () => {});
  socket.resume();
  return socket;
}

/** Sends until all is gone or the other side has had enough. */
async function flood(socket: Socket, bytes: number): Promise<void> {
  const chunk = randomBytes(1024 * 1024);
  // As a frame this begins with a length far above every limit; as TLS it is nothing at all.
  for (let sent = 0; sent < bytes && !socket.destroyed; sent += chunk.length) {
    await new Promise<void>((resolve) => socket.write(chunk, () => resolve()));
  }
}

for (const tls of [true, false]) {
  t.test(`${GARBAGE_MB} MB of garbage and a flood of connections (${tls ? 'TLS' : 'plain'})`, async (t) => {
    const w = await world(t, { nodes: 2, limits: QUICK, tls });
    const port = w.cluster.ports[0] ?? 0;
    const node = w.cluster.node(1);
    await serves(t, w, [1, 2]);
    const before = node.rssMb();
    for (let i = 0; i < TIMES; i++) {
      const socket = dial(port);
      await flood(socket, GARBAGE_MB * 1024 * 1024);
      await closed(socket);
    }
    if (!tls) {
      const socket = dial(port);
      const announced = Buffer.alloc(5);
      announced.writeUInt32LE(64 * 1024 * 1024);
      socket.write(announced);
      await closed(socket);
      await node.waitLog('the refusal', (l) => l.code === 'TSDLM_FRAME_TOO_LARGE');
    }
    const many = Array.from({ length: 500 }, () => dial(port));
    await until('most of them are gone', () => many.filter((s) => s.destroyed).length > 400);
    const grown = node.rssMb() - before;
    t.ok(grown < GROWTH_MB_MAX, `grown by ${grown.toFixed(1)} MB`);
    await serves(t, w, [1, 2]);
    for (const socket of many) socket.destroy();
  });
}

t.test('daemons that do not belong to the cluster are refused on both sides, and it goes on without them', async (t) => {
  const w = await world(t, { limits: QUICK, start: false });
  const [one, two, three] = [w.cluster.node(1), w.cluster.node(2), w.cluster.node(3)];
  const good = readFileSync(three.config, 'utf8');
  for (const node of [one, two, three]) node.start();
  await Promise.all([one, two, three].map((node) => node.joined(0)));
  await three.stop();

  for (const { what, code, text } of [
    {
      what: 'another key',
      code: 'TSDLM_AUTH_FAILED',
      text: good.replace(/key = "\w+"/, 'key = "fedcba9876543210fedcba9876543210"'),
    },
    // A journal knows its cluster, so this one comes with an empty state directory.
    {
      what: 'another cluster',
      code: 'TSDLM_WRONG_CLUSTER',
      text: good.replace('cluster = "test"', 'cluster = "other"').replace('/state"', '/other-state"'),
    },
  ]) {
    const since = [one.log.length, three.log.length];
    writeFileSync(three.config, text);
    three.start();
    const [there, here] = await Promise.all([
      one.waitLog(`${what} at node 1`, (l) => l.code === code, 15_000, since[0]),
      three.waitLog(`${what} at node 3`, (l) => l.code === code, 15_000, since[1]),
    ]);
    t.ok(there && here, `${what}: ${code}: ${there.text}`);
    t.notMatch(JSON.stringify([there, here]), /fedcba98|01234567/, 'no key in the log');
    await three.kill();
    await serves(t, w, [1, 2]);
  }

  // What the cluster has in its table the file of one node does not change: node-table.test.ts.
  for (const [code, text] of [
    ['TSDLM_LIMITS_MISMATCH', good.replace('lease_ms = 1500', 'lease_ms = 1600')],
    ['TSDLM_CONFIG_MISMATCH', good.replace(/(port = \d+\n)$/, '$1voter = false\n')],
  ] as const) {
    writeFileSync(three.config, text);
    const result = await w.cluster.runDaemon(['--config', three.config]);
    t.equal(result.code, 78);
    t.match(result.stderr, code);
    await serves(t, w, [1, 2]);
  }

  const since = one.log.length;
  const tooNew = new PeerNet({
    self: 3,
    incarnation: { bootId: bootId(), machineId: 'x', startCount: 99, journalId: 'x' },
    nodes: w.cluster.nodes.map((n, i) => ({ id: n.id, name: n.name, host: '127.0.0.1', port: w.cluster.ports[i] ?? 0 })),
    listen: { host: '127.0.0.1', port: w.cluster.ports[2] ?? 0 },
    clusterName: 'test',
    clusterKey: Buffer.from('0123456789abcdef0123456789abcdef'),
    configSum: 'x',
    limits: QUICK_LIMITS,
    tls: true,
    versions: { versionMin: 2, versionMax: 3 },
    log: () => {},
    onMessage: () => {},
    onUp: () => {},
    onDown: () => {},
  });
  t.teardown(() => tooNew.close());
  await tooNew.listen();
  tooNew.start();
  const refused = await one.waitLog('the refusal', (l) => l.code === 'TSDLM_VERSION_MISMATCH', 15_000, since);
  t.match(refused.text, /upgrade the older side/);
  await tooNew.close();

  writeFileSync(three.config, good);
  await three.restart();
  await serves(t, w, [1, 2, 3]);
});
