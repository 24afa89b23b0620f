/**
 * One connection to the daemon: requests out, answers and events in.
 *
 * The problem: a connection can end at any moment, and then some requests were carried out and some were not. A handle
 * that was granted over it stays what it was told to be, valid until its deadline; a request without an answer has an
 * unknown outcome and is never called failed. And as the daemon frees the locks of a session the moment it sees end of
 * file, the library closes its side only after every owner was told (rule 8): therefore `allowHalfOpen`.
 *
 * One promise per request, one table entry, and one write per turn of the event loop. How one begins is open.ts; what happens when the
 * daemon is replaced is resumption.ts; connecting again is client.ts.
 */
import type { Socket } from 'node:net';
import type { ClientMessage, DaemonMessage } from '../protocol/client-messages.js';
import { errorCodeOf, TsdlmError } from '../protocol/errors.js';
import { FrameWriter, type MessageReader } from '../protocol/frame.js';
import { IdMap } from '../protocol/id-map.js';
import { EX, type Mode, type ModeName } from '../protocol/modes.js';
import { LOCK_LVB, LOCK_NODE_OWNED, LOCK_TRY } from '../protocol/peer-messages.js';
import { monotonicMs } from './clock.js';
import { type GrantedFields, type HandleHost, LockHandle, notHeld } from './handle.js';
import { defaultAbortBefore, LeaseWatch } from './lease-watch.js';
import { type CancelSignal, type ConvertOptions, checkLvb, checkMode, checkTimeout, type LockOptions } from './options.js';
import { type Answer, PendingTable, signalReason } from './pending.js';
import { planOf } from './reclaim.js';
import { done, LockRequest, type LockRequestHost, OtherRequest, ReleaseRequest, strange } from './requests.js';
import { Resumption, type ResumptionHost } from './resumption.js';

export type Welcome = Extract<DaemonMessage, { k: 'DaemonWelcome' }>;

/** A request that has a time limit of its own is given up this long after it: the daemon does not answer. */
const ANSWER_SLACK_MS = 2000;
/** The daemon decides a try within this time (rule 22: 100 ms, and mastery before it). */
const TRY_MS = 3000;
/** Administration and releases wait so long for their answer. */
const ANSWER_MS = 10_000;

/** How the next daemon is found after a restart. */
export interface Reopen {
  isWanted: boolean;
  /** How long requests wait for it when nothing is held, ms. */
  patienceMs: number;
  open(connection: Connection, timeoutMs: number): Promise<unknown>;
}

function unreachable(): TsdlmError {
  return new TsdlmError('TSDLM_DAEMON_UNREACHABLE', 'the connection to the daemon is closed');
}

export class Connection implements HandleHost, LockRequestHost, ResumptionHost {
  welcome: Welcome;
  /** Session locks that are held; node-owned ones are beside them, because no lease ends those. */
  readonly handles = new IdMap<LockHandle>();
  #nodeOwned = new IdMap<LockHandle>();
  #socket: Socket;
  #reader: MessageReader<DaemonMessage>;
  #writer = new FrameWriter();
  #pending: PendingTable;
  #watch: LeaseWatch;
  #isUp = true;
  #resumption = new Resumption(this);
  #reopen: Reopen;
  #group: Extract<ClientMessage, { k: 'ClientGroup' }> | null = null;
  #isFlushing = false;
  #nextRid = 1;
  #error: TsdlmError | null = null;
  /** Called once when no new request can be made any more. */
  onDown: (() => void) | null = null;

  /** `reopen`: connects to the next daemon and gives this connection its socket. */
  constructor(socket: Socket, reader: MessageReader<DaemonMessage>, welcome: Welcome, reopen: Reopen) {
    this.#reopen = reopen;
    this.#socket = socket;
    this.#reader = reader;
    this.welcome = welcome;
    this.#watch = new LeaseWatch(this, welcome.heartbeatMs);
    this.#pending = new PendingTable((target) => this.#push({ k: 'ClientCancel', rid: this.#ignored(), target }));
    this.#listen(socket);
  }

  #listen(socket: Socket): void {
    const gone = (text: string, cause?: unknown): void => {
      if (socket === this.#socket) this.#broken(new TsdlmError('TSDLM_DAEMON_UNREACHABLE', text, { cause }));
    };
    socket.on('data', (chunk) => {
      if (socket === this.#socket) this.#onData(chunk);
    });
    socket.on('end', () => gone('the daemon closed the connection'));
    socket.on('error', (cause) => gone(`the connection to the daemon broke: ${cause.message}`, cause));
    socket.on('close', () => gone('the connection to the daemon is closed'));
  }

  get isUp(): boolean {
    return this.#isUp;
  }
  /** While the next daemon is looked for: settles when that has ended. */
  get resuming(): Promise<void> | null {
    return this.#resumption.looking;
  }
  /** Why the connection is down, when it is. */
  get error(): TsdlmError | null {
    return this.#error;
  }
  get deadline(): number {
    return this.#watch.deadline;
  }
  /** The socket's file descriptor, for a command that is to inherit the session (rule 7); -1 when it is closed. */
  get fd(): number {
    const handle = (this.#socket as Socket & { _handle?: { fd?: number } | null })._handle;
    return handle?.fd ?? -1;
  }

  lock(name: string, mode: Mode, options: LockOptions): Promise<LockHandle> {
    const refusal = this.#refusal(options.signal);
    if (refusal !== null) return Promise.reject(refusal);
    const rid = this.#nextRid++;
    const domain = options.domain ?? 'default';
    const nodeOwned = options.nodeOwned === true;
    let flags = 0;
    if (options.try === true) flags |= LOCK_TRY;
    if (nodeOwned) flags |= LOCK_NODE_OWNED;
    if (options.lvb === true) flags |= LOCK_LVB;
    const timeoutMs = wireTimeout(options.timeout);
    const message: ClientMessage = { k: 'ClientLock', rid, domain, name, mode, flags, timeoutMs, why: options.why ?? '' };
    this.#push(message);
    return new Promise<LockHandle>((resolve, reject) => {
      const request = new LockRequest(this, resolve, reject, rid, domain, name, options);
      request.message = message;
      this.#pending.add(rid, request, options.signal, limitOf(options));
    });
  }

  /** LockRequest: the handle, or the reason why the grant was given back. */
  granted(request: LockRequest, granted: GrantedFields & { deadline: number }): LockHandle {
    const { rid, nodeOwned } = request;
    if (!nodeOwned) this.#moved(granted.deadline);
    if (request.wasCancelled || (!nodeOwned && monotonicMs() >= granted.deadline)) {
      this.#giveBack(rid);
      if (request.wasCancelled) throw signalReason(request.options.signal);
      throw new TsdlmError('TSDLM_LOST', `the grant of '${request.name}' came after its deadline and was given back (rule 11)`);
    }
    const handle = new LockHandle(this, request, granted);
    (nodeOwned ? this.#nodeOwned : this.handles).set(rid, handle);
    if (!nodeOwned) this.#watch.added(handle);
    return handle;
  }

  convert(handle: LockHandle, to: Mode | ModeName, options: ConvertOptions): Promise<void> {
    if (!handle.held) return Promise.reject(notHeld(handle));
    const later = this.#resumption.settling;
    if (later !== null) return later.then(() => this.convert(handle, to, options));
    const refusal = this.#refusal(options.signal);
    if (refusal !== null) return Promise.reject(refusal);
    let mode: Mode;
    let lvb: Uint8Array | null;
    try {
      mode = checkMode(to);
      lvb = options.lvb === undefined ? null : checkLvb(options.lvb);
      checkTimeout(options.timeout);
    } catch (error) {
      return Promise.reject(error);
    }
    const before = handle._mode;
    const rid = this.#nextRid++;
    const flags = options.try === true ? LOCK_TRY : 0;
    const timeoutMs = wireTimeout(options.timeout);
    const message: ClientMessage = { k: 'ClientConvert', rid, lock: handle.rid, mode, flags, timeoutMs, lvb };
    this.#push(message);
    return this.#answerTo<void>(message, options.signal, limitOf(options), (answer, wasCancelled): void | Promise<void> => {
      if (answer.k !== 'DaemonGranted') throw strange(answer);
      handle._converted(answer);
      if (!handle.nodeOwned) this.#moved(answer.deadline);
      if (!handle.held) throw notHeld(handle);
      if (!wasCancelled) return;
      // The grant won the race: back to what the caller had, and only then say so.
      const reason = signalReason(options.signal);
      if (before >= mode) throw reason;
      return this.convert(handle, before, {}).then(() => {
        throw reason;
      });
    });
  }

  release(handle: LockHandle, lvb: Uint8Array | null): Promise<void> {
    if (lvb !== null) {
      try {
        checkLvb(lvb);
      } catch (error) {
        return Promise.reject(error);
      }
    }
    handle._released();
    this.#forget(handle);
    const rid = this.#nextRid++;
    const message: ClientMessage = { k: 'ClientUnlock', rid, lock: handle.rid, lvb };
    if (this.#isUp) this.#push(message);
    if (!this.#isUp && this.#resumption.looking === null) {
      this.#push(message);
      // A daemon that stops still takes releases; any other frees the lock when it sees the end of this connection.
      this.#closeIfUnused();
      return handle.nodeOwned ? Promise.reject(this.#unreachable()) : Promise.resolve();
    }
    return new Promise<void>((resolve, reject) => {
      const request = new ReleaseRequest(resolve, reject, handle.nodeOwned || lvb !== null);
      request.message = message;
      this.#pending.add(rid, request, undefined, ANSWER_MS);
    });
  }

  writeLvb(handle: LockHandle, value: Uint8Array): Promise<void> {
    if (!handle.held) return Promise.reject(notHeld(handle));
    const later = this.#resumption.settling;
    if (later !== null) return later.then(() => this.writeLvb(handle, value));
    const refusal = this.#refusal(undefined);
    if (refusal !== null) return Promise.reject(refusal);
    let copy: Uint8Array;
    try {
      copy = Uint8Array.from(checkLvb(value));
    } catch (error) {
      return Promise.reject(error);
    }
    if (handle._mode !== EX) {
      const text = `a value block is written under EX; '${handle.name}' is held in ${handle.mode}`;
      return Promise.reject(new TsdlmError('TSDLM_BAD_ARGUMENT', text));
    }
    const rid = this.#nextRid++;
    const message: ClientMessage = { k: 'ClientLvbWrite', rid, lock: handle.rid, lvb: copy };
    this.#push(message);
    return this.#answerTo<void>(message, undefined, ANSWER_MS, (answer) => {
      done(answer);
      handle._stored(copy);
    });
  }

  /**
   * Registers the process group of a command that runs under this session's locks; 0 = it has ended (rule 7). `proof`: value
   * of TSDLM_SESSION in the environment that the group's leader was started with, at least 16 characters, random.
   */
  group(pgid: number, graceMs: number, proof: string): Promise<void> {
    const refusal = this.#refusal(undefined);
    if (refusal !== null) return Promise.reject(refusal);
    const rid = this.#nextRid++;
    const message: Extract<ClientMessage, { k: 'ClientGroup' }> = { k: 'ClientGroup', rid, pgid, graceMs, proof };
    this.#group = pgid === 0 ? null : message;
    this.#push(message);
    return this.#answerTo<void>(message, undefined, ANSWER_MS, done);
  }

  /** One administration verb (src/protocol/admin.ts). `waitMs`: how long the verb itself may take; Infinity = for ever. */
  admin(verb: string, args: unknown, waitMs: number): Promise<unknown> {
    const refusal = this.#refusal(undefined);
    if (refusal !== null) return Promise.reject(refusal);
    const rid = this.#nextRid++;
    const message: ClientMessage = { k: 'ClientAdmin', rid, verb, args };
    this.#push(message);
    const limitMs = waitMs === Number.POSITIVE_INFINITY ? 0 : waitMs + ANSWER_MS;
    return this.#answerTo<unknown>(message, undefined, limitMs, (answer) => {
      if (answer.k !== 'DaemonAdminReply') throw strange(answer);
      if (!answer.ok) throw new TsdlmError(errorCodeOf(answer.code) ?? 'TSDLM_PROTOCOL', answer.text);
      return answer.data;
    });
  }

  /** Ends the connection now. Handles must have been released or told before. */
  destroy(): void {
    this.#resumption.isGivenUp = true;
    this.#down(new TsdlmError('TSDLM_DAEMON_UNREACHABLE', 'this client was closed'));
    this.#watch.stop();
    this.#socket.destroy();
  }

  /** LeaseWatch: the deadline of a handle passed. */
  expired(handle: LockHandle, error: TsdlmError): void {
    this.lose(handle, error);
    // The daemon may still keep the lock for us (it was only slow to renew): nobody here uses it any more.
    this.#giveBack(handle.rid);
    this.#closeIfUnused();
  }

  /** LockRequest: when the signal of a handle fires, before the deadline. */
  abortBefore(wanted: number | undefined): number {
    const { leaseMs, heartbeatMs } = this.welcome;
    return Math.max(0, Math.min(wanted ?? defaultAbortBefore(leaseMs), leaseMs - 2 * heartbeatMs));
  }

  /** Why no request can be made now, or null. */
  #refusal(signal: CancelSignal | undefined): TsdlmError | null {
    if (!this.#isUp) return this.#unreachable();
    return signal?.aborted === true ? signalReason(signal) : null;
  }

  /** The promise of the answer to a request that was just pushed. `limitMs` 0 = however long it takes. */
  #answerTo<T>(
    message: ClientMessage & { rid: number },
    signal: CancelSignal | undefined,
    limitMs: number,
    settle: (answer: Answer, wasCancelled: boolean) => T | PromiseLike<T>,
  ): Promise<T> {
    return new Promise<T>((resolve, reject) => {
      const request = new OtherRequest(resolve, reject, settle);
      // An administration verb is not repeated: it may have been done.
      if (message.k !== 'ClientAdmin') request.message = message;
      this.#pending.add(message.rid, request, signal, limitMs);
    });
  }

  #unreachable(): TsdlmError {
    return this.#error ?? new TsdlmError('TSDLM_DAEMON_UNREACHABLE', 'the connection to the daemon is closed');
  }

  /** A request number whose answer nobody waits for. */
  #ignored(): number {
    const rid = this.#nextRid++;
    this.#pending.ignore(rid);
    return rid;
  }

  /** Releases a lock that nobody here wants. */
  #giveBack(lock: number): void {
    if (this.#isUp) this.#push({ k: 'ClientUnlock', rid: this.#ignored(), lock, lvb: null });
  }

  #push(message: ClientMessage): void {
    this.#writer.push(message);
    if (this.#isFlushing) return;
    this.#isFlushing = true;
    process.nextTick(this.#flush);
  }

  #flush = (): void => {
    this.#isFlushing = false;
    const bytes = this.#writer.take();
    if (bytes.length > 0 && this.#socket.writable) this.#socket.write(bytes);
  };

  #onData = (chunk: Buffer): void => {
    if (!this.#isUp) return;
    const error = this.#reader.push(chunk, this._message);
    if (error !== null) this.#down(error);
  };

  /** @internal One message of the daemon. */
  _message = (message: DaemonMessage): void => {
    if (!this.#isUp) return;
    switch (message.k) {
      case 'DaemonGranted':
      case 'DaemonDenied':
        if (!this.#resumption.decided(message)) this.#pending.answer(message);
        return;
      case 'DaemonQueued': {
        const entry = this.#pending.get(message.rid);
        if (entry !== undefined) entry.place = message;
        return;
      }
      case 'DaemonDone':
      case 'DaemonAdminReply':
        this.#pending.answer(message);
        return;
      case 'DaemonLease':
        this.#moved(message.deadline, message.suspended);
        return;
      case 'DaemonBast':
        (this.handles.get(message.lock) ?? this.#nodeOwned.get(message.lock))?._blocked(message.mode);
        return;
      case 'DaemonLost': {
        const error = new TsdlmError(errorCodeOf(message.code) ?? 'TSDLM_LOST', message.text);
        const which = message.lock === 0 ? [...this.handles.values(), ...this.#nodeOwned.values()] : [];
        const one = this.handles.get(message.lock) ?? this.#nodeOwned.get(message.lock);
        if (one !== undefined) which.push(one);
        for (const handle of which) this.lose(handle, error);
        return;
      }
      case 'DaemonBye': {
        const code = errorCodeOf(message.code) ?? 'TSDLM_DAEMON_UNREACHABLE';
        const error = new TsdlmError(code, message.text);
        if (code === 'TSDLM_RESTARTING') {
          if (message.deadline > 0) this.#watch.moved(message.deadline);
          this.#broken(error);
          return;
        }
        // A daemon that stops wants the work ended now, not at the deadline.
        if (code === 'TSDLM_STOPPING') for (const handle of this.handles.values()) handle._abort(error);
        this.#down(error);
        return;
      }
      default:
        return;
    }
  };

  #forget(handle: LockHandle): void {
    if (handle.nodeOwned) this.#nodeOwned.delete(handle.rid);
    else this.handles.delete(handle.rid);
  }

  /** Resumption: a lock that was counted on is not ours any more. */
  lose(handle: LockHandle, error: TsdlmError): void {
    this.#forget(handle);
    handle._lost(error);
  }

  #moved(deadline: number, isSuspended?: boolean): void {
    if (deadline > this.#resumption.told) this.#resumption.told = deadline;
    this.#watch.moved(deadline, isSuspended);
  }

  // --- The next daemon --------------------------------------------------------------------------------------------------

  /** The daemon is gone without having ended this session: what is held and waited for is claimed from the next one (L3). */
  #broken(error: TsdlmError): void {
    if (!this.#isUp) return;
    if (this.#resumption.isGivenUp || this.welcome.key === '' || !this.#reopen.isWanted) {
      this.#down(error);
      return;
    }
    this.#isUp = false;
    this.#error = error;
    this.#writer.take();
    this.#resumption.forget();
    const left = this.#pending.survivors(error);
    if (this.handles.size === 0 && left.length === 0) {
      this.#isUp = true;
      this.#down(error);
      return;
    }
    this.#socket.destroy();
    this.#watch.disconnected();
    for (const handle of this.handles.values()) handle._reconnecting();
    this.#resumption.begin(
      error,
      this.#reopen.patienceMs,
      (timeoutMs) => this.#reopen.open(this, timeoutMs),
      (last) => {
        this.#isUp = true;
        this.#down(last);
      },
    );
  }

  /** @internal The next daemon knows this session: everything is claimed, in the order that keeps places. */
  _resume(socket: Socket, reader: MessageReader<DaemonMessage>, welcome: Welcome): void {
    this.#socket = socket;
    this.#reader = reader;
    this.welcome = welcome;
    this.#isUp = true;
    this.#error = null;
    this.#listen(socket);
    const plan = planOf([...this.handles.values()], this.#pending.survivors(unreachable()), monotonicMs());
    this.#resumption.claim(this.handles.values(), plan);
    for (const message of plan.claims) this.#push(message);
    if (this.#group !== null) this.#push({ ...this.#group, rid: this.#ignored() });
    const rid = this.#nextRid++;
    this.#push({ k: 'ClientResumed', rid });
    this.#pending.add(rid, new OtherRequest(this.#resumed, () => {}, done), undefined, 0);
  }

  /** All that was claimed is decided. */
  #resumed = (): void => {
    // From here on what the last daemon told does not count any more, and this one may rely on that.
    const { told } = this.#resumption;
    if (told > 0) this.#push({ k: 'ClientSettled', rid: this.#ignored() });
    this.#watch.reconnected(told);
    for (const message of this.#resumption.takeAfterwards()) this.#push(message);
    this.#resumption.end();
  };

  /** The end of the connection: nothing more comes, nothing more can be asked. Handles stay until their deadline. */
  #down(error: TsdlmError): void {
    if (!this.#isUp) return;
    this.#isUp = false;
    this.#error = error;
    this.#resumption.end();
    this.#pending.fail(error);
    this.#watch.disconnected();
    this.#closeIfUnused();
    this.onDown?.();
  }

  /** Our side is closed when no owner is left that could still count on a lock. */
  #closeIfUnused(): void {
    if (!this.#isUp && this.handles.size === 0) this.#socket.destroy();
  }
}

/** When a request is given up although the daemon, which keeps the real limit, has not answered; 0 = never. */
function limitOf(options: Pick<ConvertOptions, 'try' | 'timeout'>): number {
  if (options.try === true) return TRY_MS + ANSWER_SLACK_MS;
  return options.timeout === undefined ? 0 : options.timeout + ANSWER_SLACK_MS;
}

/** 0 on the wire means for ever, so a time-out of 0 becomes the shortest there is. */
function wireTimeout(timeout: number | undefined): number {
  if (timeout === undefined) return 0;
  return Math.max(timeout, 0.001);
}
