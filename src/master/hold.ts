/**
 * The owner's side of a lock: what local owners ask for, and what the master answers.
 *
 * Each request is one state of the lock (`st`), left only by the master's answer, by a cancel, or by the end of this
 * node's membership. Whatever is under way can be sent again at any time (`redrive`): the master knows a lock by (node,
 * lock id) and answers a repeated request with what it already decided. So a lost answer never loses or doubles a lock.
 */
import { type ErrorCode, invariant } from '../protocol/errors.js';
import { EX, type Mode, PR } from '../protocol/modes.js';
import { LOCK_LVB, LOCK_RECLAIM, LOCK_TRY } from '../protocol/peer-messages.js';
import type { Domain } from './domain.js';
import { touchIdle, untouchIdle } from './idle.js';
import { type Lock, ST_CONVERTING, ST_GONE, ST_HELD, ST_LOCKING, ST_NEW, ST_UNLOCKING, WAIT_CLAIM } from './lock.js';
import { type LockRes, RES_MASTERING, RES_ORPHANED, RES_OWNED, type ResState } from './lockres.js';
import { needMaster } from './mastery.js';
import { registration } from './rebuild.js';
import * as serve from './serve.js';
import type { EngineState } from './state.js';
import { LVB_INVALID, LVB_NONE, LVB_VALID, type NodeOwnedRecord } from './types.js';

/** True when requests for this resource are decided by direct calls: we master it and it serves. */
function isServedHere(s: EngineState, res: LockRes): boolean {
  return res.owner === s.self && res.state === RES_OWNED;
}

/** Registers a new local request on its resource and starts it. */
export function start(s: EngineState, lock: Lock): void {
  const res = lock.res;
  s.own.set(lock.id, lock);
  res.localCount++;
  if (res.isIdle) untouchIdle(res);
  s.clock.advance();
  lock.se = s.clock.epoch;
  lock.sc = s.clock.counter;
  // The only member need not ask anybody, nor wait for itself.
  if (res.domain.memberIds.size === 1 && res.state === RES_MASTERING && res.newWaiters.length === 0) needMaster(s, res);
  if ((res.state as ResState) === RES_OWNED) {
    sendLock(s, lock);
  } else {
    lock.st = ST_NEW;
    res.addWaiter(lock);
    if (res.state === RES_MASTERING) needMaster(s, res);
  }
}

/** The master is known: requests that waited for it go, in order. */
export function ownerKnown(s: EngineState, res: LockRes): void {
  if (res.newWaiters.length === 0) {
    if (res.localCount === 0) touchIdle(s, res);
    return;
  }
  if (res.state !== RES_OWNED) return; // Placed here and not rebuilt yet, or placed nowhere: they go on waiting.
  for (const lock of res.takeWaiters()) if (lock.st === ST_NEW) sendLock(s, lock, true);
}

function sendLock(s: EngineState, lock: Lock, isQueued = false): void {
  const res = lock.res;
  if (isServedHere(s, res)) {
    if (isQueued) res.removeWaiter(lock);
    lock.st = ST_LOCKING;
    serve.request(s, res, lock, lock.want as Mode, (lock.flags & LOCK_TRY) !== 0);
    return;
  }
  if (res.owner === s.self || res.owner === 0) return; // Rebuilding here: served at the barrier. Orphaned: once there is a master.
  if (isQueued) res.removeWaiter(lock);
  lock.st = ST_LOCKING;
  if ((lock.flags & LOCK_RECLAIM) !== 0) {
    res.domain.claims.delete(lock);
    const entry = registration(lock, s.now);
    if (entry) s.send(res.domain, res.owner, { k: 'Reclaim', lock: entry });
    return;
  }
  s.send(res.domain, res.owner, {
    k: 'LockRequest',
    name: res.name,
    id: lock.id,
    mode: lock.want as Mode,
    flags: lock.flags,
    se: lock.se,
    sc: lock.sc,
    who: lock.who,
    why: lock.why,
  });
}

/** Sends what is under way for this lock (again), to the present master. Not for ST_NEW. */
export function redrive(s: EngineState, lock: Lock): void {
  switch (lock.st) {
    case ST_LOCKING:
      sendLock(s, lock);
      if (lock.isCancelling || lock.isZombie) sendCancel(s, lock);
      return;
    case ST_CONVERTING:
      if (!lock.mayLeave) return;
      sendConvert(s, lock);
      if (lock.isCancelling) sendCancel(s, lock);
      return;
    case ST_UNLOCKING:
      if (lock.mayLeave) sendUnlock(s, lock);
      return;
    default:
      return;
  }
}

function sendConvert(s: EngineState, lock: Lock): void {
  lock.isHeldBack = false;
  s.send(lock.res.domain, lock.res.owner, {
    k: 'ConvertRequest',
    name: lock.res.name,
    id: lock.id,
    mode: lock.want as Mode,
    flags: lock.flags,
    se: lock.se,
    sc: lock.sc,
    lvbState: lock.putState,
    lvb: lock.putLvb,
  });
}

function sendUnlock(s: EngineState, lock: Lock): void {
  lock.isHeldBack = false;
  s.send(lock.res.domain, lock.res.owner, {
    k: 'UnlockRequest',
    name: lock.res.name,
    id: lock.id,
    lvbState: lock.putState,
    lvb: lock.putLvb,
  });
}

function sendCancel(s: EngineState, lock: Lock): void {
  if (lock.res.owner === s.self || lock.res.owner === 0) return; // Being rebuilt here, or orphaned: seen to when it has a master.
  s.send(lock.res.domain, lock.res.owner, { k: 'CancelRequest', name: lock.res.name, id: lock.id });
}

/**
 * Another mode for a held lock (checked by the engine's door). A node-owned lock goes down in the journal first: the
 * journal never claims more after a restart than the master may still grant us (as a release, rule 3).
 */
export function convert(s: EngineState, lock: Lock, mode: Mode, isTry: boolean): void {
  lock.flags = isTry ? lock.flags | LOCK_TRY : lock.flags & ~LOCK_TRY;
  lock.want = mode;
  lock.st = ST_CONVERTING;
  lock.isHeldBack = false;
  s.clock.advance();
  lock.se = s.clock.epoch;
  lock.sc = s.clock.counter;
  if (!lock.nodeOwned || mode >= lock.mode) {
    lock.mayLeave = true;
    sendOrServeConvert(s, lock);
    return;
  }
  lock.mayLeave = false;
  s.journal(
    { op: 'put', record: { ...nodeOwnedRecord(lock), mode } },
    () => {
      if (lock.st !== ST_CONVERTING || lock.mayLeave) return;
      lock.mayLeave = true;
      sendOrServeConvert(s, lock);
    },
    (code) => {
      if (lock.st === ST_CONVERTING) onDenied(s, lock, code);
    },
  );
}

function sendOrServeConvert(s: EngineState, lock: Lock): void {
  const res = lock.res;
  if (isServedHere(s, res)) {
    serve.convert(s, res, lock, lock.want as Mode, (lock.flags & LOCK_TRY) !== 0, lock.putState, lock.putLvb);
  } else if (res.owner === s.self) {
    lock.isHeldBack = true;
  } else if (res.owner !== 0) {
    sendConvert(s, lock);
  }
}

/** Releases a held lock. A node-owned one leaves the journal first (rule 3). */
export function unlock(s: EngineState, lock: Lock): void {
  lock.st = ST_UNLOCKING;
  lock.isHeldBack = false;
  lock.want = -1;
  lock.mayLeave = false;
  if (lock.nodeOwned) {
    s.journal({ op: 'del', id: lock.id }, () => {
      if (lock.st === ST_UNLOCKING) finishUnlock(s, lock);
    });
    return;
  }
  finishUnlock(s, lock);
}

function finishUnlock(s: EngineState, lock: Lock): void {
  const res = lock.res;
  lock.mayLeave = true;
  if (isServedHere(s, res)) serve.unlock(s, res, lock, lock.putState, lock.putLvb);
  else if (res.owner === 0)
    onUnlocked(s, lock); // Nobody is left who would have to know: the hold ends here.
  else if (res.owner === s.self) lock.isHeldBack = true;
  else sendUnlock(s, lock);
}

/** The owner gives the request up. True when it ended here and now (the caller tells the owner). */
export function cancel(s: EngineState, lock: Lock): boolean {
  const res = lock.res;
  if (lock.st === ST_NEW) {
    res.removeWaiter(lock);
    remove(s, lock);
    return true;
  }
  if (res.state === RES_ORPHANED && lock.st === ST_LOCKING) {
    remove(s, lock);
    return true;
  }
  if (res.state === RES_ORPHANED && lock.st === ST_CONVERTING && lock.want > lock.mode) {
    onDenied(s, lock, 'TSDLM_CANCELLED');
    return false;
  }
  if (lock.st === ST_LOCKING) {
    if (isServedHere(s, res)) {
      lock.isZombie = true;
      if (serve.cancel(s, res, lock)) return true;
      lock.isZombie = false;
      return false;
    }
    // The owner does not wait for a master that may be gone: what it answers later is undone by itself.
    lock.isZombie = true;
    sendCancel(s, lock);
    return true;
  }
  if (lock.st === ST_CONVERTING) {
    if (isServedHere(s, res)) serve.cancel(s, res, lock);
    else {
      lock.isCancelling = true;
      sendCancel(s, lock);
    }
  }
  return false;
}

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

/** A conversion that waited when the daemon before ended goes on, with the place that it has. */
function convertOn(s: EngineState, lock: Lock): void {
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

/** A lock of before this node's restart: its master is looked for, to claim it (rules 1, 3). */
export function attachClaim(s: EngineState, domain: Domain, lock: Lock): void {
  const res = s.resource(domain, lock.name);
  lock.res = res;
  lock.st = ST_NEW;
  s.own.set(lock.id, lock);
  res.localCount++;
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

/** What was held before is told, with a deadline of this incarnation, once there is one: nothing is asked for before. */
function announceClaim(s: EngineState, lock: Lock): void {
  if (s.isLeased) return announce(s, lock);
  const { mode } = lock;
  s.whenLeased.push(() => {
    // A conversion that went on meanwhile has been told by itself.
    if (lock.st === ST_HELD && lock.mode === mode && !lock.isZombie) announceClaim(s, lock);
  });
}

/** A first grant is told only under a lease (rule 11): a claimed place in a queue may be granted before there is one. */
function announceFirst(s: EngineState, lock: Lock): void {
  if (s.isLeased) return announce(s, lock);
  lock.isUntold = true;
  s.whenLeased.push(() => {
    if (lock.st === ST_HELD && lock.isUntold && !lock.isZombie) announceFirst(s, lock);
  });
}

/** The owner hears of its grant; not while there is no lease. */
export function announce(s: EngineState, lock: Lock): void {
  if (s.isSuspended) {
    s.held.untold.push(lock);
    return;
  }
  lock.isUntold = false;
  s.out.granted(lock);
  if (lock.keptBast >= 0) {
    const mode = lock.keptBast as Mode;
    lock.keptBast = -1;
    if (lock.mode === EX || (lock.mode === PR && mode === EX)) s.out.bast(lock, mode);
  }
}

export function nodeOwnedRecord(lock: Lock): NodeOwnedRecord {
  return {
    id: lock.id,
    domain: lock.domain,
    name: lock.name,
    mode: lock.mode as Mode,
    te: lock.te,
    tc: lock.tc,
    lvbState: lock.lvbState,
    lvb: lock.lvb,
    ...(lock.door === '' ? {} : { door: lock.door, isInUse: lock.isInUse }),
    who: lock.who,
    why: lock.why,
    since: 0,
  };
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

/**
 * The master knows a claimed lock at another mode than its owner. Higher: a conversion that went up was not told any more, or one
 * that went down never arrived; what its owner does not ask for it does not keep. Lower: the owner is wrong.
 */
function judgeClaim(s: EngineState, lock: Lock, claimed: Mode): void {
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

/** Forgets a lock of a local owner. */
export function remove(s: EngineState, lock: Lock): void {
  const res = lock.res;
  lock.st = ST_GONE;
  if (!s.own.delete(lock.id)) return;
  res.domain.claims.delete(lock);
  res.localCount--;
  invariant(res.localCount >= 0, `local lock count of ${res.name} fell below zero`);
  if (res.localCount === 0) touchIdle(s, res);
}

/** Value block to publish with a release or down-convert from EX. */
export function preparePut(lock: Lock, value: Uint8Array | null, isInvalid: boolean): void {
  lock.putState = LVB_NONE;
  lock.putLvb = null;
  if (lock.mode !== EX) return;
  if (isInvalid && (lock.flags & LOCK_LVB) !== 0) {
    lock.putState = LVB_INVALID;
    lock.lvbState = LVB_INVALID;
    lock.lvb = null;
  } else if (value) {
    lock.putState = LVB_VALID;
    lock.putLvb = value;
    lock.lvbState = LVB_VALID;
    lock.lvb = value;
  } else if (lock.isDirty) {
    lock.putState = LVB_VALID;
    lock.putLvb = lock.lvb;
  }
}
