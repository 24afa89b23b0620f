/**
 * What the file semantics need of a lock manager. Two make one: the daemon's engine (node-owned locks, engine-locks.ts) and
 * a client of the daemon (session locks, client-locks.ts). Tests run the semantics over a bare engine.
 *
 * Events never arrive inside a call of the service, only after it has returned.
 */
import type { LvbState } from '../master/types.js';
import type { ErrorCode } from '../protocol/errors.js';
import type { Mode } from '../protocol/modes.js';

/** Hears what becomes of one lock. */
export interface LockOwner {
  /** The request (lock or convert) is granted; or, unasked, the lock is confirmed again after the node's lease had lapsed. */
  granted(mode: Mode, lvbState: LvbState, lvb: Uint8Array | null): void;
  /** The request ended without a grant. A first request leaves no lock behind, a convert leaves the mode as it was. */
  denied(code: ErrorCode): void;
  /** The release is complete. */
  released(): void;
  /** Somebody waits for `mode`. */
  bast(mode: Mode): void;
  /** The lock is gone without a release. */
  lost(code: ErrorCode): void;
  /** What `setInUse` said is on record; or could not be written for want of room. */
  recorded(ok: boolean): void;
}

export interface ServiceLock {
  /** Another mode. Leaving EX publishes what `writeLvb` stored. */
  convert(mode: Mode, isTry: boolean): void;
  /** Ends the lock and publishes the value block; `released` follows. */
  unlock(): void;
  /** Withdraws the request under way: `denied` follows, or `granted` where that was faster. */
  cancel(): void;
  /** Stores 64 bytes under EX. The array is kept. */
  writeLvb(value: Uint8Array): void;
  /**
   * Files are open under this lock (or are not any more). False: that has to be recorded first, so that a crash cannot
   * forget it (rule 6), and `recorded` follows. A lock is asked for with files about to be open.
   */
  setInUse(isInUse: boolean): boolean;
  /** The level may be used for another open now: the lease is valid, the lock confirmed. */
  isUsable(): boolean;
  /** Files that are open hold the lock still: what the clock says, not only what events have said (rule 11). */
  isHeld(): boolean;
}

export interface LockService {
  /** Asks for a lock in the mode. A try that cannot be decided within the service's limit is denied TSDLM_UNAVAILABLE. */
  lock(domain: string, name: string, mode: Mode, isTry: boolean, owner: LockOwner): ServiceLock;
  /** What a try would give now, as an owner of its own; a lock that is granted is given back at once. */
  probe(domain: string, name: string, mode: Mode, done: (code: ErrorCode | null) => void): void;
  /** Makes this node a member of the domain; `done(null)` when it is. Returns how to give up (`done` is not called then). */
  join(domain: string, done: (code: ErrorCode | null) => void): () => void;
}
