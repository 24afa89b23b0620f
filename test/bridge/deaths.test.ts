/** Rules 4, 5 and 11 under random deaths of the daemon and of the bridge's helper (model.ts), and the checker itself. */
import t from 'tap';
import { Model, type PlantedBugs } from './model.js';

const SEEDS = Number(process.env.TSDLM_BRIDGE_SEEDS ?? 60);
const STEPS = 250;

// A seed takes a thirtieth of a second on an idle machine.
t.setTimeout(180_000);

t.test('rule 5: a kernel user and an owner in tsdlm never both, whoever dies in between', async (t) => {
  const counts: Record<string, number> = {};
  for (let seed = 1; seed <= SEEDS; seed++) {
    const result = await new Model(seed).run(STEPS);
    t.same(result.violations, [], `seed ${seed}`);
    for (const [what, n] of Object.entries(result.counts)) counts[what] = (counts[what] ?? 0) + n;
  }
  t.comment(JSON.stringify(counts));
  for (const what of [
    'daemon killed',
    'clean restarts',
    'helper killed',
    'claims',
    'restored',
    'granted',
    'kernel granted',
    'quorum lost',
  ])
    t.ok((counts[what] ?? 0) > 0, what);
});

/** `from`: a little before the first seed that finds it, to keep the test short. */
const PLANTED: Record<string, { bugs: PlantedBugs; from: number }> = {
  'an owner is told before the kernel has granted (rule 4)': { bugs: { tellsEarly: true }, from: 1 },
  'a deadline counts as known though it never left the daemon': { bugs: { trustsFullSocket: true }, from: 1 },
  "the next daemon's connection cuts off the last words of the one before": { bugs: { isDoorDeaf: true }, from: 240 },
  'the helper lets go half a second early': { bugs: { isHelperFast: true }, from: 1 },
  'who has not come back yet is forgotten': { bugs: { forgetsWhoIsAway: true }, from: 1 },
  'owners are let in before it is known which helper there is': { bugs: { letsInEarly: true }, from: 410 },
};

for (const [what, { bugs, from }] of Object.entries(PLANTED)) {
  t.test(`planted: ${what}`, async (t) => {
    for (let seed = from; seed < from + 500; seed++) {
      const { violations } = await new Model(seed, bugs).run(STEPS);
      if (violations.length === 0) continue;
      t.pass(`found with ${violations[0]}`);
      return;
    }
    t.fail('not found by 500 seeds');
  });
}
