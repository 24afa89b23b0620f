/** A range of seeds as tests: each hundred one test, each failing seed shown with what it takes to replay it. */
import t from 'tap';
import { runSeed } from './run.js';
import { addRun, newTotals, showTotals } from './totals.js';

const CHUNK = 100;

export function testSeeds(from: number, count: number): void {
  const totals = newTotals();
  const started = process.hrtime.bigint();
  for (let at = from; at < from + count; at += CHUNK) {
    const last = Math.min(at + CHUNK, from + count) - 1;
    t.test(`seeds ${at} to ${last} keep every promise`, async (t) => {
      for (let seed = at; seed <= last; seed++) {
        const result = runSeed({ seed });
        addRun(totals, result);
        if (!result.ok) {
          t.fail(`seed ${seed}: ${result.failure?.split('\n', 1)[0]}`);
          t.comment(result.report);
        }
      }
      t.pass('all seeds were run');
    });
  }
  t.test('the faults that the seeds were meant to have did happen', async (t) => {
    t.comment(showTotals(totals, Number((process.hrtime.bigint() - started) / 1_000_000n)));
    if (count < 500) return;
    for (const kind of ['crash', 'reboot', 'pause', 'cut', 'isolate', 'split', 'oneWay', 'halfPartition', 'stop', 'restartAll']) {
      t.ok((totals.faults[kind] ?? 0) > 10, `${kind} happened`);
    }
    for (const what of ['fenced', 'incarnationOver', 'convert', 'write', 'cancel', 'session death', 'denied TSDLM_TIMEOUT']) {
      t.ok((totals.counts[what] ?? 0) > 10, `${what} happened`);
    }
  });
}
