/** The in-process file API over real daemons: the conformance table, and what a program sees of restarts and deaths. */
import t, { type Test } from 'tap';
import type { Client } from '../../src/client/index.js';
import { type Dlmfs, openDlmfs } from '../../src/dlmfs/index.js';
import { QUICK, world } from '../fixtures/e2e.js';
import { within } from '../fixtures/until.js';
import { CASES, describeResult, type Peer, runCase } from './conformance.js';

const w = await world(t, { limits: QUICK });
const RW_CREAT = 0o102;
const NB = 0o4000;

const clients: Client[] = await Promise.all([1, 2, 3].map((id) => w.cluster.client(id)));

async function mountOn(id: number): Promise<Dlmfs> {
  const socket = w.cluster.nodes[id - 1]?.socket as string;
  const fs = await openDlmfs('/nowhere', { socket, umask: 0 });
  t.teardown(() => fs.close({ force: true }).catch(() => {}));
  return fs;
}

/** Every message that was under way when this began has arrived when it ends: locks go over the same links. */
async function settle(): Promise<void> {
  for (let round = 0; round < 2; round++) {
    await Promise.all(clients.map(async (c) => (await c.lock(`settle${round}`, 'PR')).release()));
    for (const c of clients) await (await c.lock('settle', 'EX')).release();
  }
}

async function conformance(t: Test, on: number[]): Promise<void> {
  const owners: Record<string, Dlmfs> = {};
  for (const [at, id] of on.entries()) owners['ABC'[at] as string] = await mountOn(id);
  const peer: Peer = { kind: 'tsdlm', owners, settle, limitMs: 10_000 };
  let number = 0;
  for (const c of CASES) {
    const wrong = await runCase(peer, c, `s${on.join('')}-${++number}`);
    t.equal(wrong.map((r) => describeResult(c, r)).join('\n'), '', `${c.id}: ${c.title}`);
  }
}

t.test('the conformance table, each owner on a node of its own', (t) => conformance(t, [1, 2, 3]));
t.test('the conformance table, all owners on one node', (t) => conformance(t, [2, 2, 2]));

t.test('it says which backend it is', async (t) => {
  const fs = await mountOn(1);
  t.equal(fs.backend, 'tsdlm');
  t.equal((await fs.statfs()).type, 0x76a9f425);
  await t.rejects(openDlmfs('/nowhere', { backend: 'kernel' }), { code: 'ENODEV' });
  await t.rejects(openDlmfs('/nowhere', { socket: '/nowhere/sock' }), { code: 'TSDLM_DAEMON_UNREACHABLE' });
});

t.test('errors have the shape of node:fs/promises', async (t) => {
  const fs = await mountOn(1);
  await t.rejects(fs.open('/no/such'), { code: 'ENOENT', errno: -2, syscall: 'open', path: '/no/such' });
  await fs.mkdir('/shape');
  const handle = await fs.open('/shape/l', 'w');
  t.equal(handle.level, 2);
  t.same(await handle.write('text'), { bytesWritten: 4 });
  await t.rejects(handle.read(new Uint8Array(4)), { code: 'EBADF', errno: -9, syscall: 'read' });
  await t.rejects(fs.open('/shape/l', 'q'), { code: 'EINVAL' });
  await t.rejects(fs.close(), { code: 'EBUSY', syscall: 'umount' });
  await handle.close();
  await fs.close();
  await t.rejects(fs.stat('/shape'), { code: 'ENODEV' });
});

t.test('a holder hears at once that somebody waits', async (t) => {
  const [a, b] = [await mountOn(1), await mountOn(2)];
  await Promise.all([a.mkdir('/bast'), b.mkdir('/bast')]);
  const handle = await a.open('/bast/l', RW_CREAT);
  const heard = new Promise<void>((resolve) => {
    handle.onBlocked(resolve);
  });
  const waiting = b.open('/bast/l', RW_CREAT);
  await within('the BAST', heard);
  t.ok(handle.isBlocked);
  await handle.close();
  await (await within('the grant', waiting)).close();
});

t.test('the program is gone: what it had open is free at once (the other door keeps it: rule 6)', async () => {
  const [a, b] = [await mountOn(1), await mountOn(2)];
  await Promise.all([a.mkdir('/gone'), b.mkdir('/gone')]);
  await a.open('/gone/l', RW_CREAT);
  const waiting = b.open('/gone/l', RW_CREAT);
  await a.close({ force: true });
  await (await within('the grant', waiting)).close();
});

t.test('the daemon restarts: a program keeps its open file (L3)', async (t) => {
  const [a, b] = [await mountOn(2), await mountOn(1)];
  await Promise.all([a.mkdir('/again'), b.mkdir('/again')]);
  const handle = await a.open('/again/l', RW_CREAT);
  await handle.write('before');
  let isGranted = false;
  const waiting = b.open('/again/l', RW_CREAT).then((h) => {
    isGranted = true;
    return h;
  });
  const asked = await w.cluster.run(2, ['restart']);
  t.equal(asked.code, 0, asked.stderr);
  await w.cluster.node(2).ended();
  await w.cluster.node(2).restart(30_000);
  const again = await within('an open on the same mount', a.open('/again/other', RW_CREAT), 20_000);
  await again.close();
  t.notOk(handle.isLost);
  t.notOk(isGranted);
  await handle.write('after!', 0, undefined, 0);
  await handle.close();
  const other = await within('the grant', waiting, 20_000);
  const { buffer } = await other.read(new Uint8Array(64), 0, 64, 0);
  t.equal(Buffer.from(buffer.subarray(0, 6)).toString(), 'after!', 'its value block went over');
  await other.close();
});

t.test('the daemon is killed: open files are lost at their deadline, never held beside another', async (t) => {
  const [a, b] = [await mountOn(1), await mountOn(2)];
  await Promise.all([a.mkdir('/dead'), b.mkdir('/dead')]);
  const handle = await a.open('/dead/l', RW_CREAT);
  await handle.write('mine');
  const node = w.cluster.nodes[0];
  node?.signal('SIGKILL');
  const other = await within('the other node', b.open('/dead/l', RW_CREAT), 30_000);
  t.ok(handle.isLost, 'lost before anybody else has it');
  await t.rejects(handle.read(new Uint8Array(64), 0, 64, 0), { code: 'EIO' });
  await t.rejects(handle.write('more'), { code: 'EIO' });
  await handle.close();
  await other.close();
  const again = await b.open('/dead/l', RW_CREAT | NB);
  await again.close();
});
