/**
 * One lock message of the present epoch, from a member: which handler it is for.
 *
 * Requests for resources that are being rebuilt are parked and come here again after the barrier. A peer's odd message is
 * refused or ignored, never a reason to stop (a reply to an unknown lock is what a repeated message looks like).
 */

import { ERROR_CODES, errorCodeOf } from '../protocol/errors.js';
import type { LockId, NodeId } from '../protocol/ids.js';
import type { Mode } from '../protocol/modes.js';
import { LOCK_RECLAIM, LOCK_TRY, type LockMessage } from '../protocol/peer-messages.js';
import { onBast, onDenied, onGrantMessage, onUnlocked } from './answers.js';
import type { Domain } from './domain.js';
import { onHandOver, onReclaim, onRegister } from './hand-over.js';
import * as hold from './hold.js';
import { onDeref, onDerefDone, touchIdle, untouchIdle } from './idle.js';
import { Lock, Q_GRANTED, ST_CONVERTING, ST_HELD, ST_LOCKING, ST_NEW, ST_UNLOCKING } from './lock.js';
import { type LockRes, RES_OWNED } from './lockres.js';
import { needMaster, onAssertMaster, onMasterReply, onMasterRequest, onNotMaster } from './mastery.js';
import { onRegisterDone } from './pass.js';
import { lockFromRegistration, rebuildOf } from './rebuild.js';
import { mustPark, onRecoveryActive, onRecoveryDone } from './recovery.js';
import * as serve from './serve.js';
import { remoteLocks } from './serve-rebuilt.js';
import type { EngineState } from './state.js';

type Of<K extends LockMessage['k']> = Extract<LockMessage, { k: K }>;

export function dispatch(s: EngineState, domain: Domain, from: NodeId, msg: LockMessage): void {
  switch (msg.k) {
    case 'LockRequest':
      return onLockRequest(s, domain, from, msg);
    case 'Reclaim':
      return onReclaimRequest(s, domain, from, msg);
    case 'Grant': {
      const lock = ownLock(s, msg.id);
      if (!lock || !isFromMaster(lock, domain, from)) return;
      onGrantMessage(s, lock, msg);
      answered(domain, lock);
      if (lock.res.newWaiters.length > 0) afterBounce(s, lock.res, from);
      return;
    }
    case 'UnlockRequest':
      return onUnlockRequest(s, domain, from, msg);
    case 'UnlockDone': {
      const lock = ownLock(s, msg.id);
      if (!lock || !isFromMaster(lock, domain, from)) return;
      onUnlocked(s, lock);
      answered(domain, lock);
      if (lock.res.newWaiters.length > 0) afterBounce(s, lock.res, from);
      return;
    }
    case 'Bast': {
      const lock = ownLock(s, msg.id);
      if (lock && isFromMaster(lock, domain, from)) onBast(s, lock, msg.mode);
      return;
    }
    case 'Deny': {
      const lock = ownLock(s, msg.id);
      if (!lock || !isFromMaster(lock, domain, from)) return;
      onDenied(s, lock, errorCodeOf(msg.code) ?? 'TSDLM_PROTOCOL');
      answered(domain, lock);
      if (lock.res.newWaiters.length > 0) afterBounce(s, lock.res, from);
      return;
    }
    case 'ConvertRequest':
      return onConvertRequest(s, domain, from, msg);
    case 'CancelRequest':
      return onCancelRequest(s, domain, from, msg);
    case 'MasterRequest':
      return onMasterRequest(s, domain, from, msg.name);
    case 'MasterReply':
      return onMasterReply(s, domain, from, msg);
    case 'AssertMaster':
      return onAssertMaster(s, domain, from, msg);
    case 'NotMaster':
      return onNotMasterReply(s, domain, from, msg);
    case 'Deref':
      if (mustPark(s, domain, msg.name) && domain.rebuilding.has(msg.name)) park(domain, from, msg);
      else onDeref(s, domain, from, msg.name);
      return;
    case 'DerefDone': {
      const res = onDerefDone(s, domain, from, msg.name);
      if (res) needMaster(s, res);
      return;
    }
    case 'Register':
      return onRegister(s, domain, from, msg.locks);
    case 'HandOver':
      return onHandOver(s, domain, from, msg.resources);
    case 'RegisterDone':
      return onRegisterDone(domain, from);
    case 'RecoveryDone':
      onRecoveryDone(s, domain, from);
      if (!domain.isRecovering) replayParked(s, domain);
      return;
    case 'RecoveryActive':
      return onRecoveryActive(s, domain, from);
    default: {
      const unknown: never = msg;
      return unknown;
    }
  }
}

/** A lock of an owner here, its resource at the present epoch. */
function ownLock(s: EngineState, id: LockId): Lock | undefined {
  const lock = s.own.get(id);
  if (lock) s.touch(lock);
  return lock;
}

/** The master has answered: nothing of this lock is under way, unless the answer was for something else. */
function answered(domain: Domain, lock: Lock): void {
  if (lock.st === ST_LOCKING || lock.st === ST_CONVERTING || lock.st === ST_UNLOCKING) return;
  domain.underWay.delete(lock.id);
}

/** A request that waits for the barrier, or behind it for its resource alone. */
function park(domain: Domain, from: NodeId, msg: Extract<LockMessage, { name: string }>): void {
  if (domain.isRecovering) domain.parked.push({ from, msg });
  else rebuildOf(domain, msg.name).parked.push({ from, msg });
}

/** Requests that waited for the barrier. */
export function replayParked(s: EngineState, domain: Domain): void {
  const parked = domain.parked;
  if (parked.length === 0) return;
  domain.parked = [];
  for (const { from, msg } of parked) dispatch(s, domain, from, msg);
}

/** An answer counts only from the node that we hold for the master. */
function isFromMaster(lock: Lock, domain: Domain, from: NodeId): boolean {
  return lock.res.domain === domain && lock.res.owner === from;
}

/** The resource if we master and serve it; parks the message or answers NotMaster otherwise. */
function served(
  s: EngineState,
  domain: Domain,
  from: NodeId,
  msg: Of<'LockRequest'> | Of<'ConvertRequest'> | Of<'UnlockRequest'> | Of<'CancelRequest'>,
): LockRes | null {
  const res = s.find(domain, msg.name);
  if (res && res.owner === s.self && res.state === RES_OWNED) return res;
  if (mustPark(s, domain, msg.name)) park(domain, from, msg);
  else if (msg.k === 'UnlockRequest') s.send(domain, from, { k: 'UnlockDone', id: msg.id });
  else if (msg.k !== 'CancelRequest') s.send(domain, from, { k: 'NotMaster', name: msg.name, id: msg.id });
  return null;
}

/** A lock of another node, new here. */
function addRemote(s: EngineState, domain: Domain, res: LockRes, lock: Lock): void {
  res.addRef(lock.node);
  if (res.isIdle) untouchIdle(res);
  lock.since = s.now;
  remoteLocks(domain, lock.node).set(lock.id, lock);
}

function onLockRequest(s: EngineState, domain: Domain, from: NodeId, msg: Of<'LockRequest'>): void {
  const res = served(s, domain, from, msg);
  if (!res) return;
  const table = remoteLocks(domain, from);
  const known = table.get(msg.id);
  if (known) {
    known.isUnclaimed = false;
    if (known.q === Q_GRANTED && known.want === -1) s.hooks.granted(known);
    return;
  }
  const lock = new Lock(msg.id, from, res, msg.mode, msg.flags & 0x7e, msg.who, msg.why);
  lock.se = msg.se;
  lock.sc = msg.sc;
  addRemote(s, domain, res, lock);
  serve.request(s, res, lock, msg.mode, (msg.flags & LOCK_TRY) !== 0);
}

/** A restarted node claims what it held or waited for before (rules 1, 3): only what we know of counts as held. */
function onReclaimRequest(s: EngineState, domain: Domain, from: NodeId, msg: Of<'Reclaim'>): void {
  const entry = msg.lock;
  if (mustPark(s, domain, entry.name)) {
    if (domain.isRecovering) onReclaim(s, domain, from, entry);
    else rebuildOf(domain, entry.name).parked.push({ from, msg });
    return;
  }
  const res = s.find(domain, entry.name);
  if (res?.owner !== s.self || res.state !== RES_OWNED) {
    s.send(domain, from, { k: 'NotMaster', name: entry.name, id: entry.id });
    return;
  }
  const claim = lockFromRegistration(res, from, entry, s.now);
  const known = remoteLocks(domain, from).get(entry.id);
  if (known?.res === res && known.who === claim.who && (claim.mode === -1 || known.mode !== -1)) {
    known.isUnclaimed = false;
    res.addRef(from);
    if (known.mode === -1) return; // It keeps its place.
    const isGivenUp = known.want !== -1 && claim.mode !== -1 && claim.want === -1;
    if (isGivenUp) serve.settle(res, known);
    s.hooks.granted(known);
    known.basted = -1;
    if (isGivenUp) serve.shuffle(s, res);
    else serve.sendBasts(s, res);
    return;
  }
  if (claim.mode !== -1 || known) {
    s.send(domain, from, { k: 'Deny', id: entry.id, code: ERROR_CODES.TSDLM_NOT_HELD });
    return;
  }
  // Its request never came here.
  addRemote(s, domain, res, claim);
  serve.request(s, res, claim, claim.want as Mode, false);
}

function onConvertRequest(s: EngineState, domain: Domain, from: NodeId, msg: Of<'ConvertRequest'>): void {
  const res = served(s, domain, from, msg);
  if (!res) return;
  const lock = domain.remote.get(from)?.get(msg.id);
  if (!lock || lock.res !== res) {
    s.send(domain, from, { k: 'Deny', id: msg.id, code: ERROR_CODES.TSDLM_NOT_HELD });
    return;
  }
  if (lock.want === msg.mode && lock.q !== Q_GRANTED) return; // Repeated: it waits already.
  if (lock.q !== Q_GRANTED) return; // Still waiting for something else: its answer is under way.
  // Repeated, and decided before; but a conversion to the mode held may still bring a value block.
  if (lock.mode === msg.mode && msg.lvbState === 0) return s.hooks.granted(lock);
  lock.se = msg.se;
  lock.sc = msg.sc;
  serve.convert(s, res, lock, msg.mode, (msg.flags & LOCK_TRY) !== 0, msg.lvbState, msg.lvb);
}

function onUnlockRequest(s: EngineState, domain: Domain, from: NodeId, msg: Of<'UnlockRequest'>): void {
  const res = served(s, domain, from, msg);
  if (!res) return;
  const lock = domain.remote.get(from)?.get(msg.id);
  if (lock && lock.res === res) serve.unlock(s, res, lock, msg.lvbState, msg.lvb);
  else s.send(domain, from, { k: 'UnlockDone', id: msg.id }); // Repeated: it was released before.
}

function onCancelRequest(s: EngineState, domain: Domain, from: NodeId, msg: Of<'CancelRequest'>): void {
  const res = served(s, domain, from, msg);
  if (!res) return;
  const lock = domain.remote.get(from)?.get(msg.id);
  if (!lock) {
    // Never arrived, or ended before: for a first request both mean that it will not be granted.
    s.send(domain, from, { k: 'Deny', id: msg.id, code: ERROR_CODES.TSDLM_CANCELLED });
    return;
  }
  serve.cancel(s, res, lock);
  touchIdle(s, res);
}

/**
 * The node we took for the master did not master the name when this request came. Only this one request is known to be
 * nowhere: others of ours may be on their way to a node that has become the master meanwhile, so what to do next is
 * decided when each of them has been answered.
 */
function onNotMasterReply(s: EngineState, domain: Domain, from: NodeId, msg: Of<'NotMaster'>): void {
  const lock = ownLock(s, msg.id);
  if (!lock || lock.res.domain !== domain || lock.res.owner !== from || lock.res.name !== msg.name) return;
  const res = lock.res;
  domain.underWay.delete(lock.id);
  if (lock.st === ST_LOCKING) {
    if (lock.isZombie) {
      hold.remove(s, lock);
    } else {
      lock.st = ST_NEW;
      res.addWaiter(lock);
      if ((lock.flags & LOCK_RECLAIM) !== 0) domain.claims.add(lock);
    }
    afterBounce(s, res, from);
  } else if (lock.st === ST_HELD || lock.st === ST_CONVERTING) {
    // Something of ours is held there according to us: a contradiction only a new epoch can clear up.
    s.note('error', 'master-denies-held-lock', { domain: domain.name, name: msg.name, master: from, id: lock.id });
    s.out.propose({ c: 'bump', dom: domain.dom, epoch: domain.epoch });
  }
}

/** Requests came back with NotMaster and wait: go on when no other request of ours is still under way to that node. */
function afterBounce(s: EngineState, res: LockRes, from: NodeId): void {
  if (res.state !== RES_OWNED || res.owner !== from || from === s.self) return;
  let isHeld = false;
  for (let lock = res.localHead; lock; lock = lock.localNext) {
    if (lock.st === ST_LOCKING || lock.st === ST_UNLOCKING) return;
    if (lock.st === ST_HELD || lock.st === ST_CONVERTING) isHeld = true;
  }
  if (isHeld) hold.ownerKnown(s, res);
  else onNotMaster(s, res.domain, from, res.name);
}
