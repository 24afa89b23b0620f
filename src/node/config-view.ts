/**
 * The configuration file against the cluster's own table.
 *
 * The problem: nodes, votes, fence levels and time limits stand in the file of every node, and are changed by command while the
 * cluster runs. A file that nobody touched is then merely old; one that somebody edited says that he wants something else, and would
 * be passed over in silence. The idea: the file bootstraps; from the cluster's first log entry on the view counts. The journal keeps
 * a copy of the file as it was at the last accepted start. What differs from the view and from that copy was edited by hand, and the
 * start is refused with both values and the command that does it; what differs from the view alone is an older copy, and is passed over.
 */
import { limitValues } from '../membership/limits-in-force.js';
import type { LimitValues, NodeView, View } from '../membership/types.js';
import { TsdlmError } from '../protocol/errors.js';
import type { NodeId } from '../protocol/ids.js';
import type { Config } from './config.js';

interface NodeCopy {
  id: NodeId;
  name: string;
  role: string;
  host: string;
  port: number;
  fence: string[][];
}

/** What of a file the view has as well. */
export interface ConfigCopy {
  nodes: NodeCopy[];
  limits: LimitValues;
}

export function copyOf(config: Pick<Config, 'nodes' | 'limits'>): ConfigCopy {
  const nodes = config.nodes.map((n) => {
    const { id, name, host, port, fence } = n;
    return { id, name, role: roleOf(n), host, port, fence: n.witness ? [['self']] : fence };
  });
  return { nodes: nodes.sort((a, b) => a.id - b.id), limits: limitValues(config.limits) };
}

/** A copy from the journal, or null when it is none (first start, or written by an older version). */
export function parseCopy(value: unknown): ConfigCopy | null {
  if (typeof value !== 'object' || value === null) return null;
  const { nodes, limits } = value as Partial<ConfigCopy>;
  return Array.isArray(nodes) && typeof limits === 'object' && limits !== null ? { nodes, limits } : null;
}

/**
 * Throws TSDLM_CONFIG_MISMATCH or TSDLM_LIMITS_MISMATCH when the file was edited against the view, TSDLM_NODE_REMOVED when this
 * node was removed. `accepted`: the copy of the last accepted start. Gives what is older in the file than in the view, for the log.
 */
export function checkAgainstView(config: Config, view: View, accepted: ConfigCopy | null): string[] {
  if (view.clusterId === '' || config.file === '') return [];
  const retired = view.retired.find((r) => r.id === config.self.id);
  if (retired !== undefined) {
    throw new TsdlmError(
      'TSDLM_NODE_REMOVED',
      `${config.file}: node ${retired.name} (number ${retired.id}) was removed from the cluster for good: give this machine a new number and name, ` +
        'an empty state directory, and add it with tsdlm node add',
    );
  }
  const file = copyOf(config);
  const old: string[] = [];
  const differs = (what: string, here: unknown, there: unknown, before: unknown, wayOut: string): void => {
    const [a, b] = [JSON.stringify(here), JSON.stringify(there)];
    if (a === b) return;
    if (accepted === null || JSON.stringify(before) === a) {
      old.push(`${what} is ${a} in the file and ${b} in the cluster`);
      return;
    }
    const code = what.startsWith('time limit') ? 'TSDLM_LIMITS_MISMATCH' : 'TSDLM_CONFIG_MISMATCH';
    const text = `${config.file}: ${what} is ${a} here and ${b} in the cluster, which counts since its first start: ${wayOut}, or put the value back`;
    throw new TsdlmError(code, text);
  };
  for (const here of file.nodes) {
    const there = view.nodes.find((n) => n.id === here.id);
    const before = accepted?.nodes.find((n) => n.id === here.id);
    if (there === undefined) {
      differs(`node ${here.name}`, 'there', 'not in the table', before && 'there', `add it with tsdlm node add ${here.name}`);
      continue;
    }
    const set = `change it with tsdlm node set ${there.name}`;
    differs(
      `name of node ${here.id}`,
      here.name,
      there.name,
      before?.name,
      'a name is not changed: remove the node and add another',
    );
    differs(`role of node ${here.name}`, here.role, roleOf(there), before?.role, `${set} --role`);
    differs(
      `address of node ${here.name}`,
      [here.host, here.port],
      [there.host, there.port],
      before && [before.host, before.port],
      `${set} --address`,
    );
    differs(`fence of node ${here.name}`, here.fence, there.fence, before?.fence, `${set} --fence`);
  }
  for (const before of accepted?.nodes ?? []) {
    if (file.nodes.some((n) => n.id === before.id) || !view.nodes.some((n) => n.id === before.id)) continue;
    const wayOut = `remove it with tsdlm node remove ${before.name}`;
    differs(`node ${before.name}`, 'not there', 'in the table', 'there', wayOut);
  }
  const limits = view.limits?.active;
  if (limits !== undefined) {
    for (const key of Object.keys(file.limits) as (keyof LimitValues)[]) {
      differs(`time limit ${key}`, file.limits[key], limits[key], accepted?.limits[key], 'change it with tsdlm limits set');
    }
  }
  return old;
}

function roleOf(node: Pick<NodeView, 'voter'> & { witness?: boolean; wantsVote?: boolean }): string {
  if (node.witness === true) return 'witness';
  return node.voter || node.wantsVote === true ? 'voter' : 'member';
}
