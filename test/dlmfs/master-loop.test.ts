/** The master-lock loop of examples/ on the in-process files of two nodes: one master, a hand-over, nothing left behind. */
import t from 'tap';
import { masterLoop } from '../../examples/master-loop.js';
import { openDlmfs } from '../../src/dlmfs/index.js';
import { QUICK, world } from '../fixtures/e2e.js';
import { until } from '../fixtures/until.js';

t.test('the example in TypeScript', async (t) => {
  const w = await world(t, { limits: QUICK });
  const run = async (id: number): Promise<{ said: string[]; stop: () => Promise<void>; wrote: () => number }> => {
    const fs = await openDlmfs('/nowhere', { socket: w.cluster.nodes[id - 1]?.socket as string });
    const abort = new AbortController();
    const said: string[] = [];
    let wrote = 0;
    const loop = masterLoop(fs, {
      domain: 'example',
      lock: 'master',
      pauseMs: 20,
      signal: abort.signal,
      say: (line) => said.push(line),
      work: async (handle) => {
        await handle.write(`node ${id}`, 0, undefined, 0);
        wrote++;
      },
    });
    const stop = async (): Promise<void> => {
      abort.abort();
      await loop;
      await fs.close({ force: true });
    };
    t.teardown(stop);
    return { said, stop, wrote: () => wrote };
  };
  const one = await run(1);
  await until('the first is master', () => one.said.includes('master') && one.wrote() > 1);
  const two = await run(2);
  await until('the second stands by', () => two.said.includes('standby'));
  await one.stop();
  t.same(one.said, ['master', 'left']);
  await until('the second takes over', () => two.said.includes('master'));
  await two.stop();
  t.same(two.said, ['standby', 'master', 'left']);
});
