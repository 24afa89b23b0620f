/** Two of three daemons die: the third grants nothing after its lease, tells its owners, and goes on when the others are back. */
import t from 'tap';
import { monotonicMs } from '../../src/client/index.js';
import { QUICK, QUICK_LIMITS, world } from '../fixtures/e2e.js';
import { until, within } from '../fixtures/until.js';

const w = await world(t, { limits: QUICK });

t.test('S4: a side without quorum grants nothing after its lease and tells its owners', async (t) => {
  const owner = await w.owner(1);
  const held = await owner.lock('kept');
  const suspended = new Promise<void>((resolve) => held.handle.on('suspended', () => resolve()));
  const mark = w.cluster.node(1).log.length;
  await Promise.all([w.cluster.node(2).kill(), w.cluster.node(3).kill()]);
  const killedAt = monotonicMs();

  await within('the owner hears that no renewal comes', suspended);
  t.equal((await within('the loss', held.lost)).code, 'TSDLM_LOST');
  t.ok(held.lostAt !== null && held.lostAt - killedAt < QUICK_LIMITS.leaseMs + 1000, 'the owner hears of its loss in time');
  t.ok(held.abortedAt !== null && held.lostAt !== null && held.abortedAt <= held.lostAt, 'after its signal');

  await until('the lease of the daemon is over', async () => (await w.cluster.status(1)).leaseLeftMs === 0);
  // A lock that this node mastered itself, one that nobody ever had, and a try.
  for (const name of ['kept', 'new']) {
    await t.rejects(owner.lock(name, 'EX', { timeout: QUICK_LIMITS.leaseMs }), { code: /TIMEOUT|UNAVAILABLE/ }, name);
  }
  await t.rejects(owner.lock('kept', 'PR', { try: true }), { code: 'TSDLM_UNAVAILABLE' }, 'cannot be decided: not a conflict');
  const status = await w.cluster.status(1);
  t.notOk(status.isMember);
  t.notOk(
    w.cluster
      .node(1)
      .log.slice(mark)
      .some((l) => l.event === 'view' && /fenced|fencing/.test(String(l.nodes))),
    'and it fenced nobody',
  );

  const waiting = owner.lock('kept');
  const back = Promise.all([w.cluster.node(2).restart(), w.cluster.node(3).restart()]);
  const again = await within('the waiting request is granted when there is a quorum', waiting, 30_000);
  await within('the others are members', back);
  t.ok(again.token > held.token);
  await again.release();
  for (const id of [1, 2, 3]) await (await within(`node ${id} grants`, (await w.owner(id)).lock('kept'))).release();
});

t.test('with one of three back there is a majority again', async (t) => {
  const held = await (await w.owner(1)).lock('two');
  await Promise.all([w.cluster.node(2).kill(), w.cluster.node(3).kill()]);
  await within('the loss', held.lost);
  await w.cluster.node(3).restart();
  const again = await within('two of three grant', (await w.owner(3)).lock('two'), 30_000);
  t.ok(again.token > held.token);
  await again.release();
});

await w.judge();
