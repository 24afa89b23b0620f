/**
 * When an owner hears of its grant.
 *
 * The problem: a grant may stand before its owner may act under it: without a lease there is no deadline to tell (rule 11), while
 * suspended nothing is granted (rule 20), and a claim of before a restart may be confirmed before this node has a lease.
 *
 * The idea: what cannot be told yet is kept with the engine's state, and told when the lease is there, if it still is so; a blocking
 * request that came meanwhile follows the grant, never the other way round (rule 25).
 */
import { EX, type Mode, PR } from '../protocol/modes.js';
import { type Lock, ST_HELD } from './lock.js';
import type { EngineState } from './state.js';

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

/** A first grant is told only under a lease (rule 11): a claimed place in a queue may be granted before there is one. */
export function announceFirst(s: EngineState, lock: Lock): void {
  if (s.isLeased) return announce(s, lock);
  lock.isUntold = true;
  s.whenLeased.push(() => {
    if (lock.st === ST_HELD && lock.isUntold && !lock.isZombie) announceFirst(s, lock);
  });
}

/** What was held before is told, with a deadline of this incarnation, once there is one: nothing is asked for before. */
export function announceClaim(s: EngineState, lock: Lock): void {
  if (s.isLeased) return announce(s, lock);
  const { mode } = lock;
  s.whenLeased.push(() => {
    // A conversion that went on meanwhile has been told by itself.
    if (lock.st === ST_HELD && lock.mode === mode && !lock.isZombie) announceClaim(s, lock);
  });
}
