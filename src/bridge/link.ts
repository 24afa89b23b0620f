/**
 * The daemon's connection to its bridge helper: finds the one that is there, or starts one.
 *
 * A helper of an earlier daemon is listening on the socket and may hold locks: it is always tried first. A helper of another
 * version is left alone; it ends by itself when its deadline is over, and then one of ours is started. Nor is another one started
 * beside one that does not answer: a helper that was killed while a call of it waits in the kernel is dead to us, but keeps its
 * files, and its socket, until that call returns.
 */
import { spawn } from 'node:child_process';
import { closeSync, openSync, unlinkSync } from 'node:fs';
import { connect, type Socket } from 'node:net';
import { fileURLToPath } from 'node:url';
import { BRIDGE_VERSION, type FromHelper, MessageLines, type ToHelper } from './protocol.js';

const HELPER = fileURLToPath(new URL('./helper.js', import.meta.url));
/** Opens that may wait in the kernel at a time, in the helper. */
const THREADS = 256;
const RETRY_MS = 500;
const START_MS_MAX = 30_000;
const PING_MS = 1000;
/** A helper that says nothing for so long is none: it was stopped, or was killed while one of its calls waits in the kernel. */
const SILENCE_MS_MAX = 10_000;

/** What the bridge needs of its link; tests connect it to a HelperCore directly. */
export interface BridgeLink {
  /** True when this message, and all before it, would reach the helper even if this process were killed now. */
  send(message: ToHelper): boolean;
  /** Gives the present helper up; another connection is tried. */
  drop(why: string): void;
  close(): void;
}

export interface LinkEvents {
  /** The helper's first message: it is attached, and says what it holds. */
  attached(names: Extract<FromHelper, { k: 'hello' }>['names']): void;
  message(message: FromHelper): void;
  /** The helper has ended, or cannot be had. What it held is no longer held for sure. Another one is tried. */
  detached(why: string): void;
  /** Nobody listens: there is no helper, so none holds anything. One will be started. */
  absent(): void;
  /** All that was sent would reach the helper now. */
  drained(): void;
}

export interface HelperLinkOptions {
  socket: string;
  /** Where programs have the kernel's dlmfs. */
  users: string;
  /** Where the helper mounts its own. */
  own: string;
  domains: string[];
  events: LinkEvents;
  /** How long the helper may say nothing, for tests. */
  silenceMs?: number;
}

export class HelperLink implements BridgeLink {
  readonly #o: HelperLinkOptions;
  #socket: Socket | null = null;
  #timer: NodeJS.Timeout | null = null;
  #isClosed = false;
  /** Something that was sent is still in this process. */
  #isFull = false;
  /** Why the present connection is being given up. */
  #dropped = '';

  constructor(options: HelperLinkOptions) {
    this.#o = options;
    this.#connect(true);
  }

  send(message: ToHelper): boolean {
    const socket = this.#socket;
    if (socket === null) return false;
    socket.write(`${JSON.stringify(message)}\n`, () => {
      if (!this.#isFull || socket !== this.#socket || socket.writableLength > 0) return;
      this.#isFull = false;
      this.#o.events.drained();
    });
    const isOut = socket.writableLength === 0;
    if (!isOut) this.#isFull = true;
    return isOut;
  }

  drop(why: string): void {
    this.#dropped = why;
    this.#socket?.destroy();
  }

  close(): void {
    this.#isClosed = true;
    if (this.#timer !== null) clearTimeout(this.#timer);
    this.#socket?.end();
    this.#socket?.unref();
  }

  #connect(mayStart: boolean): void {
    const socket = connect(this.#o.socket);
    let isAttached = false;
    let isStrange = false;
    let failed: NodeJS.ErrnoException | null = null;
    let heard = performance.now();
    const { events } = this.#o;
    const lines = new MessageLines<FromHelper>((message) => {
      if (message.k !== 'hello') {
        if (isAttached) events.message(message);
      } else if (message.version === BRIDGE_VERSION) {
        isAttached = true;
        events.attached(message.names);
      } else {
        isStrange = true;
        events.detached(`a bridge helper of version ${message.version} still holds locks; this daemon speaks ${BRIDGE_VERSION}`);
        socket.destroy();
      }
    });
    const pinger = setInterval(() => {
      if (performance.now() - heard > (this.#o.silenceMs ?? SILENCE_MS_MAX)) {
        this.#dropped = 'the bridge helper does not answer';
        socket.destroy();
      } else if (isAttached) this.send({ k: 'ping' });
    }, PING_MS).unref();
    socket.setEncoding('utf8');
    socket.on('connect', () => {
      this.#socket = socket;
      this.#isFull = false;
      heard = performance.now();
      this.send({ k: 'hello', version: BRIDGE_VERSION, domains: this.#o.domains });
    });
    socket.on('data', (chunk: string) => {
      heard = performance.now();
      lines.push(chunk);
    });
    socket.on('error', (error: NodeJS.ErrnoException) => {
      failed = error;
    });
    socket.on('close', () => {
      clearInterval(pinger);
      const was = this.#socket === socket;
      if (was) this.#socket = null;
      if (this.#isClosed) return;
      const isAbsent = failed?.code === 'ENOENT' || failed?.code === 'ECONNREFUSED';
      if (!was && isAbsent && mayStart) {
        events.absent();
        this.#start();
        return;
      }
      const why =
        this.#dropped || (was ? 'the bridge helper has ended' : `no bridge helper can be reached: ${failed?.message ?? ''}`);
      this.#dropped = '';
      if (!isStrange) events.detached(why);
      this.#timer = setTimeout(() => this.#connect(true), RETRY_MS);
    });
  }

  /** Nobody listens: a socket file that is there was left by a helper that was killed. */
  #start(): void {
    try {
      unlinkSync(this.#o.socket);
    } catch {
      // It was not there.
    }
    // The daemon's own standard error would be kept open by a process that outlives it.
    const log = openSync(`${this.#o.socket}.log`, 'a', 0o600);
    const child = spawn(process.execPath, [HELPER, this.#o.socket, this.#o.users, this.#o.own], {
      detached: true,
      stdio: ['ignore', 'pipe', log],
      cwd: '/',
      env: { ...process.env, UV_THREADPOOL_SIZE: String(THREADS) },
    });
    closeSync(log);
    child.unref();
    const limit = setTimeout(() => child.kill('SIGKILL'), START_MS_MAX);
    const next = (why: string): void => {
      clearTimeout(limit);
      child.removeAllListeners();
      child.stdout?.removeAllListeners();
      child.stdout?.destroy();
      if (this.#isClosed) return;
      if (why === '') {
        this.#connect(false);
        return;
      }
      this.#o.events.detached(why);
      this.#timer = setTimeout(() => this.#connect(true), RETRY_MS);
    };
    child.stdout?.once('data', () => next(''));
    child.once('error', (error) => next(`the bridge helper cannot be started: ${error.message}`));
    child.once('exit', (code) => next(`the bridge helper ended at its start with code ${code}`));
  }
}
