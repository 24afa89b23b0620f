/**
 * Resources nobody here uses: remembered for a while (so that the next lock goes straight to the master), then forgotten.
 *
 * A holder's node asks the master to drop its reference and keeps the record until that is confirmed (o2dlm's
 * DROPPING_REF and DEREF_DONE): a new request meanwhile waits and then asks anew, so a reference can not be dropped after
 * it was set again. The master forgets a resource only when its queues and its refmap are empty.
 */
import type { NodeId } from '../protocol/ids.js';
import type { Domain } from './domain.js';
import { type LockRes, RES_DROPPING, RES_MASTERING, RES_ORPHANED, RES_OWNED } from './lockres.js';
import type { EngineState } from './state.js';

/** The last local use ended: puts the resource on the idle list, if nothing else needs it. */
export function touchIdle(s: EngineState, res: LockRes): void {
  if (res.state === RES_ORPHANED && res.localCount === 0) res.domain.resources.delete(res.name);
  if (res.isIdle || !isUnused(s, res)) return;
  const domain = res.domain;
  if (domain.memberIds.size === 1 && res.owner === s.self) {
    domain.resources.delete(res.name);
    return;
  }
  res.isIdle = true;
  res.idleSince = s.now;
  res.idlePrev = domain.idleTail;
  res.idleNext = null;
  if (domain.idleTail) domain.idleTail.idleNext = res;
  else domain.idleHead = res;
  domain.idleTail = res;
  domain.idleCount++;
  if (domain.idleCount > s.tuning.idleMax && domain.idleHead && domain.pass === null) forget(s, domain.idleHead);
}

/** The resource is used again. */
export function untouchIdle(res: LockRes): void {
  if (!res.isIdle) return;
  const domain = res.domain;
  if (res.idlePrev) res.idlePrev.idleNext = res.idleNext;
  else domain.idleHead = res.idleNext;
  if (res.idleNext) res.idleNext.idlePrev = res.idlePrev;
  else domain.idleTail = res.idlePrev;
  res.idlePrev = res.idleNext = null;
  res.isIdle = false;
  domain.idleCount--;
}

function isUnused(s: EngineState, res: LockRes): boolean {
  if (res.localCount > 0 || res.newWaiters.length > 0 || res.isUnconfirmed) return false;
  if (res.state === RES_MASTERING) {
    const { domain } = res;
    const mle = domain.mles.get(res.name);
    if (mle?.isAsking || (mle && domain.mastery === 'servers' && mle.rivals.size > 0)) return false;
    return !domain.askedBefore.has(res.name);
  }
  if (res.state !== RES_OWNED) return false;
  if (res.owner !== s.self) return true;
  return !res.hasQueues && (res.refs === null || res.refs.size === 0);
}

/** Forgets an idle resource, or asks its master to let us forget it. */
function forget(s: EngineState, res: LockRes): void {
  untouchIdle(res);
  if (!isUnused(s, res)) return;
  if (res.owner === s.self || res.state === RES_MASTERING) {
    res.domain.resources.delete(res.name);
    return;
  }
  res.state = RES_DROPPING;
  s.send(res.domain, res.owner, { k: 'Deref', name: res.name });
}

/** Forgets what has been unused for the purge delay. */
export function tickIdle(s: EngineState, domain: Domain): void {
  // Those that have not been brought to the present epoch may be gone with their masters.
  if (domain.pass !== null) return;
  while (domain.idleHead && domain.idleCount > s.tuning.idleMax) forget(s, domain.idleHead);
  while (domain.idleHead && domain.idleHead.idleSince + s.tuning.purgeDelayMs <= s.now) forget(s, domain.idleHead);
}

/** At the master: `from` has forgotten the resource. */
export function onDeref(s: EngineState, domain: Domain, from: NodeId, name: string): void {
  const res = s.find(domain, name);
  if (res?.owner === s.self && res.refs?.delete(from)) touchIdle(s, res);
  s.send(domain, from, { k: 'DerefDone', name });
}

/** At the holder's node: forget the record; who came meanwhile asks anew (returns the resource in that case). */
export function onDerefDone(s: EngineState, domain: Domain, from: NodeId, name: string): LockRes | null {
  const res = s.find(domain, name);
  if (res?.state !== RES_DROPPING || res.owner !== from) return null;
  res.owner = 0;
  res.state = RES_MASTERING;
  if (res.newWaiters.length > 0) return res;
  domain.resources.delete(name);
  return null;
}
