/**
 * The shape of a view that came from outside: a leader's snapshot or the journal.
 *
 * The problem: a snapshot replaces the whole state in one step, so a malformed one would break every later step. It is checked
 * as a whole before it is used; that its content is right is the word of the leader, whom the transport has authenticated.
 */
import { NODE_MAX } from '../protocol/ids.js';
import { DOMAINS_MAX } from '../protocol/limits.js';
import { bool, domain, type Field, list, node, nullable, num, record, text, u32, u53 } from '../protocol/schema.js';
import { fenceTry, incarnationField, limitsField, masteryField, methodsField, nodeFields, reason, who } from './commands.js';
import { DISTRUSTED_MAX, FENCE_DETAIL_BYTES, FENCE_RECORDS_MAX, FENCE_TRIES_MAX, FENCERS_MAX } from './fence-record.js';
import type { FenceRecord, NodeState, View } from './types.js';

const STATES: readonly NodeState[] = ['out', 'in', 'suspect', 'fencing', 'fenced', 'evicted', 'leaving', 'left', 'restarting'];
const state: Field<NodeState> = {
  kind: 'state',
  is: (v: unknown): v is NodeState => STATES.includes(v as NodeState),
};

const members = list(record('member', { node, startCount: u53, continues: u53, keeps: bool }), NODE_MAX);
const away = list(record('away', { node, startCount: u53, awaited: bool }), NODE_MAX);

const OUTCOMES: readonly string[] = ['', 'fenced', 'returned', 'left'];
const outcome: Field<FenceRecord['outcome']> = {
  kind: 'outcome',
  is: (v: unknown): v is FenceRecord['outcome'] => OUTCOMES.includes(v as string),
};
const fencing = record('fencing', {
  node,
  startCount: u53,
  bootId: text(64),
  reason,
  begunAt: num,
  fencers: list(node, FENCERS_MAX),
  tries: list(record('try', fenceTry), FENCE_TRIES_MAX),
  tried: u53,
  confirmed: nullable(record('confirmed', { who, by: node, at: num })),
  outcome,
  method: methodsField,
  doubted: bool,
});
const distrusted = record('distrusted', { node, method: text(64), why: text(FENCE_DETAIL_BYTES), at: num });

const viewField = record('view', {
  epoch: u32,
  table: u32,
  clusterId: text(64),
  limits: nullable(record('limits', { version: u32, active: limitsField, former: nullable(limitsField) })),
  retired: list(record('retired', { id: node, name: text(255) }), NODE_MAX),
  nodes: list(
    record('node', {
      ...nodeFields,
      witness: bool,
      host: text(255),
      port: u32,
      journal: text(64),
      wantsVote: bool,
      floor: u53,
      state,
      incarnation: nullable(incarnationField),
      nodeOwned: bool,
      armedMs: u32,
      fencedBy: methodsField,
      restartMs: u32,
      since: u32,
    }),
    NODE_MAX,
  ),
  domains: list(
    record('domain', {
      dom: u32,
      name: domain,
      mastery: masteryField,
      epoch: u32,
      members,
      leaving: members,
      away,
      servers: list(node, NODE_MAX),
    }),
    DOMAINS_MAX,
  ),
  nextDom: u32,
  // A node may be added for each record that cannot go because it is under way.
  fencings: list(fencing, FENCE_RECORDS_MAX + NODE_MAX),
  distrusted: list(distrusted, DISTRUSTED_MAX),
  alone: nullable(record('alone', { survivor: node, peer: node, startCount: u53, epoch: u32, method: methodsField })),
});

/** The value as a view, or null when it is none. Never throws. */
export function parseView(value: unknown): View | null {
  if (!viewField.is(value)) return null;
  const view: View = value;
  const nodesSorted = view.nodes.every((n, i) => n.id > (view.nodes[i - 1]?.id ?? 0));
  const domainsSorted = view.domains.every((d, i) => d.dom > (view.domains[i - 1]?.dom ?? 0) && d.dom < view.nextDom);
  return nodesSorted && domainsSorted ? view : null;
}
