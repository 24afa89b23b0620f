/** This process's end of kernel-helper.ts: starts the helper, numbers the requests, and settles them by their answers. */
import { type ChildProcess, spawn } from 'node:child_process';
import type { Socket } from 'node:net';
import { fileURLToPath } from 'node:url';
import { type KernelReply, type KernelRequest, LineReader } from './kernel-protocol.js';

/** Calls of one helper that may wait in the kernel at a time, plus a few that never do. */
export const HELPER_THREADS = 128;
const HELPER = fileURLToPath(new URL('./kernel-helper.js', import.meta.url));

export interface KernelHelperOptions {
  /** The helper gets our standard input, output and error: for the command that it will run. */
  inheritStdio?: boolean;
}

/** Withdraws a request that waits: what it opens will be closed again. */
export interface RequestOptions {
  signal?: AbortSignal;
}

interface Pending {
  resolve: (value: unknown) => void;
  reject: (error: unknown) => void;
}

export class KernelHelper {
  readonly #child: ChildProcess;
  readonly #control: Socket;
  readonly #pending = new Map<number, Pending>();
  readonly #watchers = new Map<number, (isBlocked: boolean) => void>();
  #onExit: ((code: number | null, signal: NodeJS.Signals | null) => void) | null = null;
  #nextId = 1;
  #over: Error | null = null;
  #isKept = false;
  /** Resolves when nothing can be asked of the helper any more. */
  readonly ended: Promise<void>;
  #onOver: () => void = () => {};

  constructor(options: KernelHelperOptions = {}) {
    this.ended = new Promise((resolve) => {
      this.#onOver = resolve;
    });
    const own = options.inheritStdio === true ? 'inherit' : 'ignore';
    // In a session of its own: it may outlive us, and a terminal's signals are not for it.
    this.#child = spawn(process.execPath, [HELPER], {
      detached: true,
      stdio: [own, own, 'inherit', 'pipe'],
      env: { ...process.env, UV_THREADPOOL_SIZE: String(HELPER_THREADS) },
    });
    this.#control = this.#child.stdio[3] as Socket;
    const lines = new LineReader((line) => this.#answer(JSON.parse(line) as KernelReply));
    this.#control.setEncoding('utf8');
    this.#control.on('data', (chunk: string) => lines.push(chunk));
    this.#control.on('error', (error) => this.#end(error));
    this.#control.on('close', () => this.#end(new Error('the helper process has ended')));
    this.#child.on('error', (error) => this.#end(error));
    this.#child.unref();
    this.#control.unref();
  }

  get isOver(): boolean {
    return this.#over !== null;
  }

  get pid(): number {
    return this.#child.pid ?? 0;
  }

  /** The outcome of one call. A rejection is shaped as those of node:fs. */
  request(request: Omit<KernelRequest, 'id'>, options: RequestOptions = {}): Promise<unknown> {
    const { signal } = options;
    if (signal?.aborted === true) return Promise.reject(signal.reason);
    if (this.#over !== null) return Promise.reject(eio(this.#over, request));
    const id = this.#nextId++;
    return new Promise((resolve, reject) => {
      const onAbort = (): void => {
        this.#send({ id: this.#nextId++, op: 'abandon', target: id });
        this.#settle(id)?.reject(signal?.reason);
      };
      const off = (): void => signal?.removeEventListener('abort', onAbort);
      this.#pending.set(id, {
        resolve: (value) => {
          off();
          resolve(value);
        },
        reject: (error) => {
          off();
          reject(error);
        },
      });
      signal?.addEventListener('abort', onAbort, { once: true });
      // While something is under way this process must not end.
      this.#control.ref();
      this.#send({ ...request, id });
    });
  }

  watch(h: number, changed: (isBlocked: boolean) => void): void {
    this.#watchers.set(h, changed);
  }
  unwatch(h: number): void {
    this.#watchers.delete(h);
  }

  /** Runs a command under an open file; `onExit` hears of its end. */
  async spawn(
    h: number,
    argv: string[],
    env: Record<string, string>,
  ): Promise<{ pid: number; exited: Promise<{ code: number | null; signal: NodeJS.Signals | null }> }> {
    const exited = new Promise<{ code: number | null; signal: NodeJS.Signals | null }>((resolve) => {
      this.#onExit = (code, signal) => resolve({ code, signal });
    });
    const { pid } = (await this.request({ op: 'spawn', h, argv, env })) as { pid: number };
    this.#control.ref();
    return { pid, exited };
  }

  /** From here on this process stays alive for its helper: it holds something on purpose. */
  keep(): void {
    this.#isKept = true;
    this.#control.ref();
  }

  /** Lets the helper close everything. It ends by itself, at the latest when the kernel has granted what it waits for. */
  close(): void {
    this.#end(new Error('closed'));
    this.#control.end();
  }

  #send(request: KernelRequest): void {
    this.#control.write(`${JSON.stringify(request)}\n`);
  }

  #settle(id: number): Pending | undefined {
    const pending = this.#pending.get(id);
    this.#pending.delete(id);
    if (this.#pending.size === 0 && this.#onExit === null && !this.#isKept) this.#control.unref();
    return pending;
  }

  #answer(reply: KernelReply): void {
    if ('event' in reply) {
      if (reply.event === 'blocked') this.#watchers.get(reply.h)?.(reply.isBlocked);
      else {
        this.#onExit?.(reply.code, reply.signal as NodeJS.Signals | null);
        this.#onExit = null;
      }
      return;
    }
    const pending = this.#settle(reply.id);
    if (pending === undefined) {
      // Granted in the very moment in which it was withdrawn.
      const opened = 'value' in reply ? (reply.value as { h?: number } | null) : null;
      if (typeof opened === 'object' && opened?.h !== undefined) this.#send({ id: this.#nextId++, op: 'close', h: opened.h });
      return;
    }
    if ('error' in reply) {
      const { message, ...rest } = reply.error;
      pending.reject(Object.assign(new Error(message), rest));
    } else {
      pending.resolve(reply.value);
    }
  }

  #end(why: Error): void {
    if (this.#over !== null) return;
    this.#over = why;
    this.#onOver();
    for (const id of [...this.#pending.keys()]) this.#settle(id)?.reject(eio(why, { op: 'open' }));
    this.#onExit?.(null, null);
    this.#onExit = null;
  }
}

function eio(why: Error, request: { op: string; path?: string }): Error {
  return Object.assign(new Error(`EIO: i/o error, ${request.op}: ${why.message}`), {
    code: 'EIO',
    errno: -5,
    syscall: request.op,
  });
}
