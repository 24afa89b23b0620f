/** A daemon that dies with its clients' locks: the others wait until its lease is certainly over, and not much longer. */
import t, { type Test } from 'tap';
import { monotonicMs } from '../../src/client/index.js';
import { DEFAULT_LIMITS, world } from '../fixtures/e2e.js';
import { within } from '../fixtures/until.js';

const { leaseMs, marginMs } = DEFAULT_LIMITS;
/** The promise: lease + margin + 1 s after the death. */
const TAKE_OVER_MS = leaseMs + marginMs + 1000;
/** On top of it, for a test machine that is busy with other things. */
const SLACK_MS = 1000;

// The default limits, because it is for them that the promise names a number.
const w = await world(t);

async function takeOver(t: Test, victim: number, waiterNode: number, thirdNode: number): Promise<void> {
  const name = (what: string): string => `${what} of n${victim}`;
  const waiterOwner = await w.owner(waiterNode);
  // One lock that the victim masters, and one that it only holds.
  const reference = await (await w.owner(thirdNode)).lock(name('elsewhere'), 'NL');
  t.teardown(() => reference.release());
  const owner = await w.owner(victim);
  const held = await Promise.all([owner.lock(name('own'), 'EX', { lvb: true }), owner.lock(name('elsewhere'))]);
  await held[0].handle.writeLvb(Buffer.alloc(64, 'x'));
  t.equal((await w.cluster.show(waiterNode, name('own'))).master?.id, victim);
  t.equal((await w.cluster.show(waiterNode, name('elsewhere'))).master?.id, thirdNode);
  const waiting = held.map((h) => waiterOwner.lock(h.handle.name, 'EX', { lvb: true }));
  for (const h of held) await w.waiting(h.handle.name, 1, waiterNode);

  const killedAt = monotonicMs();
  await w.cluster.node(victim).kill();
  const granted = await within('the locks are granted elsewhere', Promise.all(waiting), TAKE_OVER_MS + 20_000);
  for (const [i, next] of granted.entries()) {
    const last = held[i];
    if (!last) throw new Error('no such hold');
    const tookMs = next.grantedAt - killedAt;
    t.ok(next.grantedAt >= last.handle.deadline, 'not before the deadline that the holder was told');
    t.ok(last.lostAt !== null && last.lostAt < next.grantedAt, `the holder heard of its loss before (${last.lostAt})`);
    t.ok(last.abortedAt !== null && last.lostAt !== null && last.abortedAt <= last.lostAt, 'and its signal fired before that');
    t.ok(tookMs <= TAKE_OVER_MS + SLACK_MS, `after ${tookMs.toFixed(0)} ms, promised are ${TAKE_OVER_MS} ms`);
    t.comment(`take-over of '${next.handle.name}' after ${tookMs.toFixed(0)} ms`);
    // The only copy of the value died with the daemon: that is said, and nothing old or blank is shown for it (S3).
    if (i === 0) t.same([next.handle.lvbState, next.handle.lvb], ['invalid', null]);
    await next.release();
  }
  await w.cluster.node(victim).restart();
  const back = await within('the same client is granted again by the returned daemon', owner.lock(name('own')));
  await back.release();
}

t.test('kill -9 of the daemon of a holder', async (t) => {
  const leader = await w.cluster.leader();
  const [victim, other] = [1, 2, 3].filter((id) => id !== leader) as [number, number];
  await takeOver(t, victim, other, leader);
});

t.test('kill -9 of the daemon of a holder that leads the cluster', async (t) => {
  const leader = await w.cluster.leader();
  const [a, b] = [1, 2, 3].filter((id) => id !== leader) as [number, number];
  await takeOver(t, leader, a, b);
});

await w.judge();
