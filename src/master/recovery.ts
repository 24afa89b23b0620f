/**
 * A new domain epoch: members came, went or died, or messages between two of them were lost.
 *
 * The problem: when a master is gone, its queues must be rebuilt from what the survivors hold and wait for, no lock may be
 * forgotten, no resource may get two masters, and all of it may be interrupted at any point by the next change.
 *
 * The idea: mastership of an existing resource changes only here, at a point in the sequence of views that every member
 * passes in the same order. Each step is a pure function of the view, so nobody has to be asked:
 *   1. void: mastery rounds and half-rebuilt resources of the old epoch are dropped, its messages are refused from now on;
 *   2. purge: as master, drop what dead members held and waited for; waiters are granted at once (the view exists because
 *      the dead are proven over);
 *   3. place (orphans.ts): resources of masters that are gone get the member that rendezvous hashing names; a resource that was placed
 *      before and is not confirmed yet stays where it was placed, if that member still lives, so all holders agree;
 *   4. register: holders send all they hold and want of such resources to the new master; a leaving master hands over (hand-over.ts)
 *      value block and order of its queues; every request under way is sent again to its (old or new) master, which knows repeated
 *      ones by their id;
 *   5. barrier RecoveryDone: everybody has registered; new masters say RecoveryActive, which confirms, rebuild and serve.
 * Steps 2 to 4 and what is behind the barrier go through the resources in slices (pass.ts, sweep.ts); resources of living masters are
 * served all the time. A second change in the middle finishes the first, without sending anything, and starts again from 1.
 *
 * Under the policy `servers` only servers of the epoch are places. A member that is no server any more hands over like one that
 * leaves, and keeps its own locks. Where no server lives, locks stay *orphaned* with their holders, and are placed when one comes.
 */
import type { DomainView } from '../membership/types.js';
import type { NodeId } from '../protocol/ids.js';
import { attachClaim } from './claim-course.js';
import type { Domain } from './domain.js';
import { stopServing } from './hand-over.js';
import type { Lock } from './lock.js';
import { RES_OWNED, RES_REBUILDING } from './lockres.js';
import { startClaims, startRounds, voidRounds } from './mastery.js';
import { dropRecord, place, placeHanded } from './orphans.js';
import { Pass, purge } from './pass.js';
import type { EngineState } from './state.js';
import { finishSweep, sweep } from './sweep.js';

/**
 * Brings the domain to the view's epoch. `claims`: node-owned locks of before a restart that this node has to place.
 * The caller replays the messages that came ahead of the view afterwards.
 */
export function applyDomainView(s: EngineState, domain: Domain, view: DomainView, claims: Lock[]): void {
  finishSweep(s, domain);
  const isGone = goneTest(domain, view);
  const wasMaster = domain.masterIds.has(s.self);
  const wasDone = domain.isDoneSent;
  domain.epoch = view.epoch;
  domain.mastery = view.mastery;
  domain.members = view.members;
  domain.masters = view.mastery === 'peer' ? view.members : view.members.filter((m) => view.servers.includes(m.node));
  domain.masterIds = new Set(domain.masters.map((m) => m.node));
  domain.leaving = view.leaving;
  domain.away = view.away;
  domain.awayIds = new Set(view.away.map((m) => m.node));
  domain.memberIds = new Set(view.members.map((m) => m.node));
  domain.barrierIds = new Set([...view.members, ...view.leaving, ...view.away.filter((m) => m.awaited)].map((m) => m.node));
  domain.isLeaving = !domain.memberIds.has(s.self);
  domain.doneFrom.clear();
  domain.isRecovering = true;
  domain.isDoneSent = false;
  domain.parked = [];
  domain.tainted.clear();

  domain.rebuilding.clear();
  voidRounds(domain);
  const isOut = wasMaster && !domain.masterIds.has(s.self);
  // The last one in a domain has nobody to hand over to: who restarts keeps all as it is, in its record.
  const isLast = isAlone(s, domain);
  const isHandingOver = !isLast && (domain.isLeaving ? !domain.hasHandedOver : isOut);
  const pass = new Pass(s, domain, isGone, isHandingOver, claims);
  domain.pass = pass;
  if (isLast) return forgetLostMasters(s, domain, pass);
  domain.hasHandedOver = domain.isLeaving;
  placeHanded(s, domain, isGone, wasDone);
  sweep(s, domain, s.tuning.sliceOps);
}

/** All resources are at this epoch, all that concerns others is registered with them. */
export function endPass(s: EngineState, domain: Domain, pass: Pass): void {
  domain.pass = null;
  if (pass.isHandingOver) {
    domain.remote.clear();
    domain.unclaimed.clear();
  }
  for (const lock of pass.claims) attachClaim(s, domain, lock);
  if (pass.isVoid) return;
  startClaims(s, domain);
  sendDoneWhenReady(s, domain);
}

/** We restart, and nobody is left who masters anything: nothing is decided here any more. */
export function isAlone(s: EngineState, domain: Domain): boolean {
  return s.restart !== 'none' && domain.isLeaving && domain.masters.length === 0;
}

/**
 * Others mastered these, and are gone: should a master come back before our restart has gone through, even under the same number,
 * it has to be told of our locks like any new one.
 */
function forgetLostMasters(s: EngineState, domain: Domain, pass: Pass): void {
  for (const res of domain.resources.values()) {
    res.seen = domain.epoch;
    purge(s, domain, pass, res);
    if (res.owner === 0 || (!pass.isGone(res.owner) && domain.masterIds.has(res.owner))) continue;
    if (res.localCount === 0) {
      dropRecord(domain, res);
      continue;
    }
    // Nor do we master it: nothing is granted where nobody may, and what owners hold stands.
    if (res.owner === s.self && res.state === RES_OWNED) stopServing(res);
    if (res.state === RES_OWNED || res.state === RES_REBUILDING) place(s, domain, res);
  }
  domain.remote.clear();
  domain.unclaimed.clear();
  domain.pass = null;
}

/** Says of a node number whether its incarnation of before is no member, not even a leaving one, any more. */
function goneTest(domain: Domain, view: DomainView): (node: NodeId) => boolean {
  const now = new Set([...view.members, ...view.leaving, ...view.away].map((m) => `${m.node}/${m.startCount}`));
  const gone = new Set<NodeId>();
  for (const m of [...domain.members, ...domain.leaving, ...domain.away])
    if (!now.has(`${m.node}/${m.startCount}`)) gone.add(m.node);
  return (node) => gone.has(node);
}

/** Sends RecoveryDone once nothing of ours has to be registered before (claims of a restarted node: rule 1). */
export function sendDoneWhenReady(s: EngineState, domain: Domain): void {
  if (domain.isDoneSent || !domain.isRecovering || domain.pass !== null || isAlone(s, domain)) return;
  // The only member asks nobody: its claims are placed at once, here as well as there they come first.
  if (domain.claims.size > 0) return;
  if (domain.isInGrace) {
    if (s.now < s.graceUntil) return;
    domain.isInGrace = false;
  }
  domain.isDoneSent = true;
  for (const node of domain.barrierIds) if (node !== s.self) s.send(domain, node, { k: 'RecoveryDone' });
  checkBarrier(s, domain);
}

export function onRecoveryDone(s: EngineState, domain: Domain, from: NodeId): void {
  domain.doneFrom.add(from);
  // What a restarted node has not claimed by now it does not own any more (sweep.ts).
  domain.dropping.push(from);
  sweep(s, domain, s.tuning.sliceOps);
  checkBarrier(s, domain);
}

function checkBarrier(s: EngineState, domain: Domain): void {
  if (!domain.isRecovering || !domain.isDoneSent) return;
  for (const node of domain.barrierIds) if (node !== s.self && !domain.doneFrom.has(node)) return;
  activate(s, domain);
}

/**
 * The barrier is reached, so all that is to be known of what was placed here is known here: it is confirmed to all who registered,
 * and then rebuilt and served, one resource after the other (sweep.ts).
 */
function activate(s: EngineState, domain: Domain): void {
  domain.isRecovering = false;
  for (const node of domain.barrierIds) if (node !== s.self) s.send(domain, node, { k: 'RecoveryActive' });
  sweep(s, domain, s.tuning.sliceOps);
  startRounds(s, domain);
}

/** The new master has what we registered with it in this epoch, and serves it. */
export function onRecoveryActive(s: EngineState, domain: Domain, from: NodeId): void {
  // At once: what is handed over again in a later epoch must not be older than what the new master has done since.
  for (const [name, entry] of domain.handing) if (entry.target === from) domain.handing.delete(name);
  domain.confirming.push(from);
  sweep(s, domain, s.tuning.sliceOps);
}

/** True when a request for `name` has to wait: for the barrier, or behind it until the resource has been rebuilt. */
export function mustPark(s: EngineState, domain: Domain, name: string): boolean {
  const res = s.find(domain, name);
  if (!domain.isRecovering) return res?.state === RES_REBUILDING;
  return !(res && res.state === RES_OWNED && res.owner === s.self);
}
