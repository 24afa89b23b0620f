/**
 * Everything at once: programs on all nodes lock, convert and release at random while daemons are killed, stopped, continued
 * and restarted. What all owners believed must be possible (S1, S2), values must never be silently old (S3), no daemon may
 * end by itself, and at the end everything must be lockable again.
 *
 * TSDLM_TEST_SEED repeats the choices of a run (not its timing), TSDLM_TEST_SECONDS sets its length.
 */
import { setTimeout as pause } from 'node:timers/promises';
import t from 'tap';
import { monotonicMs } from '../../src/client/index.js';
import type { TestNode } from '../fixtures/cluster.js';
import { QUICK, QUICK_LIMITS, world } from '../fixtures/e2e.js';
import { until, within } from '../fixtures/until.js';
import { Workload } from '../fixtures/workload.js';
import { Prng } from '../sim/prng.js';

const SEED = Number(process.env.TSDLM_TEST_SEED ?? Math.floor(Math.random() * 2 ** 31));
const RUN_MS = Number(process.env.TSDLM_TEST_SECONDS ?? 20) * 1000;
const NAMES = ['alpha', 'beta', 'gamma', 'delta'];
const CLIENTS_PER_NODE = 2;

const w = await world(t, { limits: QUICK });

t.test(`random faults under load (TSDLM_TEST_SEED=${SEED})`, async (t) => {
  t.setTimeout(RUN_MS + 120_000);
  const random = new Prng(SEED);
  const load = new Workload(NAMES);
  for (const node of w.cluster.nodes) {
    for (let i = 0; i < CLIENTS_PER_NODE; i++) load.add(await w.owner(node.id), new Prng(SEED, node.id * 100 + i));
  }

  const surprises: string[] = [];
  const wanted = new Set<TestNode>();
  for (const node of w.cluster.nodes) {
    node.on('exit', (code, signal) => {
      if (!wanted.delete(node)) surprises.push(`${node.name} ended by itself: ${code ?? signal}\n${node.errors}`);
    });
  }
  const counts = { kill: 0, stop: 0, leave: 0, both: 0 };
  const end = monotonicMs() + RUN_MS;

  /** Takes one daemon away for a while. */
  const trouble = async (node: TestNode, kind: 'kill' | 'stop' | 'leave', ms: number): Promise<void> => {
    if (kind === 'stop') {
      node.signal('SIGSTOP');
      await pause(ms);
      node.signal('SIGCONT');
      return;
    }
    wanted.add(node);
    if (kind === 'kill') await node.kill();
    else await node.stop();
    await pause(ms);
    const since = node.log.length;
    node.start();
    // It may take long while others are away; then the next trouble comes all the same.
    await node.joined(since, 4000).catch(() => {});
  };
  while (monotonicMs() < end) {
    const kind = random.weighted({ kill: 4, stop: 4, leave: 2, both: 2 });
    const nodes = random.shuffle([...w.cluster.nodes]).slice(0, kind === 'both' ? 2 : 1);
    counts[kind]++;
    await Promise.all(
      nodes.map((node) =>
        trouble(
          node,
          kind === 'both' ? random.pick(['kill', 'stop'] as const) : kind,
          random.between(0, 2 * QUICK_LIMITS.leaseMs),
        ),
      ),
    );
    await pause(random.between(0, 1500));
  }
  await within('the last requests end', load.stop(), 30_000);
  t.comment(`seed ${SEED}: faults ${JSON.stringify(counts)}, outcomes ${JSON.stringify(Object.fromEntries(load.outcomes))}`);
  t.ok((load.outcomes.get('granted') ?? 0) > 100, 'there was work');
  t.same(load.wrong, []);

  await until('all are members', async () => {
    const seen = await Promise.all(w.cluster.nodes.map((node) => w.cluster.status(node.id).catch(() => null)));
    return seen.every((s) => s?.isMember === true && s.members.every((m) => m.state === 'in'));
  });
  for (const name of NAMES) {
    for (const node of w.cluster.nodes) {
      const held = await within(`'${name}' on ${node.name}`, (await w.owner(node.id)).lock(name));
      await held.release();
    }
  }
  t.same(surprises, []);
  const alarms = w.cluster.nodes.flatMap((node) => node.log.filter((l) => l.level >= 50));
  t.same(alarms, [], 'no daemon logged an error');
});

await w.judge();
