import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { bootId, boottimeMs, isVirtualMachine, machineId, nowMs, SuspendDetector } from '../../src/node/facts.js';
import { tempDir } from '../fixtures/journal.js';

t.test('boot id and machine id are read, checked and named when missing', async (t) => {
  const dir = tempDir(t);
  t.match(bootId(), /^[0-9a-f-]{36}$/);
  const file = join(dir, 'machine-id');
  writeFileSync(file, '0123456789ABCDEF0123456789abcdef\n');
  t.equal(machineId(file), '0123456789abcdef0123456789abcdef');
  writeFileSync(file, 'uninitialized\n');
  t.throws(() => machineId(file), { code: 'TSDLM_BAD_CONFIG', message: /"uninitialized".*machine_id/ });
  t.throws(() => machineId(join(dir, 'none')), { code: 'TSDLM_BAD_CONFIG', message: /systemd-machine-id-setup/ });
});

t.test('the clocks go forward and agree on a machine that does not sleep', async (t) => {
  const a = nowMs();
  const b = nowMs();
  t.ok(b >= a && b - a < 1000);
  t.ok(Math.abs(boottimeMs() - nowMs()) >= 0);
  const detector = new SuspendDetector();
  const end = nowMs() + 300;
  let alarms = 0;
  while (nowMs() < end) if (detector.check() > 0) alarms++;
  t.equal(alarms, 0);
});

t.test('rule 10: time that only BOOTTIME counted is reported once', async (t) => {
  let mono = 1000;
  let slept = 0;
  const steps = (ms: number): number => Math.floor(ms / 10) * 10;
  const detector = new SuspendDetector(
    () => mono,
    () => steps(mono + slept + 500),
  );
  for (let i = 0; i < 1000; i++) {
    mono += 7.3;
    t.equal(detector.check(), 0) || t.bailout('false alarm');
  }
  slept += 2000;
  mono += 1;
  const gap = detector.check();
  t.ok(gap > 1980 && gap < 2020, `${gap} ms`);
  mono += 1;
  t.equal(detector.check(), 0, 'once');
  slept += 60;
  mono += 5;
  t.ok(detector.check() > 40, 'short sleeps are seen too');
});

t.test('rule 10: a process that was preempted between the readings does not look like a slept machine', async (t) => {
  let mono = 0;
  let stalls = 0;
  const detector = new SuspendDetector(
    () => {
      mono += stalls > 0 ? 80 : 0.01;
      if (stalls > 0) stalls--;
      return mono;
    },
    () => Math.floor(mono / 10) * 10,
  );
  for (let i = 0; i < 200; i++) {
    stalls = i % 12;
    if (detector.check() > 0) t.fail(`false alarm with ${i % 12} stalls`);
    mono += 3;
  }
  t.pass('no false alarm');
});

t.test('rule 10: a virtual machine is known by its processor, by /sys, or by the name of its hardware', async (t) => {
  const dir = t.testdir({
    intel: 'flags\t\t: fpu vme hypervisor lahf_lm\n',
    metal: 'flags\t\t: fpu vme lahf_lm\n',
    arm: { class: { dmi: { id: { sys_vendor: 'QEMU\n', product_name: 'KVM Virtual Machine\n' } } } },
    server: { class: { dmi: { id: { sys_vendor: 'Dell Inc.\n', product_name: 'PowerEdge R640\n' } } } },
    xen: { hypervisor: { type: 'xen\n' } },
  });
  const cases: [string, string, boolean][] = [
    ['intel', 'none', true],
    ['metal', 'none', false],
    ['metal', 'arm', true],
    ['metal', 'server', false],
    ['metal', 'xen', true],
    ['none', 'none', false],
  ];
  for (const [cpu, sys, is] of cases) t.equal(isVirtualMachine(`${dir}/${cpu}`, `${dir}/${sys}`), is, `${cpu} ${sys}`);
});
