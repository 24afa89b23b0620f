/** Value blocks of the simulator: a unique number, repeated so that a torn or mixed block is noticed. */
export function encodeLvb(value: number): Uint8Array {
  const bytes = new Uint8Array(64);
  const view = new DataView(bytes.buffer);
  for (let at = 0; at < 64; at += 4) view.setUint32(at, value);
  return bytes;
}

/** The number, or null when the block is none of ours. */
export function decodeLvb(bytes: Uint8Array): number | null {
  if (bytes.length !== 64) return null;
  const view = new DataView(bytes.buffer, bytes.byteOffset, 64);
  const value = view.getUint32(0);
  for (let at = 4; at < 64; at += 4) if (view.getUint32(at) !== value) return null;
  return value > 0 ? value : null;
}
