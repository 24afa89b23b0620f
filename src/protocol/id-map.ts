/**
 * A map from numbers to objects for entries that come and go all the time.
 *
 * The problem: JavaScript's Map is made for tables that grow. Where each entry lives for microseconds it is rebuilt again and
 * again, each rebuilt table points to its successor, and once one of them has become old for the garbage collector, all
 * later ones with everything in them stay until the next full collection: measured, two thirds of the time of a busy client
 * went into collecting that. The idea: open addressing in place, with deletion that moves the followers up: no entry costs
 * garbage, and iteration goes in the order of insertion like a Map's, through links between the slots.
 *
 * Keys are unsigned integers below 2^53. They may come from outside: `salt` keeps strangers from choosing keys that collide.
 */

const FREE = -1;
const NONE = -1;
const CAPACITY_MIN = 16;

export class IdMap<V> {
  #keys: Float64Array;
  #values: (V | undefined)[];
  /** Order of insertion. */
  #next: Int32Array;
  #prev: Int32Array;
  #first = NONE;
  #last = NONE;
  #mask: number;
  #size = 0;
  readonly #salt: number;

  constructor(salt = 0) {
    this.#salt = salt | 0;
    this.#mask = CAPACITY_MIN - 1;
    this.#keys = new Float64Array(CAPACITY_MIN).fill(FREE);
    this.#values = new Array<V | undefined>(CAPACITY_MIN).fill(undefined);
    this.#next = new Int32Array(CAPACITY_MIN);
    this.#prev = new Int32Array(CAPACITY_MIN);
  }

  get size(): number {
    return this.#size;
  }

  /** Where the search for a key begins: both halves of the number, mixed (murmur3's finish). */
  #home(key: number): number {
    let h = (key | 0) ^ this.#salt ^ Math.imul((key / 4294967296) | 0, 0x9e3779b1);
    h = Math.imul(h ^ (h >>> 16), 0x85ebca6b);
    h = Math.imul(h ^ (h >>> 13), 0xc2b2ae35);
    return (h ^ (h >>> 16)) & this.#mask;
  }

  /** The slot of the key, or the free one where it would go. */
  #slot(key: number): number {
    const keys = this.#keys;
    let i = this.#home(key);
    while (keys[i] !== key && keys[i] !== FREE) i = (i + 1) & this.#mask;
    return i;
  }

  get(key: number): V | undefined {
    return this.#size === 0 ? undefined : this.#values[this.#slot(key)];
  }

  has(key: number): boolean {
    return this.#size !== 0 && this.#keys[this.#slot(key)] === key;
  }

  set(key: number, value: V): this {
    let i = this.#slot(key);
    if (this.#keys[i] === key) {
      this.#values[i] = value;
      return this;
    }
    if ((this.#size + 1) * 4 > (this.#mask + 1) * 3) {
      this.#grow();
      i = this.#slot(key);
    }
    this.#keys[i] = key;
    this.#values[i] = value;
    this.#next[i] = NONE;
    this.#prev[i] = this.#last;
    if (this.#last === NONE) this.#first = i;
    else this.#next[this.#last] = i;
    this.#last = i;
    this.#size++;
    return this;
  }

  delete(key: number): boolean {
    if (this.#size === 0) return false;
    let hole = this.#slot(key);
    if (this.#keys[hole] !== key) return false;
    const before = this.#prev[hole] as number;
    const after = this.#next[hole] as number;
    if (before === NONE) this.#first = after;
    else this.#next[before] = after;
    if (after === NONE) this.#last = before;
    else this.#prev[after] = before;
    this.#size--;
    // Moves up what was displaced past the hole, so that no search ends at it too early.
    const keys = this.#keys;
    const mask = this.#mask;
    for (let i = (hole + 1) & mask; keys[i] !== FREE; i = (i + 1) & mask) {
      const home = this.#home(keys[i] as number);
      if (((i - home) & mask) < ((i - hole) & mask)) continue;
      this.#move(i, hole);
      hole = i;
    }
    keys[hole] = FREE;
    this.#values[hole] = undefined;
    return true;
  }

  #move(from: number, to: number): void {
    const before = this.#prev[from] as number;
    const after = this.#next[from] as number;
    this.#keys[to] = this.#keys[from] as number;
    this.#values[to] = this.#values[from];
    this.#prev[to] = before;
    this.#next[to] = after;
    if (before === NONE) this.#first = to;
    else this.#next[before] = to;
    if (after === NONE) this.#last = to;
    else this.#prev[after] = to;
  }

  #grow(): void {
    const keys = this.#keys;
    const values = this.#values;
    const next = this.#next;
    let i = this.#first;
    this.#reset((this.#mask + 1) * 2);
    for (; i !== NONE; i = next[i] as number) this.set(keys[i] as number, values[i] as V);
  }

  #reset(capacity: number): void {
    this.#mask = capacity - 1;
    this.#keys = new Float64Array(capacity).fill(FREE);
    this.#values = new Array<V | undefined>(capacity).fill(undefined);
    this.#next = new Int32Array(capacity);
    this.#prev = new Int32Array(capacity);
    this.#first = this.#last = NONE;
    this.#size = 0;
  }

  clear(): void {
    this.#reset(CAPACITY_MIN);
  }

  /** Keys and values, otherwise like `values`. */
  entries(): [number, V][] {
    const all: [number, V][] = [];
    for (let i = this.#first; i !== NONE; i = this.#next[i] as number) all.push([this.#keys[i] as number, this.#values[i] as V]);
    return all;
  }

  /** What is in the table now, in the order of insertion; a copy, so the table may be changed meanwhile. */
  values(): V[] {
    const all: V[] = [];
    for (let i = this.#first; i !== NONE; i = this.#next[i] as number) all.push(this.#values[i] as V);
    return all;
  }
}
