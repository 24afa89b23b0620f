/**
 * The problem: a failing run must be readable, two runs of one seed comparable, and neither may cost much in the thousands
 * of runs that do not fail.
 * The idea: an entry is a time, a node and a few plain values. All are mixed into a running hash; the last ones are kept as they are
 * and made into text only when somebody wants to read them.
 */
export type TraceValue = string | number | boolean | null;

const KEPT = 4096;

/** Hashes of words seen before, for all runs of this process. */
const hashes = new Map<string, number>();

export class Trace {
  #hash = 0x811c9dc5;
  readonly #ring: (readonly TraceValue[] | undefined)[] = new Array(KEPT);
  #count = 0;
  /** Gets every line as text when set. */
  print: ((line: string) => void) | null = null;

  get count(): number {
    return this.#count;
  }

  /** `node` 0 = the world itself. `what` is one stable word, the rest its details. */
  add(at: number, node: number, what: string, ...rest: TraceValue[]): void {
    const entry = [at, node, what, ...rest];
    for (let i = 0; i < entry.length; i++) this.#mix(entry[i] as TraceValue);
    this.#ring[this.#count++ % KEPT] = entry;
    if (this.print) this.print(format(entry));
  }

  /** The same for the same seed and code: 8 hex digits. */
  get hash(): string {
    return (this.#hash >>> 0).toString(16).padStart(8, '0');
  }

  /** The last `n` lines. */
  tail(n: number): string[] {
    const out: string[] = [];
    for (let i = Math.max(0, this.#count - Math.min(n, KEPT)); i < this.#count; i++) {
      out.push(format(this.#ring[i % KEPT] as readonly TraceValue[]));
    }
    return out;
  }

  #mix(value: TraceValue): void {
    let x: number;
    if (typeof value === 'number') x = (value * 1000) | 0;
    else if (typeof value === 'string') x = hashOf(value);
    else x = value === null ? 3 : value ? 1 : 2;
    this.#hash = Math.imul(this.#hash ^ x, 0x01000193) ^ (this.#hash >>> 15);
  }
}

function hashOf(text: string): number {
  const known = hashes.get(text);
  if (known !== undefined) return known;
  let h = 0x811c9dc5;
  for (let i = 0; i < text.length; i++) h = Math.imul(h ^ text.charCodeAt(i), 0x01000193);
  if (hashes.size < 20_000) hashes.set(text, h);
  return h;
}

function format(entry: readonly TraceValue[]): string {
  const [at, node, what, ...rest] = entry;
  const time = (at as number).toFixed(3).padStart(10);
  return `${time} ${node === 0 ? '--' : `n${node}`} ${what} ${rest.map((v) => (v === null ? '-' : String(v))).join(' ')}`;
}
