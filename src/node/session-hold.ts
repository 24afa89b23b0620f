/** One lock of a session or of this node, as the session server remembers it: what `LocalLock.ctx` points to. */
import type { LocalLock } from '../master/types.js';
import type { ErrorCode } from '../protocol/errors.js';
import type { Mode } from '../protocol/modes.js';
import type { Session } from './session.js';

/** How an administration request (convert, unlock by name) hears of its outcome: 'done' or the code of its failure. */
export type HoldCallback = (outcome: 'done' | ErrorCode, lock: LocalLock) => void;

/** A release that was asked for. `rid` 0 = no request waits for the answer. */
export interface Release {
  rid: number;
  lvb: Uint8Array | null;
  done: HoldCallback | null;
}

export class Hold {
  /** The session that speaks for it; null once a node-owned lock has outlived its session. */
  session: Session | null;
  /** Names it in that session. */
  readonly rid: number;
  readonly nodeOwned: boolean;
  lock: LocalLock | null = null;
  /** Request (lock or convert) that waits for its answer; 0 = none. */
  asked: number;
  /** The mode the owner was last told; -1 = none yet. */
  told: Mode | -1 = -1;
  usesLvb: boolean;
  release: Release | null = null;
  /** The release was given to the core. */
  isReleasing = false;
  /** The owner is gone: whatever is granted goes back at once. */
  isDead = false;
  /** On the node's clock; 0 = not granted yet. */
  since = 0;
  /** Of before a restart of the daemon: the core has not confirmed it yet. */
  isClaimed = false;
  /** From the record of the restart, and its client has not claimed it yet. */
  isUnasked = false;
  /** Request of the client that claims it, to be answered when it is confirmed; 0 = none. */
  reclaim = 0;
  /** Mode of the conversion that waited before the restart; -1 = none. */
  wanted: Mode | -1 = -1;
  /** Set while a conversion by name is under way. */
  converted: HoldCallback | null = null;

  constructor(session: Session | null, rid: number, nodeOwned: boolean, usesLvb: boolean) {
    this.session = session;
    this.rid = rid;
    this.asked = rid;
    this.nodeOwned = nodeOwned;
    this.usesLvb = usesLvb;
  }

  get isGranted(): boolean {
    return this.told >= 0;
  }
}
