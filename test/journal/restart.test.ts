/** The record of a clean restart (rule 3): it counts for the next start on the same boot, and for no other. */
import t from 'tap';
import { openJournal } from '../../src/node/journal.js';
import { OTHER_BOOT, options, tempDir } from '../fixtures/journal.js';

const record = { until: 1234.5, sessions: [{ key: '1.7', pid: 42, label: 'x', group: null }], claims: [] };

async function written(dir: string): Promise<void> {
  const journal = await openJournal(options(dir));
  await journal.raiseStartCount();
  await journal.writeRestart(record);
  await journal.close();
}

t.test('rule 3: the record is found by the next start, and is gone with the start count that it raises', async (t) => {
  const dir = tempDir(t);
  await written(dir);
  const next = await openJournal(options(dir));
  t.match(next.restart, { startCount: 1, ...record });
  t.equal(next.toldUntil, 1234.5);
  await next.raiseStartCount();
  await next.close();
  const later = await openJournal(options(dir));
  t.equal(later.restart, null, 'a crash after it does not find it');
  t.equal(later.toldUntil, 1234.5, 'but what was told may still stand');
  await later.clearTold();
  await later.close();
  const settled = await openJournal(options(dir));
  t.equal(settled.toldUntil, 0);
  await settled.close();
});

t.test('rule 3: a start that died before it raised the start count leaves the record to the next', async (t) => {
  const dir = tempDir(t);
  await written(dir);
  await (await openJournal(options(dir))).close();
  const next = await openJournal(options(dir));
  t.match(next.restart, record);
  await next.close();
});

t.test('rule 12: after a reboot the record says nothing', async (t) => {
  const dir = tempDir(t);
  await written(dir);
  const next = await openJournal(options(dir, { bootId: OTHER_BOOT }));
  t.same([next.restart, next.toldUntil], [null, 0]);
  await next.close();
});

t.test('the key that proves sessions stays the same', async (t) => {
  const dir = tempDir(t);
  const journal = await openJournal(options(dir));
  const { sessionKey } = journal;
  t.equal(sessionKey.length, 32);
  await journal.close();
  const again = await openJournal(options(dir));
  t.ok(again.sessionKey.equals(sessionKey));
  await again.close();
});
