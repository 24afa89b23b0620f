import { mkdirSync, readdirSync, renameSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { openJournal } from '../../src/node/journal.js';
import { openStore } from '../../src/node/journal-store.js';
import { BOOT, entry, nodeOwned, OTHER_BOOT, options, tempDir, view } from '../fixtures/journal.js';

t.test('a new journal is blank and keeps its id', async (t) => {
  const dir = join(tempDir(t), 'deep', 'state');
  const journal = await openJournal(options(dir));
  t.equal(journal.isNew, true);
  t.equal(statSync(dir).mode & 0o777, 0o700, 'readable by its owner only');
  t.same(journal.loadControl(), { term: 0, vote: 0, snapshot: null, entries: [], boot: null });
  t.same(journal.loadNodeOwned(), []);
  const { journalId } = journal;
  t.equal(await journal.raiseStartCount(), 1);
  t.equal(await journal.raiseStartCount(), 2);
  await journal.close();
  t.same(readdirSync(dir).sort(), ['control', 'locks', 'stamps'], 'nothing else is left behind');
  const again = await openJournal(options(dir));
  t.equal(again.isNew, false);
  t.equal(again.journalId, journalId);
  t.equal(again.startCount, 2);
  t.equal(await again.raiseStartCount(), 3);
  await again.close();
});

t.test('consensus state comes back as it was persisted', async (t) => {
  const dir = tempDir(t);
  const journal = await openJournal(options(dir));
  const writes = [
    journal.persist({ ticket: 1, hard: { term: 1, vote: 2 }, boot: { clusterId: 'abc', known: { 1: 'j1', 2: 'j2' } } }),
    journal.persist({ ticket: 2, entries: [entry(1, 1), entry(2, 1), entry(3, 1), entry(4, 1)] }),
    journal.persist({ ticket: 3, hard: { term: 2, vote: 3 }, truncateFrom: 3, entries: [entry(3, 2)] }),
    journal.persist({ ticket: 4, snapshot: { index: 2, term: 1, view: view(7) } }),
    journal.persist({ ticket: 5, entries: [entry(4, 2), entry(5, 2)] }),
    journal.persist({ ticket: 6, truncateFrom: 5 }),
    journal.persist({ ticket: 7 }),
  ];
  await Promise.all(writes);
  await journal.close();
  const again = await openJournal(options(dir));
  t.same(again.loadControl(), {
    term: 2,
    vote: 3,
    snapshot: { index: 2, term: 1, view: view(7) },
    entries: [entry(3, 2), entry(4, 2)],
    boot: { clusterId: 'abc', known: { 1: 'j1', 2: 'j2' } },
  });
  await again.persist({ ticket: 1, snapshot: { index: 90, term: 2, view: view(8) } });
  await again.persist({ ticket: 2, entries: [entry(91, 2)] });
  await again.close();
  const third = await openJournal(options(dir));
  t.same(third.loadControl().entries, [entry(91, 2)], 'a snapshot past the log replaces all of it');
  await third.close();
});

t.test('a batch that would leave a gap or comes out of order is our own mistake', async (t) => {
  const journal = await openJournal(options(tempDir(t)));
  await journal.persist({ ticket: 1, entries: [entry(1, 0)] });
  await t.rejects(journal.persist({ ticket: 2, entries: [entry(3, 0)] }), { code: 'TSDLM_INVARIANT' });
  await t.rejects(journal.persist({ ticket: 1 }), { code: 'TSDLM_INVARIANT' });
  await journal.persist({ ticket: 2, entries: [entry(2, 0)] });
  await t.rejects(journal.persist({ ticket: 3, snapshot: { index: 1, term: 0, view: view(1) }, truncateFrom: 0 }), {
    code: 'TSDLM_INVARIANT',
  });
  await journal.close();
});

t.test('node-owned locks come back under the same boot id, with the lock value block', async (t) => {
  const dir = tempDir(t);
  const journal = await openJournal(options(dir));
  await Promise.all([1, 2, 3].map((id) => journal.writeNodeOwned({ op: 'put', record: nodeOwned(id) })));
  await journal.writeNodeOwned({ op: 'put', record: nodeOwned(2, { mode: 1, lvb: null, lvbState: 0 }) });
  await journal.writeNodeOwned({ op: 'del', id: 3 });
  await journal.close();
  const again = await openJournal(options(dir));
  t.strictSame(again.loadNodeOwned(), [nodeOwned(1), nodeOwned(2, { mode: 1, lvb: null, lvbState: 0 })]);
  await again.clearNodeOwned();
  await again.close();
  const third = await openJournal(options(dir));
  t.same(third.loadNodeOwned(), []);
  await third.close();
});

t.test('rule 19: after a reboot node-owned locks are thrown away unread, consensus state is not', async (t) => {
  const dir = tempDir(t);
  const journal = await openJournal(options(dir));
  await journal.writeNodeOwned({ op: 'put', record: nodeOwned(1) });
  await journal.persist({ ticket: 1, hard: { term: 5, vote: 1 } });
  await journal.close();
  writeFileSync(join(dir, 'locks', 'data.mdb'), 'a power loss left this');
  const again = await openJournal(options(dir, { bootId: OTHER_BOOT }));
  t.same(again.loadNodeOwned(), []);
  t.equal(again.loadControl().term, 5);
  await again.writeNodeOwned({ op: 'put', record: nodeOwned(9) });
  await again.close();
  const third = await openJournal(options(dir, { bootId: OTHER_BOOT }));
  t.same(
    third.loadNodeOwned().map((r) => r.id),
    [9],
  );
  await third.close();
});

t.test('a journal of another node or cluster is refused and named', async (t) => {
  const dir = tempDir(t);
  await (await openJournal(options(dir))).close();
  const refused = { code: 'TSDLM_JOURNAL_FOREIGN', message: /belongs to node 1 of cluster "test".*state_dir/ };
  await t.rejects(openJournal(options(dir, { nodeId: 2 })), refused);
  await t.rejects(openJournal(options(dir, { clusterName: 'other' })), refused);
  await (await openJournal(options(dir))).close();
});

t.test('a directory that holds something else is refused and left alone', async (t) => {
  const dir = tempDir(t);
  writeFileSync(join(dir, 'thesis.tex'), 'do not touch');
  await t.rejects(openJournal(options(dir)), { code: 'TSDLM_JOURNAL_FOREIGN', message: /thesis\.tex.*empty state_dir/ });
  t.same(readdirSync(dir), ['thesis.tex']);
});

t.test('an LMDB of somebody else is refused', async (t) => {
  const dir = tempDir(t);
  mkdirSync(join(dir, 'control'));
  const store = openStore(join(dir, 'control'), true);
  await store.commit([{ key: 'hello', value: 1 }]);
  await store.close();
  await t.rejects(openJournal(options(dir)), { code: 'TSDLM_JOURNAL_FOREIGN', message: /something else/ });
});

t.test('a mount point is not something else', async (t) => {
  const dir = tempDir(t);
  mkdirSync(join(dir, 'lost+found'));
  await (await openJournal(options(dir))).close();
});

t.test('a journal of a newer version is refused with both numbers', async (t) => {
  const dir = tempDir(t);
  await (await openJournal(options(dir))).close();
  const store = openStore(join(dir, 'control'), true);
  const meta = store.load().get('meta') as Record<string, unknown>;
  await store.commit([{ key: 'meta', value: { ...meta, schema: 99 } }]);
  await store.close();
  await t.rejects(openJournal(options(dir)), { code: 'TSDLM_JOURNAL_TOO_NEW', message: /schema 99.*up to 1.*newer tsdlmd/ });
});

t.test('a journal of which a part was removed is not started from nothing', async (t) => {
  const dir = tempDir(t);
  await (await openJournal(options(dir))).close();
  renameSync(join(dir, 'control'), join(dir, '..', 'control.away'));
  t.teardown(() => rmSync(join(dir, '..', 'control.away'), { recursive: true, force: true }));
  await t.rejects(openJournal(options(dir)), { code: 'TSDLM_JOURNAL_CORRUPT', message: /locks\/ but no control\// });
  renameSync(join(dir, '..', 'control.away'), join(dir, 'control'));
  rmSync(join(dir, 'locks'), { recursive: true });
  await t.rejects(openJournal(options(dir)), {
    code: 'TSDLM_JOURNAL_CORRUPT',
    message: /locks is damaged: its data\.mdb is missing/,
  });
  rmSync(join(dir, 'control', 'data.mdb'));
  await t.rejects(openJournal(options(dir)), { code: 'TSDLM_JOURNAL_CORRUPT', message: /data\.mdb is missing/ });
});

t.test('a half made journal of an interrupted first start is made again', async (t) => {
  const dir = tempDir(t);
  mkdirSync(join(dir, 'control.new'));
  writeFileSync(join(dir, 'control.new', 'data.mdb'), 'half');
  const journal = await openJournal(options(dir));
  t.equal(journal.isNew, true);
  await journal.close();
});

t.test('two at once: the second is told who uses it, and may come after the first', async (t) => {
  const dir = tempDir(t);
  const first = await openJournal(options(dir));
  await t.rejects(openJournal(options(dir)), {
    code: 'TSDLM_JOURNAL_IN_USE',
    message: new RegExp(`in use by process ${process.pid} .*another state_dir`),
  });
  await first.close();
  await (await openJournal(options(dir))).close();
});

t.test('of many that start at the same time at most one gets the directory', async (t) => {
  const dir = tempDir(t);
  await (await openJournal(options(dir))).close();
  for (let round = 0; round < 5; round++) {
    const all = await Promise.allSettled([1, 2, 3, 4].map(() => openJournal(options(dir))));
    const won = all.filter((r) => r.status === 'fulfilled');
    t.ok(won.length <= 1, `round ${round}: ${won.length} got it`);
    for (const r of all) if (r.status === 'rejected') t.equal((r.reason as { code: string }).code, 'TSDLM_JOURNAL_IN_USE');
    for (const r of won) await r.value.close();
  }
});

t.test('a path that is longer than a socket address works', async (t) => {
  const dir = join(tempDir(t), 'x'.repeat(120), 'y'.repeat(60));
  const journal = await openJournal(options(dir));
  await t.rejects(openJournal(options(dir)), { code: 'TSDLM_JOURNAL_IN_USE' });
  await journal.close();
});

t.test('a path where nothing can be made is refused', async (t) => {
  const dir = tempDir(t);
  writeFileSync(join(dir, 'file'), '');
  await t.rejects(openJournal(options(join(dir, 'file', 'state'))), { code: 'TSDLM_JOURNAL_FAILED', message: /state_dir/ });
});

t.test('closing twice is fine, and a write afterwards is refused', async (t) => {
  const journal = await openJournal(options(tempDir(t)));
  const write = journal.writeNodeOwned({ op: 'put', record: nodeOwned(1) });
  await Promise.all([journal.close(), journal.close()]);
  await write;
  await t.rejects(journal.persist({ ticket: 1, hard: { term: 1, vote: 0 } }), {
    code: 'TSDLM_JOURNAL_FAILED',
    message: /closed/,
  });
  t.equal(BOOT.length, 36);
});
