/** The simulator finds what it must find: every planted bug, each within a bounded number of seeds. */
import t from 'tap';
import { PLANTS } from './planted.js';
import { RESTART_PLANTS } from './planted-restart.js';
import { SLICE_PLANTS } from './planted-slices.js';
import { TABLE_PLANTS } from './planted-table.js';
import { TWO_NODE_PLANTS } from './planted-two.js';
import { runSeed } from './run.js';

// Each bug has a bounded number of seeds; a busy machine takes its time.
t.setTimeout(300_000);

for (const plant of [...PLANTS, ...TWO_NODE_PLANTS, ...RESTART_PLANTS, ...TABLE_PLANTS, ...SLICE_PLANTS]) {
  t.test(`finds: ${plant.name}`, async (t) => {
    const undo = plant.patch?.();
    t.teardown(() => undo?.());
    const tried: string[] = [];
    for (let seed = 1; seed <= plant.seedsMax; seed++) {
      const result = runSeed({ seed, override: plant.tune, ...(plant.world ? { prepare: plant.world } : {}) });
      if (result.ok) continue;
      const first = result.failure?.split('\n', 1)[0] ?? '';
      if (plant.expect.test(first)) {
        t.pass(`seed ${seed}: ${first}`);
        undo?.();
        const sound = runSeed({ seed, override: plant.tune });
        t.equal(sound.failure, null, `seed ${seed} holds without the bug`);
        return;
      }
      tried.push(`seed ${seed}: ${first}`);
    }
    t.fail(`not found in ${plant.seedsMax} seeds`, { tried });
  });
}
