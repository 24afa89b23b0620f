/** Open flags as node:fs takes them: a number, or one of its words. */
import { DlmfsError } from './errno.js';
import { O_APPEND, O_CREAT, O_EXCL, O_RDONLY, O_RDWR, O_TRUNC, O_WRONLY } from './types.js';

const O_SYNC = 0o4010000;
const WORDS: Readonly<Record<string, number>> = {
  r: O_RDONLY,
  rs: O_RDONLY | O_SYNC,
  'r+': O_RDWR,
  'rs+': O_RDWR | O_SYNC,
  w: O_WRONLY | O_CREAT | O_TRUNC,
  wx: O_WRONLY | O_CREAT | O_TRUNC | O_EXCL,
  'w+': O_RDWR | O_CREAT | O_TRUNC,
  'wx+': O_RDWR | O_CREAT | O_TRUNC | O_EXCL,
  a: O_WRONLY | O_CREAT | O_APPEND,
  ax: O_WRONLY | O_CREAT | O_APPEND | O_EXCL,
  as: O_WRONLY | O_CREAT | O_APPEND | O_SYNC,
  'a+': O_RDWR | O_CREAT | O_APPEND,
  'ax+': O_RDWR | O_CREAT | O_APPEND | O_EXCL,
  'as+': O_RDWR | O_CREAT | O_APPEND | O_SYNC,
};
/** The same letters in the other order. */
const ALIASES: Readonly<Record<string, string>> = {
  sr: 'rs',
  'sr+': 'rs+',
  xw: 'wx',
  'xw+': 'wx+',
  xa: 'ax',
  sa: 'as',
  'xa+': 'ax+',
  'sa+': 'as+',
};

/** Throws EINVAL for anything else. */
export function openFlags(flags: string | number, path: string): number {
  if (typeof flags === 'number') {
    if (Number.isInteger(flags) && flags >= 0 && flags <= 0x7fffffff) return flags;
  } else {
    const known = WORDS[ALIASES[flags] ?? flags];
    if (known !== undefined) return known;
  }
  throw new DlmfsError('EINVAL', 'open', path, `flags ${JSON.stringify(flags)}: see fs.open`);
}
