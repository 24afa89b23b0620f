/**
 * One connection of a 9P client: its socket, cut into frames one way and gathered into one write per turn the other way.
 *
 * Everything is bounded: a client that does not read its answers is not read from, and cut off when it goes on; one that
 * connects and says nothing is sent away.
 */
import type { Socket } from 'node:net';
import { FrameReader } from '../dlmfs/9p-codec.js';
import { NinepSession } from '../dlmfs/9p-session.js';
import type { Tree } from '../dlmfs/tree.js';

/** Above this backlog nothing more is read from the client. */
const PAUSE_BYTES = 256 * 1024;
const BACKLOG_BYTES_MAX = 4 * 1024 * 1024;

export interface FileConnectionHost {
  mount(connection: FileConnection, aname: string): Tree | null;
  unmounted(connection: FileConnection, tree: Tree): void;
  /** A message that made no sense and was answered with an error. */
  refused(why: string): void;
  /** The connection was ended because of what the client did. */
  fault(connection: FileConnection, why: string): void;
  closed(connection: FileConnection): void;
  /** Runs `work` as an input of the core: what it throws ends the daemon, and nothing runs once it is over. */
  guard(work: () => void): void;
}

export class FileConnection {
  readonly session: NinepSession;
  /** Name of the mount, from its first attach on. */
  mountId = '';
  readonly openedAt: number;
  readonly #socket: Socket;
  readonly #host: FileConnectionHost;
  readonly #reader: FrameReader;
  #out: Buffer[] = [];
  #isFlushing = false;
  #isOver = false;
  #timer: NodeJS.Timeout | null;

  constructor(host: FileConnectionHost, socket: Socket, now: number, greetingMs: number) {
    this.#host = host;
    this.#socket = socket;
    this.openedAt = now;
    this.session = new NinepSession({
      send: (bytes) => this.#send(bytes),
      mount: (aname) => {
        this.#stopTimer();
        return host.mount(this, aname);
      },
      unmounted: (tree) => host.unmounted(this, tree),
      refused: (why) => host.refused(why),
      fault: (why) => this.#fault(why),
      now: Date.now,
    });
    this.#reader = new FrameReader(this.session.frameMax);
    this.#timer = setTimeout(() => this.#fault(`nothing was mounted within ${greetingMs} ms`), greetingMs);
    socket.setNoDelay(true);
    socket.on('data', this.#onData);
    socket.on('drain', () => socket.resume());
    socket.on('end', () => this.end());
    socket.on('error', () => this.end());
    socket.on('close', () => this.end());
  }

  #onData = (chunk: Buffer): void => {
    if (this.#isOver) return;
    // The answers that come at once go out below, together.
    this.#isFlushing = true;
    const isOk = this.#reader.push(chunk, (frame) => {
      if (this.#isOver) return;
      this.#host.guard(() => this.session.receive(frame));
      this.#reader.limit = this.session.frameMax;
    });
    if (!isOk) this.#fault('a message of no sensible size');
    this.#flush();
  };

  #send(bytes: Buffer): void {
    if (this.#isOver) return;
    this.#out.push(bytes);
    if (this.#isFlushing) return;
    this.#isFlushing = true;
    // Grants come outside of the client's own chunks.
    queueMicrotask(() => this.#flush());
  }

  #flush(): void {
    this.#isFlushing = false;
    if (this.#out.length === 0 || this.#isOver) return;
    const out = this.#out;
    this.#out = [];
    const [first] = out;
    this.#socket.write(out.length === 1 && first !== undefined ? first : Buffer.concat(out));
    const backlog = this.#socket.writableLength;
    if (backlog > BACKLOG_BYTES_MAX) this.#fault(`it left ${backlog} bytes unread`);
    else if (backlog > PAUSE_BYTES) this.#socket.pause();
  }

  #fault(why: string): void {
    if (this.#isOver) return;
    this.#host.fault(this, why);
    this.end();
  }

  #stopTimer(): void {
    if (this.#timer !== null) clearTimeout(this.#timer);
    this.#timer = null;
  }

  /** The daemon restarts: nothing of this connection counts any more, and what it holds is the next daemon's matter. */
  cut(): void {
    this.#isOver = true;
    this.#stopTimer();
    this.#socket.destroy();
  }

  /** End of file, or cut off: what waits is withdrawn, what is open becomes orphan holds. */
  end(): void {
    if (this.#isOver) return;
    this.#isOver = true;
    this.#stopTimer();
    this.#socket.destroy();
    this.#host.guard(() => this.session.end());
    this.#host.closed(this);
  }
}
