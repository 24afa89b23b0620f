import t from 'tap';
import { connect } from '../../src/client/index.js';
import { runCli } from '../fixtures/cli.js';
import { startFakeDaemon } from '../fixtures/fake-daemon.js';

interface Case {
  args: string[];
  code: number;
  stderr?: RegExp;
  stdout?: RegExp;
  env?: Record<string, string>;
}

t.test('every end has its exit code and its sentence', async (t) => {
  const daemon = await startFakeDaemon({ limits: { heartbeatMs: 100, leaseMs: 3000 } });
  t.teardown(() => daemon.stop());
  const holder = await connect({ socket: daemon.path });
  t.teardown(() => holder.close());
  await holder.lock('busy', 'EX');
  const cases: Case[] = [
    { args: ['lock', 'free', '--', 'true'], code: 0, stdout: /^$/, stderr: /^$/ },
    { args: ['lock', 'free', '--', 'sh', '-c', 'exit 7'], code: 7 },
    { args: ['lock', 'free', '--', 'sh', '-c', 'kill -TERM $$'], code: 143 },
    { args: ['lock', 'free', '--', 'sh', '-c', 'kill -KILL $$'], code: 137 },
    { args: ['lock', 'free', '--', '/no/such/command'], code: 127, stderr: /no such command/ },
    { args: ['lock', 'free', '--', '/etc/passwd'], code: 126, stderr: /cannot run/ },
    { args: ['lock', 'free', '--pr', '--', 'true'], code: 0 },
    { args: ['lock', 'busy', '--try', '--', 'true'], code: 75, stderr: /held by another owner.*TSDLM_CONFLICT/ },
    { args: ['lock', 'busy', '--try', '-E', '3', '--', 'true'], code: 3 },
    { args: ['lock', 'busy', '--wait', '50ms', '--', 'true'], code: 75, stderr: /TSDLM_TIMEOUT/ },
    { args: ['lock', 'busy', '-w', '50ms', '-E', '0', '--', 'true'], code: 0 },
    { args: ['lock'], code: 64, stderr: /missing required argument/ },
    { args: ['lock', 'a', '--no-such'], code: 64, stderr: /unknown option/ },
    { args: ['lock', 'a', 'true'], code: 64, stderr: /put -- before the command/ },
    { args: ['lock', 'a', '--ex', '--pr'], code: 64, stderr: /exclude each other/ },
    { args: ['lock', 'a', '--try', '--wait', '1s'], code: 64, stderr: /exclude each other/ },
    { args: ['lock', 'a', '--wait', '5', '--', 'true'], code: 64, stderr: /number with a unit/ },
    { args: ['lock', 'a', '--wait', '999h'], code: 64, stderr: /longer than/ },
    { args: ['lock', 'a', '-E', '256', '--', 'true'], code: 64, stderr: /0 to 255/ },
    { args: ['lock', 'a', '--node-owned', '--', 'true'], code: 64, stderr: /outlive/ },
    { args: ['lock', 'a', '--node-owned'], code: 77, stderr: /unsafe_node_owned/ },
    { args: ['lock', 'n'.repeat(256), '--', 'true'], code: 64, stderr: /TSDLM_NAME_TOO_LONG/ },
    { args: ['lock', '', '--', 'true'], code: 64 },
    { args: ['lock', 'a', '--domain', 'x/y', '--', 'true'], code: 64 },
    { args: ['lock', 'a', '--grace', '5s', '--', 'true'], code: 78, stderr: /rule|at most \d+ ms/ },
    { args: ['lock', 'a', '--dlmfs', '/proc', '--', 'true'], code: 69, stderr: /no dlmfs at \/proc: proc is mounted there/ },
    { args: ['lock', 'a', '--dlmfs', '/no/such', '--', 'true'], code: 69, stderr: /nothing is mounted there/ },
    { args: ['lock', 'n'.repeat(32), '--dlmfs', '--', 'true'], code: 64, stderr: /at most 31/ },
    { args: ['lock', '$a', '--dlmfs', '--', 'true'], code: 64, stderr: /TSDLM_BAD_ARGUMENT/ },
    { args: ['lock', 'a', '--dlmfs', '/proc', '--node-owned'], code: 64, stderr: /exclude each other/ },
    { args: ['lvb', 'get', 'a', '--dlmfs', '/proc'], code: 69, stderr: /no dlmfs at/ },
    { args: ['nonsense'], code: 64, stderr: /unknown command/ },
    { args: [], code: 64 },
    { args: ['convert', 'a'], code: 64, stderr: /--ex, --pr or --nl/ },
    { args: ['unlock', 'a'], code: 1, stderr: /owns no lock/ },
    { args: ['lvb', 'get', 'a'], code: 1, stderr: /TSDLM_LVB_INVALID/ },
    { args: ['lvb', 'set', 'a', 'x'.repeat(65)], code: 64, stderr: /at most 64/ },
    { args: ['lvb', 'set', 'a', '--hex', 'abc'], code: 64, stderr: /hexadecimal/ },
    { args: ['lvb', 'get', 'busy', '--wait', '50ms'], code: 75 },
    { args: ['--help'], code: 0, stdout: /cluster-wide locks/ },
    { args: ['--version'], code: 0, stdout: /^\d+\.\d+\.\d+/ },
  ];
  for (const { args, code, stderr, stdout, env } of cases) {
    const result = await runCli(daemon.path, args, env);
    const what = `tsdlm ${args.map((a) => (a.length > 30 ? `${a.slice(0, 30)}...` : a)).join(' ')}`;
    t.equal(result.code, code, `${what} exits ${code}`);
    if (stderr !== undefined) t.match(result.stderr, stderr, what);
    if (stdout !== undefined) t.match(result.stdout, stdout, what);
    t.notMatch(result.stderr, /at .*\.js:\d+/, `${what}: no stack trace`);
  }
  t.equal(daemon.core.lockCount, 1, 'nothing is left behind');
});

t.test('no daemon: exit 69 and where it was looked for', async (t) => {
  const result = await runCli('/nonexistent/s.sock', ['status']);
  t.equal(result.code, 69);
  t.match(result.stderr, /\/nonexistent\/s\.sock.*is tsdlmd running/);
  const json = await runCli('/nonexistent/s.sock', ['status', '--json']);
  t.equal(json.code, 69);
  t.match(JSON.parse(json.stderr), { error: { code: 'TSDLM_DAEMON_UNREACHABLE' } });
});

t.test('the value block is written and read', async (t) => {
  const daemon = await startFakeDaemon();
  t.teardown(() => daemon.stop());
  t.equal((await runCli(daemon.path, ['lvb', 'set', 'v', 'grüße'])).code, 0);
  t.equal((await runCli(daemon.path, ['lvb', 'get', 'v'])).stdout, 'grüße\n');
  t.equal((await runCli(daemon.path, ['lvb', 'set', 'v', '--hex', '00ff10'])).code, 0);
  t.equal((await runCli(daemon.path, ['lvb', 'get', 'v', '--hex'])).stdout, `00ff10${'00'.repeat(61)}\n`);
  const json = JSON.parse((await runCli(daemon.path, ['lvb', 'get', 'v', '--json'])).stdout);
  t.match(json, { domain: 'default', name: 'v', state: 'valid', hex: /^00ff10/ });
});

t.test('node-owned locks: taken, converted, given back, from one process each', async (t) => {
  const daemon = await startFakeDaemon({ nodeOwnedAllowed: true });
  t.teardown(() => daemon.stop());
  const taken = await runCli(daemon.path, ['lock', 'vip', '--node-owned', '--json']);
  t.equal(taken.code, 0);
  t.match(JSON.parse(taken.stdout), { event: 'granted', name: 'vip', mode: 'EX', token: /^\d+$/ });
  t.same(daemon.core.locksOf('vip'), ['2/-1'], 'it outlives the process');
  t.equal((await runCli(daemon.path, ['lock', 'vip', '--node-owned'])).code, 75);
  t.match((await runCli(daemon.path, ['convert', 'vip', '--pr'])).stdout, /granted vip PR token \d+/);
  t.same(daemon.core.locksOf('vip'), ['1/-1']);
  t.equal((await runCli(daemon.path, ['unlock', 'vip'])).stdout, 'released vip\n');
  t.equal(daemon.core.lockCount, 0);
});
