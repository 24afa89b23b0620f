/**
 * `npm run soak -- --minutes M [--from SEED] [--threads T] [--failures N]`: the simulator on all processors for so long, with a
 * line of progress now and then and one result line at the end. Exit 1 when a seed failed (each is printed with the command
 * that replays it), 64 on wrong usage, 130 when interrupted after saying how far it came.
 */
import { availableParallelism } from 'node:os';
import { parseArgs } from 'node:util';
import { Worker } from 'node:worker_threads';
import type { Batch } from './soak-worker.js';
import { addTotals, newTotals, showTotals, type Totals } from './totals.js';

const USAGE = 'usage: npm run soak -- [--minutes M] [--from SEED] [--threads T] [--failures N]';
/** Seeds that a thread takes at once: some seconds of work. */
const BATCH = 25;
const PROGRESS_MS = 30_000;

function fail(text: string): never {
  console.error(`${text}\n${USAGE}`);
  return process.exit(64);
}

function number(name: string, text: string | undefined, otherwise: number, least: number): number {
  const n = text === undefined ? otherwise : Number(text);
  return Number.isFinite(n) && n >= least ? n : fail(`--${name} ${text} must be a number of at least ${least}`);
}

function given(): { minutes?: string; from?: string; threads?: string; failures?: string } {
  const type = 'string';
  try {
    return parseArgs({ options: { minutes: { type }, from: { type }, threads: { type }, failures: { type } } }).values;
  } catch (error) {
    return fail(error instanceof Error ? error.message : String(error));
  }
}

const args = given();
const minutes = number('minutes', args.minutes, 10, 0);
const from = Math.floor(number('from', args.from, Date.now() % 1_000_000_000, 0));
const threads = Math.floor(number('threads', args.threads, availableParallelism(), 1));
const failuresMax = Math.floor(number('failures', args.failures, 10, 1));

const started = performance.now();
const end = started + minutes * 60_000;
const totals = newTotals();
let next = from;
let shownAt = started;
let isInterrupted = false;

function resultLine(): string {
  return `soak from seed ${from}: ${showTotals(totals, performance.now() - started)}`;
}

function onBatch(batch: Totals): void {
  for (const { seed, failure, report } of batch.failures) {
    console.log(`seed ${seed} FAILED: ${failure.split('\n', 1)[0]}\n${report}`);
    console.log(`replay: npm run sim -- --from ${seed} --seeds 1 --trace\n`);
  }
  addTotals(totals, batch);
  const now = performance.now();
  if (now - shownAt < PROGRESS_MS) return;
  shownAt = now;
  const left = Math.max(0, end - now) / 60_000;
  console.log(
    `${totals.seeds} seeds, ${(totals.virtualMs / 3_600_000).toFixed(1)} simulated hours, ${totals.failures.length} failed, ${left.toFixed(1)} minutes to go`,
  );
}

const isOver = (): boolean => isInterrupted || performance.now() >= end || totals.failures.length >= failuresMax;

function runThread(): Promise<void> {
  return new Promise((resolve, reject) => {
    const worker = new Worker(new URL('./soak-worker.js', import.meta.url));
    const step = (): void => {
      if (isOver()) {
        void worker.terminate().then(() => resolve());
        return;
      }
      const batch: Batch = { from: next, seeds: BATCH };
      next += BATCH;
      worker.postMessage(batch);
    };
    worker.on('message', (batch: Totals) => {
      onBatch(batch);
      step();
    });
    worker.once('error', reject);
    step();
  });
}

for (const signal of ['SIGINT', 'SIGTERM'] as const) {
  process.on(signal, () => {
    isInterrupted = true;
    console.log(resultLine());
    process.exit(totals.failures.length > 0 ? 1 : 130);
  });
}

console.log(`seeds from ${from} on ${threads} threads for ${minutes} minutes`);
await Promise.all(Array.from({ length: threads }, runThread));
console.log(resultLine());
process.exitCode = totals.failures.length > 0 ? 1 : 0;
