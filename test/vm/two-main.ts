/**
 * `npm run test:vm:two [-- word...]`: two machines, the real ocfs2_dlmfs of both, and a bridged tsdlm domain between them.
 *
 * Takes a quarter of an hour under emulation, so it is no part of test:vm. The parts, in this order (those whose name contains a word):
 *
 *   locks      who holds where keeps out whom; a counter on the shared disk
 *   deaths     tsdlmd is killed; then a machine loses its power, and comes back
 *   cut        the network between them is cut
 *   frozen     a machine stands still and goes on
 *   defaults   a machine loses its power, with the times that o2cb has by default
 */
import { missing } from './cache.js';
import { type Check, type Count, checker, type Report } from './suite.js';
import { networkCut } from './two-cut.js';
import { back, daemonKilled, powerOff } from './two-deaths.js';
import { machineFrozen } from './two-frozen.js';
import { locksSuite } from './two-locks.js';
import { Pair, TIMES, type Times } from './two-pair.js';

const report: Report = (text) => console.log(text);

interface Part {
  name: string;
  times: Times;
  run: (pair: Pair, check: Check) => Promise<void>;
}

async function startBoth(pair: Pair): Promise<void> {
  for (const node of [pair.a, pair.b]) await node.start();
  for (const node of [pair.a, pair.b]) await node.up();
}

const PARTS: Part[] = [
  { name: 'locks', times: TIMES, run: (pair, check) => locksSuite(pair, check, report) },
  {
    name: 'deaths',
    times: TIMES,
    run: async (pair, check) => {
      await startBoth(pair);
      await daemonKilled(pair, check, report);
      await powerOff(pair, check, report);
      await back(pair, pair.a, pair.b, check, report);
    },
  },
  {
    name: 'cut',
    times: TIMES,
    run: async (pair, check) => {
      await startBoth(pair);
      await networkCut(pair, check, report);
    },
  },
  {
    name: 'frozen',
    times: TIMES,
    run: async (pair, check) => {
      await startBoth(pair);
      await machineFrozen(pair, check, report);
    },
  },
  {
    name: 'defaults',
    times: { ...TIMES, dead: 31, idleMs: 30_000 },
    run: async (pair, check) => {
      await startBoth(pair);
      await powerOff(pair, check, report);
    },
  },
];

async function main(words: readonly string[]): Promise<number> {
  const wanted = PARTS.filter((part) => words.length === 0 || words.some((word) => part.name.includes(word)));
  if (wanted.length === 0) {
    console.log(`no part is named ${words.join(' or ')}: ${PARTS.map((part) => part.name).join(', ')}`);
    return 1;
  }
  const why = missing();
  if (why !== null) {
    console.log(`skipped: ${why}\n0 passed, 0 failed, ${wanted.length} skipped`);
    return 0;
  }
  const count: Count = { passed: 0, failed: 0, skipped: 0 };
  for (const part of wanted) {
    const check = checker(`two/${part.name}`, count);
    const failed = count.failed;
    let pair: Pair | null = null;
    try {
      const started = performance.now();
      pair = await Pair.start(part.times);
      const { a, b } = pair;
      console.log(
        `two machines are up after ${Math.round((performance.now() - started) / 1000)} s; their clocks are known within ${a.clock.error.toFixed(1)} and ${b.clock.error.toFixed(1)} ms`,
      );
      await part.run(pair, check);
    } catch (error) {
      await check('the part itself', () => Promise.reject(error));
    }
    if (pair !== null && count.failed > failed) console.log(pair.lastWords().replace(/^/gm, '       '));
    await pair?.end();
  }
  console.log(`${count.passed} passed, ${count.failed} failed`);
  return count.failed === 0 && count.passed > 0 ? 0 : 1;
}

process.exitCode = await main(process.argv.slice(2));
