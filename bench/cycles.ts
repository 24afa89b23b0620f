/**
 * Cycles per second: acquire a fresh EX name and release it, both acknowledged, through the daemon with the client library,
 * beside three floors on the same kind of socket: the raw echo of 32 bytes (two of them are one cycle), a bare lock server in
 * memory ("ideal"), and for what needs another daemon the relay client -> process -> process -> process -> client.
 */
import { type Client, connect } from '../src/client/index.js';
import { TestCluster } from '../test/fixtures/cluster.js';
import { type Benchmark, type Context, cycleRate, freshName } from './context.js';
import { echoRate, Floors, idealRate } from './floor-client.js';
import { inTurns, type Row, ratioOf, type Subject } from './rounds.js';

/** Names that another node masters, one per loop. */
async function masteredBy(master: Client, context: Context, count: number): Promise<string[]> {
  const names = Array.from({ length: count }, () => freshName(context));
  // A null lock keeps the resource, and so the mastership, where it is.
  for (const name of names) await master.lock(name, 'NL');
  return names;
}

async function single(context: Context): Promise<Row[][]> {
  const cluster = await TestCluster.create({ nodes: 1, logLevel: 'warn' });
  const floors = new Floors(cluster.dir);
  try {
    await startAll(cluster);
    const client = await connect({ socket: cluster.node(1).socket });
    await settled(client, context);
    const echo = await floors.open(floors.server('echo'));
    const echoTcp = await floors.open(floors.server('echo', 'tcp'));
    const ideal = await floors.open(floors.server('ideal'));
    const pids = pidsOf(cluster);
    const groups: Row[][] = [];
    for (const [inFlight, target] of [
      [1, '>= 0.90 of ideal'],
      [16, '>= 0.80 of ideal'],
      [128, '>= 0.70 of ideal'],
    ] as const) {
      const ms = context.turnMs;
      const echoName = 'echo / 2, Unix socket';
      const idealName = 'bare lock server';
      const mine = async (): Promise<number> => await cycleRate(client, inFlight, ms, () => freshName(context));
      const subjects: Subject[] = [
        { name: echoName, unit: '/s', pids: echo.pids, run: async () => (await echoRate(echo.socket, inFlight, ms)) / 2 },
        {
          name: 'echo / 2, TCP',
          unit: '/s',
          pids: echoTcp.pids,
          run: async () => (await echoRate(echoTcp.socket, inFlight, ms)) / 2,
        },
        {
          name: idealName,
          unit: '/s',
          pids: ideal.pids,
          against: echoName,
          run: async () => await idealRate(ideal.socket, inFlight, ms),
        },
        { name: 'tsdlm, cluster of one', unit: '/s', pids, against: idealName, target, run: mine },
      ];
      const rows = await inTurns(`Cycles/s on a cluster of one, ${inFlight} in flight`, subjects, context.rounds);
      groups.push(withEcho(rows, echoName));
    }
    await client.close();
    return groups;
  } finally {
    floors.close();
    await cluster.close();
  }
}

async function three(context: Context): Promise<Row[][]> {
  const tls = await TestCluster.create({ nodes: 3, logLevel: 'warn' });
  const plain = await TestCluster.create({ nodes: 3, logLevel: 'warn', tls: false });
  const floors = new Floors(tls.dir);
  try {
    await Promise.all([startAll(tls), startAll(plain)]);
    const ideal = await floors.open(floors.server('ideal', 'tcp'));
    const relayTls = await floors.open(floors.relay(true));
    const relayPlain = await floors.open(floors.relay(false));
    const clients = await Promise.all(
      [tls, plain].flatMap((c) => [connect({ socket: c.node(1).socket }), connect({ socket: c.node(2).socket })]),
    );
    const [tls1, tls2, plain1, plain2] = clients as [Client, Client, Client, Client];
    for (const client of clients) await settled(client, context);
    const groups: Row[][] = [];
    for (const [inFlight, target] of [
      [1, '>= 0.60 of ideal'],
      [16, ''],
      [128, '>= 0.50 of ideal'],
    ] as const) {
      const ms = context.turnMs;
      const idealName = 'bare lock server, TCP';
      const fresh = (client: Client) => async () => await cycleRate(client, inFlight, ms, () => freshName(context));
      const namesTls = await masteredBy(tls1, context, inFlight);
      const namesPlain = await masteredBy(plain1, context, inFlight);
      const subjects: Subject[] = [
        { name: idealName, unit: '/s', pids: ideal.pids, run: async () => await idealRate(ideal.socket, inFlight, ms) },
        { name: 'fresh names, TLS', unit: '/s', pids: pidsOf(tls), against: idealName, target, run: fresh(tls1) },
        { name: 'fresh names, plain', unit: '/s', pids: pidsOf(plain), against: idealName, target, run: fresh(plain1) },
        {
          name: 'relay / 2, TLS',
          unit: '/s',
          pids: relayTls.pids,
          run: async () => (await echoRate(relayTls.socket, inFlight, ms)) / 2,
        },
        {
          name: 'mastered by another node, TLS',
          unit: '/s',
          pids: pidsOf(tls),
          against: 'relay / 2, TLS',
          target: inFlight === 1 ? '>= 0.77 of relay' : '',
          run: async () => await cycleRate(tls2, inFlight, ms, (n) => namesTls[n] as string),
        },
        {
          name: 'relay / 2, plain',
          unit: '/s',
          pids: relayPlain.pids,
          run: async () => (await echoRate(relayPlain.socket, inFlight, ms)) / 2,
        },
        {
          name: 'mastered by another node, plain',
          unit: '/s',
          pids: pidsOf(plain),
          against: 'relay / 2, plain',
          target: inFlight === 1 ? '>= 0.77 of relay' : '',
          run: async () => await cycleRate(plain2, inFlight, ms, (n) => namesPlain[n] as string),
        },
      ];
      groups.push(await inTurns(`Cycles/s on three nodes, ${inFlight} in flight`, subjects, context.rounds));
    }
    for (const client of clients) await client.close();
    return groups;
  } finally {
    floors.close();
    await Promise.all([tls.close(), plain.close()]);
  }
}

/** This process and the daemons. */
function pidsOf(cluster: TestCluster): number[] {
  return [process.pid, ...cluster.nodes.flatMap((node) => (node.process?.pid === undefined ? [] : [node.process.pid]))];
}

/** The ratio to the raw echo beside the one to the bare server. */
function withEcho(rows: Row[], echoName: string): Row[] {
  const echo = rows.find((r) => r.name === echoName);
  const mine = rows.at(-1);
  if (!echo || !mine) return rows;
  const ratio = ratioOf(mine.samples, echo.samples);
  const cpuRatio = ratioOf(mine.cpuSamples, echo.cpuSamples);
  return [...rows, { ...mine, against: echoName, ratio, cpuRatio, target: '' }];
}

/** Starts the daemons without relying on the level of their logs. */
export async function startAll(cluster: TestCluster): Promise<void> {
  for (const node of cluster.nodes) node.start();
  await Promise.all(
    cluster.nodes.map(async (node) => {
      const client = await connectWhenUp(node.socket);
      await client.lock(`start/${node.name}`, 'EX', { timeout: 20_000 });
      await client.close();
    }),
  );
}

async function connectWhenUp(socket: string): Promise<Client> {
  for (let tries = 0; ; tries++) {
    try {
      return await connect({ socket, connectTimeout: 2000 });
    } catch (error) {
      if (tries > 200) throw error;
      await new Promise((resolve) => setTimeout(resolve, 50));
    }
  }
}

/** Work for the compilers of both ends: at one request in flight a turn is too short to warm them. */
async function settled(client: Client, context: Context): Promise<void> {
  await cycleRate(client, 32, context.isQuick ? 1000 : 3000, () => freshName(context));
}

export const cycles: Benchmark = single;
export const cyclesThree: Benchmark = three;
