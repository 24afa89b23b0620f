/** Seeds of two voters with fence devices, with everything that goes wrong with pairs. The checkers of check-pair.ts look on. */
import t from 'tap';
import { drawDevices, drawPair, type SimOptions } from './options.js';
import { Prng } from './prng.js';
import { runSeed } from './run.js';

const FROM = Number(process.env.FROM ?? 1);
const SEEDS = Number(process.env.SEEDS ?? 200);

t.setTimeout(600_000);

export function asPair(o: SimOptions): void {
  const r = new Prng(o.seed, 15);
  o.nodes = r.chance(0.8) ? 2 : 3;
  o.voters = 2;
  // What was drawn for more voters: a wiped disk leaves a pair to the operator, and check-pair.ts knows no other voters.
  o.tableEveryMs = o.voteEveryMs = o.spares = 0;
  o.hasWitness = false;
  drawDevices(o);
  if (o.fence.some((level) => level.includes('manual'))) o.fence = [['script']];
  drawPair(o);
  o.fenceFail = Math.min(o.fenceFail, 0.3);
}

/** Seeds that found something, with what it was. */
const STORIES: [seed: number, what: string][] = [
  [
    21_356,
    'both of two left; the first had acknowledged its own leave, took itself for a voter and went on without what followed',
  ],
  [4271, "a restart's deadline below the one that a node which only devices end had told its owners by itself"],
];

for (const [seed, what] of STORIES) {
  t.test(`seed ${seed}: ${what}`, async (t) => {
    const result = runSeed({ seed, override: asPair });
    t.ok(result.ok, result.report);
  });
}

t.test(`seeds ${FROM} to ${FROM + SEEDS - 1} of two voters with devices`, async (t) => {
  const counts = new Map<string, number>();
  for (let seed = FROM; seed < FROM + SEEDS; seed++) {
    const result = runSeed({ seed, override: asPair });
    if (!result.ok) t.fail(result.report);
    for (const [what, count] of [...result.counts, ...result.faults]) counts.set(what, (counts.get(what) ?? 0) + count);
  }
  for (const what of ['note alone', 'note survivor-calls-off', 'suspended', 'resumed', 'gone', 'coldOne', 'severed']) {
    t.ok((counts.get(what) ?? 0) > 0, `${what}: ${counts.get(what) ?? 0}`);
  }
});
