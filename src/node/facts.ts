/**
 * Facts about the machine: which boot this is, which machine, what time it is and whether it slept.
 *
 * The problem: leases live on CLOCK_MONOTONIC (`process.hrtime`), which stands still while the machine is suspended; a node
 * that slept through its lease wakes up believing in it (rule 10). CLOCK_BOOTTIME goes on counting. Node shows it as
 * `os.uptime()`, in steps of 10 ms.
 * The idea: {@link SuspendDetector} compares the two once per turn of the event loop; what BOOTTIME ran ahead is sleep.
 * It leaves to the daemon what follows from that (the lease is over), and a paused virtual machine, in which both clocks
 * stand still, to the fencing rules.
 */
import { readFileSync } from 'node:fs';
import { uptime } from 'node:os';
import { TsdlmError } from '../protocol/errors.js';
import type { Millis } from '../protocol/ids.js';
import { monotonicOffset } from '../protocol/monotonic.js';

function factFromFile(path: string, what: string, wayOut: string): string {
  let text: string;
  try {
    text = readFileSync(path, 'utf8').trim();
  } catch (cause) {
    throw new TsdlmError('TSDLM_BAD_CONFIG', `${what} cannot be read from ${path} (${(cause as Error).message}): ${wayOut}`, {
      cause,
    });
  }
  if (!/^[0-9a-f-]{32,36}$/i.test(text)) {
    throw new TsdlmError('TSDLM_BAD_CONFIG', `${path} holds ${JSON.stringify(text.slice(0, 60))}, not ${what}: ${wayOut}`);
  }
  return text.toLowerCase();
}

/** The kernel's boot id: changes exactly at a reboot. Throws TSDLM_BAD_CONFIG where /proc is not mounted. */
export function bootId(path = '/proc/sys/kernel/random/boot_id'): string {
  return factFromFile(path, 'a boot id', 'mount /proc');
}

/**
 * The machine's id (machine-id(5)); tells a rebooted machine from another one with the same disk (rule 12).
 * Throws TSDLM_BAD_CONFIG with the way out when there is none.
 */
export function machineId(path = '/etc/machine-id'): string {
  return factFromFile(path, 'a machine id', 'run systemd-machine-id-setup, or set machine_id in the configuration');
}

function hrtimeMs(): Millis {
  const [seconds, nanos] = process.hrtime();
  return seconds * 1000 + nanos / 1e6;
}

const OFFSET_MS = monotonicOffset({ hrtimeMs, performanceMs: () => performance.now() });

/** Monotonic clock, milliseconds with fractions. Shared by all processes of this machine, never compared between machines. */
export function nowMs(): Millis {
  return performance.now() + OFFSET_MS;
}

/** Time since boot including suspend, milliseconds, in steps of 10. */
export function boottimeMs(): Millis {
  return uptime() * 1000;
}

/** What one reading of BOOTTIME may be off against hrtime: its step, and the time between the two readings. */
const RESOLUTION_MS = 25;
/** Longer than this between two readings: the process was not running, the pair says nothing. */
const PREEMPTED_MS = 5;

/** Notices that the machine was suspended. Costs a few microseconds per check (4.4 measured for the uptime alone). */
export class SuspendDetector {
  readonly #monotonic: () => Millis;
  readonly #boottime: () => Millis;
  /** Smallest BOOTTIME - MONOTONIC seen since the last sleep: the steps of BOOTTIME make it larger only by chance, never smaller. */
  #offset: number;

  constructor(monotonic: () => Millis = nowMs, boottime: () => Millis = boottimeMs) {
    this.#monotonic = monotonic;
    this.#boottime = boottime;
    this.#offset = this.#measure().offset;
  }

  /**
   * BOOTTIME - MONOTONIC, never more than it is. MONOTONIC is read before and after: a process that was preempted between
   * the readings tries again, so that a busy machine does not look like a slept one.
   */
  #measure(): { offset: number; exact: boolean } {
    let offset = 0;
    for (let tries = 0; tries < 4; tries++) {
      const before = this.#monotonic();
      const boot = this.#boottime();
      const after = this.#monotonic();
      offset = boot - after;
      if (after - before < PREEMPTED_MS) return { offset, exact: true };
    }
    return { offset, exact: false };
  }

  /** Milliseconds that BOOTTIME ran ahead since the last check that returned more than 0; 0 = the machine did not sleep. */
  check(): Millis {
    const { offset, exact } = this.#measure();
    const ahead = offset - this.#offset;
    if (ahead > RESOLUTION_MS) {
      this.#offset = offset;
      return ahead;
    }
    if (exact && offset < this.#offset) this.#offset = offset;
    return 0;
  }
}

const VIRTUAL_HARDWARE = /\b(qemu|kvm|vmware|virtualbox|xen|bochs|bhyve|parallels|openstack|virtual machine|hvm domu)\b/i;

/**
 * True when the machine says that it is a virtual one: the `hypervisor` flag of /proc/cpuinfo (x86), a hypervisor in /sys (Xen), or
 * the name of its hardware (other processors). What says nothing counts as real hardware.
 */
export function isVirtualMachine(cpuinfo = '/proc/cpuinfo', sys = '/sys'): boolean {
  const read = (path: string): string => {
    try {
      return readFileSync(path, 'utf8');
    } catch {
      return '';
    }
  };
  if (/^flags\s*:.*\bhypervisor\b/m.test(read(cpuinfo)) || read(`${sys}/hypervisor/type`) !== '') return true;
  return ['sys_vendor', 'product_name'].some((name) => VIRTUAL_HARDWARE.test(read(`${sys}/class/dmi/id/${name}`)));
}
