/**
 * The owner's side of a lock: what the master answers.
 *
 * The problem: an answer can come twice, late, or for a request that its owner has given up, and a node-owned lock must be in the
 * journal before its owner acts under it.
 *
 * The idea: an answer counts only in the state of the lock that waits for it, and leads to the next; what is granted to an owner that
 * does not want it any more is released by itself. A local master answers by direct calls (tell.ts), another by messages (dispatch.ts).
 */
import type { ErrorCode } from '../protocol/errors.js';
import { EX, type Mode } from '../protocol/modes.js';
import { LOCK_RECLAIM, LOCK_TRY } from '../protocol/peer-messages.js';
import { announce, announceClaim, announceFirst } from './announce.js';
import { convertOn, judgeClaim, voidClaim } from './claim-course.js';
import { nodeOwnedRecord, remove, unlock } from './hold.js';
import { type Lock, ST_CONVERTING, ST_HELD, ST_LOCKING, ST_UNLOCKING, WAIT_CLAIM } from './lock.js';
import type { EngineState } from './state.js';
import { LVB_NONE } from './types.js';

/** The master granted the request under way (called directly by a local master, or with a Grant's contents applied). */
export function onGranted(s: EngineState, lock: Lock): void {
  const wasFirst = lock.st === ST_LOCKING;
  if (!wasFirst && lock.st !== ST_CONVERTING) return;
  lock.st = ST_HELD;
  lock.want = -1;
  lock.isCancelling = false;
  lock.deadline = 0;
  lock.endCode = null;
  if (!lock.isReleaseWished) {
    lock.putState = LVB_NONE;
    lock.putLvb = null;
  }
  lock.flags &= ~LOCK_TRY;
  if (lock.res.bounces) lock.res.bounces = 0;
  const wasClaim = (lock.flags & (LOCK_RECLAIM | WAIT_CLAIM)) === LOCK_RECLAIM;
  if (!wasClaim) lock.isDirty = false;
  lock.flags &= ~(LOCK_RECLAIM | WAIT_CLAIM);
  lock.res.domain.claims.delete(lock);
  if (wasClaim) convertOn(s, lock);
  if (wasClaim && lock.isUntold && !lock.nodeOwned) return; // Told when it is back at the mode that its owner knows.
  if (lock.isZombie || lock.isReleaseWished) {
    s.deferred.push(() => {
      if (lock.st === ST_HELD) unlock(s, lock);
    });
    return;
  }
  if (lock.nodeOwned) {
    if (wasFirst && !wasClaim) lock.isUntold = true;
    s.journal(
      { op: 'put', record: nodeOwnedRecord(lock) },
      () => {
        if (lock.st !== ST_HELD || lock.isZombie) return;
        if (wasFirst && !wasClaim) announceFirst(s, lock);
        else if (wasClaim) announceClaim(s, lock);
        else announce(s, lock);
      },
      (code) => {
        // The journal has no room: what it cannot remember is not granted. A conversion stands, its lock is remembered.
        if (lock.st !== ST_HELD || lock.isZombie) return;
        if (!wasFirst) return announce(s, lock);
        lock.isZombie = true;
        s.out.denied(lock, code);
        unlock(s, lock);
      },
    );
    return;
  }
  if (wasClaim) announceClaim(s, lock);
  else if (wasFirst) announceFirst(s, lock);
  else announce(s, lock);
}

/** The request under way ended without a grant. */
export function onDenied(s: EngineState, lock: Lock, code: ErrorCode): void {
  if (lock.st === ST_CONVERTING) {
    lock.st = ST_HELD;
    lock.want = -1;
    lock.isCancelling = false;
    lock.flags &= ~LOCK_TRY;
    if (code === 'TSDLM_NOT_HELD') {
      // The master does not know the lock: it cannot be called held any longer.
      remove(s, lock);
      s.out.lost(lock, 'TSDLM_LOST');
      return;
    }
    s.out.denied(lock, code === 'TSDLM_CANCELLED' && lock.endCode ? lock.endCode : code);
    lock.endCode = null;
    return;
  }
  if (lock.st === ST_HELD && code === 'TSDLM_NOT_HELD') {
    // A claim that was confirmed while its master was being rebuilt, and does not go with what others hold.
    remove(s, lock);
    voidClaim(s, lock);
    return;
  }
  if (lock.st !== ST_LOCKING) return;
  const isHeldClaim = (lock.flags & (LOCK_RECLAIM | WAIT_CLAIM)) === LOCK_RECLAIM;
  remove(s, lock);
  if (isHeldClaim) {
    s.note('warn', 'claim-not-confirmed', { domain: lock.domain, name: lock.name });
    voidClaim(s, lock);
    return;
  }
  if (!lock.isZombie) s.out.denied(lock, code);
}

export function onUnlocked(s: EngineState, lock: Lock): void {
  if (lock.st !== ST_UNLOCKING) return;
  remove(s, lock);
  if (!lock.isZombie) s.out.released(lock);
}

export function onBast(s: EngineState, lock: Lock, mode: Mode): void {
  const isTold = (lock.st === ST_HELD && !lock.isUntold) || lock.st === ST_CONVERTING;
  if (isTold) {
    if (!lock.isZombie) s.out.bast(lock, mode);
  } else if ((lock.st === ST_LOCKING || lock.st === ST_HELD) && mode > lock.keptBast) {
    // Its owner does not know of the grant yet: first the grant, then this (rule 25).
    lock.keptBast = mode;
  }
}

/** A Grant of a remote master. */
export function onGrantMessage(
  s: EngineState,
  lock: Lock,
  m: { mode: Mode; te: number; tc: number; lvbState: 0 | 1 | 2; lvb: Uint8Array | null },
): void {
  if (lock.st !== ST_LOCKING && lock.st !== ST_CONVERTING) return;
  const isHeldClaim = (lock.flags & (LOCK_RECLAIM | WAIT_CLAIM)) === LOCK_RECLAIM;
  const claimed = lock.want;
  // Another mode is an answer repeated from before: the one for this request will come. But of a lock claimed after a
  // restart the master knows the mode better than the journal, which a conversion may not have reached.
  if (m.mode !== lock.want && !isHeldClaim) return;
  lock.mode = m.mode;
  lock.te = m.te;
  lock.tc = m.tc;
  // What its owner has written under EX and not published the master does not know.
  if (m.mode !== 0 && !(isHeldClaim && lock.isDirty && m.mode === EX)) {
    lock.lvbState = m.lvbState;
    lock.lvb = m.lvb;
    lock.isDirty = false;
  }
  if (isHeldClaim && lock.res.domain.isRecovering) {
    // Its master may only be putting it together: until that one says RecoveryActive it is registered in every new epoch.
    lock.res.isUnconfirmed = true;
    lock.res.domain.unconfirmed.add(lock.res);
  }
  lock.since = s.now;
  lock.res.isDoubtful = false;
  if (isHeldClaim && !lock.nodeOwned) judgeClaim(s, lock, claimed as Mode);
  onGranted(s, lock);
}
