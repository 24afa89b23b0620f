/** What each command does to a view, and that it does nothing when it is not (any more) about the incarnation it names. */

import fc from 'fast-check';
import t from 'tap';
import { mayPropose, parseCommand } from '../../src/membership/commands.js';
import { limitValues } from '../../src/membership/limits-in-force.js';
import { deriveTimeLimits } from '../../src/membership/time-limits.js';
import type { Command, NodeConfig, View } from '../../src/membership/types.js';
import { applyCommand, initialView } from '../../src/membership/view.js';
import { parseView } from '../../src/membership/view-check.js';
import { votersOf } from '../../src/membership/voter-set.js';
import { EPOCH_MAX } from '../../src/protocol/ids.js';
import { DOMAINS_MAX } from '../../src/protocol/limits.js';

const limits = limitValues(deriveTimeLimits());
const config = (ids: number[]): NodeConfig[] => ids.map((id) => ({ id, name: `n${id}`, voter: true, fence: [['self']] }));

function inc(node: number, startCount: number, boot = 'b1', machine = 'm') {
  return { bootId: `${boot}-${node}`, machineId: `${machine}-${node}`, startCount, journalId: `j${node}` };
}
const join = (node: number, startCount: number, boot = 'b1', machine = 'm'): Command => ({
  c: 'join',
  node,
  inc: inc(node, startCount, boot, machine),
  keeps: false,
});

function after(...commands: Command[]): View {
  return commands.reduce(applyCommand, initialView(config([3, 1, 2]), ''));
}

const stateOf = (view: View, id: number) => view.nodes.find((n) => n.id === id)?.state;
const membersOf = (view: View, dom: number) =>
  view.domains.find((d) => d.dom === dom)?.members.map((m) => [m.node, m.startCount, m.continues]);
const leavingOf = (view: View, dom: number) => view.domains.find((d) => d.dom === dom)?.leaving.map((m) => m.node);

t.test('the first view: nodes sorted, all out, no domain', async (t) => {
  const view = initialView(config([3, 1, 2]), 'c');
  t.same(
    view.nodes.map((n) => [n.id, n.state]),
    [
      [1, 'out'],
      [2, 'out'],
      [3, 'out'],
    ],
  );
  t.match(view, { epoch: 0, clusterId: 'c', domains: [], nextDom: 1 });
});

t.test('a join makes an epoch and puts the node into domain 1, which the first one creates', async (t) => {
  const view = after(join(2, 1), join(1, 4));
  t.equal(view.epoch, 2);
  t.match(view.domains, [{ dom: 1, name: 'default', epoch: 2 }]);
  t.same(membersOf(view, 1), [
    [1, 4, 0],
    [2, 1, 0],
  ]);
  t.equal(stateOf(view, 1), 'in');
});

t.test('the next incarnation on the same boot continues the old one in all its domains', async (t) => {
  const base = after(
    join(1, 1),
    join(2, 1),
    { c: 'domainJoin', node: 1, startCount: 1, name: 'web', mastery: 'peer' },
    { c: 'nodeOwned', node: 1, startCount: 1, on: true },
  );
  const view = applyCommand(base, join(1, 2));
  t.same(membersOf(view, 1), [
    [1, 2, 1],
    [2, 1, 0],
  ]);
  t.same(membersOf(view, 2), [[1, 2, 1]]);
  t.equal(view.nodes[0]?.nodeOwned, true);
  t.same(
    view.domains.map((d) => d.epoch),
    [view.epoch, view.epoch],
  );
});

t.test('rule 12: the next incarnation after a reboot continues nothing: it is in the default domain only', async (t) => {
  const base = after(
    join(1, 1),
    join(2, 1),
    { c: 'domainJoin', node: 1, startCount: 1, name: 'web', mastery: 'peer' },
    { c: 'nodeOwned', node: 1, startCount: 1, on: true },
  );
  for (const command of [join(1, 2, 'b2'), join(1, 2, 'b1', 'other')]) {
    const view = applyCommand(base, command);
    t.same(membersOf(view, 1)?.[0], [1, 2, 0]);
    t.same(membersOf(view, 2), []);
    t.equal(view.domains[1]?.epoch, view.epoch);
    t.equal(view.nodes[0]?.nodeOwned, false);
  }
});

t.test('a join is ignored for an old start count, another journal, and while the node is being ended or leaves', async (t) => {
  const base = after(join(1, 3));
  t.equal(applyCommand(base, join(1, 3)), base);
  t.equal(applyCommand(base, join(1, 2)), base);
  t.equal(applyCommand(base, { c: 'join', node: 1, inc: { ...inc(1, 9), journalId: 'x' }, keeps: false }), base);
  t.equal(applyCommand(base, join(9, 1)), base);
  const fencing = applyCommand(base, { c: 'fencing', node: 1, startCount: 3, reason: '' });
  t.equal(applyCommand(fencing, { c: 'join', node: 1, inc: { ...inc(1, 4), bootId: 'other' }, keeps: false }), fencing);
  t.same(membersOf(applyCommand(fencing, join(1, 4)), 1), [[1, 4, 3]], 'on the same boot, where only its lease ends it');
  const fenced = applyCommand(fencing, { c: 'fenced', node: 1, startCount: 3, method: 'self' });
  t.equal(applyCommand(fenced, join(1, 4)), fenced);
  const leaving = applyCommand(base, { c: 'nodeLeave', node: 1, startCount: 3 });
  t.equal(applyCommand(leaving, join(1, 4)), leaving);
  const evicted = applyCommand(fenced, { c: 'evicted', node: 1, startCount: 3 });
  t.equal(applyCommand(evicted, join(1, 3)), evicted);
  t.same(membersOf(applyCommand(evicted, join(1, 4)), 1), [[1, 4, 0]], 'an evicted one comes back, continuing nothing');
});

t.test('the gate: each step only from the one before, and only for its incarnation', async (t) => {
  const about = { node: 1, startCount: 1 };
  const steps: Command[] = [
    { c: 'suspect', ...about },
    { c: 'fencing', ...about, reason: 'silent' },
    { c: 'fenced', ...about, method: 'dev' },
    { c: 'evicted', ...about },
  ];
  let view = after(join(1, 1), join(2, 1), { c: 'domainJoin', node: 1, startCount: 1, name: 'web', mastery: 'peer' });
  for (const [i, step] of steps.entries()) {
    const other = applyCommand(view, { ...step, startCount: 7 } as Command);
    t.equal(other, view, `${step.c} of another incarnation`);
    const early = steps[i + 2];
    if (early !== undefined) t.equal(applyCommand(view, early), view, `${early.c} comes too early`);
    const { epoch } = view;
    view = applyCommand(view, step);
    t.equal(view.epoch, step.c === 'fenced' ? epoch + 1 : epoch, `${step.c} and the epoch`);
    t.equal(applyCommand(view, step), view, `${step.c} twice`);
  }
  t.equal(stateOf(view, 1), 'evicted');
  t.same(membersOf(view, 1), [[2, 1, 0]]);
  t.same(membersOf(view, 2), []);
});

t.test('alive brings a suspect back, nothing brings back who is in fencing', async (t) => {
  const about = { node: 1, startCount: 1 };
  const suspect = after(join(1, 1), { c: 'suspect', ...about });
  t.equal(stateOf(applyCommand(suspect, { c: 'alive', ...about }), 1), 'in');
  const fencing = applyCommand(suspect, { c: 'fencing', ...about, reason: '' });
  t.equal(applyCommand(fencing, { c: 'alive', ...about }), fencing);
});

t.test('leaving: first to leaving in all domains, then out of them', async (t) => {
  const about = { node: 1, startCount: 1 };
  let view = after(join(1, 1), join(2, 1), { c: 'domainJoin', ...about, name: 'web', mastery: 'peer' });
  view = applyCommand(view, { c: 'nodeLeave', ...about });
  t.same([membersOf(view, 1), leavingOf(view, 1), leavingOf(view, 2)], [[[2, 1, 0]], [1], [1]]);
  t.equal(stateOf(view, 1), 'leaving');
  const { epoch } = view;
  view = applyCommand(view, { c: 'nodeLeft', ...about });
  t.equal(view.epoch, epoch + 1);
  t.same([leavingOf(view, 1), leavingOf(view, 2), stateOf(view, 1)], [[], [], 'left']);
  t.equal(applyCommand(view, join(1, 1)), view);
  t.equal(stateOf(applyCommand(view, join(1, 2)), 1), 'in');
});

t.test('domains: join creates, leave goes in two steps, numbers are never reused, default is not left', async (t) => {
  const about = { node: 1, startCount: 1 };
  let view = after(join(1, 1), { c: 'domainJoin', ...about, name: 'web', mastery: 'peer' });
  t.equal(applyCommand(view, { c: 'domainJoin', ...about, name: 'web', mastery: 'peer' }), view);
  t.equal(applyCommand(view, { c: 'domainLeave', ...about, dom: 1 }), view);
  t.equal(applyCommand(view, { c: 'domainLeft', ...about, dom: 2 }), view);
  view = applyCommand(view, { c: 'domainLeave', ...about, dom: 2 });
  t.same([membersOf(view, 2), leavingOf(view, 2), view.domains[1]?.epoch], [[], [1], view.epoch]);
  t.equal(applyCommand(view, { c: 'domainJoin', ...about, name: 'web', mastery: 'peer' }), view, 'not before it is out');
  view = applyCommand(view, { c: 'domainLeft', ...about, dom: 2 });
  t.same(leavingOf(view, 2), []);
  view = applyCommand(view, { c: 'domainJoin', ...about, name: 'db', mastery: 'peer' });
  t.equal(view.domains[2]?.dom, 3);
});

t.test('domains are bounded: when all are taken an empty one makes room, else the join is ignored', async (t) => {
  const about = { node: 1, startCount: 1 };
  let view = after(join(1, 1));
  for (let i = view.domains.length; i < DOMAINS_MAX; i++)
    view = applyCommand(view, { c: 'domainJoin', ...about, name: `d${i}`, mastery: 'peer' });
  t.equal(view.domains.length, DOMAINS_MAX);
  t.equal(applyCommand(view, { c: 'domainJoin', ...about, name: 'one more', mastery: 'peer' }), view);
  view = applyCommand(view, { c: 'domainLeave', ...about, dom: 7 });
  view = applyCommand(view, { c: 'domainLeft', ...about, dom: 7 });
  view = applyCommand(view, { c: 'domainJoin', ...about, name: 'one more', mastery: 'peer' });
  t.equal(view.domains.length, DOMAINS_MAX);
  t.equal(view.domains.at(-1)?.dom, DOMAINS_MAX + 1);
  t.ok(parseView(view) !== null);
});

t.test('rule 25: bump makes a new domain epoch, but only from the one it names', async (t) => {
  const view = after(join(1, 1), join(2, 1));
  const bumped = applyCommand(view, { c: 'bump', dom: 1, epoch: 2 });
  t.same([bumped.epoch, bumped.domains[0]?.epoch], [3, 3]);
  t.equal(applyCommand(bumped, { c: 'bump', dom: 1, epoch: 2 }), bumped);
  t.equal(applyCommand(bumped, { c: 'bump', dom: 9, epoch: 3 }), bumped);
});

t.test('rule 17: a node whose token counter runs high gets a new epoch, once; the last epoch never carries', async (t) => {
  const view = after(join(1, 1));
  const next = applyCommand(view, { c: 'epoch', epoch: 1 });
  t.same([next.epoch, next.domains[0]?.epoch], [2, 1]);
  t.equal(applyCommand(next, { c: 'epoch', epoch: 1 }), next);
  const last: View = { ...view, epoch: EPOCH_MAX };
  for (const command of [
    join(1, 2),
    join(2, 1),
    { c: 'epoch', epoch: EPOCH_MAX },
    { c: 'nodeLeave', node: 1, startCount: 1 },
  ] as Command[]) {
    t.equal(applyCommand(last, command), last, command.c);
  }
});

t.test('the cluster is named once', async (t) => {
  const view = after({ c: 'cluster', id: 'one', nodes: config([2, 7]), journals: {}, limits, mastery: 'peer' });
  t.equal(view.clusterId, 'one');
  t.equal(applyCommand(view, { c: 'cluster', id: 'two', nodes: config([1]), journals: {}, limits, mastery: 'peer' }), view);
  t.same(
    view.nodes.map((n) => [n.id, n.state]),
    [
      [2, 'out'],
      [7, 'out'],
    ],
    'its nodes are those of the command, whatever this node was configured with',
  );
});

t.test('a vote is given or taken only in the version of the table that the command names', async (t) => {
  const view = after();
  const next = applyCommand(view, { c: 'voter', table: view.table, node: 2, on: false });
  t.same(next.table, view.table + 1);
  t.same(votersOf(next), [1, 3]);
  t.equal(applyCommand(next, { c: 'voter', table: view.table, node: 3, on: false }), next, 'made for another version: void');
  t.equal(applyCommand(next, { c: 'voter', table: next.table, node: 2, on: false }), next, 'changes nothing: no new version');
  t.equal(applyCommand(next, { c: 'voter', table: next.table, node: 9, on: true }), next, 'no such node');
});

t.test('servers: a domain of that policy has the members that vote as servers of its epoch', async (t) => {
  const nodes = config([1, 2, 3]).map((n) => ({ ...n, voter: n.id !== 3 }));
  const cluster: Command = { c: 'cluster', id: 'x', nodes, mastery: 'servers', journals: {}, limits };
  const servers = (v: View, dom = 1) => v.domains.find((d) => d.dom === dom)?.servers;
  let view = [cluster, join(3, 1), join(2, 1), join(1, 1)].reduce(applyCommand, initialView(nodes, ''));
  t.same(view.domains[0]?.mastery, 'servers', 'of the domain default the first command decides');
  t.same(servers(view), [1, 2]);
  view = applyCommand(view, { c: 'nodeLeave', node: 1, startCount: 1 });
  t.same(servers(view), [2], 'a leaving node masters nothing');
  t.equal(view.domains[0]?.epoch, view.epoch);
  const promoted = applyCommand(view, { c: 'voter', table: view.table, node: 3, on: true });
  t.same(
    [servers(promoted), promoted.epoch, promoted.domains[0]?.epoch],
    [[2, 3], view.epoch + 1, view.epoch + 1],
    'a vote that is given or taken makes a new epoch of the domain',
  );
  t.ok(parseView(promoted));
  t.notOk(parseView({ ...promoted, domains: promoted.domains.map((d) => ({ ...d, mastery: 'pear' })) }));
});

t.test('servers: the policy of a domain is for as long as anybody is in it', async (t) => {
  const web = (node: number, mastery: 'peer' | 'servers'): Command => ({
    c: 'domainJoin',
    node,
    startCount: 1,
    name: 'web',
    mastery,
  });
  let view = after(join(1, 1), join(2, 1), web(1, 'servers'));
  t.match(view.domains[1], { name: 'web', mastery: 'servers', servers: [1, 2] }, 'whoever votes serves it from the first moment');
  view = applyCommand(view, join(3, 1));
  t.match(view.domains[1], { servers: [1, 2, 3], epoch: view.epoch }, 'and from its join on');
  view = [{ c: 'nodeLeave', node: 3, startCount: 1 } as const, { c: 'nodeLeft', node: 3, startCount: 1 } as const].reduce(
    (v: View, c: Command) => applyCommand(v, c),
    view,
  );
  view = { ...view, nodes: view.nodes.map((n) => ({ ...n, voter: n.id !== 2 })) };
  t.equal(applyCommand(view, web(2, 'peer')).domains[1]?.mastery, 'servers', 'nobody comes in with another');
  const dom = view.domains[1]?.dom ?? 0;
  view = { ...view, nodes: view.nodes.map((n) => ({ ...n, voter: false })) };
  for (const node of [1, 2]) {
    view = applyCommand(view, { c: 'domainLeave', node, startCount: 1, dom });
    view = applyCommand(view, { c: 'domainLeft', node, startCount: 1, dom });
  }
  view = applyCommand(view, web(2, 'peer'));
  t.match(view.domains[1], { name: 'web', mastery: 'peer', servers: [] });
  t.not(view.domains[1]?.dom, dom, 'an empty one is made anew, under a new number');
});

const about = { node: fc.integer({ min: 1, max: 4 }), startCount: fc.integer({ min: 1, max: 3 }) };
const anyCommand: fc.Arbitrary<Command> = fc.oneof(
  fc.record({
    c: fc.constant('join' as const),
    node: about.node,
    inc: fc.record({
      bootId: fc.constantFrom('a', 'b'),
      machineId: fc.constantFrom('m', 'm', 'n'),
      startCount: about.startCount,
      journalId: fc.constant('j'),
    }),
    keeps: fc.boolean(),
  }),
  fc.record({ c: fc.constantFrom('nodeRestart', 'settled'), ...about }) as fc.Arbitrary<Command>,
  fc.record({
    c: fc.constant('restarting' as const),
    ...about,
    forMs: fc.constantFrom(0, 1000),
    epoch: fc.integer({ min: 0, max: 20 }),
  }),
  fc.record({ c: fc.constantFrom('suspect', 'alive', 'evicted', 'nodeLeave', 'nodeLeft'), ...about }) as fc.Arbitrary<Command>,
  fc.record({ c: fc.constant('fencing' as const), ...about, reason: fc.constant('r') }),
  fc.record({ c: fc.constant('fenced' as const), ...about, method: fc.constantFrom('self', 'dev', 'psu1+psu2') }),
  fc.record({ c: fc.constant('fenceBegin' as const), ...about, by: fc.integer({ min: 1, max: 3 }), at: fc.nat() }),
  fc.record({
    c: fc.constant('fenceTry' as const),
    ...about,
    by: fc.integer({ min: 1, max: 3 }),
    at: fc.nat(),
    level: fc.nat(3),
    methods: fc.constantFrom('dev', 'psu1+psu2'),
    attempt: fc.nat(9),
    ok: fc.boolean(),
    detail: fc.constant('d'),
    tookMs: fc.nat(),
  }),
  fc.record({ c: fc.constant('fenceConfirm' as const), ...about, who: fc.constant('ann'), by: fc.constant(1), at: fc.nat() }),
  fc.record({ c: fc.constant('distrust' as const), ...about, why: fc.constant('w'), at: fc.nat() }),
  fc.record({
    c: fc.constant('trust' as const),
    node: about.node,
    method: fc.constantFrom('dev', 'psu1'),
    who: fc.constant('ann'),
  }),
  fc.record({ c: fc.constant('armed' as const), ...about, ms: fc.constantFrom(0, 5000) }),
  fc.record({
    c: fc.constant('domainJoin' as const),
    ...about,
    name: fc.constantFrom('x', 'y'),
    mastery: fc.constantFrom('peer' as const, 'servers' as const),
  }),
  fc.record({
    c: fc.constantFrom('domainLeave', 'domainLeft'),
    ...about,
    dom: fc.integer({ min: 1, max: 3 }),
  }) as fc.Arbitrary<Command>,
  fc.record({ c: fc.constant('bump' as const), dom: fc.integer({ min: 1, max: 3 }), epoch: fc.integer({ min: 0, max: 9 }) }),
  fc.record({ c: fc.constant('nodeOwned' as const), ...about, on: fc.boolean() }),
);

t.test('any sequence of commands: epochs only grow, members are live, every change of a domain carries its epoch', async (t) => {
  fc.assert(
    fc.property(fc.array(anyCommand, { maxLength: 60 }), (commands) => {
      let view = initialView(config([1, 2, 3]), '');
      for (const command of commands) {
        const next = applyCommand(view, command);
        if (JSON.stringify(next) === JSON.stringify(view) && next !== view) return false;
        if (next.epoch < view.epoch || next.epoch > view.epoch + 1) return false;
        if (parseView(next) === null) return false;
        for (const { id, state, incarnation } of next.nodes) {
          const open = next.fencings.filter((r) => r.node === id && r.outcome === '');
          const wanted = state === 'fencing' ? [incarnation?.startCount] : [];
          if (JSON.stringify(open.map((r) => r.startCount)) !== JSON.stringify(wanted)) return false;
        }
        for (const domain of next.domains) {
          const old = view.domains.find((d) => d.dom === domain.dom);
          if (JSON.stringify(old) !== JSON.stringify(domain) && domain.epoch !== next.epoch) return false;
          for (const m of [...domain.members, ...domain.leaving]) {
            const node = next.nodes.find((n) => n.id === m.node);
            if (node?.incarnation?.startCount !== m.startCount) return false;
            if (!['in', 'suspect', 'fencing', 'leaving'].includes(node.state)) return false;
          }
          for (const m of domain.away) {
            const node = next.nodes.find((n) => n.id === m.node);
            if (node?.incarnation?.startCount !== m.startCount || !['restarting', 'fencing'].includes(node.state)) return false;
          }
          if (domain.members.some((m) => domain.leaving.some((l) => l.node === m.node))) return false;
        }
        for (const node of next.nodes) {
          const { members = [], leaving = [] } = next.domains[0] ?? {};
          const isRestarting = node.state === 'in' || node.state === 'suspect' ? leaving : [];
          const isDefault = [...members, ...isRestarting].some((m) => m.node === node.id);
          if ((node.state === 'in' || node.state === 'suspect') !== isDefault && node.state !== 'fencing') return false;
        }
        view = next;
      }
      return true;
    }),
    { numRuns: 500 },
  );
  t.pass('held');
});

t.test('commands are rebuilt from plain data: foreign fields fall away, what does not fit is none', async (t) => {
  t.same(parseCommand({ c: 'suspect', node: 1, startCount: 2, evil: true }), { c: 'suspect', node: 1, startCount: 2 });
  const joined = { c: 'join', node: 1, inc: { ...inc(1, 2), more: 1 }, keeps: false };
  t.same(parseCommand(joined), { c: 'join', node: 1, inc: inc(1, 2), keeps: false });
  for (const bad of [
    null,
    7,
    'noop',
    [],
    {},
    { c: 'toString' },
    { c: '__proto__' },
    { c: 'suspect', node: 0, startCount: 1 },
    { c: 'suspect', node: 255, startCount: 1 },
    { c: 'suspect', node: 1, startCount: -1 },
    { c: 'join', node: 1, inc: inc(1, 0), keeps: false },
    { c: 'join', node: 1, inc: { ...inc(1, 1), bootId: 'x'.repeat(65) }, keeps: false },
    { c: 'domainJoin', node: 1, startCount: 1, name: 'a/b', mastery: 'peer' },
    { c: 'domainJoin', node: 1, startCount: 1, name: '', mastery: 'peer' },
  ]) {
    t.equal(parseCommand(bad), null, JSON.stringify(bad));
  }
  fc.assert(
    fc.property(fc.anything(), (value) => {
      parseCommand(value);
      parseView(value);
    }),
  );
});

t.test('a node may propose only what is about itself, or a new epoch', async (t) => {
  const own = { node: 2, startCount: 1 };
  t.ok(mayPropose(2, { c: 'nodeLeave', ...own }));
  t.notOk(mayPropose(3, { c: 'nodeLeave', ...own }));
  for (const c of ['suspect', 'alive', 'evicted'] as const) t.notOk(mayPropose(2, { c, ...own }));
  t.notOk(mayPropose(2, { c: 'fenced', ...own, method: 'x' }));
  t.notOk(mayPropose(2, { c: 'noop' }));
  t.notOk(mayPropose(2, { c: 'cluster', id: 'x', nodes: [], journals: {}, limits, mastery: 'peer' }));
  t.ok(mayPropose(3, { c: 'bump', dom: 1, epoch: 1 }));
});

t.test('a view from outside is checked as a whole', async (t) => {
  const view = after(join(1, 1));
  t.equal(parseView(structuredClone(view))?.epoch, 1);
  t.equal(parseView({ ...view, nodes: [...view.nodes].reverse() }), null);
  t.equal(parseView({ ...view, nextDom: 1 }), null);
  t.equal(parseView({ ...view, domains: [{ dom: 1 }] }), null);
});
