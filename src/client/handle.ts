/**
 * One held lock, as a program sees it.
 *
 * The problem: a program that holds a lock must be able to ask "is it still mine, now?" and get a true answer even after
 * it was stopped for a minute, and must hear in time that it is about to lose it. So nothing here rests on an event having
 * arrived: `valid()` reads the clock and compares it with the last deadline the daemon told (rule 11). Events and the
 * AbortSignal come on top, before the deadline.
 *
 * What moves the deadline and when the events fire is decided in connection.ts and lease-watch.ts.
 */
import { TsdlmError } from '../protocol/errors.js';
import { tokenToBigInt } from '../protocol/ids.js';
import { type Mode, type ModeName, modeName } from '../protocol/modes.js';
import { monotonicMs } from './clock.js';
import type { ConvertOptions } from './options.js';

export type LvbStateName = 'none' | 'valid' | 'invalid';
const LVB_STATES: readonly LvbStateName[] = ['none', 'valid', 'invalid'];

/**
 * Why a handle is suspended. `silence`: no renewal has come for three heartbeats, or the connection is gone; the lock is lost at
 * its deadline unless one comes. `quorum`: the node has no lease from a majority; it grants nothing, but nobody frees its locks
 * before its machine was seen off, so the node itself moves the deadline until it is back or learns that it is out (then `lost`).
 */
export type SuspendReason = 'silence' | 'quorum';

/** What each event carries. */
export interface HandleEvents {
  /** Somebody waits for this mode: release or convert down when it suits. Given at once when it is already so. */
  blocking: (mode: ModeName) => void;
  /** The lease behind the lock is not renewed; see `SuspendReason`. The lock is valid until its deadline. */
  suspended: (why: SuspendReason) => void;
  /** It is renewed again. */
  resumed: () => void;
  /** The daemon is gone. The lock is valid until its deadline, and is claimed from the next daemon: `resumed` or `lost` follows. */
  reconnecting: () => void;
  /** The lock is gone. Given at once when it is already so. */
  lost: (error: TsdlmError) => void;
}

/** What a handle asks of the connection it came over. */
export interface HandleHost {
  /** End of all holds of this connection. */
  readonly deadline: number;
  convert(handle: LockHandle, mode: Mode | ModeName, options: ConvertOptions): Promise<void>;
  release(handle: LockHandle, lvb: Uint8Array | null): Promise<void>;
  writeLvb(handle: LockHandle, value: Uint8Array): Promise<void>;
}

export interface GrantedFields {
  mode: Mode;
  te: number;
  tc: number;
  lvbState: 0 | 1 | 2;
  lvb: Uint8Array | null;
  /** Number of the lock on its node. */
  id: number;
}

type Listener = (argument?: never) => void;
type Listeners = Map<keyof HandleEvents, Listener[]>;

export class LockHandle implements AsyncDisposable {
  readonly domain: string;
  readonly name: string;
  /** Number of this lock in its connection. */
  readonly rid: number;
  readonly nodeOwned: boolean;
  readonly usesLvb: boolean;
  readonly why: string;
  /** The signal fires this many milliseconds before the deadline. */
  readonly abortBefore: number;
  #host: HandleHost;
  #granted: GrantedFields;
  #isHeld = true;
  #isDirty = false;
  #suspended: SuspendReason | null = null;
  #lostError: TsdlmError | null = null;
  #blocking: Mode = 0;
  #listeners: Listeners | null = null;
  #abort: AbortController | null = null;
  #abortReason: TsdlmError | null = null;

  constructor(
    host: HandleHost,
    request: {
      domain: string;
      name: string;
      rid: number;
      nodeOwned: boolean;
      abortBefore: number;
      options?: { lvb?: boolean; why?: string };
    },
    granted: GrantedFields,
  ) {
    this.#host = host;
    this.domain = request.domain;
    this.name = request.name;
    this.rid = request.rid;
    this.nodeOwned = request.nodeOwned;
    this.abortBefore = request.abortBefore;
    this.usesLvb = request.options?.lvb === true;
    this.why = request.options?.why ?? '';
    this.#granted = granted;
  }

  get mode(): ModeName {
    return modeName(this.#granted.mode);
  }
  /** Fencing token: larger than that of every EX grant before on this name. Give it to whatever the lock protects (S2). */
  get token(): bigint {
    return tokenToBigInt(this.#granted.te, this.#granted.tc);
  }
  /** End of this hold unless it is renewed: milliseconds on CLOCK_MONOTONIC, see `monotonicMs()`. */
  get deadline(): number {
    return this.#host.deadline;
  }
  /** Held as far as is known; unlike `valid()` this does not look at the clock. */
  get held(): boolean {
    return this.#isHeld;
  }
  get suspended(): boolean {
    return this.#suspended !== null;
  }
  /** Why, while it is suspended. */
  get suspendReason(): SuspendReason | null {
    return this.#suspended;
  }
  /** Why the lock is gone, when it was lost. */
  get lostError(): TsdlmError | null {
    return this.#lostError;
  }
  /** Strongest mode that somebody waits for, or null. */
  get blockedMode(): ModeName | null {
    return this.#blocking === 0 ? null : modeName(this.#blocking);
  }
  /** Value block as of the last grant of PR or EX, or as written since; 64 bytes. Null when there is none or it is invalid. */
  get lvb(): Buffer | null {
    const bytes = this.#granted.lvb;
    return bytes === null ? null : Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  }
  get lvbState(): LvbStateName {
    return LVB_STATES[this.#granted.lvbState] as LvbStateName;
  }

  /**
   * True when the lock is held now: not released, not lost, and its deadline is not over on this machine's clock; nobody else has
   * been granted meanwhile. True also while the node is suspended without a quorum, as long as its daemon moves the deadline
   * (`suspendReason`). A node-owned lock has no deadline of its own: it ends with the node (rule 2).
   */
  valid(): boolean {
    return this.#isHeld && (this.nodeOwned || monotonicMs() < this.#host.deadline);
  }

  /** Fires `abortBefore` milliseconds before the deadline unless the lease is renewed, and when the lock is lost. */
  get signal(): AbortSignal {
    if (this.#abort === null) {
      this.#abort = new AbortController();
      if (this.#abortReason !== null) this.#abort.abort(this.#abortReason);
    }
    return this.#abort.signal;
  }
  get aborted(): boolean {
    return this.#abortReason !== null;
  }

  /**
   * Changes the mode. Resolves when it is granted; rejects with TSDLM_CONFLICT, TSDLM_TIMEOUT, TSDLM_CANCELLED or
   * TSDLM_DEADLOCK, after which the old mode is still held.
   */
  convert(mode: Mode | ModeName, options: ConvertOptions = {}): Promise<void> {
    return this.#host.convert(this, mode, options);
  }

  /** Gives the lock back. `lvb`: a value block to store with it (EX only). A second call does nothing. */
  release(options: { lvb?: Uint8Array } = {}): Promise<void> {
    if (!this.#isHeld) return Promise.resolve();
    return this.#host.release(this, options.lvb ?? null);
  }

  /** Stores the value block; needs EX. When it resolves the daemon has it, and the next holder will see it (rule 18). */
  writeLvb(value: Uint8Array): Promise<void> {
    return this.#host.writeLvb(this, value);
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.release();
  }

  on<E extends keyof HandleEvents>(event: E, listener: HandleEvents[E]): this {
    this.#listeners ??= new Map();
    const list = this.#listeners.get(event);
    if (list === undefined) this.#listeners.set(event, [listener as Listener]);
    else list.push(listener as Listener);
    // What happened between the grant and this call must not be missed.
    if (event === 'lost' && this.#lostError !== null) {
      const error = this.#lostError;
      queueMicrotask(() => (listener as HandleEvents['lost'])(error));
    } else if (event === 'blocking' && this.#blocking !== 0) {
      const mode = modeName(this.#blocking);
      queueMicrotask(() => (listener as HandleEvents['blocking'])(mode));
    } else if (event === 'suspended' && this.#suspended !== null) {
      const why = this.#suspended;
      queueMicrotask(() => (listener as HandleEvents['suspended'])(why));
    }
    return this;
  }

  off<E extends keyof HandleEvents>(event: E, listener: HandleEvents[E]): this {
    const list = this.#listeners?.get(event);
    const at = list?.indexOf(listener as Listener) ?? -1;
    if (at >= 0) list?.splice(at, 1);
    return this;
  }

  #emit<E extends keyof HandleEvents>(event: E, ...args: Parameters<HandleEvents[E]>): void {
    const list = this.#listeners?.get(event);
    if (list === undefined) return;
    for (const listener of [...list]) (listener as (...a: Parameters<HandleEvents[E]>) => void)(...args);
  }

  // What follows is for connection.ts and lease-watch.ts only.

  /** @internal What the next daemon is told of this lock. */
  get _granted(): GrantedFields {
    return this.#granted;
  }
  /** @internal Written under EX and not published. */
  get _isDirty(): boolean {
    return this.#isDirty;
  }
  /** @internal */
  _reconnecting(): void {
    if (this.#isHeld) this.#emit('reconnecting');
  }
  /** @internal The next daemon has it at this mode. */
  _reclaimed(granted: GrantedFields): void {
    const { lvb, lvbState } = this.#isDirty ? this.#granted : granted;
    this.#granted = { ...granted, lvb, lvbState };
  }
  /** @internal A conversion was granted. */
  _converted(granted: GrantedFields): void {
    this.#granted = granted;
    this.#isDirty = false;
    if (granted.mode === 0) this.#blocking = 0;
  }
  /** @internal */
  get _mode(): Mode {
    return this.#granted.mode;
  }
  /** @internal The daemon has stored this value block. */
  _stored(value: Uint8Array): void {
    this.#granted = { ...this.#granted, lvb: value, lvbState: 1 };
    this.#isDirty = true;
  }
  /** @internal */
  _blocked(mode: Mode): void {
    if (mode > this.#blocking) this.#blocking = mode;
    this.#emit('blocking', modeName(mode));
  }
  /** @internal `null`: resumed. */
  _suspend(why: SuspendReason | null): void {
    if (this.#suspended === why || !this.#isHeld) return;
    this.#suspended = why;
    if (why === null) this.#emit('resumed');
    else this.#emit('suspended', why);
  }
  /** @internal The owner must end its work now. */
  _abort(reason: TsdlmError): void {
    if (this.#abortReason !== null) return;
    this.#abortReason = reason;
    this.#abort?.abort(reason);
  }
  /** @internal */
  _released(): void {
    this.#isHeld = false;
  }
  /** @internal */
  _lost(error: TsdlmError): void {
    if (!this.#isHeld) return;
    this.#isHeld = false;
    this.#lostError = error;
    this._abort(error);
    this.#emit('lost', error);
  }
}

/** The error of an operation on a handle that is not held any more. */
export function notHeld(handle: LockHandle): TsdlmError {
  return (
    handle.lostError ?? new TsdlmError('TSDLM_NOT_HELD', `'${handle.name}' in domain '${handle.domain}' was released before`)
  );
}
