/**
 * The bytes of the bare lock server that tsdlm is compared with ("ideal" in the design): hand-written frames of 32 bytes for
 * what fits them.
 *
 *   request  u8 type (1 lock, 2 unlock) | u8 name length | u16 0 | u32 slot | name, padded with zeros to 32 bytes
 *   answer   u8 type | 3 bytes 0 | u32 slot | u64 token | zeros to 32 bytes
 *
 * The slot names the request of one connection. Names have at most 24 bytes.
 */
export const FRAME_BYTES = 32;
export const LOCK = 1;
export const UNLOCK = 2;

/** Cuts a byte stream into frames of 32 bytes; what is left over waits for the next chunk. */
export class Frames {
  #rest: Buffer | null = null;

  /** The whole frames that are complete now, as one buffer. */
  take(chunk: Buffer): Buffer {
    const all = this.#rest === null ? chunk : Buffer.concat([this.#rest, chunk]);
    const whole = all.length - (all.length % FRAME_BYTES);
    this.#rest = whole === all.length ? null : all.subarray(whole);
    return whole === all.length ? all : all.subarray(0, whole);
  }
}

export function putRequest(b: Buffer, at: number, type: number, slot: number, name: string): void {
  b.fill(0, at, at + FRAME_BYTES);
  b[at] = type;
  b[at + 1] = name.length;
  b.writeUInt32LE(slot, at + 4);
  b.write(name, at + 8, 24, 'latin1');
}
