/** The links follow the node table: who is added is let in, whose number was removed is refused and cut off, who moved is dialled anew. */
import t from 'tap';
import { Cluster, until } from './peer-helpers.js';

t.test('a node is let in once it is in the table, and cut off when it is removed for good', async (t) => {
  const c = new Cluster(t, 2);
  let removed: string | undefined;
  const table = { clusterId: () => 'id', removed: (id: number) => (id === 2 ? removed : undefined) };
  const a = await c.add(1, { ...table, nodes: c.nodes.slice(0, 1) });
  const b = await c.add(2, { clusterId: () => 'id' });
  const refusals = (code: string) => b.log.filter((l) => l.data.code === code).length;
  await until('it is refused', () => refusals('TSDLM_UNKNOWN_NODE') > 0);
  t.equal(a.ups.length, 0);
  a.net.setNodes(c.nodes);
  await until('both are up', () => a.net.isUp(2) && b.net.isUp(1));
  a.net.setNodes(c.nodes.slice(0, 1));
  t.ok(a.net.isUp(2), 'a log that lags cuts nobody off');
  removed = 'n2';
  a.net.setNodes(c.nodes.slice(0, 1));
  await until('it is down', () => a.downs.length === 1 && b.downs.length === 1);
  await until('it is told why', () => refusals('TSDLM_NODE_REMOVED') > 0);
  t.notOk(a.net.isUp(2));
});

t.test('a new node takes a member that its configuration does not name, and moves to where a node is reached', async (t) => {
  const c = new Cluster(t, 3);
  const one = c.nodes[0] ?? t.fail('no node');
  const two = await c.add(2, { clusterId: () => '', nodes: c.nodes.slice(1, 2) });
  const three = await c.add(3, { clusterId: () => 'id' });
  await until('the member dials, and is taken', () => two.net.isUp(3) && three.net.isUp(2));
  const first = await c.add(1, { clusterId: () => 'id' });
  if (typeof one === 'boolean') return;
  two.net.setNodes([{ ...one, port: 1 }, ...c.nodes.slice(1)]);
  await until('nobody is there', () => two.log.some((l) => l.event === 'peer_dial_failed'));
  two.net.setNodes([one, ...c.nodes.slice(1)]);
  await until('it is found where it is', () => two.net.isUp(1) && first.net.isUp(2));
  t.same(
    two.net
      .status()
      .map((s) => s.name)
      .sort(),
    ['n1', 'n3'],
  );
});

t.test('of two that know the cluster, another cluster or another name is refused', async (t) => {
  const c = new Cluster(t, 3);
  const a = await c.add(1, { clusterId: () => 'one' });
  await c.add(2, { clusterId: () => 'two' });
  await until('another cluster', () => a.log.some((l) => l.data.code === 'TSDLM_WRONG_CLUSTER'));
  await c.add(3, { clusterId: () => 'one', nodes: c.nodes.map((n) => (n.id === 3 ? { ...n, name: 'other' } : n)) });
  await until('another name', () => a.log.some((l) => l.data.code === 'TSDLM_CONFIG_MISMATCH'));
  t.same(a.ups, []);
});

t.test('limits and configurations are compared only where nobody knows the cluster yet', async (t) => {
  const c = new Cluster(t, 2);
  const a = await c.add(1, { clusterId: () => 'id' });
  const b = await c.add(2, { clusterId: () => '', configSum: 'other' });
  await until('a node with an older copy is taken', () => a.net.isUp(2) && b.net.isUp(1));
  t.equal(a.ups.length, 1);
});
