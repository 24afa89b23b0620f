/**
 * One Treaddir: as many entries of a directory as there is room for.
 *
 * The problem: entries come and go while a client reads on, and none that stays may be skipped or told twice. The idea: an
 * entry keeps its offset, because that is made of the number of the file, and numbers only grow.
 */

import { qidOf } from './9p-attributes.js';
import { encodeEntry } from './9p-codec.js';
import type { Fid } from './9p-fids.js';
import type { Qid } from './9p-messages.js';
import type { Errno } from './errno.js';
import type { DirNode, RootNode } from './tree.js';

const DT_DIR = 4;
const DT_REG = 8;

/** Entries after `offset` in at most `room` bytes, or the errno. `root` is what `..` is. */
export function readDirectory(fid: Fid, node: DirNode | RootNode, root: RootNode, offset: number, room: number): Buffer | Errno {
  const parts: Buffer[] = [];
  let bytes = 0;
  let isFull = false;
  const add = (entry: { qid: Qid; offset: number; type: number; name: string }): boolean => {
    const part = encodeEntry(entry);
    isFull = bytes + part.length > room;
    if (!isFull) {
      parts.push(part);
      bytes += part.length;
    }
    return !isFull;
  };
  if (offset < 1) add({ qid: qidOf(node), offset: 1, type: DT_DIR, name: '.' });
  if (offset < 2 && !isFull) add({ qid: qidOf(root), offset: 2, type: DT_DIR, name: '..' });
  let last = Math.max(2, offset);
  const goesOn = fid.reading !== null && fid.reading.offset === offset;
  const children = goesOn && fid.reading !== null ? fid.reading.children : node.children.values();
  fid.reading = null;
  while (!isFull) {
    const next = children.next();
    if (next.done === true) break;
    const child = next.value;
    // Numbers only grow, and so does the order of the table.
    if (child.ino + 2 <= last && !goesOn) continue;
    if (!add({ qid: qidOf(child), offset: child.ino + 2, type: child.kind === 'file' ? DT_REG : DT_DIR, name: child.name }))
      break;
    last = child.ino + 2;
  }
  if (isFull && parts.length === 0) return 'EINVAL';
  // The one that did not fit was taken from the iterator: only an exhausted one can go on.
  if (!isFull) fid.reading = { offset: last, children };
  return Buffer.concat(parts, bytes);
}
