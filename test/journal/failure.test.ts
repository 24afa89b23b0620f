import { execFileSync } from 'node:child_process';
import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { openJournal } from '../../src/node/journal.js';
import type { Store, StoreOp } from '../../src/node/journal-store.js';
import { TsdlmError } from '../../src/protocol/errors.js';
import { entry, nodeOwned, options, tempDir } from '../fixtures/journal.js';

/** Lets the first `good` commits through and fails the next one; counts what comes after. */
function failing(store: Store, good: number, error: Error): Store & { after: number } {
  let left = good;
  const broken = {
    after: 0,
    load: () => store.load(),
    stamp: () => store.stamp(),
    usedBytes: () => store.usedBytes(),
    close: () => store.close(),
    commit: async (ops: readonly StoreOp[]): Promise<void> => {
      if (left-- > 0) return store.commit(ops);
      if (left < -1) broken.after++;
      throw error;
    },
  };
  return broken;
}

t.test(
  'the n-th write fails: it and all later ones are refused, the failure is told once, the confirmed ones are there',
  async (t) => {
    for (const n of [0, 1, 5]) {
      const dir = tempDir(t);
      await (await openJournal(options(dir))).close();
      const told: TsdlmError[] = [];
      let broken: ReturnType<typeof failing> | undefined;
      const journal = await openJournal(
        options(dir, {
          onFailure: (error) => told.push(error),
          wrapStore: (store, name) => {
            if (name === 'locks') return store;
            broken = failing(store, n, new TsdlmError('TSDLM_JOURNAL_FAILED', 'the disk is gone'));
            return broken;
          },
        }),
      );
      for (let i = 1; i <= n; i++) await journal.persist({ ticket: i, hard: { term: i, vote: 1 } });
      const failed = await Promise.allSettled([
        journal.persist({ ticket: n + 1, hard: { term: n + 1, vote: 1 } }),
        journal.persist({ ticket: n + 2, hard: { term: n + 2, vote: 1 } }),
      ]);
      t.same(
        failed.map((r) => r.status),
        ['rejected', 'rejected'],
      );
      await t.rejects(journal.persist({ ticket: n + 3, entries: [entry(1, 1)] }), {
        code: 'TSDLM_JOURNAL_FAILED',
        message: /disk is gone/,
      });
      await t.rejects(journal.raiseStartCount(), { code: 'TSDLM_JOURNAL_FAILED' });
      await t.rejects(journal.writeNodeOwned({ op: 'put', record: nodeOwned(1) }), { code: 'TSDLM_JOURNAL_FAILED' });
      await t.rejects(journal.clearNodeOwned(), { code: 'TSDLM_JOURNAL_FAILED' });
      t.equal(told.length, 1, 'told once');
      t.equal(broken?.after, 0, 'nothing was tried after the failure');
      await journal.close();
      const again = await openJournal(options(dir));
      t.equal(again.loadControl().term, n);
      await again.close();
    }
  },
);

t.test('a failed write of a node-owned lock ends consensus writes too', async (t) => {
  const told: TsdlmError[] = [];
  const journal = await openJournal(
    options(tempDir(t), {
      onFailure: (error) => told.push(error),
      wrapStore: (store, name) => (name === 'locks' ? failing(store, 0, new Error('EIO')) : store),
    }),
  );
  await t.rejects(journal.writeNodeOwned({ op: 'put', record: nodeOwned(1) }), { code: 'TSDLM_JOURNAL_FAILED', message: /EIO/ });
  await t.rejects(journal.persist({ ticket: 1, hard: { term: 1, vote: 1 } }), { code: 'TSDLM_JOURNAL_FAILED' });
  t.equal(told.length, 1);
  await journal.close();
});

t.test('over its limit: a node-owned lock is refused, dropping some helps; consensus state ends the journal', async (t) => {
  const told: TsdlmError[] = [];
  const journal = await openJournal(options(tempDir(t), { maxBytes: 256 * 1024, onFailure: (error) => told.push(error) }));
  let refusal: unknown = null;
  let id = 0;
  while (refusal === null && id < 20_000) {
    id++;
    await journal.writeNodeOwned({ op: 'put', record: nodeOwned(id) }).catch((error: unknown) => {
      refusal = error;
    });
  }
  t.match(refusal, { code: 'TSDLM_JOURNAL_FULL', message: /drop node-owned locks, or raise the limit/ });
  t.equal(told.length, 0, 'the journal lives on');
  await Promise.all(Array.from({ length: id - 1 }, (_, i) => journal.writeNodeOwned({ op: 'del', id: i + 1 })));
  await journal.writeNodeOwned({ op: 'put', record: nodeOwned(1) });
  const big = 'x'.repeat(50_000);
  let ended: unknown = null;
  for (let i = 1; i < 50 && ended === null; i++) {
    await journal.persist({ ticket: i, entries: [{ ...entry(i, 0), cmd: { c: 'noop', big } }] }).catch((error: unknown) => {
      ended = error;
    });
  }
  t.match(ended, { code: 'TSDLM_JOURNAL_FULL', message: /raise the limit/ });
  t.equal(told.length, 1);
  await journal.close();
});

/** A file system of 2 MB, or null where we may not mount one. */
function tinyFileSystem(t: { teardown(fn: () => void): unknown }): string | null {
  const dir = join(tempDir(t), 'tiny');
  mkdirSync(dir);
  try {
    execFileSync('mount', ['-t', 'tmpfs', '-o', 'size=2m', 'tmpfs', dir], { stdio: 'ignore' });
  } catch {
    return null;
  }
  t.teardown(() => {
    execFileSync('umount', [dir], { stdio: 'ignore' });
  });
  return dir;
}

t.test(
  'a full file system ends the journal with a clear error, and no stray rejection; what was confirmed is there',
  async (t) => {
    const stray: unknown[] = [];
    const listen = (reason: unknown): void => {
      stray.push(reason);
    };
    process.on('unhandledRejection', listen);
    t.teardown(() => process.removeListener('unhandledRejection', listen));
    const dir = tinyFileSystem(t);
    if (dir === null) return t.comment('not allowed to mount: left out');
    const told: TsdlmError[] = [];
    const consoleError = console.error;
    // lmdb prints its own line for a failed commit.
    console.error = () => undefined;
    t.teardown(() => {
      console.error = consoleError;
    });
    const journal = await openJournal(options(join(dir, 'state'), { onFailure: (error) => told.push(error) }));
    let confirmed = 0;
    for (let i = 1; i < 300; i += 3) {
      // Three at once, so that a group fails together.
      const group = [i, i + 1, i + 2].map((index) =>
        journal.persist({ ticket: index, entries: [{ ...entry(index, 0), cmd: { c: 'noop', big: 'x'.repeat(20_000) } }] }).then(
          () => {
            confirmed = Math.max(confirmed, index);
          },
          (error: TsdlmError) => t.match(error, { code: 'TSDLM_JOURNAL_FULL' }),
        ),
      );
      await Promise.all(group);
    }
    await journal.close();
    t.ok(confirmed > 10 && confirmed < 299, `${confirmed} were confirmed`);
    const again = await openJournal(options(join(dir, 'state')));
    t.equal(again.loadControl().entries.length, confirmed, 'all confirmed entries are there and no more');
    await again.close();
    await new Promise((resolve) => setImmediate(resolve));
    t.match(told, [{ code: 'TSDLM_JOURNAL_FULL', message: /free space/ }]);
    t.same(stray, [], 'no unhandled rejection');
  },
);
