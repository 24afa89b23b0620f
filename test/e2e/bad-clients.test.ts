/** The local socket: a client that sends nonsense, too much, or reads nothing harms only itself. */
import { once } from 'node:events';
import { createConnection, type Socket } from 'node:net';
import t, { type Test } from 'tap';
import { ERROR_CODES } from '../../src/protocol/errors.js';
import { CLIENT_FRAME_BYTES_MAX } from '../../src/protocol/limits.js';
import { QUICK, world } from '../fixtures/e2e.js';
import { RawClient } from '../fixtures/raw-client.js';
import { until, within } from '../fixtures/until.js';

const GROWTH_MB_MAX = 64;

const w = await world(t, { nodes: 1, limits: QUICK });
const node = w.cluster.node(1);
await t.test('warm up', (t) => serves(t));
const before = node.rssMb();

async function serves(t: Test): Promise<void> {
  const owner = await w.owner(1);
  const held = await within('a grant', owner.lock('still works'));
  await held.release();
  await owner.client.close();
  t.ok(node.isRunning, 'the daemon lives and serves');
}

function bounded(t: Test): void {
  const grown = node.rssMb() - before;
  t.ok(grown < GROWTH_MB_MAX, `its memory has grown by ${grown.toFixed(1)} MB`);
}

async function dial(): Promise<Socket> {
  const socket = createConnection({ path: node.socket });
  socket.on('error', () => {});
  await once(socket, 'connect');
  return socket;
}

t.test('32 MB of garbage', async (t) => {
  for (let i = 0; i < 4; i++) {
    const socket = await dial();
    socket.resume();
    const chunk = Buffer.alloc(1024 * 1024, 0x55);
    for (let mb = 0; mb < 32 && !socket.destroyed; mb++) await new Promise((resolve) => socket.write(chunk, resolve));
    await until('the connection is closed', () => socket.destroyed);
  }
  bounded(t);
  await serves(t);
});

t.test('garbage and a frame above the limit from a client that greeted well: told why, with the code', async (t) => {
  const big = Buffer.alloc(5);
  big.writeUInt32LE(CLIENT_FRAME_BYTES_MAX + 1);
  const unknown = Buffer.from([3, 0, 0, 0, 0x7f, 1, 2]);
  for (const [bytes, code] of [
    [big, ERROR_CODES.TSDLM_FRAME_TOO_LARGE],
    [unknown, ERROR_CODES.TSDLM_BAD_FRAME],
  ] as const) {
    const client = await RawClient.greet(node.socket);
    client.socket.write(bytes);
    t.equal((await client.wait('DaemonBye')).code, code);
    client.close();
  }
  await serves(t);
});

t.test('a client that asks and never reads', async (t) => {
  const client = await RawClient.greet(node.socket);
  client.socket.pause();
  let rid = 1;
  // Every answer is a denial of some hundred bytes.
  const ask = (): void => {
    if (client.socket.writableLength > 4 * 1024 * 1024) return;
    for (let i = 0; i < 2000; i++) client.send({ k: 'ClientUnlock', rid: rid++, lock: 1, lvb: null });
  };
  const asking = setInterval(ask, 5);
  t.teardown(() => clearInterval(asking));
  await node.waitLog('it is sent away', (l) => l.event === 'client-dismissed' && l.code === 'TSDLM_SLOW_CLIENT', 60_000);
  clearInterval(asking);
  bounded(t);
  client.close();
  await serves(t);
});

t.test('a flood of connections, half of which say nothing', async (t) => {
  const sockets: Socket[] = [];
  const clients: RawClient[] = [];
  t.teardown(() => {
    for (const socket of sockets) socket.destroy();
    for (const client of clients) client.close();
  });
  for (let i = 0; i < 400; i++) {
    const silent = await dial();
    silent.resume();
    sockets.push(silent);
    clients.push(await RawClient.greet(node.socket));
  }
  await serves(t);
  bounded(t);
  for (const client of clients) client.close();
  await until('those that say nothing are sent away', () => sockets.every((s) => s.destroyed), 30_000);
  t.ok((await w.cluster.status(1)).sessions <= 2);
});

await t.test('after all of it', async (t) => {
  await serves(t);
  bounded(t);
  t.same(
    node.log.filter((l) => l.level >= 50),
    [],
    'nothing of this is an error of the daemon',
  );
});
