/**
 * What local owners ask the engine for, before it reaches the owner's side of a lock (hold.ts).
 *
 * The problem: a request can come when nothing can be done for it yet: no lease, no domain, no mark for locks of the node; and its
 * owner may give it up, or its time may end, in any state.
 *
 * The idea: what cannot start waits in one set and starts when that has come; giving up is one function that knows every state. The
 * caller (engine.ts) sets the time before, and does what was put off afterwards.
 */
import type { ErrorCode } from '../protocol/errors.js';
import type { Millis } from '../protocol/ids.js';
import { DOMAINS_MAX } from '../protocol/limits.js';
import { EX, type Mode } from '../protocol/modes.js';
import { LOCK_LVB, LOCK_NODE_OWNED, LOCK_TRY } from '../protocol/peer-messages.js';
import * as hold from './hold.js';
import { detachedRes, isClaim } from './incarnation.js';
import { Lock, ST_CONVERTING, ST_GONE, ST_HELD, ST_LOCKING, ST_NEW } from './lock.js';
import { isContradicted, isNodeOwnedMarked } from './proposals.js';
import { modeInForce } from './rebuild.js';
import type { EngineState } from './state.js';
import { type LockOptions, LVB_INVALID } from './types.js';

/** Whether a request may go to its resource now; otherwise it waits, or is refused. */
export function mayStart(s: EngineState, options: LockOptions): boolean {
  const domain = s.domains.get(options.domain);
  return domain !== undefined && s.isLeased && !domain.isLeaving && (!options.nodeOwned || isNodeOwnedMarked(s));
}

/** The lock of a new request; nothing has begun yet. */
export function newLock(s: EngineState, options: LockOptions, isReady: boolean): Lock {
  const flags = (options.try ? LOCK_TRY : 0) | (options.nodeOwned ? LOCK_NODE_OWNED : 0) | (options.lvb ? LOCK_LVB : 0);
  const domain = s.domains.get(options.domain);
  const res = isReady && domain ? s.resource(domain, options.name) : detachedRes(s, options.domain, options.name);
  const lock = new Lock(s.newLockId(), s.self, res, options.mode, flags, options.who, options.why);
  lock.ctx = options.ctx;
  lock.door = options.door ?? '';
  lock.isInUse = lock.door !== '';
  lock.since = s.now;
  lock.deadline = options.deadline;
  if (options.try) {
    const limit = s.now + s.tuning.tryLimitMs;
    if (lock.deadline === 0 || lock.deadline > limit) lock.deadline = limit;
  }
  return lock;
}

/** Starts the request, or lets it wait for its domain; a domain that cannot be is refused. */
export function begin(s: EngineState, lock: Lock, isReady: boolean): void {
  if (isReady) {
    hold.start(s, lock);
  } else if (isRoomless(s, lock.domain)) {
    lock.st = ST_GONE;
    s.out.denied(lock, 'TSDLM_LIMIT_REACHED');
  } else if (isContradicted(s, lock.domain)) {
    lock.st = ST_GONE;
    s.out.denied(lock, 'TSDLM_NOT_ALLOWED');
  } else {
    lock.st = ST_NEW;
    s.waiting.add(lock);
    s.proposeAt = 0;
  }
  if (lock.deadline !== 0 && (lock.st === ST_NEW || lock.st === ST_LOCKING)) s.deadlines.add(lock);
}

/** False: refused, or too late; nothing has begun. */
export function convert(
  s: EngineState,
  lock: Lock,
  mode: Mode,
  options: { try: boolean; deadline: Millis; lvb: Uint8Array | null },
): boolean {
  s.touch(lock);
  if (lock.st === ST_GONE) return false; // Its owner was told so, perhaps just now, when this call looked at the clock.
  if (s.isSuspended && lock.st === ST_HELD) {
    s.out.denied(lock, 'TSDLM_UNAVAILABLE');
    return false;
  }
  if (lock.st !== ST_HELD || lock.isZombie) {
    s.out.denied(lock, isClaim(lock) ? 'TSDLM_UNAVAILABLE' : 'TSDLM_BAD_ARGUMENT');
    return false;
  }
  lock.deadline = options.deadline;
  if (options.try) {
    const limit = s.now + s.tuning.tryLimitMs;
    if (lock.deadline === 0 || lock.deadline > limit) lock.deadline = limit;
  }
  hold.preparePut(lock, options.lvb, false);
  hold.convert(s, lock, mode, options.try);
  if (lock.deadline !== 0 && (lock.st as number) === ST_CONVERTING) s.deadlines.add(lock);
  return true;
}

/** Releases what is held, gives up what waits. */
export function unlock(s: EngineState, lock: Lock, options?: { lvb?: Uint8Array | null; lvbInvalid?: boolean }): void {
  if (lock.st !== ST_HELD) s.touch(lock); // What is held stays held, and hold.unlock looks.
  if (lock.st === ST_HELD && lock.isUntold) {
    giveUp(s, lock, 'TSDLM_CANCELLED');
  } else if (lock.st === ST_HELD || lock.st === ST_CONVERTING) {
    hold.preparePut(lock, options?.lvb ?? null, options?.lvbInvalid ?? false);
    hold.unlock(s, lock);
  } else if (isClaim(lock)) {
    lock.isReleaseWished = true;
    if (options?.lvbInvalid && lock.want === EX && (lock.flags & LOCK_LVB) !== 0) lock.putState = LVB_INVALID;
  } else if (lock.st === ST_NEW || lock.st === ST_LOCKING) {
    giveUp(s, lock, 'TSDLM_CANCELLED');
  }
}

/** See Engine.setInUse. False: it is no hold, there is nothing to record. */
export function setInUse(s: EngineState, lock: Lock, isInUse: boolean, recorded: (ok: boolean) => void): boolean {
  lock.isInUse = isInUse;
  // What the journal says of the mode: never more than the master may still grant us.
  const mode = lock.mode === -1 ? lock.want : lock.st === ST_CONVERTING ? modeInForce(lock) : lock.mode;
  const isRecordable = lock.st === ST_HELD || lock.st === ST_CONVERTING || isClaim(lock);
  if (!isRecordable || mode === -1) return false;
  s.journal(
    { op: 'put', record: { ...hold.nodeOwnedRecord(lock), mode } },
    () => recorded(true),
    () => recorded(false),
  );
  return true;
}

/** All domains there may be are in use, and this is none of them. */
function isRoomless(s: EngineState, domainName: string): boolean {
  const { domains } = s.view;
  return domains.length >= DOMAINS_MAX && domains.every((d) => d.name !== domainName && d.members.length > 0);
}

/** Ends a request that still waits, with `code` for its owner. */
export function giveUp(s: EngineState, lock: Lock, code: ErrorCode): void {
  s.touch(lock);
  if (lock.isZombie || isClaim(lock)) return;
  const at = lock.isWaitClaim ? s.claimable.indexOf(lock) : -1;
  if (at >= 0) {
    s.claimable.splice(at, 1);
    lock.st = ST_GONE;
    s.out.denied(lock, code);
    return;
  }
  const wished = lock.st === ST_HELD ? s.claimedWants.get(lock.id) : undefined;
  if (wished !== undefined && wished > lock.mode) {
    // A conversion of before a restart that has not begun again.
    s.claimedWants.delete(lock.id);
    s.out.denied(lock, code);
    return;
  }
  if (lock.st === ST_HELD && lock.isUntold) {
    // Granted, but the journal has not written it yet and the owner does not know: it is given back.
    lock.isZombie = true;
    s.out.denied(lock, code);
    hold.unlock(s, lock);
    return;
  }
  if (s.waiting.delete(lock)) {
    lock.st = ST_GONE;
    s.out.denied(lock, code);
    return;
  }
  if (lock.st !== ST_NEW && lock.st !== ST_LOCKING && lock.st !== ST_CONVERTING) return;
  lock.endCode = code;
  if (hold.cancel(s, lock)) s.out.denied(lock, code);
}

/** Ends the requests whose time is over. */
export function expireDue(s: EngineState): void {
  for (const lock of s.deadlines.due(s.now)) {
    if (lock.isCancelling) continue;
    giveUp(s, lock, (lock.flags & LOCK_TRY) !== 0 ? 'TSDLM_UNAVAILABLE' : 'TSDLM_TIMEOUT');
  }
}

/** Requests that waited for their domain, or for the node-owned mark. */
export function startWaiting(s: EngineState): void {
  if (!s.isLeased) return;
  for (const lock of [...s.waiting]) {
    const domain = s.domains.get(lock.domain);
    if (!domain || domain.isLeaving || (lock.nodeOwned && !isNodeOwnedMarked(s))) continue;
    s.waiting.delete(lock);
    lock.res = s.resource(domain, lock.name);
    hold.start(s, lock);
  }
}
