/** The few calls to the file system that several parts of the journal need, and what to say when one fails. */
import { closeSync, fsyncSync, openSync, statfsSync } from 'node:fs';
import { TsdlmError } from '../protocol/errors.js';

/** What to do about a damaged journal. */
export const WAY_OUT = 'Move the state directory away, check the disk, and start this node again: it joins as a new one';

function syncPath(path: string): void {
  const fd = openSync(path, 'r');
  try {
    fsyncSync(fd);
  } finally {
    closeSync(fd);
  }
}

/** Makes the contents of a file durable. */
export const syncFile: (path: string) => void = syncPath;

/** Makes the names in a directory durable. */
export const syncDirectory: (path: string) => void = syncPath;

export interface Space {
  /** Bytes that may still be written; infinite where the file system does not say. */
  free: number;
  total: number;
}

export function spaceAt(path: string): Space {
  try {
    const { bavail, blocks, bsize } = statfsSync(path);
    return { free: bavail * bsize, total: blocks * bsize };
  } catch {
    return { free: Number.POSITIVE_INFINITY, total: Number.POSITIVE_INFINITY };
  }
}

/** Turns an error of the file system into one with a code and the place. */
export function fileError(what: string, cause: unknown): TsdlmError {
  if (cause instanceof TsdlmError) return cause;
  const { code, message } = cause as NodeJS.ErrnoException;
  if (code === 'ENOSPC' || code === 'EDQUOT') {
    return new TsdlmError('TSDLM_JOURNAL_FULL', `no space left for ${what}: free space on its file system, then start again`, {
      cause,
    });
  }
  const hint =
    code === 'EROFS'
      ? 'its file system is read-only: see the kernel log why, check the disk, mount it writable'
      : code === 'EIO'
        ? 'check the disk and the kernel log'
        : 'check owner and permissions of state_dir';
  return new TsdlmError('TSDLM_JOURNAL_FAILED', `${what} cannot be used: ${message}; ${hint}`, { cause });
}
