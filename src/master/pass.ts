/**
 * A domain's resources over a change of members: what the new epoch means for each of them (recovery.ts has the whole).
 *
 * The problem: all of it has to be as if it were done at once, at one point in the sequence of views, and with very many resources it
 * takes far longer than others can wait.
 *
 * The idea: each resource knows the epoch that it has been brought to (`LockRes.seen`), and whoever is about to look at one brings it
 * to the present one first (`visit`, behind EngineState.find, resource and touch). So nobody can tell the difference, and no grant is
 * made from what was true in an earlier epoch (serve.ts refuses). A pass goes through all the others meanwhile, in slices; only at
 * its end this node has registered everything and says RecoveryDone. An epoch that comes before finishes the pass without sending
 * anything: where a resource was placed, all who hold it must agree on.
 */
import type { Member } from '../membership/types.js';
import { InvariantError } from '../protocol/errors.js';
import type { NodeId } from '../protocol/ids.js';
import type { Domain, Handing } from './domain.js';
import { handOver } from './hand-over.js';
import * as hold from './hold.js';
import { touchIdle } from './idle.js';
import { type Lock, ST_CONVERTING, ST_GONE, ST_LOCKING, ST_UNLOCKING } from './lock.js';
import { type LockRes, RES_DROPPING, RES_MASTERING, RES_OWNED } from './lockres.js';
import { placeOrphan } from './orphans.js';
import { registration } from './rebuild.js';
import { Registrations } from './registrations.js';
import * as serve from './serve.js';
import type { EngineState } from './state.js';

/** One change of members, until every resource has been brought over it. */
export class Pass {
  /** Node numbers whose incarnation of before is no member, not even a leaving one, any more. */
  readonly isGone: (node: NodeId) => boolean;
  /** Members that continue an incarnation of before. */
  readonly continuing = new Map<NodeId, Member>();
  /** What is mastered here goes to others. */
  readonly isHandingOver: boolean;
  /** Locks of before a restart that this node has to place, once all else is. */
  readonly claims: readonly Lock[];
  readonly out: Registrations;
  /** Owners wait for an answer about these, which may have been refused with the old epoch: they come first. */
  readonly first: LockRes[] = [];
  readonly cursor: Iterator<LockRes>;
  /** Handed over resources that are still to be sent; null before all resources are visited. */
  handing: Iterator<Handing> | null = null;
  /** Receivers are behind: the next step comes when one has said RegisterDone. */
  isWaiting = false;
  /** The epoch is over before the pass is: nothing more is sent. */
  isVoid = false;

  constructor(
    s: EngineState,
    domain: Domain,
    isGone: (node: NodeId) => boolean,
    isHandingOver: boolean,
    claims: readonly Lock[],
  ) {
    this.isGone = isGone;
    this.isHandingOver = isHandingOver;
    this.claims = claims;
    this.out = new Registrations(s, domain);
    this.cursor = domain.resources.values();
    for (const m of domain.members) if (m.continues !== 0) this.continuing.set(m.node, m);
    for (const lock of domain.underWay.values()) if (lock.st !== ST_GONE && lock.res.domain === domain) this.first.push(lock.res);
    domain.underWay.clear();
    this.first.reverse();
  }
}

/** Brings a resource to the present epoch. Returns how much there was to do. */
export function visit(s: EngineState, res: LockRes): number {
  const { domain } = res;
  const { pass } = domain;
  if (res.seen === domain.epoch) return 0;
  if (pass === null)
    throw new InvariantError(`${domain.name}/${res.name} was left behind in epoch ${res.seen} of ${domain.epoch}`);
  res.seen = domain.epoch;
  const cost = 1 + res.localCount + res.granted.length + res.converting.length + res.blocked.length;
  purge(s, domain, pass, res);
  if (pass.isHandingOver && res.owner === s.self && !handOver(domain, res)) return cost;
  if (!placeOrphan(s, domain, pass.isGone, res)) return cost;
  if (res.state === RES_MASTERING) domain.wanted.add(res);
  if (pass.isVoid) return cost;
  register(s, pass, res);
  redrive(s, domain, res);
  return cost;
}

/** As master: the locks, requests and references of members that are gone. */
export function purge(s: EngineState, domain: Domain, pass: Pass, res: LockRes): void {
  if (res.owner !== s.self || res.state !== RES_OWNED) return;
  let isTouched = false;
  for (const queue of [res.granted, res.converting, res.blocked]) {
    for (let lock = queue.head, next = lock; lock; lock = next) {
      next = lock.next;
      if (lock.node === s.self || !pass.isGone(lock.node)) continue;
      isTouched = true;
      purgeLock(s, domain, pass, res, lock);
    }
  }
  const isOut = (node: NodeId): boolean => pass.isGone(node) || !domain.memberIds.has(node);
  if (res.refs) {
    for (const node of res.refs) if (isOut(node)) res.refs.delete(node);
  }
  // BASTs to other nodes may have been lost with the old epoch: they are due again.
  if (res.converting.length > 0 || res.blocked.length > 0) {
    for (let lock = res.granted.head; lock; lock = lock.next) if (lock.node !== s.self) lock.basted = -1;
    for (let lock = res.converting.head; lock; lock = lock.next) if (lock.node !== s.self) lock.basted = -1;
    serve.shuffle(s, res);
  } else if (res.refs !== null || isTouched) {
    touchIdle(s, res);
  }
}

function purgeLock(s: EngineState, domain: Domain, pass: Pass, res: LockRes, lock: Lock): void {
  const { node } = lock;
  const next = pass.continuing.get(node);
  // Its owners live, and so do their deadlines: all of it stays as it is until the node has claimed it (rule 1).
  if (next?.keeps) return markUnclaimed(domain, lock);
  if (lock.nodeOwned && lock.mode !== -1 && next) {
    // Same boot, never evicted: the node still owns it and will claim it (rules 1, 3).
    markUnclaimed(domain, lock);
    if (lock.want !== -1) serve.withdraw(s, res, lock);
    return;
  }
  serve.loseValueOf(res, lock);
  serve.drop(res, lock);
  const table = domain.remote.get(node);
  table?.delete(lock.id);
  if (table?.size === 0) domain.remote.delete(node);
}

function markUnclaimed(domain: Domain, lock: Lock): void {
  lock.isUnclaimed = true;
  let locks = domain.unclaimed.get(lock.node);
  if (!locks) {
    locks = new Set();
    domain.unclaimed.set(lock.node, locks);
  }
  locks.add(lock);
}

/** Tells a new master what we hold and want; our own resources stay with us until the barrier. */
function register(s: EngineState, pass: Pass, res: LockRes): void {
  if (!res.isUnconfirmed || res.owner === s.self) return;
  for (let lock = res.localHead; lock; lock = lock.localNext) {
    const entry = registration(lock, s.now);
    if (entry) pass.out.register(res.owner, entry);
  }
}

/** Everything of ours that is under way goes (again) to its master, which knows what it has had before. */
function redrive(s: EngineState, domain: Domain, res: LockRes): void {
  if (res.state === RES_DROPPING) {
    s.send(domain, res.owner, { k: 'Deref', name: res.name });
  } else if (res.state === RES_OWNED) {
    if (res.owner !== s.self) {
      for (const lock of res.locals())
        if (lock.st === ST_LOCKING || lock.st === ST_CONVERTING || lock.st === ST_UNLOCKING) hold.redrive(s, lock);
    }
    if (res.newWaiters.length > 0) hold.ownerKnown(s, res);
  }
}

/** Goes on with the pass for up to `budget` operations. Returns what is left of them, and whether it is through. */
export function goOn(s: EngineState, domain: Domain, pass: Pass, budget: number): { left: number; isThrough: boolean } {
  let left = budget;
  while (pass.handing === null) {
    if (left <= 0) return { left, isThrough: false };
    if (pass.out.isFull && !pass.isVoid) {
      pass.isWaiting = true;
      return { left, isThrough: false };
    }
    const first = pass.first.pop();
    if (first !== undefined) {
      if (domain.resources.get(first.name) === first) left -= visit(s, first);
      continue;
    }
    const { value, done } = pass.cursor.next();
    if (done) pass.handing = domain.handing.values();
    else left -= visit(s, value) || 0.1;
  }
  if (pass.isVoid) return { left, isThrough: true };
  for (;;) {
    if (left <= 0) return { left, isThrough: false };
    if (pass.out.isFull) break;
    const { value, done } = pass.handing.next();
    if (done) {
      if (pass.out.flush()) return { left, isThrough: true };
      break;
    }
    pass.out.handOver(value.target, value.data);
    left--;
  }
  pass.isWaiting = true;
  return { left, isThrough: false };
}

/** A receiver has handled a message of registrations. */
export function onRegisterDone(domain: Domain, from: NodeId): void {
  domain.pass?.out.done(from);
  if (domain.pass) domain.pass.isWaiting = false;
}
