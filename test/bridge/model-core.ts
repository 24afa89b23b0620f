/**
 * tsdlm around one node, as far as its bridge can tell: what is granted in which order, what a killed daemon's owners still count on,
 * and claims that take their time. One resource after the other is FIFO; only this node has owners.
 */
import type { OwnerCore } from '../../src/bridge/options.js';
import type { ClaimedLock, LocalEvents, LocalLock, LockOptions } from '../../src/master/types.js';
import type { ErrorCode } from '../../src/protocol/errors.js';
import { isCompatible, type Mode } from '../../src/protocol/modes.js';

type Writable<T> = { -readonly [K in keyof T]: T[K] };
type CoreLock = Writable<LocalLock> & { isOver: boolean; isClaim: boolean; isTry: boolean };

/** Held for an owner of a daemon that was killed. */
export interface Remembered {
  name: string;
  mode: Mode;
  owner: unknown;
  until: number;
}

export class ModelCore implements OwnerCore {
  holdUntil = 0;
  isSuspended = false;
  events: LocalEvents | null = null;
  isDead = false;
  readonly remembered: Remembered[];
  readonly #now: () => number;
  readonly #claimMs: () => number;
  #locks: CoreLock[] = [];
  #nextId = 1;

  /** `remembered`: shared by the cores of one node. `claimMs`: how long a claim takes. */
  constructor(remembered: Remembered[], now: () => number, claimMs: () => number) {
    this.remembered = remembered;
    this.#now = now;
    this.#claimMs = claimMs;
  }

  get count(): number {
    return this.#locks.length;
  }

  /** What the record of a clean restart is made of. */
  claims(): ClaimedLock[] {
    return this.#locks
      .filter((lock) => lock.mode >= 0 || lock.isClaim)
      .map(({ id, domain, name, mode, want, te, tc, se, sc, ctx, isClaim }) => ({
        ...{ id, domain, name, mode: isClaim ? want : mode, want: -1, te, tc, se, sc, ctx },
        ...{ nodeOwned: false, lvb: false, lvbState: 0, value: null, isDirty: false, who: '', why: '', deadline: 0 },
      }));
  }

  /** The daemon is killed: what owners were told is theirs until then. */
  die(until: number, ownerOf: (lock: LocalLock) => unknown): void {
    this.isDead = true;
    for (const lock of this.#locks) {
      if (lock.mode >= 0) this.remembered.push({ name: lock.name, mode: lock.mode as Mode, owner: ownerOf(lock), until });
    }
    this.#locks = [];
  }

  /** The lease has ended. */
  loseAll(): void {
    for (const lock of [...this.#locks]) {
      this.#remove(lock);
      this.events?.lost(lock, 'TSDLM_LOST');
    }
  }

  #make(o: { name: string; mode: Mode; ctx: unknown; isTry: boolean; isClaim: boolean }): CoreLock {
    const lock: CoreLock = {
      id: this.#nextId++,
      domain: 'web',
      name: o.name,
      mode: -1,
      want: o.mode,
      te: 1,
      tc: 1,
      se: 0,
      sc: 0,
      lvbState: 0,
      lvb: null,
      nodeOwned: false,
      door: '',
      isInUse: false,
      who: '',
      why: '',
      ctx: o.ctx,
      isOver: false,
      isClaim: o.isClaim,
      isTry: o.isTry,
    };
    this.#locks.push(lock);
    return lock;
  }

  lock(_now: number, o: LockOptions): LocalLock {
    const lock = this.#make({ name: o.name, mode: o.mode, ctx: o.ctx, isTry: o.try, isClaim: false });
    this.#serve(o.name);
    if (o.try && lock.mode < 0) this.#deny(lock, 'TSDLM_CONFLICT');
    return lock;
  }

  reclaim(_now: number, claim: ClaimedLock): LocalLock {
    const lock = this.#make({ name: claim.name, mode: claim.mode as Mode, ctx: claim.ctx, isTry: false, isClaim: true });
    const owner = (claim.ctx as { ctx: unknown }).ctx;
    setTimeout(() => {
      if (this.isDead || lock.isOver) return;
      const at = this.remembered.findIndex((r) => r.owner === owner && r.name === claim.name);
      if (at < 0) {
        this.#deny(lock, 'TSDLM_LOST');
        return;
      }
      this.remembered.splice(at, 1);
      lock.isClaim = false;
      this.#grant(lock);
    }, this.#claimMs());
    return lock;
  }

  convert(_now: number, l: LocalLock, mode: Mode, o: { try: boolean }): void {
    const lock = l as CoreLock;
    if (lock.isOver) throw new Error('a lock that is over is converted');
    lock.want = mode;
    if (mode <= lock.mode) this.#grant(lock);
    else this.#serve(lock.name);
    if (o.try && lock.want >= 0) this.#deny(lock, 'TSDLM_CONFLICT');
  }

  unlock(_now: number, l: LocalLock): void {
    const lock = l as CoreLock;
    if (lock.isOver) throw new Error('a lock that is over is unlocked');
    this.#remove(lock);
    this.events?.released(lock);
    this.#serve(lock.name);
  }

  cancel(_now: number, l: LocalLock): void {
    const lock = l as CoreLock;
    if (lock.want !== -1 && !lock.isClaim) this.#deny(lock, 'TSDLM_CANCELLED');
  }

  writeLvb(): void {}
  setInUse(): void {}

  /** What is remembered ends with its time. */
  tick(): void {
    const kept = this.remembered.filter((r) => this.#now() < r.until);
    this.remembered.splice(0, this.remembered.length, ...kept);
    for (const name of new Set(this.#locks.map((lock) => lock.name))) this.#serve(name);
  }

  #serve(name: string): void {
    for (const lock of [...this.#locks]) {
      if (lock.name !== name || lock.want < 0 || lock.isOver || lock.isClaim) continue;
      const want = lock.want as Mode;
      const isFree =
        this.remembered.every((r) => r.name !== name || isCompatible(r.mode, want)) &&
        this.#locks.every((other) => {
          if (other === lock || other.name !== name) return true;
          return isCompatible((other.isClaim ? Math.max(0, other.want) : Math.max(0, other.mode)) as Mode, want);
        });
      if (!isFree) return;
      this.#grant(lock);
    }
  }

  #grant(lock: CoreLock): void {
    lock.mode = lock.want;
    lock.want = -1;
    this.events?.granted(lock);
  }

  #deny(lock: CoreLock, code: ErrorCode): void {
    lock.want = -1;
    if (lock.mode === -1) this.#remove(lock);
    this.events?.denied(lock, code);
    setTimeout(() => {
      if (!this.isDead) this.#serve(lock.name);
    }, 0);
  }

  #remove(lock: CoreLock): void {
    lock.isOver = true;
    this.#locks = this.#locks.filter((other) => other !== lock);
  }
}
