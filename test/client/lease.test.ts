import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync } from 'node:fs';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import t from 'tap';
import { connect, monotonicMs } from '../../src/client/index.js';
import type { ClientMessage } from '../../src/protocol/client-messages.js';
import { FrameWriter, MessageReader } from '../../src/protocol/frame.js';
import { codeOf, startFakeDaemon, until } from '../fixtures/fake-daemon.js';

t.test('rule 8: the deadline moves with the lease, for holders only', async (t) => {
  const daemon = await startFakeDaemon();
  t.teardown(() => daemon.stop());
  const client = await connect({ socket: daemon.path });
  t.teardown(() => client.close());
  const handle = await client.lock('n', 'EX');
  const first = handle.deadline;
  t.ok(first > monotonicMs());
  t.ok(first <= monotonicMs() + daemon.limits.leaseMs);
  await until(() => handle.deadline > first, 'the deadline moves');
  t.notOk(handle.suspended);
  t.notOk(handle.signal.aborted);
});

t.test('rule 24: suspended, then the signal, then lost: in this order and in time', async (t) => {
  const daemon = await startFakeDaemon();
  t.teardown(() => daemon.stop());
  const client = await connect({ socket: daemon.path });
  t.teardown(() => client.close());
  const handle = await client.lock('n', 'EX', { abortBefore: 400 });
  const seen: { what: string; left: number }[] = [];
  const note = (what: string): void => {
    seen.push({ what, left: handle.deadline - monotonicMs() });
  };
  handle.on('suspended', () => note('suspended'));
  handle.on('resumed', () => note('resumed'));
  handle.signal.addEventListener('abort', () => note('abort'));
  const lost = new Promise<string>((resolve) => {
    handle.on('lost', (error) => {
      note('lost');
      resolve(error.code);
    });
  });
  daemon.renew(false);
  await until(() => seen.length === 1, 'suspended');
  t.ok(handle.valid(), 'suspended is not lost');
  daemon.renew(true);
  await until(() => seen.length === 2, 'resumed');
  daemon.renew(false);
  t.equal(await lost, 'TSDLM_LOST');
  t.notOk(handle.valid());
  t.same(
    seen.map((s) => s.what),
    ['suspended', 'resumed', 'suspended', 'abort', 'lost'],
  );
  const left = Object.fromEntries(seen.map((s) => [s.what, s.left]));
  t.ok((left.suspended ?? 0) > 800, `suspended after three heartbeats, ${left.suspended} ms before the end`);
  t.ok((left.abort ?? 0) > 300 && (left.abort ?? 999) <= 400, `the signal fired ${left.abort} ms before the end`);
  t.equal(await codeOf(handle.convert('PR')), 'TSDLM_LOST');
  let late = '';
  handle.on('lost', (error) => {
    late = error.code;
  });
  await until(() => late === 'TSDLM_LOST', 'a listener that comes late is told as well');
});

t.test('rule 11: valid() is exact when the process was stopped past the deadline', async (t) => {
  const daemon = await startFakeDaemon({ limits: { heartbeatMs: 50, leaseMs: 600 } });
  t.teardown(() => daemon.stop());
  const path = fileURLToPath(new URL('../fixtures/holder.js', import.meta.url));
  const holder = spawn(process.execPath, [path, daemon.path, 'n'], { stdio: ['ignore', 'pipe', 'inherit'] });
  t.teardown(() => holder.kill('SIGKILL'));
  const lines: string[] = [];
  holder.stdout.setEncoding('utf8').on('data', (text: string) => lines.push(...text.trim().split('\n')));
  await until(() => lines.includes('granted'), 'the holder has its lock');
  holder.kill('SIGSTOP');
  daemon.renew(false);
  await until(() => daemon.core.lockCount === 0, 'the lease is over');
  holder.kill('SIGCONT');
  await until(() => lines.some((line) => line.startsWith('lost')), 'the holder knows');
  // The holder looks at valid() all the time; no look after the deadline may have said yes.
  const verdict = lines.find((line) => line.startsWith('lost'));
  t.equal(verdict, 'lost TSDLM_LOST wrong=0');
});

t.test('a stopped process whose lease went on keeps its lock when it wakes', async (t) => {
  const daemon = await startFakeDaemon({ limits: { heartbeatMs: 50, leaseMs: 600 } });
  t.teardown(() => daemon.stop());
  const path = fileURLToPath(new URL('../fixtures/holder.js', import.meta.url));
  const holder = spawn(process.execPath, [path, daemon.path, 'n'], { stdio: ['ignore', 'pipe', 'inherit'] });
  t.teardown(() => holder.kill('SIGKILL'));
  const lines: string[] = [];
  holder.stdout.setEncoding('utf8').on('data', (text: string) => lines.push(...text.trim().split('\n')));
  await until(() => lines.includes('granted'), 'the holder has its lock');
  holder.kill('SIGSTOP');
  const end = monotonicMs() + 1500;
  await until(() => monotonicMs() > end, 'two leases have passed');
  const before = lines.length;
  holder.kill('SIGCONT');
  await until(() => lines.length > before, 'the holder speaks again');
  await until(() => lines.at(-1) === 'valid', 'its lock is valid: the renewals lay in its socket');
  t.notOk(lines.some((line) => line.startsWith('lost')));
  t.same(daemon.core.locksOf('n'), ['2/-1']);
});

t.test('a lost connection suspends at once; handles stay valid until their deadline', async (t) => {
  const daemon = await startFakeDaemon({ limits: { heartbeatMs: 50, leaseMs: 600 } });
  const client = await connect({ socket: daemon.path, reconnect: false });
  const handle = await client.lock('n', 'EX');
  const waiting = codeOf(client.lock('n', 'EX'));
  await until(() => daemon.core.locksOf('n').length === 2, 'the second request waits');
  const stopped = daemon.stop();
  t.equal(await waiting, 'TSDLM_STOPPING', 'a daemon that stops withdraws what waits');
  await until(() => handle.suspended, 'suspended');
  t.ok(handle.signal.aborted, 'a daemon that stops asks for the end of the work');
  t.ok(handle.valid(), 'but the lock is still ours');
  t.equal(daemon.core.lockCount, 1, 'and the daemon keeps it for us');
  t.equal(await codeOf(client.lock('m', 'EX')), 'TSDLM_STOPPING');
  await handle.release();
  await stopped;
  t.equal(daemon.core.lockCount, 0);
  await client.close();
});

t.test('a client reconnects for new requests', async (t) => {
  const first = await startFakeDaemon();
  const client = await connect({ socket: first.path, connectTimeout: 3000 });
  t.teardown(() => client.close());
  await (await client.lock('n', 'EX')).release();
  await first.stop();
  t.equal(client.isConnected, false);
  const soon = client.lock('n', 'EX');
  const second = await startFakeDaemon({ options: { path: first.path } });
  t.teardown(() => second.stop());
  const handle = await soon;
  t.ok(handle.valid());
  t.equal(second.core.lockCount, 1);
  await handle.release();
});

t.test('no daemon: the error names the socket and the way out', async (t) => {
  await t.rejects(connect({ socket: '/nonexistent/tsdlmd.sock' }), {
    code: 'TSDLM_DAEMON_UNREACHABLE',
    message: /nonexistent.*tsdlmd running/,
  });
});

t.test('close() releases everything', async (t) => {
  const daemon = await startFakeDaemon();
  t.teardown(() => daemon.stop());
  const client = await connect({ socket: daemon.path });
  await client.lock('a', 'EX');
  await client.lock('b', 'PR');
  await client.close();
  await until(() => daemon.core.lockCount === 0, 'nothing is held');
  t.equal(await codeOf(client.lock('a', 'EX')), 'TSDLM_DAEMON_UNREACHABLE');
});

t.test('a daemon that does not answer: requests with a time limit end, with an unknown outcome', async (t) => {
  const dir = mkdtempSync(join(tmpdir(), 'tsdlm-test-'));
  t.teardown(() => rmSync(dir, { recursive: true, force: true }));
  const path = join(dir, 's.sock');
  const seen: string[] = [];
  const server = createServer((socket) => {
    const reader = new MessageReader<ClientMessage>({ frameBytesMax: 4096, from: 'client' });
    const writer = new FrameWriter();
    socket.on('data', (chunk) => {
      reader.push(chunk, (m) => {
        seen.push(m.k);
        if (m.k !== 'ClientHello') return;
        const fields = { version: 1, session: 1, node: 1, nodeName: 'n1', cluster: 'c', leaseMs: 3000, heartbeatMs: 250 };
        writer.push({ k: 'DaemonWelcome', ...fields, key: '', secret: '', resumed: false, daemonVersion: '0' });
        socket.write(writer.take());
      });
    });
    socket.on('error', () => {});
  });
  server.listen(path);
  await once(server, 'listening');
  t.teardown(() => server.close());
  const client = await connect({ socket: path, reconnect: false });
  const waiting = codeOf(client.lock('for ever', 'EX'));
  t.equal(await codeOf(client.lock('n', 'EX', { timeout: 50 })), 'TSDLM_OUTCOME_UNKNOWN');
  await until(() => seen.includes('ClientCancel'), 'it is withdrawn');
  await client.close();
  t.equal(await waiting, 'TSDLM_OUTCOME_UNKNOWN', 'closing ends the others');
});

t.test('no welcome, or none that makes sense: the daemon is unreachable', async (t) => {
  const dir = mkdtempSync(join(tmpdir(), 'tsdlm-test-'));
  t.teardown(() => rmSync(dir, { recursive: true, force: true }));
  const path = join(dir, 's.sock');
  let reply: Buffer | null = null;
  const server = createServer((socket) => {
    socket.on('error', () => {});
    if (reply !== null) socket.write(reply);
  });
  server.listen(path);
  await once(server, 'listening');
  t.teardown(() => server.close());
  await t.rejects(connect({ socket: path, connectTimeout: 50 }), { code: 'TSDLM_DAEMON_UNREACHABLE', message: /within 50 ms/ });
  reply = Buffer.from('HTTP/1.1 400 Bad Request');
  await t.rejects(connect({ socket: path }), { code: 'TSDLM_FRAME_TOO_LARGE' });
  reply = Buffer.from([9, 0, 0, 0, 0xa3, 1, 0, 0, 0, 0, 0, 0, 0]);
  await t.rejects(connect({ socket: path }), { name: 'TsdlmError' });
});
