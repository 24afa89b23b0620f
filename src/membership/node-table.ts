/**
 * Changes of the node table by command: what they do to a view.
 *
 * The problem: the table says who votes and who is admitted, and it is changed while the cluster runs, by operators who may ask
 * twice or at two nodes at once. The idea: the view counts the table's versions; each command names the version it was made
 * for and has no effect on any other, so that it can be proposed twice and never acts on a table its author did not see.
 * When a change may be made is the leader's judgement (voter-change.ts, table-change.ts).
 */
import type { NodeConfig, NodeView, TableCommand, View } from './types.js';

/** A node that was never a member. */
export function blankNode(config: NodeConfig): NodeView {
  return {
    id: config.id,
    name: config.name,
    voter: config.voter,
    fence: config.fence,
    state: 'out',
    incarnation: null,
    nodeOwned: false,
    armedMs: 0,
    fencedBy: '',
    restartMs: 0,
    since: 0,
  };
}

/** Applies one command; the same object comes back when it has no effect. */
export function applyTable(view: View, command: TableCommand): View {
  if (command.table !== view.table) return view;
  switch (command.c) {
    case 'voter': {
      const node = view.nodes.find((n) => n.id === command.node);
      if (node === undefined || node.voter === command.on) return view;
      return withNode(view, { ...node, voter: command.on });
    }
  }
}

function withNode(view: View, node: NodeView): View {
  return { ...view, table: view.table + 1, nodes: view.nodes.map((n) => (n.id === node.id ? node : n)) };
}
