/** A witness votes and owns nothing: two nodes and a third machine that is only asked who is there. */
import t from 'tap';
import { QUICK, world } from '../fixtures/e2e.js';
import { within } from '../fixtures/until.js';

const w = await world(t, { limits: QUICK, nodeLines: (id) => (id === 3 ? 'role = "witness"\n' : '') });
const [one, two] = [w.cluster.node(1), w.cluster.node(2)];

t.test('it is a member, in no domain, and refuses locks with a code of its own', async (t) => {
  const status = await w.cluster.status(3);
  t.equal(status.isMember, true);
  t.same(
    status.members.map((m) => [m.voter, m.witness]),
    [
      [true, false],
      [true, false],
      [true, true],
    ],
  );
  await t.rejects((await w.owner(3)).lock('x'), { code: 'TSDLM_WITNESS' });
  const run = await w.cluster.run(3, ['lock', 'x', '--', 'true']);
  t.equal(run.code, 77, run.stderr);
  const nodes = await w.cluster.run(1, ['nodes']);
  t.match(nodes.stdout, /n3 +in +witness/);
});

t.test('with its vote one node goes on when the other dies', async (t) => {
  const held = await (await w.owner(1)).lock('vip');
  const waiting = (await w.owner(2)).lock('vip');
  await w.waiting('vip', 1);
  await one.kill();
  const next = await within('the other is granted', waiting, 30_000);
  t.ok(next.token > held.token);
  await next.release();
  await one.restart(30_000);
  t.ok(two.isRunning);
});

await w.judge();
