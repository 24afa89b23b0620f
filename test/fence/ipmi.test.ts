/** The method ipmi against an ipmitool that we play ourselves: what it says, does not say, and how long it takes. */
import { chmodSync, existsSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { IpmiMethod, parsePower } from '../../src/fence/ipmi.js';
import type { IpmiFenceConfig } from '../../src/fence/types.js';
import { nowMs } from '../../src/node/facts.js';
import { tempDir } from '../fixtures/journal.js';
import { until } from '../fixtures/until.js';

const TARGET = { nodeName: 'n2', node: 2, reason: 'silent', attempt: 1, together: 1 };
const never = new AbortController().signal;
const PASSWORD = 'S3cret Pw';

/** A method whose ipmitool is a shell script; `$what` is on, off or status; `$n` counts the calls of that kind. */
function fake(t: { teardown(fn: () => void): unknown }, body: string, more: Partial<IpmiFenceConfig> = {}) {
  const dir = tempDir(t);
  const program = join(dir, 'ipmitool');
  const passwordFile = join(dir, 'password');
  writeFileSync(passwordFile, `${PASSWORD}\n`, { mode: 0o600 });
  writeFileSync(
    program,
    `#!/bin/sh
dir='${dir}'
for a in "$@"; do what=$a; done
echo "$*" >> "$dir/calls"
env > "$dir/env"
echo x >> "$dir/n.$what"; n=$(wc -l < "$dir/n.$what")
on() { echo "Chassis Power is on"; }
off() { echo "Chassis Power is off"; }
refuse() { echo "Error: Unable to establish IPMI v2 / RMCP+ session" >&2; exit 1; }
${body}
`,
    { mode: 0o755 },
  );
  const method = new IpmiMethod({
    name: 'bmc',
    type: 'ipmi',
    host: '10.0.1.2',
    port: 623,
    user: 'fence',
    passwordFile,
    cipher: null,
    privilege: '',
    timeoutMs: 6000,
    powerOn: true,
    program,
    ...more,
  });
  const calls = (): string[] =>
    existsSync(join(dir, 'calls')) ? readFileSync(join(dir, 'calls'), 'utf8').trim().split('\n') : [];
  return { dir, method, passwordFile, calls, kinds: () => calls().map((line) => line.split(' ').at(-1)) };
}

t.test('off, then ask until it says off: only that is proof', async (t) => {
  const { method, kinds, calls } = fake(
    t,
    'case $what in off) echo "Chassis Power Control: Down/Off" ;; *) if [ $n -lt 3 ]; then on; else off; fi ;; esac',
  );
  t.match(await method.fence(TARGET, never), { ok: true, detail: '10.0.1.2:623 says: Chassis Power is off' });
  t.same(kinds(), ['off', 'status', 'status', 'status'], 'one off, and no on');
  t.match(calls()[0], /^-I lanplus -H 10\.0\.1\.2 -p 623 -U fence -f \S+ -N 2 -R 2 chassis power off$/);
});

t.test('cipher suite and privilege are handed on', async (t) => {
  const { method, calls } = fake(t, 'off', { cipher: 17, privilege: 'OPERATOR' });
  await method.fence(TARGET, never);
  t.match(calls()[0], /-C 17 -L OPERATOR chassis power off$/);
});

t.test('S6: the password is in no argument, in no environment and in no outcome, even when the program prints it', async (t) => {
  const { method, dir, calls } = fake(t, 'cat "$dir/password" >&2; echo "key S3cret Pw" ; refuse');
  const outcome = await method.fence(TARGET, never);
  t.equal(outcome.ok, false);
  t.notMatch(outcome.detail, /S3cret/);
  t.match(outcome.detail, /\[secret\]/);
  t.notMatch(calls().join('\n'), /S3cret/);
  t.notMatch(readFileSync(join(dir, 'env'), 'utf8'), /S3cret|IPMI_PASSWORD/);
  t.notMatch((await method.check(TARGET, never)).detail, /S3cret/);
});

t.test('an acknowledged off that does nothing is never believed, and is repeated', async (t) => {
  const { method, kinds } = fake(t, 'on', { timeoutMs: 7500 });
  const before = nowMs();
  const outcome = await method.fence(TARGET, never);
  t.match(outcome, {
    ok: false,
    // A slow machine may cut the last question off; what it was cut off with is then said instead.
    detail:
      /did not say that the power is off \(within 7500 ms\): (off was acknowledged, but the power is still on|its state is not known)/,
  });
  t.ok(nowMs() - before < 9500);
  t.ok(kinds().filter((kind) => kind === 'off').length >= 2, kinds().join(' '));
  t.notOk(kinds().includes('on'));
});

t.test('a refusal of both off and status, as with a wrong password, is given up at once', async (t) => {
  const { method, kinds } = fake(t, 'refuse', { timeoutMs: 60_000 });
  const before = nowMs();
  t.match(await method.fence(TARGET, never), { ok: false, detail: /refuses: off .*Unable to establish IPMI v2/ });
  t.ok(nowMs() - before < 3000, 'the next level gets its turn');
  t.same(kinds(), ['off', 'status']);
});

t.test('F3: an off that timed out is unknown: the state decides, off is repeated', async (t) => {
  const { method, kinds } = fake(
    t,
    'case $what in off) [ $n -ge 2 ] || { sleep 1; echo "Unable to set Chassis Power Control" >&2; exit 1; } ;; *) if [ $(wc -l < "$dir/n.off") -ge 2 ]; then off; else sleep 1; refuse; fi ;; esac',
    {
      timeoutMs: 20_000,
    },
  );
  t.match(await method.fence(TARGET, never), { ok: true });
  t.same(kinds(), ['off', 'status', 'off', 'status']);
});

t.test('a failed off whose effect came all the same counts as off', async (t) => {
  const { method } = fake(t, 'case $what in off) refuse ;; *) off ;; esac');
  t.match(await method.fence(TARGET, never), { ok: true });
});

t.test('F10: one that hangs and ignores SIGTERM is killed at the limit', async (t) => {
  const { method, dir } = fake(t, 'trap "" TERM; echo $$ > "$dir/pid"; sleep 600; sleep 600', { timeoutMs: 900 });
  const before = nowMs();
  t.match(await method.fence(TARGET, never), { ok: false, detail: /within 900 ms.*did not end within .* and was killed/ });
  t.ok(nowMs() - before < 3000);
  const pid = readFileSync(join(dir, 'pid'), 'utf8').trim();
  await until(
    'it is gone',
    () => !existsSync(`/proc/${pid}`) || /^State:\s+Z/m.test(readFileSync(`/proc/${pid}/status`, 'utf8')),
  );
});

t.test('lying and strange texts are not "off"', async (t) => {
  const power = (stdout: string, code: number | null = 0): string => parsePower({ stdout, code });
  t.equal(power('Chassis Power is off\n'), 'off');
  t.equal(power('Chassis Power is on\n'), 'on');
  for (const text of [
    '',
    'off',
    'Chassis Power is offline',
    'Chassis Power is off\nChassis Power is on',
    'not Chassis Power is off',
    'chassis power is off',
  ])
    t.equal(power(text), 'unknown', text);
  t.equal(power('Chassis Power is off\n', 1), 'unknown', 'only with a clean exit');
  t.equal(power('Chassis Power is off\n', null), 'unknown');
  const { method } = fake(t, 'off >&2; exit 0', { timeoutMs: 1200 });
  t.equal((await method.fence(TARGET, never)).ok, false, 'on standard error it is no answer');
});

t.test('F11: 10 MB of output or binary is cut and is no answer', async (t) => {
  const big = fake(t, 'off; head -c 10000000 /dev/zero | tr "\\0" x; exit 0', { timeoutMs: 1500 });
  const outcome = await big.method.fence(TARGET, never);
  t.equal(outcome.ok, false);
  t.ok(outcome.detail.length < 3000, `${outcome.detail.length} characters`);
  const binary = fake(t, 'head -c 3000 /dev/urandom; exit 1', { timeoutMs: 1500 });
  // biome-ignore lint/suspicious/noControlCharactersInRegex: that there are none is the point
  t.notMatch((await binary.method.fence(TARGET, never)).detail, /[\u0000-\u001f\u007f]/);
});

t.test('the second look is a status of its own', async (t) => {
  const { method, kinds } = fake(t, 'if [ $n -lt 2 ]; then off; else on; fi');
  t.match(await method.verify(TARGET, never), { ok: true });
  t.match(await method.verify(TARGET, never), { ok: false, detail: /does not say that the power is off/ });
  t.same(kinds(), ['status', 'status']);
});

t.test('switching on is repeated while it fails, and left out where the configuration says so', async (t) => {
  const { method, kinds } = fake(t, 'if [ $n -lt 2 ]; then refuse; fi');
  t.match(await method.powerOn(TARGET, never), { ok: true });
  t.same(kinds(), ['on', 'on']);
  const stays = fake(t, 'exit 0', { powerOn: false });
  t.match(await stays.method.powerOn(TARGET, never), { ok: true, detail: /stays off/ });
  t.same(stays.calls(), []);
});

t.test('the check asks for the state only; a password file that others can read is refused', async (t) => {
  const { method, kinds, passwordFile } = fake(t, 'on');
  t.match(await method.check(TARGET, never), { ok: true, detail: /Chassis Power is on/ });
  t.same(kinds(), ['status']);
  chmodSync(passwordFile, 0o644);
  t.match(await method.check(TARGET, never), { ok: false, detail: /can be read by others \(mode 0644\): run chmod 600/ });
  t.match(await method.fence(TARGET, never), { ok: false, detail: /can be read by others/ });
  t.same(kinds(), ['status'], 'nothing was called with it');
});

t.test('a missing ipmitool is a failure with its reason, not a crash', async (t) => {
  const { method } = fake(t, '', { program: '/no/such/ipmitool', timeoutMs: 1500 });
  t.match(await method.fence(TARGET, never), { ok: false, detail: /could not be started .*ENOENT/ });
  t.match(await method.check(TARGET, never), { ok: false, detail: /ENOENT/ });
});

t.test('a run that is withdrawn ends at once', async (t) => {
  const { method, calls } = fake(t, 'sleep 600', { timeoutMs: 60_000 });
  const stop = new AbortController();
  const run = method.fence(TARGET, stop.signal);
  await until('it runs', () => calls().length > 0);
  stop.abort();
  const before = nowMs();
  t.match(await run, { ok: false, detail: /not needed any more/ });
  t.ok(nowMs() - before < 2000);
});
