/** Aligned output for people. Programs use --json. */

/** Rows under their headings, columns as wide as needed; the last one is never padded. */
export function table(headings: string[], rows: string[][]): string {
  const all = [headings, ...rows];
  const widths = headings.map((_, column) => Math.max(...all.map((row) => width(row[column] ?? ''))));
  const lines = all.map((row) =>
    row
      .map((cell, column) =>
        column === row.length - 1 ? plain(cell) : plain(cell) + ' '.repeat((widths[column] ?? 0) - width(cell)),
      )
      .join('  ')
      .trimEnd(),
  );
  return `${lines.join('\n')}\n`;
}

/** "key  value" lines. */
export function pairs(entries: [string, string][]): string {
  const widest = Math.max(...entries.map(([key]) => key.length));
  return entries.map(([key, value]) => `${key.padEnd(widest)}  ${plain(value)}\n`).join('');
}

/** Names come from other users: what would move the cursor or colour the screen is shown, not done. */
export function plain(text: string): string {
  // biome-ignore lint/suspicious/noControlCharactersInRegex: control characters are what is looked for
  return text.replace(/[\u0000-\u001f\u007f-\u009f]/g, (c) => `\\x${c.charCodeAt(0).toString(16).padStart(2, '0')}`);
}

function width(text: string): number {
  return [...plain(text)].length;
}
