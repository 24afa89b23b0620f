/** What an import gives: the cluster in our terms, and what became of everything else. */
import { duelGapMs } from '../membership/duel.js';
import { deriveTimeLimits } from '../membership/time-limits.js';
import type { MasteryPolicy } from '../membership/types.js';
import { VOTERS_MAX } from '../protocol/limits.js';
import { type Entry, shown } from './tree.js';

export interface ImportedNode {
  id: number;
  name: string;
  host: string;
  port: number | null;
  voter: boolean;
  /** Others wait that long before they fence it; 0 = not at all. */
  fenceDelayMs: number;
  fence: string[][];
}

export interface ImportedMethod {
  name: string;
  type: 'ipmi' | 'agent';
  /** In the order in which they are written. Never a secret. */
  settings: [key: string, value: string | number][];
  options: [key: string, value: string][];
}

/** A file that the operator (or --write-secrets) has to make. */
export interface SecretFile {
  /** Its name in the directory of secrets. */
  name: string;
  mode: 0o600 | 0o700;
  /** Null: random. */
  content: string | null;
  what: string;
}

export interface NotCarried {
  file: string;
  line: number;
  key: string;
  /** Without secrets. */
  value: string;
  why: string;
}

export interface Imported {
  cluster: string;
  mastery: MasteryPolicy;
  /** Milliseconds; null = our own defaults. */
  limits: { heartbeatMs: number; leaseMs: number; was: string } | null;
  nodes: ImportedNode[];
  methods: ImportedMethod[];
  secrets: SecretFile[];
  notCarried: NotCarried[];
}

/** Keys whose value is a secret in some agent. */
export function isSecretKey(key: string): boolean {
  return /pass|secret|community|token|credential|(^|_)key$|snmp_?auth/i.test(key) && !/_script$|_file$/i.test(key);
}

const NAME = /^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$/;

/** A name that our configuration takes, unique among `used`; the same one where it already is. */
export function usableName(name: string, used: Set<string>, otherwise: string): string {
  let base = name
    .replace(/[^A-Za-z0-9._-]+/g, '-')
    .replace(/^[^A-Za-z0-9]+/, '')
    .slice(0, 56);
  if (!NAME.test(base)) base = otherwise;
  if (NAME.test(name) && !used.has(name)) base = name;
  let found = base;
  for (let i = 2; used.has(found); i++) found = `${base}-${i}`;
  used.add(found);
  return found;
}

/** All nodes vote up to the most there may be, then the first ones. */
export function giveVotes(nodes: ImportedNode[]): void {
  for (const [i, node] of nodes.entries()) node.voter = i < VOTERS_MAX;
}

/** Of two voters with fence devices the one with the lower number is shot later, as o2cb would have it survive: else both might shoot at once. */
export function keepFromDuel(imported: Imported): void {
  const [low, high, third] = imported.nodes.filter((n) => n.voter);
  const hasDevice = (n: ImportedNode): boolean => n.fence.some((level) => level.some((m) => m !== 'self' && m !== 'manual'));
  if (!low || !high || third || !hasDevice(low) || !hasDevice(high)) return;
  low.fenceDelayMs = duelGapMs(imported.limits ?? deriveTimeLimits());
}

/** Everything that nobody took, in the order of the files. */
export function notTaken(roots: readonly Entry[], reasons: Readonly<Record<string, string>>): NotCarried[] {
  const found: NotCarried[] = [];
  const visit = (e: Entry, path: string): void => {
    const key = path === '' ? e.key : `${path}.${e.key}`;
    const isEmptySection = e.text === null && e.list === null && e.children.length === 0;
    if (!e.isTaken && (e.text !== null || e.list !== null || isEmptySection)) {
      const value = e.text ?? e.list?.join(', ') ?? '';
      found.push({
        file: e.file,
        line: e.line,
        key,
        value: isSecretKey(e.key) ? '(not shown)' : shown(value).slice(1, -1),
        why: e.why || (Object.hasOwn(reasons, e.key) ? reasons[e.key] : undefined) || 'tsdlm has nothing of this kind',
      });
    }
    for (const c of e.children) visit(c, key);
  };
  for (const root of roots) for (const e of root.children) visit(e, '');
  return found;
}
