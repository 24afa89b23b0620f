/**
 * The file tree of one mount: the root, domains, lock files, their attributes, and what is open.
 *
 * It knows names, kinds and errnos; what an open means for the lock is file-lock.ts. Everything here is synchronous or
 * calls back, so that each door puts its own dress on it: promises (mount.ts) or 9P messages (9p-requests.ts). A tree is one
 * lock owner. Names made elsewhere never appear in it, as in the kernel.
 */
import { DOMAINS_MAX } from '../protocol/limits.js';
import { EX, type Mode, PR } from '../protocol/modes.js';
import type { Errno } from './errno.js';
import { errnoOf, FileLock } from './file-lock.js';
import type { LockService } from './service.js';
import {
  FILE_DOMAIN_BYTES_MAX,
  FILE_LOCK_BYTES_MAX,
  LOCK_FILE_SIZE,
  NAME_MAX,
  O_ACCMODE,
  O_DIRECT,
  O_NONBLOCK,
  O_RDONLY,
  O_RDWR,
  O_WRONLY,
  S_IFDIR,
  S_IFREG,
} from './types.js';

/** Lock files of one mount. */
const FILES_MAX = 1_000_000;

/** What a file's owner and permissions look like; kept, and local to the mount. */
export interface Attributes {
  /** Permission bits only. */
  mode: number;
  uid: number;
  gid: number;
  /** Milliseconds since 1970. */
  atimeMs: number;
  mtimeMs: number;
  ctimeMs: number;
}

export type NodeAttributes = Pick<Attributes, 'mode' | 'uid' | 'gid'>;

abstract class TreeNode implements Attributes {
  readonly ino: number;
  readonly name: string;
  mode: number;
  uid: number;
  gid: number;
  atimeMs: number;
  mtimeMs: number;
  ctimeMs: number;
  /** Removed; only those who had it already still see it. */
  isGone = false;

  constructor(ino: number, name: string, attributes: NodeAttributes, nowMs: number) {
    this.ino = ino;
    this.name = name;
    this.mode = attributes.mode & 0o7777;
    this.uid = attributes.uid;
    this.gid = attributes.gid;
    this.atimeMs = this.mtimeMs = this.ctimeMs = nowMs;
  }
}

export class RootNode extends TreeNode {
  readonly kind = 'root';
  readonly children = new Map<string, DirNode>();
}
export class DirNode extends TreeNode {
  readonly kind = 'dir';
  readonly children = new Map<string, FileNode>();
}
export class FileNode extends TreeNode {
  readonly kind = 'file';
  readonly dir: DirNode;
  readonly lock: FileLock;
  readonly open = new Set<OpenFile>();

  constructor(ino: number, name: string, attributes: NodeAttributes, nowMs: number, dir: DirNode, lock: FileLock) {
    super(ino, name, attributes, nowMs);
    this.dir = dir;
    this.lock = lock;
  }
}
export type AnyNode = RootNode | DirNode | FileNode;

/** Type and permission bits, as stat gives them. */
export function modeOf(node: AnyNode): number {
  return node.mode | (node.kind === 'file' ? S_IFREG : S_IFDIR);
}
export function sizeOf(node: AnyNode): number {
  return node.kind === 'file' ? LOCK_FILE_SIZE : 0;
}
export function linksOf(node: AnyNode): number {
  return node.kind === 'file' ? 1 : node.kind === 'dir' ? 2 : 2 + node.children.size;
}

/** One open of a lock file: a holder. */
export class OpenFile {
  readonly file: FileNode;
  readonly level: Mode;
  readonly canRead: boolean;
  readonly canWrite: boolean;
  /** The lock was lost while this was open: it holds nothing any more. */
  isLost = false;
  isClosed = false;
  /** Called when others begin to wait for the lock, and when it is lost. */
  onChange: (() => void) | null = null;

  constructor(file: FileNode, flags: number) {
    const access = flags & O_ACCMODE;
    this.file = file;
    this.level = levelOf(flags);
    this.canRead = access === O_RDONLY || access === O_RDWR;
    this.canWrite = access === O_WRONLY || access === O_RDWR;
  }

  /** Held no more, though the file is open. */
  get isOver(): boolean {
    return this.isLost || !this.file.lock.isHeld;
  }

  get isBlocked(): boolean {
    return this.isLost || this.file.lock.isBlocked;
  }

  read(offset: number, length: number): Uint8Array | Errno {
    if (this.isClosed || !this.canRead) return 'EBADF';
    if (this.isOver) return 'EIO';
    return offset >= LOCK_FILE_SIZE ? new Uint8Array(0) : this.file.lock.read(offset, length);
  }

  /** The number of bytes written, or the errno. */
  write(offset: number, bytes: Uint8Array): number | Errno {
    if (this.isClosed || !this.canWrite) return 'EBADF';
    if (this.isOver) return 'EIO';
    if (bytes.length === 0) return 0;
    if (offset >= LOCK_FILE_SIZE) return 'ENOSPC';
    return this.file.lock.write(offset, bytes);
  }

  /** One holder less; nothing more happens a second time. */
  close(): void {
    if (this.isClosed) return;
    this.isClosed = true;
    this.onChange = null;
    this.file.open.delete(this);
    if (!this.isLost) this.file.lock.close(this.level);
  }
}

export function levelOf(flags: number): Mode {
  return (flags & O_ACCMODE) === O_RDONLY ? PR : EX;
}

/** Called once with the result; never when the operation was withdrawn. */
export type Done<T> = (error: Errno | null, value?: T) => void;
const NOTHING_TO_WITHDRAW = (): void => {};

/** One open file as `status` shows it. */
export interface HeldFile {
  domain: string;
  name: string;
  mode: Mode;
  holders: number;
}

export class Tree {
  readonly root: RootNode;
  readonly #service: LockService;
  readonly #now: () => number;
  #nextIno = 2;
  #files = 0;
  /** Domains that are being joined. */
  readonly #joining = new Set<string>();
  /** Files that nobody has open (any more), to be taken off the record when they stay so. */
  readonly #idle = new Set<FileNode>();
  #swept = new Set<FileNode>();
  /** Files that somebody waits for, or whose lock manager could not serve them: only these need a look now and then. */
  readonly #restless = new Set<FileNode>();

  constructor(service: LockService, owner: NodeAttributes, now: () => number) {
    this.#service = service;
    this.#now = now;
    this.root = new RootNode(1, '', owner, now());
  }

  // --- Directories ----------------------------------------------------------------------------------------------------

  /** A child by name, or the errno. '.' and '..' are the caller's. */
  lookup(parent: AnyNode, name: string): DirNode | FileNode | Errno {
    if (parent.kind === 'file') return 'ENOTDIR';
    if (byteLength(name) > NAME_MAX) return 'ENAMETOOLONG';
    return parent.children.get(name) ?? 'ENOENT';
  }

  /** Joins the domain; the directory is there when it is joined. Returns how to withdraw. */
  mkdir(parent: AnyNode, name: string, attributes: NodeAttributes, done: Done<DirNode>): () => void {
    const error = this.#mkdirError(parent, name);
    if (error !== null) {
      done(error);
      return NOTHING_TO_WITHDRAW;
    }
    this.#joining.add(name);
    const withdraw = this.#service.join(name, (code) => {
      this.#joining.delete(name);
      if (code !== null) return done(errnoOf(code));
      const dir = new DirNode(this.#nextIno++, name, attributes, this.#now());
      this.root.children.set(name, dir);
      done(null, dir);
    });
    return () => {
      if (this.#joining.delete(name)) withdraw();
    };
  }

  #mkdirError(parent: AnyNode, name: string): Errno | null {
    const found = this.lookup(parent, name);
    if (typeof found !== 'string') return 'EEXIST';
    if (found !== 'ENOENT') return found;
    if (parent.kind !== 'root') return 'EPERM';
    if (byteLength(name) > FILE_DOMAIN_BYTES_MAX || !isName(name)) return 'EINVAL';
    if (this.#joining.has(name)) return 'EEXIST';
    return this.root.children.size + this.#joining.size >= DOMAINS_MAX ? 'ENOMEM' : null;
  }

  rmdir(parent: AnyNode, name: string): Errno | null {
    const dir = this.lookup(parent, name);
    if (typeof dir === 'string') return dir;
    if (dir.kind === 'file') return 'ENOTDIR';
    if (dir.children.size > 0) return 'ENOTEMPTY';
    this.root.children.delete(name);
    dir.isGone = true;
    return null;
  }

  // --- Files ------------------------------------------------------------------------------------------------------------

  /** Makes the file; no lock yet. */
  create(parent: AnyNode, name: string, attributes: NodeAttributes): FileNode | Errno {
    const found = this.lookup(parent, name);
    if (typeof found !== 'string') return 'EEXIST';
    if (found !== 'ENOENT') return found;
    if (parent.kind !== 'dir') return 'EACCES';
    if (parent.isGone) return 'ENOENT';
    if (name.startsWith('$') || byteLength(name) > FILE_LOCK_BYTES_MAX || !isName(name)) return 'EINVAL';
    if (this.#files >= FILES_MAX) return 'ENOMEM';
    const lock = new FileLock(this.#service, parent.name, name);
    const file = new FileNode(this.#nextIno++, name, attributes, this.#now(), parent, lock);
    lock.onBlocked = () => {
      for (const open of file.open) open.onChange?.();
    };
    lock.onLost = () => this.#lost(file);
    lock.onIdle = () => this.#idle.add(file);
    lock.onStalled = () => this.#restless.add(file);
    parent.children.set(name, file);
    this.#files++;
    return file;
  }

  #lost(file: FileNode): void {
    for (const open of file.open) {
      open.isLost = true;
      open.onChange?.();
    }
  }

  /** Takes the lock by the open flags; `done` when it is granted. Returns how to withdraw. */
  open(file: FileNode, flags: number, done: Done<OpenFile>): () => void {
    if (file.isGone || (flags & O_DIRECT) !== 0) {
      done(file.isGone ? 'ENOENT' : 'EINVAL');
      return NOTHING_TO_WITHDRAW;
    }
    const withdraw = file.lock.open({
      mode: levelOf(flags),
      isTry: (flags & O_NONBLOCK) !== 0,
      done: (error) => {
        if (error !== null) return done(error);
        const open = new OpenFile(file, flags);
        file.open.add(open);
        done(null, open);
      },
    });
    if (file.lock.waiting > 0) this.#restless.add(file);
    return withdraw;
  }

  /** Gives the lock up and removes the file. */
  unlink(parent: AnyNode, name: string, done: Done<void>): void {
    const file = this.lookup(parent, name);
    if (typeof file === 'string') return done(file);
    if (file.kind !== 'file') return done('EISDIR');
    if (file.open.size > 0) return done('EBUSY');
    file.lock.drop((error) => {
      if (error === null) this.#remove(file);
      done(error);
    });
  }

  #remove(file: FileNode): void {
    if (file.isGone) return;
    file.isGone = true;
    file.dir.children.delete(file.name);
    this.#files--;
    this.#idle.delete(file);
    this.#swept.delete(file);
    this.#restless.delete(file);
  }

  // --- The whole ----------------------------------------------------------------------------------------------------

  /** To be called about once a second: see FileLock.sweep and retry. */
  sweep(): void {
    for (const file of this.#swept) file.lock.sweep();
    this.#swept = new Set(this.#idle);
    this.#idle.clear();
    for (const file of [...this.#restless]) {
      if (file.lock.waiting > 0) file.lock.sweep();
      if (file.lock.isStalled) file.lock.retry();
      if (file.lock.waiting === 0 && !file.lock.isStalled) this.#restless.delete(file);
    }
  }

  *files(): Generator<FileNode> {
    for (const dir of this.root.children.values()) yield* dir.children.values();
  }

  get openCount(): number {
    let count = 0;
    for (const file of this.files()) count += file.open.size;
    return count;
  }

  /** The files that somebody has open. */
  held(): HeldFile[] {
    const all: HeldFile[] = [];
    for (const file of this.files()) {
      if (file.lock.heldMode === 0) continue;
      all.push({ domain: file.dir.name, name: file.name, mode: file.lock.heldMode, holders: file.lock.holders });
    }
    return all;
  }

  /** Gives up every lock that nobody has open; what is open stays. `done` when that is complete. */
  dropUnused(done: () => void): void {
    let left = 1;
    const one = (): void => {
      if (--left === 0) done();
    };
    for (const file of [...this.files()]) {
      if (file.lock.holders > 0 || file.lock.isDropping) continue;
      left++;
      this.unlink(file.dir, file.name, one);
    }
    one();
  }
}

/** UTF-8 bytes. */
export function byteLength(text: string): number {
  let bytes = 0;
  for (let i = 0; i < text.length; i++) {
    const unit = text.charCodeAt(i);
    if (unit < 0x80) bytes++;
    else if (unit < 0x800) bytes += 2;
    else if (unit >= 0xd800 && unit <= 0xdbff && i + 1 < text.length) {
      bytes += 4;
      i++;
    } else bytes += 3;
  }
  return bytes;
}

const NOT_UTF8 = /\p{Surrogate}/u;
/** A name that the lock manager's messages can carry. */
function isName(name: string): boolean {
  return name.length > 0 && !name.includes('\0') && !name.includes('/') && !NOT_UTF8.test(name);
}
