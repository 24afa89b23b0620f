/**
 * A resource that was placed here serves again: its queues are made of what was registered, and what was under way goes on.
 *
 * The problem: local requests under way have no answer, claims of restarted nodes are to be confirmed, who waits may be grantable, and
 * nobody knows which of it the dead master has done already.
 *
 * The idea: behind the barrier everything that counts is known here, so each request is decided as if it came now; what has been
 * answered before is known by its id and answered again. One resource does not depend on another (sweep.ts).
 */
import { ERROR_CODES, InvariantError } from '../protocol/errors.js';
import { IdMap } from '../protocol/id-map.js';
import type { NodeId } from '../protocol/ids.js';
import type { Mode } from '../protocol/modes.js';
import { LOCK_RECLAIM, LOCK_TRY } from '../protocol/peer-messages.js';
import { voidClaim } from './claim-course.js';
import type { Domain, Rebuild } from './domain.js';
import * as hold from './hold.js';
import { touchIdle } from './idle.js';
import { type Lock, Q_GRANTED, Q_NONE, ST_CONVERTING, ST_LOCKING, ST_UNLOCKING } from './lock.js';
import { type LockRes, RES_OWNED } from './lockres.js';
import { fillQueues } from './rebuild.js';
import * as serve from './serve.js';
import type { EngineState } from './state.js';

/** A resource that was placed here is rebuilt and serves, behind the barrier. */
export function serveRebuilt(s: EngineState, domain: Domain, res: LockRes, rebuild: Rebuild | null): void {
  const locks = res.locals().filter((lock) => lock.st >= ST_LOCKING && lock.st <= ST_UNLOCKING);
  rebuildResource(s, domain, res, locks, rebuild);
  for (const lock of locks) repeatLocally(s, res, lock);
  for (const lock of reclaimed(res)) {
    if (lock.node !== s.self) lock.flags &= ~LOCK_RECLAIM;
    s.hooks.granted(lock);
  }
  serve.breakDeadlocks(s, res);
  serve.shuffle(s, res);
  hold.ownerKnown(s, res);
  touchIdle(s, res);
}

/** Locks that a restarted node claimed here and has no answer for yet. */
function reclaimed(res: LockRes): Lock[] {
  return res.granted.toArray().filter((lock) => (lock.flags & LOCK_RECLAIM) !== 0);
}

function rebuildResource(s: EngineState, domain: Domain, res: LockRes, local: Lock[], rebuild: Rebuild | null): void {
  if (res.state === RES_OWNED && res.owner !== s.self) {
    throw new InvariantError(`${domain.name}/${res.name} is registered here but mastered by node ${res.owner}`);
  }
  res.state = RES_OWNED;
  res.owner = s.self;
  res.gen = domain.epoch;
  res.isUnconfirmed = false;
  domain.unconfirmed.delete(res);
  domain.toRebuild.delete(res);
  domain.rebuilding.delete(res.name);
  const locks = rebuild?.locks ?? [];
  for (const lock of locks) {
    res.addRef(lock.node);
    if (lock.isReleasing) continue; // It lends its value block, and is gone.
    remoteLocks(domain, lock.node).set(lock.id, lock);
  }
  for (const lock of fillQueues(res, [...locks, ...local], rebuild?.handed ?? null)) {
    s.note('error', 'claim-contradicts', { domain: domain.name, name: res.name, node: lock.node, id: lock.id });
    if (lock.node !== s.self) remoteLocks(domain, lock.node).delete(lock.id);
    lock.mode = -1;
    lock.flags &= ~LOCK_RECLAIM;
    const code = ERROR_CODES.TSDLM_NOT_HELD;
    if (lock.node === s.self) s.deferred.push(() => dropClaim(s, lock));
    else s.send(domain, lock.node, { k: 'Deny', id: lock.id, code });
  }
}

function dropClaim(s: EngineState, lock: Lock): void {
  hold.remove(s, lock);
  voidClaim(s, lock);
}

/** A local request that was under way when the old master died: what does not simply wait in a queue is decided now. */
function repeatLocally(s: EngineState, res: LockRes, lock: Lock): void {
  if (lock.st === ST_LOCKING) {
    if (lock.isZombie) {
      if (!serve.cancel(s, res, lock) && lock.q === Q_NONE) hold.remove(s, lock);
    } else if (lock.q === Q_NONE) {
      serve.request(s, res, lock, lock.want as Mode, (lock.flags & LOCK_TRY) !== 0);
    }
  } else if (lock.st === ST_CONVERTING) {
    if (!lock.mayLeave) return;
    lock.isHeldBack = false;
    if (lock.isCancelling && lock.q !== Q_GRANTED) serve.cancel(s, res, lock);
    else if (lock.q === Q_GRANTED) {
      serve.convert(s, res, lock, lock.want as Mode, (lock.flags & LOCK_TRY) !== 0, lock.putState, lock.putLvb);
    }
  } else if (lock.st === ST_UNLOCKING && lock.isHeldBack) {
    // Its value goes with it: nobody else can have written since.
    lock.isHeldBack = false;
    serve.unlock(s, res, lock, lock.putState, lock.putLvb);
  } else if (lock.st === ST_UNLOCKING && lock.mayLeave) {
    // Its hold has ended; whether the old master knew does not matter any more (see registration).
    s.hooks.unlocked(lock);
  }
}

/** The table of another node's locks at resources mastered here. */
export function remoteLocks(domain: Domain, node: NodeId): IdMap<Lock> {
  let table = domain.remote.get(node);
  if (!table) {
    table = new IdMap<Lock>();
    domain.remote.set(node, table);
  }
  return table;
}
