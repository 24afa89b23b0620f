/**
 * The problem: everything of a simulated world happens at some virtual time, and in one order for one seed.
 * The idea: a binary heap by (time, order of insertion). Time is a float in milliseconds.
 */
interface Entry {
  at: number;
  order: number;
  run: () => void;
}

function before(a: Entry, b: Entry): boolean {
  return a.at < b.at || (a.at === b.at && a.order < b.order);
}

export class EventQueue {
  readonly #heap: Entry[] = [];
  #order = 0;
  now = 0;

  get size(): number {
    return this.#heap.length;
  }

  /** Runs `run` at virtual time `at`; a time in the past means now. */
  at(at: number, run: () => void): void {
    const heap = this.#heap;
    const entry = { at: at > this.now ? at : this.now, order: this.#order++, run };
    let i = heap.length;
    heap.push(entry);
    while (i > 0) {
      const parent = (i - 1) >> 1;
      const p = heap[parent] as Entry;
      if (!before(entry, p)) break;
      heap[i] = p;
      i = parent;
    }
    heap[i] = entry;
  }

  after(delay: number, run: () => void): void {
    this.at(this.now + delay, run);
  }

  /** Runs the next event if it is due by `limit`; false when there is none. */
  step(limit: number): boolean {
    const heap = this.#heap;
    const first = heap[0];
    if (!first || first.at > limit) return false;
    const last = heap.pop() as Entry;
    const n = heap.length;
    if (n > 0) {
      let i = 0;
      for (;;) {
        let child = 2 * i + 1;
        if (child >= n) break;
        if (child + 1 < n && before(heap[child + 1] as Entry, heap[child] as Entry)) child++;
        const c = heap[child] as Entry;
        if (!before(c, last)) break;
        heap[i] = c;
        i = child;
      }
      heap[i] = last;
    }
    this.now = first.at;
    first.run();
    return true;
  }
}
