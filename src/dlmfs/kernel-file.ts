/**
 * One open file of the kernel's ocfs2_dlmfs, with what Node does not offer by itself: poll().
 *
 * The problem: the kernel says "another node wants this lock" by making the file readable for poll(), and Node polls sockets
 * and pipes only. The idea: the descriptor is handed to a pipe handle, whose event loop does poll it; what it then reads is
 * the value block, which nobody needs here. Only for regular files of ocfs2_dlmfs: epoll refuses files of most other file
 * systems, the kernel's 9P client among them, and libuv ends the process over that.
 *
 * The signal is level triggered, so after each one the handle rests and looks again a little later.
 */
import { closeSync } from 'node:fs';

interface PipeHandle {
  open(fd: number): number;
  readStart(): number;
  readStop(): number;
  close(): void;
  unref(): void;
  onread: (data?: ArrayBuffer) => void;
}

/** How long a file that is readable is left alone, and how long it takes to say that it still is. */
const REST_MS = 250;
const LOOK_MS = 100;

function newPipe(): PipeHandle | null {
  try {
    // The only door to a poll on an arbitrary descriptor. Without it there are no blocking notices, and all else works.
    const { binding } = process as unknown as { binding: (name: string) => unknown };
    const { Pipe, constants } = binding.call(process, 'pipe_wrap') as {
      Pipe: new (type: number) => PipeHandle;
      constants: { SOCKET: number };
    };
    return new Pipe(constants.SOCKET);
  } catch {
    return null;
  }
}

export class KernelFile {
  readonly fd: number;
  #pipe: PipeHandle | null = null;
  #timer: NodeJS.Timeout | null = null;
  #isBlocked = false;
  #isClosed = false;

  constructor(fd: number) {
    this.fd = fd;
  }

  /** Another owner waits for a mode that goes against ours. */
  get isBlocked(): boolean {
    return this.#isBlocked;
  }

  /** Calls `changed` whenever `isBlocked` has changed. False when this Node cannot poll. */
  watch(changed: (isBlocked: boolean) => void): boolean {
    if (this.#pipe !== null || this.#isClosed) return true;
    const pipe = newPipe();
    if (pipe === null || pipe.open(this.fd) !== 0) return false;
    this.#pipe = pipe;
    pipe.onread = () => {
      pipe.readStop();
      if (this.#isClosed) return;
      if (this.#timer !== null) clearTimeout(this.#timer);
      this.#timer = setTimeout(look, REST_MS);
      if (this.#isBlocked) return;
      this.#isBlocked = true;
      changed(true);
    };
    const look = (): void => {
      if (this.#isClosed) return;
      this.#timer = setTimeout(() => {
        this.#timer = null;
        if (!this.#isBlocked || this.#isClosed) return;
        this.#isBlocked = false;
        changed(false);
      }, LOOK_MS);
      pipe.readStart();
    };
    pipe.readStart();
    return true;
  }

  /** Never waits: closing an ocfs2_dlmfs file only counts a holder less. */
  close(): void {
    if (this.#isClosed) return;
    this.#isClosed = true;
    if (this.#timer !== null) clearTimeout(this.#timer);
    // The pipe owns the descriptor, and closes it in this call.
    if (this.#pipe !== null) this.#pipe.close();
    else closeSync(this.fd);
  }
}
