/** Rule 20 at the local door: a node without a lease tells its owners `suspended`, moves their deadline, and ends nothing. */
import t from 'tap';
import { connect, monotonicMs } from '../../src/client/index.js';
import { isAlive, RunningCli } from '../fixtures/cli.js';
import { startFakeDaemon, until } from '../fixtures/fake-daemon.js';

t.test('rule 20: owners hear that the node is suspended and resumed, and keep what they hold', async (t) => {
  const daemon = await startFakeDaemon();
  t.teardown(() => daemon.stop());
  const client = await connect({ socket: daemon.path });
  t.teardown(() => client.close());
  const handle = await client.lock('n', 'EX');
  const seen: string[] = [];
  handle.on('suspended', (why) => seen.push(why));
  handle.on('resumed', () => seen.push('resumed'));
  handle.on('lost', () => seen.push('lost'));
  daemon.core.isSuspended = true;
  await until(() => seen.length > 0, 'suspended');
  t.same([seen, handle.suspended, handle.suspendReason], [['quorum'], true, 'quorum']);
  const end = monotonicMs() + 2 * daemon.limits.leaseMs;
  await until(() => monotonicMs() > end, 'two leases have passed', 10_000);
  t.ok(handle.valid());
  t.notOk(handle.signal.aborted);
  daemon.renew(false);
  await until(() => handle.suspendReason === 'silence', 'a daemon that says nothing is the worse news');
  daemon.renew(true);
  await until(() => handle.suspendReason === 'quorum', 'it moves the deadline again');
  daemon.core.isSuspended = false;
  await until(() => !handle.suspended, 'resumed');
  // A machine that stands still for a moment adds silences of its own, each ended by the next word of the daemon.
  t.match(seen.join(' '), /^quorum( silence quorum)+ resumed$/);
  await handle.release();
});

t.test('rule 20: who held nothing when the node resumed is not called suspended at its next grant', async (t) => {
  const daemon = await startFakeDaemon();
  t.teardown(() => daemon.stop());
  const client = await connect({ socket: daemon.path });
  t.teardown(() => client.close());
  const first = await client.lock('n', 'EX');
  daemon.core.isSuspended = true;
  await until(() => first.suspended, 'suspended');
  await first.release();
  daemon.core.isSuspended = false;
  const second = await client.lock('n', 'EX');
  t.notOk(second.suspended);
  await second.release();
});

t.test('rule 20: a command is told, and not ended', async (t) => {
  const daemon = await startFakeDaemon();
  t.teardown(() => daemon.stop());
  const cli = new RunningCli(daemon.path, ['lock', 'n', '--', 'sh', '-c', 'echo pid=$$; exec sleep 60']);
  const pid = Number((await cli.saw(/pid=(\d+)/))[1]);
  t.teardown(() => isAlive(pid) && process.kill(pid, 'SIGKILL'));
  daemon.core.isSuspended = true;
  await cli.saw(/no quorum; the lock is kept/);
  const end = monotonicMs() + 2 * daemon.limits.leaseMs;
  await until(() => monotonicMs() > end, 'two leases have passed', 10_000);
  t.ok(isAlive(pid));
  daemon.core.isSuspended = false;
  await cli.saw(/has a quorum again/);
  cli.kill('SIGTERM');
  t.match(await cli.result, { code: 143 });
});

t.test('rule 20: tsdlm lock without a command says why', async (t) => {
  const daemon = await startFakeDaemon();
  t.teardown(() => daemon.stop());
  const cli = new RunningCli(daemon.path, ['--json', 'lock', 'n']);
  await cli.saw(/"event":"granted"/);
  daemon.core.isSuspended = true;
  await cli.saw(/"event":"suspended".*"why":"quorum"/);
  daemon.core.isSuspended = false;
  await cli.saw(/"event":"resumed"/);
  cli.kill('SIGTERM');
  await cli.result;
});
