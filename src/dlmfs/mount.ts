/**
 * The in-process mount: the file tree with the promises and error shapes of node:fs/promises.
 *
 * It adds to tree.ts what a kernel's VFS adds to a file system: paths, file positions, open flags, umask, and errors that
 * name the call. Permission bits are kept and shown but not enforced: whoever has this object may use it.
 */
import type { Mode } from '../protocol/modes.js';
import { DlmfsError, type Errno } from './errno.js';
import { openFlags } from './flags.js';
import type { LockService } from './service.js';
import { type AnyNode, type FileNode, linksOf, modeOf, type NodeAttributes, type OpenFile, sizeOf, Tree } from './tree.js';
import {
  BLOCK_SIZE,
  DLMFS_MAGIC,
  type Dlmfs,
  type DlmfsHandle,
  type DlmfsOpenOptions,
  type DlmfsStatFs,
  type DlmfsStats,
  O_ACCMODE,
  O_CREAT,
  O_DIRECTORY,
  O_EXCL,
  O_RDONLY,
} from './types.js';

export interface MountOptions {
  service: LockService;
  /** Owner of what is made here; default 0. */
  uid?: number;
  gid?: number;
  umask?: number;
  /** Milliseconds since 1970. */
  now?: () => number;
  /** What remains to be done when everything is unlocked. */
  onClose?: () => Promise<void>;
}

export class Mount implements Dlmfs {
  readonly backend = 'tsdlm';
  readonly root = '';
  readonly tree: Tree;
  readonly #o: MountOptions;
  #isClosed = false;

  constructor(options: MountOptions) {
    this.#o = options;
    this.tree = new Tree(options.service, { mode: 0o755, uid: options.uid ?? 0, gid: options.gid ?? 0 }, options.now ?? Date.now);
  }

  async mkdir(path: string, mode = 0o777): Promise<void> {
    const { parent, name } = this.#parent(path, 'mkdir');
    if (name === '') throw new DlmfsError('EEXIST', 'mkdir', path);
    await new Promise<void>((resolve, reject) => {
      this.tree.mkdir(parent, name, this.#attributes(mode), (error) => {
        if (error === null) resolve();
        else reject(new DlmfsError(error, 'mkdir', path));
      });
    });
  }

  async rmdir(path: string): Promise<void> {
    const { parent, name } = this.#parent(path, 'rmdir');
    const error = name === '' ? 'EBUSY' : this.tree.rmdir(parent, name);
    if (error !== null) throw new DlmfsError(error, 'rmdir', path);
  }

  async readdir(path: string): Promise<string[]> {
    const node = this.#node(path, 'scandir');
    if (node.kind === 'file') throw new DlmfsError('ENOTDIR', 'scandir', path);
    return [...node.children.keys()];
  }

  async stat(path: string): Promise<DlmfsStats> {
    return statsOf(this.#node(path, 'stat'));
  }

  async statfs(path = '/'): Promise<DlmfsStatFs> {
    this.#node(path, 'statfs');
    return { type: DLMFS_MAGIC, bsize: BLOCK_SIZE, blocks: 0, bfree: 0, bavail: 0, files: 0, ffree: 0 };
  }

  async open(path: string, flags: string | number = 'r', mode = 0o666, options: DlmfsOpenOptions = {}): Promise<DlmfsHandle> {
    const bits = openFlags(flags, path);
    const refuse = (error: Errno): never => {
      throw new DlmfsError(error, 'open', path);
    };
    const { parent, name } = this.#parent(path, 'open');
    const isCreate = (bits & O_CREAT) !== 0;
    const isExclusive = isCreate && (bits & O_EXCL) !== 0;
    let node: AnyNode | Errno = name === '' ? this.tree.root : this.tree.lookup(parent, name);
    if (node === 'ENOENT' && isCreate) node = this.tree.create(parent, name, this.#attributes(mode));
    else if (isExclusive && typeof node !== 'string') refuse('EEXIST');
    if (typeof node === 'string') return refuse(node);
    if (node.kind !== 'file') {
      if (isCreate || (bits & O_ACCMODE) !== O_RDONLY) refuse('EISDIR');
      return new DirHandle(path, node);
    }
    if ((bits & O_DIRECTORY) !== 0) refuse('ENOTDIR');
    return this.#openFile(path, node, bits, options.signal);
  }

  #openFile(path: string, file: FileNode, flags: number, signal: AbortSignal | undefined): Promise<DlmfsHandle> {
    return new Promise((resolve, reject) => {
      if (signal?.aborted === true) return reject(signal.reason);
      const onAbort = (): void => {
        withdraw();
        reject(signal?.reason);
      };
      let isOver = false;
      const withdraw = this.tree.open(file, flags, (error, open) => {
        isOver = true;
        signal?.removeEventListener('abort', onAbort);
        if (error === null && open !== undefined) resolve(new FileHandle(path, open));
        else reject(new DlmfsError(error ?? 'EIO', 'open', path));
      });
      if (!isOver) signal?.addEventListener('abort', onAbort, { once: true });
    });
  }

  async unlink(path: string): Promise<void> {
    const { parent, name } = this.#parent(path, 'unlink');
    await new Promise<void>((resolve, reject) => {
      const done = (error: Errno | null): void => {
        if (error === null) resolve();
        else reject(new DlmfsError(error, 'unlink', path));
      };
      if (name === '') done('EISDIR');
      else this.tree.unlink(parent, name, done);
    });
  }

  async truncate(path: string, _length = 0): Promise<void> {
    if (this.#node(path, 'truncate').kind !== 'file') throw new DlmfsError('EISDIR', 'truncate', path);
  }
  async chmod(path: string, mode: number): Promise<void> {
    this.#node(path, 'chmod').mode = mode & 0o7777;
  }
  async chown(path: string, uid: number, gid: number): Promise<void> {
    const node = this.#node(path, 'chown');
    node.uid = uid;
    node.gid = gid;
  }
  async utimes(path: string, atimeMs: number, mtimeMs: number): Promise<void> {
    const node = this.#node(path, 'utime');
    node.atimeMs = atimeMs;
    node.mtimeMs = mtimeMs;
  }

  async rename(from: string, _to: string): Promise<void> {
    this.#node(from, 'rename');
    throw new DlmfsError('EPERM', 'rename', from);
  }
  async link(from: string, _to: string): Promise<void> {
    this.#node(from, 'link');
    throw new DlmfsError('EPERM', 'link', from);
  }
  async symlink(_target: string, path: string): Promise<void> {
    const { parent, name } = this.#parent(path, 'symlink');
    const isThere = name === '' || typeof this.tree.lookup(parent, name) !== 'string';
    throw new DlmfsError(isThere ? 'EEXIST' : 'EPERM', 'symlink', path);
  }

  async close(options: { force?: boolean } = {}): Promise<void> {
    if (this.#isClosed) return;
    if (this.tree.openCount > 0 && options.force !== true) throw new DlmfsError('EBUSY', 'umount', '/');
    this.#isClosed = true;
    for (const file of this.tree.files()) for (const open of [...file.open]) open.close();
    await new Promise<void>((resolve) => this.tree.dropUnused(resolve));
    await this.#o.onClose?.();
  }

  #attributes(mode: number): NodeAttributes {
    return { mode: mode & ~(this.#o.umask ?? 0) & 0o7777, uid: this.#o.uid ?? 0, gid: this.#o.gid ?? 0 };
  }

  /** The node a path leads to. */
  #node(path: string, syscall: string): AnyNode {
    const { parent, name } = this.#parent(path, syscall);
    const node = name === '' ? this.tree.root : this.tree.lookup(parent, name);
    if (typeof node === 'string') throw new DlmfsError(node, syscall, path);
    return node;
  }

  /** Everything but the last component, which need not be there; '' = the root itself. */
  #parent(path: string, syscall: string): { parent: AnyNode; name: string } {
    if (this.#isClosed) throw new DlmfsError('ENODEV', syscall, path, 'unmounted');
    if (typeof path !== 'string' || path.includes('\0')) throw new DlmfsError('EINVAL', syscall, String(path));
    const parts: string[] = [];
    for (const part of path.split('/')) {
      if (part === '' || part === '.') continue;
      if (part === '..') parts.pop();
      else parts.push(part);
    }
    const name = parts.pop() ?? '';
    let parent: AnyNode = this.tree.root;
    for (const part of parts) {
      const next = this.tree.lookup(parent, part);
      if (typeof next === 'string') throw new DlmfsError(next, syscall, path);
      parent = next;
    }
    return { parent, name };
  }
}

function statsOf(node: AnyNode): DlmfsStats {
  return {
    ino: node.ino,
    mode: modeOf(node),
    nlink: linksOf(node),
    uid: node.uid,
    gid: node.gid,
    size: sizeOf(node),
    blksize: BLOCK_SIZE,
    blocks: 0,
    atimeMs: node.atimeMs,
    mtimeMs: node.mtimeMs,
    ctimeMs: node.ctimeMs,
    isDirectory: () => node.kind !== 'file',
    isFile: () => node.kind === 'file',
  };
}

/** An open directory: nothing can be read from it but its attributes. */
class DirHandle implements DlmfsHandle {
  readonly path: string;
  readonly level: Mode = 0;
  readonly isBlocked = false;
  readonly #node: AnyNode;
  constructor(path: string, node: AnyNode) {
    this.path = path;
    this.#node = node;
  }
  onBlocked(): () => void {
    return () => {};
  }
  read(): Promise<never> {
    return Promise.reject(new DlmfsError('EISDIR', 'read'));
  }
  write(): Promise<never> {
    return Promise.reject(new DlmfsError('EBADF', 'write'));
  }
  async stat(): Promise<DlmfsStats> {
    return statsOf(this.#node);
  }
  truncate(): Promise<never> {
    return Promise.reject(new DlmfsError('EINVAL', 'ftruncate'));
  }
  async chmod(mode: number): Promise<void> {
    this.#node.mode = mode & 0o7777;
  }
  async close(): Promise<void> {}
}

class FileHandle implements DlmfsHandle, AsyncDisposable {
  readonly path: string;
  readonly #open: OpenFile;
  readonly #listeners = new Set<() => void>();
  #position = 0;

  constructor(path: string, open: OpenFile) {
    this.path = path;
    this.#open = open;
  }

  get level(): Mode {
    return this.#open.level;
  }
  get isBlocked(): boolean {
    return !this.#open.isClosed && this.#open.isBlocked;
  }
  /** The lock was lost with the node's lease or the daemon: reads and writes give EIO. */
  get isLost(): boolean {
    return !this.#open.isClosed && this.#open.isOver;
  }

  onBlocked(listener: () => void): () => void {
    this.#listeners.add(listener);
    this.#open.onChange = () => {
      for (const each of [...this.#listeners]) each();
    };
    if (this.isBlocked) {
      queueMicrotask(() => {
        if (this.#listeners.has(listener) && this.isBlocked) listener();
      });
    }
    return () => this.#listeners.delete(listener);
  }

  async read(
    buffer: Uint8Array,
    offset = 0,
    length = buffer.byteLength - offset,
    position: number | null = null,
  ): Promise<{ bytesRead: number; buffer: Uint8Array }> {
    const from = checkPosition('read', position) ?? this.#position;
    checkRange('read', buffer, offset, length);
    const bytes = this.#open.read(from, length);
    if (typeof bytes === 'string') throw new DlmfsError(bytes, 'read');
    buffer.set(bytes, offset);
    if (position === null) this.#position = from + bytes.length;
    return { bytesRead: bytes.length, buffer };
  }

  async write(
    data: Uint8Array | string,
    offset = 0,
    length?: number,
    position: number | null = null,
  ): Promise<{ bytesWritten: number }> {
    const bytes = typeof data === 'string' ? Buffer.from(data) : data;
    const count = length ?? bytes.byteLength - offset;
    const to = checkPosition('write', position) ?? this.#position;
    checkRange('write', bytes, offset, count);
    const written = this.#open.write(to, bytes.subarray(offset, offset + count));
    if (typeof written === 'string') throw new DlmfsError(written, 'write');
    if (position === null) this.#position = to + written;
    return { bytesWritten: written };
  }

  async stat(): Promise<DlmfsStats> {
    this.#check('fstat');
    return statsOf(this.#open.file);
  }
  async truncate(_length = 0): Promise<void> {
    this.#check('ftruncate');
    if (!this.#open.canWrite) throw new DlmfsError('EINVAL', 'ftruncate');
  }
  async chmod(mode: number): Promise<void> {
    this.#check('fchmod');
    this.#open.file.mode = mode & 0o7777;
  }
  async close(): Promise<void> {
    this.#check('close');
    this.#listeners.clear();
    this.#open.close();
  }
  async [Symbol.asyncDispose](): Promise<void> {
    if (!this.#open.isClosed) await this.close();
  }

  #check(syscall: string): void {
    if (this.#open.isClosed) throw new DlmfsError('EBADF', syscall);
  }
}

function checkPosition(syscall: string, position: number | null): number | null {
  if (position === null || position === -1) return null;
  if (Number.isSafeInteger(position) && position >= 0) return position;
  throw new DlmfsError('EINVAL', syscall, undefined, `position ${position}`);
}

function checkRange(syscall: string, buffer: Uint8Array, offset: number, length: number): void {
  if (Number.isInteger(offset) && Number.isInteger(length) && offset >= 0 && length >= 0 && offset + length <= buffer.byteLength)
    return;
  throw new DlmfsError('EINVAL', syscall, undefined, `offset ${offset}, length ${length} of ${buffer.byteLength} bytes`);
}
