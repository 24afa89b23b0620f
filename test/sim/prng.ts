/**
 * The problem: a failure found by chance is worth nothing unless the same chance can be had again.
 * The idea: one generator seeded by one number; each part of a run draws from its own fork, so that switching one kind of
 * fault off does not change what the others draw. Not for secrets.
 */
export class Prng {
  #a: number;
  #b: number;
  #c: number;
  #d: number;

  /** `seed`: any integer; `stream` keeps forks of one seed apart. */
  constructor(seed: number, stream = 0) {
    this.#a = seed >>> 0;
    this.#b = Math.floor(seed / 0x1_0000_0000) >>> 0;
    this.#c = (stream ^ 0x9e3779b9) >>> 0;
    this.#d = 1;
    for (let i = 0; i < 15; i++) this.u32();
  }

  /** 32 random bits (sfc32). */
  u32(): number {
    const t = (this.#a + this.#b + this.#d) >>> 0;
    this.#d = (this.#d + 1) >>> 0;
    this.#a = this.#b ^ (this.#b >>> 9);
    this.#b = (this.#c + (this.#c << 3)) >>> 0;
    this.#c = ((this.#c << 21) | (this.#c >>> 11)) >>> 0;
    this.#c = (this.#c + t) >>> 0;
    return t;
  }

  /** In [0, 1). */
  float(): number {
    return this.u32() / 0x1_0000_0000;
  }

  /** Integer in [0, n). */
  int(n: number): number {
    return Math.floor(this.float() * n);
  }

  /** Number in [low, high). */
  between(low: number, high: number): number {
    return low + this.float() * (high - low);
  }

  chance(p: number): boolean {
    return this.float() < p;
  }

  /** Exponential with the given mean, cut at 20 means. */
  exp(mean: number): number {
    return Math.min(20, -Math.log(1 - this.float())) * mean;
  }

  pick<T>(list: readonly T[]): T {
    if (list.length === 0) throw new Error('pick from an empty list');
    return list[this.int(list.length)] as T;
  }

  /** One of the keys, by weight; keys with weight 0 never. */
  weighted<K extends string>(weights: Readonly<Record<K, number>>): K {
    const keys = Object.keys(weights) as K[];
    let total = 0;
    for (const key of keys) total += weights[key];
    let at = this.float() * total;
    for (const key of keys) {
      at -= weights[key];
      if (at < 0) return key;
    }
    return keys[keys.length - 1] as K;
  }

  shuffle<T>(list: T[]): T[] {
    for (let i = list.length - 1; i > 0; i--) {
      const j = this.int(i + 1);
      const x = list[i] as T;
      list[i] = list[j] as T;
      list[j] = x;
    }
    return list;
  }
}
