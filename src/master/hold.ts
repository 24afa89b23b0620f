/**
 * The owner's side of a lock: what local owners ask for (what the master answers is answers.ts).
 *
 * Each request is one state of the lock (`st`), left only by the master's answer, by a cancel, or by the end of this
 * node's membership. Whatever is under way can be sent again at any time (`redrive`): the master knows a lock by (node,
 * lock id) and answers a repeated request with what it already decided. So a lost answer never loses or doubles a lock.
 */
import { invariant } from '../protocol/errors.js';
import { EX, type Mode } from '../protocol/modes.js';
import { LOCK_LVB, LOCK_RECLAIM, LOCK_TRY } from '../protocol/peer-messages.js';
import { touchIdle, untouchIdle } from './idle.js';
import { type Lock, ST_CONVERTING, ST_GONE, ST_LOCKING, ST_NEW, ST_UNLOCKING } from './lock.js';
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
  res.attach(lock);
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
  res.domain.underWay.set(lock.id, lock);
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
  lock.res.domain.underWay.set(lock.id, lock);
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
  lock.res.domain.underWay.set(lock.id, lock);
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
  s.touch(lock);
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
      s.touch(lock);
      if (lock.st !== ST_CONVERTING || lock.mayLeave) return;
      lock.mayLeave = true;
      sendOrServeConvert(s, lock);
    },
    (code) => {
      if (lock.st === ST_CONVERTING) s.hooks.denied(lock, code);
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
  s.touch(lock);
  lock.st = ST_UNLOCKING;
  lock.isHeldBack = false;
  lock.want = -1;
  lock.mayLeave = false;
  if (lock.nodeOwned) {
    s.journal({ op: 'del', id: lock.id }, () => {
      s.touch(lock);
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
    s.hooks.unlocked(lock); // Nobody is left who would have to know: the hold ends here.
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
    s.hooks.denied(lock, 'TSDLM_CANCELLED');
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

/** Forgets a lock of a local owner. */
export function remove(s: EngineState, lock: Lock): void {
  const res = lock.res;
  lock.st = ST_GONE;
  if (!s.own.delete(lock.id)) return;
  res.domain.claims.delete(lock);
  res.detach(lock);
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
