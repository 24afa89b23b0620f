/** What is mounted at a directory: the kernel's own ocfs2_dlmfs, tsdlm's 9P mount, something else, or nothing. */
import { readFileSync } from 'node:fs';
import { statfs } from 'node:fs/promises';
import { resolve } from 'node:path';
import { DLMFS_MAGIC } from './types.js';

/** Where a dlmfs is usually mounted. */
export const DLMFS_DIR = '/dlm';
export const DLMFS_TYPE = 'ocfs2_dlmfs';
/** A mount whose server is gone may never answer. */
const STATFS_MS_MAX = 1000;

export interface Mount {
  dir: string;
  /** As in /proc/mounts. */
  type: string;
  /** What was mounted: the socket of a 9P mount. */
  source: string;
}

export interface Found {
  /**
   * kernel: ocfs2_dlmfs. 9p: a 9P mount that says it is a dlmfs, so tsdlm's (or another server of a dlmfs). other: some other
   * file system. dead: a mount that does not answer. none: nothing is mounted there.
   */
  kind: 'kernel' | '9p' | 'other' | 'dead' | 'none';
  dir: string;
  type: string;
  source: string;
}

/** The mounts of this process's namespace; later ones cover earlier ones. `text` is /proc/self/mounts. */
export function parseMounts(text: string): Mount[] {
  const plain = (word: string): string =>
    word.replace(/\\([0-7]{3})/g, (_, digits: string) => String.fromCharCode(Number.parseInt(digits, 8)));
  return text
    .split('\n')
    .map((line) => line.split(' '))
    .filter((words) => words.length >= 3)
    .map(([source = '', dir = '', type = '']) => ({ source: plain(source), dir: plain(dir), type }));
}

export function mountAt(dir: string, text = readFileSync('/proc/self/mounts', 'utf8')): Mount | null {
  const wanted = resolve(dir);
  return parseMounts(text).findLast((mount) => mount.dir === wanted) ?? null;
}

/** Never throws: what cannot be looked at is `none` or `dead`. */
export async function detectDlmfs(dir: string = DLMFS_DIR): Promise<Found> {
  const mount = mountAt(dir);
  const found = { dir, type: mount?.type ?? '', source: mount?.source ?? '' };
  if (mount === null) return { kind: 'none', ...found };
  if (mount.type === DLMFS_TYPE) return { kind: 'kernel', ...found };
  let timer: NodeJS.Timeout | undefined;
  const limit = new Promise<null>((done) => {
    timer = setTimeout(() => done(null), STATFS_MS_MAX);
  });
  try {
    const stats = await Promise.race([statfs(dir), limit]);
    if (stats === null) return { kind: 'dead', ...found };
    return { kind: stats.type === DLMFS_MAGIC && mount.type === '9p' ? '9p' : 'other', ...found };
  } catch {
    return { kind: 'dead', ...found };
  } finally {
    clearTimeout(timer);
  }
}
