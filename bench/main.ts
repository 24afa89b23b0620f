/**
 * `npm run bench -- [name...] [--json FILE] [--quick] [--rounds N] [--turn MS]`: all benchmarks, or the named ones.
 *
 * Every figure stands beside its floor, measured in turns in the same run; compare the ratios, not the figures (rounds.ts).
 */
import { writeFileSync } from 'node:fs';
import { cpus, loadavg, release, totalmem } from 'node:os';
import { parseArgs } from 'node:util';
import type { Benchmark, Context } from './context.js';
import { cycles, cyclesThree } from './cycles.js';
import { engine } from './engine.js';
import { killClient, killDaemon } from './failover.js';
import { files } from './files.js';
import { handover } from './handover.js';
import { recovery } from './recovery.js';
import { printRows, type Row } from './rounds.js';

const BENCHMARKS: Readonly<Record<string, Benchmark>> = {
  engine,
  cycles,
  three: cyclesThree,
  handover,
  files,
  'kill-client': killClient,
  'kill-daemon': killDaemon,
  recovery,
};

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    json: { type: 'string' },
    quick: { type: 'boolean', default: false },
    rounds: { type: 'string' },
    turn: { type: 'string' },
    seed: { type: 'string' },
  },
});
const unknown = positionals.filter((name) => BENCHMARKS[name] === undefined);
if (unknown.length > 0) {
  console.error(`there is no benchmark called ${unknown.join(', ')}; there are: ${Object.keys(BENCHMARKS).join(', ')}`);
  process.exit(64);
}
const context: Context = {
  isQuick: values.quick,
  seed: values.seed ?? process.pid.toString(36),
  rounds: Number(values.rounds ?? (values.quick ? 3 : 9)),
  turnMs: Number(values.turn ?? (values.quick ? 200 : 500)),
};
const machine = {
  cpu: `${cpus().length} x ${cpus()[0]?.model ?? '?'}`,
  memoryGiB: Math.round(totalmem() / 2 ** 30),
  kernel: release(),
  node: process.version,
  load: loadavg().map((l) => l.toFixed(1)),
  seed: context.seed,
  rounds: context.rounds,
  turnMs: context.turnMs,
};
console.log(
  `${machine.cpu}, ${machine.memoryGiB} GiB, Linux ${machine.kernel}, Node ${machine.node}, load ${machine.load.join(' ')}`,
);
console.log(
  `seed ${context.seed}, ${context.rounds} rounds in turns of ${context.turnMs} ms; noise = half the distance of the quartiles`,
);

const all: Row[] = [];
for (const [name, run] of Object.entries(BENCHMARKS)) {
  if (positionals.length > 0 && !positionals.includes(name)) continue;
  for (const rows of await run(context)) {
    printRows(rows);
    all.push(...rows);
  }
}
console.log(
  `\nload at the end ${loadavg()
    .map((l) => l.toFixed(1))
    .join(' ')}`,
);
if (values.json !== undefined) {
  writeFileSync(values.json, `${JSON.stringify({ machine, loadAfter: loadavg(), rows: all }, null, 1)}\n`);
}
