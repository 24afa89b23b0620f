/**
 * Contended hand-over: clients that want the same name all the time: each asks for its next turn before it gives back the
 * present one, at once. Counted are the changes of the holder. Floors: the bare lock server with as many connections, and for clients of different nodes the
 * relay: a hand-over between nodes needs a release to the master and a grant from it, which is one relayed message.
 */
import { type Client, connect } from '../src/client/index.js';
import { TestCluster } from '../test/fixtures/cluster.js';
import { type Benchmark, type Context, freshName } from './context.js';
import { startAll } from './cycles.js';
import { echoRate, Floors, idealHandOvers } from './floor-client.js';
import { inTurns, median, type Row, type Subject } from './rounds.js';

interface HandOvers {
  rate: number;
  counts: number[];
}

async function handOvers(clients: readonly Client[], name: string, ms: number): Promise<HandOvers> {
  const began = performance.now();
  const counts = clients.map(() => 0);
  let last = -1;
  let changes = 0;
  let took = 0;
  await Promise.all(
    clients.map(async (client, i) => {
      let next = client.lock(name, 'EX');
      for (;;) {
        const handle = await next;
        const now = performance.now() - began;
        if (now >= ms) {
          if (took === 0) took = now;
          await handle.release();
          return;
        }
        counts[i] = (counts[i] as number) + 1;
        if (last !== i) changes++;
        last = i;
        next = client.lock(name, 'EX');
        // Nobody waits for the end of it: the next turn comes after it in any case.
        handle.release().catch(() => {});
      }
    }),
  );
  return { rate: (changes / took) * 1000, counts };
}

/** A subject, and beside it the fairness of its turns: fewest grants of a client / most. */
function contest(name: string, against: string | undefined, target: string, run: () => Promise<HandOvers>) {
  const fairness: number[] = [];
  const subject: Subject = {
    name,
    unit: '/s',
    against,
    target,
    run: async () => {
      const { rate, counts } = await run();
      fairness.push(Math.min(...counts) / Math.max(...counts));
      return rate;
    },
  };
  return { subject, fairness };
}

function fairnessRow(group: string, name: string, values: number[], target: string): Row {
  const ratio = Number.NaN;
  const mid = median(values);
  const low = Math.min(...values);
  return {
    group,
    name,
    unit: '',
    median: mid,
    low,
    high: Math.max(...values),
    noise: 0,
    against: '',
    ratio,
    target,
    samples: values,
    cpuUs: Number.NaN,
    cpuRatio: Number.NaN,
    cpuSamples: [],
  };
}

export const handover: Benchmark = async (context: Context) => {
  const one = await TestCluster.create({ nodes: 1, logLevel: 'warn' });
  const many = await TestCluster.create({ nodes: 3, logLevel: 'warn' });
  const floors = new Floors(one.dir);
  const clients: Client[] = [];
  try {
    await Promise.all([startAll(one), startAll(many)]);
    const open = async (socket: string): Promise<Client> => {
      const client = await connect({ socket });
      clients.push(client);
      return client;
    };
    const ms = context.turnMs;
    const ideal = await floors.server('ideal');
    const bare = [await floors.connect(ideal), await floors.connect(ideal)];
    const bare8 = await Promise.all(Array.from({ length: 8 }, () => floors.connect(ideal)));
    const relay = await floors.connect(await floors.relay(true));
    const local = [await open(one.node(1).socket), await open(one.node(1).socket)];
    const local8 = await Promise.all(Array.from({ length: 8 }, () => open(one.node(1).socket)));
    const far = await Promise.all(many.nodes.map((node) => open(node.socket)));
    const [far1, far2] = far as [Client, Client, Client];
    const name = freshName(context);
    // Mastered by node 1, and held there by nobody.
    await far1.lock(name, 'NL');

    const groups: Row[][] = [];
    const contests = [
      contest('bare lock server, 2 clients', undefined, '', () => idealHandOvers(bare, ms)),
      contest('tsdlm, 2 clients', 'bare lock server, 2 clients', '>= 0.80', () => handOvers(local, freshName(context), ms)),
      contest('bare lock server, 8 clients', undefined, '', () => idealHandOvers(bare8, ms)),
      contest('tsdlm, 8 clients', 'bare lock server, 8 clients', '>= 0.80', () => handOvers(local8, freshName(context), ms)),
    ];
    groups.push(await run('Hand-overs/s between clients of one node', contests, context));
    const farContests = [
      contest('relay, 1 in flight', undefined, '', async () => ({ rate: await echoRate(relay, 1, ms), counts: [1] })),
      contest('master and one other, TLS', 'relay, 1 in flight', '>= 0.67 (1.5 x relay)', () =>
        handOvers([far1, far2], name, ms),
      ),
      contest('three nodes, TLS', 'relay, 1 in flight', '>= 0.67 (1.5 x relay)', () => handOvers(far, name, ms)),
    ];
    groups.push(await run('Hand-overs/s between clients of different nodes', farContests, context));
    return groups;
  } finally {
    for (const client of clients) await client.close();
    floors.close();
    await Promise.all([one.close(), many.close()]);
  }
};

async function run(group: string, contests: ReturnType<typeof contest>[], context: Context): Promise<Row[]> {
  const rows = await inTurns(
    group,
    contests.map((c) => c.subject),
    context.rounds,
  );
  for (const { subject, fairness } of contests) {
    if (fairness.every((f) => f === 1)) continue;
    // The first turn does not count.
    rows.push(fairnessRow(group, `fairness of ${subject.name}`, fairness.slice(1), '>= 0.95'));
  }
  return rows;
}
