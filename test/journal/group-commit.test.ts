import t from 'tap';
import { GroupCommit } from '../../src/node/group-commit.js';
import type { Store, StoreOp } from '../../src/node/journal-store.js';

/** Commits at once, as an environment without sync does, and counts. */
class AtOnce implements Store {
  readonly sizes: number[] = [];
  load = (): Map<number, unknown> => new Map();
  stamp = (): { count: number; digest: number } => ({ count: this.sizes.length, digest: 0 });
  usedBytes = (): number => 0;
  close = (): Promise<void> => Promise.resolve();
  commit(ops: readonly StoreOp[]): Promise<void> {
    this.sizes.push(ops.length);
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

t.test(
  'a writer that waits for each commit of a store that commits at once does not keep the event loop from turning',
  async (t) => {
    const store = new AtOnce();
    const group = new GroupCommit(store, (error) => t.fail(error.message));
    let turns = 0;
    let isOver = false;
    const turn = (): void => {
      turns++;
      if (!isOver) setImmediate(turn);
    };
    setImmediate(turn);
    for (let key = 0; key < 1000; key++) await group.write([{ key }]);
    isOver = true;
    t.equal(store.sizes.length, 1000);
    t.ok(turns >= 10, `${turns} turns`);
    await group.drained();
  },
);
