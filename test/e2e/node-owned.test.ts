/** Locks that belong to the node, not to a program: nobody is left to be told `lost`, so they need more than a lease. */
import t, { type Test } from 'tap';
import { QUICK, world } from '../fixtures/e2e.js';
import { within } from '../fixtures/until.js';

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

t.test('with unsafe_node_owned they outlive their client, and a SIGKILL and restart of the daemon', async (t: Test) => {
  const w = await world(t, { limits: { ...QUICK, dead_ms: 30_000 }, extra: 'unsafe_node_owned = true\n' });
  const taken = await w.cluster.run(1, ['--json', 'lock', 'vip', '--ex', '--node-owned', '--why', 'service address']);
  t.equal(taken.code, 0, taken.stderr);
  const token = BigInt((JSON.parse(taken.stdout) as { token: string }).token);

  const other = await w.owner(2);
  let isGranted = false;
  const waiting = other.lock('vip').then((held) => {
    isGranted = true;
    return held;
  });
  await w.waiting('vip', 1, 3);
  const [holder] = (await w.cluster.show(3, 'vip')).holders;
  t.same([holder?.node.id, holder?.isNodeOwned, holder?.why], [1, true, 'service address']);
  await t.rejects((await w.owner(3)).lock('vip', 'PR', { try: true }), { code: 'TSDLM_CONFLICT' });

  await w.cluster.node(1).kill();
  await w.cluster.node(1).restart();
  // Asked of the returned daemon itself, so it has claimed what its journal says.
  await t.rejects((await w.owner(1)).lock('vip', 'PR', { try: true }), { code: /CONFLICT|UNAVAILABLE/ });
  const again = (await w.cluster.show(3, 'vip')).holders.map((h) => [h.node.id, h.isNodeOwned, h.token]);
  t.same(again, [[1, true, String(token)]], 'it is still the same grant');
  t.notOk(isGranted, 'and nobody else was granted meanwhile');

  const unlocked = await w.cluster.run(1, ['unlock', 'vip']);
  t.equal(unlocked.code, 0, unlocked.stderr);
  const next = await within('the waiter is granted', waiting);
  t.ok(next.token > token);
  await next.release();
  t.equal((await w.cluster.run(1, ['unlock', 'vip'])).code, 1, 'it is not held any more');
  await w.judge();
});
