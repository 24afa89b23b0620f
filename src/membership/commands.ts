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
import { deriveTimeLimits } from './time-limits.js';
import { type Command, type LimitValues, MASTERY_POLICIES, type MasteryPolicy, type NodeConfig } from './types.js';

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
const fenceField = nodeFields.fence;
/** As a command has it: role and address may be left out. */
const specField: Field<NodeConfig> = {
  kind: 'node',
  is: (v: unknown): v is NodeConfig => plainSpec.is(v) && hasAddress(v),
};
const plainSpec = record('node', nodeFields);
const nodesField = list(specField, NODE_MAX);
const host = text(255);

function hasAddress(value: object): boolean {
  const spec = value as Partial<NodeConfig>;
  if (spec.witness !== undefined && typeof spec.witness !== 'boolean') return false;
  if (spec.host !== undefined && !host.is(spec.host)) return false;
  return spec.port === undefined || (u32.is(spec.port) && spec.port < 65536);
}

/** Journal ids by node number. */
const journalsField: Field<Record<string, string>> = {
  kind: 'journals',
  is: (v: unknown): v is Record<string, string> =>
    typeof v === 'object' && v !== null && Object.keys(v).length <= NODE_MAX && Object.values(v).every((j) => id.is(j)),
};

const milliseconds: Field<number> = { kind: 'ms', is: (v: unknown): v is number => num.is(v) && v > 0 };
/** Time limits; that they fit each other, deriveTimeLimits says. */
export const limitsField = record('limits', {
  heartbeatMs: milliseconds,
  leaseMs: milliseconds,
  suspectMs: milliseconds,
  deadMs: milliseconds,
  electionMs: milliseconds,
});

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
  cluster: { id, nodes: nodesField, journals: journalsField, limits: limitsField, mastery: masteryField },
  voter: { table: u32, node, on: bool },
  wantVote: { table: u32, node, on: bool },
  nodeAdd: { table: u32, spec: specField },
  nodeRemove: { table: u32, node },
  nodeSet: { table: u32, node, host, port: u32, fence: fenceField },
  readmit: { table: u32, node, journal: id, vote: bool },
  limits: { table: u32, limits: limitsField },
  limitsSettled: { table: u32 },
  join: { node, inc: incarnationField, keeps: bool },
  suspect: about,
  alive: about,
  fencing: { ...about, reason },
  fenced: { ...about, method: methodsField },
  evicted: about,
  alone: {
    ...about,
    peer: node,
    method: methodsField,
    reason,
    detail: text(FENCE_DETAIL_BYTES),
    attempt: u32,
    tookMs: num,
    at: num,
  },
  sole: { node },
  lostHistory: { node, peer: node, who, at: num },
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
  if (kind === 'nodeAdd' && (command.spec as NodeConfig).id === 0) return null;
  if ('limits' in command && !fits(command.limits as LimitValues)) return null;
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
  if (key === 'spec') return cleanNode(value as NodeConfig);
  if (key === 'limits') return cleanLimits(value as LimitValues);
  if (key === 'journals') return { ...(value as Record<string, string>) };
  if (key === 'fence') return (value as string[][]).map((level) => level.slice());
  if (key === 'nodes') return (value as NodeConfig[]).map(cleanNode);
  return value;
}

function cleanNode({ id, name, voter, witness = false, host = '', port = 0, fence }: NodeConfig): NodeConfig {
  return { id, name, voter, witness, host, port, fence: fence.map((level) => level.slice()) };
}

function cleanLimits({ heartbeatMs, leaseMs, suspectMs, deadMs, electionMs }: LimitValues): LimitValues {
  return { heartbeatMs, leaseMs, suspectMs, deadMs, electionMs };
}

/** Limits that do not fit each other would stop every node that applies them. */
function fits(limits: LimitValues): boolean {
  try {
    deriveTimeLimits(limits);
    return true;
  } catch {
    return false;
  }
}

function cleanIncarnation(inc: Incarnation): Incarnation {
  return { bootId: inc.bootId, machineId: inc.machineId, startCount: inc.startCount, journalId: inc.journalId };
}
