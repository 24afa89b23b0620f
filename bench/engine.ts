/**
 * The lock engine by itself, in this process: no socket, no codec, no membership; a view of one member. Beside it a bare
 * table: one Map, one entry per name, a linked FIFO of waiters, a token counter.
 */
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import { Engine } from '../src/master/engine.js';
import type { EngineOutput, LocalLock, LockOptions } from '../src/master/types.js';
import { blankNode } from '../src/membership/node-table.js';
import type { View } from '../src/membership/types.js';
import { EX } from '../src/protocol/modes.js';
import type { Benchmark, Context } from './context.js';
import { inTurns } from './rounds.js';

/** What any lock server has to do at least. */
class BareTable {
  #locks = new Map<string, BareLock>();
  token = 0;

  lock(name: string, granted: (lock: BareLock) => void): BareLock {
    const lock: BareLock = { name, token: 0, granted, next: null, tail: null };
    const holder = this.#locks.get(name);
    if (holder === undefined) {
      this.#locks.set(name, lock);
      lock.tail = lock;
      this.#grant(lock);
    } else {
      (holder.tail as BareLock).next = lock;
      holder.tail = lock;
    }
    return lock;
  }

  unlock(lock: BareLock): void {
    const { next } = lock;
    if (next === null) {
      this.#locks.delete(lock.name);
      return;
    }
    next.tail = lock.tail;
    this.#locks.set(lock.name, next);
    this.#grant(next);
  }

  #grant(lock: BareLock): void {
    lock.token = ++this.token;
    lock.granted(lock);
  }
}

interface BareLock {
  name: string;
  token: number;
  granted: (lock: BareLock) => void;
  next: BareLock | null;
  /** Of the holder: the last in the queue. */
  tail: BareLock | null;
}

function viewOfOne(): View {
  const incarnation = { bootId: 'b', machineId: 'm', startCount: 1, journalId: 'j' };
  return {
    epoch: 1,
    table: 1,
    limits: null,
    retired: [],
    clusterId: 'bench',
    nextDom: 2,
    nodes: [{ ...blankNode({ id: 1, name: 'n1', voter: true, fence: [['self']] }, 'j'), state: 'in', incarnation, since: 1 }],
    domains: [
      {
        dom: 1,
        name: 'default',
        epoch: 1,
        members: [{ node: 1, startCount: 1, continues: 0, keeps: false }],
        leaving: [],
        away: [],
        mastery: 'peer',
        servers: [],
      },
    ],
    fencings: [],
    distrusted: [],
    alone: null,
  };
}

function makeEngine(granted: (lock: LocalLock) => void): Engine {
  const refuse = (what: string) => (): void => {
    throw new Error(`the engine alone must not ${what}`);
  };
  const out: EngineOutput = {
    granted,
    released: () => {},
    bast: () => {},
    denied: refuse('deny'),
    lost: refuse('lose'),
    send: refuse('send'),
    propose: refuse('propose'),
    restartRecord: refuse('restart'),
    journal: refuse('write'),
    note: refuse('complain'),
  };
  const view = viewOfOne();
  const engine = new Engine({ self: 1, startCount: 1, view: { ...view, epoch: 0, domains: [] }, nodeOwned: [] }, out);
  engine.applyView(1, view);
  engine.setLeased(1, true);
  return engine;
}

const options = (name: string): LockOptions => ({
  domain: 'default',
  name,
  mode: EX,
  try: false,
  nodeOwned: false,
  lvb: false,
  who: 'n1:1 bench',
  why: '',
  deadline: 0,
  ctx: null,
});

const BATCH = 100_000;

function nsEach(count: number, work: () => void): number {
  const began = process.hrtime.bigint();
  work();
  return Number(process.hrtime.bigint() - began) / count;
}

function heapUsed(gc: () => void): number {
  gc();
  gc();
  return process.memoryUsage().heapUsed;
}

export const engine: Benchmark = async (context: Context) => {
  setFlagsFromString('--expose-gc');
  const gc = runInNewContext('gc') as () => void;
  const count = context.isQuick ? 20_000 : BATCH;
  let grants = 0;
  const mine = makeEngine(() => {
    grants++;
  });
  const bare = new BareTable();
  const onBare = (): void => {
    grants++;
  };
  let serial = 0;
  // A pool of names made beforehand, longer than any batch: making strings is nobody's work here.
  const names = Array.from({ length: count }, () => `b/${context.seed}/${++serial}`);
  const bareFresh = (): number =>
    nsEach(count, () => {
      for (const name of names) bare.unlock(bare.lock(name, onBare));
    });
  const fresh = (): number =>
    nsEach(count, () => {
      for (const name of names) mine.unlock(2, mine.lock(2, options(name)));
    });
  const bareContended = (): number =>
    nsEach(count, () => {
      let holder = bare.lock('contended', onBare);
      for (let i = 0; i < count; i++) {
        const next = bare.lock('contended', onBare);
        bare.unlock(holder);
        holder = next;
      }
      bare.unlock(holder);
    });
  const contended = (): number =>
    nsEach(count, () => {
      let holder = mine.lock(2, options('contended'));
      for (let i = 0; i < count; i++) {
        const next = mine.lock(2, options('contended'));
        mine.unlock(2, holder);
        holder = next;
      }
      mine.unlock(2, holder);
    });
  const memory = (hold: (name: string) => object, release: (lock: never) => void) => (): number => {
    const held: object[] = new Array<object>(count).fill(names);
    const before = heapUsed(gc);
    for (let i = 0; i < count; i++) held[i] = hold(names[i] as string);
    const bytes = (heapUsed(gc) - before) / count;
    for (const lock of held) release(lock as never);
    return bytes;
  };
  const bareLock = 'bare table: lock + unlock, fresh name';
  const bareQueue = 'bare table: hand-over, contended name';
  const bareBytes = 'bare table: heap per held lock';
  const speed = await inTurns(
    'The engine alone, in process',
    [
      { name: bareLock, unit: 'ns', run: bareFresh },
      { name: 'engine: lock + unlock, fresh name', unit: 'ns', against: bareLock, target: '<= 4', run: fresh },
      { name: bareQueue, unit: 'ns', run: bareContended },
      { name: 'engine: hand-over, contended name', unit: 'ns', against: bareQueue, target: '<= 4', run: contended },
    ],
    context.rounds,
  );
  const space = await inTurns(
    'Heap per held lock (names not counted)',
    [
      {
        name: bareBytes,
        unit: 'B',
        run: memory(
          (name) => bare.lock(name, onBare),
          (lock: BareLock) => bare.unlock(lock),
        ),
      },
      {
        name: 'engine: heap per held lock, master and owner in one',
        unit: 'B',
        against: bareBytes,
        target: '<= 400 B + 250 B',
        run: memory(
          (name) => mine.lock(2, options(name)),
          (lock: LocalLock) => mine.unlock(2, lock),
        ),
      },
    ],
    3,
  );
  if (grants === 0) throw new Error('nothing was granted');
  return [speed, space];
};
