/**
 * What a recovery does to one resource after the other, in slices.
 *
 * The problem: a node that masters or holds a hundred thousand resources needs a second to bring them over a change of members; done
 * in one piece, nobody else is served meanwhile, heartbeats included.
 *
 * The idea: a step does no more than `sliceOps` operations (counted, so that the simulator takes the same steps again) and the host
 * calls `advance` for the next one after it has looked at its sockets. What is left to be done always stands somewhere that says what
 * state it is in, so that everything may come in between:
 *   - `pass`: resources that have not been brought to the present epoch (pass.ts); the barrier waits for its end;
 *   - `dropping`: locks that restarted nodes have not claimed in time; until they are dropped they count as held;
 *   - `toRebuild`: behind the barrier all that is to be known of them is here, but they serve nobody before they have been rebuilt;
 *     requests for one wait with it (`Rebuild.parked`), in order, while all others are served;
 *   - `confirming`: the master serves, our records only do not say so yet. Until they do they count as unconfirmed.
 * The next epoch finishes what is left first: it must find what this one has decided and promised.
 */
import type { Domain } from './domain.js';
import { touchIdle } from './idle.js';
import { goOn } from './pass.js';
import * as serve from './serve.js';
import { serveRebuilt } from './serve-rebuilt.js';
import type { EngineState } from './state.js';

/** Something can be done for the domain now. */
export function hasSweepWork(domain: Domain): boolean {
  if (domain.confirming.length > 0 || domain.confirmRound !== null) return true;
  if (domain.pass !== null) return !domain.pass.isWaiting;
  return (!domain.isRecovering && domain.toRebuild.size > 0) || domain.dropping.length > 0;
}

/** Does up to `budget` operations; returns what is left of them. */
export function sweep(s: EngineState, domain: Domain, budget: number): number {
  let left = budget;
  const { pass } = domain;
  if (pass !== null) {
    const step = goOn(s, domain, pass, left);
    left = step.left;
    if (step.isThrough) s.hooks.passDone(domain, pass);
  }
  if (domain.pass === null) left = dropSome(s, domain, left);
  if (!domain.isRecovering) left = rebuildSome(s, domain, left);
  return confirmSome(s, domain, left);
}

/** A new epoch begins: it finds all as if nothing had been put off. */
export function finishSweep(s: EngineState, domain: Domain): void {
  const { pass } = domain;
  if (pass !== null) {
    pass.isVoid = true;
    goOn(s, domain, pass, Number.POSITIVE_INFINITY);
    s.hooks.passDone(domain, pass);
  }
  dropSome(s, domain, Number.POSITIVE_INFINITY);
  if (!domain.isRecovering) rebuildSome(s, domain, Number.POSITIVE_INFINITY);
  confirmSome(s, domain, Number.POSITIVE_INFINITY);
}

/** What restarted nodes have not claimed by their RecoveryDone they do not own any more (rules 1, 3). */
function dropSome(s: EngineState, domain: Domain, budget: number): number {
  let left = budget;
  for (let from = domain.dropping[0]; from !== undefined && left > 0; from = domain.dropping[0]) {
    const locks = domain.unclaimed.get(from);
    for (const lock of locks ?? []) {
      if (left <= 0) return left;
      left--;
      locks?.delete(lock);
      const table = domain.remote.get(from);
      if (!lock.isUnclaimed || table?.get(lock.id) !== lock) continue;
      serve.loseValueOf(lock.res, lock);
      serve.drop(lock.res, lock);
      table.delete(lock.id);
      serve.shuffle(s, lock.res);
      touchIdle(s, lock.res);
    }
    domain.unclaimed.delete(from);
    domain.dropping.shift();
  }
  return left;
}

function rebuildSome(s: EngineState, domain: Domain, budget: number): number {
  let left = budget;
  for (const res of domain.toRebuild) {
    if (left <= 0) break;
    const rebuild = domain.rebuilding.get(res.name) ?? null;
    left -= 1 + (rebuild?.locks.length ?? 0) + res.localCount;
    serveRebuilt(s, domain, res, rebuild);
    if (rebuild !== null) for (const { from, msg } of rebuild.parked) s.hooks.dispatch(domain, from, msg);
  }
  return left;
}

function confirmSome(s: EngineState, domain: Domain, budget: number): number {
  let left = budget;
  while (left > 0) {
    // One round for all that have said so by now; who says so later gets a round of its own.
    if (domain.confirmRound === null) {
      if (domain.confirming.length === 0) break;
      domain.confirmRound = { masters: new Set(domain.confirming), cursor: domain.unconfirmed.values() };
      domain.confirming = [];
    }
    const { masters, cursor } = domain.confirmRound;
    const { value: res, done } = cursor.next();
    if (done) {
      domain.confirmRound = null;
      continue;
    }
    // Looking is cheap, but not for nothing.
    left -= 0.1;
    if (!masters.has(res.owner)) continue;
    left -= 0.4;
    res.isUnconfirmed = false;
    domain.unconfirmed.delete(res);
    if (res.localCount === 0) touchIdle(s, res);
  }
  return left;
}
