/**
 * What two daemons must agree on before they talk, and how a difference is said.
 *
 * The problem: daemons with another key, cluster, configuration or other time limits must not meet half-way: a lease is only
 * safe between nodes that count alike. The idea: pure checks of what the other side said against what we are; each gives a
 * stable code and a sentence with both values, which goes to the other side and into both logs.
 *
 * What may be refused before the key is proven: only what says nothing about this cluster (magic and versions).
 * Left to others: proofs (src/node/peer-keys.ts), order of the messages (src/node/peer-handshake.ts).
 */
import { type ErrorCode, TsdlmError } from './errors.js';
import type { Incarnation, NodeId } from './ids.js';
import { type Challenge, type Hello, PEER_MAGIC } from './link-messages.js';

/** Versions of the protocol between daemons that this program speaks. A rolling upgrade needs two adjacent ones. */
export const PEER_VERSION_MIN = 1;
export const PEER_VERSION_MAX = 1;
/** Raised when fields are appended to messages; the older side passes them over. */
export const PEER_MINOR = 0;
/** Optional abilities; a side uses one only when both named it. None yet. */
export const FEATURES: readonly string[] = [];

export interface Versions {
  versionMin: number;
  versionMax: number;
}
export const PEER_VERSIONS: Versions = { versionMin: PEER_VERSION_MIN, versionMax: PEER_VERSION_MAX };

const refuse = (code: ErrorCode, text: string): TsdlmError => new TsdlmError(code, text);

/** The highest version that both ranges hold, or the refusal. */
export function commonVersion(own: Versions, theirs: Versions): number | TsdlmError {
  const version = Math.min(own.versionMax, theirs.versionMax);
  if (version >= own.versionMin && version >= theirs.versionMin) return version;
  return refuse(
    'TSDLM_VERSION_MISMATCH',
    `protocol versions do not meet: ours are ${own.versionMin} to ${own.versionMax}, the other side's ${theirs.versionMin} to ${theirs.versionMax}: upgrade the older side`,
  );
}

/** Judges a Challenge before anything is proven. */
export function checkChallenge(theirs: Challenge, own: Versions = PEER_VERSIONS): TsdlmError | null {
  if (theirs.magic !== PEER_MAGIC) {
    return refuse('TSDLM_PROTOCOL', 'the other side is not a tsdlm daemon: check the port in the configuration');
  }
  const version = commonVersion(own, theirs);
  return typeof version === 'number' ? null : version;
}

/** What a node knows and demands when it judges a Hello. */
export interface Own {
  self: NodeId;
  role: 'dial' | 'accept';
  /** Dial: the node that was dialled. Accept: 0. */
  expected: NodeId;
  /** True for the numbers of configured nodes. */
  isNode(id: NodeId): boolean;
  cluster: string;
  /** As our journal names the cluster; '' before it does: then the configurations have to agree. */
  clusterId: string;
  /** Name of a node, undefined for one that we do not know. */
  nameOf(id: NodeId): string | undefined;
  /** Name of a node that was removed for good. */
  removed(id: NodeId): string | undefined;
  configSum: string;
  limits: Hello['limits'];
  /** The last incarnation of that node that this process has linked with. */
  lastSeen(id: NodeId): Incarnation | null;
}

/** Judges who the other side says it is and what it is configured for; only after its proof was right. */
export function checkHello(own: Own, challenge: Challenge, hello: Hello): TsdlmError | null {
  const peer = challenge.from;
  if (challenge.to !== own.self) {
    return refuse(
      'TSDLM_UNKNOWN_NODE',
      `this is node ${own.self}, but node ${peer} means node ${challenge.to}: check the node addresses`,
    );
  }
  if (own.expected !== 0 && peer !== own.expected) {
    return refuse(
      'TSDLM_UNKNOWN_NODE',
      `node ${own.expected} was dialled, but node ${peer} answered: check the node addresses in the configuration`,
    );
  }
  const removed = own.removed(peer);
  if (removed !== undefined) {
    return refuse(
      'TSDLM_NODE_REMOVED',
      `node ${peer} (${removed}) was removed from the cluster for good, and its number is not used again: give this machine a new number and name, ` +
        'an empty state directory, and add it with tsdlm node add',
    );
  }
  // Who has no log yet knows only some of the others; they know it.
  const isNew = own.clusterId === '' && hello.clusterId !== '';
  if (!own.isNode(peer) && !isNew) {
    return refuse(
      'TSDLM_UNKNOWN_NODE',
      `node ${peer} (${hello.name}) is not in the node table of node ${own.self}: tsdlm node add puts it there`,
    );
  }
  if (peer === own.self) {
    return refuse('TSDLM_UNKNOWN_NODE', `both sides say they are node ${peer}: node numbers must be different`);
  }
  if (own.role === 'accept' && peer < own.self) {
    return refuse('TSDLM_PROTOCOL', `node ${peer} dialled node ${own.self}, but the higher number dials the lower`);
  }
  if (hello.cluster !== own.cluster) {
    return refuse(
      'TSDLM_WRONG_CLUSTER',
      `node ${peer} is of cluster "${hello.cluster}", node ${own.self} of "${own.cluster}": check the cluster name and the addresses`,
    );
  }
  if (own.clusterId !== '' && hello.clusterId !== '' && own.clusterId !== hello.clusterId) {
    return refuse(
      'TSDLM_WRONG_CLUSTER',
      `node ${peer} has a journal of cluster ${hello.clusterId}, node ${own.self} of ${own.clusterId}, both named "${own.cluster}": check the addresses and state directories`,
    );
  }
  const name = own.nameOf(peer);
  if (name !== undefined && name !== hello.name && (own.clusterId !== '' || hello.clusterId === '')) {
    return refuse(
      'TSDLM_CONFIG_MISMATCH',
      `node ${peer} says that it is "${hello.name}", node ${own.self} knows it as "${name}": check node and [[nodes]] in its configuration`,
    );
  }
  // Once the log names the cluster, it says what counts, and a node with an older copy learns it from there (rule 14).
  if (own.clusterId === '' && hello.clusterId === '') {
    const error = checkConfigured(own, peer, hello);
    if (error !== null) return error;
  }
  return checkIncarnation(peer, hello, own.lastSeen(peer));
}

/** Before the first start of a cluster all nodes have to be configured alike. */
function checkConfigured(own: Own, peer: NodeId, hello: Hello): TsdlmError | null {
  for (const key of Object.keys(own.limits) as (keyof Hello['limits'])[]) {
    if (hello.limits[key] !== own.limits[key]) {
      return refuse(
        'TSDLM_LIMITS_MISMATCH',
        `time limit ${key} is ${hello.limits[key]} ms on node ${peer} and ${own.limits[key]} ms on node ${own.self}: it must be equal on all nodes`,
      );
    }
  }
  if (hello.configSum !== own.configSum) {
    return refuse(
      'TSDLM_CONFIG_MISMATCH',
      `configuration checksum is ${hello.configSum} on node ${peer} and ${own.configSum} on node ${own.self}: node list, domains and fence methods must be equal on all nodes`,
    );
  }
  return null;
}

/** Rule 12: a start count that does not grow is a rolled-back or cloned journal. A new journal counts from one again. */
function checkIncarnation(peer: NodeId, hello: Hello, last: Incarnation | null): TsdlmError | null {
  const now = hello.incarnation;
  if (now.startCount < 1 || hello.open.startCount !== now.startCount) {
    return refuse('TSDLM_PROTOCOL', `node ${peer} names start counts ${now.startCount} and ${hello.open.startCount}`);
  }
  if (last === null || last.journalId !== now.journalId) return null;
  const same = last.startCount === now.startCount && last.bootId === now.bootId && last.machineId === now.machineId;
  if (same || now.startCount > last.startCount) return null;
  return refuse(
    'TSDLM_STALE_INCARNATION',
    `node ${peer} comes with start count ${now.startCount}, but ${last.startCount} was seen already: its journal was rolled back or copied; ` +
      'remove that state directory so that the node is admitted as a new one',
  );
}
