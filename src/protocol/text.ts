/** Texts for people travel with a limit in bytes; cutting them must not split a character. */

/** The longest beginning of `text` that fits into `max` bytes of UTF-8. */
export function cutText(text: string, max: number): string {
  if (text.length * 3 <= max || Buffer.byteLength(text) <= max) return text;
  const bytes = Buffer.from(text);
  let end = max;
  // Bytes 10xxxxxx continue a character.
  while (end > 0 && ((bytes[end] ?? 0) & 0xc0) === 0x80) end--;
  return bytes.toString('utf8', 0, end);
}
