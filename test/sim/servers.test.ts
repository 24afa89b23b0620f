/**
 * Domains of policy `servers` as stories: lock servers that die, leave, lose their vote, and clients that go on holding.
 * The checkers look on all the time, the one that says who may master included.
 */
import t from 'tap';
import { EX, PR } from '../../src/protocol/modes.js';
import { Lab } from './lab.js';
import type { SimOptions } from './options.js';

/** Servers 1 to `servers`, clients above. */
function labOf(nodes: number, servers: number, more: Partial<SimOptions> = {}): Lab {
  return new Lab(nodes, { voters: servers, mastery: 'servers', ...more });
}

function masterOf(lab: Lab, name: string): number {
  for (const { from, msg } of [...lab.seen].reverse()) {
    if (msg.k === 'MasterReply' && msg.name === name && msg.answer === 1) return from;
  }
  return 0;
}

function after(a: [number, number], b: [number, number]): boolean {
  return b[0] > a[0] || (b[0] === a[0] && b[1] > a[1]);
}

t.test('rule 9: only the yes of the master is believed, and only servers are asked', async (t) => {
  const lab = labOf(6, 3);
  const names = ['a', 'b', 'c', 'd', 'e'];
  for (const name of names) lab.hold(5, name, PR);
  for (const name of names) lab.hold(6, name, PR);
  for (const { to, msg } of lab.seen) if (msg.k === 'MasterRequest') t.ok(to <= 3, `asked n${to}`);
  for (const { from, msg } of lab.seen) if (msg.k === 'MasterReply' && msg.answer === 1) t.ok(from <= 3, `n${from} says yes`);
  t.notOk(lab.seen.some(({ msg }) => msg.k === 'AssertMaster'));
  for (const name of names) t.ok(masterOf(lab, name) > 0);
});

t.test('one server (SLM): while it is down nothing is granted, nothing is forgotten, and it goes on where it was', async (t) => {
  const lab = labOf(3, 1, { fence: [['script']] });
  const held = lab.hold(2, 'a', EX);
  const waiting = lab.ask(3, 'a', EX);
  lab.advance(100);
  const before = lab.token(held);
  const server = lab.world.node(1);
  server.powerOff('test');
  const fresh = lab.ask(3, 'fresh', EX);
  lab.advance(4 * lab.leaseMs);
  t.strictSame(
    [held.phase, waiting.phase, fresh.phase],
    ['held', 'waiting', 'waiting'],
    'suspended: only a device ends a node here',
  );
  server.start();
  t.ok(lab.until(() => fresh.phase === 'held', 6 * lab.leaseMs));
  t.equal(waiting.phase, 'waiting');
  lab.release(held);
  t.ok(lab.until(() => waiting.phase === 'held', lab.leaseMs));
  t.ok(after(before, lab.token(waiting)));
});

t.test('three servers (RLM): the one that leads and masters dies; a waiter gets its lock from another', async (t) => {
  for (const seed of [1, 2, 3, 4]) {
    const lab = labOf(5, 3, { seed, fence: [['script']] });
    const { leader } = lab;
    t.ok(leader >= 1 && leader <= 3);
    const name = Array.from({ length: 50 }, (_, i) => `n${i}`).find((n) => {
      lab.hold(4, n, EX);
      return masterOf(lab, n) === leader;
    }) as string;
    const held = [...lab.world.node(4).owners.all].find((o) => o.name === name && o.phase === 'held');
    const waiting = lab.ask(5, name, EX);
    lab.advance(100);
    lab.world.node(leader).powerOff('test');
    t.ok(lab.until(() => lab.leader !== leader && lab.leader !== 0, 5 * lab.leaseMs));
    lab.advance(4 * lab.leaseMs);
    t.equal(held?.phase, 'held');
    t.equal(waiting.phase, 'waiting');
    if (held) lab.release(held);
    t.ok(lab.until(() => waiting.phase === 'held', lab.leaseMs));
    const first = lab.seen.findLast(({ to, msg }) => to === 5 && msg.k === 'Grant')?.from ?? 0;
    t.ok(first >= 1 && first <= 3 && first !== leader);
  }
});

t.test('rule 17: a vote that is taken makes a new epoch; its holder hands its names over and keeps its own locks', async (t) => {
  const lab = labOf(4, 3);
  const victim = [1, 2, 3].find((id) => id !== lab.leader) as number;
  const name = Array.from({ length: 50 }, (_, i) => `n${i}`).find((n) => {
    lab.hold(4, n, PR);
    return masterOf(lab, n) === victim;
  }) as string;
  const own = lab.hold(victim, name, PR);
  const before = lab.epoch(lab.leader);
  const leader = lab.world.node(lab.leader);
  t.ok(
    lab.until(() => {
      const { life } = leader;
      let taken = false;
      if (life) {
        leader.call(life, (core, now) => {
          taken = core.changeTable(now, { c: 'voter', table: core.view.table, node: victim, on: false }).what === 'taken';
        });
      }
      return taken;
    }, 4 * lab.leaseMs),
    'the leader takes the vote away',
  );
  lab.seen.length = 0;
  t.ok(lab.until(() => lab.epoch(4) > before && lab.epoch(victim) > before, lab.leaseMs));
  const writer = lab.ask(4, name, EX);
  t.ok(lab.until(() => lab.seen.some(({ msg }) => msg.k === 'Bast'), lab.leaseMs));
  t.equal(own.phase, 'held');
  for (const { from, msg } of lab.seen) if (msg.k === 'Bast' || msg.k === 'Grant') t.not(from, victim, `${msg.k} of n${from}`);
  lab.release(own);
  for (const o of [...lab.world.node(4).owners.all]) if (o.name === name && o !== writer) lab.release(o);
  t.ok(lab.until(() => writer.phase === 'held', lab.leaseMs));
});

t.test('rule 2: a node-owned lock stays with a client through the death of all servers', async (t) => {
  const lab = labOf(4, 1, { fence: [['script']] });
  const vip = lab.hold(2, 'vip', EX, { nodeOwned: true });
  const next = lab.ask(3, 'vip', EX);
  for (let i = 0; i < 2; i++) {
    lab.world.node(1).powerOff('test');
    lab.advance(2 * lab.leaseMs);
    t.equal(vip.phase, 'held');
    lab.world.node(1).start();
    lab.advance(3 * lab.leaseMs);
    t.strictSame([vip.phase, next.phase], ['held', 'waiting']);
  }
  lab.release(vip);
  t.ok(lab.until(() => next.phase === 'held', 3 * lab.leaseMs));
});
