/**
 * Who waits for a lock learns its place.
 *
 * The problem: a place is to survive a restart of this daemon, but most requests are decided within milliseconds and have no
 * use for one. The idea: whoever still waits at the second tick after its request is told what it needs to keep its place.
 */
import type { Hold } from './session-hold.js';

export class WaitingPlaces {
  /** Asked for since the last tick, and before it: who still waits then is told its place. */
  #fresh: Hold[] = [];
  #waiting: Hold[] = [];

  add(hold: Hold): void {
    this.#fresh.push(hold);
  }

  /** Who has waited for a while learns what it needs to keep its place over a restart of this daemon. */
  tick(): void {
    const waiting = this.#waiting;
    this.#waiting = this.#fresh;
    this.#fresh = [];
    for (const hold of waiting) {
      const { lock, session } = hold;
      if (lock === null || session === null || hold.isGranted || hold.asked === 0) continue;
      if (lock.se === 0) this.#fresh.push(hold);
      else session.push({ k: 'DaemonQueued', rid: hold.rid, id: lock.id, se: lock.se, sc: lock.sc });
    }
  }
}
