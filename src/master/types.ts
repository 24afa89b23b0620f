/**
 * The border of the lock engine: what a local owner may ask for, what comes back, and what the engine asks of its host.
 */

import type { Command } from '../membership/types.js';
import type { ErrorCode } from '../protocol/errors.js';
import type { LockId, Millis, NodeId } from '../protocol/ids.js';
import type { Mode } from '../protocol/modes.js';
import type { LockMessage } from '../protocol/peer-messages.js';

/** none: new resource, no history known; valid; invalid: the only up-to-date copy died with its holder (S3). */
export const LVB_NONE = 0;
export const LVB_VALID = 1;
export const LVB_INVALID = 2;
export type LvbState = 0 | 1 | 2;

/** One lock of a local owner, as the host sees it. The same object from request to end; `id` never repeats. */
export interface LocalLock {
  readonly id: LockId;
  readonly domain: string;
  readonly name: string;
  /** Granted mode; -1 while nothing was granted yet. */
  readonly mode: Mode | -1;
  /** Mode asked for by the request under way, or -1. */
  readonly want: Mode | -1;
  /** Token of the last EX grant; for PR the clock at the grant; zeros for NL. */
  readonly te: number;
  readonly tc: number;
  /** Request stamp: its place among those that wait. Zeros until it stands in a queue. */
  readonly se: number;
  readonly sc: number;
  /** Value block as of the last PR/EX grant, or as written since. */
  readonly lvbState: LvbState;
  readonly lvb: Uint8Array | null;
  readonly nodeOwned: boolean;
  /** The file door's mount that a node-owned lock belongs to; '' = none. */
  readonly door: string;
  /** Files are open under it, as far as was told (setInUse). */
  readonly isInUse: boolean;
  readonly who: string;
  readonly why: string;
  /** Free for the host: whatever finds the owner of the lock. */
  ctx: unknown;
}

/**
 * A lock of an earlier daemon on this boot, as its owner or the journal knows it. Held: `mode` >= 0, with what its owner was told;
 * `want` >= 0 beside it is a conversion that waited. Only waited for: `mode` -1.
 */
export interface ClaimedLock {
  id: LockId;
  domain: string;
  name: string;
  mode: Mode | -1;
  want: Mode | -1;
  nodeOwned: boolean;
  lvb: boolean;
  te: number;
  tc: number;
  /** Request stamp: its place among those that wait. Zeros when it is not known. */
  se: number;
  sc: number;
  lvbState: LvbState;
  value: Uint8Array | null;
  /** The value was written by the owner since the grant and is not published yet. */
  isDirty: boolean;
  who: string;
  why: string;
  /** Of the waiting request, on this node's clock; 0 = none. */
  deadline: Millis;
  ctx: unknown;
}

export interface LockOptions {
  domain: string;
  name: string;
  mode: Mode;
  try: boolean;
  nodeOwned: boolean;
  /** A node-owned lock of a file door: the mount it is for. Asked for with files about to be open, see Engine.setInUse. */
  door?: string;
  lvb: boolean;
  /** Shown to others: "host:pid label". */
  who: string;
  why: string;
  /** Absolute, on this node's clock; 0 = none. The request ends with TSDLM_TIMEOUT then, at the precision of a tick. */
  deadline: Millis;
  ctx: unknown;
}

/** What the engine tells local owners. Called synchronously; must not call back into the engine. */
export interface LocalEvents {
  /** The request (lock or convert) is granted at lock.mode. */
  granted(lock: LocalLock): void;
  /** The request ended without a grant. After a first request the lock is gone; after a convert it keeps lock.mode. */
  denied(lock: LocalLock, code: ErrorCode): void;
  /** The release is complete at the master. The lock is gone. */
  released(lock: LocalLock): void;
  /** Somebody waits for `mode`. At most once per higher mode. */
  bast(lock: LocalLock, mode: Mode): void;
  /** The lock is gone without having been released: the lease ended or the node was evicted. */
  lost(lock: LocalLock, code: ErrorCode): void;
}

export interface EngineOutput extends LocalEvents {
  /** A sequenced lock message to another node. */
  send(to: NodeId, msg: LockMessage): void;
  /** A command for the log; the engine asks again by itself until the view shows it. */
  propose(command: Command): void;
  /**
   * Node-owned locks (journal class 2): written before the answer. After the write the host calls engine.journaled(ticket).
   * `del` must be committed before the release leaves the node (rule 3).
   */
  journal(ticket: number, op: JournalOp): void;
  /**
   * Restart: all is handed over; this is what owners of this node hold and wait for (node-owned locks that are held are in the
   * journal already). Nothing may change it any more: the host lets no owner in. It writes the record, synced, and
   * then calls restartWritten.
   */
  restartRecord(claims: ClaimedLock[]): void;
  note(level: 'info' | 'warn' | 'error', event: string, data: Record<string, unknown>): void;
}

export type JournalOp = { op: 'put'; record: NodeOwnedRecord } | { op: 'del'; id: LockId };

/** A node-owned lock in the journal. */
export interface NodeOwnedRecord {
  id: LockId;
  domain: string;
  name: string;
  mode: Mode;
  te: number;
  tc: number;
  lvbState: LvbState;
  lvb: Uint8Array | null;
  /** Mount of the file door that it belongs to, and whether files were open under it (rule 6). */
  door?: string;
  isInUse?: boolean;
  who: string;
  why: string;
  /** Wall clock, ms since 1970, for people only. */
  since: number;
}
