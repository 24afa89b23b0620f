/**
 * The `[[nodes]]` of the configuration: who they are, where they are reached, who votes, how each is fenced.
 */
import type { FenceMethodConfig } from '../fence/types.js';
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
    if (name !== undefined && id !== undefined) nodes.push({ id, name, voter, witness, fence, host: host ?? '127.0.0.1', port });
  }
  if (tables.length > 0 && voters === 0) complaints.at(tables[0]?.line ?? 1, 'no node votes: set voter = true on at least one');
  if (voters > VOTERS_MAX) {
    complaints.at(tables[0]?.line ?? 1, `${voters} nodes vote, the most is ${VOTERS_MAX}: set voter = false on the others`);
  }
  return nodes;
}
