/**
 * One lock (lkb): a request of one owner on one resource, from asking to release.
 *
 * The same class serves three roles, as in o2dlm: on the owner's node it is the secondary copy from which recovery
 * rebuilds a dead master's queues; on the master it stands in the queues; where the owner's node is the master, one object
 * is both. `q` says in which queue of the resource it stands, `st` how far its owner's request has come.
 */
import type { ErrorCode } from '../protocol/errors.js';
import type { LockId, Millis, NodeId } from '../protocol/ids.js';
import type { Mode } from '../protocol/modes.js';
import type { LockRes } from './lockres.js';
import type { LocalLock, LvbState } from './types.js';

/** Queue membership at the master. */
export const Q_NONE = 0;
export const Q_GRANTED = 1;
export const Q_CONVERTING = 2;
export const Q_BLOCKED = 3;
export type QueueName = 0 | 1 | 2 | 3;

/** Where a local owner's request stands. Not used (ST_REMOTE) for locks of other nodes. */
export const ST_REMOTE = 0;
/** Waits for the resource's master to be known (or for the domain, or for membership). */
export const ST_NEW = 1;
/** The request is with the master. */
export const ST_LOCKING = 2;
/** Granted, nothing under way. */
export const ST_HELD = 3;
/** A conversion is with the master; `mode` is in force. */
export const ST_CONVERTING = 4;
/** The release is with the master; still counts as held at `mode` in a recovery (rule 18). */
export const ST_UNLOCKING = 5;
export const ST_GONE = 6;
export type RequestState = 0 | 1 | 2 | 3 | 4 | 5 | 6;

/** Never on the wire. */
export const WAIT_CLAIM = 0x20;

export class Lock implements LocalLock {
  readonly id: LockId;
  readonly node: NodeId;
  /** Changes only while the lock is detached: before its domain is known, or between two incarnations. */
  res: LockRes;
  mode: Mode | -1 = -1;
  want: Mode | -1;
  te = 0;
  tc = 0;
  /** Request stamp on the requester's token clock. */
  se = 0;
  sc = 0;
  /** LOCK_* bits of protocol/peer-messages. */
  flags: number;
  lvbState: LvbState = 0;
  lvb: Uint8Array | null = null;
  readonly who: string;
  readonly why: string;
  /** When the current mode was granted (or the request arrived) on this node's clock, for `show`. */
  since: Millis = 0;

  q: QueueName = Q_NONE;
  prev: Lock | null = null;
  next: Lock | null = null;
  /** Of a local owner: its neighbours among the local locks of its resource (LockRes.attach). */
  localPrev: Lock | null = null;
  localNext: Lock | null = null;
  /** Highest mode that a BAST was sent for since the last change of mode; -1 none. */
  basted: Mode | -1 = -1;

  /** A node-owned lock of a file door: its mount, and whether files are open under it (rule 6). */
  door = '';
  isInUse = false;

  st: RequestState = ST_REMOTE;
  ctx: unknown = null;
  deadline: Millis = 0;
  /** The owner was told that the request ended; what the master still answers is tidied up silently. */
  isZombie = false;
  /** What the owner is told instead of TSDLM_CANCELLED: why the request was given up. */
  endCode: ErrorCode | null = null;
  /** Granted for the first time, and its owner is told once the journal has it. */
  isUntold = false;
  /** Its owner released it while it was being claimed after a restart: the release follows the claim. */
  isReleaseWished = false;
  /** A cancel was sent for the request under way. */
  isCancelling = false;
  /** The release or conversion under way waits here for the barrier, after which we master: nobody has seen it. */
  isHeldBack = false;
  /** The release or conversion under way may leave the node: the journal knows of it where it has to first (rule 3). */
  mayLeave = true;
  /** A BAST that came before the grant it belongs to; applied at the grant (rule 25). -1 none. */
  keptBast: Mode | -1 = -1;
  /** Value block state to publish with the release or down-convert under way. */
  putState: LvbState = 0;
  putLvb: Uint8Array | null = null;
  /** `lvb` was written by its owner since the grant. */
  isDirty = false;
  /** From a registration: its owner's release is under way, it counts only for its value block. */
  isReleasing = false;
  /** At the master: a lock whose node restarted and has not claimed it yet. */
  isUnclaimed = false;

  constructor(id: LockId, node: NodeId, res: LockRes, want: Mode, flags: number, who: string, why: string) {
    this.id = id;
    this.node = node;
    this.res = res;
    this.want = want;
    this.flags = flags;
    this.who = who;
    this.why = why;
  }

  get domain(): string {
    return this.res.domain.name;
  }
  get name(): string {
    return this.res.name;
  }
  /** A claim of a place in a queue: nothing is held (LOCK_RECLAIM with it). */
  get isWaitClaim(): boolean {
    return (this.flags & WAIT_CLAIM) !== 0;
  }
  get nodeOwned(): boolean {
    return (this.flags & 2) !== 0;
  }
}
