/**
 * A short round of `npm run chaos`: three real daemons in network namespaces, clients that increment counters under locks, random
 * kills, stops, resets and partitions. TSDLM_TEST_SEED repeats the choices of a run, TSDLM_TEST_SECONDS sets its length.
 */
import t from 'tap';
import { whyNoNetwork } from '../chaos/net.js';
import { type ChaosOptions, ChaosRun, replayCommand, resultLine } from '../chaos/run.js';

const seed = Number(process.env.TSDLM_TEST_SEED ?? Math.floor(Math.random() * 2 ** 31));
const ms = Number(process.env.TSDLM_TEST_SECONDS ?? 20) * 1000;
const reason = whyNoNetwork();

t.test(
  `random faults among machines of a network of their own (TSDLM_TEST_SEED=${seed})`,
  { skip: reason ?? false },
  async (t) => {
    t.setTimeout(ms + 200_000);
    const options: ChaosOptions = { seed, nodes: 3, ms, fence: seed % 2 === 0 ? 'self' : 'script' };
    const result = await new ChaosRun(options).run();
    t.comment(resultLine(options, result));
    if (result.dir !== null) t.comment(`logs: ${result.dir}, replay: ${replayCommand(options)}`);
    t.same(result.problems, []);
    t.ok(result.acknowledged > 50, `${result.acknowledged} increments`);
  },
);
