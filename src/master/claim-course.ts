/**
 * A lock that is claimed from before a restart, from looking for its master until it is in force again or void (rules 1, 3).
 *
 * The problem: its owner still acts under it, or waits in a queue; but the journal and the owner can be one conversion behind what the
 * master knows, or the master can know nothing of it.
 *
 * The idea: the master's word counts. A claim that it confirms is in force at mode and token of before; a mode that the owner does not
 * know of is given back before it is told; a conversion that waited goes on; what the master does not confirm is told as lost.
 * Which claims are taken at all is claims.ts.
 */
import type { Mode } from '../protocol/modes.js';
import { LOCK_RECLAIM, LOCK_TRY } from '../protocol/peer-messages.js';
import { announceClaim } from './announce.js';
import type { Domain } from './domain.js';
import { convert, preparePut, unlock } from './hold.js';
import { untouchIdle } from './idle.js';
import { type Lock, ST_GONE, ST_HELD, ST_LOCKING, ST_NEW, WAIT_CLAIM } from './lock.js';
import type { EngineState } from './state.js';
import { LVB_INVALID } from './types.js';

/** A lock of before this node's restart: its master is looked for, to claim it (rules 1, 3). */
export function attachClaim(s: EngineState, domain: Domain, lock: Lock): void {
  const res = s.resource(domain, lock.name);
  lock.res = res;
  lock.st = ST_NEW;
  s.own.set(lock.id, lock);
  res.attach(lock);
  if (res.isIdle) untouchIdle(res);
  res.addWaiter(lock);
  domain.claims.add(lock);
}

/**
 * A claimed lock is in force again at the mode and token of before, a place in the queue is taken again: the master learns of
 * it by registration.
 */
export function confirmClaim(s: EngineState, lock: Lock): void {
  lock.res.removeWaiter(lock);
  lock.res.domain.claims.delete(lock);
  if (lock.isWaitClaim) {
    lock.flags &= ~(LOCK_RECLAIM | WAIT_CLAIM);
    lock.st = ST_LOCKING;
    return;
  }
  lock.mode = lock.want as Mode;
  lock.want = -1;
  if (lock.nodeOwned) {
    lock.lvbState = LVB_INVALID;
    lock.lvb = null;
  }
  lock.st = ST_HELD;
  lock.flags &= ~(LOCK_RECLAIM | LOCK_TRY);
  if (lock.isReleaseWished) {
    convertOn(s, lock);
    s.deferred.push(() => {
      if (lock.st === ST_HELD) unlock(s, lock);
    });
    return;
  }
  lock.isUntold = false;
  announceClaim(s, lock);
  convertOn(s, lock);
}

/** A conversion that waited when the daemon before ended goes on, with the place that it has. */
export function convertOn(s: EngineState, lock: Lock): void {
  const want = s.claimedWants.get(lock.id);
  if (want === undefined) return;
  // Upwards only under a lease. Until then it can be given up, or stand in the record of another restart.
  (s.isLeased || want < lock.mode ? s.deferred : s.whenLeased).push(() => {
    if (!s.claimedWants.delete(lock.id)) return;
    lock.isUntold = lock.isUntold && lock.nodeOwned;
    if (lock.st !== ST_HELD || lock.mode === want || lock.isZombie) return;
    preparePut(lock, null, false);
    convert(s, lock, want, false);
  });
}

/**
 * The master knows a claimed lock at another mode than its owner. Higher: a conversion that went up was not told any more, or one
 * that went down never arrived; what its owner does not ask for it does not keep. Lower: the owner is wrong.
 */
export function judgeClaim(s: EngineState, lock: Lock, claimed: Mode): void {
  const held = lock.mode as Mode;
  if (held < claimed) {
    s.note('error', 'claim-contradicts', { domain: lock.domain, name: lock.name, id: lock.id });
    lock.isZombie = true;
    s.out.lost(lock, 'TSDLM_LOST');
  } else if (held > claimed && (s.claimedWants.get(lock.id) ?? claimed) === claimed) {
    s.claimedWants.set(lock.id, claimed);
    lock.isUntold = true;
  }
}

/** A claim of a held lock came to nothing: it leaves the journal, its owner is told. */
export function voidClaim(s: EngineState, lock: Lock): void {
  lock.st = ST_GONE;
  s.claimedWants.delete(lock.id);
  if (lock.nodeOwned) s.journal({ op: 'del', id: lock.id }, () => {});
  // What it has lost, or that its request is over when it never heard of a grant.
  if (lock.isReleaseWished) s.out.released(lock);
  else if (lock.isUntold) s.out.denied(lock, 'TSDLM_UNAVAILABLE');
  else s.out.lost(lock, 'TSDLM_LOST');
}
