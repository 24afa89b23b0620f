/** What ends a machine when its lease is over: the watchdog device, the helper for sysrq and scripts, and their configuration. */
import { once } from 'node:events';
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { connect } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import { Guard } from '../../src/fence/guard.js';
import type { SelfEndConfig } from '../../src/fence/self-end.js';
import { timeoutFault, timeoutFileOf, Watchdog } from '../../src/fence/watchdog.js';
import { checkSelfEnd, deriveTimeLimits, selfEndWaitMs } from '../../src/membership/time-limits.js';
import { loadConfig } from '../../src/node/config.js';
import type { Session } from '../../src/node/session.js';
import { SessionGuard } from '../../src/node/session-guard.js';
import { until } from '../fixtures/until.js';

function setup(t: Test, more: Partial<SelfEndConfig>) {
  const dir = mkdtempSync(join(tmpdir(), 'tsdlm-selfend-'));
  t.teardown(() => rmSync(dir, { recursive: true, force: true }));
  const config: SelfEndConfig = {
    method: 'watchdog',
    timeoutMs: 1000,
    device: join(dir, 'watchdog'),
    timeoutFile: '',
    trigger: join(dir, 'sysrq'),
    command: [],
    ...more,
  };
  const events: string[] = [];
  const log = (_level: string, event: string): void => {
    events.push(event);
  };
  return { dir, config, events, log };
}

t.test(
  'watchdog: armed by the first keep-alive, fed a few times per time-out, never fed again once the machine is to end',
  async (t) => {
    const { config, events, log } = setup(t, {});
    let now = 0;
    const dog = new Watchdog(config, log, () => now);
    dog.keepAlive();
    t.equal(dog.armedMs, 0);
    t.match(dog.warnings(), [/would not end itself: watchdog .*ENOENT/]);
    writeFileSync(config.device, '');
    const written = (): string => readFileSync(config.device, 'utf8');
    now = 100;
    dog.keepAlive();
    t.equal(written(), '', 'not tried again at once');
    now = 6000;
    dog.keepAlive();
    t.same([written(), dog.armedMs, dog.warnings()], ['\0', 1000, []]);
    for (let i = 0; i < 100; i++) {
      now += 10;
      dog.keepAlive();
    }
    t.equal(written().length, 6);
    dog.endNow('test');
    now += 1000;
    dog.keepAlive();
    await dog.disarm();
    t.equal(written().length, 6, 'neither fed nor disarmed');
    t.same(events, ['self-end-failed', 'self-end-armed', 'self-end']);
  },
);

t.test('watchdog: a clean end writes "V" last', async (t) => {
  const { config, log } = setup(t, {});
  writeFileSync(config.device, '');
  const dog = new Watchdog(config, log);
  dog.keepAlive();
  await dog.disarm();
  t.equal(readFileSync(config.device, 'utf8'), '\0V');
  t.equal(dog.armedMs, 0);
});

t.test('watchdog: a device that fires later than the others are told does not count', async (t) => {
  const { config, dir, log } = setup(t, { timeoutFile: '' });
  const timeoutFile = join(dir, 'timeout');
  writeFileSync(timeoutFile, '60\n');
  writeFileSync(config.device, '');
  t.match(timeoutFault(timeoutFile, 10_000), /fires after 60 s .* raise timeout_ms to at least 60000/);
  t.equal(timeoutFault(timeoutFile, 60_000), '');
  t.equal(timeoutFileOf('/dev/watchdog'), '/sys/class/watchdog/watchdog0/timeout');
  t.equal(timeoutFileOf('/dev/watchdog1'), '/sys/class/watchdog/watchdog1/timeout');
  const dog = new Watchdog({ ...config, timeoutFile }, log);
  dog.keepAlive();
  t.equal(dog.armedMs, 0);
  t.equal(readFileSync(config.device, 'utf8'), '', 'it is not even armed');
});

/** A helper of the test; ended whatever happens. */
function guarded(t: Test, more: Partial<SelfEndConfig>) {
  const { dir, config, events, log } = setup(t, more);
  const guard = new Guard(config, join(dir, 'guard.sock'), log);
  let ticker: NodeJS.Timeout | null = setInterval(() => guard.keepAlive(), 50);
  const starve = (): void => {
    if (ticker) clearInterval(ticker);
    ticker = null;
  };
  t.teardown(async () => {
    starve();
    await guard.disarm();
  });
  return { dir, config, events, guard, starve };
}

t.test('sysrq: the helper acts when it was not kept alive, and counts', async (t) => {
  const { config, guard, starve } = guarded(t, { method: 'sysrq' });
  writeFileSync(config.trigger, '');
  t.equal(guard.armedMs, 0);
  await until('it is armed', () => guard.armedMs === 1000);
  const end = performance.now() + 1500;
  await until('more than a time-out has passed', () => performance.now() > end);
  t.equal(readFileSync(config.trigger, 'utf8'), '');
  starve();
  const starved = performance.now();
  await until('it acts', () => readFileSync(config.trigger, 'utf8') === 'b');
  t.ok(performance.now() - starved > 600, `after ${Math.round(performance.now() - starved)} ms`);
});

t.test('script: it is run at once when a command has survived (rule 11), and counts for nothing', async (t) => {
  const { dir, config, log } = setup(t, { method: 'script', timeoutMs: 60_000 });
  const mark = join(dir, 'ran');
  const socket = join(dir, 'guard.sock');
  const guard = new Guard({ ...config, command: ['/bin/sh', '-c', 'echo x >> "$0"', mark] }, socket, log);
  const ticker = setInterval(() => guard.keepAlive(), 50);
  t.teardown(async () => {
    clearInterval(ticker);
    // One that has acted is ended by the end of the machine; here by the word of a clean leave.
    const line = connect(socket);
    line.on('error', () => undefined);
    line.resume();
    line.write('V\n');
    await once(line, 'close');
  });
  await until('the helper runs', () => guard.warnings().length === 0 && existsSync(socket));
  t.equal(guard.armedMs, 0);
  guard.endNow('test');
  await until('the script has run', () => existsSync(mark) && readFileSync(mark, 'utf8') === 'x\n');
});

t.test('rule 11: a command that is alive after SIGKILL and its margin ends the machine', async (t) => {
  const survivors: string[] = [];
  let now = 0;
  const group = { pgid: 4_194_303, graceMs: 0, leaderStart: '1' };
  const guard = new SessionGuard({
    now: () => now,
    log: () => undefined,
    holdUntil: () => 100,
    survives: (why) => survivors.push(why),
    isAlive: () => true,
  });
  const session = { id: 1, state: 'open', granted: 1, group, guard: null, wasTermSent: true, pid: 1, start: '1', told: 0 };
  now = 1000;
  guard.watch(session as unknown as Session);
  await until('it is reported', () => survivors.length > 0);
  t.match(survivors, [/4194303 has survived SIGKILL/]);
});

t.test('the inequality between lease, margin and the time in which the machine ends is checked', async (t) => {
  const limits = deriveTimeLimits();
  checkSelfEnd(limits, 10_000);
  t.throws(() => checkSelfEnd(limits, 500), { code: 'TSDLM_BAD_CONFIG', message: /must be 1000 to 600000/ });
  t.throws(() => checkSelfEnd({ ...limits, heartbeatMs: 5000 }, 10_000), { message: /at least 4 heartbeats/ });
  t.throws(() => checkSelfEnd({ ...limits, marginMs: 100 }, 10_000), {
    message: /is less than the \d+ ms in which the machine has ended/,
  });
  for (const armedMs of [1000, 10_000, 600_000]) {
    t.ok(selfEndWaitMs(armedMs) > 2 * armedMs);
    checkSelfEnd(limits, armedMs);
  }
});

t.test('configuration: [self_end]', async (t) => {
  const { dir, config } = setup(t, {});
  writeFileSync(join(dir, 'timeout'), '60\n');
  const load = (table: string): ReturnType<typeof loadConfig> => loadConfig({ text: `[self_end]\n${table}`, file: 'f', env: {} });
  const refused = (table: string, why: RegExp): void => {
    t.throws(() => load(table), { code: 'TSDLM_BAD_CONFIG', message: why });
  };
  const good = load(`method = "watchdog"\ndevice = "${config.device}"\n`);
  t.match(good.selfEnd, { method: 'watchdog', device: config.device, timeoutMs: 10_000 });
  t.equal(good.nodeOwnedAllowed, true);
  t.equal(load('method = "script"\ncommand = ["/bin/true"]\n').nodeOwnedAllowed, false, 'a script frees nothing');
  t.equal(loadConfig({ text: '', file: 'f', env: {} }).selfEnd, null);
  refused('timeout_ms = 5000\n', /f:1: self_end has no method: write method = "watchdog" or "sysrq" or "script"/);
  refused('method = "halt"\n', /f:2: self_end.method = "halt"/);
  refused('method = "sysrq"\ntrigger = "x"\n', /f:3: self_end: trigger = "x" must be an absolute path/);
  refused('method = "script"\n', /self_end: command must begin with the absolute path/);
  refused('method = "script"\ncommand = ["/nowhere"]\n', /f:3: self_end: command \/nowhere cannot be run/);
  refused(`method = "watchdog"\ntimeout_file = "${join(dir, 'timeout')}"\n`, /fires after 60 s/);
  refused('method = "sysrq"\ntimeout_ms = 10\n', /timeout_ms = 10/);
});
