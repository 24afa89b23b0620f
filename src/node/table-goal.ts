/**
 * The next step towards a goal (src/protocol/table-goal.ts): compared with the view, pure.
 */
import { freeId } from '../membership/node-table.js';
import { deriveTimeLimits } from '../membership/time-limits.js';
import type { LimitValues, NodeView, TableCommand, View } from '../membership/types.js';
import { isLive } from '../membership/view.js';
import { ERROR_CODES, type ErrorCode, TsdlmError } from '../protocol/errors.js';
import { NODE_MAX } from '../protocol/ids.js';
import { VOTERS_MAX } from '../protocol/limits.js';
import { type LimitsWish, ROLES, type Role, type TableGoal } from '../protocol/table-goal.js';

/** null: nothing is left to do; a text: what is waited for. */
export type Step = TableCommand | string | null;

export const NODE_NAME = /^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$/;
const HOST = /^[^\s[\]]{1,255}$/;
const METHOD = /^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$/;
const LEVELS_MAX = 8;

/** What the leader has to do next. Throws TSDLM_NOT_ALLOWED or TSDLM_BAD_CONFIG when it can never be done. */
export function nextStep(view: View, goal: TableGoal): Step {
  const { table } = view;
  switch (goal.what) {
    case 'add':
      return addStep(view, goal);
    case 'limits': {
      const limits = wished(view, goal.limits);
      return view.limits === null || sameLimits(view.limits.active, limits) ? null : { c: 'limits', table, limits };
    }
    case 'voters': {
      const wanted = goal.names.map((name) => named(view, name));
      const first = wanted.find((n) => !n.voter) ?? view.nodes.find((n) => n.voter && !wanted.includes(n));
      return first === undefined ? null : { c: 'voter', table, node: first.id, on: !first.voter };
    }
    case 'remove': {
      if (view.retired.some((r) => r.name === goal.name)) return null;
      const node = named(view, goal.name);
      if (node.voter && !isLive(node)) return { c: 'voter', table, node: node.id, on: false };
      return { c: 'nodeRemove', table, node: node.id };
    }
  }
  const node = named(view, goal.name);
  switch (goal.what) {
    case 'set': {
      const { host, port, fence } = goal;
      const isSame =
        (host === '' || host === node.host) &&
        (port === 0 || port === node.port) &&
        (fence.length === 0 || JSON.stringify(fence) === JSON.stringify(node.fence));
      return isSame ? null : { c: 'nodeSet', table, node: node.id, host, port, fence };
    }
    case 'vote':
      if (node.voter === goal.on) return null;
      if (!goal.on || isLive(node)) return { c: 'voter', table, node: node.id, on: goal.on };
      return node.wantsVote ? null : { c: 'wantVote', table, node: node.id, on: true };
    case 'readmit':
      if (node.journal !== goal.journal) return node.incarnation === null ? `node ${node.name} learns what it has missed` : null;
      if (node.voter) return { c: 'voter', table, node: node.id, on: false };
      return { c: 'readmit', table, node: node.id, journal: '', vote: goal.vote };
  }
}

function addStep(view: View, goal: Extract<TableGoal, { what: 'add' }>): Step {
  const id = goal.id === 0 ? freeId(view) : goal.id;
  const there = view.nodes.find((n) => n.name === goal.name);
  if (there !== undefined && (goal.id === 0 || goal.id === there.id) && isAsWished(there, goal)) return null;
  const { name, host, port, fence, role } = goal;
  const spec = { id, name, host, port, fence, voter: role !== 'member', witness: role === 'witness' };
  return { c: 'nodeAdd', table: view.table, spec };
}

function isAsWished(node: NodeView, goal: Extract<TableGoal, { what: 'add' }>): boolean {
  return node.host === goal.host && node.port === goal.port && node.witness === (goal.role === 'witness');
}

function named(view: View, name: string): NodeView {
  const node = view.nodes.find((n) => n.name === name);
  if (node !== undefined) return node;
  const retired = view.retired.find((r) => r.name === name);
  throw new TsdlmError(
    'TSDLM_NOT_ALLOWED',
    retired === undefined
      ? `there is no node ${name}; there are ${view.nodes.map((n) => n.name).join(', ')}`
      : `node ${name} (number ${retired.id}) was removed for good`,
  );
}

/** The limits that the wish means now. Those that followed from the heartbeat and the lease go on doing so. */
function wished(view: View, wish: LimitsWish): LimitValues {
  const now = view.limits?.active;
  if (now === undefined) throw new TsdlmError('TSDLM_NOT_ALLOWED', 'the cluster is only just beginning: ask again');
  const usual = deriveTimeLimits({ heartbeatMs: now.heartbeatMs, leaseMs: now.leaseMs });
  const kept = (key: 'suspectMs' | 'deadMs' | 'electionMs'): Partial<LimitValues> => {
    const value = wish[key] ?? (now[key] === usual[key] ? undefined : now[key]);
    return value === undefined ? {} : { [key]: value };
  };
  const { heartbeatMs, leaseMs, suspectMs, deadMs, electionMs } = deriveTimeLimits({
    heartbeatMs: wish.heartbeatMs ?? now.heartbeatMs,
    leaseMs: wish.leaseMs ?? now.leaseMs,
    ...kept('suspectMs'),
    ...kept('deadMs'),
    ...kept('electionMs'),
  });
  return { heartbeatMs, leaseMs, suspectMs, deadMs, electionMs };
}

function sameLimits(a: LimitValues, b: LimitValues): boolean {
  return (['heartbeatMs', 'leaseMs', 'suspectMs', 'deadMs', 'electionMs'] as const).every((key) => a[key] === b[key]);
}

/** Plain data from a client or another daemon as a goal. Throws TSDLM_BAD_ARGUMENT naming what is wrong. */
export function parseGoal(args: Record<string, unknown>): TableGoal {
  const { what } = args;
  const bad = (field: string, wanted: string): never => {
    const shown = JSON.stringify(args[field])?.slice(0, 80) ?? 'missing';
    throw new TsdlmError('TSDLM_BAD_ARGUMENT', `${field} is ${shown}: it must be ${wanted}`);
  };
  const text = (field: string, pattern: RegExp, wanted: string): string => {
    const value = args[field];
    return typeof value === 'string' && pattern.test(value) ? value : bad(field, wanted);
  };
  const name = (): string => text('name', NODE_NAME, 'a name of letters, digits, ".", "_" and "-", at most 64 characters');
  const number = (field: string, most: number): number => {
    const value = args[field];
    return typeof value === 'number' && Number.isInteger(value) && value >= 0 && value <= most
      ? value
      : bad(field, `a number up to ${most}`);
  };
  const flag = (field: string): boolean =>
    typeof args[field] === 'boolean' ? (args[field] as boolean) : bad(field, 'true or false');
  const host = (): string => (args.host === '' ? '' : text('host', HOST, 'a host name or address'));
  const fence = (): string[][] => {
    const value = args.fence;
    const isOk =
      Array.isArray(value) &&
      value.length <= LEVELS_MAX &&
      value.every((level) => Array.isArray(level) && level.length > 0 && level.length <= 16 && level.every(isMethod));
    if (!isOk) return bad('fence', `at most ${LEVELS_MAX} levels of method names`);
    for (const level of value as string[][]) {
      if (level.length > 1 && level.some((m) => m === 'self' || m === 'manual')) {
        bad('fence', '"self" and "manual" alone in their level');
      }
    }
    return (value as string[][]).map((level) => level.slice());
  };
  switch (what) {
    case 'add': {
      const role = ROLES.includes(args.role as Role) ? (args.role as Role) : bad('role', ROLES.join(', '));
      return { what, name: name(), id: number('id', NODE_MAX), host: host(), port: number('port', 65535), fence: fence(), role };
    }
    case 'remove':
      return { what, name: name() };
    case 'set':
      return { what, name: name(), host: host(), port: number('port', 65535), fence: fence() };
    case 'vote':
      return { what, name: name(), on: flag('on') };
    case 'voters': {
      const { names } = args;
      const isOk = Array.isArray(names) && names.length >= 1 && names.length <= VOTERS_MAX && names.every(isName);
      return { what, names: isOk ? [...new Set(names as string[])] : bad('names', `1 to ${VOTERS_MAX} names of nodes`) };
    }
    case 'readmit':
      return { what, name: name(), journal: text('journal', /^[^\0]{1,64}$/, 'the journal that was lost'), vote: flag('vote') };
    case 'limits':
      return { what, limits: parseWish(args.limits, bad) };
    default:
      return bad('what', 'add, remove, set, vote, voters, readmit or limits');
  }
}

function parseWish(value: unknown, bad: (field: string, wanted: string) => never): LimitsWish {
  const wish: LimitsWish = {};
  if (typeof value !== 'object' || value === null) return bad('limits', 'time limits in milliseconds');
  for (const key of ['heartbeatMs', 'leaseMs', 'suspectMs', 'deadMs', 'electionMs'] as const) {
    const ms = (value as Record<string, unknown>)[key];
    if (ms === undefined) continue;
    if (typeof ms !== 'number' || !Number.isFinite(ms) || ms <= 0) return bad('limits', `${key} in milliseconds`);
    wish[key] = ms;
  }
  return wish;
}

function isMethod(value: unknown): boolean {
  return typeof value === 'string' && METHOD.test(value);
}

function isName(value: unknown): boolean {
  return typeof value === 'string' && NODE_NAME.test(value);
}

/** An error code from another daemon's answer. */
export function codeFrom(value: unknown, otherwise: ErrorCode): ErrorCode {
  return typeof value === 'string' && Object.hasOwn(ERROR_CODES, value) ? (value as ErrorCode) : otherwise;
}
