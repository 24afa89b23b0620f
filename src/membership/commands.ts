/**
 * Commands as they arrive: from other nodes, from the log of a leader, from the journal.
 *
 * The problem: a command travels as plain data, and one that is malformed must neither crash a node nor be read differently by
 * two of them. So each is rebuilt here, field by field, from a table; what does not fit is no command. Whether a well-formed
 * command has any effect is decided by view.ts, whether a node may be admitted by joins.ts.
 */
import type { Incarnation, NodeId } from '../protocol/ids.js';
import { NODE_MAX } from '../protocol/ids.js';
import { bool, domain, type Field, type FieldTable, list, node, num, record, text, u32, u53 } from '../protocol/schema.js';
import { FENCE_DETAIL_BYTES } from './fence-record.js';
import { type Command, MASTERY_POLICIES, type MasteryPolicy, type NodeConfig } from './types.js';

const id = text(64);

/** An incarnation on the wire and in snapshots. */
export const incarnationField = record('incarnation', {
  bootId: id,
  machineId: text(128),
  startCount: u53,
  journalId: id,
});

/** What the node table says of a node. */
export const nodeFields = { id: node, name: text(255), voter: bool, fence: list(list(text(64), 16), 16) };
const nodesField = list(record('node', nodeFields), NODE_MAX);

export const reason = text(200);
/** All method names of one fence level, joined. */
export const methodsField = text(1200);
/** Who may master: a word of MASTERY_POLICIES. */
export const masteryField: Field<MasteryPolicy> = {
  kind: 'mastery',
  is: (v: unknown): v is MasteryPolicy => MASTERY_POLICIES.includes(v as MasteryPolicy),
};
const about = { node, startCount: u53 };
/** Who gave an order by hand. */
export const who = text(200);
/** One try of a fence level: in its command and in the view. */
export const fenceTry = {
  by: node,
  at: num,
  level: u32,
  methods: methodsField,
  attempt: u32,
  ok: bool,
  detail: text(FENCE_DETAIL_BYTES),
  tookMs: num,
};

const TABLES: Readonly<Record<Command['c'], FieldTable>> = {
  noop: {},
  cluster: { id, nodes: nodesField, mastery: masteryField },
  voter: { table: u32, node, on: bool },
  join: { node, inc: incarnationField, keeps: bool },
  suspect: about,
  alive: about,
  fencing: { ...about, reason },
  fenced: { ...about, method: methodsField },
  evicted: about,
  fenceBegin: { ...about, by: node, at: num },
  fenceTry: { ...about, ...fenceTry },
  fenceConfirm: { ...about, who, by: node, at: num },
  distrust: { ...about, why: text(FENCE_DETAIL_BYTES), at: num },
  trust: { node, method: text(64), who },
  nodeLeave: about,
  nodeLeft: about,
  nodeRestart: about,
  restarting: { ...about, forMs: u32, epoch: u32 },
  settled: about,
  domainJoin: { ...about, name: domain, mastery: masteryField },
  domainLeave: { ...about, dom: u32 },
  domainLeft: { ...about, dom: u32 },
  bump: { dom: u32, epoch: u32 },
  epoch: { epoch: u32 },
  armed: { ...about, ms: u32 },
  nodeOwned: { ...about, on: bool },
};

/** What a node may ask of the leader for itself; the rest is the leader's own judgement. */
const OWN: ReadonlySet<Command['c']> = new Set([
  'join',
  'nodeLeave',
  'nodeLeft',
  'nodeRestart',
  'restarting',
  'settled',
  'domainJoin',
  'domainLeave',
  'domainLeft',
  'nodeOwned',
  'armed',
]);

/** Turns plain data into a command, or null when it is none. Fields that no table names are dropped. Never throws. */
export function parseCommand(value: unknown): Command | null {
  if (typeof value !== 'object' || value === null) return null;
  const raw = value as Record<string, unknown>;
  if (typeof raw.c !== 'string' || !Object.hasOwn(TABLES, raw.c)) return null;
  const kind = raw.c as Command['c'];
  const command: Record<string, unknown> = { c: kind };
  for (const [key, field] of Object.entries(TABLES[kind]) as [string, Field<unknown>][]) {
    if (!field.is(raw[key])) return null;
    command[key] = cleanField(key, raw[key]);
  }
  if ('node' in command && command.node === 0) return null;
  if (kind === 'cluster' && !isTable(command.nodes as NodeConfig[])) return null;
  if (kind === 'join' && (command.inc as Incarnation).startCount === 0) return null;
  return command as Command;
}

/** Numbers differ and are no "none". */
function isTable(nodes: readonly NodeConfig[]): boolean {
  return new Set(nodes.map((n) => n.id)).size === nodes.length && nodes.every((n) => n.id !== 0);
}

/** True when node `from` may propose this: only about itself, except for a new epoch, which anybody may need. */
export function mayPropose(from: NodeId, command: Command): boolean {
  if (command.c === 'bump' || command.c === 'epoch') return true;
  return OWN.has(command.c) && 'node' in command && command.node === from;
}

/** Records anew, with the fields that the tables name. */
function cleanField(key: string, value: unknown): unknown {
  if (key === 'inc') return cleanIncarnation(value as Incarnation);
  if (key === 'nodes') return (value as NodeConfig[]).map(cleanNode);
  return value;
}

function cleanNode({ id, name, voter, fence }: NodeConfig): NodeConfig {
  return { id, name, voter, fence: fence.map((level) => level.slice()) };
}

function cleanIncarnation(inc: Incarnation): Incarnation {
  return { bootId: inc.bootId, machineId: inc.machineId, startCount: inc.startCount, journalId: inc.journalId };
}
