/**
 * What is asked of the core for one lock of a client: convert it, release it.
 *
 * The problem: a release may come while a conversion waits or before the core has answered at all, and an event of the core
 * may make one necessary while no event may call back into the core. The idea: a release that cannot be done now is noted in
 * the lock's record (Hold) and done when the core's answer comes, outside of its call.
 */
import type { LocalLock } from '../master/types.js';
import { EX, type Mode } from '../protocol/modes.js';
import type { DoorCore } from './clock-core.js';
import type { Hold, HoldCallback } from './session-hold.js';

export class HoldCalls {
  readonly #core: DoorCore;
  readonly #now: () => number;
  #later: Hold[] = [];

  constructor(core: DoorCore, now: () => number) {
    this.#core = core;
    this.#now = now;
  }

  convert(hold: Hold, lock: LocalLock, mode: Mode, isTry: boolean, timeoutMs: number, lvb: Uint8Array | null): void {
    const now = this.#now();
    const value = hold.told === EX ? lvb : null;
    this.#core.convert(now, lock, mode, { try: isTry, deadline: timeoutMs > 0 ? now + timeoutMs : 0, lvb: value });
  }

  /** Converts a node-owned lock by name; the outcome goes to `callback`. */
  convertOwned(hold: Hold, mode: Mode, isTry: boolean, timeoutMs: number, callback: HoldCallback): void {
    if (hold.lock === null) return;
    hold.converted = callback;
    this.convert(hold, hold.lock, mode, isTry, timeoutMs, null);
  }

  /** Ends a lock in whatever state it is: a request under way is withdrawn first. */
  release(hold: Hold, rid: number, lvb: Uint8Array | null, done: HoldCallback | null = null): void {
    hold.release = { rid, lvb, done };
    if (hold.lock === null) return;
    if (hold.asked !== 0 || hold.converted !== null) this.#core.cancel(this.#now(), hold.lock);
    else this.unlock(hold, hold.lock);
  }

  unlock(hold: Hold, lock: LocalLock): void {
    if (hold.isReleasing) return;
    hold.isReleasing = true;
    const lvb = hold.told === EX ? (hold.release?.lvb ?? null) : null;
    // A writer that died under EX may have been about to store a new value (rule 18).
    const lvbInvalid = hold.isDead && hold.release === null && hold.told === EX && hold.usesLvb;
    this.#core.unlock(this.#now(), lock, { lvb, lvbInvalid });
  }

  /** Releases after the core's present call has returned. */
  unlockLater(hold: Hold): void {
    this.#later.push(hold);
    if (this.#later.length === 1) queueMicrotask(this.#runLater);
  }

  #runLater = (): void => {
    const holds = this.#later;
    this.#later = [];
    for (const hold of holds) if (hold.lock !== null) this.unlock(hold, hold.lock);
  };
}
