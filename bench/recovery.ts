/**
 * Recovery of the locks that a dead node mastered (T9): three real daemons, defaults, one is killed, its lease ends, it counts as fenced.
 *
 *   recovered   from the view that says "fenced" to the last of many new grants, spread over the names it mastered
 *   pause       what programs of another process see that use names which the living master: lock and release again and again, on
 *               the master's node and from the other one; 99th percentile and longest of the turns from the fence to the end of the
 *               recovery, and the longest from the death to a second later; beside it the same in a quiet stretch before
 *   processor   what both survivors used of it from hearing of the fence to the end: says more than the clock on a busy machine
 *   memory      resident memory of a survivor after, less before
 *
 * The names are mastered by the victim because its client was first; the survivors' clients hold PR on them, half each.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { type Client, connect, monotonicMs } from '../src/client/index.js';
import { TestCluster, type TestNode } from '../test/fixtures/cluster.js';
import type { Benchmark, Context } from './context.js';
import { startAll } from './cycles.js';
import { inTurns, processorUs, quantile, type Row } from './rounds.js';

const IN_FLIGHT = 64;
const PROBES = 300;
const QUIET_MS = 2000;

interface Figures {
  recoveredMs: number;
  processorMs: number;
  quietP99: number;
  pauseP99: number;
  pauseMax: number;
  laterMax: number;
  memoryMb: number;
}

async function forAll(count: number, each: (i: number) => Promise<unknown>): Promise<void> {
  let next = 0;
  const worker = async (): Promise<void> => {
    for (let i = next++; i < count; i = next++) await each(i);
  };
  await Promise.all(Array.from({ length: IN_FLIGHT }, worker));
}

const LOAD = fileURLToPath(new URL('./recovery-load.js', import.meta.url));

/** The programs of recovery-load.ts. */
class Load {
  readonly #child: ChildProcess;
  #text = '';
  #turns: [at: number, ms: number][] = [];

  private constructor(child: ChildProcess) {
    this.#child = child;
    child.stdout?.setEncoding('utf8').on('data', (chunk: string) => {
      this.#text += chunk;
    });
  }

  static async start(nodes: readonly TestNode[], names: readonly string[]): Promise<Load> {
    const args = [LOAD, nodes.map((n) => n.socket).join(','), names.join(',')];
    const load = new Load(spawn(process.execPath, args, { stdio: ['ignore', 'pipe', 'inherit'] }));
    while (load.#text === '') await sleep(10);
    return load;
  }

  async stop(): Promise<void> {
    const closed = once(this.#child, 'close');
    this.#child.kill('SIGTERM');
    await closed;
    this.#turns = JSON.parse(this.#text) as [number, number][];
  }

  kill(): void {
    this.#child.kill('SIGKILL');
  }

  /** Lengths of the turns that were under way in that time. */
  between(from: number, to: number): number[] {
    return this.#turns.filter(([at, ms]) => at + ms > from && at < to).map(([, ms]) => ms);
  }

  get turns(): readonly (readonly [at: number, ms: number])[] {
    return this.#turns;
  }
}

const clientAt = (node: TestNode): Promise<Client> => connect({ socket: node.socket, label: 'recovery' });

async function measure(locks: number, context: Context): Promise<Figures> {
  const cluster = await TestCluster.create({ nodes: 3 });
  let load: Load | null = null;
  try {
    await startAll(cluster);
    const [victim, one, two] = cluster.nodes as [TestNode, TestNode, TestNode];
    const dying = await connect({ socket: victim.socket, reconnect: false });
    const survivors = [await clientAt(one), await clientAt(two)] as const;
    const name = (i: number): string => `r/${context.seed}/${i}`;
    await forAll(locks, (i) => dying.lock(name(i), 'NL'));
    await forAll(locks, (i) => (i % 2 === 0 ? survivors[0] : survivors[1]).lock(name(i), 'PR'));
    // Mastered by the survivors: held there, so that they stay.
    const living = [0, 1].map((i) => `living/${context.seed}/${i}`);
    await survivors[0].lock(living[0] as string, 'NL');
    await survivors[1].lock(living[1] as string, 'NL');
    const others = [await clientAt(one), await clientAt(two)];
    const memory = one.rssMb();
    load = await Load.start([one, two], living);
    await sleep(QUIET_MS);

    const fenced = one.waitLog(
      'the victim is fenced',
      (l) => l.event === 'view' && String(l.nodes).includes(`${victim.name}:fenced`),
      30_000,
      one.log.length,
    );
    const diedAt = monotonicMs();
    await victim.kill();
    const line = await fenced;
    // The line bears the wall clock in milliseconds; hearing of it may take a while on a busy machine.
    const behind = Date.now() - Date.parse(String(line.time));
    const fencedAt = monotonicMs() - behind;
    const processorBefore = processorUs([one.pid, two.pid]);
    const step = Math.max(1, Math.floor(locks / PROBES));
    await forAll(PROBES, (i) => (others[i % 2] as Client).lock(name((i * step) % locks), 'PR', { timeout: 60_000 }));
    const recoveredAt = monotonicMs();
    const processorMs = (processorUs([one.pid, two.pid]) - processorBefore) / 1000;
    await sleep(1000);
    const memoryMb = one.rssMb() - memory;
    await load.stop();
    const pause = load.between(fencedAt, recoveredAt);
    for (const client of [dying, ...survivors, ...others]) if (client.isConnected) client.connection.destroy();
    return {
      recoveredMs: recoveredAt - fencedAt,
      processorMs,
      quietP99: quantile(load.between(diedAt - QUIET_MS / 2, diedAt), 0.99),
      pauseP99: quantile(pause, 0.99),
      pauseMax: Math.max(...pause),
      laterMax: load.between(diedAt, recoveredAt + 1000).reduce((a, b) => Math.max(a, b), 0),
      memoryMb,
    };
  } catch (error) {
    // Else nobody would see why.
    for (const node of cluster.nodes) {
      console.error(`${node.name}: ${node.errors}`);
      for (const line of node.log.slice(-10)) console.error(JSON.stringify(line));
    }
    throw error;
  } finally {
    load?.kill();
    await cluster.close();
  }
}

async function rowsOf(locks: number, target: string | undefined, context: Context): Promise<Row[]> {
  let figures: Figures | null = null;
  const of =
    (key: keyof Figures): (() => number) =>
    () =>
      figures?.[key] ?? Number.NaN;
  const quiet = 'lock + release of a name of the living, p99, before';
  return inTurns(
    `${locks} locks mastered by a killed daemon, three nodes, defaults`,
    [
      {
        name: 'recovered after fenced',
        unit: 'ms',
        target,
        run: async () => {
          figures = await measure(locks, context);
          return figures.recoveredMs;
        },
      },
      { name: 'processor time of both survivors from then on', unit: 'ms', run: of('processorMs') },
      { name: quiet, unit: 'ms', run: of('quietP99') },
      {
        name: 'the same from the fence to the end of the recovery',
        unit: 'ms',
        against: quiet,
        target: '<= 20 ms',
        run: of('pauseP99'),
      },
      { name: 'the longest of these', unit: 'ms', against: quiet, run: of('pauseMax') },
      { name: 'the longest from the death to 1 s after', unit: 'ms', against: quiet, run: of('laterMax') },
      { name: 'memory of a survivor, MB more', unit: '', run: of('memoryMb') },
    ],
    context.isQuick ? 1 : 3,
    false,
  );
}

export const recovery: Benchmark = async (context) => [
  await rowsOf(10_000, undefined, context),
  await rowsOf(100_000, '<= 1000 ms', context),
];
