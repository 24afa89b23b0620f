/** Files that hold a secret: what is wrong with one, if anything. */
import { statSync } from 'node:fs';

/**
 * Refuses a file that others can read, or that belongs to neither `uid` nor root. Gives the fault as the end of a sentence that
 * begins with the file's name, with the way out, or undefined.
 */
export function secretFileFault(file: string, uid: number): string | undefined {
  try {
    const { mode, uid: owner } = statSync(file);
    if ((mode & 0o077) !== 0) return `can be read by others (mode 0${(mode & 0o777).toString(8)}): run chmod 600 ${file}`;
    if (owner !== uid && owner !== 0)
      return `belongs to user ${owner}, not to the daemon's user ${uid}: run chown ${uid} ${file}`;
    return undefined;
  } catch (cause) {
    return `cannot be read: ${(cause as Error).message}`;
  }
}
