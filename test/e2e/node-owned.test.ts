/** Locks that belong to the node, not to a program: nobody is left to be told `lost`, so they need more than a lease. */
import t from 'tap';
import { monotonicMs } from '../../src/client/index.js';
import type { LogLine } from '../fixtures/cluster.js';
import { QUICK, QUICK_LIMITS, TEST_LIMIT_MS, type World, world } from '../fixtures/e2e.js';
import type { Held } from '../fixtures/owner.js';
import { until, within } from '../fixtures/until.js';

t.test('rule 2: without a method that ends the machine they are refused, by library and command line', async (t) => {
  const w = await world(t, { nodes: 1, limits: QUICK });
  const owner = await w.owner(1);
  await t.rejects(owner.lock('vip', 'EX', { nodeOwned: true }), { code: 'TSDLM_NOT_ALLOWED' });
  const result = await w.cluster.run(1, ['lock', 'vip', '--ex', '--node-owned']);
  t.equal(result.code, 77);
  t.match(result.stderr, /TSDLM_NOT_ALLOWED/);
  t.match(result.stderr, /unsafe_node_owned/, 'and it says what would allow it');
  t.equal((await w.cluster.status(1)).nodeOwnedAllowed, false);
  await (await owner.lock('vip')).release();
});

t.setTimeout(TEST_LIMIT_MS);

async function owned(w: World, id: number, name: string): Promise<bigint> {
  const taken = await w.cluster.run(id, ['--json', 'lock', name, '--ex', '--node-owned', '--why', 'service address']);
  if (taken.code !== 0) throw new Error(taken.stderr);
  return BigInt((JSON.parse(taken.stdout) as { token: string }).token);
}

for (const { what, limits, isFenced } of [
  { what: 'at once', limits: { ...QUICK, dead_ms: 30_000 }, isFenced: false },
  // A lease that is long enough to come back within it, on a busy machine too.
  { what: 'so late that its fencing has begun', limits: { heartbeat_ms: 100, lease_ms: 5000, dead_ms: 600 }, isFenced: true },
]) {
  t.test(`with unsafe_node_owned they outlive their client, and a SIGKILL of the daemon, which comes back ${what}`, async (t) => {
    const w = await world(t, { limits, extra: 'unsafe_node_owned = true\n' });
    // Names that the survivors place at each of the three nodes when their master is gone.
    const names = ['vip', 'vip1', 'vip2'];
    const tokens = new Map<string, bigint>();
    for (const name of names) tokens.set(name, await owned(w, 1, name));
    const other = await w.owner(2);
    const granted = new Set<string>();
    const waiting = names.map((name) =>
      other.lock(name).then((held) => {
        granted.add(name);
        return held;
      }),
    );
    for (const name of names) await w.waiting(name, 1, 3);
    const [holder] = (await w.cluster.show(3, 'vip')).holders;
    t.same([holder?.node.id, holder?.isNodeOwned, holder?.why], [1, true, 'service address']);
    await t.rejects((await w.owner(3)).lock('vip', 'PR', { try: true }), { code: 'TSDLM_CONFLICT' });

    const marks = [2, 3].map((id) => w.cluster.node(id).log.length);
    await w.cluster.node(1).kill();
    if (isFenced) {
      const isFencing = (l: LogLine): boolean => l.event === 'view' && String(l.nodes).includes('n1:fencing');
      await Promise.all([2, 3].map((id, i) => w.cluster.node(id).waitLog('the fencing begins', isFencing, 15_000, marks[i])));
    }
    await w.cluster.node(1).restart(30_000);
    for (const name of names) {
      await until(`${name} is claimed again`, async () => {
        const shown = await w.cluster.show(3, name).catch(() => null);
        return shown?.holders[0]?.isNodeOwned === true;
      });
      const again = (await w.cluster.show(3, name)).holders.map((h) => [h.node.id, h.isNodeOwned, h.token]);
      t.same(again, [[1, true, String(tokens.get(name))]], `${name}: the same grant`);
    }
    await t.rejects((await w.owner(1)).lock('vip', 'PR', { try: true }), { code: 'TSDLM_CONFLICT' });
    t.same([...granted], [], 'nobody else was granted meanwhile');

    for (const [i, name] of names.entries()) {
      const unlocked = await w.cluster.run(1, ['unlock', name]);
      t.equal(unlocked.code, 0, unlocked.stderr);
      const next = await within('the waiter is granted', waiting[i] as Promise<Held>);
      t.ok(next.token > (tokens.get(name) ?? 0n));
      await next.release();
    }
    t.equal((await w.cluster.run(1, ['unlock', 'vip'])).code, 1, 'it is not held any more');
    await w.judge();
  });
}

t.test('with unsafe_node_owned a node that does not come back loses them with its lease', async (t) => {
  const w = await world(t, { limits: QUICK, extra: 'unsafe_node_owned = true\n' });
  t.ok(
    (await w.cluster.status(1)).warnings.some((text) => text.includes('unsafe_node_owned')),
    'the status says so',
  );
  const token = await owned(w, 1, 'vip');
  const waiting = (await w.owner(2)).lock('vip');
  await w.waiting('vip', 1, 3);
  const killedAt = monotonicMs();
  await w.cluster.node(1).kill();
  const held = await within('the grant', waiting, 30_000);
  t.ok(held.grantedAt - killedAt > QUICK_LIMITS.leaseMs / 2, 'not at once');
  t.ok(held.token > token);
  await held.release();

  await w.cluster.node(1).restart();
  await (await within('the returned node counts as one without locks', (await w.owner(1)).lock('vip'))).release();
  await w.judge();
});
