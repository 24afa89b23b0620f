/**
 * The client library's front: a connection that is there when a request needs one.
 *
 * The problem: daemons are restarted and upgraded while programs run. What a connection holds and waits for it takes to the next
 * daemon itself (connection.ts); where that is not possible any more, handles end at their deadline and requests have an unknown
 * outcome, but the next request should just work. So a request without a connection waits for one, with back-off, within its own
 * limits.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { TsdlmError } from '../protocol/errors.js';
import type { Mode, ModeName } from '../protocol/modes.js';
import { cutText } from '../protocol/text.js';
import { monotonicMs } from './clock.js';
import type { Connection, Welcome } from './connection.js';
import type { LockHandle } from './handle.js';
import { openConnection } from './open.js';
import {
  type CancelSignal,
  type ConnectOptions,
  checkDomain,
  checkMode,
  checkName,
  checkTimeout,
  checkWhy,
  type LockOptions,
} from './options.js';
import { signalReason } from './pending.js';
import { clientSocketPath } from './socket-path.js';

const RETRY_MS_FIRST = 25;
const RETRY_MS_MAX = 1000;
const LABEL_BYTES_MAX = 60;

/** Connects to the local daemon. Rejects with TSDLM_DAEMON_UNREACHABLE, or with what the daemon refused the client for. */
export async function connect(options: ConnectOptions = {}): Promise<Client> {
  const client = new Client(options);
  await client._connect();
  return client;
}

export class Client implements AsyncDisposable {
  readonly socket: string;
  #label: string;
  #reconnect: boolean;
  #connectTimeout: number;
  #connection: Connection | null = null;
  #connecting: Promise<Connection> | null = null;
  /** Lost connections whose handles are still valid. */
  #old = new Set<Connection>();
  #isClosed = false;

  /** Use {@link connect}. */
  constructor(options: ConnectOptions) {
    this.socket = options.socket ?? clientSocketPath();
    this.#label = cutText(options.label ?? process.title.split(' ')[0] ?? 'node', LABEL_BYTES_MAX);
    this.#reconnect = options.reconnect ?? true;
    this.#connectTimeout = options.connectTimeout ?? 5000;
  }

  /** What the daemon said of itself at the last connection. */
  get daemon(): Welcome {
    if (this.#connection === null) throw new TsdlmError('TSDLM_DAEMON_UNREACHABLE', 'this client was never connected');
    return this.#connection.welcome;
  }
  get isConnected(): boolean {
    return this.#connection?.isUp === true;
  }

  /**
   * Asks for a lock; resolves when it is granted. Rejects with TSDLM_CONFLICT (try), TSDLM_TIMEOUT, TSDLM_CANCELLED,
   * TSDLM_UNAVAILABLE (a try that could not be decided), TSDLM_OUTCOME_UNKNOWN (the connection was lost meanwhile: whatever
   * was granted is free again when the daemon sees that) or a code of bad arguments.
   */
  lock(name: string, mode: Mode | ModeName = 'EX', options: LockOptions = {}): Promise<LockHandle> {
    let wanted: Mode;
    try {
      checkName(name);
      wanted = checkMode(mode);
      if (options.domain !== undefined) checkDomain(options.domain);
      checkTimeout(options.timeout);
      checkWhy(options.why);
    } catch (error) {
      return Promise.reject(error);
    }
    const connection = this.#connection;
    if (connection?.isUp === true) return connection.lock(name, wanted, options);
    return this.#lockLater(name, wanted, options);
  }

  async #lockLater(name: string, mode: Mode, options: LockOptions): Promise<LockHandle> {
    const began = monotonicMs();
    const connection = await this.#whenConnected(options.timeout, options.signal);
    if (options.timeout === undefined) return connection.lock(name, mode, options);
    const timeout = Math.max(0, options.timeout - (monotonicMs() - began));
    return connection.lock(name, mode, { ...options, timeout });
  }

  /**
   * Runs `work` under the lock and gives the lock back. Rejects with TSDLM_LOST when the lock was lost before the work was
   * done, because then the work was not protected to its end.
   */
  async withLock<T>(
    name: string,
    mode: Mode | ModeName,
    options: LockOptions,
    work: (handle: LockHandle) => T | Promise<T>,
  ): Promise<T> {
    const handle = await this.lock(name, mode, options);
    let result: T;
    try {
      result = await work(handle);
    } catch (error) {
      await handle.release().catch(() => {});
      throw error;
    }
    if (handle.held && !handle.valid()) {
      await handle.release().catch(() => {});
      throw new TsdlmError('TSDLM_LOST', `'${name}' ended at its deadline before the work under it was done`);
    }
    if (handle.lostError !== null) throw handle.lostError;
    await handle.release();
    return result;
  }

  /** An administration verb of src/protocol/admin.ts; resolves with its data. `waitMs`: how long the verb may take. */
  async admin(verb: string, args: unknown = {}, waitMs = 0): Promise<unknown> {
    const connection = this.#connection?.isUp === true ? this.#connection : await this.#whenConnected(undefined, undefined);
    return connection.admin(verb, args, waitMs);
  }

  /** The connection under this client, for a command that is to inherit its session (src/cli). */
  get connection(): Connection {
    if (this.#connection?.isUp !== true) throw new TsdlmError('TSDLM_DAEMON_UNREACHABLE', 'the connection to the daemon is gone');
    return this.#connection;
  }

  /** Releases everything and disconnects. Requests that wait reject with TSDLM_OUTCOME_UNKNOWN. */
  async close(): Promise<void> {
    if (this.#isClosed) return;
    this.#isClosed = true;
    const connections = [...this.#old];
    if (this.#connection !== null) connections.push(this.#connection);
    for (const connection of connections) {
      await Promise.allSettled(connection.handles.values().map((handle) => handle.release()));
      connection.destroy();
    }
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  /** @internal */
  async _connect(): Promise<void> {
    this.#take(
      await openConnection({ path: this.socket, label: this.#label, timeoutMs: this.#connectTimeout, resume: this.#reconnect }),
    );
  }

  #take(connection: Connection): Connection {
    if (this.#isClosed) {
      connection.destroy();
      throw new TsdlmError('TSDLM_DAEMON_UNREACHABLE', 'this client was closed');
    }
    for (const old of this.#old) if (old.handles.size === 0) this.#old.delete(old);
    if (this.#connection !== null && this.#connection.handles.size > 0) this.#old.add(this.#connection);
    this.#connection = connection;
    return connection;
  }

  async #whenConnected(timeout: number | undefined, signal: CancelSignal | undefined): Promise<Connection> {
    if (this.#isClosed) throw new TsdlmError('TSDLM_DAEMON_UNREACHABLE', 'this client was closed');
    if (!this.#reconnect) {
      throw this.#connection?.error ?? new TsdlmError('TSDLM_DAEMON_UNREACHABLE', 'the connection to the daemon is gone');
    }
    this.#connecting ??= this.#connectAgain().finally(() => {
      this.#connecting = null;
    });
    const connecting = this.#connecting;
    if (timeout === undefined && signal === undefined) return connecting;
    return new Promise<Connection>((resolve, reject) => {
      const end = (error: TsdlmError): void => {
        stop();
        reject(error);
      };
      const onAbort = (): void => end(signalReason(signal));
      const timer =
        timeout === undefined
          ? undefined
          : setTimeout(() => end(new TsdlmError('TSDLM_TIMEOUT', `no daemon answered within ${timeout} ms`)), timeout);
      const stop = (): void => {
        clearTimeout(timer);
        signal?.removeEventListener('abort', onAbort);
      };
      if (signal?.aborted === true) return onAbort();
      signal?.addEventListener('abort', onAbort, { once: true });
      connecting.then(
        (connection) => {
          stop();
          resolve(connection);
        },
        (error: unknown) => {
          stop();
          reject(error);
        },
      );
    });
  }

  async #connectAgain(): Promise<Connection> {
    // The session goes on with the next daemon, if there is one in time: then that is where requests belong.
    const old = this.#connection;
    if (old?.resuming) await old.resuming;
    if (old?.isUp === true) return old;
    const until = monotonicMs() + this.#connectTimeout;
    let pause = RETRY_MS_FIRST;
    for (;;) {
      const left = until - monotonicMs();
      try {
        const timeoutMs = Math.max(1, left);
        return this.#take(await openConnection({ path: this.socket, label: this.#label, timeoutMs, resume: true }));
      } catch (error) {
        const isGone =
          error instanceof TsdlmError && (error.code === 'TSDLM_DAEMON_UNREACHABLE' || error.code === 'TSDLM_STOPPING');
        if (!isGone || this.#isClosed || monotonicMs() + pause > until) throw error;
      }
      // Half fixed, half random: many clients of one daemon must not knock in step.
      await sleep(pause / 2 + (Math.random() * pause) / 2);
      pause = Math.min(pause * 2, RETRY_MS_MAX);
    }
  }
}
