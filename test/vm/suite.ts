/** What the cases of one machine share: each is a named function, told as one line; the rest goes on after a failure. */
import type { Machine } from './machine.js';

export type Check = (name: string, run: () => Promise<void>) => Promise<void>;

export interface Suite {
  name: string;
  /** Why it cannot run here, or null. */
  skip?: () => string | null;
  run: (machine: Machine, check: Check, report: Report) => Promise<void>;
}

/** Lines that are no verdict: figures, the comparison with the kernel. */
export type Report = (text: string) => void;

export interface Count {
  passed: number;
  failed: number;
  skipped: number;
}

export function checker(suite: string, count: Count): Check {
  return async (name, run) => {
    const started = performance.now();
    try {
      await run();
      count.passed++;
      console.log(`ok   ${suite}: ${name} (${Math.round(performance.now() - started)} ms)`);
    } catch (error) {
      count.failed++;
      console.log(`FAIL ${suite}: ${name}\n${String((error as Error).stack ?? error).replace(/^/gm, '       ')}`);
    }
  };
}
