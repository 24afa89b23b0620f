/** Runs a range of seeds in a worker thread: one processor core each. */
import { parentPort, workerData } from 'node:worker_threads';
import { runSeed } from './run.js';
import { addRun, newTotals, type Totals } from './totals.js';

export interface Job {
  from: number;
  count: number;
  /** This worker takes every `step`-th seed. */
  step: number;
  /** Stop after so many failures. */
  failuresMax: number;
}

/** A long run says how far it is, and names a failure when it happens: it may be ended before it is through. */
export type Word = { k: 'progress'; done: number; failed: string | null } | { k: 'result'; totals: Totals };

const PROGRESS_EVERY = 25;

const job = workerData as Job;
const totals = newTotals();
const say = (word: Word): void => parentPort?.postMessage(word);
for (let i = 0; i < job.count && totals.failures.length < job.failuresMax; i++) {
  const seed = job.from + i * job.step;
  addRun(totals, runSeed({ seed }));
  const failure = totals.failures.at(-1);
  const failed = failure?.seed === seed ? `seed ${seed}: ${failure.failure.split('\n', 1)[0]}` : null;
  if (failed !== null || (i + 1) % PROGRESS_EVERY === 0) say({ k: 'progress', done: i + 1, failed });
}
say({ k: 'result', totals });
