import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import t from 'tap';
import { monotonicMs } from '../../src/client/index.js';
import { isAlive, RunningCli, runCli } from '../fixtures/cli.js';
import { startFakeDaemon, until } from '../fixtures/fake-daemon.js';
import { RawClient } from '../fixtures/raw-client.js';

const LIMITS = { heartbeatMs: 50, leaseMs: 1600 };

/** A shell that says its process number and then does nothing for long. */
const SLEEPER = ['sh', '-c', 'echo pid=$$; exec sleep 60'];
const pidOf = async (cli: RunningCli): Promise<number> => Number((await cli.saw(/pid=(\d+)/))[1]);

t.test('the command gets the token and the name in its environment', async (t) => {
  const daemon = await startFakeDaemon();
  t.teardown(() => daemon.stop());
  const script = 'echo "$TSDLM_TOKEN|$TSDLM_NAME|$TSDLM_DOMAIN|$TSDLM_MODE|$0|$1"';
  const result = await runCli(daemon.path, [
    'lock',
    'my lock',
    '--domain',
    'web',
    '--pr',
    '--',
    'sh',
    '-c',
    script,
    'zero',
    '--try',
  ]);
  t.match(result.stdout, /^\d+\|my lock\|web\|PR\|zero\|--try\n$/);
  t.equal(result.stderr, '');
});

t.test('the lock is held while the command runs, and free after it', async (t) => {
  const daemon = await startFakeDaemon();
  t.teardown(() => daemon.stop());
  const cli = new RunningCli(daemon.path, ['lock', 'n', '--why', 'backup', '--', ...SLEEPER]);
  const pid = await pidOf(cli);
  t.same(daemon.core.locksOf('n'), ['2/-1']);
  await until(() => daemon.server.sessions().some((s) => s.group === pid), 'its process group is registered');
  cli.kill('SIGTERM');
  t.match(await cli.result, { code: 143 }, 'SIGTERM is passed on');
  t.notOk(isAlive(pid));
  await until(() => daemon.core.lockCount === 0, 'free');
});

for (const signal of ['SIGINT', 'SIGHUP', 'SIGQUIT', 'SIGUSR1'] as const) {
  t.test(`${signal} is passed on to the command`, async (t) => {
    const daemon = await startFakeDaemon();
    t.teardown(() => daemon.stop());
    const script = `trap 'exit 9' ${signal.slice(3)}; echo pid=$$; while :; do sleep 0.05; done`;
    const cli = new RunningCli(daemon.path, ['lock', 'n', '--', 'sh', '-c', script]);
    await pidOf(cli);
    cli.kill(signal);
    t.match(await cli.result, { code: 9 });
  });
}

t.test('a signal while it waits ends the wait with 128+signal', async (t) => {
  const daemon = await startFakeDaemon();
  t.teardown(() => daemon.stop());
  const holder = await RawClient.greet(daemon.path);
  t.teardown(() => holder.close());
  holder.lock(1, 'n');
  const cli = new RunningCli(daemon.path, ['lock', 'n', '--', 'true']);
  await until(() => daemon.core.locksOf('n').length === 2, 'it waits');
  cli.kill('SIGINT');
  t.match(await cli.result, { code: 130 });
  await until(() => daemon.core.locksOf('n').length === 1, 'the request is withdrawn');
});

t.test('rule 7: a killed wrapper frees nothing while its command lives', async (t) => {
  const daemon = await startFakeDaemon({ limits: LIMITS });
  t.teardown(() => daemon.stop());
  const waiter = await RawClient.greet(daemon.path);
  t.teardown(() => waiter.close());
  const cli = new RunningCli(daemon.path, ['lock', 'n', '--', ...SLEEPER]);
  const pid = await pidOf(cli);
  t.teardown(() => isAlive(pid) && process.kill(pid, 'SIGKILL'));
  waiter.lock(1, 'n');
  await until(() => daemon.core.locksOf('n').length === 2, 'the waiter waits');
  cli.kill('SIGKILL');
  await cli.result;
  const end = monotonicMs() + 2 * LIMITS.leaseMs;
  await until(() => monotonicMs() > end, 'two leases have passed', 10_000);
  t.ok(isAlive(pid), 'the command runs on');
  t.same(daemon.core.locksOf('n'), ['2/-1', '-1/2'], 'and nobody else is granted');
  process.kill(pid, 'SIGKILL');
  await waiter.wait('DaemonGranted', 1);
  t.notOk(isAlive(pid));
});

t.test('rule 7: a command that has closed the session is ended by the daemon before the lock is free', async (t) => {
  const daemon = await startFakeDaemon({ limits: LIMITS });
  t.teardown(() => daemon.stop());
  const waiter = await RawClient.greet(daemon.path);
  t.teardown(() => waiter.close());
  const script =
    "require('fs').closeSync(63); process.on('SIGTERM', () => {}); console.log('pid=' + process.pid); setInterval(() => {}, 50)";
  const cli = new RunningCli(daemon.path, ['lock', 'n', '--grace', '200ms', '--', process.execPath, '-e', script]);
  const pid = await pidOf(cli);
  t.teardown(() => isAlive(pid) && process.kill(pid, 'SIGKILL'));
  await until(() => daemon.server.sessions().some((s) => s.group === pid), 'its process group is registered');
  waiter.lock(1, 'n');
  await until(() => daemon.core.locksOf('n').length === 2, 'the waiter waits');
  const began = monotonicMs();
  cli.kill('SIGKILL');
  await waiter.wait('DaemonGranted', 1);
  t.notOk(isAlive(pid), 'the command was ended first');
  t.ok(monotonicMs() - began >= 200, 'with its grace between SIGTERM and SIGKILL');
});

t.test('rule 24: SIGTERM, grace, SIGKILL, all before the deadline; exit 76', async (t) => {
  const daemon = await startFakeDaemon({ limits: LIMITS });
  t.teardown(() => daemon.stop());
  const dir = mkdtempSync(join(tmpdir(), 'tsdlm-test-'));
  t.teardown(() => rmSync(dir, { recursive: true, force: true }));
  const file = join(dir, 'alive');
  writeFileSync(file, '');
  // Ignores SIGTERM and writes down, again and again, that it lives.
  const script = `trap 'echo term >> ${file}.term' TERM; echo pid=$$; while :; do date +%s%N > ${file}; sleep 0.01; done`;
  const cli = new RunningCli(daemon.path, ['lock', 'n', '--grace', '250ms', '--', 'sh', '-c', script]);
  const pid = await pidOf(cli);
  await until(() => daemon.server.sessions().some((s) => s.group === pid), 'its process group is registered');
  daemon.renew(false);
  const deadline = daemon.core.leaseUntil;
  const wall = Date.now() + (deadline - monotonicMs());
  const result = await cli.result;
  t.ok(monotonicMs() < deadline, `over ${Math.round(deadline - monotonicMs())} ms before the deadline`);
  t.equal(result.code, 76);
  t.match(result.stderr, /lease was not renewed.*SIGTERM to the command \d+ ms before/);
  t.match(result.stderr, /SIGKILL/);
  t.match(readFileSync(`${file}.term`, 'utf8'), /term/);
  const last = Number(BigInt(readFileSync(file, 'utf8').trim() || '0') / 1_000_000n);
  t.ok(last < wall - 200, `the command was last alive ${wall - last} ms before the deadline`);
  t.notOk(isAlive(pid));
});

t.test('rule 24: a command that heeds SIGTERM is not killed', async (t) => {
  const daemon = await startFakeDaemon({ limits: LIMITS });
  t.teardown(() => daemon.stop());
  const cli = new RunningCli(daemon.path, ['lock', 'n', '--grace', '250ms', '--', ...SLEEPER]);
  await pidOf(cli);
  daemon.renew(false);
  const result = await cli.result;
  t.equal(result.code, 76);
  t.notMatch(result.stderr, /SIGKILL/);
});

t.test('rule 7: the daemon ends the command of a stopped wrapper in time', async (t) => {
  const daemon = await startFakeDaemon({ limits: LIMITS });
  t.teardown(() => daemon.stop());
  const cli = new RunningCli(daemon.path, ['lock', 'n', '--grace', '250ms', '--', ...SLEEPER]);
  const pid = await pidOf(cli);
  await until(() => daemon.server.sessions().some((s) => s.group === pid), 'its process group is registered');
  cli.kill('SIGSTOP');
  daemon.renew(false);
  const deadline = daemon.core.leaseUntil;
  await until(() => !isAlive(pid), 'the command is ended');
  t.ok(monotonicMs() < deadline, 'before the deadline');
  t.ok(daemon.logged.some((l) => l.event === 'command-terminated'));
  cli.kill('SIGCONT');
  t.match(await cli.result, { code: 76 });
});

t.test('rule 7: the daemon ends the command of a killed wrapper when the lease ends', async (t) => {
  const daemon = await startFakeDaemon({ limits: LIMITS });
  t.teardown(() => daemon.stop());
  const cli = new RunningCli(daemon.path, [
    'lock',
    'n',
    '--grace',
    '250ms',
    '--',
    'sh',
    '-c',
    "trap '' TERM; echo pid=$$; while :; do sleep 0.02; done",
  ]);
  const pid = await pidOf(cli);
  t.teardown(() => isAlive(pid) && process.kill(pid, 'SIGKILL'));
  await until(() => daemon.server.sessions().some((s) => s.group === pid), 'its process group is registered');
  cli.kill('SIGKILL');
  await cli.result;
  daemon.renew(false);
  const deadline = daemon.core.leaseUntil;
  await until(() => !isAlive(pid), 'the command is ended');
  t.ok(monotonicMs() < deadline, 'before the deadline');
  t.ok(daemon.logged.some((l) => l.event === 'command-killed'));
});

t.test('a daemon that stops ends the command first; exit 76', async (t) => {
  const daemon = await startFakeDaemon({ limits: LIMITS });
  const cli = new RunningCli(daemon.path, ['lock', 'n', '--', ...SLEEPER]);
  const pid = await pidOf(cli);
  await until(() => daemon.server.sessions().some((s) => s.group === pid), 'its process group is registered');
  const stopped = daemon.stop();
  const result = await cli.result;
  t.equal(result.code, 76);
  t.match(result.stderr, /is stopping/);
  t.notOk(isAlive(pid));
  await stopped;
  t.equal(daemon.core.lockCount, 0);
});

t.test('without a command it holds until it is interrupted', async (t) => {
  const daemon = await startFakeDaemon();
  t.teardown(() => daemon.stop());
  const cli = new RunningCli(daemon.path, ['lock', 'n']);
  await cli.saw(/granted n EX token \d+/);
  const other = await RawClient.greet(daemon.path);
  t.teardown(() => other.close());
  other.lock(1, 'n');
  await cli.saw(/wanted by another in EX/);
  cli.kill('SIGINT');
  t.match(await cli.result, { code: 0, stdout: /released n/ });
  await other.wait('DaemonGranted', 1);
});

t.test('without a command it says when the lock is lost; exit 76', async (t) => {
  const daemon = await startFakeDaemon({ limits: LIMITS });
  t.teardown(() => daemon.stop());
  const cli = new RunningCli(daemon.path, ['--json', 'lock', 'n']);
  await cli.saw(/"event":"granted"/);
  daemon.renew(false);
  const result = await cli.result;
  t.equal(result.code, 76);
  t.same(
    result.stdout
      .trim()
      .split('\n')
      .map((line) => JSON.parse(line).event),
    ['granted', 'suspended', 'lost'],
  );
});

t.test('without a command a daemon that stops is given its lock back at once; exit 76', async (t) => {
  const daemon = await startFakeDaemon({ limits: { heartbeatMs: 100, leaseMs: 10_000 } });
  const cli = new RunningCli(daemon.path, ['lock', 'n']);
  await cli.saw(/granted n/);
  const began = monotonicMs();
  await daemon.stop();
  t.ok(monotonicMs() - began < 5000, 'long before the deadline');
  t.match(await cli.result, { code: 76, stdout: /lost n: .*stopping/ });
});
