/** Tickets, batches and what waits for them; cutting the log. */
import t from 'tap';
import { Compaction } from '../../src/membership/compaction.js';
import { Durable } from '../../src/membership/durable.js';
import { RaftLog } from '../../src/membership/log.js';
import type { PersistBatch, Snapshot } from '../../src/membership/types.js';
import { initialView } from '../../src/membership/view.js';

const view = initialView([], '');
const entry = (index: number, term = 1) => ({ index, term, cmd: { c: 'noop' } });
const snapshot = (index: number): Snapshot => ({ index, term: 1, view });

function durable(stable = 0) {
  const batches: PersistBatch[] = [];
  return { d: new Durable(stable, (b) => batches.push(b)), batches };
}

t.test('all changes of one call are one batch, and what depends on it waits for its ticket', async (t) => {
  const { d, batches } = durable();
  const ran: string[] = [];
  d.after(() => ran.push('nothing to wait for'));
  d.hard(2, 1);
  d.entries([entry(1)]);
  d.entries([entry(2)]);
  d.after(() => ran.push('waits'));
  d.flush();
  d.flush();
  t.match(batches, [{ ticket: 1, hard: { term: 2, vote: 1 }, entries: [{ index: 1 }, { index: 2 }] }]);
  t.equal(batches.length, 1);
  t.same(ran, ['nothing to wait for']);
  t.equal(d.stable, 0);
  d.persisted(1);
  t.same(ran, ['nothing to wait for', 'waits']);
  t.equal(d.stable, 2);
});

t.test('what depends on the term only does not wait for entries', async (t) => {
  const { d } = durable();
  const ran: number[] = [];
  d.hard(1, 0);
  d.flush();
  d.entries([entry(1)]);
  d.flush();
  d.afterHard(() => ran.push(1));
  d.after(() => ran.push(2));
  d.persisted(1);
  t.same(ran, [1]);
  d.persisted(2);
  t.same(ran, [1, 2]);
});

t.test('entries that were cut off while on their way to the disk do not count as durable', async (t) => {
  const { d } = durable();
  d.entries([entry(1), entry(2), entry(3)]);
  d.flush();
  d.truncateFrom(2);
  d.entries([entry(2, 2)]);
  d.flush();
  d.persisted(1);
  t.equal(d.stable, 1);
  d.persisted(2);
  t.equal(d.stable, 2);
});

t.test('a snapshot of the leader counts only once it is on disk itself', async (t) => {
  const { d, batches } = durable(4);
  d.entries([entry(5), entry(6)]);
  d.flush();
  d.installed(snapshot(9), 4);
  d.flush();
  t.match(batches[1], { truncateFrom: 5, snapshot: { index: 9 } });
  d.persisted(1);
  t.equal(d.stable, 4);
  d.persisted(2);
  t.equal(d.stable, 9);
});

t.test('a ticket that was never issued is a broken invariant, one that was confirmed twice is nothing', async (t) => {
  const { d } = durable();
  t.throws(() => d.persisted(1), { code: 'TSDLM_INVARIANT' });
  d.hard(1, 0);
  d.flush();
  d.persisted(1);
  d.persisted(1);
});

t.test('the log: terms, slices, cuts and hints', async (t) => {
  const log = new RaftLog(snapshot(10), [entry(11, 1), entry(12, 2), entry(13, 2), entry(14, 4)]);
  t.same([log.lastIndex, log.lastTerm, log.termAt(10), log.termAt(13), log.termAt(15), log.termAt(9)], [14, 4, 1, 2, -1, -1]);
  t.same(
    log.slice(12, 2).map((e) => e.index),
    [12, 13],
  );
  t.throws(() => log.slice(10, 1), { code: 'TSDLM_INVARIANT' });
  t.throws(() => log.append(entry(16)), { code: 'TSDLM_INVARIANT' });
  t.equal(log.conflictHint(20, 3), 13);
  t.equal(log.conflictHint(13, 1), 11);
  t.ok(log.isUpToDate(14, 4));
  t.ok(log.isUpToDate(1, 5));
  t.notOk(log.isUpToDate(13, 4));
  t.notOk(log.isUpToDate(99, 3));
  log.compact(snapshot(12));
  t.same([log.base.index, log.length, log.termAt(13)], [12, 2, 2]);
  log.truncateFrom(14);
  t.equal(log.lastIndex, 13);
  t.throws(() => log.truncateFrom(12), { code: 'TSDLM_INVARIANT' });
});

t.test('the log is cut when it is twice as long as is kept, at what all living members have, but not for ever', async (t) => {
  const c = new Compaction(10);
  for (let i = 1; i <= 35; i++) c.applied(entry(i), view);
  t.equal(c.cut(0, 20, 100), null);
  t.equal(c.cut(0, 35, 4), null, 'a member needs it');
  t.equal(c.cut(0, 35, 12)?.index, 10);
  t.equal(c.cut(10, 35, 100)?.index, 20);
  for (let i = 36; i <= 150; i++) c.applied(entry(i), view);
  t.equal(c.cut(20, 150, 55)?.index, 50, 'a hundred behind is not hopeless yet');
  t.equal(c.cut(50, 150, 49)?.index, 140, 'more is');
});
