/**
 * Files: the in-process door beside the client library, and 9P beside a server that answers anything with nothing.
 *
 * A cluster of one; one operation in flight, as a shell script has it, and 16.
 */
import type { Socket } from 'node:net';
import { join } from 'node:path';
import { ClientLocks } from '../src/dlmfs/client-locks.js';
import { Mount } from '../src/dlmfs/mount.js';
import { NinepRpc } from '../test/fixtures/9p-client.js';
import { TestCluster } from '../test/fixtures/cluster.js';
import { type Benchmark, cycleRate, freshName } from './context.js';
import { startAll } from './cycles.js';
import { Floors } from './floor-client.js';
import { inTurns, type Row } from './rounds.js';

const RW = 2;
const RW_CREAT = 0o102;

/** Runs `once` in `inFlight` loops for a time; operations per second. */
async function rate(inFlight: number, ms: number, once: (loop: number) => Promise<unknown>): Promise<number> {
  const began = performance.now();
  let count = 0;
  let result = 0;
  const loop = async (n: number): Promise<void> => {
    for (;;) {
      await once(n);
      count++;
      const took = performance.now() - began;
      if (took < ms) continue;
      if (result === 0) result = (count / took) * 1000;
      return;
    }
  };
  await Promise.all(Array.from({ length: inFlight }, (_, n) => loop(n)));
  return result;
}

interface Wire {
  rpc: NinepRpc;
  dir: number;
}

async function wireOver(socket: Socket): Promise<Wire> {
  const rpc = new NinepRpc((bytes) => socket.write(bytes));
  socket.on('data', (chunk) => rpc.receive(chunk));
  await rpc.version();
  const root = await rpc.attach();
  await rpc.call('Tmkdir', { dfid: root, name: 'bench', mode: 0o755, gid: 0 });
  return { rpc, dir: await rpc.walk(root, ['bench']) };
}

/** What one open and close of a file that is there cost in messages, without the path walk. */
async function openClose(w: Wire, name: string): Promise<void> {
  const fid = await w.rpc.walk(w.dir, [name]);
  await w.rpc.call('Tlopen', { fid, flags: RW });
  await w.rpc.clunk(fid);
}

/** A new file: created and locked, closed, removed. */
async function createUnlink(w: Wire, name: string): Promise<void> {
  const fid = await w.rpc.walk(w.dir, []);
  await w.rpc.call('Tlcreate', { fid, name, flags: RW, mode: 0o644, gid: 0 });
  await w.rpc.clunk(fid);
  await w.rpc.call('Tunlinkat', { dirfid: w.dir, name, flags: 0 });
}

export const files: Benchmark = async (context) => {
  const cluster = await TestCluster.create({ nodes: 1, logLevel: 'error' });
  const floors = new Floors(cluster.dir);
  const groups: Row[][] = [];
  try {
    await startAll(cluster);
    const client = await cluster.client(1);
    const shim = new Mount({ service: new ClientLocks(await cluster.client(1)) });
    await shim.mkdir('/bench');
    const mine = await wireOver(await floors.connect(join(cluster.node(1).dir, '9p.sock')));
    const bare = await wireOver(await floors.connect(await floors.server('ninep')));
    const daemon = cluster.node(1).pid;
    const pids = [process.pid, daemon];
    const floorPids = [process.pid, ...floors.last];
    const ms = context.turnMs;
    let number = 0;
    const name = (): string => `f${context.seed}${++number}`;
    for (const inFlight of [1, 16]) {
      for (let n = 0; n < inFlight; n++) {
        await (await shim.open(`/bench/held${n}`, RW_CREAT)).close();
        const fid = await mine.rpc.walk(mine.dir, []);
        await mine.rpc.call('Tlcreate', { fid, name: `wire${inFlight}.${n}`, flags: RW, mode: 0o644, gid: 0 });
        await mine.rpc.clunk(fid);
      }
      const { rpc } = mine;
      groups.push(
        await inTurns(
          `Files in a program, cluster of one, ${inFlight} in flight`,
          [
            {
              name: 'client library: lock, release, new name',
              unit: '/s',
              pids,
              run: () => cycleRate(client, inFlight, ms, () => freshName(context)),
            },
            {
              name: 'file: open, close, unlink, new name',
              unit: '/s',
              pids,
              against: 'client library: lock, release, new name',
              run: () =>
                rate(inFlight, ms, async () => {
                  const path = `/bench/${name()}`;
                  await (await shim.open(path, RW_CREAT)).close();
                  await shim.unlink(path);
                }),
            },
            {
              name: 'file: open, close of a kept lock',
              unit: '/s',
              pids,
              against: 'client library: lock, release, new name',
              run: () => rate(inFlight, ms, async (n) => (await shim.open(`/bench/held${n}`, RW)).close()),
            },
          ],
          context.rounds,
        ),
        await inTurns(
          `Files over 9P on a Unix socket, cluster of one, ${inFlight} in flight`,
          [
            {
              name: 'floor: walk, open, clunk answered with nothing',
              unit: '/s',
              pids: floorPids,
              run: () => rate(inFlight, ms, () => openClose(bare, 'any')),
            },
            {
              name: 'open, close of a kept lock',
              unit: '/s',
              pids,
              against: 'floor: walk, open, clunk answered with nothing',
              run: () => rate(inFlight, ms, (n) => openClose(mine, `wire${inFlight}.${n}`)),
            },
            {
              name: 'floor: create and unlink answered with nothing',
              unit: '/s',
              pids: floorPids,
              run: () => rate(inFlight, ms, () => createUnlink(bare, name())),
            },
            {
              name: 'new lock, close, unlink',
              unit: '/s',
              pids,
              against: 'floor: create and unlink answered with nothing',
              run: () => rate(inFlight, ms, () => createUnlink(mine, name())),
            },
          ],
          context.rounds,
        ),
      );
      if (rpc.strays.length > 0) throw new Error('stray answers');
    }
    await shim.close({ force: true });
    return groups;
  } finally {
    floors.close();
    await cluster.close();
  }
};
