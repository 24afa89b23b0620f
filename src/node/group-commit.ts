/**
 * Group commit: many writers, one commit at a time.
 *
 * The problem: a synced commit costs the same for one record as for a hundred; writers must not wait in line for each other.
 * The idea: what arrives while a commit is under way goes out together with the next one. Order is kept. A caller may take its
 * changes back out of nothing: each call's changes are in one commit, so they happen together or not at all.
 * The first failure ends it: the state on disk is unknown then, so every later write is refused with the same error.
 */
import { TsdlmError } from '../protocol/errors.js';
import type { Store, StoreOp } from './journal-store.js';

/**
 * After so many commits, or one that took long, the event loop gets a turn: a store that commits at once would otherwise let
 * writers that wait for each commit keep everything else from running.
 */
const COMMITS_PER_TURN = 64;
const LONG_COMMIT_MS = 5;

interface Waiter {
  ops: readonly StoreOp[];
  resolve(): void;
  reject(error: TsdlmError): void;
}

export class GroupCommit {
  readonly #store: Store;
  readonly #onFailure: (error: TsdlmError) => void;
  #waiters: Waiter[] = [];
  #running = false;
  #idle: (() => void)[] = [];
  #failure: TsdlmError | null = null;
  /** Since the last turn that was waited for. */
  #commits = 0;

  constructor(store: Store, onFailure: (error: TsdlmError) => void) {
    this.#store = store;
    this.#onFailure = onFailure;
  }

  /** Adds changes to the next commit. Resolves when committed (and synced, in a synced store); rejects with a TsdlmError. */
  write(ops: readonly StoreOp[]): Promise<void> {
    if (this.#failure) return Promise.reject(this.#failure);
    return new Promise((resolve, reject) => {
      this.#waiters.push({ ops, resolve, reject });
      if (!this.#running) {
        this.#running = true;
        // What the same turn of the event loop still brings goes along.
        queueMicrotask(() => void this.#run());
      }
    });
  }

  /** Refuses everything from now on with `error`, also what waits. */
  fail(error: TsdlmError): void {
    if (this.#failure) return;
    this.#failure = error;
    const waiters = this.#waiters;
    this.#waiters = [];
    for (const waiter of waiters) waiter.reject(error);
  }

  /** Resolves once nothing is under way. */
  async drained(): Promise<void> {
    if (this.#running) await new Promise<void>((resolve) => this.#idle.push(resolve));
  }

  async #run(): Promise<void> {
    while (this.#waiters.length > 0) {
      if (this.#commits >= COMMITS_PER_TURN) {
        this.#commits = 0;
        await new Promise((resolve) => setImmediate(resolve));
      }
      const waiters = this.#waiters;
      this.#waiters = [];
      const began = performance.now();
      await this.#commit(waiters);
      this.#commits += performance.now() - began > LONG_COMMIT_MS ? COMMITS_PER_TURN : 1;
    }
    this.#running = false;
    const idle = this.#idle;
    this.#idle = [];
    for (const resolve of idle) resolve();
  }

  async #commit(waiters: readonly Waiter[]): Promise<void> {
    try {
      await this.#store.commit(waiters.flatMap((w) => w.ops));
      for (const waiter of waiters) waiter.resolve();
    } catch (caught) {
      const error = asTsdlmError(caught);
      for (const waiter of waiters) waiter.reject(this.#failure ?? error);
      if (!this.#failure) {
        this.fail(error);
        this.#onFailure(error);
      }
    }
  }
}

function asTsdlmError(caught: unknown): TsdlmError {
  if (caught instanceof TsdlmError) return caught;
  return new TsdlmError('TSDLM_JOURNAL_FAILED', `writing the journal failed: ${(caught as Error).message}`, { cause: caught });
}
