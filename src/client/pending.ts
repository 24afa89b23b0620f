/**
 * Requests that wait for their answer.
 *
 * The problem: an answer, a cancellation, a time limit and the end of the connection race for one request. Whoever comes
 * first settles the promise; the entry itself stays until the daemon's answer has come, so that a grant that arrives for a
 * request nobody waits for any more is still given back.
 *
 * Time limits here are only a backstop against a daemon that does not answer (it keeps the real ones), so one slow sweep
 * over the entries that have a limit serves them all: no timer per request.
 */
import type { ClientMessage, DaemonMessage } from '../protocol/client-messages.js';
import { errorCodeOf, TsdlmError } from '../protocol/errors.js';
import { IdMap } from '../protocol/id-map.js';
import { monotonicMs } from './clock.js';
import type { CancelSignal } from './options.js';

export type Answer = Extract<DaemonMessage, { k: 'DaemonGranted' | 'DaemonDenied' | 'DaemonDone' | 'DaemonAdminReply' }>;

const SWEEP_MS = 250;

/** From DaemonQueued. */
export interface Place {
  id: number;
  se: number;
  sc: number;
}

/** What the table knows of a request. */
export interface Entry {
  /** Given up at this time with TSDLM_OUTCOME_UNKNOWN; 0 = never. */
  due: number;
  /** Cancelled by its caller or given up: the answer is still handled. */
  wasCancelled: boolean;
  /** Takes the abort listener away again. */
  unlisten: (() => void) | null;
  /** What was asked, to ask it again after a restart of the daemon; null = cannot be repeated. */
  message: ClientMessage | null;
  /** A lock request that waits: what claims its place after a restart. */
  place: Place | null;
  /** The daemon's answer; a denial goes to `fail`. */
  accept(answer: Answer): void;
  fail(error: unknown): void;
}

/** One request and its promise. */
export abstract class Pending<T> implements Entry {
  due = 0;
  wasCancelled = false;
  unlisten: (() => void) | null = null;
  message: ClientMessage | null = null;
  place: Place | null = null;
  protected readonly resolve: (value: T | PromiseLike<T>) => void;
  protected readonly reject: (error: unknown) => void;

  constructor(resolve: (value: T | PromiseLike<T>) => void, reject: (error: unknown) => void) {
    this.resolve = resolve;
    this.reject = reject;
  }

  /** Makes the result of a good answer, or throws. */
  abstract settle(answer: Answer): T | PromiseLike<T>;

  accept(answer: Answer): void {
    try {
      this.resolve(this.settle(answer));
    } catch (error) {
      this.fail(error);
    }
  }
  fail(error: unknown): void {
    this.reject(error);
  }
}

/** Stands for a request whose answer is of no interest. */
const IGNORED: Entry = {
  due: 0,
  wasCancelled: true,
  unlisten: null,
  message: null,
  place: null,
  accept: () => {},
  fail: () => {},
};

export class PendingTable {
  /** Entries with a time limit, and those without. */
  #limited = new IdMap<Entry>();
  #patient = new IdMap<Entry>();
  #cancel: (target: number) => void;
  #sweeper: NodeJS.Timeout | null = null;

  /** `cancel` asks the daemon to withdraw a request. */
  constructor(cancel: (target: number) => void) {
    this.#cancel = cancel;
  }

  /** `limitMs`: when the request is given up; 0 = never. */
  add(rid: number, entry: Entry, signal: CancelSignal | undefined, limitMs: number): void {
    if (limitMs === 0) this.#patient.set(rid, entry);
    else {
      entry.due = monotonicMs() + limitMs;
      this.#limited.set(rid, entry);
      if (this.#sweeper === null) this.#sweeper = setInterval(this.#sweep, SWEEP_MS).unref();
    }
    if (signal === undefined) return;
    const withdraw = (): void => this.#withdraw(rid, entry);
    signal.addEventListener('abort', withdraw, { once: true });
    entry.unlisten = () => signal.removeEventListener('abort', withdraw);
  }

  /** The answer to `rid` is of no interest. */
  ignore(rid: number): void {
    this.#patient.set(rid, IGNORED);
  }

  answer(answer: Answer): void {
    const { rid } = answer;
    let entry = this.#limited.get(rid);
    if (entry !== undefined) this.#limited.delete(rid);
    else {
      entry = this.#patient.get(rid);
      if (entry === undefined) return;
      this.#patient.delete(rid);
    }
    if (entry.unlisten !== null) entry.unlisten();
    if (answer.k === 'DaemonDenied') entry.fail(new TsdlmError(errorCodeOf(answer.code) ?? 'TSDLM_PROTOCOL', answer.text));
    else entry.accept(answer);
  }

  get(rid: number): Entry | undefined {
    return this.#limited.get(rid) ?? this.#patient.get(rid);
  }

  /**
   * The daemon is being restarted: gives what can be asked of the next one, and fails the rest. What was cancelled has ended: nobody
   * claims it.
   */
  survivors(cause: TsdlmError): Entry[] {
    const left: Entry[] = [];
    for (const table of [this.#limited, this.#patient]) {
      for (const [rid, entry] of [...table.entries()]) {
        if (entry.message !== null && !entry.wasCancelled) {
          left.push(entry);
          continue;
        }
        table.delete(rid);
        if (entry.unlisten !== null) entry.unlisten();
        entry.fail(entry.wasCancelled ? signalReason(undefined) : outcomeUnknown(cause));
      }
    }
    return left;
  }

  /** The connection is gone: what has no answer has an unknown outcome. */
  fail(cause: TsdlmError): void {
    if (this.#sweeper !== null) clearInterval(this.#sweeper);
    this.#sweeper = null;
    const entries = [...this.#limited.values(), ...this.#patient.values()];
    this.#limited.clear();
    this.#patient.clear();
    for (const entry of entries) {
      if (entry === IGNORED) continue;
      if (entry.unlisten !== null) entry.unlisten();
      entry.fail(outcomeUnknown(cause));
    }
  }

  #withdraw(rid: number, entry: Entry): void {
    if (entry.wasCancelled) return;
    entry.wasCancelled = true;
    this.#cancel(rid);
  }

  #sweep = (): void => {
    const now = monotonicMs();
    let isNeeded = false;
    for (const [rid, entry] of this.#limited.entries()) {
      if (entry.due === 0) continue;
      isNeeded = true;
      if (now < entry.due) continue;
      // It stays in the table for an answer that may still come.
      entry.due = 0;
      this.#withdraw(rid, entry);
      entry.fail(new TsdlmError('TSDLM_OUTCOME_UNKNOWN', 'the daemon does not answer; it may be stopped or overloaded'));
    }
    if (isNeeded || this.#sweeper === null) return;
    clearInterval(this.#sweeper);
    this.#sweeper = null;
  };
}

function outcomeUnknown(cause: TsdlmError): TsdlmError {
  const text = `no answer came before the connection ended: ${cause.message}`;
  return new TsdlmError('TSDLM_OUTCOME_UNKNOWN', text, { cause });
}

/** What a cancelled request rejects with. */
export function signalReason(signal: CancelSignal | undefined): TsdlmError {
  return new TsdlmError('TSDLM_CANCELLED', 'the request was cancelled by its caller', { cause: signal?.reason });
}
