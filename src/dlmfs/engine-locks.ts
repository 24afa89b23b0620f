/**
 * The lock manager of a mount inside the daemon: each file's lock is a node-owned lock of the engine.
 *
 * Node-owned, because nobody can be told that a file's lock is lost: an expired lease never frees it (rule 2), and the
 * journal remembers it, with whether files are open under it (rule 6). The engine's events come inside its calls and must not
 * call back; they are kept here and handed on when the call is over.
 */
import type { CoreApi } from '../core/types.js';
import type { LocalLock } from '../master/types.js';
import type { ErrorCode } from '../protocol/errors.js';
import { type Mode, NL } from '../protocol/modes.js';
import type { LockOwner, LockService, ServiceLock } from './service.js';

/** A lock name that no file can have: a domain is joined by asking for it once. */
export const JOIN_NAME = '$join';
/** As long as the kernel tries to connect to all nodes of a domain. */
const JOIN_MS = 60_000;

/** What the file doors need of the core. */
export type FilesCore = Pick<CoreApi, 'lock' | 'convert' | 'unlock' | 'cancel' | 'writeLvb' | 'setInUse'>;

export interface EngineLocksOptions {
  core: FilesCore;
  now: () => number;
  /** This node's lease is valid. */
  isLeased: () => boolean;
  /** Runs `work` when the core's present call is over. */
  defer: (work: () => void) => void;
  /** Names the mount: goes into the journal with each lock. */
  door: string;
  /** Shown to others as the owner. */
  who: string;
  why: string;
}

/** What `LocalLock.ctx` points to for locks of the file doors. */
export class DoorLock implements ServiceLock {
  readonly #o: EngineLocksOptions;
  #owner: LockOwner;
  lock: LocalLock | null = null;
  /** Withdrawn before the engine had answered the call that made it. */
  #isOver = false;

  constructor(options: EngineLocksOptions, owner: LockOwner, lock: LocalLock | null = null) {
    this.#o = options;
    this.#owner = owner;
    this.lock = lock;
  }

  /** Another owner hears from now on. */
  adopt(owner: LockOwner): void {
    this.#owner = owner;
  }

  convert(mode: Mode, isTry: boolean): void {
    if (this.lock !== null && !this.#isOver)
      this.#o.core.convert(this.#o.now(), this.lock, mode, { try: isTry, deadline: 0, lvb: null });
  }
  unlock(): void {
    if (this.lock !== null && !this.#isOver) this.#o.core.unlock(this.#o.now(), this.lock);
  }
  cancel(): void {
    if (this.lock !== null && !this.#isOver) this.#o.core.cancel(this.#o.now(), this.lock);
  }
  writeLvb(value: Uint8Array): void {
    if (this.lock !== null) this.#o.core.writeLvb(this.lock, value);
  }
  setInUse(isInUse: boolean): boolean {
    if (this.lock === null) return true;
    let isDone = false;
    let isCalled = true;
    this.#o.core.setInUse(this.#o.now(), this.lock, isInUse, (ok) => {
      isDone = ok;
      if (!isCalled || !ok) this.#o.defer(() => this.#owner.recorded(ok));
    });
    isCalled = false;
    return isDone;
  }

  isUsable(): boolean {
    // While it is being claimed again after a lapse, the engine calls it not granted.
    return this.lock !== null && this.lock.mode !== -1 && this.#o.isLeased();
  }
  /** Rule 2: no lease ends it. */
  isHeld(): boolean {
    return !this.#isOver;
  }

  // Events of the engine, forwarded by the daemon. What they say is read now, and told later.

  granted(lock: LocalLock): void {
    this.lock = lock;
    const { lvbState, lvb } = lock;
    const mode = lock.mode as Mode;
    this.#o.defer(() => this.#owner.granted(mode, lvbState, lvb));
  }
  denied(lock: LocalLock, code: ErrorCode): void {
    this.lock = lock;
    this.#isOver = lock.mode === -1;
    this.#o.defer(() => this.#owner.denied(code));
  }
  released(): void {
    this.#isOver = true;
    this.#o.defer(() => this.#owner.released());
  }
  bast(mode: Mode): void {
    this.#o.defer(() => this.#owner.bast(mode));
  }
  lost(code: ErrorCode): void {
    this.#isOver = true;
    this.#o.defer(() => this.#owner.lost(code));
  }
}

const NOBODY: LockOwner = { granted() {}, denied() {}, released() {}, bast() {}, lost() {}, recorded() {} };

export class EngineLocks implements LockService {
  readonly #o: EngineLocksOptions;

  constructor(options: EngineLocksOptions) {
    this.#o = options;
  }

  lock(domain: string, name: string, mode: Mode, isTry: boolean, owner: LockOwner): ServiceLock {
    return this.#ask(domain, name, mode, isTry, owner, true, 0);
  }

  #ask(domain: string, name: string, mode: Mode, isTry: boolean, owner: LockOwner, isKept: boolean, forMs: number): DoorLock {
    const { core, now, door, who, why } = this.#o;
    const lock = new DoorLock(this.#o, owner);
    const at = now();
    lock.lock = core.lock(at, {
      domain,
      name,
      mode,
      try: isTry,
      nodeOwned: isKept,
      ...(isKept ? { door } : {}),
      lvb: isKept,
      who,
      why,
      deadline: forMs === 0 ? 0 : at + forMs,
      ctx: lock,
    });
    return lock;
  }

  probe(domain: string, name: string, mode: Mode, done: (code: ErrorCode | null) => void): void {
    this.#once(domain, name, mode, true, 0, done);
  }

  join(domain: string, done: (code: ErrorCode | null) => void): () => void {
    return this.#once(domain, JOIN_NAME, NL, false, JOIN_MS, (code) =>
      done(code === 'TSDLM_TIMEOUT' ? 'TSDLM_UNAVAILABLE' : code),
    );
  }

  /** Asks for a lock only to learn the answer. */
  #once(
    domain: string,
    name: string,
    mode: Mode,
    isTry: boolean,
    forMs: number,
    done: (code: ErrorCode | null) => void,
  ): () => void {
    let isWanted = true;
    const end = (code: ErrorCode | null): void => {
      if (isWanted) done(code);
      isWanted = false;
    };
    const lock = this.#ask(
      domain,
      name,
      mode,
      isTry,
      {
        ...NOBODY,
        granted: () => {
          lock.unlock();
          end(null);
        },
        denied: end,
        lost: end,
      },
      false,
      forMs,
    );
    return () => {
      isWanted = false;
      lock.cancel();
    };
  }
}
