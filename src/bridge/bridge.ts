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
 * owner of this node needs. Locks of other domains pass through untouched.
 */
import type { CoreApi } from '../core/types.js';
import { FILE_LOCK_BYTES_MAX } from '../dlmfs/types.js';
import type { ClaimedLock, LocalEvents, LocalLock, LockOptions } from '../master/types.js';
import type { ErrorCode } from '../protocol/errors.js';
import type { Millis } from '../protocol/ids.js';
import { LVB_BYTES } from '../protocol/limits.js';
import { EX, type Mode, NL, PR } from '../protocol/modes.js';
import { BridgedLock } from './bridged-lock.js';
import { type BridgedName, BridgedNames } from './bridged-names.js';
import type { BridgeLink, LinkEvents } from './link.js';
import type { FromHelper } from './protocol.js';

/** What owners ask of the core; the bridge offers the same. */
export type OwnerCore = Pick<
  CoreApi,
  'holdUntil' | 'isSuspended' | 'lock' | 'reclaim' | 'convert' | 'unlock' | 'cancel' | 'writeLvb' | 'setInUse'
>;

/** A try that the kernel has not answered by then cannot be decided: there a try may wait for the node itself. */
const TRY_MS_MAX = 1000;
/** A node's own lock that the kernel refuses is asked for again. */
const RETRY_MS = 1000;
/** Until a helper is attached requests wait; then they are refused. */
const START_MS_MAX = 10_000;

export interface BridgeOptions {
  core: OwnerCore;
  /** Where events go: the doors. */
  events: LocalEvents;
  /** The core's clock. */
  now: () => Millis;
  /** A time of the core's clock on CLOCK_MONOTONIC. */
  toMonotonic: (time: Millis) => Millis;
  /** Bridged domains. */
  domains: ReadonlySet<string>;
  /** Opens the link; its events may come from then on. */
  link: (events: LinkEvents) => BridgeLink;
  /** For how long an owner of before a restart may still come and claim what it had. */
  claimMs: number;
  /** Names of node-owned locks in the journal, "domain/name": they will be claimed. */
  journaled: ReadonlySet<string>;
  /** Runs what calls the core; a broken invariant in it ends the daemon. */
  step: (work: () => void) => void;
  log: (level: 'info' | 'warn' | 'error', event: string, data: Record<string, unknown>) => void;
}

export interface BridgeStatus {
  state: 'starting' | 'up' | 'down';
  why: string;
  /** Names held in the kernel. */
  held: number;
}

export class Bridge implements OwnerCore, LocalEvents {
  readonly #o: BridgeOptions;
  readonly #link: BridgeLink;
  readonly #names: BridgedNames;
  #isAttached = false;
  /** null = not known yet, '' = usable. */
  #why: string | null = null;
  #timers = new Set<NodeJS.Timeout>();

  constructor(options: BridgeOptions) {
    this.#o = options;
    this.#names = new BridgedNames({
      send: (message) => this.#link.send(message),
      settle: (name) => this.#settle(name),
      defer: (work) => void this.#later(0, work),
    });
    this.#link = options.link({
      attached: (names) => options.step(() => this.#attached(names)),
      message: (message) => options.step(() => this.#message(message)),
      detached: (why) => options.step(() => this.#detached(why)),
    });
    this.#later(START_MS_MAX, () => {
      if (this.#why === null) this.#setState('the bridge helper does not answer');
    });
  }

  get status(): BridgeStatus {
    const state = this.#why === null ? 'starting' : this.#why === '' ? 'up' : 'down';
    return { state, why: this.#why ?? '', held: this.#names.heldCount };
  }

  /** After a clean stop: nothing is held any more, so the helper ends too. */
  close(): void {
    for (const timer of this.#timers) clearTimeout(timer);
    this.#link.close();
  }

  /** Holds of this node end at `until`, on the core's clock: told to the helper before any owner hears of it (rule 5). */
  lease(until: Millis): void {
    if (until > 0 && this.#isAttached) this.#link.send({ k: 'until', until: this.#o.toMonotonic(until) });
  }

  /** What the core says of its locks for the record of a restart, with the owners as their doors know them. */
  claims(claims: ClaimedLock[]): ClaimedLock[] {
    return claims.map((claim) => (claim.ctx instanceof BridgedLock ? { ...claim, ctx: claim.ctx.ctx } : claim));
  }

  // What owners ask.

  get holdUntil(): Millis {
    return this.#o.core.holdUntil;
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
    lock.isClaim = claim.mode > NL;
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
    lock.need = mode === NL ? -1 : mode;
    this.#names.drop(lock, convert);
  }

  unlock(now: Millis, lock: LocalLock, o: { lvb?: Uint8Array | null; lvbInvalid?: boolean } = {}): void {
    const { real } = asBridged(lock);
    if (!(lock instanceof BridgedLock) || real === null) {
      this.#o.core.unlock(now, real ?? lock, o);
      return;
    }
    this.#clearTimer(lock);
    if (lock.need === EX && o.lvbInvalid === true) this.#value(lock, new Uint8Array(LVB_BYTES));
    else if (lock.need === EX && o.lvb) this.#value(lock, o.lvb);
    lock.phase = 'dropping';
    lock.need = -1;
    this.#names.drop(lock, () => this.#o.core.unlock(this.#o.now(), real, o));
  }

  cancel(now: Millis, lock: LocalLock): void {
    if (!(lock instanceof BridgedLock)) this.#o.core.cancel(now, lock);
    else if (lock.phase === 'taking') this.#fail(lock, 'TSDLM_CANCELLED');
    else if (lock.phase === 'core' && lock.real !== null) this.#o.core.cancel(now, lock.real);
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
      this.#finish(lock, name);
      this.#names.sync(name);
    } else if (lock.need < 0 || (this.#isAttached && name.covers(lock.need))) this.#finish(lock, name);
    else if (lock.isClaim) {
      lock.phase = 'taking';
      this.#later(0, () => this.#checkClaim(lock, name));
    } else if (lock.told >= lock.need) this.#finish(lock, name);
    else {
      lock.phase = 'taking';
      if (this.#isDown) this.#later(0, () => this.#failIfTaking(lock, 'TSDLM_BRIDGE_DOWN'));
      else this.#take(lock, name);
    }
  }

  denied(real: LocalLock, code: ErrorCode): void {
    const lock = this.#lockOf(real);
    if (lock === null) {
      this.#o.events.denied(real, code);
      return;
    }
    if (lock.told < 0 || lock.isClaim) this.#forget(lock);
    else lock.phase = 'held';
    this.#o.events.denied(lock, code);
  }

  released(real: LocalLock): void {
    const lock = this.#lockOf(real);
    if (lock === null) this.#o.events.released(real);
    else {
      const { phase, failed, isLost } = lock;
      this.#forget(lock);
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
    this.#forget(lock);
    if (!isLost) this.#o.events.lost(lock, code);
  }

  // Between the two.

  #isBridged(domain: string, name: string): boolean {
    // Names in '$' cannot be in the kernel; the file door uses them for itself.
    return this.#o.domains.has(domain) && !name.startsWith('$');
  }

  get #isDown(): boolean {
    return this.#why !== null && this.#why !== '';
  }

  /** Why nobody can have a lock of this name here. */
  #refusal(name: string): ErrorCode | null {
    if (Buffer.byteLength(name) > FILE_LOCK_BYTES_MAX) return 'TSDLM_NAME_TOO_LONG';
    if (name === '.' || name === '..' || name.includes('/') || name.includes('\0')) return 'TSDLM_BAD_ARGUMENT';
    return this.#isDown ? 'TSDLM_BRIDGE_DOWN' : null;
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

  #take(lock: BridgedLock, name: BridgedName): void {
    const { deadline, isTry } = lock;
    const isAlone = [...name.locks].every((other) => other === lock || other.phase !== 'taking');
    const left = isTry ? TRY_MS_MAX : deadline > 0 ? Math.max(1, deadline - this.#o.now()) : 0;
    if (left > 0)
      lock.timer = this.#later(left, () =>
        this.#failIfTaking(lock, isTry ? (isAlone ? 'TSDLM_UNAVAILABLE' : 'TSDLM_CONFLICT') : 'TSDLM_TIMEOUT'),
      );
    if (this.#isAttached) this.#names.sync(name);
  }

  /** The kernel has what the lock needs. */
  #finish(lock: BridgedLock, name: BridgedName): void {
    this.#clearTimer(lock);
    lock.phase = 'held';
    lock.isClaim = false;
    lock.told = lock.real?.mode ?? -1;
    lock.setValue(name.value);
    this.#o.events.granted(lock);
    const { bast } = lock;
    lock.bast = -1;
    if (bast >= 0) this.#o.events.bast(lock, bast as Mode);
  }

  #failIfTaking(lock: BridgedLock, code: ErrorCode): void {
    if (lock.phase === 'taking') this.#fail(lock, code);
  }

  /** The kernel does not grant what the core has granted: taken back there. The owner hears of it when that is done. */
  #fail(lock: BridgedLock, code: ErrorCode): void {
    const { real } = lock;
    if (real === null) return;
    this.#clearTimer(lock);
    lock.phase = 'undoing';
    lock.failed = code;
    lock.need = lock.told > NL ? lock.told : -1;
    this.#names.drop(lock, () => {
      if (lock.told < 0) this.#o.core.unlock(this.#o.now(), real);
      else this.#o.core.convert(this.#o.now(), real, lock.told as Mode, { try: false, deadline: 0, lvb: null });
    });
  }

  /** What an owner of before a restart claims must have been kept by the helper all the time (rule 5). */
  #checkClaim(lock: BridgedLock, name: BridgedName): void {
    if (lock.phase !== 'taking' || !this.#isAttached) return;
    lock.isClaim = false;
    if (name.covers(lock.need)) this.#finish(lock, name);
    else this.#lose(lock, 'the kernel lock of before the restart is gone');
  }

  /** The owner cannot have it any more, but it may act until its deadline: the core's lock stays until then (rule 11). */
  #lose(lock: BridgedLock, why: string): void {
    const { real } = lock;
    if (real === null || lock.isLost) return;
    this.#o.log('error', 'bridge-lost', { domain: lock.domain, name: lock.name, why });
    this.#clearTimer(lock);
    lock.isLost = true;
    lock.need = -1;
    this.#names.forget(lock);
    const until = this.#o.core.holdUntil;
    this.#o.events.lost(lock, 'TSDLM_BRIDGE_DOWN');
    const release = (): void => {
      if (lock.real === null) return;
      if (this.#o.now() < until) this.#later(until - this.#o.now(), release);
      else this.#o.core.unlock(this.#o.now(), real);
    };
    this.#later(Math.max(1, until - this.#o.now()), release);
  }

  #value(lock: BridgedLock, value: Uint8Array): void {
    lock.setValue(value);
    this.#names.value(lock, value);
  }

  #forget(lock: BridgedLock): void {
    this.#clearTimer(lock);
    lock.need = -1;
    lock.real = null;
    this.#names.forget(lock);
  }

  /** The helper has answered for a name. */
  #settle(name: BridgedName): void {
    for (const lock of [...name.locks]) {
      if (lock.phase === 'taking' && !lock.isClaim && name.covers(lock.need)) this.#finish(lock, name);
    }
  }

  // The helper.

  #attached(names: Extract<FromHelper, { k: 'hello' }>['names']): void {
    this.#isAttached = true;
    this.#o.log('info', 'bridge-attached', { names: names.length });
    this.lease(this.#o.core.holdUntil);
    this.#names.attached(names);
    for (const name of this.#names.all()) {
      for (const lock of [...name.locks]) if (lock.isClaim) this.#checkClaim(lock, name);
      this.#settle(name);
      if (name.locks.size > 0) this.#names.sync(name);
    }
    // What nobody claims was a session's whose last deadline passes meanwhile; the journal's locks come by themselves.
    this.#later(this.#o.claimMs, () => {
      for (const name of this.#names.all()) {
        const isExpected = name.isForever && this.#o.journaled.has(`${name.domain}/${name.name}`);
        if (name.locks.size === 0 && !isExpected) this.#names.sync(name);
      }
    });
  }

  #message(m: FromHelper): void {
    switch (m.k) {
      case 'have':
        this.#names.have(m);
        return;
      case 'refused': {
        const name = this.#names.refused(m);
        if (name === null) return;
        if (!m.isBusy) this.#o.log('warn', 'bridge-refused', { domain: m.domain, name: m.name, why: m.why });
        for (const lock of [...name.locks]) {
          if (lock.phase !== 'taking' || name.covers(lock.need)) continue;
          // An upgrade is a try in the kernel, whatever its owner asked for: two that wait for each other would never notice.
          if (!m.isBusy) this.#fail(lock, 'TSDLM_BRIDGE_DOWN');
          else if (lock.isTry || lock.told >= PR) this.#fail(lock, 'TSDLM_CONFLICT');
        }
        this.#retry(name);
        return;
      }
      case 'blocked':
        for (const lock of [...(this.#names.find(m.domain, m.name)?.locks ?? [])]) {
          if (lock.phase === 'held' && lock.need >= PR) this.#o.events.bast(lock, EX);
        }
        return;
      case 'state':
        this.#setState(m.why);
        return;
      case 'hello':
        return;
    }
  }

  /** Somebody still wants more than the kernel has: asks again, at once for owners that wait, with a pause for the node's own. */
  #retry(name: BridgedName): void {
    const locks = [...name.locks].filter((lock) => !name.covers(lock.need));
    if (locks.some((lock) => lock.phase === 'taking')) this.#names.sync(name);
    else if (locks.length > 0) this.#later(RETRY_MS, () => this.#names.sync(name));
  }

  #setState(why: string): void {
    if (this.#why === why) return;
    this.#why = why;
    if (why === '') {
      this.#o.log('info', 'bridge-up', {});
      return;
    }
    this.#o.log('error', 'bridge-down', { why });
    for (const name of this.#names.all()) {
      for (const lock of [...name.locks]) this.#failIfTaking(lock, 'TSDLM_BRIDGE_DOWN');
    }
  }

  /** What the helper held is gone with it: the kernel may give it to others at any time. */
  #detached(why: string): void {
    this.#setState(why);
    if (!this.#isAttached) return;
    this.#isAttached = false;
    for (const name of this.#names.detached()) {
      for (const lock of [...name.locks]) {
        if (lock.need < PR || lock.told < PR || lock.phase === 'dropping') continue;
        // Nobody can be told that a node's own lock is lost: it is taken again as soon as that is possible.
        if (lock.nodeOwned) this.#o.log('error', 'bridge-broken', { domain: lock.domain, name: lock.name, why });
        else this.#lose(lock, why);
      }
    }
  }

  #later(ms: number, work: () => void): NodeJS.Timeout {
    const timer = setTimeout(() => {
      this.#timers.delete(timer);
      this.#o.step(work);
    }, ms);
    this.#timers.add(timer);
    return timer;
  }

  #clearTimer(lock: BridgedLock): void {
    if (lock.timer === null) return;
    clearTimeout(lock.timer);
    this.#timers.delete(lock.timer);
    lock.timer = null;
  }
}

function asBridged(lock: LocalLock): { real: LocalLock | null } {
  return lock instanceof BridgedLock ? lock : { real: null };
}

function plainOf({ domain, name, mode, want, nodeOwned, door, who, why }: LocalLock): {
  domain: string;
  name: string;
  mode: Mode;
  nodeOwned: boolean;
  door: string;
  who: string;
  why: string;
} {
  return { domain, name, mode: (mode >= 0 ? mode : want) as Mode, nodeOwned, door, who, why };
}
