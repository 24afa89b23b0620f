/** A thread of the soak: runs one batch of seeds after the other and stays warm in between. */
import { parentPort } from 'node:worker_threads';
import { runSeed } from './run.js';
import { addRun, newTotals } from './totals.js';

export interface Batch {
  from: number;
  seeds: number;
}

parentPort?.on('message', ({ from, seeds }: Batch) => {
  const totals = newTotals();
  for (let seed = from; seed < from + seeds; seed++) addRun(totals, runSeed({ seed }));
  parentPort?.postMessage(totals);
});
