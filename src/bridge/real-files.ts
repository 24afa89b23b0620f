/**
 * The kernel's dlmfs for the bridge: a mount of its own, because a mount is a lock owner (rule 4).
 *
 * On the users' mount the bridge would share its locks with every program of the node. So it mounts ocfs2_dlmfs a second time,
 * in a directory that only root can enter, and leaves it mounted: what a killed helper held stays *cached* there, and the next
 * helper finds the names and unlinks them. The users' mount is only looked at: while it is gone, nothing is granted.
 */
import { execFile } from 'node:child_process';
import fs from 'node:fs';
import { mkdir, readdir, unlink } from 'node:fs/promises';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { DLMFS_TYPE, mountAt } from '../dlmfs/kernel-detect.js';
import { KernelFile } from '../dlmfs/kernel-file.js';
import { O_CREAT, O_NONBLOCK, O_RDONLY, O_RDWR } from '../dlmfs/types.js';
import { LVB_BYTES } from '../protocol/limits.js';
import { EX, type Mode } from '../protocol/modes.js';
import type { KernelFiles, KernelHold } from './kernel-files.js';

const call = { open: promisify(fs.open), read: promisify(fs.read), write: promisify(fs.write), execFile: promisify(execFile) };

export class RealFiles implements KernelFiles {
  readonly #users: string;
  readonly #own: string;

  /** `users`: the mount that programs use. `own`: an empty directory, made where it is missing. */
  constructor(users: string, own: string) {
    this.#users = users;
    this.#own = own;
  }

  async check(): Promise<void> {
    const mount = mountAt(this.#users);
    if (mount?.type !== DLMFS_TYPE) {
      const what = mount === null ? 'nothing is mounted there' : `${mount.type} is mounted there`;
      throw new Error(`${this.#users} is not the kernel's ocfs2_dlmfs: ${what}`);
    }
    if (mountAt(this.#own)?.type === DLMFS_TYPE) return;
    await mkdir(this.#own, { recursive: true, mode: 0o700 });
    try {
      await call.execFile('mount', ['-t', DLMFS_TYPE, 'none', this.#own]);
    } catch (error) {
      const text = String((error as { stderr?: string }).stderr ?? (error as Error).message).trim();
      throw new Error(`ocfs2_dlmfs cannot be mounted at ${this.#own}: ${text}`);
    }
  }

  async join(domain: string): Promise<void> {
    try {
      await mkdir(join(this.#own, domain), { mode: 0o700 });
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code === 'EEXIST') return;
      throw new Error(`the kernel does not join domain '${domain}': ${(error as Error).message}; does the o2cb cluster run?`);
    }
  }

  names(domain: string): Promise<string[]> {
    return readdir(join(this.#own, domain));
  }

  async open(domain: string, name: string, mode: Mode, isTry: boolean): Promise<KernelHold> {
    const flags = (mode === EX ? O_RDWR : O_RDONLY) | O_CREAT | (isTry ? O_NONBLOCK : 0);
    return new RealHold(await call.open(join(this.#own, domain, name), flags, 0o600), mode);
  }

  unlink(domain: string, name: string): Promise<void> {
    return unlink(join(this.#own, domain, name));
  }
}

class RealHold implements KernelHold {
  readonly mode: Mode;
  readonly #file: KernelFile;

  constructor(fd: number, mode: Mode) {
    this.#file = new KernelFile(fd);
    this.mode = mode;
  }

  async read(): Promise<Uint8Array> {
    const value = Buffer.alloc(LVB_BYTES);
    await call.read(this.#file.fd, value, 0, LVB_BYTES, 0);
    return value;
  }
  async write(value: Uint8Array): Promise<void> {
    await call.write(this.#file.fd, value, 0, value.length, 0);
  }
  onBlocked(blocked: () => void): void {
    this.#file.watch((isBlocked) => {
      if (isBlocked) blocked();
    });
  }
  close(): void {
    this.#file.close();
  }
}
