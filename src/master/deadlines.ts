/**
 * Requests that end at a time: kept by slots of time, so that a tick touches only what is due.
 *
 * A request that was granted meanwhile stays in its slot until then and is passed over (its deadline is 0 or another).
 */
import type { Millis } from '../protocol/ids.js';
import type { Lock } from './lock.js';

const SLOT_MS = 50;

export class DeadlineTable {
  private readonly slots = new Map<number, Lock[]>();

  add(lock: Lock): void {
    const slot = Math.ceil(lock.deadline / SLOT_MS);
    const list = this.slots.get(slot);
    if (list) list.push(lock);
    else this.slots.set(slot, [lock]);
  }

  /** Takes out the locks whose deadline has come. */
  due(now: Millis): Lock[] {
    if (this.slots.size === 0) return [];
    const current = Math.floor(now / SLOT_MS);
    const due: Lock[] = [];
    for (const [slot, list] of this.slots) {
      if (slot > current) continue;
      this.slots.delete(slot);
      for (const lock of list) if (lock.deadline !== 0 && lock.deadline <= now) due.push(lock);
    }
    return due;
  }
}
