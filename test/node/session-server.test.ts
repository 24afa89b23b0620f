import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, mkdirSync, mkdtempSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import t from 'tap';
import { connect, monotonicMs } from '../../src/client/index.js';
import { listenOn } from '../../src/node/session-socket.js';
import { ERROR_CODES } from '../../src/protocol/errors.js';
import { CLIENT_BACKLOG_BYTES_MAX } from '../../src/protocol/limits.js';
import { codeOf, startFakeDaemon, until } from '../fixtures/fake-daemon.js';
import { RawClient } from '../fixtures/raw-client.js';

const HOLDER = fileURLToPath(new URL('../fixtures/holder.js', import.meta.url));

t.test('the socket gets its mode, its directory is made, a stale file is replaced', async (t) => {
  const dir = mkdtempSync(join(tmpdir(), 'tsdlm-test-'));
  t.teardown(() => rmSync(dir, { recursive: true, force: true }));
  const path = join(dir, 'deep', 'er', 's.sock');
  const first = createServer();
  await listenOn(first, { path, mode: 0o600 });
  t.equal(statSync(path).mode & 0o777, 0o600);
  const second = createServer();
  await t.rejects(listenOn(second, { path, mode: 0o660 }), { code: 'TSDLM_BAD_CONFIG', message: /another daemon answers/ });
  first.close();

  // A process that is killed leaves its socket file behind.
  const script = `require('net').createServer().listen(${JSON.stringify(path)}, () => console.log('up'))`;
  const child = spawn(process.execPath, ['-e', script], { stdio: ['ignore', 'pipe', 'inherit'] });
  await once(child.stdout, 'data');
  child.kill('SIGKILL');
  await once(child, 'exit');
  t.ok(existsSync(path));
  await listenOn(second, { path, mode: 0o660 });
  t.equal(statSync(path).mode & 0o777, 0o660);
  second.close();

  writeFileSync(join(dir, 'plain'), '');
  await t.rejects(listenOn(createServer(), { path: join(dir, 'plain'), mode: 0o660 }), { message: /no socket/ });
  await t.rejects(listenOn(createServer(), { path: join(dir, 'x'.repeat(120)), mode: 0o660 }), { message: /longer than 107/ });
  await t.rejects(listenOn(createServer(), { path, mode: 0o660, group: 'no-such-group' }), { message: /no group/ });
  mkdirSync(join(dir, 'plain2'));
  await t.rejects(listenOn(createServer(), { path: join(dir, 'plain', 's'), mode: 0o660 }), {
    message: /directory cannot be made/,
  });
});

t.test('bad input is answered with its code and the connection is closed', async (t) => {
  const daemon = await startFakeDaemon();
  t.teardown(() => daemon.stop());
  const cases: { what: string; code: keyof typeof ERROR_CODES; run: (client: RawClient) => void; greeted?: boolean }[] = [
    { what: 'garbage', code: 'TSDLM_FRAME_TOO_LARGE', run: (c) => c.socket.write(Buffer.alloc(100, 0xee)) },
    { what: 'an empty frame', code: 'TSDLM_BAD_FRAME', run: (c) => c.socket.write(Buffer.alloc(4)) },
    { what: 'an unknown type', code: 'TSDLM_BAD_FRAME', run: (c) => c.socket.write(Buffer.from([1, 0, 0, 0, 0x9f])) },
    {
      what: 'a message of the other direction',
      code: 'TSDLM_BAD_FRAME',
      run: (c) => c.socket.write(Buffer.from([2, 0, 0, 0, 0xa3, 1])),
    },
    {
      what: 'a big frame before the greeting',
      code: 'TSDLM_FRAME_TOO_LARGE',
      run: (c) => c.socket.write(Buffer.from([0, 0x20, 0, 0, 0x80])),
    },
    { what: 'no greeting', code: 'TSDLM_PROTOCOL', run: (c) => c.lock(1, 'n') },
    { what: 'a version too new', code: 'TSDLM_VERSION_MISMATCH', run: (c) => c.hello({ versionMin: 200, versionMax: 201 }) },
    { what: 'a second greeting', code: 'TSDLM_PROTOCOL', run: (c) => c.hello(), greeted: true },
    { what: 'request number 0', code: 'TSDLM_PROTOCOL', run: (c) => c.lock(0, 'n'), greeted: true },
    {
      what: 'a bad body',
      code: 'TSDLM_BAD_FRAME',
      run: (c) => c.socket.write(Buffer.from([3, 0, 0, 0, 0x81, 1, 2])),
      greeted: true,
    },
    {
      what: 'a frame over the limit',
      code: 'TSDLM_FRAME_TOO_LARGE',
      run: (c) => c.socket.write(Buffer.from([1, 0, 1, 0, 0x81])),
      greeted: true,
    },
  ];
  for (const { what, code, run, greeted } of cases) {
    const client = greeted === true ? await RawClient.greet(daemon.path) : new RawClient(daemon.path);
    run(client);
    const bye = await client.wait('DaemonBye');
    t.equal(bye.code, ERROR_CODES[code], `${what}: ${bye.text}`);
    await until(() => client.isEnded, 'the daemon closes its side');
    client.close();
  }
  await until(() => daemon.server.sessions().length === 0, 'no session is left');
});

t.test('32 MB of garbage do not grow or stop the daemon', async (t) => {
  const daemon = await startFakeDaemon();
  t.teardown(() => daemon.stop());
  const client = new RawClient(daemon.path);
  await once(client.socket, 'connect');
  const before = process.memoryUsage().rss;
  const chunk = Buffer.alloc(1024 * 1024, 0x55);
  for (let i = 0; i < 32 && !client.isClosed; i++) {
    client.socket.write(chunk);
    await new Promise((resolve) => setImmediate(resolve));
  }
  t.ok(process.memoryUsage().rss - before < 64 * 1024 * 1024);
  client.close();
  const other = await RawClient.greet(daemon.path);
  other.lock(1, 'n');
  await other.wait('DaemonGranted', 1);
  other.close();
});

t.test('a client that says nothing is sent away', async (t) => {
  const daemon = await startFakeDaemon({ options: { greetingMs: 300 } });
  t.teardown(() => daemon.stop());
  const client = new RawClient(daemon.path);
  await until(() => client.isEnded, 'it is sent away', 7000);
  client.close();
});

t.test('requests that make no sense are denied, and the session goes on', async (t) => {
  const daemon = await startFakeDaemon();
  t.teardown(() => daemon.stop());
  const client = await RawClient.greet(daemon.path);
  t.teardown(() => client.close());
  client.lock(1, 'n');
  await client.wait('DaemonGranted', 1);
  const lvb = null;
  client.lock(1, 'other');
  client.send(
    { k: 'ClientConvert', rid: 3, lock: 99, mode: 1, flags: 0, timeoutMs: 0, lvb },
    { k: 'ClientUnlock', rid: 4, lock: 99, lvb },
    { k: 'ClientLvbWrite', rid: 5, lock: 99, lvb },
    { k: 'ClientLvbWrite', rid: 6, lock: 1, lvb },
    { k: 'ClientConvert', rid: 1, lock: 1, mode: 1, flags: 0, timeoutMs: 0, lvb },
    { k: 'ClientCancel', rid: 7, target: 1 },
    { k: 'ClientCancel', rid: 8, target: 99 },
    { k: 'ClientGroup', rid: 9, pgid: 1, graceMs: 100, proof: 'x'.repeat(32) },
    { k: 'ClientAdmin', rid: 10, verb: 'nonsense', args: {} },
    { k: 'ClientAdmin', rid: 11, verb: 'unlock', args: 'x' },
    { k: 'ClientAdmin', rid: 12, verb: 'convert', args: { mode: 'XX' } },
  );
  const denied = async (rid: number): Promise<number> => (await client.wait('DaemonDenied', rid)).code;
  t.equal(await denied(1), ERROR_CODES.TSDLM_BAD_ARGUMENT, 'a request number in use');
  t.equal(await denied(3), ERROR_CODES.TSDLM_NOT_HELD);
  t.equal(await denied(4), ERROR_CODES.TSDLM_NOT_HELD);
  t.equal(await denied(5), ERROR_CODES.TSDLM_NOT_HELD);
  t.equal(await denied(6), ERROR_CODES.TSDLM_BAD_ARGUMENT);
  t.equal(await denied(9), ERROR_CODES.TSDLM_NOT_ALLOWED);
  await client.wait('DaemonDone', 7);
  await client.wait('DaemonDone', 8);
  t.equal((await client.wait('DaemonAdminReply', 10)).code, ERROR_CODES.TSDLM_USAGE);
  t.equal((await client.wait('DaemonAdminReply', 11)).code, ERROR_CODES.TSDLM_BAD_ARGUMENT);
  t.equal((await client.wait('DaemonAdminReply', 12)).code, ERROR_CODES.TSDLM_BAD_ARGUMENT);
  t.same(daemon.core.locksOf('n'), ['2/-1']);
});

t.test('a killed client frees its locks at once', async (t) => {
  const daemon = await startFakeDaemon();
  t.teardown(() => daemon.stop());
  const holder = spawn(process.execPath, [HOLDER, daemon.path, 'n'], { stdio: ['ignore', 'pipe', 'inherit'] });
  await once(holder.stdout, 'data');
  const waiter = await RawClient.greet(daemon.path);
  t.teardown(() => waiter.close());
  waiter.lock(1, 'n');
  await until(() => daemon.core.locksOf('n').length === 2, 'the waiter waits');
  const began = monotonicMs();
  holder.kill('SIGKILL');
  await waiter.wait('DaemonGranted', 1);
  t.ok(monotonicMs() - began < 500, 'long before its lease is over');
});

t.test('rule 8: what a dismissed client was told stays true until its deadline', async (t) => {
  const daemon = await startFakeDaemon({ limits: { heartbeatMs: 50, leaseMs: 600 } });
  t.teardown(() => daemon.stop());
  const bad = await RawClient.greet(daemon.path);
  const waiter = await RawClient.greet(daemon.path);
  t.teardown(() => waiter.close());
  bad.lock(1, 'n');
  await bad.wait('DaemonGranted', 1);
  waiter.lock(1, 'n');
  await until(() => daemon.core.locksOf('n').length === 2, 'the waiter waits');
  bad.socket.write(Buffer.alloc(100, 0xee));
  await bad.wait('DaemonBye');
  const told = Math.max(...bad.seen.map((m) => (m.k === 'DaemonGranted' || m.k === 'DaemonLease' ? m.deadline : 0)));
  await waiter.wait('DaemonGranted', 1);
  const now = monotonicMs();
  t.ok(now >= told, `granted ${now - told} ms after the last deadline it was told`);
  t.ok(now < told + 300);
  bad.close();
});

t.test('rule 8: end of file from a dismissed client frees at once', async (t) => {
  const daemon = await startFakeDaemon({ limits: { heartbeatMs: 100, leaseMs: 5000 } });
  t.teardown(() => daemon.stop());
  const bad = await RawClient.greet(daemon.path);
  const waiter = await RawClient.greet(daemon.path);
  t.teardown(() => waiter.close());
  bad.lock(1, 'n');
  await bad.wait('DaemonGranted', 1);
  waiter.lock(1, 'n');
  bad.socket.write(Buffer.alloc(100, 0xee));
  await bad.wait('DaemonBye');
  const began = monotonicMs();
  bad.close();
  await waiter.wait('DaemonGranted', 1);
  t.ok(monotonicMs() - began < 1000);
});

t.test('rule 8: a client that never reads is stalled, then dismissed, and its lock stays until its deadline', async (t) => {
  const daemon = await startFakeDaemon({ limits: { heartbeatMs: 50, leaseMs: 600 } });
  t.teardown(() => daemon.stop());
  const deaf = await RawClient.greet(daemon.path);
  const waiter = await RawClient.greet(daemon.path);
  t.teardown(() => waiter.close());
  t.teardown(() => deaf.close());
  deaf.lock(1, 'n');
  await deaf.wait('DaemonGranted', 1);
  deaf.socket.pause();
  waiter.lock(1, 'n');
  // Each of these is answered with a denial of some hundred bytes; the daemon must stop reading them.
  let rid = 10;
  let backlog = 0;
  const flood = setInterval(() => {
    for (let i = 0; i < 5000 && deaf.socket.writableLength < 1024 * 1024; i++) {
      deaf.send({ k: 'ClientUnlock', rid: rid++, lock: 5, lvb: null });
    }
    for (const session of daemon.server.sessions()) backlog = Math.max(backlog, session.backlogBytes);
  }, 5);
  t.teardown(() => clearInterval(flood));
  // Looked at in the moment of the dismissal: a machine that stands still afterwards lets the deadline pass before a poll sees it.
  let locksAtDismissal: string[] | undefined;
  const push = daemon.logged.push.bind(daemon.logged);
  daemon.logged.push = (...lines) => {
    if (lines.some((l) => l.event === 'client-dismissed' && l.data.code === 'TSDLM_SLOW_CLIENT'))
      locksAtDismissal = daemon.core.locksOf('n');
    return push(...lines);
  };
  await until(() => locksAtDismissal !== undefined, 'it is dismissed', 15_000);
  clearInterval(flood);
  t.ok(backlog < CLIENT_BACKLOG_BYTES_MAX, `at most ${backlog} bytes were kept for it`);
  t.same(locksAtDismissal, ['2/-1', '-1/2'], 'the lock is still its own');
  await waiter.wait('DaemonGranted', 1);
});

t.test('rule 8: renewals are not piled up for a client that does not read', async (t) => {
  const daemon = await startFakeDaemon({ limits: { heartbeatMs: 20, leaseMs: 1000 } });
  t.teardown(() => daemon.stop());
  const deaf = await RawClient.greet(daemon.path);
  deaf.lock(1, 'n');
  await deaf.wait('DaemonGranted', 1);
  deaf.socket.pause();
  for (let i = 0; i < 20_000; i++) {
    daemon.core.leaseUntil += 0.01;
    daemon.server.lease(daemon.core.leaseUntil, false);
    if (i % 100 === 0) await new Promise((resolve) => setImmediate(resolve));
  }
  const [session] = daemon.server.sessions();
  t.equal(session?.state, 'open');
  t.ok((session?.backlogBytes ?? 1e9) < 10_000, `backlog ${session?.backlogBytes}`);
  deaf.close();
});

t.test('rule 2: node-owned locks are refused without a method that ends the machine', async (t) => {
  const daemon = await startFakeDaemon();
  t.teardown(() => daemon.stop());
  const client = await RawClient.greet(daemon.path);
  t.teardown(() => client.close());
  client.lock(1, 'vip', { flags: 2 });
  const denied = await client.wait('DaemonDenied', 1);
  t.equal(denied.code, ERROR_CODES.TSDLM_NOT_ALLOWED);
  t.match(denied.text, /unsafe_node_owned/);
});

t.test('node-owned locks outlive their session and are released by name', async (t) => {
  const daemon = await startFakeDaemon({ nodeOwnedAllowed: true });
  t.teardown(() => daemon.stop());
  const first = await RawClient.greet(daemon.path);
  first.lock(1, 'vip', { flags: 2 });
  await first.wait('DaemonGranted', 1);
  first.lock(2, 'vip', { flags: 2 });
  t.equal((await first.wait('DaemonDenied', 2)).code, ERROR_CODES.TSDLM_CONFLICT, 'the node has it already');
  first.close();
  await until(() => daemon.server.sessions().length === 0, 'the session is gone');
  t.same(daemon.core.locksOf('vip'), ['2/-1']);
  t.equal(daemon.server.nodeOwnedCount, 1);

  const second = await RawClient.greet(daemon.path);
  t.teardown(() => second.close());
  const at = { domain: 'default', name: 'vip' };
  second.send({ k: 'ClientAdmin', rid: 1, verb: 'convert', args: { ...at, mode: 'PR', try: false, timeoutMs: 0 } });
  t.match(await second.wait('DaemonAdminReply', 1), { ok: true, data: { mode: 'PR', name: 'vip' } });
  second.lock(2, 'vip', { mode: 1 });
  await second.wait('DaemonGranted', 2);
  second.send({ k: 'ClientAdmin', rid: 3, verb: 'convert', args: { ...at, mode: 'EX', try: true, timeoutMs: 0 } });
  t.match(await second.wait('DaemonAdminReply', 3), { ok: false, code: ERROR_CODES.TSDLM_CONFLICT });
  second.send({ k: 'ClientAdmin', rid: 4, verb: 'unlock', args: at });
  t.match(await second.wait('DaemonAdminReply', 4), { ok: true });
  second.send({ k: 'ClientAdmin', rid: 5, verb: 'unlock', args: at });
  t.match(await second.wait('DaemonAdminReply', 5), { ok: false, code: ERROR_CODES.TSDLM_NOT_HELD });
  t.equal(daemon.server.nodeOwnedCount, 0);
  daemon.core.loseAll();

  const restored = daemon.core.restore('old', 2);
  t.equal(daemon.server.nodeOwnedCount, 1, 'a lock of the journal is adopted');
  daemon.server.adoptNodeOwned(restored);
  second.send({ k: 'ClientAdmin', rid: 6, verb: 'unlock', args: { domain: 'default', name: 'old' } });
  t.match(await second.wait('DaemonAdminReply', 6), { ok: true });
});

t.test('a lost lease is one message, however many locks go', async (t) => {
  const daemon = await startFakeDaemon();
  t.teardown(() => daemon.stop());
  const client = await RawClient.greet(daemon.path);
  t.teardown(() => client.close());
  for (let i = 1; i <= 50; i++) client.lock(i, `n${i}`);
  await client.wait('DaemonGranted', 50);
  daemon.core.loseAll();
  const lost = await client.wait('DaemonLost');
  t.equal(lost.lock, 0);
  t.match(lost.text, /all 50 locks/);
  client.lock(60, 'n1');
  await client.wait('DaemonGranted', 60);
  t.equal(client.seen.filter((m) => m.k === 'DaemonLost').length, 1);
});

t.test('sessions() tells who is connected', async (t) => {
  const daemon = await startFakeDaemon();
  t.teardown(() => daemon.stop());
  const client = await RawClient.greet(daemon.path, { label: 'me' });
  client.lock(1, 'n');
  client.lock(2, 'n');
  await client.wait('DaemonGranted', 1);
  t.match(daemon.server.sessions(), [{ pid: process.pid, label: 'me', held: 1, waiting: 1, state: 'open', group: 0 }]);
  client.close();
  await until(() => daemon.server.sessions().length === 0, 'it is gone');
  t.equal(daemon.core.lockCount, 0);
});

t.test('stop() waits for the holders and then resolves', async (t) => {
  const daemon = await startFakeDaemon({ limits: { heartbeatMs: 50, leaseMs: 600 } });
  const client = await RawClient.greet(daemon.path);
  client.lock(1, 'n');
  await client.wait('DaemonGranted', 1);
  const stopped = daemon.stop();
  t.equal((await client.wait('DaemonBye')).code, ERROR_CODES.TSDLM_STOPPING);
  client.send({ k: 'ClientUnlock', rid: 2, lock: 1, lvb: null });
  await until(() => daemon.core.lockCount === 0, 'a release is still taken');
  client.close();
  await stopped;
  t.equal(await codeOf(connect({ socket: daemon.path })), 'TSDLM_DAEMON_UNREACHABLE');
});
