/**
 * Rule 20 as stories: where only a device ends a node, the end of its lease is not the end of what its owners hold. The checkers
 * look on: nothing is granted without a lease, and nobody is granted beside such a hold before the machine is off.
 */
import t from 'tap';
import { EX, PR } from '../../src/protocol/modes.js';
import { Lab } from './lab.js';

function cutAll(lab: Lab): void {
  for (const a of lab.world.nodes) for (const b of lab.world.nodes) if (a !== b) lab.world.network.block(a.id, b.id);
}

function joinAll(lab: Lab): void {
  for (const a of lab.world.nodes) for (const b of lab.world.nodes) if (a !== b) lab.world.network.unblock(a.id, b.id);
}

function isSuspended(lab: Lab, node: number): boolean {
  return lab.world.node(node).life?.core.isSuspended === true;
}

t.test(
  'rule 20: without a quorum owners keep what they hold, nobody is granted anything, and all goes on afterwards',
  async (t) => {
    const lab = new Lab(3, { fence: [['script']] });
    const held = [1, 2, 3].map((id) => lab.hold(id, `own${id}`, EX));
    const vip = lab.hold(1, 'vip', EX, { nodeOwned: true });
    const shared = [1, 2].map((id) => lab.hold(id, 'shared', PR));
    const starts = lab.world.nodes.map((n) => n.disk.startCount);
    cutAll(lab);
    t.ok(lab.until(() => [1, 2, 3].every((id) => isSuspended(lab, id)), 3 * lab.leaseMs));
    const fresh = lab.ask(1, 'fresh', EX);
    const wanted = lab.ask(2, 'own2', EX);
    lab.advance(10 * lab.leaseMs);
    for (const o of [...held, vip, ...shared]) {
      t.equal(o.phase, 'held', o.key);
      t.ok(o.nodeOwned || (o.hold?.lease.until ?? 0) > lab.now, 'and its deadline is ahead');
    }
    t.equal(fresh.phase, 'waiting');
    t.equal(wanted.phase, 'waiting');
    // A release is always possible; who waits for it is granted later. A conversion is not.
    lab.world.node(2).owners.convert(shared[1] as (typeof held)[0], EX, false, 0);
    lab.advance(10);
    t.equal(shared[1]?.phase, 'held', 'refused');
    lab.world.node(2).owners.release(held[1] as (typeof held)[0]);
    lab.advance(lab.leaseMs);
    t.equal(wanted.phase, 'waiting');
    joinAll(lab);
    t.ok(lab.until(() => fresh.phase === 'held' && wanted.phase === 'held', 10 * lab.leaseMs));
    t.same([held[0]?.phase, held[2]?.phase, vip.phase], ['held', 'held', 'held']);
    t.same(
      lab.world.nodes.map((n) => n.disk.startCount),
      starts,
      'in the same incarnations',
    );
    t.notOk(lab.world.counts.get('lost'));
  },
);

t.test('rule 20: a node that is cut off alone keeps its locks until its machine is off, and loses them then', async (t) => {
  const lab = new Lab(3, { fence: [['script']], fenceMs: 5000 });
  const held = lab.hold(2, 'vip', EX);
  lab.isolate(2);
  const next = lab.ask(1, 'vip', EX);
  t.ok(lab.until(() => isSuspended(lab, 2), 3 * lab.leaseMs));
  t.equal(held.phase, 'held');
  t.ok(lab.until(() => next.phase === 'held', 30_000));
  t.ok((held.hold?.end ?? 0) <= lab.now, 'its machine was switched off before');
});

t.test('rule 20: with `self` among the levels, or a person alone, the lease is the end', async (t) => {
  for (const fence of [[['script'], ['self']], [['self']], [['manual']]]) {
    const lab = new Lab(3, { fence });
    const held = lab.hold(1, 'a', EX);
    cutAll(lab);
    t.ok(
      lab.until(() => held.phase === 'gone', 3 * lab.leaseMs),
      JSON.stringify(fence),
    );
    t.notOk(isSuspended(lab, 1));
  }
});

t.test('rule 20: a person as a further level changes nothing', async (t) => {
  const lab = new Lab(3, { fence: [['script'], ['manual']] });
  const held = lab.hold(1, 'a', EX);
  cutAll(lab);
  lab.advance(5 * lab.leaseMs);
  t.equal(held.phase, 'held');
});

t.test('rules 1, 11, 20: a daemon that dies suspended and is back at once still holds what its owners were told', async (t) => {
  // Two of three find each other again and lead; they know only that the last lease of the third is long over.
  const lab = new Lab(3, { fence: [['script']], fenceFail: 1 });
  const held = lab.hold(2, 'a', EX);
  const next = lab.ask(1, 'a', EX);
  cutAll(lab);
  lab.advance(4 * lab.leaseMs);
  t.ok(isSuspended(lab, 2));
  const { network } = lab.world;
  network.unblock(1, 3);
  network.unblock(3, 1);
  t.ok(lab.until(() => lab.leader !== 0, 10_000));
  const node = lab.world.node(2);
  const until = held.hold?.lease.until ?? 0;
  t.ok(until > lab.now, 'a deadline that the node told by itself');
  node.crash('test');
  node.start();
  for (const id of [1, 3]) {
    network.unblock(2, id);
    network.unblock(id, 2);
  }
  lab.advance(until + 1000 - lab.now);
  t.equal(next.phase, 'waiting');
  t.equal(node.life?.core.isMember, true);
  lab.world.node(2).owners.releaseAll();
  t.ok(lab.until(() => next.phase === 'held', 5000));
});
