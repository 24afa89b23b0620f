/**
 * What a new master is told before the barrier: what its holders hold and wait for, and what the master before it knew.
 *
 * The problem: holders know their own locks only. The value block, and who waits before whom, only the master knows; one that leaves
 * or is no server any more can still say so, one that died cannot.
 *
 * The idea: holders register everything with the new master, a claim of a restarted node counts as such a registration, and a master
 * that goes orderly hands over value block and order of its queues besides. It keeps that until the new master says RecoveryActive,
 * and sends it again in every epoch until then, as long as that one lives. Rebuilding from all this is rebuild.ts.
 */
import type { NodeId } from '../protocol/ids.js';
import { EX, type Mode } from '../protocol/modes.js';
import type { HandedResource, RegisteredLock } from '../protocol/peer-messages.js';
import type { Domain } from './domain.js';
import type { Lock } from './lock.js';
import { type LockRes, RES_OWNED } from './lockres.js';
import { adopt, dropRecord } from './orphans.js';
import { placeResource } from './placement.js';
import { lockFromRegistration, noteLock, rebuildOf } from './rebuild.js';
import type { EngineState } from './state.js';
import { LVB_INVALID, LVB_NONE } from './types.js';

/** We leave, or are no server any more: what we master goes to others. False: nobody uses it, it was forgotten. */
export function handOver(domain: Domain, res: LockRes): boolean {
  // Only what somebody holds or waits for: its holders know the new place at once and answer for it in mastery rounds.
  if (res.state === RES_OWNED && res.hasQueues) {
    const target = placeResource(res.name, domain.masters);
    if (target !== 0) domain.handing.set(res.name, { target, data: handedOf(res), mayBeServed: false });
  }
  // Locks of our own on it (who restarts keeps them) are registered with the new master like those of all others.
  if (res.localCount === 0) {
    dropRecord(domain, res);
    return false;
  }
  if (res.state === RES_OWNED) stopServing(res);
  return true;
}

function handedOf(res: LockRes): HandedResource {
  const writer = res.grantedEx > 0 ? exHolder(res) : null;
  return {
    name: res.name,
    lvbState: res.lvbState,
    lvb: res.lvb,
    exNode: writer?.node ?? 0,
    exId: writer?.id ?? 0,
    converting: res.converting.toArray().map((l) => [l.node, l.id]),
    blocked: res.blocked.toArray().map((l) => [l.node, l.id]),
  };
}

/** Locks of local owners on what we do not master any more: from now on only the owner's side of them is here. */
export function stopServing(res: LockRes): void {
  for (const queue of [res.granted, res.converting, res.blocked]) for (const lock of queue.toArray()) queue.remove(lock);
  res.grantedPr = res.grantedEx = 0;
  res.refs = null;
  res.lvbState = LVB_NONE;
  res.lvb = null;
}

function exHolder(res: LockRes): Lock | null {
  for (const queue of [res.granted, res.converting, res.blocked]) {
    for (let lock = queue.head; lock; lock = lock.next) if (lock.mode === EX) return lock;
  }
  return null;
}

/** A peer takes us for a master, and the view says that we may not be one: nothing it says of that counts. */
function isRefused(s: EngineState, domain: Domain, from: NodeId, what: string): boolean {
  if (domain.masterIds.has(s.self)) return false;
  s.note('warn', 'not-a-server', { domain: domain.name, from, what });
  return true;
}

export function onRegister(s: EngineState, domain: Domain, from: NodeId, locks: RegisteredLock[]): void {
  s.send(domain, from, { k: 'RegisterDone' });
  if (!domain.isRecovering || isRefused(s, domain, from, 'Register')) return;
  for (const entry of locks) {
    const res = s.resource(domain, entry.name);
    // Already rebuilt in an earlier epoch: we know it all, and better.
    if (res.state === RES_OWNED && res.owner === s.self) {
      res.addRef(from);
      continue;
    }
    const rebuild = rebuildOf(domain, entry.name);
    noteLock(rebuild, lockFromRegistration(res, from, entry, s.now));
    adopt(s, domain, res);
  }
}

export function onHandOver(s: EngineState, domain: Domain, from: NodeId, resources: HandedResource[]): void {
  s.send(domain, from, { k: 'RegisterDone' });
  if (!domain.isRecovering || isRefused(s, domain, from, 'HandOver')) return;
  for (const handed of resources) {
    const res = s.resource(domain, handed.name);
    if (res.state === RES_OWNED && res.owner === s.self) continue;
    rebuildOf(domain, handed.name).handed = handed;
    adopt(s, domain, res);
  }
}

/** A restarted node claims a lock of before at a resource that is being rebuilt here: it counts as held (rules 1, 3). */
export function onReclaim(s: EngineState, domain: Domain, from: NodeId, entry: RegisteredLock): void {
  const res = s.resource(domain, entry.name);
  const rebuild = rebuildOf(domain, entry.name);
  const lock = lockFromRegistration(res, from, entry, s.now);
  if (lock.nodeOwned) {
    lock.lvbState = LVB_INVALID;
    lock.lvb = null;
  }
  noteLock(rebuild, lock);
  adopt(s, domain, res);
  if (lock.mode === -1) return;
  // At once: its owner's deadline runs, and nobody is granted anything on it before the barrier.
  const { id, mode, te, tc, lvbState, lvb } = lock;
  s.send(domain, from, { k: 'Grant', id, mode: mode as Mode, te, tc, lvbState, lvb });
}
