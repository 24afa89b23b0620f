/**
 * Fence devices are looked at before they are needed.
 *
 * The problem: a wrong password, a moved address or a missing program is found out in the night in which a node dies. The idea:
 * every node that may have to fence looks at each device of each other node regularly (with jitter, so that not all nodes ask one
 * device at the same moment); the first look is thorough, at the agent's own description of its options. What fails is a warning
 * in the log, once, and in status until it works again. Changes nothing at the device.
 */
import type { FenceRunner } from './runner.js';
import type { FenceOutcome } from './types.js';

/** One device as it is looked at: a method of a node's levels. */
export interface FenceDevice {
  node: string;
  method: string;
}

export interface FenceMonitorOptions {
  runner: Pick<FenceRunner, 'check' | 'hasDevice'>;
  devices: readonly FenceDevice[];
  /** Mean time between two looks at one device, ms; 0 = never. */
  intervalMs: number;
  log: (level: 'info' | 'warn' | 'error', event: string, data: Record<string, unknown>) => void;
  /** From [0, 1). */
  random?: () => number;
}

/** Each wait is drawn from (1 ± this) times the interval. */
const JITTER = 0.25;
/** The first looks follow the start within this time. */
const FIRST_MS_MAX = 3000;

export class FenceMonitor {
  readonly #o: FenceMonitorOptions;
  readonly #random: () => number;
  readonly #timers = new Map<string, NodeJS.Timeout>();
  readonly #faults = new Map<string, { device: FenceDevice; detail: string }>();
  #devices: readonly FenceDevice[];
  #isStarted = false;
  #isClosed = false;

  constructor(options: FenceMonitorOptions) {
    this.#o = options;
    this.#devices = options.devices;
    this.#random = options.random ?? Math.random;
  }

  start(): void {
    this.#isStarted = true;
    this.setDevices(this.#devices);
  }

  /** These are looked at from now on; what was found of others is forgotten. */
  setDevices(devices: readonly FenceDevice[]): void {
    const keys = new Set(devices.map(keyOf));
    for (const [key, timer] of this.#timers) {
      if (keys.has(key)) continue;
      clearTimeout(timer);
      this.#timers.delete(key);
    }
    for (const key of this.#faults.keys()) if (!keys.has(key)) this.#faults.delete(key);
    this.#devices = devices;
    if (this.#o.intervalMs <= 0 || !this.#isStarted || this.#isClosed) return;
    for (const device of devices) {
      if (this.#timers.has(keyOf(device))) continue;
      if (this.#o.runner.hasDevice(device.method)) {
        this.#later(device, this.#random() * Math.min(FIRST_MS_MAX, this.#o.intervalMs), true);
      }
    }
  }

  /** Looks at the device now, thoroughly; what is found counts for status too. */
  async look(device: FenceDevice, thorough = true): Promise<FenceOutcome> {
    const outcome = await this.#o.runner.check(device.method, device.node, thorough);
    if (this.#isClosed) return outcome;
    const key = keyOf(device);
    const before = this.#faults.get(key);
    if (outcome.ok) {
      this.#faults.delete(key);
      if (before) this.#o.log('info', 'fence-device-works-again', { ...device, detail: outcome.detail });
    } else {
      this.#faults.set(key, { device, detail: outcome.detail });
      if (before?.detail !== outcome.detail) {
        // Times and the like differ from look to look: said aloud only when it is new.
        this.#o.log(before ? 'info' : 'warn', 'fence-device-fault', { ...device, detail: outcome.detail });
      }
    }
    return outcome;
  }

  /** For status. */
  warnings(): string[] {
    return [...this.#faults.values()].map(
      ({ device, detail }) => `fence device ${device.method} of node ${device.node} would not work now: ${detail}`,
    );
  }

  close(): void {
    this.#isClosed = true;
    for (const timer of this.#timers.values()) clearTimeout(timer);
    this.#timers.clear();
  }

  #later(device: FenceDevice, ms: number, thorough: boolean): void {
    const timer = setTimeout(() => {
      void this.look(device, thorough).then((outcome) => {
        if (this.#isClosed || !this.#devices.some((d) => keyOf(d) === keyOf(device))) return;
        const wait = this.#o.intervalMs * (1 - JITTER + 2 * JITTER * this.#random());
        // What is wrong with a configuration shows only to a thorough look.
        this.#later(device, wait, !outcome.ok);
      });
    }, ms);
    timer.unref();
    this.#timers.set(keyOf(device), timer);
  }
}

function keyOf(device: FenceDevice): string {
  return `${device.node}/${device.method}`;
}
