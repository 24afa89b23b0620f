/**
 * The master's side of a lock resource: queues, grants, conversions, releases.
 *
 * The rules (VAXcluster lock manager as in fs/dlm, modes as in ocfs2):
 *  - conversions before new requests, first come first served in each; a new request does not overtake a waiting one,
 *    compatible or not, but a request for NL never waits;
 *  - a down-conversion is granted at once;
 *  - NL -> PR/EX queues as a new request (rule 21); only an owner's own PR -> EX is a conversion;
 *  - two PR -> EX conversions of one resource can never both be granted: the second gets TSDLM_DEADLOCK at once
 *    (fs/dlm `conversion_deadlock_detect`);
 *  - whoever stands in the way of the first waiter gets a BAST, once per higher mode.
 * Handlers edit queues; `shuffle` is the one place that grants from them (o2dlm `dlm_shuffle_lists`).
 */
import type { ErrorCode } from '../protocol/errors.js';
import { InvariantError, invariant } from '../protocol/errors.js';
import { QUEUE_LENGTH_MAX } from '../protocol/limits.js';
import { EX, isCompatible, type Mode, NL, PR } from '../protocol/modes.js';
import { LOCK_LVB } from '../protocol/peer-messages.js';
import { type Lock, Q_BLOCKED, Q_CONVERTING, Q_GRANTED } from './lock.js';
import { type LockRes, RES_OWNED } from './lockres.js';
import type { EngineState } from './state.js';
import { LVB_INVALID, LVB_VALID, type LvbState } from './types.js';

/** True when `mode` goes together with every mode in force, the lock's own left out. */
export function isGrantable(res: LockRes, lock: Lock, mode: Mode): boolean {
  if (mode === NL) return true;
  const ex = res.grantedEx - (lock.mode === EX ? 1 : 0);
  if (ex > 0) return false;
  if (mode === PR) return true;
  return res.grantedPr - (lock.mode === PR ? 1 : 0) === 0;
}

/** True when `mode` goes together with every mode counted so far (for a lock that is not counted itself). */
export function fitsAmongOthers(res: LockRes, mode: Mode): boolean {
  if (mode === NL) return true;
  return res.grantedEx === 0 && (mode === PR || res.grantedPr === 0);
}

/** Of several PR -> EX conversions only the first can ever be granted: the others are refused (after a rebuild). */
export function breakDeadlocks(s: EngineState, res: LockRes): void {
  while (res.converting.length > 1 && res.converting.tail) refuse(s, res, res.converting.tail, 'TSDLM_DEADLOCK');
}

/** A new request (or NL -> higher): grants, queues, or refuses. `lock` is known to the resource but in no queue, or granted at NL. */
export function request(s: EngineState, res: LockRes, lock: Lock, mode: Mode, isTry: boolean): void {
  invariant(res.state === RES_OWNED && res.owner === s.self, `request for ${res.name} at a node that does not master it`);
  lock.want = mode;
  s.counters.requests++;
  const isFree = mode === NL || (res.converting.length === 0 && res.blocked.length === 0);
  if (isFree && isGrantable(res, lock, mode)) {
    grant(s, res, lock, mode);
    return;
  }
  if (isTry) return refuse(s, res, lock, 'TSDLM_CONFLICT');
  if (res.blocked.length >= QUEUE_LENGTH_MAX) return refuse(s, res, lock, 'TSDLM_LIMIT_REACHED');
  if (lock.q === Q_GRANTED) res.granted.remove(lock);
  s.counters.conflicts++;
  res.blocked.push(lock);
  lock.since = lock.mode === -1 ? s.now : lock.since;
  sendBasts(s, res);
}

/** Another mode for a granted lock. `put`/`value`: what to store when it leaves EX. */
export function convert(
  s: EngineState,
  res: LockRes,
  lock: Lock,
  mode: Mode,
  isTry: boolean,
  put: LvbState,
  value: Uint8Array | null,
): void {
  if (lock.mode === -1 || lock.q !== Q_GRANTED) return refuse(s, res, lock, 'TSDLM_BAD_ARGUMENT');
  const held = lock.mode;
  if (held === EX && put !== 0) store(res, put, value);
  if (mode <= held) {
    lock.want = mode;
    grant(s, res, lock, mode);
    if (mode < held) shuffle(s, res);
    return;
  }
  if (held === NL) return request(s, res, lock, mode, isTry);
  if (isGrantable(res, lock, mode)) {
    lock.want = mode;
    grant(s, res, lock, mode);
    return;
  }
  // PR -> EX beside another PR -> EX: neither can ever be granted.
  if (res.converting.length > 0) return refuse(s, res, lock, 'TSDLM_DEADLOCK');
  if (isTry) return refuse(s, res, lock, 'TSDLM_CONFLICT');
  lock.want = mode;
  s.counters.conflicts++;
  res.granted.remove(lock);
  res.converting.push(lock);
  sendBasts(s, res);
}

/** Ends a lock: removes it from its queue, stores its value block, tells its owner, grants to who waited. */
export function unlock(s: EngineState, res: LockRes, lock: Lock, put: LvbState, value: Uint8Array | null): void {
  if (lock.mode === EX && put !== 0) store(res, put, value);
  s.counters.releases++;
  drop(res, lock);
  s.hooks.unlocked(lock);
  if (res.converting.length > 0 || res.blocked.length > 0) shuffle(s, res);
}

/** Withdraws a waiting request or conversion; false when there is nothing to withdraw (it was granted before). */
export function cancel(s: EngineState, res: LockRes, lock: Lock): boolean {
  if (lock.q !== Q_BLOCKED && lock.q !== Q_CONVERTING) return false;
  refuse(s, res, lock, 'TSDLM_CANCELLED');
  shuffle(s, res);
  return true;
}

/** As cancel; who waits behind it is looked at by the caller. */
export function withdraw(s: EngineState, res: LockRes, lock: Lock): void {
  if (lock.q === Q_BLOCKED || lock.q === Q_CONVERTING) refuse(s, res, lock, 'TSDLM_CANCELLED');
}

/** Removes a lock of a dead node, or one that ends: no answer, no grants yet. */
export function drop(res: LockRes, lock: Lock): void {
  const q = lock.q;
  if (q === Q_GRANTED) res.granted.remove(lock);
  else if (q === Q_CONVERTING) res.converting.remove(lock);
  else if (q === Q_BLOCKED) res.blocked.remove(lock);
  else return;
  res.count(lock.mode, -1);
}

/** A conversion that its owner does not want any more: back to what is held, without a word to anybody. */
export function settle(res: LockRes, lock: Lock): void {
  if (lock.q === Q_CONVERTING) res.converting.remove(lock);
  else if (lock.q === Q_BLOCKED) res.blocked.remove(lock);
  else return;
  lock.want = -1;
  res.granted.push(lock);
}

/** Puts the resource's value block: 1 = `value` is current, 2 = its writer died. */
export function store(res: LockRes, put: LvbState, value: Uint8Array | null): void {
  if (put === LVB_INVALID) {
    res.lvbState = LVB_INVALID;
    res.lvb = null;
  } else if (value) {
    res.lvbState = LVB_VALID;
    res.lvb = value;
  }
}

/** The request ends without a grant; the lock keeps the mode it had, or is gone when it had none. */
function refuse(s: EngineState, res: LockRes, lock: Lock, code: ErrorCode): void {
  if (lock.mode === -1) {
    drop(res, lock);
  } else if (lock.q !== Q_GRANTED) {
    if (lock.q === Q_CONVERTING) res.converting.remove(lock);
    else if (lock.q === Q_BLOCKED) res.blocked.remove(lock);
    res.granted.push(lock);
  }
  lock.want = -1;
  s.counters.refusals++;
  s.hooks.denied(lock, code);
}

/** Puts `lock` in force at `mode`, with token and value block, and tells its owner. */
export function grant(s: EngineState, res: LockRes, lock: Lock, mode: Mode): void {
  if (res.seen !== res.domain.epoch) {
    throw new InvariantError(`grant on ${res.domain.name}/${res.name} from what was true in epoch ${res.seen}`);
  }
  if (lock.q !== Q_GRANTED) {
    if (lock.q === Q_CONVERTING) res.converting.remove(lock);
    else if (lock.q === Q_BLOCKED) res.blocked.remove(lock);
    res.granted.push(lock);
  }
  const wasLower = lock.mode < mode;
  if (lock.mode !== mode) {
    if (lock.mode !== -1) res.count(lock.mode, -1);
    res.count(mode, 1);
    lock.mode = mode;
    lock.since = s.now;
  }
  lock.want = -1;
  lock.basted = -1;
  if (mode === EX) {
    if (wasLower) {
      s.clock.advance();
      lock.te = s.clock.epoch;
      lock.tc = s.clock.counter;
    }
  } else if (mode === PR) {
    if (wasLower) {
      lock.te = s.clock.epoch;
      lock.tc = s.clock.counter;
    }
  } else {
    lock.te = lock.tc = 0;
  }
  // The holder of PR or EX always has the current value: recovery rebuilds it from any such copy (S3). Someone who goes
  // down from EX keeps what it just published.
  if (mode !== NL) {
    lock.lvbState = res.lvbState;
    lock.lvb = res.lvb;
  }
  s.counters.grants++;
  s.hooks.granted(lock);
}

/** Grants what can be granted, in order; then asks who is in the way of the first that cannot. */
export function shuffle(s: EngineState, res: LockRes): void {
  if (s.isSuspended) {
    s.held.toShuffle.add(res);
    return;
  }
  for (let head = res.converting.head; head; head = res.converting.head) {
    if (!isGrantable(res, head, head.want as Mode)) {
      sendBasts(s, res);
      return;
    }
    grant(s, res, head, head.want as Mode);
  }
  for (let head = res.blocked.head; head; head = res.blocked.head) {
    if (!isGrantable(res, head, head.want as Mode)) {
      sendBasts(s, res);
      return;
    }
    grant(s, res, head, head.want as Mode);
  }
}

/** BASTs to all that the first waiter is incompatible with, once per higher mode (fs/dlm `lkb_highbast`). */
export function sendBasts(s: EngineState, res: LockRes): void {
  const head = res.converting.head ?? res.blocked.head;
  if (!head) return;
  const want = head.want as Mode;
  for (const queue of [res.granted, res.converting]) {
    for (let lock = queue.head; lock; lock = lock.next) {
      if (lock === head || lock.basted >= want || lock.mode === -1 || isCompatible(lock.mode, want)) continue;
      lock.basted = want;
      s.counters.basts++;
      s.hooks.bast(lock, want);
    }
  }
}

/** The node of an EX holder is gone: what it may have written is lost (S3). */
export function loseValueOf(res: LockRes, lock: Lock): void {
  if (lock.mode === EX && (res.lvbState !== 0 || (lock.flags & LOCK_LVB) !== 0)) store(res, LVB_INVALID, null);
}
