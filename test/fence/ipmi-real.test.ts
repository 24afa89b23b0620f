/** The method ipmi against OpenIPMI's simulated management controller, whose power switch ends a real process. */
import { type ChildProcess, spawn } from 'node:child_process';
import { chmodSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { IpmiMethod } from '../../src/fence/ipmi.js';
import type { IpmiFenceConfig } from '../../src/fence/types.js';
import { nowMs } from '../../src/node/facts.js';
import { BMC_PASSWORD, Bmc, bmcMissing } from '../fixtures/bmc.js';
import { tempDir } from '../fixtures/journal.js';

const TARGET = { nodeName: 'n1', node: 1, reason: 'silent', attempt: 1, together: 1 };
const never = new AbortController().signal;
const missing = bmcMissing();
t.setTimeout(90_000);

t.test('with a simulated controller', { skip: missing === '' ? false : missing }, async (t) => {
  const dir = tempDir(t);
  const pidFile = join(dir, 'pid');
  const machines: ChildProcess[] = [];
  const boot = (): ChildProcess => {
    const machine = spawn('/bin/sleep', ['600'], { stdio: 'ignore' });
    machines.push(machine);
    writeFileSync(pidFile, `${machine.pid}\n`);
    return machine;
  };
  const bmc = await Bmc.create(join(dir, 'bmc'), pidFile);
  t.teardown(() => {
    bmc.stop();
    for (const machine of machines) machine.kill('SIGKILL');
  });
  await bmc.start();
  const method = (more: Partial<IpmiFenceConfig> = {}): IpmiMethod =>
    new IpmiMethod({
      name: 'bmc',
      type: 'ipmi',
      host: '127.0.0.1',
      port: bmc.port,
      user: 'fence',
      passwordFile: bmc.passwordFile,
      cipher: 3,
      privilege: '',
      timeoutMs: 15_000,
      powerOn: true,
      program: 'ipmitool',
      ...more,
    });
  const ended = (child: ChildProcess): boolean => child.signalCode !== null || child.exitCode !== null;

  await t.test('off ends the machine; the second look and the check see it; on is told', async (t) => {
    const child = boot();
    t.match(await method().check(TARGET, never), { ok: true, detail: /Chassis Power is on/ });
    const gone = new Promise((resolve) => child.once('exit', resolve));
    t.match(await method().fence(TARGET, never), { ok: true });
    await gone;
    t.equal(child.signalCode, 'SIGKILL');
    t.match(await method().verify(TARGET, never), { ok: true });
    t.match(await method().fence(TARGET, never), { ok: true }, 'off while off is fine');
    t.match(await method().powerOn(TARGET, never), { ok: true });
    t.same(bmc.sets().at(-1), 'power 1');
  });

  await t.test('"acknowledged" is not "off": it waits until the power is really off', async (t) => {
    const child = boot();
    bmc.fault('long');
    const before = nowMs();
    t.match(await method().fence(TARGET, never), { ok: true });
    t.ok(nowMs() - before > 900, 'the power went off a second after the acknowledgement');
    t.ok(ended(child));
    bmc.fault(null);
  });

  await t.test('F2: a lying controller is never believed', async (t) => {
    const child = boot();
    bmc.fault('lie');
    t.match(await method({ timeoutMs: 2500 }).fence(TARGET, never), {
      ok: false,
      detail: /acknowledged, but the power is still on/,
    });
    t.match(await method().verify(TARGET, never), { ok: false });
    t.notOk(ended(child));
    bmc.fault(null);
    t.match(await method().fence(TARGET, never), { ok: true });
  });

  await t.test('operator privilege is enough, and less is said so', async (t) => {
    boot();
    const passwordFile = join(dir, 'oper');
    writeFileSync(passwordFile, '0perPw\n', { mode: 0o600 });
    t.match(await method({ user: 'oper', passwordFile, privilege: 'OPERATOR' }).fence(TARGET, never), { ok: true });
  });

  await t.test('F5: a wrong password fails at once, in the check too, and is not shown', async (t) => {
    const child = boot();
    const passwordFile = join(dir, 'wrong');
    writeFileSync(passwordFile, 'Wr0ngPw\n');
    chmodSync(passwordFile, 0o600);
    const before = nowMs();
    const outcome = await method({ passwordFile }).fence(TARGET, never);
    t.match(outcome, { ok: false, detail: /refuses: .*Unable to establish IPMI v2/ });
    t.ok(nowMs() - before < 3000);
    t.match(await method({ passwordFile }).check(TARGET, never), { ok: false, detail: /Unable to establish/ });
    t.notMatch(outcome.detail, /Wr0ngPw/);
    t.notOk(ended(child));
  });

  await t.test('F3: a stalled controller that carries it out later: unknown first, then verified', async (t) => {
    const child = boot();
    bmc.fault('slow');
    const run = method({ timeoutMs: 60_000 }).fence(TARGET, never);
    // It stalls at the first question it gets; healthy again after that.
    setTimeout(() => bmc.fault(null), 3000);
    t.match(await run, { ok: true });
    t.ok(ended(child));
  });

  await t.test('F4: a dead controller is unknown until the limit, then failed', async (t) => {
    const child = boot();
    bmc.stop();
    const before = nowMs();
    t.match(await method({ timeoutMs: 3000 }).fence(TARGET, never), { ok: false, detail: /within 3000 ms/ });
    const took = nowMs() - before;
    t.ok(took >= 2900 && took < 4000, `after ${Math.round(took)} ms: the next level within the limit and a second`);
    t.notOk(ended(child));
  });
  t.notMatch(JSON.stringify(process.argv), BMC_PASSWORD);
});
