/** The simulator as a tool: one seed is one run, a failure says how to have it again, threads change nothing. */
import t from 'tap';
import { runMany } from './many.js';
import { describeOptions, drawOptions } from './options.js';
import { PLANTS } from './planted.js';
import { runSeed } from './run.js';

t.test('the same seed gives the same trace, another seed another', async (t) => {
  const hashes = new Set<string>();
  for (const seed of [3, 17, 40, 99, 123456789]) {
    const [a, b] = [runSeed({ seed }), runSeed({ seed })];
    t.equal(a.hash, b.hash, `seed ${seed}`);
    t.equal(a.events, b.events);
    hashes.add(a.hash);
  }
  t.equal(hashes.size, 5);
});

t.test('what is printed or looked at does not change the run', async (t) => {
  const lines: string[] = [];
  const a = runSeed({ seed: 7 });
  const b = runSeed({ seed: 7, print: (line) => lines.push(line) });
  t.equal(a.events, b.events);
  t.equal(a.grants, b.grants);
  t.ok(lines.length > 100);
});

t.test('frozen messages and the real codec change nothing that a core could notice', async (t) => {
  for (const seed of [5, 6, 8, 11]) {
    const plain = runSeed({ seed, override: (o) => Object.assign(o, { freeze: false, codec: false }) });
    const frozen = runSeed({ seed, override: (o) => Object.assign(o, { freeze: true, codec: false }) });
    const coded = runSeed({ seed, override: (o) => Object.assign(o, { freeze: false, codec: true }) });
    t.equal(plain.failure, null);
    t.equal(frozen.hash, plain.hash, `seed ${seed} frozen`);
    t.equal(coded.hash, plain.hash, `seed ${seed} coded`);
  }
});

t.test('a failure says the seed, the options, the last steps, and the command that replays it', async (t) => {
  const plant = PLANTS.find((p) => p.name.startsWith('`no` is answered'));
  if (!plant?.world) throw new Error('the planted bug is gone');
  const { report, ok } = runSeed({ seed: 1, override: plant.tune, prepare: plant.world });
  t.notOk(ok);
  t.match(report, /^seed 1 at [0-9.]+ ms: /);
  t.match(report, /options \{"seed":1,/);
  t.match(report, /npm run sim -- --from 1 --seeds 1 --trace/);
  t.ok(report.split('\n').length > 40);
});

t.test('options come from the seed alone', async (t) => {
  t.equal(describeOptions(drawOptions(12)), describeOptions(drawOptions(12)));
  const sizes = new Set(Array.from({ length: 200 }, (_, i) => drawOptions(i).nodes));
  t.same([...sizes].sort(), [1, 2, 3, 4, 5, 6, 7]);
});

t.test('several threads run the same seeds as one', async (t) => {
  const one = await runMany({ from: 1, seeds: 6, threads: 1, failuresMax: 100 });
  const two = await runMany({ from: 1, seeds: 6, threads: 2, failuresMax: 100 });
  t.equal(two.seeds, 6);
  t.equal(two.events, one.events);
  t.equal(two.grants, one.grants);
});
