/** A lock of a mounted dlmfs, for `lock --dlmfs` and `lvb --dlmfs`: the checks, and errnos as error codes. */
import type { ModeName } from '../client/index.js';
import { KernelHelper } from '../dlmfs/kernel-client.js';
import { DLMFS_DIR, detectDlmfs, type Found } from '../dlmfs/kernel-detect.js';
import type { KernelOpened } from '../dlmfs/kernel-protocol.js';
import { FILE_DOMAIN_BYTES_MAX, FILE_LOCK_BYTES_MAX, O_CREAT, O_NONBLOCK, O_RDONLY, O_RDWR } from '../dlmfs/types.js';
import { type ErrorCode, TsdlmError } from '../protocol/errors.js';

/** The kernel lets a try wait while its own node gives the lock away. */
const TRY_MS_MAX = 2000;

export interface DlmfsLockOptions {
  /** As commander gives it: true = the default directory. */
  dir: string | true;
  domain: string;
  name: string;
  mode: ModeName;
  isTry: boolean;
  /** Milliseconds; null = no limit. */
  timeoutMs: number | null;
  signal: AbortSignal;
  inheritStdio: boolean;
}

export interface DlmfsLock {
  helper: KernelHelper;
  dir: string;
  h: number;
}

const BY_ERRNO: Readonly<Record<string, ErrorCode>> = {
  ETXTBSY: 'TSDLM_CONFLICT',
  EDEADLK: 'TSDLM_DEADLOCK',
  EACCES: 'TSDLM_NOT_ALLOWED',
  EPERM: 'TSDLM_NOT_ALLOWED',
  ENAMETOOLONG: 'TSDLM_NAME_TOO_LONG',
};

/** Throws TSDLM_UNAVAILABLE when no dlmfs is there, and says what is. */
export async function dlmfsAt(dir: string | true): Promise<Found> {
  const path = dir === true ? DLMFS_DIR : dir;
  const found = await detectDlmfs(path);
  if (found.kind === 'kernel' || found.kind === '9p') return found;
  const what = {
    none: 'nothing is mounted there',
    other: `${found.type} is mounted there`,
    dead: `the ${found.type} mounted there does not answer`,
  }[found.kind];
  const way = "mount the kernel's with: mount -t ocfs2_dlmfs none DIR; or tsdlm's with: tsdlm mount DIR";
  throw new TsdlmError('TSDLM_UNAVAILABLE', `there is no dlmfs at ${path}: ${what}; ${way}`);
}

/** One sentence for the plain line of status. */
export function foundText(found: Found): string {
  switch (found.kind) {
    case 'kernel':
      return `the kernel's ocfs2_dlmfs at ${found.dir}`;
    case '9p':
      return `tsdlm's files at ${found.dir} (9P, ${found.source})`;
    case 'dead':
      return `a ${found.type} mount at ${found.dir} that does not answer`;
    case 'other':
      return `no dlmfs at ${found.dir}, but ${found.type}`;
    case 'none':
      return `nothing is mounted at ${found.dir}`;
  }
}

function checkNames({ domain, name }: DlmfsLockOptions): void {
  for (const [what, text, max] of [
    ['domain', domain, FILE_DOMAIN_BYTES_MAX],
    ['lock', name, FILE_LOCK_BYTES_MAX],
  ] as const) {
    const bytes = Buffer.byteLength(text);
    if (bytes > max) {
      throw new TsdlmError('TSDLM_NAME_TOO_LONG', `the ${what} name has ${bytes} bytes; a dlmfs takes at most ${max}`);
    }
    if (text === '' || text === '.' || text === '..' || /[/\0]/.test(text) || (what === 'lock' && text.startsWith('$'))) {
      throw new TsdlmError('TSDLM_BAD_ARGUMENT', `'${text}' cannot be the name of a ${what} in a dlmfs`);
    }
  }
}

/** Joins the domain and takes the lock. `close` of its helper gives the lock up, name and all. */
export async function openDlmfsLock(o: DlmfsLockOptions): Promise<DlmfsLock> {
  checkNames(o);
  const found = await dlmfsAt(o.dir);
  const helper = new KernelHelper({ inheritStdio: o.inheritStdio });
  const limitMs = o.isTry ? TRY_MS_MAX : o.timeoutMs;
  let limit: AbortSignal | null = null;
  try {
    const path = `${found.dir}/${o.domain}`;
    await helper.request({ op: 'mkdir', path, mode: 0o755 }).catch((error: NodeJS.ErrnoException) => {
      if (error.code !== 'EEXIST') throw failure(error, `joining domain '${o.domain}' in ${found.dir}`);
    });
    const flags = (o.mode === 'EX' ? O_RDWR : O_RDONLY) | O_CREAT | (o.isTry ? O_NONBLOCK : 0);
    // Counts from here: neither the start of the helper nor joining the domain is waiting for the lock.
    if (limitMs !== null) limit = AbortSignal.timeout(Math.max(1, limitMs));
    const opened = (await helper.request(
      { op: 'open', path: `${path}/${o.name}`, flags, mode: 0o664, watch: found.kind === 'kernel', release: true },
      { signal: limit === null ? o.signal : AbortSignal.any([o.signal, limit]) },
    )) as KernelOpened;
    return { helper, dir: found.dir, h: opened.h };
  } catch (error) {
    helper.close();
    if (limit?.aborted === true && !o.signal.aborted) {
      if (o.isTry)
        throw new TsdlmError(
          'TSDLM_UNAVAILABLE',
          `the kernel does not say whether '${o.name}' is free: its own node is giving it away`,
        );
      throw new TsdlmError('TSDLM_TIMEOUT', `'${o.name}' in ${found.dir}/${o.domain} was not granted within the time given`);
    }
    throw failure(error, `'${o.name}' in ${found.dir}/${o.domain}`);
  }
}

/** A system call's error as an error of ours. */
export function failure(error: unknown, what: string): unknown {
  const { code, message } = error as NodeJS.ErrnoException;
  if (error instanceof TsdlmError || code === undefined) return error;
  if (code === 'ETXTBSY') return new TsdlmError('TSDLM_CONFLICT', `${what} is held or kept by another node`);
  return new TsdlmError(BY_ERRNO[code] ?? 'TSDLM_UNAVAILABLE', `${what}: the file system says ${message}`);
}
