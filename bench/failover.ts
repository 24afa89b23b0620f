/**
 * How long a waiter waits for the lock of a holder that was killed.
 *
 *   a killed client   from SIGKILL to the waiter's grant; beside it, in turns, the time until a plain server of ours has told
 *                     a third process that a killed client's socket is closed (the same hops, no locks)
 *   a killed daemon   from SIGKILL of the holder's daemon to the grant on another node, defaults (lease 3 s), fencing `self`:
 *                     lease + margin must pass; once for a member and once for the leader
 */
import { type ChildProcess, spawn } from 'node:child_process';
import type { Socket } from 'node:net';
import { fileURLToPath } from 'node:url';
import { type Client, connect } from '../src/client/index.js';
import { deriveTimeLimits } from '../src/membership/time-limits.js';
import type { StatusData } from '../src/protocol/admin.js';
import { TestCluster } from '../test/fixtures/cluster.js';
import { type Benchmark, type Context, freshName } from './context.js';
import { startAll } from './cycles.js';
import { Floors } from './floor-client.js';
import { inTurns, type Row } from './rounds.js';

const VICTIM = fileURLToPath(new URL('./victim.js', import.meta.url));

async function victim(args: string[]): Promise<ChildProcess> {
  const child = spawn(process.execPath, [VICTIM, ...args], { stdio: ['ignore', 'pipe', 'inherit'] });
  await new Promise<void>((resolve, reject) => {
    child.once('exit', (code, signal) => reject(new Error(`victim ended with ${code ?? signal} before it held anything`)));
    child.stdout?.once('data', () => resolve());
  });
  child.removeAllListeners('exit');
  return child;
}

/** Lets the machine come to rest after a process was started: what is measured takes a few milliseconds. */
const rest = (): Promise<void> => new Promise((resolve) => setTimeout(resolve, 30));

async function killedClient(waiter: Client, socket: string, context: Context): Promise<number> {
  const name = freshName(context);
  const child = await victim(['lock', socket, name]);
  const granted = waiter.lock(name, 'EX');
  await rest();
  const began = performance.now();
  child.kill('SIGKILL');
  const handle = await granted;
  const took = performance.now() - began;
  await handle.release();
  return took;
}

async function closedSocket(told: Socket, socket: string): Promise<number> {
  const child = await victim(['plain', socket]);
  await rest();
  const heard = new Promise((resolve) => told.once('data', resolve));
  const began = performance.now();
  child.kill('SIGKILL');
  await heard;
  return performance.now() - began;
}

export const killClient: Benchmark = async (context) => {
  const cluster = await TestCluster.create({ nodes: 1, logLevel: 'warn' });
  const floors = new Floors(cluster.dir);
  try {
    await startAll(cluster);
    const { socket } = cluster.node(1);
    const waiter = await connect({ socket });
    const watch = await floors.server('watch');
    const told = await floors.connect(watch);
    const plain = 'a plain server tells of the closed socket';
    const rows = await inTurns(
      'SIGKILL of a holding client',
      [
        { name: plain, unit: 'ms', run: () => closedSocket(told, watch) },
        {
          name: 'grant to the waiter',
          unit: 'ms',
          against: plain,
          target: '<= 1.50',
          run: () => killedClient(waiter, socket, context),
        },
      ],
      context.isQuick ? 5 : 21,
    );
    await waiter.close();
    return [rows];
  } finally {
    floors.close();
    await cluster.close();
  }
};

async function leaderOf(client: Client): Promise<number> {
  return ((await client.admin('status')) as StatusData).leader?.id ?? 0;
}

/** Kills the daemon of a holder on the leader, or on another node; the node is back before this returns. */
async function killedDaemon(cluster: TestCluster, context: Context, isLeader: boolean): Promise<number> {
  const asking = await connect({ socket: cluster.node(1).socket });
  const leader = await leaderOf(asking);
  await asking.close();
  const victimId = isLeader ? leader : (leader % 3) + 1;
  const waiterId = (victimId % 3) + 1;
  const node = cluster.node(victimId);
  const holder = await connect({ socket: node.socket, reconnect: false });
  const waiter = await connect({ socket: cluster.node(waiterId).socket });
  const name = freshName(context);
  await holder.lock(name, 'EX');
  const granted = waiter.lock(name, 'EX');
  await rest();
  const began = performance.now();
  await node.kill();
  const handle = await granted;
  const took = performance.now() - began;
  await handle.release();
  await waiter.close();
  await holder.close();
  node.start();
  await node.waitLog('joining again', (l) => l.event === 'joined', 30_000, node.log.length);
  return took;
}

export const killDaemon: Benchmark = async (context) => {
  const cluster = await TestCluster.create({ nodes: 3 });
  const { leaseMs, marginMs } = deriveTimeLimits();
  try {
    await cluster.start();
    await startedDomains(cluster);
    const floor = 'lease + margin';
    const target = `<= lease + margin + 1 s (${leaseMs + marginMs + 1000} ms)`;
    const rows: Row[] = await inTurns(
      'SIGKILL of the daemon of a holder, three nodes, defaults',
      [
        { name: floor, unit: 'ms', run: () => leaseMs + marginMs },
        { name: 'a member', unit: 'ms', against: floor, target, run: () => killedDaemon(cluster, context, false) },
        { name: 'the leader', unit: 'ms', against: floor, target, run: () => killedDaemon(cluster, context, true) },
      ],
      context.isQuick ? 1 : 3,
      false,
    );
    return [rows];
  } finally {
    await cluster.close();
  }
};

async function startedDomains(cluster: TestCluster): Promise<void> {
  for (const node of cluster.nodes) {
    const client = await connect({ socket: node.socket });
    const handle = await client.lock(`start/${node.name}`, 'EX', { timeout: 20_000 });
    await handle.release();
    await client.close();
  }
}
