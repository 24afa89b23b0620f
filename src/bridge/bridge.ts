/**
 * The bridge: in a bridged domain a grant also holds the same lock in the kernel's dlmfs on this node.
 *
 * The problem: programs on the kernel's DLM and programs on tsdlm must exclude each other, and two lock managers can only be
 * locked one after the other. The idea: this stands between the owners' doors and the core and looks to both like the other.
 * What the core grants is told to its owner only when the kernel has granted it as well; what an owner gives up is given up in
 * the kernel first and then in the core. So whoever holds in tsdlm holds in the kernel, and of two nodes the second finds the
 * kernel's lock free when the core grants it. Where the kernel refuses, the core's grant is taken back before anyone heard of it.
 *
 * The kernel's locks are in a process of their own (helper-core.ts), which is told what is wanted per name: the most that any
 * owner of this node needs. Locks of other domains pass through untouched. This file is the door; how the two parts of a lock come and
 * go is kernel-part.ts, and what is known of the helper helper-side.ts.
 */
import { FILE_LOCK_BYTES_MAX } from '../dlmfs/types.js';
import type { ClaimedLock, LocalEvents, LocalLock, LockOptions } from '../master/types.js';
import type { ErrorCode } from '../protocol/errors.js';
import type { Millis } from '../protocol/ids.js';
import { LVB_BYTES } from '../protocol/limits.js';
import { EX, type Mode, NL } from '../protocol/modes.js';
import { BridgedLock, plainOf } from './bridged-lock.js';
import { BridgedNames } from './bridged-names.js';
import { HelperSide } from './helper-side.js';
import { type HelperState, KernelPart } from './kernel-part.js';
import { type BridgeOptions, type BridgeStatus, type OwnerCore, Timers } from './options.js';
import { ToldDeadline } from './told-deadline.js';

/** How long the end of a clean restart waits until the helper knows the deadline. */
const TELL_MS_MAX = 2000;

export class Bridge implements OwnerCore, LocalEvents {
  readonly #o: BridgeOptions;
  readonly #names: BridgedNames;
  /** Names of node-owned locks that are still to be claimed from the journal. */
  readonly #journaled: Set<string>;
  readonly #state: HelperState = { isAttached: false, isAwaited: true };
  readonly #told: ToldDeadline;
  readonly #timers: Timers;
  readonly #part: KernelPart;
  readonly #helper: HelperSide;

  constructor(options: BridgeOptions) {
    this.#o = options;
    this.#journaled = new Set(options.journaled);
    const told = new ToldDeadline(options.toldUntil);
    const timers = new Timers(options.step);
    this.#told = told;
    this.#timers = timers;
    this.#names = new BridgedNames({
      send: (message) => this.#helper.send(message),
      settle: (name) => this.#part.settle(name),
      defer: (work) => void timers.later(0, work),
    });
    this.#part = new KernelPart({
      ...options,
      names: this.#names,
      helper: this.#state,
      told,
      timers,
      gone: (lock) => this.#claimed(lock),
    });
    this.#helper = new HelperSide({
      bridge: options,
      names: this.#names,
      part: this.#part,
      state: this.#state,
      told,
      timers,
      journaled: this.#journaled,
    });
  }

  /** A lock of the journal has come, or will not come any more. */
  #claimed(lock: BridgedLock): void {
    if (!lock.nodeOwned || !this.#journaled.delete(`${lock.domain}/${lock.name}`)) return;
    const name = this.#names.find(lock.domain, lock.name);
    if (name !== undefined) name.reserved = -1;
  }

  get status(): BridgeStatus {
    const { why } = this.#helper;
    const state = why === null ? 'starting' : why === '' ? 'up' : 'down';
    return { state, why: why ?? '', held: this.#names.heldCount };
  }

  /** Settles when it is known which helper there is: before that no owner may hear of this daemon (rule 5). */
  get ready(): Promise<void> {
    return this.#helper.ready;
  }

  /** After a clean stop: nothing is held any more, so the helper ends too. */
  close(): void {
    this.#timers.close();
    this.#helper.close();
  }

  /** Holds of this node end at `until`, on the core's clock. Returns what owners may be told of it: what the helper knows. */
  lease(until: Millis): Millis {
    return this.#helper.lease(until);
  }

  /** The deadline of a clean restart, as owners may be told it: resolves once the helper knows it, or with less when it does not read. */
  async restarting(until: Millis): Promise<Millis> {
    const end = performance.now() + TELL_MS_MAX;
    for (;;) {
      const told = this.#helper.lease(until);
      if (told >= until || performance.now() >= end) return told;
      await new Promise((resolve) => setTimeout(resolve, 10));
    }
  }

  /** Nobody counts on what a daemon before this one told. */
  settled(): void {
    this.#helper.settled();
  }

  /**
   * What the core says of its locks for the record of a restart, with the owners as their doors know them. What is not in the kernel, not
   * yet or not any more, is not held: the next daemon asks for it again.
   */
  claims(claims: ClaimedLock[]): ClaimedLock[] {
    return claims.flatMap((claim) => {
      const { ctx: lock } = claim;
      if (!(lock instanceof BridgedLock)) return [claim];
      const { phase, told, leavesTo } = lock;
      const isAhead = phase === 'taking' || phase === 'undoing';
      const mode = claim.mode === -1 ? -1 : phase === 'dropping' ? leavesTo : isAhead && !lock.isClaim ? told : claim.mode;
      if (mode === -1 && claim.mode !== -1) return [];
      const want = mode === claim.mode ? claim.want : phase === 'taking' ? (claim.mode as Mode) : -1;
      return [{ ...claim, mode, want, ctx: lock.ctx }];
    });
  }

  // What owners ask.

  /** Never more than the helper knows. */
  get holdUntil(): Millis {
    return this.#told.limit(this.#o.core.holdUntil, this.#state.isAttached);
  }
  get isSuspended(): boolean {
    return this.#o.core.isSuspended;
  }

  lock(now: Millis, o: LockOptions): LocalLock {
    if (!this.#isBridged(o.domain, o.name)) return this.#o.core.lock(now, o);
    const lock = new BridgedLock(o);
    lock.isTry = o.try;
    lock.deadline = o.deadline;
    const refusal = this.#refusal(o.name);
    if (refusal !== null) {
      this.#o.events.denied(lock, refusal);
      return lock;
    }
    // Events may come before this returns.
    lock.real = this.#o.core.lock(now, { ...o, ctx: lock });
    return lock;
  }

  reclaim(now: Millis, claim: ClaimedLock): LocalLock {
    if (!this.#isBridged(claim.domain, claim.name)) return this.#o.core.reclaim(now, claim);
    const lock = new BridgedLock({ ...claim, mode: (claim.mode >= 0 ? claim.mode : claim.want) as Mode });
    lock.told = claim.mode;
    lock.deadline = claim.deadline;
    lock.isClaim = claim.mode > NL && !claim.nodeOwned;
    if (lock.isClaim) {
      // However long the core takes to confirm it: what the helper has kept for it is not given up meanwhile.
      lock.need = claim.mode;
      this.#names.add(lock);
      this.#timers.later(0, () => this.#part.checkClaim(lock));
    }
    lock.real = this.#o.core.reclaim(now, { ...claim, ctx: lock });
    return lock;
  }

  convert(now: Millis, lock: LocalLock, mode: Mode, o: { try: boolean; deadline: Millis; lvb: Uint8Array | null }): void {
    const { real } = asBridged(lock);
    if (!(lock instanceof BridgedLock) || real === null) {
      this.#o.core.convert(now, real ?? lock, mode, o);
      return;
    }
    lock.isTry = o.try;
    lock.deadline = o.deadline;
    const convert = (): void => {
      lock.phase = 'core';
      this.#o.core.convert(this.#o.now(), real, mode, o);
    };
    if (mode >= lock.told) {
      convert();
      return;
    }
    if (lock.need === EX && o.lvb !== null) this.#value(lock, o.lvb);
    lock.phase = 'dropping';
    lock.leavesTo = mode;
    lock.need = mode === NL ? -1 : mode;
    this.#names.drop(lock, convert);
  }

  unlock(now: Millis, lock: LocalLock, o: { lvb?: Uint8Array | null; lvbInvalid?: boolean } = {}): void {
    const { real } = asBridged(lock);
    if (!(lock instanceof BridgedLock) || real === null) {
      this.#o.core.unlock(now, real ?? lock, o);
      return;
    }
    this.#part.clearTimer(lock);
    if (lock.need === EX && o.lvbInvalid === true) this.#value(lock, new Uint8Array(LVB_BYTES));
    else if (lock.need === EX && o.lvb) this.#value(lock, o.lvb);
    lock.phase = 'dropping';
    lock.leavesTo = -1;
    lock.need = -1;
    this.#names.drop(lock, () => this.#o.core.unlock(this.#o.now(), real, o));
  }

  cancel(now: Millis, lock: LocalLock): void {
    if (!(lock instanceof BridgedLock)) this.#o.core.cancel(now, lock);
    else if (lock.phase === 'taking' && !lock.isClaim) this.#part.fail(lock, 'TSDLM_CANCELLED');
    else if ((lock.phase === 'core' || lock.isClaim) && lock.real !== null) this.#o.core.cancel(now, lock.real);
    // Anything else is being answered already.
  }

  writeLvb(lock: LocalLock, value: Uint8Array): void {
    this.#o.core.writeLvb(asBridged(lock).real ?? lock, value);
    if (lock instanceof BridgedLock) this.#value(lock, value);
  }

  setInUse(now: Millis, lock: LocalLock, isInUse: boolean, recorded: (ok: boolean) => void): void {
    this.#o.core.setInUse(now, asBridged(lock).real ?? lock, isInUse, recorded);
  }

  // What the core tells. Nothing here may call it: what must, is done later.

  granted(real: LocalLock): void {
    const lock = this.#lockOf(real);
    if (lock === null) {
      this.#o.events.granted(real);
      return;
    }
    // Its owner was told that it is lost: taken back at its deadline.
    if (lock.isLost) return;
    if (lock.isClaim && lock.phase === 'dropping') {
      // Given up while it was being claimed: the release follows.
      lock.isClaim = false;
      this.#o.events.granted(lock);
      return;
    }
    if (lock.phase === 'undoing') {
      lock.phase = 'held';
      this.#o.events.denied(lock, lock.failed);
      return;
    }
    const mode = real.mode as Mode;
    lock.need = mode === NL ? -1 : mode;
    const name = this.#names.add(lock);
    if (lock.isJournaled && lock.told < 0) {
      // Whoever took it counts on it already: the kernel's part is taken again behind the scenes.
      this.#part.finish(lock, name);
      this.#claimed(lock);
      this.#names.sync(name);
    } else if (lock.need < 0 || (this.#state.isAttached && name.covers(lock.need))) {
      const wasClaim = lock.isClaim;
      this.#part.finish(lock, name);
      if (wasClaim) this.#names.sync(name);
    } else if (lock.isClaim) {
      lock.phase = 'taking';
      this.#timers.later(0, () => this.#part.checkClaim(lock));
    } else if (lock.told >= lock.need) this.#part.finish(lock, name);
    else {
      lock.phase = 'taking';
      if (this.#helper.isDown) this.#timers.later(0, () => this.#part.failIfTaking(lock, 'TSDLM_BRIDGE_DOWN'));
      else this.#part.take(lock, name);
    }
  }

  denied(real: LocalLock, code: ErrorCode): void {
    const lock = this.#lockOf(real);
    if (lock === null) {
      this.#o.events.denied(real, code);
      return;
    }
    const { isLost } = lock;
    if (lock.isClaim || isLost) this.#part.lostInCore(lock);
    else if (lock.told < 0) this.#part.forget(lock);
    else lock.phase = 'held';
    if (!isLost) this.#o.events.denied(lock, code);
  }

  released(real: LocalLock): void {
    const lock = this.#lockOf(real);
    if (lock === null) this.#o.events.released(real);
    else {
      const { phase, failed, isLost } = lock;
      this.#part.forget(lock);
      if (isLost) return;
      if (phase === 'undoing') this.#o.events.denied(lock, failed);
      else this.#o.events.released(lock);
    }
  }

  bast(real: LocalLock, mode: Mode): void {
    const lock = this.#lockOf(real);
    if (lock === null) this.#o.events.bast(real, mode);
    else if (lock.phase === 'held') this.#o.events.bast(lock, mode);
    else if (mode > lock.bast) lock.bast = mode;
  }

  lost(real: LocalLock, code: ErrorCode): void {
    const lock = this.#lockOf(real);
    if (lock === null) {
      this.#o.events.lost(real, code);
      return;
    }
    const { isLost } = lock;
    this.#part.lostInCore(lock);
    if (!isLost) this.#o.events.lost(lock, code);
  }

  // Between the two.

  #isBridged(domain: string, name: string): boolean {
    // Names in '$' cannot be in the kernel; the file door uses them for itself.
    return this.#o.domains.has(domain) && !name.startsWith('$');
  }

  /** Why nobody can have a lock of this name here. */
  #refusal(name: string): ErrorCode | null {
    if (Buffer.byteLength(name) > FILE_LOCK_BYTES_MAX) return 'TSDLM_NAME_TOO_LONG';
    if (name === '.' || name === '..' || name.includes('/') || name.includes('\0')) return 'TSDLM_BAD_ARGUMENT';
    return this.#helper.isDown ? 'TSDLM_BRIDGE_DOWN' : null;
  }

  /** The lock that the core speaks of; one that it has from the journal is new to us. Null: not bridged. */
  #lockOf(real: LocalLock): BridgedLock | null {
    if (real.ctx instanceof BridgedLock) {
      real.ctx.real = real;
      return real.ctx;
    }
    if (!this.#isBridged(real.domain, real.name)) return null;
    const lock = new BridgedLock({ ...plainOf(real), ctx: real.ctx });
    lock.real = real;
    lock.isJournaled = true;
    real.ctx = lock;
    return lock;
  }

  #value(lock: BridgedLock, value: Uint8Array): void {
    lock.setValue(value);
    this.#names.value(lock, value);
  }
}

function asBridged(lock: LocalLock): { real: LocalLock | null } {
  return lock instanceof BridgedLock ? lock : { real: null };
}
