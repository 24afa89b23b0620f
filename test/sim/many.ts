/** Many seeds over several worker threads. */
import { Worker } from 'node:worker_threads';
import { addTotals, newTotals, type Totals } from './totals.js';
import type { Job, Word } from './worker.js';

export interface ManySetup {
  from: number;
  seeds: number;
  threads: number;
  failuresMax: number;
  /** Called now and then with how many seeds are done, and with each failure when it happens. */
  progress?: (done: number, failed: string | null) => void;
}

/** Runs seeds from, from+1, …; resolves with the sums. Failures are in order of seed. */
export async function runMany(setup: ManySetup): Promise<Totals> {
  const totals = newTotals();
  const { from, seeds, threads, failuresMax } = setup;
  const parts: Promise<Totals>[] = [];
  const done: number[] = [];
  for (let w = 0; w < Math.min(threads, seeds); w++) {
    const count = Math.ceil((seeds - w) / threads);
    const job: Job = { from: from + w, count, step: threads, failuresMax };
    parts.push(
      new Promise((resolve, reject) => {
        const worker = new Worker(new URL('./worker.js', import.meta.url), { workerData: job });
        worker.on('message', (word: Word) => {
          if (word.k === 'result') return resolve(word.totals);
          done[w] = word.done;
          setup.progress?.(
            done.reduce((sum, n) => sum + n, 0),
            word.failed,
          );
        });
        worker.once('error', reject);
        worker.once('exit', (code) => reject(new Error(`a simulator thread ended with code ${code} before its result`)));
      }),
    );
  }
  for (const part of await Promise.all(parts)) addTotals(totals, part);
  totals.failures.sort((a, b) => a.seed - b.seed);
  return totals;
}
