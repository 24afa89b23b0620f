/**
 * The kernel's part of each lock: taken after the core's and given up before it, and how an owner hears of both.
 *
 * The problem: either part may be refused or taken away while the other is held. The idea: an owner is told of a grant when both are
 * there, and until its hold is over, by release or at the last deadline it may have been told, neither part goes to others, whatever
 * it was told meanwhile (rule 11).
 */
import type { LocalEvents } from '../master/types.js';
import type { ErrorCode } from '../protocol/errors.js';
import type { Millis } from '../protocol/ids.js';
import { EX, type Mode, NL, PR } from '../protocol/modes.js';
import type { BridgedLock } from './bridged-lock.js';
import type { BridgedName, BridgedNames } from './bridged-names.js';
import type { OwnerCore, Timers } from './options.js';
import type { ToldDeadline } from './told-deadline.js';

/** A try that the kernel has not answered by then cannot be decided: there a try may wait for the node itself. */
const TRY_MS_MAX = 1000;

/** What is known of the helper. */
export interface HelperState {
  isAttached: boolean;
  /** Whether there is one that holds something is not known yet. */
  isAwaited: boolean;
}

export interface KernelPartOptions {
  core: OwnerCore;
  events: LocalEvents;
  now: () => Millis;
  names: BridgedNames;
  helper: HelperState;
  told: ToldDeadline;
  timers: Timers;
  /** A lock is no more. */
  gone: (lock: BridgedLock) => void;
  log: (level: 'info' | 'warn' | 'error', event: string, data: Record<string, unknown>) => void;
}

export class KernelPart {
  readonly #o: KernelPartOptions;

  constructor(options: KernelPartOptions) {
    this.#o = options;
  }

  take(lock: BridgedLock, name: BridgedName): void {
    const { deadline, isTry } = lock;
    const isAlone = [...name.locks].every((other) => other === lock || other.phase !== 'taking');
    const left = isTry ? TRY_MS_MAX : deadline > 0 ? Math.max(1, deadline - this.#o.now()) : 0;
    if (left > 0)
      lock.timer = this.#o.timers.later(left, () =>
        this.failIfTaking(lock, isTry ? (isAlone ? 'TSDLM_UNAVAILABLE' : 'TSDLM_CONFLICT') : 'TSDLM_TIMEOUT'),
      );
    if (this.#o.helper.isAttached) this.#o.names.sync(name);
  }

  /** The kernel has what the lock needs. */
  finish(lock: BridgedLock, name: BridgedName): void {
    this.clearTimer(lock);
    lock.phase = 'held';
    lock.isClaim = false;
    lock.told = lock.real?.mode ?? -1;
    lock.setValue(name.value);
    this.#o.events.granted(lock);
    const { bast } = lock;
    lock.bast = -1;
    if (bast >= 0) this.#o.events.bast(lock, bast as Mode);
  }

  /** The helper has answered for a name. */
  settle(name: BridgedName): void {
    for (const lock of [...name.locks]) {
      if (lock.phase === 'taking' && !lock.isClaim && name.covers(lock.need)) this.finish(lock, name);
    }
  }

  failIfTaking(lock: BridgedLock, code: ErrorCode): void {
    if (lock.phase === 'taking' && !lock.isClaim) this.fail(lock, code);
  }

  /** The kernel does not grant what the core has granted: taken back there. The owner hears of it when that is done. */
  fail(lock: BridgedLock, code: ErrorCode): void {
    const { real } = lock;
    if (real === null) return;
    this.clearTimer(lock);
    lock.phase = 'undoing';
    lock.failed = code;
    lock.need = lock.told > NL ? lock.told : -1;
    this.#o.names.drop(lock, () => {
      if (lock.told < 0) this.#o.core.unlock(this.#o.now(), real);
      else this.#o.core.convert(this.#o.now(), real, lock.told as Mode, { try: false, deadline: 0, lvb: null });
    });
  }

  /** What an owner of before a restart claims must have been kept by the helper all the time (rule 5). */
  checkClaim(lock: BridgedLock): void {
    if (!lock.isClaim || lock.isLost) return;
    const { helper, names } = this.#o;
    const name = names.find(lock.domain, lock.name);
    if (!helper.isAttached) {
      if (!helper.isAwaited) this.lose(lock, 'no bridge helper has kept the kernel lock of before the restart');
    } else if (name?.covers(lock.need) !== true) this.lose(lock, 'the kernel lock of before the restart is gone');
    else {
      // Beside EX there was nobody else who could still come.
      if (lock.need === EX) name.reserved = -1;
      // Where the core has not confirmed it yet, it is kept until then.
      if (lock.phase === 'taking') {
        this.finish(lock, name);
        names.sync(name);
      }
    }
  }

  /** The kernel has lost it. The owner is told, but it may act until its deadline: the core's lock stays until then (rule 11). */
  lose(lock: BridgedLock, why: string): void {
    const { core, names, timers, now, log } = this.#o;
    if (lock.real === null || lock.isLost) return;
    log('error', 'bridge-lost', { domain: lock.domain, name: lock.name, why });
    this.clearTimer(lock);
    lock.isLost = true;
    lock.need = -1;
    names.forget(lock);
    const until = this.#o.told.known;
    this.#o.events.lost(lock, 'TSDLM_BRIDGE_DOWN');
    const release = (): void => {
      if (lock.real === null) return;
      if (now() < until) timers.later(until - now(), release);
      else core.unlock(now(), lock.real);
    };
    timers.later(Math.max(1, until - now()), release);
  }

  /** The core has lost it. The owner is told by the caller; what it may still count on stays in the kernel until its deadline. */
  lostInCore(lock: BridgedLock): void {
    const until = this.#o.told.known;
    const isOver = lock.isLost || lock.nodeOwned || lock.told < PR || lock.phase === 'dropping' || this.#o.now() >= until;
    if (isOver) {
      this.forget(lock);
      return;
    }
    this.clearTimer(lock);
    this.#o.names.abandon(lock);
    lock.real = null;
    lock.phase = 'lost';
    lock.isLost = true;
    lock.need = lock.told;
    const end = (): void => {
      if (this.#o.now() < until) this.#o.timers.later(until - this.#o.now(), end);
      else this.forget(lock);
    };
    this.#o.timers.later(until - this.#o.now(), end);
  }

  forget(lock: BridgedLock): void {
    this.clearTimer(lock);
    lock.need = -1;
    lock.real = null;
    this.#o.gone(lock);
    this.#o.names.forget(lock);
  }

  clearTimer(lock: BridgedLock): void {
    if (lock.timer !== null) this.#o.timers.clear(lock.timer);
    lock.timer = null;
  }
}
