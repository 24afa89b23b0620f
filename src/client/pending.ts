/**
 * Requests that wait for their answer.
 *
 * The problem: an answer, a cancellation, a time limit and the end of the connection race for one request. Whoever comes
 * first settles the promise; the entry itself stays until the daemon's answer has come, so that a grant that arrives for a
 * request nobody waits for any more is still given back.
 */

import type { DaemonMessage } from '../protocol/client-messages.js';
import { errorCodeOf, TsdlmError } from '../protocol/errors.js';

export type Answer = Extract<DaemonMessage, { k: 'DaemonGranted' | 'DaemonDenied' | 'DaemonDone' | 'DaemonAdminReply' }>;

export interface Pending {
  resolve(value: unknown): void;
  reject(error: unknown): void;
  /** Makes the result of a good answer, or throws. `wasCancelled`: nobody waits for it any more. */
  settle(answer: Answer, wasCancelled: boolean): unknown;
  /** Cancelled by its caller or given up: the answer is still handled. */
  wasCancelled?: boolean;
  /** Takes the abort listener and the timer away again. */
  release?: () => void;
}

export class PendingTable {
  #table = new Map<number, Pending | null>();
  #cancel: (rid: number, target: number) => void;

  constructor(cancel: (rid: number, target: number) => void) {
    this.#cancel = cancel;
  }

  /** `limitMs` 0 = no limit; else the request is given up then, with TSDLM_OUTCOME_UNKNOWN. */
  add(rid: number, entry: Pending, signal: AbortSignal | undefined, limitMs: number, nextRid: () => number): void {
    this.#table.set(rid, entry);
    if (signal === undefined && limitMs === 0) return;
    const withdraw = (): void => {
      if (entry.wasCancelled === true) return;
      entry.wasCancelled = true;
      const cancel = nextRid();
      this.ignore(cancel);
      this.#cancel(cancel, rid);
    };
    signal?.addEventListener('abort', withdraw, { once: true });
    const timer =
      limitMs === 0
        ? undefined
        : setTimeout(() => {
            withdraw();
            entry.reject(new TsdlmError('TSDLM_OUTCOME_UNKNOWN', `the daemon did not answer within ${limitMs} ms`));
          }, limitMs);
    entry.release = () => {
      clearTimeout(timer);
      signal?.removeEventListener('abort', withdraw);
    };
  }

  /** The answer to `rid` is of no interest. */
  ignore(rid: number): void {
    this.#table.set(rid, null);
  }

  answer(answer: Answer): void {
    const entry = this.#table.get(answer.rid);
    if (entry === undefined) return;
    this.#table.delete(answer.rid);
    if (entry === null) return;
    entry.release?.();
    if (answer.k === 'DaemonDenied') {
      entry.reject(new TsdlmError(errorCodeOf(answer.code) ?? 'TSDLM_PROTOCOL', answer.text));
      return;
    }
    try {
      entry.resolve(entry.settle(answer, entry.wasCancelled === true));
    } catch (error) {
      entry.reject(error);
    }
  }

  /** The connection is gone: what has no answer has an unknown outcome. */
  fail(cause: TsdlmError): void {
    const entries = [...this.#table.values()];
    this.#table.clear();
    for (const entry of entries) {
      if (entry === null) continue;
      entry.release?.();
      entry.reject(
        new TsdlmError('TSDLM_OUTCOME_UNKNOWN', `no answer came before the connection ended: ${cause.message}`, { cause }),
      );
    }
  }
}

/** What a cancelled request rejects with. */
export function signalReason(signal: AbortSignal | undefined): TsdlmError {
  return new TsdlmError('TSDLM_CANCELLED', 'the request was cancelled by its caller', { cause: signal?.reason });
}
