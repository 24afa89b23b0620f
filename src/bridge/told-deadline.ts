/**
 * Which deadline owners may be told: none that the helper does not know (rule 5).
 *
 * The problem: the helper lets go at the last deadline it was told, and the daemon may be killed between any two instructions. The
 * idea: a deadline counts as known to the helper once it lies in the socket between the two as a whole, for there it survives the
 * daemon; only then owners hear of it. What has not left the daemon's own memory yet is not told to anybody.
 */
import type { Millis } from '../protocol/ids.js';

export class ToldDeadline {
  /** Known to the helper that is attached. */
  #sent: Millis = 0;
  /** Behind it in the daemon's memory. */
  #queued: Millis = 0;
  /** Told by this daemon. */
  #told: Millis = 0;
  /** Told by daemons before it, as long as somebody may count on it. */
  #before: Millis;

  /** `before`: what a daemon before this one may have told. */
  constructor(before: Millis) {
    this.#before = before;
  }

  /** The last deadline that any owner may count on, told by this daemon or one before. */
  get known(): Millis {
    return Math.max(this.#told, this.#before);
  }

  /** Nobody counts on what was told before this daemon. True when that is news. */
  settled(): boolean {
    const wasMore = this.#before > this.#told;
    this.#before = 0;
    return wasMore;
  }

  /** A helper was attached: what an earlier one knew is nothing to it. */
  attached(): void {
    this.#sent = 0;
    this.#queued = 0;
  }

  isNews(until: Millis): boolean {
    return until > Math.max(this.#sent, this.#queued);
  }

  /** It was sent. `isOut`: it is out of the daemon's memory. */
  sent(until: Millis, isOut: boolean): void {
    this.#queued = until;
    if (isOut) this.#sent = until;
  }

  /** All that was sent is out. True when that is news. */
  drained(): boolean {
    if (this.#queued <= this.#sent) return false;
    this.#sent = this.#queued;
    return true;
  }

  /** What owners may be told of `until`. Without a helper nothing is held in the kernel that could be let go too early. */
  limit(until: Millis, isAttached: boolean): Millis {
    const told = isAttached ? Math.min(until, this.#sent) : until;
    if (told > this.#told) this.#told = told;
    return told;
  }
}
