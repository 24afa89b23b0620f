/**
 * What a command does to a view: the state machine behind the log.
 *
 * The problem: every node applies the same commands, some of them twice (a proposal is repeated until it shows), and must come
 * to the same view. So this is one pure function without any knowledge of who runs it; each command names the incarnation it
 * is about and has no effect when that is not, or not any more, the case: then the very same object comes back.
 * Whatever lets locks be dropped or masters change makes a new epoch here, in the same step (rule 17).
 * When a command may be proposed is decided elsewhere: joins.ts, gate.ts.
 */
import { EPOCH_MAX, type Epoch, type Incarnation, type NodeId, type StartCount } from '../protocol/ids.js';
import { DOMAINS_MAX } from '../protocol/limits.js';
import { openFence, recordFence } from './fence-record.js';
import { applyTable, blankNode } from './node-table.js';
import { LOST_HISTORY_EPOCHS, withoutWait, withSoleVoter } from './sole-voter.js';
import { SELF_END_MS_MAX } from './time-limits.js';
import type { AwayMember, Command, DomainView, MasteryPolicy, Member, NodeConfig, NodeState, NodeView, View } from './types.js';

/** Domain that every node is in from its join on. */
export const DEFAULT_DOM = 1;
export const DEFAULT_DOMAIN = 'default';

/** The view before the first entry of the log. `clusterId` is '' for a log that names its cluster itself. */
export function initialView(nodes: readonly NodeConfig[], clusterId: string): View {
  return {
    epoch: 0,
    table: 0,
    clusterId,
    limits: null,
    retired: [],
    nodes: blankNodes(nodes, {}),
    domains: [],
    nextDom: DEFAULT_DOM,
    fencings: [],
    distrusted: [],
    alone: null,
  };
}

function blankNodes(nodes: readonly NodeConfig[], journals: Readonly<Record<string, string>>): NodeView[] {
  return nodes.map((n) => blankNode(n, journals[String(n.id)])).sort((a, b) => a.id - b.id);
}

/** The record of a node, or undefined. */
export function findNode(view: View, id: NodeId): NodeView | undefined {
  return view.nodes.find((n) => n.id === id);
}

/** True when the node is a member that may own locks: in or suspect. */
export function isLive(node: NodeView): boolean {
  return node.state === 'in' || node.state === 'suspect';
}

/** True when exactly this incarnation is a member in state in or suspect. */
export function isLiveAs(view: View, id: NodeId, startCount: StartCount): boolean {
  const node = findNode(view, id);
  return node !== undefined && isLive(node) && node.incarnation?.startCount === startCount;
}

/** The node may master in a domain of policy `servers`: it votes. */
export function isServer(node: NodeView): boolean {
  return node.voter && !node.witness;
}

/**
 * Applies one command; the same object comes back when it has no effect.
 *
 * The servers of a domain are part of its epoch: they are worked out here once, for whatever changed the epoch, and a command that
 * changes who votes makes a new epoch for the domains that this concerns. So masterships change at epochs only, under `servers` too.
 */
export function applyCommand(view: View, command: Command): View {
  const next = step(view, command);
  return recordFence(view, next === view ? view : withServers(view, withoutWait(next)), command);
}

function withServers(before: View, view: View): View {
  const old = new Map(before.domains.map((d) => [d.dom, d]));
  const raised = Math.max(view.epoch, before.epoch + 1);
  let { epoch } = view;
  const domains = view.domains.map((d) => {
    if (d.mastery === 'peer') return d;
    const members = withLiveServers(view, d);
    const servers = serversAmong(view, members);
    if (members === d.members && servers.join() === d.servers.join()) return d;
    const away = d.servers.every((id) => servers.includes(id)) ? d.away : awaitAll(d.away);
    if (old.get(d.dom)?.epoch !== d.epoch) return { ...d, members, servers, away };
    if (raised > EPOCH_MAX) return d;
    epoch = raised;
    return { ...d, epoch, members, servers, away };
  });
  return domains.every((d, i) => d === view.domains[i]) ? view : { ...view, epoch, domains };
}

/** Whoever votes serves every domain of that policy that anybody is in, without having to ask for it. */
function withLiveServers(view: View, domain: DomainView): Member[] {
  let { members } = domain;
  if (members.length === 0) return members;
  for (const n of view.nodes) {
    if (!isServer(n) || !isLive(n) || n.incarnation === null) continue;
    if ([members, domain.leaving, domain.away].some((list) => list.some((m) => m.node === n.id))) continue;
    members = insert(members, { node: n.id, startCount: n.incarnation.startCount, continues: 0, keeps: false });
  }
  return members;
}

function serversAmong(view: View, members: readonly Member[]): NodeId[] {
  return members.map((m) => m.node).filter((id) => view.nodes.some((n) => n.id === id && isServer(n)));
}

function blankDomain(dom: number, name: string, mastery: MasteryPolicy, epoch: Epoch): DomainView {
  return { dom, name, mastery, epoch, members: [], leaving: [], away: [], servers: [] };
}

function step(view: View, command: Command): View {
  switch (command.c) {
    case 'noop':
    case 'sole':
    case 'fenceBegin':
    case 'fenceTry':
    case 'fenceConfirm':
    case 'distrust':
    case 'trust':
      return view;
    case 'cluster':
      return applyCluster(view, command);
    case 'voter':
    case 'wantVote':
    case 'nodeAdd':
    case 'nodeRemove':
    case 'nodeSet':
    case 'readmit':
    case 'limits':
    case 'limitsSettled':
      return applyTable(view, command);
    case 'join':
      return applyJoin(view, command.node, command.inc, command.keeps);
    case 'suspect':
      return change(view, command, ['in'], { state: 'suspect' });
    case 'alive':
      return change(view, command, ['suspect'], { state: 'in' });
    case 'fencing':
      return change(view, command, ['in', 'suspect', 'restarting'], { state: 'fencing' });
    case 'evicted':
      return change(view, command, ['fenced'], { state: 'evicted', nodeOwned: false, restartMs: 0 });
    case 'armed': {
      const node = current(view, command, ['in', 'suspect']);
      const isSame = node === undefined || node.armedMs === command.ms || command.ms > SELF_END_MS_MAX;
      return isSame ? view : change(view, command, ['in', 'suspect'], { armedMs: command.ms });
    }
    case 'nodeOwned': {
      const node = current(view, command, ['in', 'suspect']);
      return node === undefined || node.nodeOwned === command.on
        ? view
        : change(view, command, ['in', 'suspect'], { nodeOwned: command.on });
    }
    case 'fenced':
      return depart(view, command, ['fencing'], { state: 'fenced', fencedBy: command.method });
    case 'alone':
      return applyAlone(view, command);
    case 'lostHistory':
      return applyLostHistory(view, command);
    case 'nodeLeft':
      return depart(view, command, ['leaving'], { state: 'left', nodeOwned: false, restartMs: 0 });
    case 'nodeLeave':
      return applyNodeLeave(view, command);
    case 'nodeRestart':
      return applyNodeRestart(view, command);
    case 'restarting':
      return applyRestarting(view, command, command.forMs, command.epoch);
    case 'settled': {
      const node = current(view, command, ['in', 'suspect']);
      return node === undefined || node.restartMs === 0 ? view : change(view, command, ['in', 'suspect'], { restartMs: 0 });
    }
    case 'domainJoin':
      return applyDomainJoin(view, command, command.name, command.mastery);
    case 'domainLeave':
    case 'domainLeft':
      return applyDomainLeave(view, command, command.dom, command.c === 'domainLeave');
    case 'bump': {
      const domain = view.domains.find((d) => d.dom === command.dom);
      if (domain === undefined || domain.epoch !== command.epoch || isLastEpoch(view)) return view;
      const epoch = view.epoch + 1;
      return { ...view, epoch, domains: view.domains.map((d) => (d === domain ? { ...d, epoch } : d)) };
    }
    case 'epoch':
      return command.epoch !== view.epoch || isLastEpoch(view) ? view : { ...view, epoch: view.epoch + 1 };
  }
}

function applyCluster(view: View, command: Extract<Command, { c: 'cluster' }>): View {
  if (view.clusterId !== '' || command.id === '') return view;
  const isMade = view.domains.some((d) => d.dom === DEFAULT_DOM);
  const made = blankDomain(DEFAULT_DOM, DEFAULT_DOMAIN, command.mastery, view.epoch);
  return {
    ...view,
    clusterId: command.id,
    table: view.table + 1,
    nodes: blankNodes(command.nodes, command.journals),
    limits: { version: 1, active: command.limits, former: null },
    domains: isMade ? view.domains : [made, ...view.domains],
    nextDom: Math.max(view.nextDom, DEFAULT_DOM + 1),
  };
}

interface About {
  node: NodeId;
  startCount: StartCount;
}

/** 24 bits of epoch never carry: at the end nothing may change any more that needs a new one. */
function isLastEpoch(view: View): boolean {
  return view.epoch >= EPOCH_MAX;
}

function current(view: View, about: About, states: readonly NodeState[]): NodeView | undefined {
  const node = findNode(view, about.node);
  return node !== undefined && states.includes(node.state) && node.incarnation?.startCount === about.startCount
    ? node
    : undefined;
}

function replaceNode(view: View, node: NodeView): NodeView[] {
  return view.nodes.map((n) => (n.id === node.id ? node : n));
}

/** A change of one record that leaves the epoch alone. */
function change(view: View, about: About, states: readonly NodeState[], fields: Partial<NodeView>): View {
  const node = current(view, about, states);
  return node === undefined ? view : { ...view, nodes: replaceNode(view, { ...node, ...fields, since: view.epoch }) };
}

/** The node's incarnation is over: a new epoch, and it is in no domain any more. */
function depart(view: View, about: About, states: readonly NodeState[], fields: Partial<NodeView>): View {
  const node = current(view, about, states);
  if (node === undefined || isLastEpoch(view)) return view;
  const epoch = view.epoch + 1;
  const domains = changeDomains(view.domains, epoch, (d) =>
    withMembers(d, without(d.members, node.id), without(d.leaving, node.id), without(d.away, node.id)),
  );
  return { ...view, epoch, nodes: replaceNode(view, { ...node, ...fields, since: epoch }), domains };
}

function applyJoin(view: View, id: NodeId, inc: Incarnation, keeps: boolean): View {
  const node = findNode(view, id);
  if (node === undefined || isLastEpoch(view)) return view;
  const old = node.incarnation;
  if ((node.state === 'fencing' && !mayReturn(node, inc)) || node.state === 'fenced' || node.state === 'leaving') return view;
  if (inc.startCount <= Math.max(node.floor, old?.startCount ?? 0)) return view;
  if (node.journal !== '' && inc.journalId !== node.journal) return view;
  const continues =
    old !== null && mayContinue(node) && old.bootId === inc.bootId && old.machineId === inc.machineId ? old.startCount : 0;
  const epoch = view.epoch + 1;
  const member: Member = { node: id, startCount: inc.startCount, continues, keeps: keeps && continues !== 0 };
  const known = view.domains.some((d) => d.dom === DEFAULT_DOM);
  const all = known ? view.domains : [blankDomain(DEFAULT_DOM, DEFAULT_DOMAIN, 'peer', epoch), ...view.domains];
  const domains = changeDomains(all, epoch, (d) => {
    const isIn = [d.members, d.leaving, d.away].some((list) => list.some((m) => m.node === id));
    const stays = (d.dom === DEFAULT_DOM && !node.witness) || (continues !== 0 && isIn);
    const members = without(d.members, id);
    return withMembers(d, stays ? insert(members, member) : members, without(d.leaving, id), without(d.away, id));
  });
  return {
    ...view,
    epoch,
    domains,
    nextDom: Math.max(view.nextDom, DEFAULT_DOM + 1),
    nodes: replaceNode(view, {
      ...node,
      state: 'in',
      incarnation: inc,
      journal: inc.journalId,
      nodeOwned: continues !== 0 && node.nodeOwned,
      armedMs: 0,
      restartMs: member.keeps ? node.restartMs : 0,
      since: epoch,
    }),
  };
}

/** The next incarnation on the same boot takes the place of one in these states. */
function mayContinue(node: NodeView): boolean {
  return isLive(node) || node.state === 'fencing' || node.state === 'restarting';
}

/**
 * A node that only its own lease ends may come back on the same boot while that lease is still waited for: nothing was
 * sent that could hit it later (trap 10), and until `fenced` its node-owned locks are its own.
 */
export function mayReturn(node: NodeView, inc: Incarnation): boolean {
  const old = node.incarnation;
  if (old === null || old.bootId !== inc.bootId || old.machineId !== inc.machineId) return false;
  return node.fence.every((level) => level.every((method) => method === 'self'));
}

function applyNodeLeave(view: View, about: About): View {
  const node = current(view, about, ['in', 'suspect', 'fencing']);
  if (node === undefined || isLastEpoch(view)) return view;
  // Its fence is withdrawn, as long as no `off` can be under way (trap 10).
  if (node.state === 'fencing' && openFence(view, about.node, about.startCount)?.begunAt !== 0) return view;
  const epoch = view.epoch + 1;
  const domains = changeDomains(view.domains, epoch, (d) => {
    const member = d.members.find((m) => m.node === node.id);
    return member === undefined ? d : withMembers(d, without(d.members, node.id), insert(d.leaving, member), d.away);
  });
  const next: View = { ...view, epoch, domains, nodes: replaceNode(view, { ...node, state: 'leaving', since: epoch }) };
  // Of two voters the one that leaves takes its vote along: the other goes on.
  const other = node.voter ? view.nodes.find((n) => n.voter && n.id !== node.id && isLive(n)) : undefined;
  return (other === undefined ? null : withSoleVoter(next, other.id, node.id, epoch, 'left')) ?? next;
}

/** The peer's machine was seen off: whatever it was to us is over, and the vote is ours alone. */
function applyAlone(view: View, command: Extract<Command, { c: 'alone' }>): View {
  const { node: survivor, peer, startCount, method } = command;
  if (isLastEpoch(view)) return view;
  const left = findNode(view, peer);
  if (left === undefined || (left.incarnation?.startCount ?? 0) !== startCount) return view;
  const about = { node: peer, startCount };
  const states: NodeState[] = ['in', 'suspect', 'fencing', 'leaving', 'restarting'];
  const departed = depart(view, about, states, { state: 'fenced', fencedBy: method });
  return withSoleVoter(departed, survivor, peer, view.epoch + 1, method) ?? view;
}

/** All locks are void: every incarnation is over, and each node begins anew. */
function applyLostHistory(view: View, { node, peer }: Extract<Command, { c: 'lostHistory' }>): View {
  const epoch = view.epoch + LOST_HISTORY_EPOCHS;
  const sole = withSoleVoter(view, node, peer, epoch, 'lost-history');
  if (sole === null) return view;
  const nodes = sole.nodes.map((n) =>
    n.state === 'out' || n.state === 'left'
      ? n
      : { ...n, state: 'evicted' as const, nodeOwned: false, fencedBy: 'lost-history', since: epoch },
  );
  const domains = sole.domains.map((d) => ({ ...d, epoch, members: [], leaving: [], servers: [] }));
  return { ...sole, nodes, domains };
}

/** Masters nothing from here on, and hands over; unlike one that leaves it goes on owning locks, and is a member. */
function applyNodeRestart(view: View, about: About): View {
  const node = current(view, about, ['in', 'suspect']);
  if (node === undefined || isLastEpoch(view) || !view.domains.some((d) => d.members.some((m) => m.node === node.id)))
    return view;
  const epoch = view.epoch + 1;
  const domains = changeDomains(view.domains, epoch, (d) => {
    const member = d.members.find((m) => m.node === node.id);
    return member === undefined ? d : withMembers(d, without(d.members, node.id), insert(d.leaving, member), d.away);
  });
  return { ...view, epoch, domains };
}

/** Nothing is mastered there any more: its locks wait in the queues of others for the next incarnation. */
function applyRestarting(view: View, about: About, forMs: number, seen: Epoch): View {
  const node = current(view, about, ['in', 'suspect']);
  if (node === undefined || isLastEpoch(view) || forMs === 0) return view;
  const isIn = (list: readonly { node: NodeId }[]): boolean => list.some((m) => m.node === node.id);
  if (view.domains.some((d) => isIn(d.members) || (isIn(d.leaving) && d.epoch > seen))) return view;
  const epoch = view.epoch + 1;
  const domains = changeDomains(view.domains, epoch, (d) => {
    const member = d.leaving.find((m) => m.node === node.id);
    if (member === undefined) return d;
    // Where nobody is left who masters, nobody but the node itself knows what it holds.
    const awaited = d.mastery === 'peer' ? d.members.length === 0 : d.servers.length === 0;
    const away = [...d.away, { node: node.id, startCount: member.startCount, awaited }].sort((a, b) => a.node - b.node);
    return withMembers(d, d.members, without(d.leaving, node.id), away);
  });
  // Its machine does not end itself meanwhile: the daemon disarms it as soon as it sees this.
  const away: NodeView = { ...node, state: 'restarting', restartMs: forMs, armedMs: 0, since: epoch };
  return { ...view, epoch, domains, nodes: replaceNode(view, away) };
}

function applyDomainJoin(view: View, about: About, name: string, mastery: MasteryPolicy): View {
  const node = current(view, about, ['in', 'suspect']);
  if (node === undefined || node.witness || isLastEpoch(view)) return view;
  const epoch = view.epoch + 1;
  const member: Member = { node: about.node, startCount: about.startCount, continues: 0, keeps: false };
  const domain = view.domains.find((d) => d.name === name);
  const isLeft = domain !== undefined && domain.members.length === 0 && domain.leaving.length === 0;
  if (domain === undefined || (isLeft && domain.mastery !== mastery && domain.dom !== DEFAULT_DOM)) {
    // A domain that nobody is in has no locks: made anew it may have another policy.
    const room = makeRoom(view.domains.filter((d) => d !== domain));
    if (room === null) return view;
    const added: DomainView = { ...blankDomain(view.nextDom, name, mastery, epoch), members: [member] };
    return { ...view, epoch, nextDom: view.nextDom + 1, domains: [...room, added] };
  }
  if (domain.mastery !== mastery) return view;
  if (domain.members.some((m) => m.node === about.node) || domain.leaving.some((m) => m.node === about.node)) return view;
  if ([domain.members, domain.leaving, domain.away].some((list) => list.some((m) => m.node === about.node))) return view;
  const domains = changeDomains(view.domains, epoch, (d) =>
    d === domain ? withMembers(d, insert(d.members, member), d.leaving, d.away) : d,
  );
  return { ...view, epoch, domains };
}

/** First step (`begins`): from members to leaving; second step: out. Nobody leaves the default domain but by leaving the cluster. */
function applyDomainLeave(view: View, about: About, dom: number, begins: boolean): View {
  const domain = view.domains.find((d) => d.dom === dom);
  if (domain === undefined || isLastEpoch(view) || (dom === DEFAULT_DOM && begins)) return view;
  const member = (begins ? domain.members : domain.leaving).find((m) => m.node === about.node);
  const node = findNode(view, about.node);
  if (member === undefined || member.startCount !== about.startCount || node === undefined || !isLive(node)) return view;
  const epoch = view.epoch + 1;
  const domains = changeDomains(view.domains, epoch, (d) => {
    if (d !== domain) return d;
    const leaving = without(d.leaving, about.node);
    return withMembers(d, without(d.members, about.node), begins ? insert(leaving, member) : leaving, d.away);
  });
  return { ...view, epoch, domains };
}

/** Room for one more domain: when all numbers allowed at one time are taken, the one that stood empty longest goes. */
function makeRoom(domains: readonly DomainView[]): readonly DomainView[] | null {
  if (domains.length < DOMAINS_MAX) return domains;
  const empty = domains.filter((d) => d.dom !== DEFAULT_DOM && d.members.length + d.leaving.length + d.away.length === 0);
  if (empty.length === 0) return null;
  const oldest = empty.reduce((a, b) => (b.epoch < a.epoch ? b : a));
  return domains.filter((d) => d !== oldest);
}

function without<M extends { node: NodeId }>(members: M[], id: NodeId): M[] {
  return members.some((m) => m.node === id) ? members.filter((m) => m.node !== id) : members;
}

function insert(members: readonly Member[], member: Member): Member[] {
  return [...members, member].sort((a, b) => a.node - b.node);
}

/**
 * The domain with other members. Where one of them masters nothing any more, what members that are away hold from it has to
 * be asked of them (rule 1).
 */
function withMembers(domain: DomainView, members: Member[], leaving: Member[], away: AwayMember[]): DomainView {
  if (members === domain.members && leaving === domain.leaving && away === domain.away) return domain;
  const isMasterGone = domain.members.some((old) => !members.some((m) => m.node === old.node && m.startCount === old.startCount));
  return { ...domain, members, leaving, away: isMasterGone ? awaitAll(away) : away };
}

function awaitAll(away: AwayMember[]): AwayMember[] {
  return away.map((m) => (m.awaited ? m : { ...m, awaited: true }));
}

/** Every domain that `fn` changed carries the new epoch. */
function changeDomains(domains: readonly DomainView[], epoch: Epoch, fn: (domain: DomainView) => DomainView): DomainView[] {
  return domains.map((d) => {
    const next = fn(d);
    return next === d ? d : { ...next, epoch };
  });
}
