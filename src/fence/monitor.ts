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
  #isClosed = false;

  constructor(options: FenceMonitorOptions) {
    this.#o = options;
    this.#random = options.random ?? Math.random;
  }

  start(): void {
    if (this.#o.intervalMs <= 0) return;
    for (const device of this.#o.devices) {
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
        if (this.#isClosed) return;
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
