/**
 * Goal: the engine under random schedules (schedule.ts). SEED and SEEDS in the environment choose others.
 */
import t from 'tap';
import { runSchedule } from './schedule.js';

const from = Number(process.env.SEED ?? 1);
t.setTimeout(0);
const seeds = Number(process.env.SEEDS ?? 400);
for (const [isServers, isSliced] of [
  [false, false],
  [true, false],
  [false, true],
  [true, true],
] as const) {
  const policy = isServers ? 'servers' : 'peer';
  const how = isSliced ? ', recoveries in small steps' : '';
  t.test(`mastery "${policy}"${how}: ${seeds} random schedules keep S1 and S2, and every request ends`, async (t) => {
    for (let seed = from; seed < from + seeds; seed++) {
      let wrong: string | null;
      try {
        wrong = runSchedule(seed, 400, isServers, isSliced);
      } catch (error) {
        wrong = `seed ${seed}: ${(error as Error).stack}`;
      }
      if (wrong) {
        t.fail(wrong);
        return;
      }
    }
    t.pass('all');
  });
}
