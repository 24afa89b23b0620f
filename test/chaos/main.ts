/**
 * `npm run chaos -- [--minutes M] [--nodes N] [--seed S] [--fence self|script] [--clients K]`: real daemons in network namespaces
 * under random faults. A seed repeats the choices, not the timing. Exit 0 when every promise was kept, 1 when not (the
 * logs' directory and the replay command are printed), 64 on wrong usage, 77 where it cannot run.
 */
import { parseArgs } from 'node:util';
import { hasFaketime } from './machine.js';
import { whyNoNetwork } from './net.js';
import { type ChaosOptions, ChaosRun, replayCommand, resultLine } from './run.js';

const USAGE = 'usage: npm run chaos -- [--minutes M] [--nodes N] [--seed S] [--fence self|script] [--clients K]';

function fail(text: string): never {
  console.error(`${text}\n${USAGE}`);
  return process.exit(64);
}

function number(name: string, text: string | undefined, otherwise: number, least: number, most: number): number {
  const n = text === undefined ? otherwise : Number(text);
  return n >= least && n <= most ? n : fail(`--${name} ${text} must be a number from ${least} to ${most}`);
}

function given(): ChaosOptions {
  const type = 'string';
  let values: { minutes?: string; nodes?: string; seed?: string; fence?: string; clients?: string };
  try {
    ({ values } = parseArgs({
      options: { minutes: { type }, nodes: { type }, seed: { type }, fence: { type }, clients: { type } },
    }));
  } catch (error) {
    return fail(error instanceof Error ? error.message : String(error));
  }
  const fence = values.fence ?? 'self';
  if (fence !== 'self' && fence !== 'script') return fail(`--fence ${fence} is neither self nor script`);
  return {
    seed: Math.floor(number('seed', values.seed, Date.now() % 1_000_000_000, 0, Number.MAX_SAFE_INTEGER)),
    nodes: Math.floor(number('nodes', values.nodes, 3, 2, 7)),
    ms: number('minutes', values.minutes, 2, 0.05, 100_000) * 60_000,
    clientsPerNode: Math.floor(number('clients', values.clients, 2, 1, 20)),
    fence,
    say: (line) => console.log(line),
  };
}

const options = given();
const reason = whyNoNetwork();
if (reason !== null) {
  console.error(`chaos cannot run here: ${reason}`);
  process.exit(77);
}
// The namespaces and what runs in them go with the 'exit' event.
for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.on(signal, () => process.exit(130));
console.log(
  `seed ${options.seed}${hasFaketime ? '' : '; no libfaketime here (npm run setup:chaos): wall clocks are left alone'}`,
);
const run = new ChaosRun(options);
try {
  const result = await run.run();
  for (const problem of result.problems.slice(0, 30)) console.log(`PROBLEM ${problem}`);
  if (result.dir !== null) console.log(`logs: ${result.dir}\nreplay: ${replayCommand(options)}`);
  console.log(resultLine(options, result));
  process.exit(result.problems.length === 0 ? 0 : 1);
} catch (error) {
  console.error(
    `the run broke: ${error instanceof Error ? error.stack : String(error)}\nlogs: ${run.dir}\nreplay: ${replayCommand(options)}`,
  );
  process.exit(1);
}
