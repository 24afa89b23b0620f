/**
 * What the two ways to find a master share: the entry that stands for the search, and its possible ends.
 */
import type { NodeId } from '../protocol/ids.js';
import type { Domain, Mle } from './domain.js';
import { type LockRes, RES_OWNED } from './lockres.js';
import { NodeSet } from './node-set.js';
import type { EngineState } from './state.js';

export function mleOf(domain: Domain, name: string): Mle {
  let mle = domain.mles.get(name);
  if (!mle) {
    mle = {
      name,
      isAsking: false,
      pending: new NodeSet(),
      rivals: new NodeSet(),
      found: 0,
      foundGen: 0,
      isRetry: false,
      retryAt: 0,
      hint: 0,
    };
    domain.mles.set(name, mle);
  }
  return mle;
}

/** This node masters the resource from now on, by a won round or because nobody else may. */
export function becomeMaster(s: EngineState, res: LockRes): void {
  res.state = RES_OWNED;
  res.owner = s.self;
  res.gen = res.domain.epoch;
  res.isDoubtful = false;
  s.hooks.ownerKnown(res);
}

/** Another node masters the resource. */
export function learnOwner(s: EngineState, res: LockRes, owner: NodeId, gen: number): void {
  res.state = RES_OWNED;
  res.owner = owner;
  res.gen = gen;
  res.isDoubtful = false;
  s.hooks.ownerKnown(res);
}

/** A lock of before this node's restart waits to be claimed on this resource. */
export function hasClaim(domain: Domain, res: LockRes): boolean {
  if (domain.claims.size === 0 || res.localCount === 0) return false;
  for (let lock = res.localHead; lock; lock = lock.localNext) if (domain.claims.has(lock)) return true;
  return false;
}
