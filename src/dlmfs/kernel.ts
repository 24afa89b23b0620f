/**
 * The file API on a file system that the kernel has mounted: its own ocfs2_dlmfs, or a 9P mount of tsdlm.
 *
 * Meaning and errors are the kernel's, untranslated, quirks included. Calls that wait in the kernel wait in a helper process
 * (kernel-helper.ts): neither the event loop nor a thread of this process is held up. An open that was withdrawn by its
 * signal rejects at once; the wait itself cannot be ended in the kernel, and what it is granted is given back then.
 */
import { EX, type Mode, PR } from '../protocol/modes.js';
import { DlmfsError } from './errno.js';
import { KernelHelper } from './kernel-client.js';
import type { KernelOpened } from './kernel-protocol.js';
import {
  type Dlmfs,
  type DlmfsAttributes,
  type DlmfsHandle,
  type DlmfsOpenOptions,
  type DlmfsStatFs,
  type DlmfsStats,
  O_ACCMODE,
  O_RDONLY,
  S_IFDIR,
  S_IFMT,
  S_IFREG,
} from './types.js';

export interface KernelDlmfsOptions {
  /** The mount is ocfs2_dlmfs, whose files can be polled: `isBlocked` works. Default true. */
  canPoll?: boolean;
}

/** Files of `dir`, which must be mounted (kernel-detect.ts). */
export function openKernelDlmfs(dir: string, options: KernelDlmfsOptions = {}): Dlmfs {
  return new KernelDlmfs(dir, options.canPoll ?? true);
}

class KernelDlmfs implements Dlmfs {
  readonly backend = 'kernel';
  readonly root: string;
  readonly #helper = new KernelHelper();
  readonly #canPoll: boolean;
  readonly #handles = new Set<KernelHandle>();

  constructor(dir: string, canPoll: boolean) {
    this.root = dir.replace(/(?<=.)\/+$/, '');
    this.#canPoll = canPoll;
  }

  #path(path: string): string {
    return `${this.root}/${path.replace(/^\/+/, '')}`;
  }

  async mkdir(path: string, mode = 0o777): Promise<void> {
    await this.#helper.request({ op: 'mkdir', path: this.#path(path), mode });
  }
  async rmdir(path: string): Promise<void> {
    await this.#helper.request({ op: 'rmdir', path: this.#path(path) });
  }
  async readdir(path: string): Promise<string[]> {
    return (await this.#helper.request({ op: 'readdir', path: this.#path(path) })) as string[];
  }
  async stat(path: string): Promise<DlmfsStats> {
    return statsOf((await this.#helper.request({ op: 'stat', path: this.#path(path) })) as DlmfsAttributes);
  }
  async statfs(path = '/'): Promise<DlmfsStatFs> {
    return (await this.#helper.request({ op: 'statfs', path: this.#path(path) })) as DlmfsStatFs;
  }

  async open(path: string, flags: string | number = 'r', mode = 0o666, options: DlmfsOpenOptions = {}): Promise<DlmfsHandle> {
    const { h } = (await this.#helper.request(
      { op: 'open', path: this.#path(path), flags, mode, watch: this.#canPoll },
      options.signal === undefined ? {} : { signal: options.signal },
    )) as KernelOpened;
    const handle = new KernelHandle(this.#helper, h, path, levelOf(flags), () => this.#handles.delete(handle));
    this.#handles.add(handle);
    return handle;
  }

  async unlink(path: string): Promise<void> {
    await this.#helper.request({ op: 'unlink', path: this.#path(path) });
  }
  async truncate(path: string, length = 0): Promise<void> {
    await this.#helper.request({ op: 'truncate', path: this.#path(path), length });
  }
  async chmod(path: string, mode: number): Promise<void> {
    await this.#helper.request({ op: 'chmod', path: this.#path(path), mode });
  }
  async chown(path: string, uid: number, gid: number): Promise<void> {
    await this.#helper.request({ op: 'chown', path: this.#path(path), uid, gid });
  }
  async utimes(path: string, atimeMs: number, mtimeMs: number): Promise<void> {
    await this.#helper.request({ op: 'utimes', path: this.#path(path), atimeMs, mtimeMs });
  }
  async rename(from: string, to: string): Promise<void> {
    await this.#helper.request({ op: 'rename', path: this.#path(from), to: this.#path(to) });
  }
  async link(from: string, to: string): Promise<void> {
    await this.#helper.request({ op: 'link', path: this.#path(from), to: this.#path(to) });
  }
  async symlink(target: string, path: string): Promise<void> {
    await this.#helper.request({ op: 'symlink', path: this.#path(path), to: target });
  }

  /** Unlike an unmount it leaves the kernel's mount, and what it keeps locked, as they are. */
  async close(options: { force?: boolean } = {}): Promise<void> {
    if (this.#handles.size > 0 && options.force !== true) throw new DlmfsError('EBUSY', 'umount', this.root);
    await Promise.allSettled([...this.#handles].map((handle) => handle.close()));
    this.#helper.close();
  }
}

class KernelHandle implements DlmfsHandle {
  readonly path: string;
  readonly level: Mode;
  readonly #helper: KernelHelper;
  readonly #h: number;
  readonly #closed: () => void;
  #position = 0;
  #isBlocked = false;
  #isOpen = true;
  readonly #listeners = new Set<() => void>();

  constructor(helper: KernelHelper, h: number, path: string, level: Mode, closed: () => void) {
    this.#helper = helper;
    this.#h = h;
    this.path = path;
    this.level = level;
    this.#closed = closed;
    helper.watch(h, (isBlocked) => {
      this.#isBlocked = isBlocked;
      if (isBlocked) for (const listener of [...this.#listeners]) listener();
    });
  }

  get isBlocked(): boolean {
    return this.#isBlocked;
  }

  onBlocked(listener: () => void): () => void {
    this.#listeners.add(listener);
    if (this.#isBlocked) queueMicrotask(() => this.#listeners.has(listener) && listener());
    return () => this.#listeners.delete(listener);
  }

  async read(
    buffer: Uint8Array,
    offset = 0,
    length = buffer.byteLength - offset,
    position: number | null = null,
  ): Promise<{ bytesRead: number; buffer: Uint8Array }> {
    this.#check('read');
    const text = await this.#helper.request({ op: 'read', h: this.#h, length, position: position ?? this.#position });
    const data = Buffer.from(text as string, 'base64');
    buffer.set(data, offset);
    if (position === null) this.#position += data.length;
    return { bytesRead: data.length, buffer };
  }

  async write(
    buffer: Uint8Array | string,
    offset = 0,
    length?: number,
    position: number | null = null,
  ): Promise<{ bytesWritten: number }> {
    this.#check('write');
    const whole =
      typeof buffer === 'string' ? Buffer.from(buffer) : Buffer.from(buffer.buffer, buffer.byteOffset, buffer.byteLength);
    const data = whole.subarray(offset, length === undefined ? undefined : offset + length).toString('base64');
    const at = position ?? this.#position;
    const bytesWritten = (await this.#helper.request({ op: 'write', h: this.#h, data, position: at })) as number;
    if (position === null) this.#position += bytesWritten;
    return { bytesWritten };
  }

  async stat(): Promise<DlmfsStats> {
    this.#check('fstat');
    return statsOf((await this.#helper.request({ op: 'fstat', h: this.#h })) as DlmfsAttributes);
  }
  async truncate(length = 0): Promise<void> {
    this.#check('ftruncate');
    await this.#helper.request({ op: 'ftruncate', h: this.#h, length });
  }
  async chmod(mode: number): Promise<void> {
    this.#check('fchmod');
    await this.#helper.request({ op: 'fchmod', h: this.#h, mode });
  }

  async close(): Promise<void> {
    this.#check('close');
    this.#isOpen = false;
    this.#helper.unwatch(this.#h);
    this.#closed();
    await this.#helper.request({ op: 'close', h: this.#h });
  }

  #check(syscall: string): void {
    if (!this.#isOpen) throw new DlmfsError('EBADF', syscall, this.path);
  }
}

/** Read only is PR; any write access, also that of the access mode 3, is EX. */
function levelOf(flags: string | number): Mode {
  if (typeof flags === 'number') return (flags & O_ACCMODE) === O_RDONLY ? PR : EX;
  return ['r', 'rs', 'sr'].includes(flags) ? PR : EX;
}

function statsOf(s: DlmfsAttributes): DlmfsStats {
  return {
    ...s,
    isDirectory: () => (s.mode & S_IFMT) === S_IFDIR,
    isFile: () => (s.mode & S_IFMT) === S_IFREG,
  };
}
