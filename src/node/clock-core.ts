/**
 * Two clocks and the core between them (rule 10).
 *
 * The problem: CLOCK_MONOTONIC stands still while the machine is suspended, so a resumed node would find its lease valid.
 * The core's clock is therefore CLOCK_MONOTONIC plus all time that CLOCK_BOOTTIME ran ahead of it; clients read plain
 * CLOCK_MONOTONIC. This adapter gives the local door a core on the clients' clock.
 */
import type { CoreApi } from '../core/types.js';
import type { ClaimedLock, LocalLock, LockOptions } from '../master/types.js';
import type { Millis } from '../protocol/ids.js';
import type { Mode } from '../protocol/modes.js';
import { nowMs, SuspendDetector } from './facts.js';

/** The core's clock. `look` is called once per turn of the event loop and takes in time spent suspended. */
export class CoreClock {
  readonly #detector = new SuspendDetector();
  /** Milliseconds that this clock is ahead of CLOCK_MONOTONIC. */
  ahead = 0;

  now = (): number => nowMs() + this.ahead;

  /** Takes in time that CLOCK_BOOTTIME ran ahead; returns the milliseconds found now. */
  look(): number {
    const gap = this.#detector.check();
    if (gap > 0) this.ahead += gap;
    return gap;
  }
}

/** What the local door needs of the core. */
export type DoorCore = Pick<CoreApi, 'holdUntil' | 'lock' | 'reclaim' | 'convert' | 'unlock' | 'cancel' | 'writeLvb'>;

/** The core on CLOCK_MONOTONIC: times go in and come out converted. */
export class MonotonicCore implements DoorCore {
  readonly #core: DoorCore;
  readonly #clock: CoreClock;

  constructor(core: DoorCore, clock: CoreClock) {
    this.#core = core;
    this.#clock = clock;
  }

  get holdUntil(): Millis {
    const until = this.#core.holdUntil;
    return until === 0 ? 0 : until - this.#clock.ahead;
  }
  lock(now: Millis, options: LockOptions): LocalLock {
    const ahead = this.#clock.ahead;
    if (ahead === 0 || options.deadline === 0) return this.#core.lock(now + ahead, options);
    return this.#core.lock(now + ahead, { ...options, deadline: options.deadline + ahead });
  }
  reclaim(now: Millis, claim: ClaimedLock): LocalLock {
    const ahead = this.#clock.ahead;
    return this.#core.reclaim(now + ahead, { ...claim, deadline: claim.deadline === 0 ? 0 : claim.deadline + ahead });
  }
  convert(now: Millis, lock: LocalLock, mode: Mode, options: { try: boolean; deadline: Millis; lvb: Uint8Array | null }): void {
    const ahead = this.#clock.ahead;
    const deadline = options.deadline === 0 ? 0 : options.deadline + ahead;
    this.#core.convert(now + ahead, lock, mode, { ...options, deadline });
  }
  unlock(now: Millis, lock: LocalLock, options?: { lvb?: Uint8Array | null; lvbInvalid?: boolean }): void {
    this.#core.unlock(now + this.#clock.ahead, lock, options);
  }
  cancel(now: Millis, lock: LocalLock): void {
    this.#core.cancel(now + this.#clock.ahead, lock);
  }
  writeLvb(lock: LocalLock, value: Uint8Array): void {
    this.#core.writeLvb(lock, value);
  }
}
