/**
 * Log lines that strangers can cause at will, limited: so many a second, the rest only counted.
 */

export class LineBudget {
  readonly #perSecond: number;
  #second = -1;
  #count = 0;
  #dropped = 0;

  constructor(perSecond: number) {
    this.#perSecond = perSecond;
  }

  /** Whether a line may be written now; `dropped` is how many were not since the last one that was. */
  take(nowMs: number): { ok: boolean; dropped: number } {
    const second = Math.floor(nowMs / 1000);
    if (second !== this.#second) {
      this.#second = second;
      this.#count = 0;
    }
    if (this.#count++ >= this.#perSecond) {
      this.#dropped++;
      return { ok: false, dropped: 0 };
    }
    const dropped = this.#dropped;
    this.#dropped = 0;
    return { ok: true, dropped };
  }
}
