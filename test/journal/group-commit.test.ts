import t from 'tap';
import { GroupCommit } from '../../src/node/group-commit.js';
import type { Store, StoreOp } from '../../src/node/journal-store.js';

/** Commits at once, as an environment without sync does, and counts. */
class AtOnce implements Store {
  readonly sizes: number[] = [];
  /** Milliseconds that each commit takes, without a turn of the event loop. */
  takesMs = 0;
  load = (): Map<number, unknown> => new Map();
  stamp = (): { count: number; digest: number } => ({ count: this.sizes.length, digest: 0 });
  usedBytes = (): number => 0;
  close = (): Promise<void> => Promise.resolve();
  commit(ops: readonly StoreOp[]): Promise<void> {
    this.sizes.push(ops.length);
    const end = performance.now() + this.takesMs;
    while (performance.now() < end);
    return Promise.resolve();
  }
}

t.test('what one turn of the event loop brings goes out in one commit', async (t) => {
  const store = new AtOnce();
  const group = new GroupCommit(store, (error) => t.fail(error.message));
  await Promise.all([1, 2, 3].map((key) => group.write([{ key }])));
  await group.write([{ key: 4 }]);
  t.same(store.sizes, [3, 1]);
});

/** Turns of the event loop while so many writes wait for one another. */
async function turnsDuring(store: AtOnce, writes: number, fail: (error: Error) => void): Promise<number> {
  const group = new GroupCommit(store, fail);
  let turns = 0;
  let isOver = false;
  const turn = (): void => {
    turns++;
    if (!isOver) setImmediate(turn);
  };
  setImmediate(turn);
  for (let key = 0; key < writes; key++) await group.write([{ key }]);
  isOver = true;
  await group.drained();
  return turns;
}

t.test(
  'a writer that waits for each commit of a store that commits at once does not keep the event loop from turning',
  async (t) => {
    const store = new AtOnce();
    const turns = await turnsDuring(store, 1000, (error) => t.fail(error.message));
    t.equal(store.sizes.length, 1000);
    t.ok(turns >= 10, `${turns} turns`);
  },
);

t.test('after a commit that took long the event loop turns first', async (t) => {
  const store = new AtOnce();
  store.takesMs = 8;
  const turns = await turnsDuring(store, 20, (error) => t.fail(error.message));
  t.ok(turns >= 19, `${turns} turns`);
});
