/**
 * A small seeded generator for election time-outs.
 *
 * The problem: voters whose time-outs run out together split the vote, so the time-outs must differ; but the same code runs
 * under a simulator that has to replay a run exactly. So the randomness is a seed, given once, and 32 bits of state.
 * Not for secrets.
 */
export class Random {
  private state: number;

  constructor(seed: number) {
    this.state = seed >>> 0;
  }

  /** The next number in [0, 1). */
  next(): number {
    // A Weyl sequence (golden ratio step) through a 32-bit finaliser.
    this.state = (this.state + 0x9e3779b9) >>> 0;
    let x = this.state;
    x = Math.imul(x ^ (x >>> 16), 0x21f0aaad);
    x = Math.imul(x ^ (x >>> 15), 0x735a2d97);
    return ((x ^ (x >>> 15)) >>> 0) / 2 ** 32;
  }
}
