/**
 * Errors of the file API: the errno names and numbers of Linux (asm-generic, which is also what 9P2000.L carries), in the
 * shape in which node:fs/promises gives them.
 */

/** Number and text of every error that the file API can give. */
const ERRNOS = {
  EPERM: [1, 'operation not permitted'],
  ENOENT: [2, 'no such file or directory'],
  EINTR: [4, 'interrupted system call'],
  EIO: [5, 'i/o error'],
  EBADF: [9, 'bad file descriptor'],
  EAGAIN: [11, 'resource temporarily unavailable'],
  ENOMEM: [12, 'not enough memory'],
  EACCES: [13, 'permission denied'],
  EFAULT: [14, 'bad address'],
  EBUSY: [16, 'resource busy or locked'],
  EEXIST: [17, 'file already exists'],
  ENODEV: [19, 'no such device'],
  ENOTDIR: [20, 'not a directory'],
  EISDIR: [21, 'illegal operation on a directory'],
  EINVAL: [22, 'invalid argument'],
  EMFILE: [24, 'too many open files'],
  ETXTBSY: [26, 'text file is busy'],
  ENOSPC: [28, 'no space left on device'],
  EDEADLK: [35, 'resource deadlock avoided'],
  ENAMETOOLONG: [36, 'name too long'],
  ENOTEMPTY: [39, 'directory not empty'],
  EPROTO: [71, 'protocol error'],
  EOPNOTSUPP: [95, 'operation not supported'],
  ENOTSUP: [95, 'operation not supported'],
  ENOTCONN: [107, 'socket is not connected'],
  ETIMEDOUT: [110, 'connection timed out'],
  ESTALE: [116, 'stale file handle'],
} as const satisfies Record<string, readonly [number, string]>;

export type Errno = keyof typeof ERRNOS;

/** The positive number, as a 9P Rlerror carries it. */
export function errnoNumber(code: Errno): number {
  return ERRNOS[code][0];
}

/** As node:fs/promises rejects: `code`, negative `errno`, `syscall`, `path`. */
export class DlmfsError extends Error {
  readonly code: Errno;
  readonly errno: number;
  readonly syscall: string;
  readonly path?: string;
  /** `detail`: what the errno cannot say, appended to the message. */
  constructor(code: Errno, syscall: string, path?: string, detail?: string) {
    const [number, text] = ERRNOS[code];
    const where = path === undefined ? '' : ` '${path}'`;
    super(`${code}: ${text}, ${syscall}${where}${detail === undefined ? '' : ` (${detail})`}`);
    this.name = 'DlmfsError';
    this.code = code;
    this.errno = -number;
    this.syscall = syscall;
    if (path !== undefined) this.path = path;
  }
}
