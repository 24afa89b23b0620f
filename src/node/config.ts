/**
 * The configuration of one daemon: one TOML file, the same text on all nodes but for `node`.
 *
 * The problem: a wrong configuration must be refused before the daemon speaks to anyone, in words that name file and line,
 * and what must agree between nodes must be comparable by a checksum. And a cluster of one needs no file at all.
 * The idea: read with positions (toml.ts, config-reader.ts), complain about everything at once, and hand out plain data
 * without a single optional field. Defaults come from the environment that is given as an argument, so tests need none.
 */
import { createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { hostname } from 'node:os';
import { dirname, isAbsolute, resolve } from 'node:path';
import { secretFileFault } from '../fence/secret-file.js';
import type { SelfEndConfig } from '../fence/self-end.js';
import type { FenceMethodConfig } from '../fence/types.js';
import { NO_DELAY } from '../membership/duel.js';
import { deriveTimeLimits, type TimeLimits, type TimeLimitsInput } from '../membership/time-limits.js';
import { MASTERY_POLICIES, type MasteryPolicy, type NodeConfig } from '../membership/types.js';
import { TsdlmError } from '../protocol/errors.js';
import type { NodeId } from '../protocol/ids.js';
import { DOMAINS_MAX } from '../protocol/limits.js';
import { defaultSocketPath, defaultStateDir, PEER_PORT } from '../protocol/paths.js';
import { readFenceMethods } from './config-fence.js';
import { defaultFilesSocket, type FilesConfig, readFiles } from './config-files.js';
import { type ConfiguredNode, checkDuel, duellists, readNodes } from './config-nodes.js';
import { Complaints, TableReader } from './config-reader.js';
import { readSelfEnd } from './config-self-end.js';
import { LOG_LEVELS, type LogLevel } from './log.js';
import { parseToml } from './toml.js';

/** Port between daemons where the configuration names none. */
export const DEFAULT_PORT = PEER_PORT;
/** Mean time between two looks at one fence device. */
const FENCE_MONITOR_MS = 60_000;
const RESTART_LIMIT_MS = 60_000;
export const RESTART_LIMIT_MS_MAX = 600_000;
export const SIGTERM_VERBS = ['stop', 'restart'] as const;
export type SigtermVerb = (typeof SIGTERM_VERBS)[number];
const KEY_CHARS_MIN = 16;
const KEY_CHARS_MAX = 4096;

/** Why a node serves no mounts (rule 2). */
export const FILES_REFUSED =
  'files cannot be mounted from this node: nothing ends its machine, so a program that has a file open could go on after ' +
  'others were granted its lock; give this node a fence method that ends the machine, or set unsafe_node_owned = true';

export interface Config {
  /** File it came from, or '' for none. */
  file: string;
  cluster: string;
  /** This node. */
  self: ConfiguredNode;
  /** All nodes, by id. */
  nodes: ConfiguredNode[];
  /** Secret shared by all nodes; null in a cluster of one without a key. */
  key: Buffer | null;
  limits: TimeLimits;
  stateDir: string;
  /** null = the machine's own (facts.ts). */
  machineId: string | null;
  /** File that holds another id after each start of the machine; null = the kernel's own. */
  bootIdFile: string | null;
  socket: string;
  /** Permission bits of the socket. */
  socketMode: number;
  /** Group of the socket, by name or number; '' = the daemon's own. */
  socketGroup: string;
  /** Where to listen for other daemons; null = nobody may come (a cluster of one). */
  listen: { host: string; port: number } | null;
  tls: boolean;
  fenceMethods: Map<string, FenceMethodConfig>;
  /** How this machine ends itself when its lease is over; null = it does not. */
  selfEnd: SelfEndConfig | null;
  /** Mean time between two looks at a fence device; 0 = never. */
  fenceMonitorMs: number;
  unsafeNodeOwned: boolean;
  /** The operator vouches that this virtual machine is never suspended, saved or live-migrated with a pause (rule 10). */
  neverPaused: boolean;
  /** Its machine ends itself when its lease is over (watchdog, sysrq). */
  endsItself: boolean;
  /** Rule 2: this node is ended by something other than its own lease, or the operator takes the risk. */
  nodeOwnedAllowed: boolean;
  /** Rule 2 for files: as for node-owned locks, or a cluster of one. */
  filesAllowed: boolean;
  /** Mountable files (9P). */
  files: FilesConfig;
  /** Who masters in domains that this cluster makes and that are not named below: any member (`peer`), or voters only (`servers`). */
  mastery: MasteryPolicy;
  domains: Map<string, DomainConfig>;
  /** How long a restart may take at most, ms: until then nobody fences this node or frees its locks (rule 23). */
  restartLimitMs: number;
  /** What SIGTERM means: the node leaves, or its daemon comes back. */
  sigterm: SigtermVerb;
  logLevel: LogLevel;
  /** What is allowed but probably not meant. */
  warnings: string[];
}

export interface ConfigSource {
  /** Path of the file; without `file` and `text`: a cluster of one. */
  file?: string;
  /** The text itself; `file` is then only its name. */
  text?: string;
  /** From the command line; they win over the file. */
  overrides?: {
    node?: string;
    stateDir?: string;
    socket?: string;
    logLevel?: LogLevel;
    restartLimitMs?: number;
    sigterm?: SigtermVerb;
  };
  env?: Readonly<Record<string, string | undefined>>;
  uid?: number;
  hostname?: string;
}

const NAME_RULE = {
  max: 64,
  pattern: /^[A-Za-z0-9][A-Za-z0-9._-]*$/,
  wanted: 'a name of letters, digits, ".", "_" and "-", at most 64 characters',
};

function readFile(file: string, what: string): string {
  try {
    return readFileSync(file, 'utf8');
  } catch (cause) {
    throw new TsdlmError('TSDLM_BAD_CONFIG', `${what} ${file} cannot be read: ${(cause as Error).message}`, { cause });
  }
}

function readKey(top: TableReader, source: ConfigSource, uid: number, complaints: Complaints): Buffer | null {
  const wanted = `text of ${KEY_CHARS_MIN} to ${KEY_CHARS_MAX} characters, such as the output of: openssl rand -hex 32`;
  const inline = top.text('key', { max: KEY_CHARS_MAX, pattern: new RegExp(`^.{${KEY_CHARS_MIN},}$`), wanted, secret: true });
  const path = top.text('key_file');
  if (inline !== undefined && path !== undefined) {
    complaints.at(top.lineOf('key_file'), 'key and key_file are both given: remove one');
  }
  if (inline !== undefined) {
    const wrong = source.text === undefined && source.file !== undefined ? secretFileFault(source.file, uid) : undefined;
    if (wrong !== undefined) complaints.at(top.lineOf('key'), `this file holds the key and ${wrong}, or use key_file`);
    return Buffer.from(inline);
  }
  if (path === undefined) return null;
  const file = isAbsolute(path) ? path : resolve(dirname(source.file ?? '.'), path);
  const wrong = secretFileFault(file, uid);
  if (wrong !== undefined) {
    complaints.at(top.lineOf('key_file'), `key_file ${file} ${wrong}`);
    return null;
  }
  const text = readFile(file, 'key_file').trim();
  if (text.length < KEY_CHARS_MIN || text.length > KEY_CHARS_MAX) {
    complaints.at(top.lineOf('key_file'), `key_file ${file} must hold ${wanted}`);
    return null;
  }
  return Buffer.from(text);
}

const LIMIT_KEYS = {
  heartbeat_ms: ['heartbeatMs', 20, 60_000],
  lease_ms: ['leaseMs', 120, 600_000],
  suspect_ms: ['suspectMs', 40, 600_000],
  dead_ms: ['deadMs', 40, 600_000],
  election_ms: ['electionMs', 40, 600_000],
} as const;

/** The words that deriveTimeLimits names a limit by. */
const LIMIT_WORDS: Record<keyof typeof LIMIT_KEYS, string> = {
  heartbeat_ms: 'heartbeat',
  lease_ms: 'lease',
  suspect_ms: 'suspect_after',
  dead_ms: 'dead_after',
  election_ms: 'election',
};

function readLimits(top: TableReader, complaints: Complaints): TimeLimits {
  const table = top.table('limits');
  const input: TimeLimitsInput = {};
  for (const [key, [name, min, max]] of Object.entries(LIMIT_KEYS)) {
    const value = table?.integer(key, min, max, ' milliseconds');
    if (value !== undefined) input[name] = value;
  }
  table?.finish();
  try {
    return deriveTimeLimits(input);
  } catch (error) {
    const text = (error as Error).message;
    // Blame the first limit of the sentence that this file sets.
    const blamed = (Object.keys(LIMIT_KEYS) as (keyof typeof LIMIT_KEYS)[])
      .filter((key) => table?.keys().includes(key) && text.includes(LIMIT_WORDS[key]))
      .sort((a, b) => text.indexOf(LIMIT_WORDS[a]) - text.indexOf(LIMIT_WORDS[b]))[0];
    complaints.at(blamed && table ? table.lineOf(blamed) : (table?.line ?? 1), `limits: ${text}`);
    return deriveTimeLimits();
  }
}

export interface DomainConfig {
  mastery: MasteryPolicy;
  /** Where programs of this node have the kernel's dlmfs, when its locks are held there too; '' = it is not bridged. */
  bridge: string;
}

function readDomains(top: TableReader, mastery: MasteryPolicy, complaints: Complaints): Map<string, DomainConfig> {
  const domains = new Map<string, DomainConfig>();
  let first = '';
  for (const [name, table] of top.tables('domains', DOMAINS_MAX)) {
    const bridge = table.text('bridge', {
      max: 255,
      pattern: /^\/[^\0]*[^\0/]$/,
      wanted: 'the directory where ocfs2_dlmfs is mounted, such as "/dlm"',
    });
    if (bridge !== undefined && first !== '' && bridge !== first) {
      complaints.at(
        table.lineOf('bridge'),
        `bridge = "${bridge}": another domain is bridged to "${first}", and a node has one kernel`,
      );
    }
    first ||= bridge ?? '';
    domains.set(name, { mastery: table.oneOf('mastery', MASTERY_POLICIES) ?? mastery, bridge: bridge ?? '' });
    table.finish();
  }
  return domains;
}

/** `HOST:PORT`, `[V6]:PORT`, or a port alone. */
function readListen(top: TableReader): { host?: string; port?: number } {
  const text = top.text('listen', {
    pattern: /^(?:(?:\[[0-9a-fA-F:.]+\]|[^:[\]]+):)?[0-9]{1,5}$/,
    wanted: 'HOST:PORT, [V6-ADDRESS]:PORT, or a port alone',
  });
  if (text === undefined) return {};
  const colon = text.lastIndexOf(':');
  const port = Number(text.slice(colon + 1));
  if (colon < 0) return { port };
  return { host: text.slice(0, colon).replace(/^\[|\]$/g, ''), port };
}

/** Which of the nodes this daemon is: --node, else `node`, else the only one, else the one named as this host. */
function findSelf(nodes: ConfiguredNode[], name: string | undefined, host: string): ConfiguredNode | undefined {
  if (name !== undefined) return nodes.find((n) => n.name === name);
  if (nodes.length === 1) return nodes[0];
  return nodes.find((n) => n.name === host) ?? nodes.find((n) => n.name === host.split('.')[0]);
}

/**
 * Reads and checks the configuration. Throws TSDLM_BAD_CONFIG with one line `file:line: complaint` per mistake.
 * Without a file and text: a cluster of one, node 1, named as this host, that listens on its local socket only.
 */
export function loadConfig(source: ConfigSource = {}): Config {
  const env = source.env ?? process.env;
  const uid = source.uid ?? process.getuid?.() ?? 0;
  const host = source.hostname ?? hostname();
  const overrides = source.overrides ?? {};
  const given = source.text !== undefined || source.file !== undefined;
  const file = source.file ?? (given ? 'configuration' : '');
  const text = source.text ?? (source.file === undefined ? '' : readFile(source.file, 'configuration'));
  const complaints = new Complaints(file === '' ? 'built-in configuration' : file);
  const top = new TableReader(parseToml(text, file), '', complaints);

  const cluster = top.text('cluster', NAME_RULE);
  const nodeName = top.text('node', NAME_RULE);
  const key = readKey(top, source, uid, complaints);
  const limits = readLimits(top, complaints);
  const fenceMethods = readFenceMethods(top, complaints, {
    file: source.file ?? '',
    onDisk: source.file !== undefined && source.text === undefined,
    uid,
  });
  const selfEnd = readSelfEnd(top, limits, complaints);
  const configured = readNodes(top, fenceMethods, complaints, DEFAULT_PORT);
  const fenceMonitorMs = top.integer('fence_monitor_ms', 0, 3_600_000, ' milliseconds; 0 = never');
  const mastery = top.oneOf('mastery', MASTERY_POLICIES) ?? 'peer';
  const domains = readDomains(top, mastery, complaints);
  const { usesDefault: usesDefaultFiles, ...files } = readFiles(top, complaints);
  const stateDir = top.text('state_dir');
  const machineId = top.text('machine_id', { pattern: /^[0-9a-f]{32}$/, wanted: '32 hexadecimal digits, as in /etc/machine-id' });
  const bootIdFile = top.text('boot_id_file');
  const socket = top.text('socket', { max: 107, wanted: 'a path of at most 107 characters' });
  const socketMode = top.text('socket_mode', { pattern: /^0?[0-7]{3}$/, wanted: 'permissions in octal, such as "0660"' });
  const socketGroup = top.text('socket_group', { max: 32 });
  const listen = readListen(top);
  const tls = top.boolean('tls') ?? true;
  const unsafeNodeOwned = top.boolean('unsafe_node_owned') ?? false;
  const neverPaused = top.boolean('never_paused') ?? false;
  const restartLimitMs = top.integer('restart_limit_ms', 1000, RESTART_LIMIT_MS_MAX, ' milliseconds');
  const sigterm = top.oneOf('sigterm', SIGTERM_VERBS);
  const logLevel = top.oneOf('log_level', LOG_LEVELS);
  top.finish();

  const alone = configured.length === 0;
  const nodes: ConfiguredNode[] = alone
    ? [
        {
          id: 1,
          name: overrides.node ?? nodeName ?? (host || 'node1'),
          voter: true,
          fence: [['self']],
          fenceDelay: NO_DELAY,
          host: '127.0.0.1',
          port: DEFAULT_PORT,
        },
      ]
    : configured.sort((a, b) => a.id - b.id);
  const wantedName = overrides.node ?? nodeName;
  const self = findSelf(nodes, wantedName, host);
  if (!self) {
    const names = nodes.map((n) => n.name).join(', ');
    complaints.at(
      top.lineOf('node'),
      wantedName === undefined
        ? `which node is this? None of ${names} is named as this host (${host}): set node, or start with --node NAME`
        : `node "${wantedName}" is not one of the [[nodes]]: ${names}`,
    );
  }
  if (cluster === undefined && given && nodes.length > 1)
    complaints.at(top.lineOf('cluster'), 'cluster is missing: give the cluster a name');
  if (nodes.length > 1 && key === null && !top.keys().some((k) => k === 'key' || k === 'key_file')) {
    complaints.at(
      1,
      'key_file is missing: a cluster of more than one node needs a shared key (openssl rand -hex 32 > FILE; chmod 600 FILE)',
    );
  }
  for (const [what, path] of [
    ['state_dir', stateDir],
    ['socket', socket],
    ['boot_id_file', bootIdFile],
  ] as const) {
    if (path !== undefined && !isAbsolute(path)) complaints.at(top.lineOf(what), `${what} = "${path}" must be an absolute path`);
  }
  const isEndedByOthers = self?.fence.some((level) => level.every((name) => name !== 'self')) ?? false;
  const endsItself = selfEnd?.method === 'watchdog' || selfEnd?.method === 'sysrq';
  const nodeOwnedAllowed = unsafeNodeOwned || isEndedByOthers || endsItself;
  // In a cluster of one nobody else is granted what this node holds, whatever becomes of its lease.
  const filesAllowed = nodeOwnedAllowed || nodes.length === 1;
  if (files.isAsked && !filesAllowed && self !== undefined) complaints.at(top.lineOf('files'), `[files]: ${FILES_REFUSED}`);
  checkDuel(nodes, limits, complaints, top.lineOf('nodes'));
  complaints.throwIfAny();
  const me = self as ConfiguredNode;
  const socketPath = overrides.socket ?? socket ?? defaultSocketPath(env, uid);
  if (usesDefaultFiles) files.socket = defaultFilesSocket(socketPath);

  return {
    file,
    cluster: cluster ?? 'local',
    self: me,
    nodes,
    key,
    limits,
    stateDir: overrides.stateDir ?? stateDir ?? defaultStateDir(env, uid),
    machineId: machineId ?? null,
    bootIdFile: bootIdFile ?? null,
    socket: socketPath,
    socketMode: Number.parseInt(socketMode ?? '0660', 8),
    socketGroup: socketGroup ?? '',
    listen: nodes.length > 1 ? { host: listen.host ?? me.host, port: listen.port ?? me.port } : null,
    tls,
    fenceMethods,
    selfEnd,
    fenceMonitorMs: fenceMonitorMs ?? FENCE_MONITOR_MS,
    unsafeNodeOwned,
    neverPaused,
    endsItself,
    nodeOwnedAllowed,
    filesAllowed,
    files,
    mastery,
    domains,
    restartLimitMs: overrides.restartLimitMs ?? restartLimitMs ?? RESTART_LIMIT_MS,
    sigterm: overrides.sigterm ?? sigterm ?? 'stop',
    logLevel: overrides.logLevel ?? logLevel ?? 'info',
    warnings: warningsOf(nodes, fenceMethods, unsafeNodeOwned),
  };
}

function warningsOf(nodes: ConfiguredNode[], methods: Map<string, FenceMethodConfig>, unsafe: boolean): string[] {
  const warnings: string[] = [];
  const voters = nodes.filter((n) => n.voter).length;
  if (voters === 2 && duellists(nodes) === null) {
    warnings.push(
      'two voters: when one of them dies the other stops too; fence devices for both, a witness or a third voter would let it go on',
    );
  } else if (voters > 2 && voters % 2 === 0) warnings.push(`${voters} voters stand no more failures than ${voters - 1}`);
  const used = new Set(nodes.flatMap((n) => n.fence.flat()));
  for (const name of methods.keys()) if (!used.has(name)) warnings.push(`fence method "${name}" is used by no node`);
  if (unsafe) warnings.push('unsafe_node_owned: a node that is cut off may keep node-owned locks that others were granted');
  return warnings;
}

/** Ids of the nodes that vote. */
export function votersOf(nodes: readonly NodeConfig[]): NodeId[] {
  return nodes.filter((n) => n.voter).map((n) => n.id);
}

/**
 * Checksum (hex) over what must be equal on all nodes: cluster, nodes with votes and fence levels, who masters where, bridges. Not
 * over the key, addresses and paths, nor the time limits, which the handshake compares by themselves.
 */
export function configChecksum(config: Pick<Config, 'cluster' | 'nodes' | 'mastery' | 'domains'>): string {
  const nodes = [...config.nodes]
    .sort((a, b) => a.id - b.id)
    .map((n) => [n.id, n.name, n.voter, n.witness ?? false, n.fence, n.fenceDelay.baseMs, n.fenceDelay.maxMs]);
  const domains = [...config.domains].sort(([a], [b]) => (a < b ? -1 : 1)).map(([name, d]) => [name, d.mastery, d.bridge]);
  return createHash('sha256')
    .update(JSON.stringify([config.cluster, nodes, config.mastery, domains]))
    .digest('hex');
}
