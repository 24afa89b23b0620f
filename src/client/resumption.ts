/**
 * What a connection held and waited for when its daemon went away, taken to the next daemon (L3).
 *
 * The problem: between the two daemons nothing can be asked, and after the second has come what is held is not confirmed yet, so
 * nothing can be changed. The idea: the next daemon is looked for until the last deadline; everything is claimed in one go, and what
 * needs a confirmed lock waits for the end of that.
 */
import type { ClientMessage, DaemonMessage } from '../protocol/client-messages.js';
import { TsdlmError } from '../protocol/errors.js';
import { monotonicMs } from './clock.js';
import type { LockHandle } from './handle.js';
import type { Plan } from './reclaim.js';

const RETRY_MS_FIRST = 25;
const RETRY_MS_MAX = 1000;

/** Refusals of a daemon after which another may come. */
const MAY_COME = ['TSDLM_DAEMON_UNREACHABLE', 'TSDLM_STOPPING', 'TSDLM_RESTARTING'];

export interface ResumptionHost {
  /** Session locks held. */
  readonly handles: { readonly size: number };
  readonly deadline: number;
  /** Ends what was counted on, with a reason. */
  lose(handle: LockHandle, error: TsdlmError): void;
}

export class Resumption {
  /** While the next daemon is looked for: settles when it was found, or when the connection is down for good. */
  looking: Promise<void> | null = null;
  /** Set by who closes the connection: no daemon is looked for any more. */
  isGivenUp = false;
  /** Last deadline that the present daemon told; 0 = none yet. */
  told = 0;
  readonly #host: ResumptionHost;
  /** Claimed from the next daemon and not confirmed yet, by number. */
  #claimed = new Map<number, LockHandle>();
  /** What can be asked only once all is decided. */
  #afterwards: ClientMessage[] = [];
  /** Settles when all that was claimed from the next daemon is decided. */
  #settling: { promise: Promise<void>; done: () => void } | null = null;

  constructor(host: ResumptionHost) {
    this.#host = host;
  }

  /** What is held is being taken to the next daemon: resolves when that is done. Null when it is not. */
  get settling(): Promise<void> | null {
    return this.#settling?.promise ?? null;
  }

  /** The daemon is gone: what was claimed from it does not count. */
  forget(): void {
    this.#claimed.clear();
    this.#afterwards = [];
  }

  /** Looks for the next daemon; `failed` is called with the last error when there is none in time. */
  begin(
    error: TsdlmError,
    patienceMs: number,
    open: (timeoutMs: number) => Promise<unknown>,
    failed: (e: TsdlmError) => void,
  ): void {
    if (this.#settling === null) {
      let done: () => void = () => {};
      const promise = new Promise<void>((resolve) => {
        done = resolve;
      });
      this.#settling = { promise, done };
    }
    this.looking = this.#findNext(error, patienceMs, open, failed).finally(() => {
      this.looking = null;
    });
  }

  async #findNext(
    error: TsdlmError,
    patienceMs: number,
    open: (timeoutMs: number) => Promise<unknown>,
    failed: (e: TsdlmError) => void,
  ): Promise<void> {
    const patience = monotonicMs() + patienceMs;
    let pause = RETRY_MS_FIRST;
    let last = error;
    for (;;) {
      const { handles, deadline } = this.#host;
      const left = (handles.size > 0 ? deadline : Math.max(patience, deadline)) - monotonicMs();
      if (this.isGivenUp || left <= 0) break;
      try {
        await open(Math.max(1, left));
        return;
      } catch (cause) {
        if (!(cause instanceof TsdlmError)) throw cause;
        last = cause;
        if (!MAY_COME.includes(cause.code)) break;
      }
      // Half fixed, half random: many clients of one daemon must not knock in step.
      await new Promise((resolve) => setTimeout(resolve, pause / 2 + (Math.random() * pause) / 2));
      pause = Math.min(pause * 2, RETRY_MS_MAX);
    }
    failed(last);
  }

  /** The next daemon was found: its answers to these claims come to `decided`. */
  claim(handles: Iterable<LockHandle>, plan: Plan): void {
    this.told = 0;
    for (const handle of handles) this.#claimed.set(handle.rid, handle);
    this.#afterwards = plan.afterwards;
  }

  /** The answer to a claim of a held lock; false when it is none. */
  decided(answer: Extract<DaemonMessage, { k: 'DaemonGranted' | 'DaemonDenied' }>): boolean {
    const handle = this.#claimed.get(answer.rid);
    if (handle === undefined) return false;
    this.#claimed.delete(answer.rid);
    if (answer.k === 'DaemonDenied' || answer.mode < handle._mode) {
      const text = answer.k === 'DaemonDenied' ? answer.text : `'${handle.name}' was not in ${handle.mode} for its master`;
      this.#host.lose(handle, new TsdlmError('TSDLM_LOST', text));
      return true;
    }
    if (answer.deadline > this.told) this.told = answer.deadline;
    handle._reclaimed(answer);
    return true;
  }

  /** All is decided: what had to wait for that, to be asked now. */
  takeAfterwards(): ClientMessage[] {
    const messages = this.#afterwards;
    this.#afterwards = [];
    return messages;
  }

  /** Lets those go on who waited for the end. */
  end(): void {
    this.#settling?.done();
    this.#settling = null;
  }
}
