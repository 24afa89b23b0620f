/** A bridge helper that can be killed or stopped, with the real HelperCore and HelperDoor, on a dlmfs in memory. */
import { HelperCore } from '../../src/bridge/helper-core.js';
import { type DaemonSocket, HelperDoor } from '../../src/bridge/helper-door.js';
import type { KernelFiles, KernelHold } from '../../src/bridge/kernel-files.js';
import type { Mode } from '../../src/protocol/modes.js';

/** Files that the kernel closes when their process dies, which it does not while one of its calls waits. */
class MortalFiles implements KernelFiles {
  readonly #files: KernelFiles;
  readonly #holds = new Set<KernelHold>();
  #waiting = 0;
  isKilled = false;
  onDead: () => void = () => {};

  constructor(files: KernelFiles) {
    this.#files = files;
  }

  kill(): void {
    this.isKilled = true;
    this.#dieIfFree();
  }

  #dieIfFree(): void {
    if (!this.isKilled || this.#waiting > 0) return;
    for (const hold of this.#holds) hold.close();
    this.#holds.clear();
    this.onDead();
  }

  /** Never settles once the process is killed: nobody is there to go on. */
  async #call<T>(work: Promise<T>): Promise<T> {
    this.#waiting++;
    const done = (): void => {
      this.#waiting--;
      this.#dieIfFree();
    };
    const result = await work.catch(async (error) => {
      done();
      if (this.isKilled) await new Promise(() => {});
      throw error;
    });
    done();
    if (this.isKilled) await new Promise(() => {});
    return result;
  }

  check(): Promise<void> {
    return this.#files.check();
  }
  join(domain: string): Promise<void> {
    return this.#files.join(domain);
  }
  names(domain: string): Promise<string[]> {
    return this.#files.names(domain);
  }
  unlink(domain: string, name: string): Promise<void> {
    if (this.isKilled) return new Promise(() => {});
    return this.#call(this.#files.unlink(domain, name));
  }
  open(domain: string, name: string, mode: Mode, isTry: boolean): Promise<KernelHold> {
    if (this.isKilled) return new Promise(() => {});
    const opening = this.#files.open(domain, name, mode, isTry).then((real) => {
      const hold: KernelHold = {
        mode,
        read: () => real.read(),
        write: (value) => real.write(value),
        onBlocked: (blocked) => real.onBlocked(() => void (this.isKilled || blocked())),
        close: () => {
          if (!this.isKilled && this.#holds.delete(real)) real.close();
        },
      };
      // A killed process gives back what it is granted.
      if (this.isKilled) real.close();
      else this.#holds.add(real);
      return hold;
    });
    return this.#call(opening);
  }
}

/** One connection, from the helper's end. */
export class HelperSocket implements DaemonSocket {
  #data: (chunk: string) => void = () => {};
  #ends: (() => void)[] = [];
  #queue: (string | null)[] = [];
  #isRunning = false;
  #isPumping = false;
  readonly #toDaemon: (line: string) => void;
  isPaused: () => boolean = () => false;

  constructor(toDaemon: (line: string) => void) {
    this.#toDaemon = toDaemon;
  }

  setEncoding(): void {}
  on(event: string, listener: (chunk: string) => void): void {
    if (event === 'data') this.#data = listener;
    else this.#ends.push(listener as () => void);
  }
  write(text: string): void {
    this.#toDaemon(text);
  }
  resume(): void {
    this.#isRunning = true;
    this.pump();
  }
  destroy(): void {
    this.#queue = [null];
    this.pump();
  }
  /** From the daemon: a line, or its end. */
  push(line: string | null): void {
    this.#queue.push(line);
    this.pump();
  }
  pump(): void {
    if (this.#isPumping || !this.#isRunning) return;
    this.#isPumping = true;
    setImmediate(() => {
      this.#isPumping = false;
      if (this.isPaused() || this.#queue.length === 0) return;
      const next = this.#queue.shift();
      if (next === null) for (const listener of this.#ends) listener();
      else if (next !== undefined) this.#data(next);
      this.pump();
    });
  }
}

export class MortalHelper {
  readonly #files: MortalFiles;
  readonly #door: HelperDoor;
  readonly #sockets: HelperSocket[] = [];
  readonly #isDeaf: boolean;
  isPaused = false;
  isKilled = false;
  isGone = false;

  /** `onGone`: all its files and sockets are closed. `isDeaf`: a planted bug, the next daemon cuts off the one before. */
  constructor(o: { files: KernelFiles; now: () => number; onGone: () => void; isDeaf: boolean }) {
    this.#files = new MortalFiles(o.files);
    this.#isDeaf = o.isDeaf;
    const gone = (): void => {
      if (this.isGone) return;
      this.isGone = true;
      o.onGone();
    };
    this.#files.onDead = gone;
    const core = new HelperCore({
      files: this.#files,
      now: o.now,
      onIdle: () => {
        this.isKilled = true;
        this.#files.kill();
      },
    });
    this.#door = new HelperDoor(core, () => {});
  }

  accept(socket: HelperSocket): void {
    socket.isPaused = () => this.isPaused || this.isKilled;
    if (this.#isDeaf) for (const old of this.#sockets) old.destroy();
    this.#sockets.push(socket);
    this.#door.accept(socket);
  }

  pause(isPaused: boolean): void {
    this.isPaused = isPaused;
    if (!isPaused) for (const socket of this.#sockets) socket.pump();
  }

  kill(): void {
    this.isKilled = true;
    this.#files.kill();
  }
}
