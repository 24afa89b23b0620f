/** A daemon that is stopped past its lease (a debugger, a pause, no CPU): it must not go on as if nothing had happened. */
import t from 'tap';
import { monotonicMs } from '../../src/client/index.js';
import { QUICK, QUICK_LIMITS, world } from '../fixtures/e2e.js';
import { until, within } from '../fixtures/until.js';

const { leaseMs, marginMs } = QUICK_LIMITS;

const w = await world(t, { limits: QUICK });

async function stopAndWake(victim: number, others: [number, number]): Promise<void> {
  await t.test(`SIGSTOP of node ${victim} past its lease, then SIGCONT`, async (t) => {
    const node = w.cluster.node(victim);
    const name = `stopped ${victim}`;
    const owner = await w.owner(victim);
    const held = await owner.lock(name);
    const behind = await w.owner(others[0]);
    const waiting = behind.lock(name);
    await w.waiting(name, 1, others[1]);
    const before = await w.cluster.status(victim);
    const since = node.log.length;

    node.signal('SIGSTOP');
    const stoppedAt = monotonicMs();
    const next = await within('the lock is granted elsewhere', waiting, leaseMs + marginMs + 20_000);
    t.ok(held.lostAt !== null && held.lostAt < next.grantedAt, 'the client of the stopped daemon had lost it before');
    t.ok(held.abortedAt !== null && held.lostAt !== null && held.abortedAt <= held.lostAt, 'and was warned');
    t.notOk(held.handle.valid());
    t.ok(next.grantedAt >= held.handle.deadline, 'not before the deadline that was told');
    t.comment(`granted elsewhere ${(next.grantedAt - stoppedAt).toFixed(0)} ms after SIGSTOP`);

    node.signal('SIGCONT');
    await node.joined(since);
    await until('it counts as a member everywhere', async () => {
      const seen = await Promise.all([1, 2, 3].map((id) => w.cluster.status(id)));
      return seen.every((s) => s.members.every((m) => m.state === 'in'));
    });
    const after = await w.cluster.status(victim);
    t.ok(after.startCount > before.startCount, `a new incarnation: ${before.startCount} -> ${after.startCount}`);
    t.equal(after.pid, before.pid, 'of the same process');
    t.ok(next.handle.valid(), 'the new holder was not disturbed');

    const again = owner.lock(name);
    await w.waiting(name, 1, others[1]);
    await next.release();
    const back = await within('locks work there again', again);
    t.ok(back.token > next.token);
    await back.release();
  });
}

const leader = await w.cluster.leader();
const [a, b] = [1, 2, 3].filter((id) => id !== leader) as [number, number];
await stopAndWake(a, [b, leader]);
await stopAndWake(leader, [a, b]);

await t.test('a stop well within the lease costs nobody anything', async (t) => {
  const held = await (await w.owner(a)).lock('short stop');
  const before = await w.cluster.status(a);
  w.cluster.node(a).signal('SIGSTOP');
  const stoppedAt = monotonicMs();
  await until('a fifth of the lease', () => monotonicMs() - stoppedAt > leaseMs / 5);
  w.cluster.node(a).signal('SIGCONT');
  const after = await w.cluster.status(a);
  t.equal(after.startCount, before.startCount);
  t.ok(held.handle.valid());
  await held.release();
});

await w.judge();
