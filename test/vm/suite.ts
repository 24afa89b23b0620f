/** What the cases of one machine share: each is a named function, told as one line; the rest goes on after a failure. */
import type { Machine } from './machine.js';

export type Check = (name: string, run: () => Promise<void>) => Promise<void>;

export interface Suite {
  name: string;
  /** Why it cannot run here, or null. */
  skip?: () => string | null;
  /** Some three times what it takes under emulation on an idle machine, which a busy one needs: more is a fault. */
  limitMs: number;
  run: (machine: Machine, check: Check, report: Report) => Promise<void>;
}

/** Lines that are no verdict: figures, the comparison with the kernel. */
export type Report = (text: string) => void;

export interface Count {
  passed: number;
  failed: number;
  skipped: number;
}

/** Runs the cases of one suite, tells of each and counts. */
export class Checker {
  /** The case under way. */
  current = '';
  readonly #suite: string;
  readonly #count: Count;
  #isClosed = false;

  readonly #say: (line: string) => void;

  constructor(suite: string, count: Count, say: (line: string) => void = console.log) {
    this.#suite = suite;
    this.#count = count;
    this.#say = say;
  }

  check: Check = async (name, run) => {
    // A suite that ran out of time: nothing more is begun.
    if (this.#isClosed) throw new Error('this suite is over');
    const started = performance.now();
    this.current = name;
    try {
      await run();
      if (this.#isClosed) return;
      this.#count.passed++;
      this.#say(`ok   ${this.#suite}: ${name} (${Math.round(performance.now() - started)} ms)`);
    } catch (error) {
      this.fail(name, error);
    }
    this.current = '';
  };

  fail(name: string, error: unknown): void {
    if (this.#isClosed) return;
    this.#count.failed++;
    this.#say(`FAIL ${this.#suite}: ${name}\n${String((error as Error).stack ?? error).replace(/^/gm, '       ')}`);
  }

  report(text: string): void {
    if (!this.#isClosed) this.#say(text);
  }

  close(): void {
    this.#isClosed = true;
  }
}

export function checker(suite: string, count: Count): Check {
  return new Checker(suite, count).check;
}
