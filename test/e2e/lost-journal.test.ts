/** A node that lost its state directory has forgotten what it promised: it says so, does not vote, and waits for an operator. */
import { renameSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { QUICK, QUICK_LIMITS, world } from '../fixtures/e2e.js';
import { until, within } from '../fixtures/until.js';

const w = await world(t, { limits: QUICK });

t.test('S5: a wiped state directory is no majority; the old one put back is welcome', async (t) => {
  const [one, two, three] = [w.cluster.node(1), w.cluster.node(2), w.cluster.node(3)];
  const first = await (await w.owner(1)).lock('before');
  await first.release();
  const state = join(three.dir, 'state');
  await three.kill();
  renameSync(state, `${state}.away`);

  const since = three.log.length;
  three.start();
  const said = await three.waitLog('it says so', (l) => l.code === 'TSDLM_JOURNAL_LOST', 15_000, since);
  t.match(said.text, /state directory was lost or replaced.*[Pp]ut the old state directory back/s, 'with the way out');
  await (await within('the others go on', (await w.owner(2)).lock('before'))).release();
  t.equal((await w.cluster.status(3)).isMember, false);

  // Two of three processes run, but only one of them remembers: that is no majority.
  await two.kill();
  const owner = await w.owner(1);
  await until('the lease of the last one is over', async () => (await w.cluster.status(1)).leaseLeftMs === 0);
  await t.rejects(owner.lock('before', 'EX', { timeout: 2 * QUICK_LIMITS.leaseMs }), { code: /TIMEOUT|UNAVAILABLE/ });
  t.notOk(
    three.log.slice(since).some((l) => l.event === 'leader' || l.event === 'joined'),
    'it neither led nor joined',
  );

  await three.kill();
  rmSync(state, { recursive: true });
  renameSync(`${state}.away`, state);
  await three.restart(30_000);
  const after = await within('with its memory it is a majority again', owner.lock('before'), 30_000);
  t.ok(after.token > first.token);
  await after.release();
  await two.restart();
  t.ok(one.isRunning);
});

await w.judge();
