/**
 * The lock engine of one node: the door for local requests, for messages of other nodes, for views and for time.
 *
 * Every entry looks at the message's domain epoch once, here: an older one is refused, a newer one waits for our view.
 * Below this file handlers may assume that all speakers live in the same epoch.
 */
import type { DomainView, MasteryPolicy, MasteryWishes, View } from '../membership/types.js';
import { ERROR_CODES, type ErrorCode } from '../protocol/errors.js';
import type { Millis, NodeId, StartCount } from '../protocol/ids.js';
import { DOMAINS_MAX, PARKED_MESSAGES_MAX } from '../protocol/limits.js';
import { EX, type Mode } from '../protocol/modes.js';
import { LOCK_LVB, LOCK_NODE_OWNED, LOCK_TRY, type LockMessage } from '../protocol/peer-messages.js';
import { announce } from './announce.js';
import { onBast, onDenied, onGranted, onUnlocked } from './answers.js';
import { reclaim } from './claims.js';
import { DeadlineTable } from './deadlines.js';
import { dispatch, replayParked } from './dispatch.js';
import { Domain } from './domain.js';
import * as hold from './hold.js';
import { tickIdle } from './idle.js';
import { detachedRes, endClaimable, endForIncarnation, isClaim, lockFromRecord, takeClaims } from './incarnation.js';
import { Lock, ST_CONVERTING, ST_GONE, ST_HELD, ST_LOCKING, ST_NEW } from './lock.js';
import { RES_OWNED } from './lockres.js';
import { tickMastery } from './mastery.js';
import { placeClaim } from './orphans.js';
import {
  contradiction,
  isContradicted,
  isNodeOwnedMarked,
  isWitness,
  proposeJoin,
  proposeLeft,
  proposeWanted,
} from './proposals.js';
import { modeInForce } from './rebuild.js';
import { applyDomainView, sendDoneWhenReady } from './recovery.js';
import { isHandedOver, restartClaims } from './restart.js';
import * as serve from './serve.js';
import { EngineState, type EngineTuning, type Hooks } from './state.js';
import {
  type ClaimedLock,
  type EngineOutput,
  type LocalLock,
  type LockOptions,
  LVB_INVALID,
  LVB_VALID,
  type NodeOwnedRecord,
} from './types.js';

export interface EngineInit {
  self: NodeId;
  startCount: StartCount;
  view: View;
  nodeOwned: NodeOwnedRecord[];
  isNodeOwnedUnsafe?: boolean;
  /** Default: all `peer`. */
  mastery?: MasteryWishes;
  /** The host claims all that owners held and waited for before anything else happens: it has the record of a clean restart. */
  hasRecord?: boolean;
  /** There is no such record: owners may claim until here, on this node's clock, and no barrier is done before (rule 1). */
  graceUntil?: Millis;
  tuning?: Partial<EngineTuning>;
}

/** How far ahead of our own view a sender's clock may be before it is called an error (rule 17). */
const EPOCH_AHEAD_MAX = 10_000;

export class Engine {
  readonly state: EngineState;
  /** Messages for domains we are not in (yet), by domain number. */
  private readonly aheadOfDomain = new Map<number, { from: NodeId; msg: LockMessage }[]>();
  private proposeAt = 0;
  private readonly deadlines = new DeadlineTable();

  constructor(init: EngineInit, out: EngineOutput) {
    const hooks: Hooks = {
      granted: (lock) => this.tellGranted(lock),
      denied: (lock, code) => this.tellDenied(lock, code),
      unlocked: (lock) => this.tellUnlocked(lock),
      bast: (lock, mode) => this.tellBast(lock, mode),
      ownerKnown: (res) => hold.ownerKnown(this.state, res),
      placeClaim: (res) => placeClaim(this.state, res),
    };
    this.state = new EngineState(init.self, init.startCount, init.view, out, hooks, init.tuning);
    this.state.isNodeOwnedUnsafe = init.isNodeOwnedUnsafe ?? false;
    if (init.mastery) this.state.mastery = init.mastery;
    for (const record of init.nodeOwned) {
      this.state.claimable.push(lockFromRecord(this.state, record));
      this.state.claimedIds.add(record.id);
    }
    this.state.graceUntil = init.graceUntil ?? 0;
    this.state.hasRecord = init.hasRecord ?? false;
  }

  // --- The master's answers, to local owners directly, to others by message -----------------------------------------

  private tellGranted(lock: Lock): void {
    const s = this.state;
    if (lock.node === s.self) return onGranted(s, lock);
    s.send(lock.res.domain, lock.node, {
      k: 'Grant',
      id: lock.id,
      mode: lock.mode as Mode,
      te: lock.te,
      tc: lock.tc,
      lvbState: lock.lvbState,
      lvb: lock.lvb,
    });
  }

  private tellDenied(lock: Lock, code: ErrorCode): void {
    const s = this.state;
    if (lock.node === s.self) return onDenied(s, lock, code);
    if (lock.mode === -1) lock.res.domain.remote.get(lock.node)?.delete(lock.id);
    s.send(lock.res.domain, lock.node, { k: 'Deny', id: lock.id, code: ERROR_CODES[code] });
  }

  private tellUnlocked(lock: Lock): void {
    const s = this.state;
    if (lock.node === s.self) return onUnlocked(s, lock);
    lock.res.domain.remote.get(lock.node)?.delete(lock.id);
    s.send(lock.res.domain, lock.node, { k: 'UnlockDone', id: lock.id });
  }

  private tellBast(lock: Lock, mode: Mode): void {
    const s = this.state;
    if (lock.node === s.self) return onBast(s, lock, mode);
    s.send(lock.res.domain, lock.node, { k: 'Bast', id: lock.id, mode });
  }

  // --- Local requests ---------------------------------------------------------------------------------------------------

  /** See CoreApi.lock. Outcomes may be told before this returns. */
  lock(now: Millis, options: LockOptions): LocalLock {
    const s = this.state;
    s.now = now;
    const flags = (options.try ? LOCK_TRY : 0) | (options.nodeOwned ? LOCK_NODE_OWNED : 0) | (options.lvb ? LOCK_LVB : 0);
    const domain = s.domains.get(options.domain);
    const isReady = domain !== undefined && s.isLeased && !domain.isLeaving && (!options.nodeOwned || isNodeOwnedMarked(s));
    const res = isReady ? s.resource(domain, options.name) : detachedRes(s, options.domain, options.name);
    const lock = new Lock(s.newLockId(), s.self, res, options.mode, flags, options.who, options.why);
    lock.ctx = options.ctx;
    lock.door = options.door ?? '';
    lock.isInUse = lock.door !== '';
    lock.since = now;
    lock.deadline = options.deadline;
    if (options.try) {
      const limit = now + s.tuning.tryLimitMs;
      if (lock.deadline === 0 || lock.deadline > limit) lock.deadline = limit;
    }
    if (s.isStopping) {
      lock.st = ST_GONE;
      s.out.denied(lock, 'TSDLM_STOPPING');
      return lock;
    }
    if (isWitness(s)) {
      lock.st = ST_GONE;
      s.out.denied(lock, 'TSDLM_WITNESS');
      return lock;
    }
    if (isReady) {
      hold.start(s, lock);
    } else if (this.isRoomless(options.domain)) {
      lock.st = ST_GONE;
      s.out.denied(lock, 'TSDLM_LIMIT_REACHED');
    } else if (isContradicted(s, options.domain)) {
      lock.st = ST_GONE;
      s.out.denied(lock, 'TSDLM_NOT_ALLOWED');
    } else {
      lock.st = ST_NEW;
      s.waiting.add(lock);
      this.proposeAt = 0;
    }
    if (lock.deadline !== 0 && (lock.st === ST_NEW || lock.st === ST_LOCKING)) this.deadlines.add(lock);
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
    if (lock.deadline !== 0 && lock.st !== ST_GONE) this.deadlines.add(lock);
    if (s.waiting.has(lock)) this.proposeAt = 0;
    this.finish();
    return lock;
  }

  /** Restart: masterships go to the others; when all is quiet the host is given the record (EngineOutput.restartRecord). */
  restart(now: Millis): void {
    const s = this.state;
    s.now = now;
    if (s.restart === 'none') s.restart = 'handing';
    this.proposeAt = 0;
    this.finish();
  }

  /** The record is on disk: from now on the log is asked to let this node be away for `forMs`. */
  restartWritten(now: Millis, forMs: Millis): void {
    const s = this.state;
    s.now = now;
    s.restart = 'announcing';
    s.restartForMs = forMs;
    this.proposeAt = 0;
    this.finish();
  }

  /** Owners still count on deadlines of a restart: until `settled` is in the view the others wait for those. */
  settled(now: Millis): void {
    this.state.now = now;
    this.state.isSettled = true;
    this.proposeAt = 0;
    this.finish();
  }

  convert(now: Millis, local: LocalLock, mode: Mode, options: { try: boolean; deadline: Millis; lvb: Uint8Array | null }): void {
    const s = this.state;
    s.now = now;
    const lock = local as Lock;
    if (lock.st === ST_GONE) return; // Its owner was told so, perhaps just now, when this call looked at the clock.
    if (s.isSuspended && lock.st === ST_HELD) {
      s.out.denied(lock, 'TSDLM_UNAVAILABLE');
      return;
    }
    if (lock.st !== ST_HELD || lock.isZombie) {
      s.out.denied(lock, isClaim(lock) ? 'TSDLM_UNAVAILABLE' : 'TSDLM_BAD_ARGUMENT');
      return;
    }
    lock.deadline = options.deadline;
    if (options.try) {
      const limit = now + s.tuning.tryLimitMs;
      if (lock.deadline === 0 || lock.deadline > limit) lock.deadline = limit;
    }
    hold.preparePut(lock, options.lvb, false);
    hold.convert(s, lock, mode, options.try);
    if (lock.deadline !== 0 && (lock.st as number) === ST_CONVERTING) this.deadlines.add(lock);
    this.finish();
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
    const s = this.state;
    s.now = now;
    const lock = local as Lock;
    if (lock.st === ST_HELD && lock.isUntold) {
      this.giveUp(lock, 'TSDLM_CANCELLED');
    } else if (lock.st === ST_HELD || lock.st === ST_CONVERTING) {
      hold.preparePut(lock, options?.lvb ?? null, options?.lvbInvalid ?? false);
      hold.unlock(s, lock);
    } else if (isClaim(lock)) {
      lock.isReleaseWished = true;
      if (options?.lvbInvalid && lock.want === EX && (lock.flags & LOCK_LVB) !== 0) lock.putState = LVB_INVALID;
    } else if (lock.st === ST_NEW || lock.st === ST_LOCKING) {
      this.giveUp(lock, 'TSDLM_CANCELLED');
    }
    this.finish();
  }

  cancel(now: Millis, local: LocalLock): void {
    this.state.now = now;
    this.giveUp(local as Lock, 'TSDLM_CANCELLED');
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
    const s = this.state;
    s.now = now;
    const lock = local as Lock;
    lock.isInUse = isInUse;
    // What the journal says of the mode: never more than the master may still grant us.
    const mode = lock.mode === -1 ? lock.want : lock.st === ST_CONVERTING ? modeInForce(lock) : lock.mode;
    const isRecordable = lock.st === ST_HELD || lock.st === ST_CONVERTING || isClaim(lock);
    if (!isRecordable || mode === -1) return recorded(true);
    s.journal(
      { op: 'put', record: { ...hold.nodeOwnedRecord(lock), mode } },
      () => recorded(true),
      () => recorded(false),
    );
    this.finish();
  }

  /** All domains there may be are in use, and this is none of them. */
  private isRoomless(domainName: string): boolean {
    const { domains } = this.state.view;
    return domains.length >= DOMAINS_MAX && domains.every((d) => d.name !== domainName && d.members.length > 0);
  }

  /** Ends a request that still waits, with `code` for its owner. */
  private giveUp(lock: Lock, code: ErrorCode): void {
    const s = this.state;
    if (lock.isZombie || isClaim(lock)) return;
    const at = lock.isWaitClaim ? s.claimable.indexOf(lock) : -1;
    if (at >= 0) {
      s.claimable.splice(at, 1);
      lock.st = ST_GONE;
      s.out.denied(lock, code);
      return;
    }
    const wished = lock.st === ST_HELD ? s.claimedWants.get(lock.id) : undefined;
    if (wished !== undefined && wished > lock.mode) {
      // A conversion of before a restart that has not begun again.
      s.claimedWants.delete(lock.id);
      s.out.denied(lock, code);
      return;
    }
    if (lock.st === ST_HELD && lock.isUntold) {
      // Granted, but the journal has not written it yet and the owner does not know: it is given back.
      lock.isZombie = true;
      s.out.denied(lock, code);
      hold.unlock(s, lock);
      return;
    }
    if (s.waiting.delete(lock)) {
      lock.st = ST_GONE;
      s.out.denied(lock, code);
      return;
    }
    if (lock.st !== ST_NEW && lock.st !== ST_LOCKING && lock.st !== ST_CONVERTING) return;
    lock.endCode = code;
    if (hold.cancel(s, lock)) s.out.denied(lock, code);
  }

  // --- Messages ---------------------------------------------------------------------------------------------------------

  receive(now: Millis, from: NodeId, msg: LockMessage): void {
    const s = this.state;
    s.now = now;
    if (s.isSuspended) {
      s.held.keep(from, () => this.receive(s.now, from, msg));
      return;
    }
    const domain = s.byDom.get(msg.dom);
    if (!domain) {
      const list = this.aheadOfDomain.get(msg.dom);
      if (!list && this.aheadOfDomain.size >= DOMAINS_MAX) return;
      if (!list) this.aheadOfDomain.set(msg.dom, [{ from, msg }]);
      else if (list.length < PARKED_MESSAGES_MAX) list.push({ from, msg });
      return;
    }
    if (msg.dep < domain.epoch) return;
    if (msg.dep > domain.epoch) {
      if (domain.ahead.length < PARKED_MESSAGES_MAX) domain.ahead.push({ from, msg });
      else if (!domain.tainted.has(from)) this.taint(domain, from, msg.dep);
      return;
    }
    this.handle(domain, from, msg);
    if ((s.isStopping || s.restart !== 'none') && msg.k === 'RecoveryActive') this.proposeAt = 0;
    this.finish();
  }

  private handle(domain: Domain, from: NodeId, msg: LockMessage): void {
    const s = this.state;
    if (!domain.barrierIds.has(from) || (domain.tainted.get(from) ?? -1) >= domain.epoch) return;
    if (msg.ce > s.view.epoch + EPOCH_AHEAD_MAX) {
      s.note('error', 'epoch-unknown', { from, epoch: msg.ce, ours: s.view.epoch });
      return;
    }
    s.clock.lift(msg.ce, msg.cc);
    dispatch(s, domain, from, msg);
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
      if (domain.startCountOf(peer) === startCount) this.taint(domain, peer, domain.epoch);
    }
    this.proposeAt = 0;
  }

  private taint(domain: Domain, peer: NodeId, epoch: number): void {
    domain.tainted.set(peer, epoch);
    this.state.out.propose({ c: 'bump', dom: domain.dom, epoch: domain.epoch });
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
    this.startWaiting();
    for (const domain of [...s.domains.values()]) this.replayAhead(domain);
    if (s.isStopping || s.restart !== 'none') this.proposeAt = 0;
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
      domain.ahead = this.aheadOfDomain.get(dv.dom) ?? [];
      this.aheadOfDomain.delete(dv.dom);
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
    this.startWaiting();
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
    for (const res of toShuffle) if (res.state === RES_OWNED && res.owner === s.self) serve.shuffle(s, res);
    for (const peer of overflowed) for (const domain of s.domains.values()) this.taint(domain, peer, domain.epoch);
    this.startWaiting();
    this.finish();
  }

  private dropDomain(domain: Domain): void {
    this.state.domains.delete(domain.name);
    this.state.byDom.delete(domain.dom);
  }

  /** Requests that waited for their domain, or for the node-owned mark. */
  private startWaiting(): void {
    const s = this.state;
    if (!s.isLeased) return;
    for (const lock of [...s.waiting]) {
      const domain = s.domains.get(lock.domain);
      if (!domain || domain.isLeaving || (lock.nodeOwned && !isNodeOwnedMarked(s))) continue;
      s.waiting.delete(lock);
      lock.res = s.resource(domain, lock.name);
      hold.start(s, lock);
    }
  }

  private replayAhead(domain: Domain): void {
    const list = domain.ahead;
    domain.ahead = [];
    for (const entry of list) {
      if (entry.msg.dep > domain.epoch) domain.ahead.push(entry);
      else if (entry.msg.dep === domain.epoch) this.handle(domain, entry.from, entry.msg);
    }
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
    this.aheadOfDomain.clear();
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

  tick(now: Millis): void {
    const s = this.state;
    s.now = now;
    // What the record of a restart names stays as it is.
    if (s.restart === 'none' || s.restart === 'handing') this.expireDue(now);
    if (!s.isSuspended) {
      for (const domain of s.domains.values()) {
        tickMastery(s, domain);
        tickIdle(s, domain);
      }
    }
    if (now >= this.proposeAt) {
      this.proposeAt = now + s.tuning.proposeMs;
      proposeWanted(s);
      if (s.isStopping) proposeLeft(s);
    }
    this.finish();
  }

  private expireDue(now: Millis): void {
    for (const lock of this.deadlines.due(now)) {
      if (lock.isCancelling) continue;
      this.giveUp(lock, (lock.flags & LOCK_TRY) !== 0 ? 'TSDLM_UNAVAILABLE' : 'TSDLM_TIMEOUT');
    }
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
    s.isStopping = true;
    for (const lock of [...s.waiting]) this.giveUp(lock, 'TSDLM_STOPPING');
    for (const lock of [...s.own.values()]) {
      const isWaiting = lock.st === ST_NEW || lock.st === ST_LOCKING || (lock.st === ST_HELD && lock.isUntold);
      if (isWaiting) this.giveUp(lock, 'TSDLM_STOPPING');
      // A node that leaves owns nothing: its own locks are released with it (rule 23).
      else if (lock.nodeOwned && lock.st === ST_HELD) hold.unlock(s, lock);
    }
    this.proposeAt = 0;
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
      if (s.now >= this.proposeAt) {
        this.proposeAt = s.now + s.tuning.proposeMs;
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
