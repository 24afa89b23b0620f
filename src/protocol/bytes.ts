/**
 * Writing and reading the plain values of the fixed layouts, and how a byte door says that it was given nonsense.
 *
 * The problem: the hot messages are written and read a million times a second, from bytes that nobody vouches for. The idea:
 * tiny functions on a buffer and an offset; writers trust their caller (our own, typed values) except for text lengths, readers
 * trust nothing and throw TSDLM_BAD_FRAME. All numbers are little-endian, all text is UTF-8 after one length byte.
 *
 * Left to others: which field goes where (fixed-*.ts), frames (frame.ts).
 */
import { InvariantError, TsdlmError } from './errors.js';

const TWO_32 = 4294967296;

export function badFrame(text: string): TsdlmError {
  return new TsdlmError('TSDLM_BAD_FRAME', text);
}

export function putU32(b: Uint8Array, p: number, v: number): number {
  b[p] = v;
  b[p + 1] = v >>> 8;
  b[p + 2] = v >>> 16;
  b[p + 3] = v >>> 24;
  return p + 4;
}

/** Unsigned integer below 2^53 in eight bytes. */
export function putU53(b: Uint8Array, p: number, v: number): number {
  putU32(b, p, v >>> 0);
  return putU32(b, p + 4, (v / TWO_32) >>> 0);
}

/** Unsigned integer below 2^48 in six bytes (sequence numbers). */
export function putU48(b: Uint8Array, p: number, v: number): number {
  putU32(b, p, v >>> 0);
  const high = (v / TWO_32) >>> 0;
  b[p + 4] = high;
  b[p + 5] = high >>> 8;
  return p + 6;
}

const F64 = new Float64Array(1);
const F64_BYTES = new Uint8Array(F64.buffer);
const HOST_IS_LITTLE = new Uint8Array(new Uint16Array([1]).buffer)[0] === 1;

/** Any double, IEEE 754. */
export function putF64(b: Uint8Array, p: number, v: number): number {
  F64[0] = v;
  for (let i = 0; i < 8; i++) b[p + i] = F64_BYTES[HOST_IS_LITTLE ? i : 7 - i] as number;
  return p + 8;
}

/** One length byte and the text. The caller's text is within `max` (at most 255) bytes, or it is a bug of ours. */
export function putText(b: Buffer, p: number, s: string, max: number): number {
  const n = s.length;
  if (n <= 48) {
    let i = 0;
    for (; i < n; i++) {
      const c = s.charCodeAt(i);
      if (c > 0x7f) break;
      b[p + 1 + i] = c;
    }
    if (i === n && n <= max) {
      b[p] = n;
      return p + 1 + n;
    }
  }
  const bytes = Buffer.byteLength(s);
  if (bytes > max) throw new InvariantError(`text of ${bytes} bytes where at most ${max} fit: ${s.slice(0, 40)}`);
  b[p] = bytes;
  return p + 1 + b.write(s, p + 1, bytes, 'utf8');
}

/** One byte: 0 = null, 64 = the block follows. */
export function putLvb(b: Uint8Array, p: number, v: Uint8Array | null): number {
  if (v === null) {
    b[p] = 0;
    return p + 1;
  }
  if (v.length !== 64) throw new InvariantError(`lock value block of ${v.length} bytes, must be 64`);
  b[p] = 64;
  b.set(v, p + 1);
  return p + 65;
}

const NOTHING = Buffer.alloc(0);
const UTF8 = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true });

/**
 * The same few texts come again and again: a name in each message about it, domains, labels. Remembering the last ones saves
 * making the string, and the one that comes back carries its hash for the maps it is looked up in. A collision only costs.
 */
const RECENT: (string | undefined)[] = new Array<string | undefined>(1024).fill(undefined);

/** The ASCII text of `n` bytes at `p`. */
function recentText(b: Buffer, p: number, n: number, hash: number): string {
  const slot = (hash ^ (hash >>> 10)) & 1023;
  const known = RECENT[slot];
  if (known !== undefined && known.length === n) {
    let i = 0;
    while (i < n && known.charCodeAt(i) === b[p + i]) i++;
    if (i === n) return known;
  }
  const made = b.toString('latin1', p, p + n);
  RECENT[slot] = made;
  return made;
}

/**
 * Reads the values of one body, front to back. One instance serves a whole process: readers are used strictly one after the
 * other, and a fresh object for each message would cost as much as the reading.
 */
export class BodyReader {
  #b: Buffer = NOTHING;
  #p = 0;
  #end = 0;

  start(b: Buffer, start: number, end: number): void {
    this.#b = b;
    this.#p = start;
    this.#end = end;
  }

  /** All bytes must be used up; a newer minor version of the peer may have added fields, which are passed over. */
  finish(lenient: boolean): void {
    if (this.#p !== this.#end && !lenient) throw badFrame(`${this.#end - this.#p} bytes too many in the body`);
    this.#b = NOTHING;
  }

  #take(n: number): number {
    const p = this.#p;
    if (p + n > this.#end) throw badFrame(`body ends ${p + n - this.#end} bytes too early`);
    this.#p = p + n;
    return p;
  }

  u8(): number {
    return this.#b[this.#take(1)] as number;
  }

  /** A byte that must not exceed `max`. */
  upTo(max: number, what: string): number {
    const v = this.u8();
    if (v > max) throw badFrame(`${what} ${v} is above ${max}`);
    return v;
  }

  u32(): number {
    const p = this.#take(4);
    const b = this.#b;
    return ((b[p] as number) | ((b[p + 1] as number) << 8) | ((b[p + 2] as number) << 16) | ((b[p + 3] as number) << 24)) >>> 0;
  }

  u53(): number {
    const low = this.u32();
    const high = this.u32();
    if (high > 0x1fffff) throw badFrame('number of 2^53 or more');
    return high * TWO_32 + low;
  }

  /** A finite double. */
  num(): number {
    const p = this.#take(8);
    for (let i = 0; i < 8; i++) F64_BYTES[HOST_IS_LITTLE ? i : 7 - i] = this.#b[p + i] as number;
    const v = F64[0] as number;
    if (!Number.isFinite(v)) throw badFrame(`${v} is no finite number`);
    return v;
  }

  /** Text of `least` to `max` bytes, with the bans of names (no NUL) and domains (no '/'). */
  text(max: number, least: number, noNul: boolean, noSlash: boolean): string {
    const n = this.u8();
    if (n > max || n < least) throw badFrame(`text of ${n} bytes, must be ${least} to ${max}`);
    if (n === 0) return '';
    const p = this.#take(n);
    const b = this.#b;
    const end = p + n;
    let seen = 0;
    let hash = n;
    for (let i = p; i < end; i++) {
      const c = b[i] as number;
      if (c === 0 && noNul) throw badFrame('NUL byte in a name');
      if (c === 0x2f && noSlash) throw badFrame("'/' in a domain name");
      seen |= c;
      hash = (Math.imul(hash, 31) + c) | 0;
    }
    if (seen < 0x80) return recentText(b, p, n, hash);
    try {
      return UTF8.decode(b.subarray(p, end));
    } catch {
      throw badFrame('text is not valid UTF-8');
    }
  }

  /** A copy: the value block lives on, the network buffer does not. */
  lvb(): Uint8Array | null {
    const n = this.u8();
    if (n === 0) return null;
    if (n !== 64) throw badFrame(`lock value block of ${n} bytes, must be 64`);
    const p = this.#take(64);
    return new Uint8Array(this.#b.subarray(p, p + 64));
  }
}
