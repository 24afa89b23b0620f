/** Runs a range of seeds in a worker thread: one processor core each. */
import { parentPort, workerData } from 'node:worker_threads';
import { runSeed } from './run.js';
import { addRun, newTotals } from './totals.js';

export interface Job {
  from: number;
  count: number;
  /** This worker takes every `step`-th seed. */
  step: number;
  /** Stop after so many failures. */
  failuresMax: number;
}

const job = workerData as Job;
const totals = newTotals();
for (let i = 0; i < job.count && totals.failures.length < job.failuresMax; i++)
  addRun(totals, runSeed({ seed: job.from + i * job.step }));
parentPort?.postMessage(totals);
