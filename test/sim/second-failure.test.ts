/**
 * The design asks for a second failure at every step of recovery, migration, fencing and join. Each scene of second-failure.ts is
 * played once per step and kind of second failure, with the message delays of a few seeds. `SEEDS` (default 2) says how many.
 */
import t from 'tap';
import type { Lab } from './lab.js';
import { playWith, SCENES, SECOND_FAILURES, stepsOf } from './second-failure.js';

const SEEDS = Math.max(1, Number(process.env.SEEDS ?? 2));

for (const scene of SCENES) {
  t.test(`${scene.name}: a second failure at every step`, async (t) => {
    let played = 0;
    for (let seed = 1; seed <= SEEDS; seed++) {
      const steps = stepsOf(scene, seed);
      t.ok(steps.length > 20, `${steps.length} steps`);
      for (const second of SECOND_FAILURES) {
        for (const step of steps) {
          const broken = playWith(scene, seed, second, step);
          played++;
          if (broken !== null) t.fail(broken);
        }
      }
    }
    t.comment(`${played} runs`);
  });
}

/** Planted: what was registered for a recovery is not registered again when the next one begins before that is confirmed. */
function registersOnce(lab: Lab): void {
  const told = new Set<string>();
  lab.world.network.alter = (from, to, msg) => {
    if (msg.k !== 'Register') return msg;
    const isNew = (id: number): boolean => !told.has(`${from.life?.uid}>${to.life?.uid} ${id}`);
    const locks = msg.locks.filter((l) => isNew(l.id));
    for (const l of locks) told.add(`${from.life?.uid}>${to.life?.uid} ${l.id}`);
    return { ...msg, locks };
  };
}

t.test('finds: a recovery that is cut short forgets what had been registered', async (t) => {
  const scene = SCENES.find((s) => s.nodes === 5);
  if (!scene) throw new Error('there is no scene');
  for (const step of stepsOf(scene, 1)) {
    for (const second of SECOND_FAILURES) {
      const broken = playWith(scene, 1, second, step, registersOnce);
      if (broken === null) continue;
      t.match(broken, /: (S1|S3|L1): |threw/);
      return;
    }
  }
  t.fail('not found at any step');
});
