/**
 * The lock engine of one node: the door for local requests, for messages of other nodes, for views and for time.
 *
 * The problem: whatever comes in can make more to do that must not run inside its handler.
 * The idea: each entry notes the time, lets the part whose subject it is do it (requests.ts, epochs.ts, recovery.ts), and at its end
 * `finish` does what was put off.
 *
 * The domain epoch of a message is judged once, at this door (epochs.ts): an older one is refused, a newer one waits for our view.
 * Below this file handlers may assume that all speakers live in the same epoch.
 */
import type { DomainView, MasteryPolicy, MasteryWishes, View } from '../membership/types.js';
import type { ErrorCode } from '../protocol/errors.js';
import type { Millis, NodeId, StartCount } from '../protocol/ids.js';
import type { Mode } from '../protocol/modes.js';
import { LOCK_LVB, type LockMessage } from '../protocol/peer-messages.js';
import { announce } from './announce.js';
import { reclaim } from './claims.js';
import { dispatch, replayParked } from './dispatch.js';
import { Domain } from './domain.js';
import { judge, replayAhead, taint } from './epochs.js';
import * as hold from './hold.js';
import { tickIdle } from './idle.js';
import { endClaimable, endForIncarnation, lockFromRecord, takeClaims } from './incarnation.js';
import { type Lock, ST_GONE, ST_HELD, ST_LOCKING, ST_NEW } from './lock.js';
import { RES_OWNED } from './lockres.js';
import { tickMastery } from './mastery.js';
import { placeClaim } from './orphans.js';
import { visit } from './pass.js';
import { contradiction, isWitness, proposeJoin, proposeLeft, proposeWanted } from './proposals.js';
import { applyDomainView, endPass, sendDoneWhenReady } from './recovery.js';
import * as requests from './requests.js';
import { isHandedOver, restartClaims } from './restart.js';
import * as serve from './serve.js';
import { EngineState, type EngineTuning, type Hooks } from './state.js';
import { hasSweepWork, sweep } from './sweep.js';
import { tellBast, tellDenied, tellGranted, tellUnlocked } from './tell.js';
import {
  type ClaimedLock,
  type EngineOutput,
  type LocalLock,
  type LockOptions,
  LVB_VALID,
  type NodeOwnedRecord,
} from './types.js';

export interface EngineInit {
  self: NodeId;
  startCount: StartCount;
  view: View;
  nodeOwned: NodeOwnedRecord[];
  isNodeOwnedUnsafe?: boolean;
  endsItself?: boolean;
  /** Default: all `peer`. */
  mastery?: MasteryWishes;
  /** The host claims all that owners held and waited for before anything else happens: it has the record of a clean restart. */
  hasRecord?: boolean;
  /** There is no such record: owners may claim until here, on this node's clock, and no barrier is done before (rule 1). */
  graceUntil?: Millis;
  tuning?: Partial<EngineTuning>;
}

export class Engine {
  readonly state: EngineState;

  constructor(init: EngineInit, out: EngineOutput) {
    const hooks: Hooks = {
      granted: (lock) => tellGranted(this.state, lock),
      denied: (lock, code) => tellDenied(this.state, lock, code),
      unlocked: (lock) => tellUnlocked(this.state, lock),
      bast: (lock, mode) => tellBast(this.state, lock, mode),
      ownerKnown: (res) => hold.ownerKnown(this.state, res),
      visit: (res) => {
        visit(this.state, res);
      },
      passDone: (domain, pass) => endPass(this.state, domain, pass),
      dispatch: (domain, from, msg) => dispatch(this.state, domain, from, msg),
      placeClaim: (res) => placeClaim(this.state, res),
    };
    this.state = new EngineState(init.self, init.startCount, init.view, out, hooks, init.tuning);
    this.state.isNodeOwnedUnsafe = init.isNodeOwnedUnsafe ?? false;
    this.state.endsItself = init.endsItself ?? false;
    if (init.mastery) this.state.mastery = init.mastery;
    for (const record of init.nodeOwned) {
      this.state.claimable.push(lockFromRecord(this.state, record));
      this.state.claimedIds.add(record.id);
    }
    this.state.graceUntil = init.graceUntil ?? 0;
    this.state.hasRecord = init.hasRecord ?? false;
  }

  // --- Local requests ---------------------------------------------------------------------------------------------------

  /** See CoreApi.lock. Outcomes may be told before this returns. */
  lock(now: Millis, options: LockOptions): LocalLock {
    const s = this.state;
    s.now = now;
    const isReady = requests.mayStart(s, options);
    const lock = requests.newLock(s, options, isReady);
    const refusal = s.isStopping ? 'TSDLM_STOPPING' : isWitness(s) ? 'TSDLM_WITNESS' : null;
    if (refusal !== null) {
      lock.st = ST_GONE;
      s.out.denied(lock, refusal);
      return lock;
    }
    requests.begin(s, lock, isReady);
    this.finish();
    return lock;
  }

  /**
   * An owner says what it held or waited for under an earlier daemon on this boot (rule 1). The outcome comes as granted (also
   * before this returns), denied or lost; a place in a queue is simply kept.
   */
  reclaim(now: Millis, claim: ClaimedLock): LocalLock {
    const s = this.state;
    s.now = now;
    const lock = reclaim(s, claim, this.isAdmitted());
    if (lock.deadline !== 0 && lock.st !== ST_GONE) s.deadlines.add(lock);
    if (s.waiting.has(lock)) s.proposeAt = 0;
    this.finish();
    return lock;
  }

  /** Restart: masterships go to the others; when all is quiet the host is given the record (EngineOutput.restartRecord). */
  restart(now: Millis): void {
    const s = this.state;
    s.now = now;
    if (s.restart === 'none') s.restart = 'handing';
    s.proposeAt = 0;
    this.finish();
  }

  /** The record is on disk: from now on the log is asked to let this node be away for `forMs`. */
  restartWritten(now: Millis, forMs: Millis): void {
    const s = this.state;
    s.now = now;
    s.restart = 'announcing';
    s.restartForMs = forMs;
    s.proposeAt = 0;
    this.finish();
  }

  /** Owners still count on deadlines of a restart: until `settled` is in the view the others wait for those. */
  settled(now: Millis): void {
    const s = this.state;
    s.now = now;
    s.isSettled = true;
    s.proposeAt = 0;
    this.finish();
  }

  convert(now: Millis, local: LocalLock, mode: Mode, options: { try: boolean; deadline: Millis; lvb: Uint8Array | null }): void {
    this.state.now = now;
    if (requests.convert(this.state, local as Lock, mode, options)) this.finish();
  }

  /**
   * This node becomes a member of the domain, with `mastery` if that makes it (null: what the configuration says). Returns what
   * contradicts that, or null; the caller repeats it until `isIn`.
   */
  joinDomain(now: Millis, name: string, mastery: MasteryPolicy | null): string | null {
    const s = this.state;
    s.now = now;
    if (s.isStopping || s.domains.has(name)) return contradiction(s, name, mastery);
    const text = contradiction(s, name, mastery);
    if (text === null) proposeJoin(s, name, mastery);
    return text;
  }

  unlock(now: Millis, local: LocalLock, options?: { lvb?: Uint8Array | null; lvbInvalid?: boolean }): void {
    this.state.now = now;
    requests.unlock(this.state, local as Lock, options);
    this.finish();
  }

  cancel(now: Millis, local: LocalLock): void {
    this.state.now = now;
    requests.giveUp(this.state, local as Lock, 'TSDLM_CANCELLED');
    this.finish();
  }

  writeLvb(local: LocalLock, value: Uint8Array): void {
    const lock = local as Lock;
    if (lock.st !== ST_HELD || lock.mode !== 2) return;
    lock.lvb = value;
    lock.lvbState = LVB_VALID;
    lock.isDirty = true;
    lock.flags |= LOCK_LVB;
  }

  /**
   * Files are open under a lock of the file door, or are not any more: `recorded` when the journal has it, so that a crash
   * cannot forget a hold that somebody acts under (rule 6); not ok: it had no room. Must not call the engine.
   */
  setInUse(now: Millis, local: LocalLock, isInUse: boolean, recorded: (ok: boolean) => void): void {
    this.state.now = now;
    if (requests.setInUse(this.state, local as Lock, isInUse, recorded)) this.finish();
    else recorded(true);
  }

  // --- Messages ---------------------------------------------------------------------------------------------------------

  receive(now: Millis, from: NodeId, msg: LockMessage): void {
    const s = this.state;
    s.now = now;
    if (s.isSuspended) {
      s.held.keep(from, () => this.receive(s.now, from, msg));
      return;
    }
    if (!judge(s, from, msg)) return;
    if ((s.isStopping || s.restart !== 'none') && msg.k === 'RecoveryActive') s.proposeAt = 0;
    this.finish();
  }

  /** Lock messages between us and `peer` may have been lost: nothing more from it counts before the next domain epoch. */
  peerReset(now: Millis, peer: NodeId, startCount: StartCount): void {
    const s = this.state;
    s.now = now;
    if (s.isSuspended) {
      s.held.keep(peer, () => this.peerReset(s.now, peer, startCount));
      return;
    }
    for (const domain of s.domains.values()) {
      if (domain.startCountOf(peer) === startCount) taint(s, domain, peer, domain.epoch);
    }
    s.proposeAt = 0;
  }

  // --- Views ------------------------------------------------------------------------------------------------------------

  applyView(now: Millis, view: View): void {
    const s = this.state;
    s.now = now;
    if (s.isSuspended) {
      s.held.inputs.push(() => this.applyView(s.now, view));
      return;
    }
    s.view = view;
    s.clock.lift(view.epoch, 0);
    if (s.isOver) return;
    for (const dv of view.domains) this.applyDomain(dv);
    this.endForeignClaims();
    requests.startWaiting(s);
    for (const domain of [...s.domains.values()]) replayAhead(s, domain);
    if (s.isStopping || s.restart !== 'none') s.proposeAt = 0;
    this.finish();
  }

  private applyDomain(dv: DomainView): void {
    const s = this.state;
    const me = [...dv.members, ...dv.leaving].find((m) => m.node === s.self && m.startCount === s.startCount);
    let domain = s.byDom.get(dv.dom);
    // Our restart has begun: this process does nothing any more, its locks are the next one's.
    if (dv.away.some((m) => m.node === s.self && m.startCount === s.startCount)) return;
    if (!me) {
      if (domain) this.dropDomain(domain);
      return;
    }
    const isNew = !domain;
    if (!domain) {
      domain = new Domain(dv.dom, dv.name);
      s.domains.set(dv.name, domain);
      s.byDom.set(dv.dom, domain);
      domain.ahead = s.aheadOfDomain.get(dv.dom) ?? [];
      s.aheadOfDomain.delete(dv.dom);
    }
    if (domain.epoch === dv.epoch) return;
    const claims = isNew ? takeClaims(s, dv.name, me.continues !== 0, me.keeps) : [];
    if (isNew && me.keeps) domain.isInGrace = s.now < s.graceUntil;
    applyDomainView(s, domain, dv, claims);
  }

  /** The view has this very incarnation among the members: whatever it continues, it is in those domains by now. */
  private isAdmitted(): boolean {
    const s = this.state;
    const me = s.view.nodes.find((n) => n.id === s.self);
    return (me?.state === 'in' || me?.state === 'suspect') && me.incarnation?.startCount === s.startCount;
  }

  /** Claims in domains that the admitted incarnation is not in are void, and nobody need join these to learn that. */
  private endForeignClaims(): void {
    const s = this.state;
    if (s.claimable.length === 0 || !this.isAdmitted()) return;
    for (const name of new Set(s.claimable.map((lock) => lock.domain)))
      if (!s.domains.has(name)) takeClaims(s, name, false, false);
  }

  /** Our lease begins or ends: without one no local request is served (a lapse that ends the incarnation is `reset`). */
  setLeased(now: Millis, isLeased: boolean): void {
    const s = this.state;
    s.now = now;
    s.isLeased = isLeased;
    if (isLeased) s.deferred.push(...s.whenLeased.splice(0));
    requests.startWaiting(s);
    this.finish();
  }

  /** The lease is over, this incarnation is not (rule 20): what others say waits, nothing is granted. */
  suspend(now: Millis): void {
    this.state.now = now;
    this.state.isSuspended = true;
  }

  /** A lease is there again: what waited is done, in the order in which it came. */
  resume(now: Millis, isLeased: boolean): void {
    const s = this.state;
    s.now = now;
    s.isSuspended = false;
    s.isLeased = isLeased;
    const { untold, toShuffle, inputs, overflowed } = s.held.take();
    for (const lock of untold) if (lock.st === ST_HELD && !lock.isZombie) announce(s, lock);
    for (const input of inputs) input();
    for (const { domain, name } of toShuffle) {
      const res = s.find(domain, name);
      if (res?.state === RES_OWNED && res.owner === s.self) serve.shuffle(s, res);
    }
    for (const peer of overflowed) for (const domain of s.domains.values()) taint(s, domain, peer, domain.epoch);
    requests.startWaiting(s);
    this.finish();
  }

  private dropDomain(domain: Domain): void {
    this.state.domains.delete(domain.name);
    this.state.byDom.delete(domain.dom);
  }

  /**
   * This incarnation is over: session locks are lost, requests that wait go on waiting for the next membership, node-owned
   * locks will be claimed by the next incarnation (an expired lease never frees them: rule 2).
   */
  reset(now: Millis): void {
    const s = this.state;
    s.now = now;
    const locks = [...s.own.values()];
    s.own.clear();
    s.domains.clear();
    s.byDom.clear();
    s.aheadOfDomain.clear();
    s.deferred = [];
    s.whenLeased = [];
    s.isLeased = false;
    s.isSuspended = false;
    s.held.take();
    s.isOver = true;
    endClaimable(s);
    s.graceUntil = 0;
    s.hasRecord = false;
    for (const lock of locks) endForIncarnation(s, lock);
  }

  /** The next incarnation of this process. */
  reincarnate(startCount: StartCount): void {
    this.state.startCount = startCount;
    this.state.isOver = false;
  }

  // --- Time and the rest --------------------------------------------------------------------------------------------------

  /** Something is left of a recovery: the host calls `advance`, after other inputs that have come. */
  get hasWork(): boolean {
    if (this.state.isSuspended) return false;
    for (const domain of this.state.domains.values()) if (hasSweepWork(domain)) return true;
    return false;
  }

  /** One step of what is left of recoveries (EngineTuning.sliceOps). */
  advance(now: Millis): void {
    const s = this.state;
    s.now = now;
    if (s.isSuspended) return;
    let left = s.tuning.sliceOps;
    for (const domain of s.domains.values()) {
      if (left <= 0) break;
      left = sweep(s, domain, left);
    }
    this.finish();
  }

  tick(now: Millis): void {
    const s = this.state;
    s.now = now;
    // What the record of a restart names stays as it is.
    if (s.restart === 'none' || s.restart === 'handing') requests.expireDue(s);
    if (!s.isSuspended) {
      for (const domain of s.domains.values()) {
        tickMastery(s, domain);
        tickIdle(s, domain);
      }
    }
    if (now >= s.proposeAt) {
      s.proposeAt = now + s.tuning.proposeMs;
      proposeWanted(s);
      if (s.isStopping) proposeLeft(s);
    }
    this.finish();
  }

  journaled(now: Millis, ticket: number): void {
    const s = this.state;
    s.now = now;
    const write = s.journaling.get(ticket);
    s.journaling.delete(ticket);
    write?.then();
    this.finish();
  }

  /** The journal refused the write `ticket` (no room) and lives on. False: that write must not fail, the node cannot go on. */
  journalFailed(now: Millis, ticket: number, code: ErrorCode): boolean {
    const s = this.state;
    s.now = now;
    const write = s.journaling.get(ticket);
    s.journaling.delete(ticket);
    if (!write) return true;
    if (!write.failed) return false;
    write.failed(code);
    this.finish();
    return true;
  }

  /** Clean stop: no new requests, node-owned locks are released; leaves once sessions' locks are gone (the host sees to that). */
  stop(now: Millis): void {
    const s = this.state;
    s.now = now;
    // The record of a restart is made: what it names must not change any more. The process ends by that way.
    if (s.restart !== 'none' && s.restart !== 'handing') return;
    s.isStopping = true;
    for (const lock of [...s.waiting]) requests.giveUp(s, lock, 'TSDLM_STOPPING');
    for (const lock of [...s.own.values()]) {
      const isWaiting = lock.st === ST_NEW || lock.st === ST_LOCKING || (lock.st === ST_HELD && lock.isUntold);
      if (isWaiting) requests.giveUp(s, lock, 'TSDLM_STOPPING');
      // A node that leaves owns nothing: its own locks are released with it (rule 23).
      else if (lock.nodeOwned && lock.st === ST_HELD) hold.unlock(s, lock);
    }
    s.proposeAt = 0;
    this.finish();
  }

  /** Does what handlers put off, until nothing is left. */
  private finish(): void {
    const s = this.state;
    while (s.deferred.length > 0) {
      const work = s.deferred;
      s.deferred = [];
      for (const f of work) f();
    }
    if (s.restart === 'handing' && isHandedOver(s)) {
      s.restart = 'frozen';
      s.out.restartRecord(restartClaims(s));
    }
    if (s.isStopping || s.restart !== 'none') {
      if (s.now >= s.proposeAt) {
        s.proposeAt = s.now + s.tuning.proposeMs;
        proposeWanted(s);
        proposeLeft(s);
      }
    }
    if (s.isSuspended) return;
    for (const domain of s.domains.values()) {
      if (domain.isRecovering && !domain.isDoneSent) sendDoneWhenReady(s, domain);
      if (!domain.isRecovering && domain.parked.length > 0) replayParked(s, domain);
    }
  }
}
