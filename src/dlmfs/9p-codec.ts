/**
 * Bytes of 9P2000.L, both ways, driven by the table of 9p-messages.ts.
 *
 * Every count and length is checked against the bytes that are there before anything is made of it, and a body must be used
 * up exactly. What does not fit is a `Malformed`, never a throw: the peer's fault is not ours.
 */
import {
  HEADER_BYTES,
  type Kind,
  MESSAGES,
  type Message,
  type MessageName,
  QID_BYTES,
  type Qid,
  WALK_MAX,
} from './9p-messages.js';

/** A frame whose body makes no sense. The frame itself is whole, so the connection can go on. */
export interface Malformed {
  k: 'malformed';
  type: number;
  tag: number;
  why: string;
  /** No message of this number exists. */
  isUnknown: boolean;
}

interface Definition {
  name: MessageName;
  type: number;
  order: readonly (readonly [string, Kind])[];
}

const BY_TYPE: (Definition | undefined)[] = [];
const BY_NAME = new Map<string, Definition>();
for (const [name, { type, fields }] of Object.entries(MESSAGES)) {
  const definition: Definition = { name: name as MessageName, type, order: Object.entries(fields) as [string, Kind][] };
  BY_TYPE[type] = definition;
  BY_NAME.set(name, definition);
}

const utf8 = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true });
/** In front of names that are no UTF-8. */
const NOT_UTF8_MARK = '\ud800';

class Reader {
  readonly bytes: Buffer;
  at: number;
  fault: string | null = null;

  constructor(bytes: Buffer) {
    this.bytes = bytes;
    this.at = HEADER_BYTES;
  }

  /** True when so many bytes are left. */
  #has(count: number): boolean {
    if (this.bytes.length - this.at >= count) return true;
    this.fault ??= `${count} bytes wanted, ${this.bytes.length - this.at} left`;
    return false;
  }

  read(kind: Kind): unknown {
    const { bytes } = this;
    switch (kind) {
      case 'u8':
        return this.#has(1) ? bytes.readUInt8(this.#skip(1)) : 0;
      case 'u16':
        return this.#u16();
      case 'u32':
        return this.#u32();
      case 'u64':
        return this.#u64();
      case 'str':
        return this.#str();
      case 'names': {
        const count = this.#u16();
        if (count > WALK_MAX) {
          this.fault ??= `a walk of ${count} names, ${WALK_MAX} are allowed`;
          return [];
        }
        const names: string[] = [];
        for (let i = 0; i < count && this.fault === null; i++) names.push(this.#str());
        return names;
      }
      case 'qid':
        return this.#qid();
      case 'qids': {
        const count = this.#u16();
        const qids: Qid[] = [];
        if (!this.#has(count * QID_BYTES)) return qids;
        for (let i = 0; i < count; i++) qids.push(this.#qid());
        return qids;
      }
      case 'data': {
        const count = this.#u32();
        return this.#has(count) ? bytes.subarray(this.#skip(count), this.at) : new Uint8Array(0);
      }
    }
  }

  #skip(count: number): number {
    const at = this.at;
    this.at += count;
    return at;
  }
  #u16(): number {
    return this.#has(2) ? this.bytes.readUInt16LE(this.#skip(2)) : 0;
  }
  #u32(): number {
    return this.#has(4) ? this.bytes.readUInt32LE(this.#skip(4)) : 0;
  }
  #u64(): number {
    return this.#u32() + this.#u32() * 2 ** 32;
  }
  #str(): string {
    const count = this.#u16();
    if (!this.#has(count)) return '';
    const bytes = this.bytes.subarray(this.#skip(count), this.at);
    try {
      return utf8.decode(bytes);
    } catch {
      return NOT_UTF8_MARK + bytes.toString('latin1');
    }
  }
  #qid(): Qid {
    if (!this.#has(QID_BYTES)) return { type: 0, version: 0, path: 0 };
    const type = this.bytes.readUInt8(this.#skip(1));
    return { type, version: this.#u32(), path: this.#u64() };
  }
}

/** One whole frame, size word included. */
export function decode(frame: Buffer): Message | Malformed {
  const type = frame.readUInt8(4);
  const tag = frame.readUInt16LE(5);
  const definition = BY_TYPE[type];
  if (definition === undefined) return { k: 'malformed', type, tag, why: `message type ${type} is not known`, isUnknown: true };
  const reader = new Reader(frame);
  const message: Record<string, unknown> = { k: definition.name, tag };
  for (const [name, kind] of definition.order) message[name] = reader.read(kind);
  const rest = frame.length - reader.at;
  const why = reader.fault ?? (rest > 0 ? `${rest} bytes too many` : null);
  if (why !== null) return { k: 'malformed', type, tag, why: `${definition.name}: ${why}`, isUnknown: false };
  return message as Message;
}

/** The frame of a message. */
export function encode(message: Message): Buffer {
  const { k, tag } = message;
  const { type, order } = BY_NAME.get(k) as Definition;
  const fields = message as unknown as Record<string, unknown>;
  let size = HEADER_BYTES;
  for (const [name, kind] of order) size += sizeOf(kind, fields[name]);
  const bytes = Buffer.allocUnsafe(size);
  bytes.writeUInt32LE(size, 0);
  bytes.writeUInt8(type, 4);
  bytes.writeUInt16LE(tag, 5);
  let at = HEADER_BYTES;
  for (const [name, kind] of order) at = write(bytes, at, kind, fields[name]);
  return bytes;
}

const FIXED: Partial<Record<Kind, number>> = { u8: 1, u16: 2, u32: 4, u64: 8, qid: QID_BYTES };

function sizeOf(kind: Kind, value: unknown): number {
  const fixed = FIXED[kind];
  if (fixed !== undefined) return fixed;
  if (kind === 'str') return 2 + Buffer.byteLength(value as string);
  if (kind === 'data') return 4 + (value as Uint8Array).length;
  if (kind === 'qids') return 2 + (value as Qid[]).length * QID_BYTES;
  return (value as string[]).reduce((sum, name) => sum + 2 + Buffer.byteLength(name), 2);
}

function write(bytes: Buffer, at: number, kind: Kind, value: unknown): number {
  switch (kind) {
    case 'u8':
      return bytes.writeUInt8(value as number, at);
    case 'u16':
      return bytes.writeUInt16LE(value as number, at);
    case 'u32':
      return bytes.writeUInt32LE(value as number, at);
    case 'u64':
      return writeU64(bytes, at, value as number);
    case 'str':
      return writeStr(bytes, at, value as string);
    case 'names': {
      let next = bytes.writeUInt16LE((value as string[]).length, at);
      for (const name of value as string[]) next = writeStr(bytes, next, name);
      return next;
    }
    case 'qid':
      return writeQid(bytes, at, value as Qid);
    case 'qids': {
      let next = bytes.writeUInt16LE((value as Qid[]).length, at);
      for (const qid of value as Qid[]) next = writeQid(bytes, next, qid);
      return next;
    }
    case 'data': {
      const next = bytes.writeUInt32LE((value as Uint8Array).length, at);
      bytes.set(value as Uint8Array, next);
      return next + (value as Uint8Array).length;
    }
  }
}

function writeU64(bytes: Buffer, at: number, value: number): number {
  bytes.writeUInt32LE(value % 2 ** 32, at);
  return bytes.writeUInt32LE(Math.floor(value / 2 ** 32), at + 4);
}
function writeStr(bytes: Buffer, at: number, value: string): number {
  const count = bytes.write(value, at + 2);
  bytes.writeUInt16LE(count, at);
  return at + 2 + count;
}
function writeQid(bytes: Buffer, at: number, qid: Qid): number {
  bytes.writeUInt8(qid.type, at);
  bytes.writeUInt32LE(qid.version, at + 1);
  return writeU64(bytes, at + 5, qid.path);
}

/** One directory entry of an Rreaddir's data; `offset` is what the client comes back with to go on behind it. */
export function encodeEntry(entry: { qid: Qid; offset: number; type: number; name: string }): Buffer {
  const bytes = Buffer.allocUnsafe(QID_BYTES + 8 + 1 + 2 + Buffer.byteLength(entry.name));
  let at = writeQid(bytes, 0, entry.qid);
  at = writeU64(bytes, at, entry.offset);
  at = bytes.writeUInt8(entry.type, at);
  writeStr(bytes, at, entry.name);
  return bytes;
}

/** The entries of an Rreaddir's data (for clients); bytes that make no sense end the list. */
export function decodeEntries(data: Uint8Array): { qid: Qid; offset: number; type: number; name: string }[] {
  const bytes = Buffer.from(data.buffer, data.byteOffset, data.byteLength);
  const entries: { qid: Qid; offset: number; type: number; name: string }[] = [];
  for (let at = 0; at + QID_BYTES + 11 <= bytes.length; ) {
    const qid = { type: bytes.readUInt8(at), version: bytes.readUInt32LE(at + 1), path: bytes.readUInt32LE(at + 5) };
    const offset = bytes.readUInt32LE(at + 13) + bytes.readUInt32LE(at + 17) * 2 ** 32;
    const end = at + QID_BYTES + 11 + bytes.readUInt16LE(at + 22);
    if (end > bytes.length) break;
    entries.push({ qid, offset, type: bytes.readUInt8(at + 21), name: bytes.toString('utf8', at + 24, end) });
    at = end;
  }
  return entries;
}

/** Cuts a stream of bytes into frames. */
export class FrameReader {
  #parts: Buffer[] = [];
  #length = 0;
  /** Bytes that must be there before it is worth looking again: a frame in many pieces is put together once. */
  #wanted = 4;
  /** Largest frame taken. */
  limit: number;

  constructor(limit: number) {
    this.limit = limit;
  }

  /** False when a size makes no sense: nothing after it can be trusted. */
  push(chunk: Buffer, onFrame: (frame: Buffer) => void): boolean {
    this.#parts.push(chunk);
    this.#length += chunk.length;
    if (this.#length < this.#wanted) return true;
    let bytes = this.#parts.length === 1 ? chunk : Buffer.concat(this.#parts, this.#length);
    this.#wanted = 4;
    while (bytes.length >= 4) {
      const size = bytes.readUInt32LE(0);
      if (size < HEADER_BYTES || size > this.limit) return false;
      if (bytes.length < size) {
        this.#wanted = size;
        break;
      }
      onFrame(bytes.subarray(0, size));
      bytes = bytes.subarray(size);
    }
    this.#parts = bytes.length > 0 ? [bytes] : [];
    this.#length = bytes.length;
    return true;
  }
}
