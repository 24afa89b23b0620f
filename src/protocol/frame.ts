/**
 * Frames: where one message ends and the next begins.
 *
 *   u32 length (little-endian, of what follows) | u8 type | for types 0x40..0x7f: u48 sequence number | body
 *
 * The problem: a stream arrives in any pieces, from anybody. The idea: the length word is judged before anything is kept for
 * it; whole frames are handed on as a place in the chunk they came in, nothing is copied but the frame that a chunk cuts in
 * two. Writing goes into one growing buffer, so that a turn of the event loop costs one write, however many messages it made.
 *
 * Left to others: what a body means (codec.ts), when to write (the owner of the socket).
 */
import { putU32, putU48 } from './bytes.js';
import { type AnyMessage, codecOf, decodeAt, FIXED_BYTES_MAX } from './codec.js';
import { InvariantError, TsdlmError } from './errors.js';
import { PEER_FRAME_BYTES_MAX } from './limits.js';

/** Length word and type. */
export const FRAME_HEADER_BYTES = 5;
export const SEQ_BYTES = 6;
/** Types with a sequence number behind the type: the lock class of peer-messages.ts. */
export const SEQUENCED_MIN = 0x40;
export const SEQUENCED_MAX = 0x7f;

export function isSequenced(type: number): boolean {
  return type >= SEQUENCED_MIN && type <= SEQUENCED_MAX;
}

/** One whole frame: its type, and its content b[start..end) behind the type byte. Valid only during the call. */
export type OnFrame = (type: number, b: Buffer, start: number, end: number) => void;

const EMPTY = Buffer.alloc(0);

/** Cuts a byte stream into frames. */
export class FrameReader {
  #frameBytesMax: number;
  /** The frame under way, when a chunk ended inside it: #held[0..#heldBytes). */
  #held = EMPTY;
  #heldBytes = 0;
  #stopped = false;

  constructor(options: { frameBytesMax: number }) {
    this.#frameBytesMax = options.frameBytesMax;
  }

  /** Bytes kept of a frame that has not arrived in full. */
  get heldBytes(): number {
    return this.#heldBytes;
  }

  /** Another limit from the next frame on (after the handshake). */
  setFrameBytesMax(bytes: number): void {
    this.#frameBytesMax = bytes;
  }

  /** No frame is handed on any more, not even from the chunk under way. For callers that close inside their OnFrame. */
  stop(): void {
    this.#stopped = true;
    this.#held = EMPTY;
    this.#heldBytes = 0;
  }

  /**
   * Takes the next bytes and hands on every frame that is complete. Returns an error (TSDLM_FRAME_TOO_LARGE, TSDLM_BAD_FRAME)
   * instead of throwing it: what is thrown from here came out of `onFrame`. After an error the reader is stopped.
   */
  push(chunk: Buffer, onFrame: OnFrame): TsdlmError | null {
    if (this.#stopped) return null;
    let at = 0;
    // First complete the frame that the last chunk left cut in two.
    while (this.#heldBytes > 0) {
      const need = this.#heldBytes < 4 ? 4 : 4 + this.#held.readUInt32LE(0);
      if (this.#heldBytes >= 4) {
        const error = this.#judge(need - 4);
        if (error) return error;
      }
      if (this.#heldBytes === need) {
        const frame = this.#held;
        this.#held = EMPTY;
        this.#heldBytes = 0;
        onFrame(frame[4] as number, frame, FRAME_HEADER_BYTES, need);
        if (this.#stopped) return null;
        break;
      }
      if (at === chunk.length) return null;
      at += this.#hold(chunk, at, need - this.#heldBytes, need);
    }
    const end = chunk.length;
    while (end - at >= 4) {
      const length = chunk.readUInt32LE(at);
      const error = this.#judge(length);
      if (error) return error;
      const next = at + 4 + length;
      if (next > end) break;
      onFrame(chunk[at + 4] as number, chunk, at + FRAME_HEADER_BYTES, next);
      if (this.#stopped) return null;
      at = next;
    }
    if (at < end) this.#hold(chunk, at, end - at, end - at);
    return null;
  }

  /** Copies up to `count` bytes; room grows with what has arrived, never with what was announced. */
  #hold(chunk: Buffer, at: number, count: number, need: number): number {
    const take = Math.min(count, chunk.length - at);
    const bytes = this.#heldBytes + take;
    if (bytes > this.#held.length) {
      const room = Buffer.allocUnsafeSlow(Math.max(bytes, Math.min(need, Math.max(64, this.#held.length * 2))));
      this.#held.copy(room, 0, 0, this.#heldBytes);
      this.#held = room;
    }
    chunk.copy(this.#held, this.#heldBytes, at, at + take);
    this.#heldBytes = bytes;
    return take;
  }

  #judge(length: number): TsdlmError | null {
    if (length > this.#frameBytesMax) {
      this.stop();
      return new TsdlmError(
        'TSDLM_FRAME_TOO_LARGE',
        `frame of ${length} bytes announced, at most ${this.#frameBytesMax} are allowed: the other side does not speak this protocol, or sends too much at once`,
      );
    }
    if (length < 1) {
      this.stop();
      return new TsdlmError('TSDLM_BAD_FRAME', 'frame without a type');
    }
    return null;
  }
}

const SLAB_MIN = 4096;
const SLAB_MAX = 64 * 1024;

/** Collects the frames of one turn for one connection. The bytes that take() returns are never written again. */
export class FrameWriter {
  #slab: Buffer = EMPTY;
  #from = 0;
  #pos = 0;
  /** Full slabs of this turn. */
  #parts: Buffer[] = [];
  #partBytes = 0;
  #frameStart = 0;
  readonly #frameBytesMax: number;

  constructor(options: { frameBytesMax?: number } = {}) {
    this.#frameBytesMax = options.frameBytesMax ?? PEER_FRAME_BYTES_MAX;
  }

  /** Bytes waiting for take(). */
  get bytes(): number {
    return this.#partBytes + this.#pos - this.#from;
  }
  /** Where the last frame pushed lies: slab[frameStart..frameEnd). For those who keep it (LinkState). */
  get slab(): Buffer {
    return this.#slab;
  }
  get frameStart(): number {
    return this.#frameStart;
  }
  get frameEnd(): number {
    return this.#pos;
  }

  /**
   * Appends one frame and returns its bytes, length word included. `seq`: for lock messages between daemons only. Throws
   * TSDLM_FRAME_TOO_LARGE, and appends nothing, when the frame is above the writer's limit.
   */
  push(m: AnyMessage, seq = 0): number {
    const codec = codecOf(m);
    const sequenced = isSequenced(codec.type);
    const header = sequenced ? FRAME_HEADER_BYTES + SEQ_BYTES : FRAME_HEADER_BYTES;
    let body: Buffer | null = null;
    if (codec.encodePacked) {
      body = codec.encodePacked(m);
      if (header - 4 + body.length > this.#frameBytesMax) {
        throw new TsdlmError(
          'TSDLM_FRAME_TOO_LARGE',
          `${codec.name} of ${body.length} bytes is above the limit of ${this.#frameBytesMax} bytes for one frame`,
        );
      }
      this.#room(header + body.length);
    } else {
      this.#room(header + FIXED_BYTES_MAX);
    }
    const b = this.#slab;
    const start = this.#pos;
    b[start + 4] = codec.type;
    if (sequenced) putU48(b, start + FRAME_HEADER_BYTES, seq);
    let end = start + header;
    if (body) {
      body.copy(b, end);
      end += body.length;
    } else if (codec.encodeFixed) {
      end = codec.encodeFixed(b, end, m);
    }
    if (end > b.length) throw new InvariantError(`${codec.name}: body is longer than its layout allows`);
    putU32(b, start, end - start - 4);
    this.#frameStart = start;
    this.#pos = end;
    return end - start;
  }

  /** Everything since the last take, as one buffer. Empty when there is nothing. */
  take(): Buffer {
    const tail = this.#slab.subarray(this.#from, this.#pos);
    this.#from = this.#pos;
    if (this.#parts.length === 0) return tail;
    this.#parts.push(tail);
    const all = Buffer.concat(this.#parts);
    this.#parts = [];
    this.#partBytes = 0;
    return all;
  }

  /** Makes room for `n` more bytes in one piece. Slabs follow the traffic: an idle connection keeps 4 KB, a busy one 64 KB. */
  #room(n: number): void {
    if (this.#pos + n <= this.#slab.length) return;
    const size = Math.max(n, Math.min(SLAB_MAX, Math.max(SLAB_MIN, this.bytes * 4)));
    if (this.#pos > this.#from) {
      const part = this.#slab.subarray(this.#from, this.#pos);
      this.#parts.push(part);
      this.#partBytes += part.length;
    }
    this.#slab = Buffer.allocUnsafe(size);
    this.#from = 0;
    this.#pos = 0;
  }
}

/** Types that a side of the local socket may send. */
const RANGES = { client: [0x80, 0x9f], daemon: [0xa0, 0xbf] } as const;

/**
 * A byte stream of the local socket to messages. `from` says who is at the other end; a message that only the other kind may
 * send is TSDLM_BAD_FRAME.
 */
export class MessageReader<M extends AnyMessage> {
  readonly #frames: FrameReader;
  readonly #low: number;
  readonly #high: number;
  #error: TsdlmError | null = null;

  constructor(options: { frameBytesMax: number; from: 'client' | 'daemon' }) {
    this.#frames = new FrameReader(options);
    [this.#low, this.#high] = RANGES[options.from];
  }

  /** Another limit from the next frame on (after the greeting). */
  setFrameBytesMax(bytes: number): void {
    this.#frames.setFrameBytesMax(bytes);
  }

  /** No message is handed on any more. */
  stop(): void {
    this.#frames.stop();
  }

  /** Hands on every whole message; returns what was wrong (then nothing more is ever handed on), or null. */
  push(chunk: Buffer, onMessage: (m: M) => void): TsdlmError | null {
    const error = this.#frames.push(chunk, (type, b, start, end) => {
      let m: AnyMessage;
      try {
        if (type < this.#low || type > this.#high) {
          throw new TsdlmError('TSDLM_BAD_FRAME', `message type 0x${type.toString(16)} is not for this direction`);
        }
        m = decodeAt(type, b, start, end);
      } catch (e) {
        this.#error = e as TsdlmError;
        this.#frames.stop();
        return;
      }
      onMessage(m as M);
    });
    return error ?? this.#error;
  }
}
