/**
 * The lock of one file of one mount: who has it open, which level the mount keeps, who waits (dlmfs's user_lock_res).
 *
 * The problem: opens, closes, grants, BASTs and withdrawals cross each other, and at most one request to the lock manager
 * is under way. The idea: every input only changes the counts below and then runs `pump`, the one place that decides what
 * comes next. Rules, as in the kernel where nothing else is said:
 *
 *  - an open that the level suffices for only counts a holder; close never gives the level up by itself: it is *kept*;
 *  - a BAST makes the file *blocked*: when no holder is in the way the level goes down, to NL for EX and to PR for PR;
 *    until then only opens that the lower level would suffice for are let in, so no stream of local openers starves others;
 *  - a pending upgrade whose old level is in somebody's way is withdrawn, so that two mounts that keep PR and both want EX
 *    do not wait for each other.
 *
 * Unlike the kernel: a try never waits for others (rule 22): under a BAST it is refused at once; while another open of this
 * mount waits, a second request of its own decides it. An upgrade that can never be granted ends with EDEADLK.
 */
import { LVB_INVALID, LVB_VALID, type LvbState } from '../master/types.js';
import type { ErrorCode } from '../protocol/errors.js';
import { LVB_BYTES } from '../protocol/limits.js';
import { EX, type Mode, NL, PR } from '../protocol/modes.js';
import type { Errno } from './errno.js';
import type { LockOwner, LockService, ServiceLock } from './service.js';

/** Opens of one file that wait at a time. */
const OPENERS_MAX = 10_000;

/** One open that is not answered yet. `done` is called exactly once, unless the open is withdrawn. */
export interface Opener {
  readonly mode: Mode;
  readonly isTry: boolean;
  readonly done: (error: Errno | null) => void;
}

interface Waiting extends Opener {
  isProbed: boolean;
  /** Seen waiting by a sweep before. */
  isOld: boolean;
}

type Request = { kind: 'up'; mode: Mode; isTry: boolean; isCancelled: boolean } | { kind: 'down' } | { kind: 'unlock' };

const ERRNO_OF: Partial<Record<ErrorCode, Errno>> = {
  TSDLM_CONFLICT: 'ETXTBSY',
  TSDLM_DEADLOCK: 'EDEADLK',
  // Never "busy": a script would conclude that somebody else is master (rule 22).
  TSDLM_UNAVAILABLE: 'ENOTCONN',
  TSDLM_TIMEOUT: 'ETIMEDOUT',
  TSDLM_CANCELLED: 'EINTR',
  TSDLM_LIMIT_REACHED: 'ENOMEM',
  TSDLM_NOT_ALLOWED: 'EACCES',
  TSDLM_BAD_ARGUMENT: 'EINVAL',
  TSDLM_NAME_TOO_LONG: 'EINVAL',
};

/** What a lock manager's refusal is called by the file API. */
export function errnoOf(code: ErrorCode): Errno {
  return ERRNO_OF[code] ?? 'EIO';
}

export class FileLock implements LockOwner {
  readonly #service: LockService;
  readonly #domain: string;
  readonly #name: string;
  /** Called when `isBlocked` becomes true. */
  onBlocked: (() => void) | null = null;
  /** Called when the lock was lost: files that were open hold nothing any more. */
  onLost: (() => void) | null = null;
  /** Called when a request could not be served now: `retry` is to be called some time. */
  onStalled: (() => void) | null = null;
  /** Called when the last holder has gone. */
  onIdle: (() => void) | null = null;

  #lock: ServiceLock | null = null;
  #level: Mode | -1 = -1;
  #request: Request | null = null;
  #blocked: Mode = NL;
  #readers = 0;
  #writers = 0;
  #openers: Waiting[] = [];
  #drop: ((error: Errno | null) => void) | null = null;
  /** An upgrade met another one: the level has to go before it can be asked for again. */
  #mustYield = false;
  /** The lock manager cannot serve a request now; tried again at the next event or `retry`. */
  #isStalled = false;
  /** On record as in use (rule 6). */
  #isInUse = false;
  #isRecording = false;
  #lvb = new Uint8Array(LVB_BYTES);
  #lvbState: LvbState = 0;
  #isPumping = false;
  #isPumpWanted = false;

  constructor(service: LockService, domain: string, name: string) {
    this.#service = service;
    this.#domain = domain;
    this.#name = name;
  }

  /** The mode the mount has now, or -1. */
  get level(): Mode | -1 {
    return this.#level;
  }
  get holders(): number {
    return this.#readers + this.#writers;
  }
  /** The strongest mode that somebody has the file open for; NL = nobody. */
  get heldMode(): Mode {
    return this.#writers > 0 ? EX : this.#readers > 0 ? PR : NL;
  }
  get waiting(): number {
    return this.#openers.length;
  }
  /** Others wait for what this mount is in the way of (poll's POLLIN). */
  get isBlocked(): boolean {
    return this.#blocked !== NL;
  }
  /** What is open holds the lock still. */
  get isHeld(): boolean {
    return this.#lock?.isHeld() ?? false;
  }
  get isDropping(): boolean {
    return this.#drop !== null;
  }

  // --- What files ask for ---------------------------------------------------------------------------------------------

  /** Opens; returns how to withdraw. */
  open(opener: Opener): () => void {
    if (this.#drop !== null || this.#openers.length >= OPENERS_MAX) {
      opener.done(this.#drop === null ? 'ENOMEM' : 'EAGAIN');
      return () => {};
    }
    const waiting: Waiting = { ...opener, isProbed: false, isOld: false };
    this.#openers.push(waiting);
    this.#pump();
    return () => this.#withdraw(waiting);
  }

  #withdraw(opener: Waiting): void {
    const at = this.#openers.indexOf(opener);
    if (at < 0) return;
    this.#openers.splice(at, 1);
    const request = this.#request;
    if (request?.kind === 'up' && !request.isCancelled && !this.#openers.some((o) => o.mode >= request.mode))
      this.#cancel(request);
    this.#pump();
  }

  /** One holder less. */
  close(mode: Mode): void {
    if (mode === EX) this.#writers--;
    else this.#readers--;
    if (this.holders === 0) this.onIdle?.();
    this.#pump();
  }

  /** Gives the lock up; only without holders and openers. */
  drop(done: (error: Errno | null) => void): void {
    if (this.holders > 0 || this.#openers.length > 0 || this.#drop !== null) return done('EBUSY');
    this.#drop = done;
    this.#pump();
  }

  /** Reads the value block from `offset`; nothing when it is invalid. */
  read(offset: number, length: number): Uint8Array {
    if (this.#lvbState === LVB_INVALID) return new Uint8Array(0);
    return this.#lvb.slice(offset, Math.min(LVB_BYTES, offset + length));
  }

  /** Writes into the value block (under EX); returns the bytes taken. `offset` < 64. */
  write(offset: number, bytes: Uint8Array): number {
    const count = Math.min(bytes.length, LVB_BYTES - offset);
    const next = this.#lvbState === LVB_INVALID ? new Uint8Array(LVB_BYTES) : this.#lvb.slice();
    next.set(bytes.subarray(0, count), offset);
    this.#lvb = next;
    this.#lvbState = LVB_VALID;
    this.#lock?.writeLvb(next);
    return count;
  }

  /**
   * Called now and then: a try that waits since the last call cannot be decided (rule 22), and a lock that nobody had open
   * for so long need not be kept for anybody by a crash from now on.
   */
  sweep(): void {
    this.#fail('ENOTCONN', (o) => o.isTry && o.isOld);
    for (const opener of this.#openers) opener.isOld = true;
    if (this.holders > 0 || this.#openers.length > 0 || !this.#isInUse || this.#lock === null || this.#request !== null) return;
    this.#isInUse = false;
    this.#lock.setInUse(false);
  }

  #stall(): void {
    this.#isStalled = true;
    this.onStalled?.();
  }

  /** Asks again for what the lock manager could not serve. */
  retry(): void {
    if (!this.#isStalled) return;
    this.#isStalled = false;
    this.#pump();
  }
  get isStalled(): boolean {
    return this.#isStalled;
  }

  // --- What the lock manager says --------------------------------------------------------------------------------------

  granted(mode: Mode, lvbState: LvbState, lvb: Uint8Array | null): void {
    const request = this.#request;
    this.#isStalled = false;
    if (request === null) {
      // Confirmed again after a lapse: what was written since and not published is known here only.
      this.#level = mode;
      if (mode === EX && this.#lvbState === LVB_VALID) this.#lock?.writeLvb(this.#lvb);
    } else {
      const wasLower = mode > this.#level;
      this.#level = mode;
      this.#request = null;
      if (request.kind === 'up') this.#isInUse = true;
      if (wasLower && mode !== NL) this.#take(lvbState, lvb);
      if (mode === NL) this.#mustYield = false;
      // A BAST that overtook its grant is about the new level, but those who waited for this grant come first.
      const early = this.#blocked;
      this.#blocked = NL;
      if (early !== NL && request.kind === 'up') this.#serve();
      this.#blocked = early;
    }
    this.#pump();
    // The open it was for was withdrawn: nobody will close it.
    if (this.#isInUse && this.holders === 0 && this.#openers.length === 0) this.onIdle?.();
  }

  #take(state: LvbState, lvb: Uint8Array | null): void {
    this.#lvbState = state;
    this.#lvb = new Uint8Array(LVB_BYTES);
    if (state === LVB_VALID && lvb !== null) this.#lvb.set(lvb);
  }

  denied(code: ErrorCode): void {
    const request = this.#request;
    this.#request = null;
    if (this.#level === -1) this.#lock = null;
    if (request?.kind === 'up') this.#upDenied(request, code);
    else if (request !== null) this.#stall();
    this.#pump();
  }

  #upDenied(request: { mode: Mode; isTry: boolean }, code: ErrorCode): void {
    if (code === 'TSDLM_CANCELLED') return;
    if (request.isTry) {
      const errno = code === 'TSDLM_DEADLOCK' ? 'ETXTBSY' : errnoOf(code);
      this.#fail(errno, (o) => o.isTry && o.mode >= request.mode);
    } else if (code === 'TSDLM_DEADLOCK') {
      if (this.holders === 0) {
        this.#mustYield = true;
        return;
      }
      this.#fail('EDEADLK', (o) => !o.isTry && o.mode >= request.mode);
      this.#fail('ETXTBSY', (o) => o.isTry && o.mode >= request.mode);
    } else if (code === 'TSDLM_UNAVAILABLE' || code === 'TSDLM_OUTCOME_UNKNOWN') {
      this.#fail('ENOTCONN', (o) => o.isTry);
      if (this.#openers.length > 0) this.#stall();
    } else {
      this.#fail(errnoOf(code), () => true);
    }
  }

  released(): void {
    this.#forget();
    const drop = this.#drop;
    this.#drop = null;
    drop?.(null);
    this.#pump();
  }

  bast(mode: Mode): void {
    const wasBlocked = this.isBlocked;
    if (mode > this.#blocked) this.#blocked = mode;
    this.#settleBlocked();
    if (!wasBlocked && this.isBlocked) this.onBlocked?.();
    this.#pump();
  }

  lost(_code: ErrorCode): void {
    const hadHolders = this.holders > 0;
    this.#forget();
    this.#readers = this.#writers = 0;
    if (hadHolders) this.onLost?.();
    const drop = this.#drop;
    this.#drop = null;
    drop?.(null);
    this.#pump();
  }

  recorded(ok: boolean): void {
    if (!this.#isRecording) return;
    this.#isRecording = false;
    this.#isInUse = ok;
    // What a crash would forget is not opened.
    if (!ok) this.#fail('ENOSPC', (o) => o.mode <= this.#level);
    this.#pump();
  }

  #forget(): void {
    this.#lock = null;
    this.#level = -1;
    this.#request = null;
    this.#blocked = NL;
    this.#mustYield = this.#isStalled = this.#isInUse = this.#isRecording = false;
  }

  // --- What comes next -------------------------------------------------------------------------------------------------

  #pump(): void {
    if (this.#isPumping) {
      this.#isPumpWanted = true;
      return;
    }
    this.#isPumping = true;
    do {
      this.#isPumpWanted = false;
      this.#settleBlocked();
      this.#serve();
      if (this.#request === null) this.#next();
      else this.#whileWaiting(this.#request);
    } while (this.#isPumpWanted);
    this.#isPumping = false;
  }

  /** Blocked means: the level we have is in somebody's way. */
  #settleBlocked(): void {
    if (this.#request?.kind === 'up') return;
    if (this.#blocked === EX ? this.#level < PR : this.#level < EX) this.#blocked = NL;
  }

  /** The level that remains when others are given way. */
  get #levelLeft(): Mode | -1 {
    if (this.#mustYield || this.#blocked === EX) return NL;
    return this.#blocked === PR ? PR : this.#level;
  }

  /** Opens that the level suffices for, and tries that it will not suffice for. */
  #serve(): void {
    for (const opener of [...this.#openers]) {
      if (this.#drop !== null) return;
      if (opener.mode <= this.#levelLeft && opener.mode <= this.#level) {
        if (!this.#lockIsUsable()) {
          if (!opener.isTry) continue;
          this.#remove(opener);
          opener.done('ENOTCONN');
          continue;
        }
        if (!this.#isOnRecord()) return;
        this.#remove(opener);
        if (opener.mode === EX) this.#writers++;
        else this.#readers++;
        opener.done(null);
      } else if (opener.isTry && this.#blocked !== NL && this.#request?.kind !== 'down') {
        this.#remove(opener);
        opener.done('ETXTBSY');
      }
    }
  }

  /** Without a lease nothing is granted, not from what we keep either (S4); tried again at the next event or `retry`. */
  #lockIsUsable(): boolean {
    if (this.#lock?.isUsable() === true) return true;
    this.#stall();
    return false;
  }

  #isOnRecord(): boolean {
    if (this.#isInUse || this.#lock === null) return true;
    if (this.#isRecording) return false;
    this.#isInUse = this.#lock.setInUse(true);
    this.#isRecording = !this.#isInUse;
    return this.#isInUse;
  }

  #next(): void {
    if (this.#isStalled || this.#isRecording) return;
    const lock = this.#lock;
    if (this.#drop !== null) {
      if (lock === null) {
        const done = this.#drop;
        this.#drop = null;
        done(null);
        return;
      }
      this.#request = { kind: 'unlock' };
      lock.unlock();
      return;
    }
    let first = this.#openers[0];
    if (lock !== null && (this.#blocked !== NL || this.#mustYield)) {
      const isInTheWay = this.#blocked === EX || this.#mustYield ? this.holders > 0 : this.#writers > 0;
      if (!isInTheWay) {
        this.#request = { kind: 'down' };
        lock.convert(this.#levelLeft === PR ? PR : NL, false);
        return;
      }
      // Readers in the way of others, and a writer of ours that waits: only the master can tell a deadlock from a queue.
      first = this.#level === PR ? this.#openers.find((o) => o.mode === EX && !o.isTry) : undefined;
    }
    if (first === undefined) return;
    this.#request = { kind: 'up', mode: first.mode, isTry: first.isTry, isCancelled: false };
    if (lock === null) this.#lock = this.#service.lock(this.#domain, this.#name, first.mode, first.isTry, this);
    else lock.convert(first.mode, first.isTry);
  }

  #whileWaiting(request: Request): void {
    if (request.kind !== 'up') return;
    const isInTheWay = this.#blocked === EX ? this.holders > 0 : this.#writers > 0;
    if (this.#blocked !== NL && !isInTheWay && !request.isCancelled) this.#cancel(request);
    if (request.isTry) return;
    for (const opener of this.#openers) if (opener.isTry && !opener.isProbed) this.#probe(opener);
  }

  #cancel(request: { isCancelled: boolean }): void {
    request.isCancelled = true;
    this.#lock?.cancel();
  }

  /**
   * A try while another open of this mount waits: only the master knows whether that one waits for others (then the try is
   * refused, because somebody waits) or is about to be granted (then its grant comes first and serves the try too).
   */
  #probe(opener: Waiting): void {
    opener.isProbed = true;
    this.#service.probe(this.#domain, this.#name, opener.mode, (code) => {
      if (!this.#openers.includes(opener)) return;
      if (code === null) {
        // The other open was withdrawn meanwhile: the try is asked for in earnest.
        opener.isProbed = false;
      } else {
        this.#remove(opener);
        opener.done(errnoOf(code));
      }
      this.#pump();
    });
  }

  #remove(opener: Waiting): void {
    const at = this.#openers.indexOf(opener);
    if (at >= 0) this.#openers.splice(at, 1);
  }

  #fail(errno: Errno, which: (opener: Waiting) => boolean): void {
    const failing = this.#openers.filter(which);
    this.#openers = this.#openers.filter((o) => !which(o));
    for (const opener of failing) opener.done(errno);
  }
}
