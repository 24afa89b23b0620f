/** The kinds of requests: what each makes of its answer. One object per request carries all it needs, without closures. */
import { TsdlmError } from '../protocol/errors.js';
import type { GrantedFields, LockHandle } from './handle.js';
import type { LockOptions } from './options.js';
import { type Answer, Pending } from './pending.js';

type Resolve<T> = (value: T | PromiseLike<T>) => void;
type Reject = (error: unknown) => void;

/** What a lock request asks of its connection when it is granted. */
export interface LockRequestHost {
  /** When the signal of a handle fires, before the deadline. */
  abortBefore(wanted: number | undefined): number;
  /** The handle, or throws the reason why the grant was given back. */
  granted(request: LockRequest, granted: GrantedFields & { deadline: number }): LockHandle;
}

/** A lock that was asked for. Also what its handle is made of. */
export class LockRequest extends Pending<LockHandle> {
  readonly rid: number;
  readonly domain: string;
  readonly name: string;
  readonly options: LockOptions;
  #host: LockRequestHost;

  constructor(
    host: LockRequestHost,
    resolve: Resolve<LockHandle>,
    reject: Reject,
    rid: number,
    domain: string,
    name: string,
    options: LockOptions,
  ) {
    super(resolve, reject);
    this.#host = host;
    this.rid = rid;
    this.domain = domain;
    this.name = name;
    this.options = options;
  }

  get nodeOwned(): boolean {
    return this.options.nodeOwned === true;
  }
  get abortBefore(): number {
    return this.#host.abortBefore(this.options.abortBefore);
  }
  settle(answer: Answer): LockHandle {
    if (answer.k !== 'DaemonGranted') throw strange(answer);
    return this.#host.granted(this, answer);
  }
}

/** A lock that was given back. `isNeeded`: the caller has to know whether the daemon did it. */
export class ReleaseRequest extends Pending<void> {
  #isNeeded: boolean;

  constructor(resolve: Resolve<void>, reject: Reject, isNeeded: boolean) {
    super(resolve, reject);
    this.#isNeeded = isNeeded;
  }

  settle(answer: Answer): void {
    done(answer);
  }
  override fail(error: unknown): void {
    // However it ended, the lock is not ours any more; only a node-owned one, or a value, needs the daemon's word.
    if (!this.#isNeeded && isGone(error)) this.resolve();
    else this.reject(error);
  }
}

/** Whatever is not on the path of every lock. */
export class OtherRequest<T> extends Pending<T> {
  #settle: (answer: Answer, wasCancelled: boolean) => T | PromiseLike<T>;

  constructor(resolve: Resolve<T>, reject: Reject, settle: (answer: Answer, wasCancelled: boolean) => T | PromiseLike<T>) {
    super(resolve, reject);
    this.#settle = settle;
  }

  settle(answer: Answer): T | PromiseLike<T> {
    return this.#settle(answer, this.wasCancelled);
  }
}

/** Throws unless the answer is Done. */
export function done(answer: Answer): void {
  if (answer.k !== 'DaemonDone') throw strange(answer);
}

export function strange(answer: Answer): TsdlmError {
  return new TsdlmError('TSDLM_PROTOCOL', `the daemon answered a request with ${answer.k}`);
}

/** The lock is gone, or goes with the connection. */
function isGone(error: unknown): boolean {
  return error instanceof TsdlmError && (error.code === 'TSDLM_OUTCOME_UNKNOWN' || error.code === 'TSDLM_NOT_HELD');
}
