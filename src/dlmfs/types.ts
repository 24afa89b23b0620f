/**
 * The file API as its users see it: one interface over the kernel's own ocfs2_dlmfs and over tsdlm.
 *
 * One `Dlmfs` is one *mount*, and one mount is one lock owner, as a superblock is in the kernel: processes and handles of
 * one mount never exclude each other, two mounts do, on one node or on two. A directory is a domain, a file in it a lock,
 * opening it takes the lock (read only = PR, any write access = EX, O_NONBLOCK = try), its 64 bytes are the value block.
 * Paths are relative to the mount: '/domain/lock', the leading slash may be left out.
 *
 * All errors are shaped as those of node:fs/promises (errno.ts). Nothing here blocks the event loop or a pool thread.
 */
import type { Mode } from '../protocol/modes.js';

/** statfs f_type of ocfs2_dlmfs; libo2dlm refuses a file system that says anything else. */
export const DLMFS_MAGIC = 0x76a9f425;
/** Domain names: bytes (GROUP_NAME_MAX 64 with its NUL). Longer ones are EINVAL, above NAME_MAX ENAMETOOLONG. */
export const FILE_DOMAIN_BYTES_MAX = 63;
/** Lock names of the file API: bytes (USER_DLM_LOCK_ID_MAX_LEN 32 with its NUL), the first not '$'. */
export const FILE_LOCK_BYTES_MAX = 31;
/** Longest component of any path (NAME_MAX). */
export const NAME_MAX = 255;
/** Size of every lock file, whatever was written. */
export const LOCK_FILE_SIZE = 64;
export const BLOCK_SIZE = 4096;

/** Open flags, Linux numbers (asm-generic), as in fs.constants. */
export const O_RDONLY = 0;
export const O_WRONLY = 1;
export const O_RDWR = 2;
export const O_ACCMODE = 3;
export const O_CREAT = 0o100;
export const O_EXCL = 0o200;
export const O_TRUNC = 0o1000;
export const O_APPEND = 0o2000;
export const O_NONBLOCK = 0o4000;
export const O_DIRECT = 0o40000;
export const O_DIRECTORY = 0o200000;

/** The file type bits of a mode. */
export const S_IFMT = 0o170000;
export const S_IFDIR = 0o040000;
export const S_IFREG = 0o100000;

/** Which backend serves the calls. */
export type DlmfsBackend = 'kernel' | 'tsdlm';

/** What stat says, as plain data. */
export interface DlmfsAttributes {
  ino: number;
  /** Type and permission bits. */
  mode: number;
  nlink: number;
  uid: number;
  gid: number;
  /** 64 for a lock, 0 for a directory. */
  size: number;
  blksize: number;
  blocks: number;
  /** Milliseconds since 1970. */
  atimeMs: number;
  mtimeMs: number;
  ctimeMs: number;
}

export interface DlmfsStats extends DlmfsAttributes {
  isDirectory(): boolean;
  isFile(): boolean;
}

export interface DlmfsOpenOptions {
  /** Withdraws an open that waits; it rejects with the signal's reason. In the kernel backend the wait itself may go on. */
  signal?: AbortSignal;
}

export interface DlmfsStatFs {
  type: number;
  bsize: number;
  blocks: number;
  bfree: number;
  bavail: number;
  files: number;
  ffree: number;
}

/** One mount. */
export interface Dlmfs {
  readonly backend: DlmfsBackend;
  /** Where the kernel has it mounted, or '' for tsdlm. */
  readonly root: string;
  /** Joins the domain; the directory is there when this resolves. */
  mkdir(path: string, mode?: number): Promise<void>;
  /** Leaves the domain. ENOTEMPTY while this mount has lock files in it. */
  rmdir(path: string): Promise<void>;
  /** Names that this mount made, never those of other mounts or nodes. '/' lists the domains. */
  readdir(path: string): Promise<string[]>;
  stat(path: string): Promise<DlmfsStats>;
  statfs(path?: string): Promise<DlmfsStatFs>;
  /**
   * Takes the lock. `flags` as in fs.open: a number, or 'r', 'r+', 'w', 'w+', 'a', 'a+', 'wx' and the like; default 'r'.
   * Resolves when granted. ETXTBSY: O_NONBLOCK and held by others. ENOTCONN: O_NONBLOCK and it could not be decided.
   * EDEADLK: another mount that shares the lock also waits to get it alone.
   */
  open(path: string, flags?: string | number, mode?: number, options?: DlmfsOpenOptions): Promise<DlmfsHandle>;
  /** Gives the lock up altogether and publishes its value block. EBUSY while it is open on this mount. */
  unlink(path: string): Promise<void>;
  /** The size never changes; checks only that the file is there. */
  truncate(path: string, length?: number): Promise<void>;
  chmod(path: string, mode: number): Promise<void>;
  chown(path: string, uid: number, gid: number): Promise<void>;
  utimes(path: string, atimeMs: number, mtimeMs: number): Promise<void>;
  /** EPERM, all three. */
  rename(from: string, to: string): Promise<void>;
  link(from: string, to: string): Promise<void>;
  symlink(target: string, path: string): Promise<void>;
  /** Unmounts: EBUSY while a handle is open, unless `force`, which closes them all. */
  close(options?: { force?: boolean }): Promise<void>;
}

/** One open file: a holder of its lock. */
export interface DlmfsHandle {
  readonly path: string;
  /** What this handle holds: PR or EX. */
  readonly level: Mode;
  /** True while others wait for a mode that this mount's level is in the way of: what poll() reports as POLLIN. */
  readonly isBlocked: boolean;
  /** The lock is gone although the file is open (tsdlm in-process only): reads and writes give EIO. Also told as blocked. */
  readonly isLost?: boolean;
  /** Calls `listener` whenever `isBlocked` becomes true, and soon when it is already. Returns how to stop. */
  onBlocked(listener: () => void): () => void;
  /** Reads the value block as of the last grant. `position` null = the file position. 0 bytes at offset 64, or when invalid. */
  read(
    buffer: Uint8Array,
    offset?: number,
    length?: number,
    position?: number | null,
  ): Promise<{ bytesRead: number; buffer: Uint8Array }>;
  /** Writes the value block (EX only); others see it when this mount gives EX up. ENOSPC at offset 64. */
  write(
    buffer: Uint8Array | string,
    offset?: number,
    length?: number,
    position?: number | null,
  ): Promise<{ bytesWritten: number }>;
  stat(): Promise<DlmfsStats>;
  truncate(length?: number): Promise<void>;
  chmod(mode: number): Promise<void>;
  /** One holder less. The mount keeps the lock until others ask for it with an open that waits. A second call is EBADF. */
  close(): Promise<void>;
}
