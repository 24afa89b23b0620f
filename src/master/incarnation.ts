/**
 * What becomes of local requests where one incarnation of the node ends and the next begins.
 *
 * Session locks are lost with the lease (those of a daemon that is restarted within its lease, or that has said until when it
 * will be back, are claimed as node-owned ones are). Requests that wait go on waiting for the next membership. Node-owned locks are
 * neither: an expired lease never frees them (rule 2), so they are kept aside as *claimable*, like those that come from the
 * journal after a restart, and the next incarnation claims them from their masters (rules 1, 3; recovery.ts). Between
 * two incarnations a lock is *detached*: it belongs to a resource of no real domain.
 */

import type { Mode } from '../protocol/modes.js';
import { LOCK_LVB, LOCK_NODE_OWNED, LOCK_RECLAIM } from '../protocol/peer-messages.js';
import { voidClaim } from './claim-course.js';
import { Domain } from './domain.js';
import { Lock, ST_CONVERTING, ST_GONE, ST_LOCKING, ST_NEW, ST_UNLOCKING, WAIT_CLAIM } from './lock.js';
import { LockRes } from './lockres.js';
import type { EngineState } from './state.js';
import { type ClaimedLock, LVB_INVALID, type NodeOwnedRecord } from './types.js';

/** Names of domains for which a placeholder is kept. */
const DETACHED_MAX = 1024;

/** A resource for a lock that has no active domain. */
export function detachedRes(s: EngineState, domainName: string, name: string): LockRes {
  let domain = s.detached.get(domainName);
  if (!domain) {
    if (s.detached.size >= DETACHED_MAX) s.detached.clear();
    domain = new Domain(0, domainName);
    s.detached.set(domainName, domain);
  }
  return new LockRes(domain, name);
}

/** A node-owned lock from the journal, to be claimed. */
export function lockFromRecord(s: EngineState, r: NodeOwnedRecord): Lock {
  const flags = LOCK_NODE_OWNED | LOCK_RECLAIM;
  const lock = new Lock(r.id, s.self, detachedRes(s, r.domain, r.name), r.mode, flags, r.who, r.why);
  lock.te = r.te;
  lock.tc = r.tc;
  lock.door = r.door ?? '';
  lock.isInUse = r.isInUse ?? false;
  lock.lvbState = LVB_INVALID;
  return lock;
}

/** What an owner, or the record of a restart, says of a lock of before: to be claimed. */
export function lockFromClaim(s: EngineState, c: ClaimedLock): Lock {
  const isHeld = c.mode !== -1;
  const flags = LOCK_RECLAIM | (c.nodeOwned ? LOCK_NODE_OWNED : 0) | (c.lvb ? LOCK_LVB : 0) | (isHeld ? 0 : WAIT_CLAIM);
  const want = (isHeld ? c.mode : c.want) as Mode;
  const lock = new Lock(c.id, s.self, detachedRes(s, c.domain, c.name), want, flags, c.who, c.why);
  lock.st = ST_NEW;
  lock.te = c.te;
  lock.tc = c.tc;
  lock.se = c.se;
  lock.sc = c.sc;
  lock.lvbState = c.lvbState;
  lock.lvb = c.value;
  lock.isDirty = c.isDirty;
  lock.since = s.now;
  lock.ctx = c.ctx;
  if (!isHeld) lock.deadline = c.deadline;
  else if (c.want > c.mode) s.claimedWants.set(c.id, c.want as Mode);
  return lock;
}

/** A held lock of before a restart, or lapse, that has not been confirmed yet. */
export function isClaim(lock: Lock): boolean {
  return (lock.flags & (LOCK_RECLAIM | WAIT_CLAIM)) === LOCK_RECLAIM && lock.st !== ST_GONE;
}

/** A request that waited before the restart: from now on it is one like any other. */
function asNewRequest(s: EngineState, lock: Lock): void {
  lock.flags &= ~(LOCK_RECLAIM | WAIT_CLAIM);
  lock.st = ST_NEW;
  lock.mode = -1;
  s.waiting.add(lock);
}

/**
 * The claims for a domain that this incarnation has just become active in. `doesContinue`: it continues an un-evicted
 * incarnation of the same boot; else they are void, and leave the journal (rule 3). `keeps`: session locks, too, are still in
 * the queues of their masters. Requests that waited are never void: where their place is lost they ask anew.
 */
export function takeClaims(s: EngineState, domainName: string, doesContinue: boolean, keeps: boolean): Lock[] {
  if (s.claimable.length === 0) return [];
  const ours = s.claimable.filter((lock) => lock.domain === domainName);
  s.claimable = s.claimable.filter((lock) => lock.domain !== domainName);
  const claims: Lock[] = [];
  for (const lock of ours) {
    if (keeps || (doesContinue && lock.nodeOwned && !lock.isWaitClaim)) claims.push(lock);
    else if (lock.isWaitClaim) asNewRequest(s, lock);
    else {
      s.note('warn', 'claim-void', { domain: lock.domain, name: lock.name, isNodeOwned: lock.nodeOwned });
      voidClaim(s, lock);
    }
  }
  return claims;
}

/** The incarnation that might have claimed them is over before it could: session locks are lost, requests ask anew. */
export function endClaimable(s: EngineState): void {
  const claims = s.claimable;
  s.claimable = [];
  for (const lock of claims) {
    if (lock.isWaitClaim) asNewRequest(s, lock);
    else if (lock.nodeOwned) s.claimable.push(lock);
    else voidClaim(s, lock);
  }
}

/** This incarnation is over: what that means for one lock. */
export function endForIncarnation(s: EngineState, lock: Lock): void {
  const st = lock.st;
  const wasClaim = isClaim(lock);
  lock.flags &= ~WAIT_CLAIM;
  lock.prev = lock.next = lock.localPrev = lock.localNext = null;
  lock.q = 0;
  lock.res = detachedRes(s, lock.domain, lock.name);
  lock.basted = lock.keptBast = -1;
  lock.isCancelling = false;
  if (lock.isZombie) {
    lock.st = ST_GONE;
  } else if (wasClaim && lock.nodeOwned) {
    s.claimable.push(lock);
  } else if (wasClaim) {
    voidClaim(s, lock);
  } else if (st === ST_NEW || st === ST_LOCKING) {
    lock.flags &= ~LOCK_RECLAIM;
    lock.st = ST_NEW;
    lock.mode = -1;
    s.waiting.add(lock);
  } else if (st === ST_UNLOCKING) {
    lock.st = ST_GONE;
    s.out.released(lock);
  } else if (lock.nodeOwned) {
    if (st === ST_CONVERTING) s.out.denied(lock, 'TSDLM_UNAVAILABLE');
    lock.st = ST_NEW;
    lock.want = lock.mode as Mode;
    lock.mode = -1;
    lock.flags |= LOCK_RECLAIM;
    s.claimable.push(lock);
  } else {
    lock.st = ST_GONE;
    s.out.lost(lock, 'TSDLM_LOST');
  }
}
