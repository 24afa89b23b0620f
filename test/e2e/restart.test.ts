/** Restart without loss (L3, rules 1 and 23) with real daemons and programs that use the client library. */
import t from 'tap';
import { monotonicMs } from '../../src/client/index.js';
import { TEST_LIMIT_MS, world } from '../fixtures/e2e.js';
import { RawClient } from '../fixtures/raw-client.js';
import { until, within } from '../fixtures/until.js';

t.setTimeout(TEST_LIMIT_MS);

/** A lease that is long enough to come back within it, on a busy machine too; the restart of a daemon takes a part of it. */
const LONG = { heartbeat_ms: 100, lease_ms: 8000, dead_ms: 4000 };

t.test('rule 1: SIGKILL of the daemon of a holder: back within the lease it goes on, and nobody else was granted', async (t) => {
  const w = await world(t, { limits: LONG });
  const owner = await w.owner(1);
  const held = await owner.lock('a');
  const own = await owner.lock('mine');
  const { token } = held;
  const happened: string[] = [];
  held.handle.on('reconnecting', () => happened.push('reconnecting'));
  held.handle.on('resumed', () => happened.push('resumed'));
  let granted = 0;
  const waiting = (await w.owner(2)).lock('a').then((h) => {
    granted = monotonicMs();
    return h;
  });
  await w.waiting('a', 1, 3);
  const behind = owner.lock('a');
  await w.waiting('a', 2, 3);
  await w.cluster.node(1).kill();
  t.equal(held.handle.valid(), true, 'valid without a daemon');
  await w.cluster.node(1).restart(30_000);
  await until('the session is resumed', async () => happened.includes('resumed'), 15_000);
  t.same(happened, ['reconnecting', 'resumed']);
  t.same([held.handle.valid(), held.token, own.handle.valid()], [true, token, true]);
  await until(
    'it is claimed',
    async () => {
      const shown = await w.cluster.show(3, 'a').catch(() => null);
      return shown?.holders.length === 1 && shown.waiting.length === 2;
    },
    15_000,
  );
  const shown = await w.cluster.show(3, 'a');
  t.same(
    shown.holders.map((h) => [h.node.id, h.token]),
    [[1, String(token)]],
  );
  t.same(
    shown.waiting.map((h) => h.node.id),
    [2, 1],
    'and the places in the queue are as before',
  );
  t.equal(granted, 0, 'nobody was granted meanwhile');
  await held.release();
  const next = await within('who waited', waiting, 10_000);
  t.ok(next.token > token);
  await next.release();
  await (await within('who waited behind, at the restarted node', behind, 10_000)).release();
  await own.release();
  await w.judge();
});

t.test('rule 23: a clean restart longer than the lease: owners keep their locks, waiters their places', async (t) => {
  const w = await world(t, { limits: { heartbeat_ms: 100, lease_ms: 1500 }, extra: 'sigterm = "restart"\n' });
  const owner = await w.owner(1);
  const held = await owner.lock('a', 'EX', { lvb: true });
  await held.handle.writeLvb(Buffer.alloc(64, 7));
  const read = await owner.lock('r', 'PR');
  const { token } = held;
  const other = await w.owner(2);
  const waiting = other.lock('a', 'EX', { lvb: true });
  await w.waiting('a', 1, 3);
  const mine = owner.lock('a');
  await w.waiting('a', 2, 3);
  const mark = w.cluster.node(2).log.length;
  const node = w.cluster.node(1);
  node.signal('SIGTERM');
  await node.ended();
  await new Promise((resolve) => setTimeout(resolve, 3500));
  t.equal(held.handle.valid(), true, 'valid although the lease is long over');
  await node.restart(30_000);
  await until(
    'the session is resumed',
    async () => held.handle.suspendReason === null && held.handle.deadline < monotonicMs() + 5000,
    15_000,
  );
  t.same([held.token, held.handle.mode, read.handle.valid()], [token, 'EX', true]);
  const shown = await w.cluster.show(3, 'a');
  t.same(
    shown.holders.map((h) => [h.node.id, h.token]),
    [[1, String(token)]],
  );
  t.same(
    shown.waiting.map((h) => h.node.id),
    [2, 1],
  );
  const lines = w.cluster.node(2).log.slice(mark);
  t.notOk(
    lines.some((l) => l.event === 'fencing' || String(l.nodes).includes('fencing')),
    'nobody was fenced',
  );
  await held.release();
  const next = await within('who waited', waiting, 10_000);
  t.same([next.handle.lvbState, next.handle.lvb?.[0]], ['valid', 7], 'with the value that was written before the restart');
  await next.release();
  await (await within('who waited at the restarted node', mine, 10_000)).release();
  await w.judge();
});

t.test('rule 23: a client that does not come back loses its lock at the deadline that it was told', async (t) => {
  const w = await world(t, { limits: { heartbeat_ms: 100, lease_ms: 1500 }, extra: 'restart_limit_ms = 6000\n' });
  const client = await w.cluster.client(1, { reconnect: false });
  const handle = await client.lock('a');
  const waiting = (await w.owner(2)).lock('a');
  await w.waiting('a', 1, 3);
  const began = monotonicMs();
  const node = w.cluster.node(1);
  t.equal((await w.cluster.run(1, ['restart'])).code, 0);
  t.match(await node.ended(), { code: 75 }, 'the service manager is to start it again');
  await node.restart(30_000);
  t.equal(handle.valid(), true);
  const next = await within('the grant', waiting, 20_000);
  t.ok(next.grantedAt >= handle.deadline, 'not before the deadline');
  t.ok(next.grantedAt - began > 5000);
  await next.release();
  await w.judge();
});

t.test('nobody takes what is the lock of another: neither with a wrong secret, nor in a session of its own', async (t) => {
  const w = await world(t, { limits: LONG });
  // A lock that another node masters, so that there is a witness.
  await (await (await w.owner(2)).lock('a')).release();
  const path = w.cluster.node(1).socket;
  const a = await RawClient.greet(path, { label: 'a' });
  const b = await RawClient.greet(path, { label: 'b' });
  const [keyA, keyB] = [await a.wait('DaemonWelcome'), await b.wait('DaemonWelcome')];
  a.lock(1, 'a');
  const granted = await a.wait('DaemonGranted', 1);
  await w.cluster.node(1).kill();
  await w.cluster.node(1).restart(30_000);
  const resumed = async (fields: object): Promise<RawClient> => RawClient.greet(path, fields);
  for (const wrong of [
    { label: 'a', session: keyA.key, secret: keyB.secret },
    { label: 'b', session: keyA.key, secret: keyA.secret },
    { label: 'a', pid: process.pid + 1, session: keyA.key, secret: keyA.secret },
    { label: 'a', session: '9.9', secret: keyA.secret },
  ]) {
    const client = await resumed(wrong);
    t.equal((await client.wait('DaemonWelcome')).resumed, false);
    client.close();
  }
  const claim = {
    k: 'ClientReclaim',
    rid: 1,
    id: granted.id,
    domain: 'default',
    name: 'a',
    mode: 2,
    want: 255,
    convert: 0,
    flags: 0,
    te: granted.te,
    tc: granted.tc,
    se: 0,
    sc: 0,
    lvbState: 0,
    lvb: null,
    dirty: false,
    timeoutMs: 0,
    why: '',
  } as const;
  const thief = await resumed({ label: 'b', session: keyB.key, secret: keyB.secret });
  t.equal((await thief.wait('DaemonWelcome')).resumed, true, 'it is who it says');
  thief.send(claim);
  t.equal((await thief.wait('DaemonLost')).lock, 1, 'but that lock is not its own');
  t.equal((await w.cluster.show(2, 'a')).holders.length, 1, 'and it stays held');
});

t.test('rule 7: a command goes on over a kill of the daemon, and is ended when its wrapper is gone after it', async (t) => {
  const w = await world(t, { limits: LONG });
  const child = w.cluster.spawn(1, ['lock', 'job', '--ex', '--', 'sleep', '600'], { detached: true });
  await until('it runs', async () => (await w.cluster.show(2, 'job').catch(() => null))?.holders.length === 1);
  const waiting = (await w.owner(2)).lock('job');
  await w.waiting('job', 1, 3);
  await w.cluster.node(1).kill();
  await w.cluster.node(1).restart(30_000);
  await until(
    'it is claimed',
    async () => {
      const shown = await w.cluster.show(3, 'job').catch(() => null);
      return shown?.holders[0]?.node.id === 1 && shown.waiting.length === 1;
    },
    15_000,
  );
  await until('its session is back', async () => (await w.cluster.status(1)).sessions > 0);
  await new Promise((resolve) => setTimeout(resolve, 1000));
  t.equal(child.exitCode, null, 'the command runs on');
  child.kill('SIGKILL');
  const next = await within('the daemon ends the command, and the lock is free', waiting, 15_000);
  await next.release();
});
