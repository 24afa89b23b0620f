/**
 * The leaving half of a restart (rule 23): when this node has nothing left to hand over, and what its owners hold then.
 *
 * The problem: between the moment that the record is made and the next daemon nothing may change, or the record lies: a lock that
 * was released after it would be claimed again beside its next owner. So the engine makes it in one step, and from then on
 * ends nothing by itself; the host lets no owner in. What still arrives from masters is harmless: a grant for a request that the
 * record calls waiting is repeated when the next daemon claims its place.
 */
import { LOCK_LVB, LOCK_TRY } from '../protocol/peer-messages.js';
import { isClaim } from './incarnation.js';
import { type Lock, ST_CONVERTING, ST_HELD, ST_LOCKING, ST_NEW } from './lock.js';
import type { EngineState } from './state.js';
import { type ClaimedLock, LVB_VALID } from './types.js';

/**
 * Everything mastered here is with its new masters, and they serve it. Not in the grace after an earlier restart: what owners hold
 * that have not come back yet no record could name (rule 1).
 */
export function isHandedOver(s: EngineState): boolean {
  if (s.now < s.graceUntil) return false;
  for (const domain of s.domains.values()) {
    if (domain.isLeaving && domain.masters.length === 0) continue;
    if (!domain.isLeaving || domain.isRecovering || domain.handing.size > 0 || domain.unconfirmed.size > 0) return false;
  }
  return s.domains.size > 0;
}

/** What owners hold and wait for, but node-owned locks that are held: those are in the journal. */
export function restartClaims(s: EngineState): ClaimedLock[] {
  const claims: ClaimedLock[] = [];
  for (const lock of [...s.own.values(), ...s.claimable, ...s.waiting]) {
    const claim = claimOf(s, lock);
    if (claim) claims.push(claim);
  }
  return claims;
}

function claimOf(s: EngineState, lock: Lock): ClaimedLock | null {
  if (lock.isZombie || lock.isReleaseWished) return null;
  const isWaiting = (lock.st === ST_NEW || lock.st === ST_LOCKING) && !isClaim(lock);
  const isHeld = lock.st === ST_HELD || lock.st === ST_CONVERTING || isClaim(lock);
  if (isWaiting ? (lock.flags & LOCK_TRY) !== 0 : !isHeld || lock.nodeOwned) return null;
  // Whoever goes down has given the higher mode up, whether or not its master knows.
  const isDown = lock.st === ST_CONVERTING && lock.want !== -1 && lock.want < lock.mode;
  const mode = isWaiting ? -1 : isDown || (isClaim(lock) && lock.mode === -1) ? lock.want : lock.mode;
  const wished = s.claimedWants.get(lock.id) ?? (isClaim(lock) ? -1 : lock.want);
  const isTry = (lock.flags & LOCK_TRY) !== 0;
  // A conversion that its owner has cancelled it does not want any more. One that is over time is still waited for: nobody was told.
  const isGivenUp = lock.isCancelling && lock.endCode === 'TSDLM_CANCELLED';
  return {
    id: lock.id,
    domain: lock.domain,
    name: lock.name,
    mode,
    want: isTry || isGivenUp || wished <= mode ? -1 : wished,
    nodeOwned: lock.nodeOwned,
    lvb: (lock.flags & LOCK_LVB) !== 0,
    te: lock.te,
    tc: lock.tc,
    se: lock.se,
    sc: lock.sc,
    lvbState: lock.lvbState,
    value: lock.lvb,
    isDirty: lock.isDirty || (isDown && lock.putState === LVB_VALID),
    who: lock.who,
    why: lock.why,
    deadline: lock.deadline,
    ctx: lock.ctx,
  };
}
