/**
 * One clock for what happens in several machines: that of this process.
 *
 * The problem: "B was granted after A's deadline" compares clocks of two machines, and what a machine prints arrives late. The
 * idea: each guest tells its monotonic clock on request, many times; the quickest answer says how far it is ahead of ours,
 * and within what error. Emulated machines count by this machine's clock, so that does not drift.
 */
import type { GuestProcess, Machine } from './machine.js';

const ROUNDS = 40;

const PROGRAM = `
import sys, time
print("ready", flush=True)
for line in sys.stdin:
    print("now", time.monotonic() * 1000, time.time() * 1000, flush=True)
`;

export interface Instant {
  /** Milliseconds of performance.now() here; the truth is within +- error. */
  at: number;
  error: number;
}

export class GuestClock {
  #ahead = 0;
  #wall = 0;
  error = Number.POSITIVE_INFINITY;

  static async of(machine: Machine): Promise<GuestClock> {
    const clock = new GuestClock();
    const p = machine.start(['python3', '-c', PROGRAM]);
    try {
      await p.expect(/ready\n/);
      for (let i = 0; i < ROUNDS; i++) await clock.#round(p, i);
    } finally {
      p.close();
    }
    return clock;
  }

  async #round(p: GuestProcess, round: number): Promise<void> {
    const seen = p.out.length;
    const before = performance.now();
    p.write('?\n');
    if (!(await p.until(() => p.out.indexOf('\n', seen) >= 0, 30_000)))
      throw new Error(`the guest's clock did not answer: ${p.err}`);
    const after = performance.now();
    const [, monotonic = '', wall = ''] = p.out.slice(seen).trim().split(' ');
    const error = (after - before) / 2;
    // The first answers are slow: the program is being read in.
    if (round < 3 || error >= this.error) return;
    this.error = error;
    this.#ahead = Number(monotonic) - (before + error);
    this.#wall = Number(wall) - Number(monotonic);
  }

  /** A time of the guest's CLOCK_MONOTONIC, in milliseconds, on our clock. */
  here(monotonicMs: number): Instant {
    return { at: monotonicMs - this.#ahead, error: this.error };
  }

  /** A time of the guest's calendar clock, such as a line of a log carries it, on our clock. */
  hereWall(epochMs: number): Instant {
    return this.here(epochMs - this.#wall);
  }
}

/** From one to the other, in words, with the error of both clocks. */
export function between(from: Instant, to: Instant): string {
  return `${Math.round(to.at - from.at)} ms (+-${(from.error + to.error).toFixed(1)})`;
}
