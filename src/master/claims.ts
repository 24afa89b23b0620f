/**
 * What owners claim from before a restart of this node (rules 1, 3): checked, noted, and given to orphans.ts where it can be.
 *
 * Claims come before this incarnation is active anywhere (the record of a clean restart, quick owners), in its grace, or too late. The
 * first wait (`claimable`) until their domain is active; the second are placed at once; the last are void, but requests, which ask anew.
 */
import { EX, type Mode } from '../protocol/modes.js';
import { LOCK_RECLAIM } from '../protocol/peer-messages.js';
import { voidClaim } from './claim-course.js';
import * as hold from './hold.js';
import { lockFromClaim } from './incarnation.js';
import { type Lock, ST_GONE, WAIT_CLAIM } from './lock.js';
import { placeLateClaim } from './orphans.js';
import { isNodeOwnedMarked } from './proposals.js';
import type { EngineState } from './state.js';
import type { ClaimedLock } from './types.js';

/** See Engine.reclaim. `isAdmitted`: this incarnation is a member already, so its domains are those that it is active in. */
export function reclaim(s: EngineState, claim: ClaimedLock, isAdmitted: boolean): Lock {
  const lock = note(s, claim);
  if (lock.st === ST_GONE) return lock;
  const domain = s.domains.get(claim.domain);
  if (domain?.isInGrace) {
    placeLateClaim(s, domain, lock);
  } else if (domain === undefined && !s.isOver && !isAdmitted && (s.hasRecord || s.now < s.graceUntil)) {
    s.claimable.push(lock);
  } else if (lock.isWaitClaim) {
    askAnew(s, lock);
  } else {
    voidClaim(s, lock);
  }
  return lock;
}

/** A held lock that contradicts an earlier claim, or repeats it, is void at once. */
function note(s: EngineState, claim: ClaimedLock): Lock {
  const lock = lockFromClaim(s, claim);
  const key = `${claim.domain}/${claim.name}`;
  const held = s.claimedModes.get(key) ?? 0;
  const isContradiction = claim.mode > 0 && (claim.mode === EX ? held > 0 : held === EX);
  if (s.own.has(claim.id) || s.claimedIds.has(claim.id) || isContradiction || claim.id >= s.startCount * 2 ** 32) {
    s.note('error', 'claim-contradicts', { domain: claim.domain, name: claim.name, id: claim.id });
    lock.st = ST_GONE;
    s.deferred.push(() => s.out.lost(lock, 'TSDLM_LOST'));
    return lock;
  }
  s.claimedIds.add(claim.id);
  if (claim.mode > 0) s.claimedModes.set(key, claim.mode as Mode);
  return lock;
}

/** A place that nobody kept: the request begins again. */
function askAnew(s: EngineState, lock: Lock): void {
  const domain = s.domains.get(lock.domain);
  lock.flags &= ~(LOCK_RECLAIM | WAIT_CLAIM);
  if (domain !== undefined && s.isLeased && !domain.isLeaving && (!lock.nodeOwned || isNodeOwnedMarked(s))) {
    lock.res = s.resource(domain, lock.name);
    hold.start(s, lock);
  } else {
    s.waiting.add(lock);
  }
}
