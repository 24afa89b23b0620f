/**
 * `npm run sim -- --seeds N --from K [--trace] [--threads T] [--keep-going]`: runs seeds K..K+N-1 and says how many per
 * second, how much virtual time, and what went wrong. Exit 1 when a seed failed, 64 on wrong usage.
 */
import { availableParallelism } from 'node:os';
import { parseArgs } from 'node:util';
import { runMany } from './many.js';
import { describeOptions, drawOptions } from './options.js';
import { runSeed } from './run.js';
import { addRun, newTotals, showTotals } from './totals.js';

const USAGE = 'usage: npm run sim -- [--seeds N] [--from K] [--threads T] [--trace] [--keep-going]';

/** A long run says so often how far it is, on standard error. */
const PROGRESS_MS = 15_000;

function count(text: string | undefined, otherwise: number): number {
  if (text === undefined) return otherwise;
  const n = Number(text);
  if (!Number.isSafeInteger(n) || n < 0) {
    console.error(`${text} is no number of seeds\n${USAGE}`);
    process.exit(64);
  }
  return n;
}

function options() {
  try {
    return parseArgs({
      options: {
        seeds: { type: 'string' },
        from: { type: 'string' },
        threads: { type: 'string' },
        trace: { type: 'boolean', default: false },
        'keep-going': { type: 'boolean', default: false },
      },
    }).values;
  } catch (e) {
    console.error(`${e instanceof Error ? e.message : String(e)}\n${USAGE}`);
    return process.exit(64);
  }
}

const args = options();
const seeds = count(args.seeds, 200);
const from = count(args.from, Date.now() % 1_000_000_000);
const started = process.hrtime.bigint();
const wallMs = (): number => Number((process.hrtime.bigint() - started) / 1_000_000n);

if (args.trace) {
  const totals = newTotals();
  for (let seed = from; seed < from + seeds; seed++) {
    console.log(`seed ${seed} options ${describeOptions(drawOptions(seed))}`);
    const result = runSeed({ seed, print: (line) => console.log(line) });
    addRun(totals, result);
    console.log(result.ok ? `seed ${seed} held, trace hash ${result.hash}` : result.report);
  }
  console.log(showTotals(totals, wallMs()));
  process.exitCode = totals.failures.length > 0 ? 1 : 0;
} else {
  const threads = Math.max(1, count(args.threads, availableParallelism()));
  console.log(`seeds ${from}..${from + seeds - 1} on ${threads} threads`);
  let saidAt = 0;
  const totals = await runMany({
    from,
    seeds,
    threads,
    failuresMax: args['keep-going'] ? Number.MAX_SAFE_INTEGER : 1,
    progress: (done, failed) => {
      if (failed !== null) console.log(failed);
      if (failed === null && wallMs() - saidAt < PROGRESS_MS) return;
      saidAt = wallMs();
      console.error(`${done} of ${seeds} seeds after ${Math.round(saidAt / 1000)} s`);
    },
  });
  const shown = totals.failures.slice(0, 3);
  for (const f of shown) console.log(`${f.report}\n`);
  for (const f of totals.failures.slice(shown.length)) console.log(`seed ${f.seed}: ${f.failure.split('\n', 1)[0]}`);
  console.log(showTotals(totals, wallMs()));
  process.exitCode = totals.failures.length > 0 ? 1 : 0;
}
