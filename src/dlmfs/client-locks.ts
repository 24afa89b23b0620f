/**
 * The lock manager of a mount inside a program: each file's lock is a session lock of the client library.
 *
 * So the program is the owner: when it ends, however it ends, its locks are free, and when the node loses its lease the
 * files are lost (reads and writes give EIO) instead of being kept for ever. That is why this door needs no fence method
 * that ends the machine, as the mounted one does (rule 2).
 */
import type { Client } from '../client/client.js';
import type { LockHandle } from '../client/handle.js';
import type { CancelSignal } from '../client/options.js';
import type { LvbState } from '../master/types.js';
import { type ErrorCode, TsdlmError } from '../protocol/errors.js';
import { type Mode, modeFromName, NL } from '../protocol/modes.js';
import { JOIN_NAME } from './engine-locks.js';
import type { LockOwner, LockService, ServiceLock } from './service.js';

const JOIN_MS = 60_000;
const STATES: Record<string, LvbState> = { none: 0, valid: 1, invalid: 2 };

export class ClientLocks implements LockService {
  readonly #client: Client;
  readonly #why: string;

  constructor(client: Client, why = '') {
    this.#client = client;
    this.#why = why;
  }

  lock(domain: string, name: string, mode: Mode, isTry: boolean, owner: LockOwner): ServiceLock {
    return new ClientLock(this.#client, { domain, name, mode, isTry, why: this.#why }, owner);
  }

  probe(domain: string, name: string, mode: Mode, done: (code: ErrorCode | null) => void): void {
    this.#client.lock(name, mode, { domain, try: true }).then(
      async (handle) => {
        await handle.release().catch(() => {});
        done(null);
      },
      (error: unknown) => done(codeOf(error)),
    );
  }

  join(domain: string, done: (code: ErrorCode | null) => void): () => void {
    const abort = new AbortController();
    this.#client.lock(JOIN_NAME, NL, { domain, timeout: JOIN_MS, signal: abort.signal }).then(
      async (handle) => {
        await handle.release().catch(() => {});
        if (!abort.signal.aborted) done(null);
      },
      (error: unknown) => {
        const code = codeOf(error);
        if (!abort.signal.aborted) done(code === 'TSDLM_TIMEOUT' ? 'TSDLM_UNAVAILABLE' : code);
      },
    );
    return () => abort.abort();
  }
}

function codeOf(error: unknown): ErrorCode {
  return error instanceof TsdlmError ? error.code : 'TSDLM_INVARIANT';
}

interface Request {
  domain: string;
  name: string;
  mode: Mode;
  isTry: boolean;
  why: string;
}

/** Withdraws one request. Not an AbortController: each is an event target, and a file needs one per request. */
class Withdrawal implements CancelSignal {
  aborted = false;
  readonly reason = undefined;
  #listeners: (() => void)[] = [];

  addEventListener(_type: 'abort', listener: () => void): void {
    this.#listeners.push(listener);
  }
  removeEventListener(_type: 'abort', listener: () => void): void {
    const at = this.#listeners.indexOf(listener);
    if (at >= 0) this.#listeners.splice(at, 1);
  }
  abort(): void {
    if (this.aborted) return;
    this.aborted = true;
    for (const listener of [...this.#listeners]) listener();
  }
}

class ClientLock implements ServiceLock {
  readonly #owner: LockOwner;
  #handle: LockHandle | null = null;
  #abort = new Withdrawal();

  constructor(client: Client, r: Request, owner: LockOwner) {
    this.#owner = owner;
    client.lock(r.name, r.mode, { domain: r.domain, try: r.isTry, lvb: true, why: r.why, signal: this.#abort }).then(
      (handle) => this.#granted(handle),
      (error: unknown) => owner.denied(this.#codeOf(error)),
    );
  }

  #granted(handle: LockHandle): void {
    this.#handle = handle;
    this.#tell(handle);
    handle.on('blocking', (mode) => {
      if (this.#handle !== null) this.#owner.bast(modeFromName(mode) ?? NL);
    });
    handle.on('lost', (error) => this.#lost(error.code));
  }

  #tell(handle: LockHandle): void {
    this.#owner.granted(modeFromName(handle.mode) ?? NL, STATES[handle.lvbState] ?? 0, handle.lvb);
  }

  #lost(code: ErrorCode): void {
    if (this.#handle === null) return;
    this.#handle = null;
    this.#owner.lost(code);
  }

  /** What the library calls a withdrawn request, and what it rejects with by itself. */
  #codeOf(error: unknown): ErrorCode {
    return this.#abort.aborted ? 'TSDLM_CANCELLED' : codeOf(error);
  }

  convert(mode: Mode, isTry: boolean): void {
    const handle = this.#handle;
    if (handle === null) return;
    this.#abort = new Withdrawal();
    handle.convert(mode, { try: isTry, signal: this.#abort }).then(
      () => {
        if (this.#handle !== null) this.#tell(handle);
      },
      (error: unknown) => {
        if (this.#handle === null) return;
        if (handle.held) this.#owner.denied(this.#codeOf(error));
        else this.#lost(codeOf(error));
      },
    );
  }

  unlock(): void {
    const handle = this.#handle;
    this.#handle = null;
    const done = (): void => this.#owner.released();
    // A release without an answer: the connection is gone, and the lock with it.
    handle?.release().then(done, done);
  }

  cancel(): void {
    this.#abort.abort();
  }
  writeLvb(value: Uint8Array): void {
    // In order with whatever this connection is asked next; when it is lost, so is the lock.
    this.#handle?.writeLvb(value).catch(() => {});
  }
  setInUse(): boolean {
    return true;
  }
  isUsable(): boolean {
    return this.#handle?.valid() ?? false;
  }
  isHeld(): boolean {
    return this.#handle?.valid() ?? false;
  }
}
