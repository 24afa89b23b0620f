/**
 * The `[[nodes]]` of the configuration: who they are, where they are reached, who votes, how each is fenced.
 */
import type { FenceMethodConfig } from '../fence/types.js';
import { duelGapMs, FENCE_DELAY_MAX_MS, type FenceDelay, leastDifference } from '../membership/duel.js';
import { deviceLevels } from '../membership/fence-levels.js';
import type { TimeLimits } from '../membership/time-limits.js';
import type { NodeConfig } from '../membership/types.js';
import { NODE_MAX } from '../protocol/ids.js';
import { VOTERS_MAX } from '../protocol/limits.js';
import { ROLES, type Role } from '../protocol/table-goal.js';
import { BUILT_IN_METHODS } from './config-fence.js';
import type { Complaints, TableReader } from './config-reader.js';
import { nearest } from './nearest.js';

/** A node as configured: what the membership core needs, and where it is reached. */
export interface ConfiguredNode extends NodeConfig {
  host: string;
  port: number;
  fenceDelay: FenceDelay;
}

const LEVELS_MAX = 8;

function readFence(
  table: TableReader,
  methods: ReadonlyMap<string, FenceMethodConfig>,
  defined: readonly string[],
  complaints: Complaints,
): string[][] {
  const levels = table.levels('fence', LEVELS_MAX);
  if (levels === undefined) return [['self']];
  for (const level of levels) {
    for (const { value, line } of level) {
      if (BUILT_IN_METHODS.includes(value)) {
        if (level.length > 1) complaints.at(line, `fence: "${value}" must stand alone in its level, as [["ipmi"], ["${value}"]]`);
      } else if (!methods.has(value) && !defined.includes(value)) {
        const near = nearest(value, [...defined, ...BUILT_IN_METHODS]);
        const hint = near === undefined ? `define it with [fence.${value}]` : `did you mean "${near}"?`;
        complaints.at(line, `fence method "${value}" is not defined; ${hint}`);
      }
    }
  }
  return levels.map((level) => level.map((name) => name.value));
}

/** `role`, or `voter` as its short form. */
function readRole(table: TableReader, complaints: Complaints): Role {
  const voter = table.boolean('voter');
  const role = table.oneOf('role', ROLES);
  if (role !== undefined && voter !== undefined) complaints.at(table.lineOf('voter'), 'give role or voter, not both');
  return role ?? (voter === false ? 'member' : 'voter');
}

/** Two voters that can end each other by device, lower number first; null when there are not exactly two such. */
export function duellists(nodes: readonly ConfiguredNode[]): [ConfiguredNode, ConfiguredNode] | null {
  const voters = nodes.filter((n) => n.voter).sort((a, b) => a.id - b.id);
  const [low, high] = voters;
  if (low === undefined || high === undefined || voters.length > 2 || low.witness || high.witness) return null;
  return deviceLevels(low.fence).length > 0 && deviceLevels(high.fence).length > 0 ? [low, high] : null;
}

/** Two nodes that reach each other's fence devices must not shoot at the same moment. */
export function checkDuel(nodes: readonly ConfiguredNode[], limits: TimeLimits, complaints: Complaints, line: number): void {
  const pair = duellists(nodes);
  if (pair === null) return;
  const gapMs = duelGapMs(limits);
  const least = leastDifference(pair[0].fenceDelay, pair[1].fenceDelay, gapMs);
  if (least >= gapMs) return;
  const [a, b] = pair.map(
    (n) => `${n.name} (fence_delay_base_ms = ${n.fenceDelay.baseMs}, fence_delay_max_ms = ${n.fenceDelay.maxMs})`,
  );
  complaints.at(
    line,
    `nodes ${a} and ${b} are the two voters and can end each other: when the link between them breaks both may do so at once, for the delays ` +
      `before the one and before the other may differ by only ${least} ms, and must by ${gapMs}: give one of the two fence_delay_base_ms = 5000, ` +
      'or both the same fence_delay_base_ms and fence_delay_max_ms = 10000',
  );
}

/** Reads all nodes. `top` is the whole file; `defaultPort` for nodes that name none. */
export function readNodes(
  top: TableReader,
  methods: ReadonlyMap<string, FenceMethodConfig>,
  complaints: Complaints,
  defaultPort: number,
): ConfiguredNode[] {
  const tables = top.list('nodes', NODE_MAX);
  // A method whose table has a mistake is complained about there, not at each use.
  const fenceTable = top.raw('fence');
  const defined = fenceTable?.type === 'table' ? [...fenceTable.entries.keys()] : [];
  const nodes: ConfiguredNode[] = [];
  const ids = new Map<number, number>();
  const names = new Map<string, number>();
  let voters = 0;
  for (const table of tables) {
    const name = table.text('name', {
      max: 64,
      pattern: /^[A-Za-z0-9][A-Za-z0-9._-]*$/,
      wanted: 'a name of letters, digits, ".", "_" and "-", at most 64 characters',
    });
    const id = table.integer('id', 1, NODE_MAX);
    const host = table.text('host', { max: 255, pattern: /^[^\s[\]]+$/, wanted: 'a host name or address' });
    const port = table.integer('port', 1, 65535) ?? defaultPort;
    const role = readRole(table, complaints);
    const voter = role !== 'member';
    const witness = role === 'witness';
    const fence = readFence(table, methods, defined, complaints);
    if (witness && table.keys().includes('fence')) {
      complaints.at(table.lineOf('fence'), 'a witness owns nothing, only its lease is waited for: remove fence');
    }
    const baseMs = table.integer('fence_delay_base_ms', 0, FENCE_DELAY_MAX_MS, ' milliseconds') ?? 0;
    const maxMs = table.integer('fence_delay_max_ms', 0, FENCE_DELAY_MAX_MS, ' milliseconds') ?? 0;
    const fenceDelay = { baseMs, maxMs };
    table.finish();
    const has = table.keys();
    for (const key of ['name', 'id', 'host']) {
      if (!has.includes(key) && (key !== 'host' || tables.length > 1))
        complaints.at(table.line, `this node has no ${key}: every node needs one`);
    }
    if (voter) voters++;
    if (id !== undefined) {
      const before = ids.get(id);
      if (before !== undefined) complaints.at(table.lineOf('id'), `id ${id} is already taken at ${complaints.place(before)}`);
      else ids.set(id, table.lineOf('id'));
    }
    if (name !== undefined) {
      const before = names.get(name);
      if (before !== undefined)
        complaints.at(table.lineOf('name'), `name "${name}" is already taken at ${complaints.place(before)}`);
      else names.set(name, table.lineOf('name'));
    }
    if (name !== undefined && id !== undefined)
      nodes.push({ id, name, voter, witness, fence, fenceDelay, host: host ?? '127.0.0.1', port });
  }
  if (tables.length > 0 && voters === 0) complaints.at(tables[0]?.line ?? 1, 'no node votes: set voter = true on at least one');
  if (voters > VOTERS_MAX) {
    complaints.at(tables[0]?.line ?? 1, `${voters} nodes vote, the most is ${VOTERS_MAX}: set voter = false on the others`);
  }
  return nodes;
}
