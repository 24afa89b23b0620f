/**
 * The daemon's connection to its bridge helper: finds the one that is there, or starts one.
 *
 * A helper of an earlier daemon is listening on the socket and may hold locks: it is always tried first. A helper of another
 * version is left alone; it ends by itself when its deadline is over, and then one of ours is started.
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

/** What the bridge needs of its link; tests connect it to a HelperCore directly. */
export interface BridgeLink {
  send(message: ToHelper): void;
  close(): void;
}

export interface LinkEvents {
  /** The helper's first message: it is attached, and says what it holds. */
  attached(names: Extract<FromHelper, { k: 'hello' }>['names']): void;
  message(message: FromHelper): void;
  /** The helper has ended, or cannot be had. What it held is no longer held for sure. Another one is tried. */
  detached(why: string): void;
}

export interface HelperLinkOptions {
  socket: string;
  /** Where programs have the kernel's dlmfs. */
  users: string;
  /** Where the helper mounts its own. */
  own: string;
  domains: string[];
  events: LinkEvents;
}

export class HelperLink implements BridgeLink {
  readonly #o: HelperLinkOptions;
  #socket: Socket | null = null;
  #timer: NodeJS.Timeout | null = null;
  #isClosed = false;

  constructor(options: HelperLinkOptions) {
    this.#o = options;
    this.#connect(true);
  }

  send(message: ToHelper): void {
    this.#socket?.write(`${JSON.stringify(message)}\n`);
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
    const lines = new MessageLines<FromHelper>((message) => {
      if (message.k !== 'hello') {
        if (isAttached) this.#o.events.message(message);
      } else if (message.version === BRIDGE_VERSION) {
        isAttached = true;
        this.#o.events.attached(message.names);
      } else {
        this.#o.events.detached(
          `a bridge helper of version ${message.version} still holds locks; this daemon speaks ${BRIDGE_VERSION}`,
        );
        socket.destroy();
      }
    });
    socket.setEncoding('utf8');
    socket.on('connect', () => {
      this.#socket = socket;
      this.send({ k: 'hello', version: BRIDGE_VERSION, domains: this.#o.domains });
    });
    socket.on('data', (chunk: string) => lines.push(chunk));
    socket.on('error', () => {});
    socket.on('close', () => {
      const was = this.#socket === socket;
      if (was) this.#socket = null;
      if (this.#isClosed) return;
      if (was && isAttached) this.#o.events.detached('the bridge helper has ended');
      if (!was && mayStart) this.#start();
      else this.#timer = setTimeout(() => this.#connect(true), RETRY_MS);
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
