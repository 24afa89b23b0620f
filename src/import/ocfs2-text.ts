/**
 * The text of `/etc/ocfs2/cluster.conf`: stanzas (`node:` alone on a line), each with lines `key = value` (ocfs2.cluster.conf(5)).
 * o2cb_ctl writes a tab before each key; people have written blanks, so any indentation is taken.
 */
import { checkText, ENTRIES_MAX, type Entry, entry, shown, VALUE_CHARS_MAX, wrong } from './tree.js';

export function parseOcfs2(text: string, file: string): Entry {
  checkText(file, text);
  const root = entry(file, 1, '');
  let stanza: Entry | null = null;
  let lines = new Map<string, number>();
  let count = 0;
  for (const [at, raw] of text.split('\n').entries()) {
    const line = raw.replace(/^\ufeff/, '').trim();
    const no = at + 1;
    if (line === '' || line.startsWith('#')) continue;
    if (++count > ENTRIES_MAX) throw wrong(file, no, `more than ${ENTRIES_MAX} lines with content`);
    const head = /^([A-Za-z_][A-Za-z0-9_]*):$/.exec(line);
    if (head?.[1] !== undefined) {
      stanza = entry(file, no, head[1]);
      root.children.push(stanza);
      lines = new Map();
      continue;
    }
    const pair = /^([A-Za-z_][A-Za-z0-9_]*)\s*=\s*(.*)$/.exec(line);
    const [, key, value] = pair ?? [];
    if (key === undefined || value === undefined) {
      throw wrong(file, no, `${shown(line)} is neither a stanza such as "node:" nor a line "key = value"`);
    }
    if (!stanza) throw wrong(file, no, `${key} stands before the first stanza, such as "node:"`);
    if (value.length > VALUE_CHARS_MAX) throw wrong(file, no, `the value of ${key} has more than ${VALUE_CHARS_MAX} characters`);
    const before = lines.get(key);
    if (before !== undefined) throw wrong(file, no, `${key} was given before in this stanza, in line ${before}`);
    lines.set(key, no);
    stanza.children.push(entry(file, no, key, value));
  }
  return root;
}
