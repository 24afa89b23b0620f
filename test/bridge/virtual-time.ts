/** Timers on a clock that only moves when it is told to: a run of hours takes a second, and is the same every time. */

interface Timer {
  at: number;
  seq: number;
  every: number;
  run: () => void;
}

const REAL = { setTimeout, clearTimeout, setInterval, clearInterval, setImmediate };

export class VirtualTime {
  now = 1000;
  #timers = new Set<Timer>();
  #seq = 0;

  /** The global timers are ours until `restore`. What is done by setImmediate is done in real turns of the event loop. */
  install(): void {
    const add = (run: () => void, ms: number, every: number): unknown => {
      const timer: Timer = { at: this.now + Math.max(0, ms || 0), seq: this.#seq++, every, run };
      this.#timers.add(timer);
      return Object.assign(timer, { unref: () => timer, ref: () => timer });
    };
    Object.assign(globalThis, {
      setTimeout: (run: () => void, ms = 0) => add(run, ms, 0),
      setInterval: (run: () => void, ms = 0) => add(run, ms, Math.max(1, ms)),
      clearTimeout: (timer: Timer) => void this.#timers.delete(timer),
      clearInterval: (timer: Timer) => void this.#timers.delete(timer),
    });
  }

  restore(): void {
    Object.assign(globalThis, REAL);
    this.#timers.clear();
  }

  /** So many turns of the event loop: what was begun goes on by itself. */
  async turns(n: number): Promise<void> {
    for (let i = 0; i < n; i++) await new Promise<void>((resolve) => REAL.setImmediate(resolve));
  }

  /** Lets `ms` pass. */
  async pass(ms: number): Promise<void> {
    const end = this.now + ms;
    for (;;) {
      let next: Timer | null = null;
      for (const timer of this.#timers) {
        if (timer.at > end) continue;
        if (next === null || timer.at < next.at || (timer.at === next.at && timer.seq < next.seq)) next = timer;
      }
      if (next === null) break;
      this.now = Math.max(this.now, next.at);
      if (next.every > 0) next.at = this.now + next.every;
      else this.#timers.delete(next);
      next.run();
      await this.turns(2);
    }
    this.now = end;
  }
}
