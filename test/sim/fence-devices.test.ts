/** Seeds in which every machine is ended by devices, and these do what devices do: fail, lie, stall, act late, hit another machine. */
import t from 'tap';
import { drawDevices, type SimOptions } from './options.js';
import { runSeed } from './run.js';

const FROM = Number(process.env.FROM ?? 1);
const SEEDS = Number(process.env.SEEDS ?? 150);

t.setTimeout(600_000);

function withDevices(o: SimOptions): void {
  o.fenceFail = Math.min(o.fenceFail, 0.3);
  o.mastery = 'peer';
  drawDevices(o);
}

t.test(`seeds ${FROM} to ${FROM + SEEDS - 1} with devices`, async (t) => {
  const counts = new Map<string, number>();
  for (let seed = FROM; seed < FROM + SEEDS; seed++) {
    const result = runSeed({ seed, override: withDevices });
    if (!result.ok) t.fail(result.report);
    for (const [what, count] of result.counts) counts.set(what, (counts.get(what) ?? 0) + count);
  }
  for (const what of [
    'fenced',
    'fence device lies',
    'fence device wrong',
    'fence device stalls',
    'fence device cycles',
    'fencer killed',
  ]) {
    t.ok((counts.get(what) ?? 0) > 0, `${what}: ${counts.get(what) ?? 0}`);
  }
  t.comment(
    [...counts]
      .filter(([what]) => /fence|late off|operator/.test(what))
      .map(([what, n]) => `${what} ${n}`)
      .join(', '),
  );
});
