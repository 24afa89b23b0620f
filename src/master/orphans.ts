/**
 * Resources without a living master: which node masters them now.
 *
 * The problem: all holders of such a resource, and its new master, must name the same node without a word to each other, through
 * changes that follow on each other before that master has said that it serves; and nobody may be believed to know of locks that
 * were never registered with it.
 *
 * The idea: rendezvous hashing over the masters of the epoch names the node. A resource that was placed before and is not confirmed
 * yet stays where it was placed, if that member still lives. What nothing of ours hangs on is forgotten, or asked for anew.
 */
import { InvariantError } from '../protocol/errors.js';
import type { NodeId } from '../protocol/ids.js';
import type { RegisteredLock } from '../protocol/peer-messages.js';
import { onUnlocked } from './answers.js';
import { attachClaim, confirmClaim } from './claim-course.js';
import type { Domain } from './domain.js';
import * as hold from './hold.js';
import { untouchIdle } from './idle.js';
import { type Lock, ST_LOCKING, ST_NEW, ST_UNLOCKING } from './lock.js';
import { type LockRes, RES_DROPPING, RES_MASTERING, RES_ORPHANED, RES_OWNED, RES_REBUILDING } from './lockres.js';
import { needMaster } from './mastery.js';
import { placeResource } from './placement.js';
import { rebuildOf, registration } from './rebuild.js';
import type { EngineState } from './state.js';

/** A new master for a resource whose master is gone or leaving. False: it was forgotten. */
export function placeOrphan(s: EngineState, domain: Domain, isGone: (node: NodeId) => boolean, res: LockRes): boolean {
  const isLost = isGone(res.owner) || !domain.masterIds.has(res.owner);
  const mayMaster = domain.masterIds.has(s.self);
  if (res.state === RES_MASTERING) return true;
  if (res.state === RES_OWNED && res.owner === s.self && mayMaster) return true;
  if (res.state === RES_REBUILDING && mayMaster) {
    // Not confirmed to anybody: holders register again in this epoch. Our own locks take part as they are.
    res.refs = null;
    if (res.localCount === 0) {
      dropRecord(domain, res);
      return false;
    }
    confirmClaims(s, res);
    return true;
  }
  const mustTell = domain.mastery !== 'peer' && res.localCount > 0 && !domain.isLeaving;
  if (mustTell && (res.isDoubtful || !tellsSomething(s, res))) {
    if (isLost) {
      askAnew(s, res);
      return true;
    }
    if (res.isUnconfirmed) {
      // It may have begun to serve in the epoch before, and know us; or not.
      res.isUnconfirmed = false;
      domain.unconfirmed.delete(res);
      res.isDoubtful = true;
    }
  }
  if (!isLost) return true;
  if (res.localCount === 0) {
    // Nothing of ours hangs on it: the next user asks anew.
    dropRecord(domain, res);
    return false;
  }
  if (res.state === RES_DROPPING) {
    // Only requests that have not reached any master: ask anew.
    res.state = RES_MASTERING;
    res.owner = 0;
    return true;
  }
  place(s, domain, res);
  return true;
}

/**
 * What was being handed over before this epoch: to whom now. `wasDone`: RecoveryDone was sent for the epoch before, so whoever it went to
 * may have reached the barrier and have served since, though its word of that has not come. If that one is no master any more,
 * what we know is older than what it did: it counts as a master that died (rule 18).
 */
export function placeHanded(s: EngineState, domain: Domain, isGone: (node: NodeId) => boolean, wasDone: boolean): void {
  for (const [name, entry] of domain.handing) {
    entry.mayBeServed ||= wasDone;
    if (isGone(entry.target) || !domain.masterIds.has(entry.target)) {
      if (entry.mayBeServed) {
        domain.handing.delete(name);
        continue;
      }
      entry.target = placeResource(name, domain.masters);
    }
    if (entry.target === 0 || entry.target === s.self) domain.handing.delete(name);
    if (entry.target === s.self) {
      // No server for a while, and again: what we were handing over comes back.
      const res = s.resource(domain, name);
      rebuildOf(domain, name).handed = entry.data;
      adopt(s, domain, res);
    }
  }
}

/** Gives the resource the master that hashing names, unconfirmed until that one says RecoveryActive. */
export function place(s: EngineState, domain: Domain, res: LockRes): NodeId {
  const target = placeResource(res.name, domain.masters);
  res.owner = target;
  res.gen = domain.epoch;
  res.isDoubtful = false;
  res.isUnconfirmed = target !== 0;
  if (target === s.self) domain.toRebuild.add(res);
  else domain.toRebuild.delete(res);
  if (target === 0) {
    res.state = RES_ORPHANED;
    domain.unconfirmed.delete(res);
    return target;
  }
  if (target === s.self) res.refs = null;
  res.state = target === s.self ? RES_REBUILDING : RES_OWNED;
  domain.unconfirmed.add(res);
  return target;
}

/** This node has something to register of it with a new master. */
function tellsSomething(s: EngineState, res: LockRes): boolean {
  for (let lock = res.localHead; lock; lock = lock.localNext) if (registration(lock, s.now)) return true;
  return false;
}

/**
 * Nothing of ours on the resource would be registered, so its new master would not know us: under `servers` such a belief
 * must not be (nominate.ts). What is under way is asked for anew; a release is complete, because nobody has to know of it.
 */
function askAnew(s: EngineState, res: LockRes): void {
  res.state = RES_MASTERING;
  res.owner = 0;
  res.isUnconfirmed = res.isDoubtful = false;
  res.domain.unconfirmed.delete(res);
  res.domain.toRebuild.delete(res);
  for (const lock of res.locals()) {
    if (lock.st === ST_UNLOCKING && lock.mayLeave) {
      onUnlocked(s, lock);
    } else if (lock.st === ST_LOCKING && lock.isZombie) {
      hold.remove(s, lock);
    } else if (lock.st === ST_LOCKING) {
      lock.st = ST_NEW;
      lock.res.addWaiter(lock);
    }
  }
}

export function dropRecord(domain: Domain, res: LockRes): void {
  untouchIdle(res);
  domain.unconfirmed.delete(res);
  domain.toRebuild.delete(res);
  domain.wanted.delete(res);
  domain.resources.delete(res.name);
}

/** Others say that we master this name: our own requests wait for the rebuild instead of asking around. */
export function adopt(s: EngineState, domain: Domain, res: LockRes): void {
  if (res.state === RES_REBUILDING) return;
  if (res.state === RES_OWNED && res.localCount > 0) {
    throw new InvariantError(`${domain.name}/${res.name} was placed here, but its locks here have node ${res.owner} as master`);
  }
  if (res.isIdle) untouchIdle(res);
  res.refs = null;
  res.state = RES_REBUILDING;
  res.owner = s.self;
  res.gen = domain.epoch;
  res.isUnconfirmed = true;
  res.isDoubtful = false;
  domain.unconfirmed.add(res);
  domain.toRebuild.add(res);
  // Our own claim on it counts as held like the registrations of the others: we are its new master.
  confirmClaims(s, res);
}

/** Claims of ours on a resource that is placed now: in force again, and their registrations. */
function confirmClaims(s: EngineState, res: LockRes): RegisteredLock[] {
  const locks: RegisteredLock[] = [];
  if (res.domain.claims.size === 0) return locks;
  for (const lock of res.locals()) {
    if (!res.domain.claims.has(lock)) continue;
    confirmClaim(s, lock);
    const entry = registration(lock, s.now);
    if (entry) locks.push(entry);
  }
  return locks;
}

/** Nobody masters a name that we claim from before our restart: it is placed like the resources of a dead master. */
export function placeClaim(s: EngineState, res: LockRes): void {
  const domain = res.domain;
  const target = place(s, domain, res);
  const locks = confirmClaims(s, res);
  if (target !== s.self && target !== 0) s.send(domain, target, { k: 'Register', locks });
  hold.ownerKnown(s, res);
}

/** A claim that came after our own were placed (an owner that found us only now): as those. */
export function placeLateClaim(s: EngineState, domain: Domain, lock: Lock): void {
  attachClaim(s, domain, lock);
  const { res } = lock;
  if (res.state === RES_MASTERING) needMaster(s, res);
  else if (res.owner === s.self) confirmClaims(s, res);
  else hold.ownerKnown(s, res);
}
