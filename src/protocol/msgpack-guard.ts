/**
 * Looks a msgpack body over before it is decoded.
 *
 * The problem: a decoder believes counts. Five bytes that announce an array of thirty million elements make it reserve the
 * memory first and find the body too short afterwards; nested, a frame of 4 KB could ask for more than the machine has.
 * The idea: one pass over the bytes that allocates nothing: every announced length must fit into what is left, an element is
 * at least one byte, nesting is bounded, extension types (which can name code paths of the decoder) do not exist here, exactly
 * one value fills the body. What passes costs the decoder memory in proportion to the frame, and frames are limited.
 */
import { badFrame } from './bytes.js';

/** Deepest message: list of records of plain data of eight levels, and some room. */
export const DEPTH_MAX = 16;

/** Throws TSDLM_BAD_FRAME unless b[start..end) is exactly one sound msgpack value without extension types. */
export function guardMsgpack(b: Uint8Array, start: number, end: number): void {
  if (walk(b, start, end, 0) !== end) throw badFrame('bytes behind the msgpack value');
}

function lengthAt(b: Uint8Array, p: number, width: number, end: number): number {
  if (p + width > end) throw badFrame('msgpack body ends inside a length');
  let n = 0;
  for (let i = 0; i < width; i++) n = n * 256 + (b[p + i] as number);
  return n;
}

function skip(p: number, n: number, end: number): number {
  if (p + n > end) throw badFrame('msgpack body ends inside a value');
  return p + n;
}

function walkMany(b: Uint8Array, at: number, end: number, count: number, depth: number): number {
  if (depth >= DEPTH_MAX) throw badFrame(`msgpack body is nested deeper than ${DEPTH_MAX}`);
  if (count > end - at) throw badFrame(`msgpack body announces ${count} elements in ${end - at} bytes`);
  let p = at;
  for (let i = 0; i < count; i++) p = walk(b, p, end, depth + 1);
  return p;
}

/** Keys must be text: a decoder would otherwise make them so in ways of its own. */
function walkMap(b: Uint8Array, at: number, end: number, count: number, depth: number): number {
  if (depth >= DEPTH_MAX) throw badFrame(`msgpack body is nested deeper than ${DEPTH_MAX}`);
  if (count * 2 > end - at) throw badFrame(`msgpack body announces ${count} pairs in ${end - at} bytes`);
  let p = at;
  for (let i = 0; i < count; i++) {
    const tag = b[p] as number;
    if (!((tag >= 0xa0 && tag <= 0xbf) || (tag >= 0xd9 && tag <= 0xdb))) throw badFrame('map key is not text');
    p = walk(b, p, end, depth + 1);
    p = walk(b, p, end, depth + 1);
  }
  return p;
}

/** Returns the offset behind the value at `p`. */
function walk(b: Uint8Array, at: number, end: number, depth: number): number {
  if (at >= end) throw badFrame('msgpack body ends before its value');
  const tag = b[at] as number;
  const p = at + 1;
  if (tag <= 0x7f || tag >= 0xe0) return p;
  if (tag <= 0x8f) return walkMap(b, p, end, tag & 0x0f, depth);
  if (tag <= 0x9f) return walkMany(b, p, end, tag & 0x0f, depth);
  if (tag <= 0xbf) return skip(p, tag & 0x1f, end);
  switch (tag) {
    case 0xc0: // nil
    case 0xc2: // false
    case 0xc3: // true
      return p;
    case 0xc4: // bin 8, 16, 32
    case 0xc5:
    case 0xc6: {
      const width = 1 << (tag - 0xc4);
      return skip(p + width, lengthAt(b, p, width, end), end);
    }
    case 0xca: // float 32
    case 0xce: // uint 32
    case 0xd2: // int 32
      return skip(p, 4, end);
    case 0xcb: // float 64
    case 0xcf: // uint 64
    case 0xd3: // int 64
      return skip(p, 8, end);
    case 0xcc: // uint 8
    case 0xd0: // int 8
      return skip(p, 1, end);
    case 0xcd: // uint 16
    case 0xd1: // int 16
      return skip(p, 2, end);
    case 0xd9: // str 8, 16, 32
    case 0xda:
    case 0xdb: {
      const width = 1 << (tag - 0xd9);
      return skip(p + width, lengthAt(b, p, width, end), end);
    }
    case 0xdc: // array 16, 32
    case 0xdd: {
      const width = tag === 0xdc ? 2 : 4;
      return walkMany(b, p + width, end, lengthAt(b, p, width, end), depth);
    }
    case 0xde: // map 16, 32
    case 0xdf: {
      const width = tag === 0xde ? 2 : 4;
      return walkMap(b, p + width, end, lengthAt(b, p, width, end), depth);
    }
    default:
      throw badFrame(`msgpack type 0x${tag.toString(16)} is not used in this protocol`);
  }
}
