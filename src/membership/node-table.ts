/**
 * Changes of the node table and of the time limits by command: what they do to a view.
 *
 * The problem: the table says who votes, who is admitted and how each node is ended, and it is changed while the cluster runs, by
 * operators who may ask twice or at two nodes at once. The idea: the view counts the table's versions; each command names the version
 * it was made for and has no effect on any other, so that it can be proposed twice and never acts on a table its author did not see.
 * A number that was removed is remembered and never given again: journals, locks and logs of the past name nodes by it.
 * When a change may be made is the leader's judgement (table-change.ts, voter-change.ts).
 */
import type { NodeId } from '../protocol/ids.js';
import { NODE_MAX } from '../protocol/ids.js';
import type { NodeConfig, NodeState, NodeView, TableCommand, View } from './types.js';

/** States in which nothing of the node is left that could act or must be ended. */
const GONE: readonly NodeState[] = ['out', 'evicted', 'left'];

/** A node that was never a member. `journal`: the one its vote is bound to, if known. */
export function blankNode(config: NodeConfig, journal = ''): NodeView {
  const witness = config.witness ?? false;
  return {
    id: config.id,
    name: config.name,
    voter: config.voter,
    witness,
    // It owns nothing: that its lease is over is all there is to wait for.
    fence: witness ? [['self']] : config.fence,
    host: config.host ?? '',
    port: config.port ?? 0,
    journal,
    wantsVote: false,
    floor: 0,
    state: 'out',
    incarnation: null,
    nodeOwned: false,
    armedMs: 0,
    fencedBy: '',
    restartMs: 0,
    since: 0,
  };
}

/** True when nothing of the node is left that could act: it may be removed, or readmitted with another journal. */
export function isGone(node: NodeView): boolean {
  return GONE.includes(node.state);
}

/** Why this node can not be added, or ''. */
export function addProblem(view: View, node: Pick<NodeConfig, 'id' | 'name'>): string {
  const same = view.nodes.find((n) => n.id === node.id || n.name === node.name);
  if (same !== undefined) {
    return same.id === node.id
      ? `number ${node.id} is that of node ${same.name}: take another`
      : `node ${same.name} exists and has number ${same.id}: take another name`;
  }
  const retired = view.retired.find((r) => r.id === node.id || r.name === node.name);
  if (retired !== undefined) {
    return retired.id === node.id
      ? `number ${node.id} was that of node ${retired.name}, which was removed: numbers are not used again, take another`
      : `a node named ${retired.name} (number ${retired.id}) was removed: names are not used again, take another`;
  }
  return view.nodes.length + view.retired.length >= NODE_MAX
    ? `all ${NODE_MAX} node numbers are taken or were used: a new cluster is needed`
    : '';
}

/** The least number that was never used, or 0. */
export function freeId(view: View): NodeId {
  const used = new Set([...view.nodes, ...view.retired].map((n) => n.id));
  for (let id = 1; id <= NODE_MAX; id++) if (!used.has(id)) return id;
  return 0;
}

/** Applies one command; the same object comes back when it has no effect. */
export function applyTable(view: View, command: TableCommand): View {
  if (command.table !== view.table) return view;
  switch (command.c) {
    case 'limits':
      return applyLimits(view, command);
    case 'limitsSettled':
      return view.limits?.former == null
        ? view
        : { ...view, table: view.table + 1, limits: { ...view.limits, former: null, version: view.limits.version } };
    case 'nodeAdd': {
      if (addProblem(view, command.spec) !== '') return view;
      const added = { ...blankNode({ ...command.spec, voter: false }), wantsVote: command.spec.voter };
      return { ...view, table: view.table + 1, nodes: [...view.nodes, added].sort((a, b) => a.id - b.id) };
    }
  }
  const node = view.nodes.find((n) => n.id === command.node);
  if (node === undefined) return view;
  switch (command.c) {
    case 'voter':
      return node.voter === command.on ? view : withNode(view, { ...node, voter: command.on, wantsVote: false });
    case 'wantVote':
      return node.voter || node.wantsVote === command.on ? view : withNode(view, { ...node, wantsVote: command.on });
    case 'nodeSet': {
      const { host, port } = command;
      const fence = node.witness || command.fence.length === 0 ? node.fence : command.fence;
      return withNode(view, { ...node, host: host === '' ? node.host : host, port: port === 0 ? node.port : port, fence });
    }
    case 'nodeRemove': {
      if (!isGone(node) || node.voter) return view;
      const retired = [...view.retired, { id: node.id, name: node.name }].sort((a, b) => a.id - b.id);
      return { ...view, table: view.table + 1, nodes: view.nodes.filter((n) => n !== node), retired };
    }
    case 'readmit': {
      if (!isGone(node) || node.voter || command.journal === '' || command.journal === node.journal) return view;
      // Start counts begin again with a new journal; those of the old one were names of incarnations and stay so.
      const floor = Math.max(node.floor, node.incarnation?.startCount ?? 0);
      return withNode(view, { ...blankNode(node, command.journal), wantsVote: command.vote, floor });
    }
  }
}

function applyLimits(view: View, command: Extract<TableCommand, { c: 'limits' }>): View {
  const { limits } = view;
  if (limits === null || limits.former !== null) return view;
  const { active } = limits;
  const next = command.limits;
  if (active.leaseMs === next.leaseMs && active.heartbeatMs === next.heartbeatMs && active.suspectMs === next.suspectMs) {
    if (active.deadMs === next.deadMs && active.electionMs === next.electionMs) return view;
  }
  return { ...view, table: view.table + 1, limits: { version: limits.version + 1, active: next, former: active } };
}

function withNode(view: View, node: NodeView): View {
  return { ...view, table: view.table + 1, nodes: view.nodes.map((n) => (n.id === node.id ? node : n)) };
}
