/**
 * One lock resource as one node sees it: who masters it, the local interest in it, and, on its master, the three queues.
 *
 * Invariants: `owner` is 0 exactly while the state is MASTERING or ORPHANED. Queues are used only where owner is this node and the
 * state is OWNED. Each lock in a queue has `lock.q` set to it; `grantedPr`/`grantedEx` count the granted and converting
 * locks by the mode in force, so that compatibility is decided without walking.
 */
import { InvariantError } from '../protocol/errors.js';
import type { NodeId } from '../protocol/ids.js';
import { EX, type Mode, PR } from '../protocol/modes.js';
import type { Domain } from './domain.js';
import { type Lock, Q_BLOCKED, Q_CONVERTING, Q_GRANTED, Q_NONE, type QueueName } from './lock.js';
import { NodeSet } from './node-set.js';
import type { LvbState } from './types.js';

/** Most resources never have such waiters: one empty list serves them all. */
const NO_WAITERS: readonly Lock[] = Object.freeze([]);

/** Master unknown: a mastery round runs here or at another node. */
export const RES_MASTERING = 0;
/** Master known and serving. */
export const RES_OWNED = 1;
/** This node became master in a recovery and waits for the barrier; requests are parked. */
export const RES_REBUILDING = 2;
/** A Deref is under way; new requests wait for DerefDone. */
export const RES_DROPPING = 3;
/** Policy `servers`: locks are held here, their master is gone, and no server lives that could be the next. */
export const RES_ORPHANED = 4;
export type ResState = 0 | 1 | 2 | 3 | 4;

/** A FIFO of locks, linked through the locks themselves. */
export class LockQueue {
  head: Lock | null = null;
  tail: Lock | null = null;
  length = 0;
  readonly kind: QueueName;
  constructor(kind: QueueName) {
    this.kind = kind;
  }
  push(lock: Lock): void {
    if (lock.q !== Q_NONE) throw new InvariantError(`lock ${lock.node}/${lock.id} is already in queue ${lock.q}`);
    lock.q = this.kind;
    lock.prev = this.tail;
    lock.next = null;
    if (this.tail) this.tail.next = lock;
    else this.head = lock;
    this.tail = lock;
    this.length++;
  }
  remove(lock: Lock): void {
    if (lock.q !== this.kind) throw new InvariantError(`lock ${lock.node}/${lock.id} is not in queue ${this.kind}`);
    if (lock.prev) lock.prev.next = lock.next;
    else this.head = lock.next;
    if (lock.next) lock.next.prev = lock.prev;
    else this.tail = lock.prev;
    lock.prev = lock.next = null;
    lock.q = Q_NONE;
    this.length--;
  }
  toArray(): Lock[] {
    const all: Lock[] = [];
    for (let lock = this.head; lock; lock = lock.next) all.push(lock);
    return all;
  }
}

export class LockRes {
  readonly domain: Domain;
  readonly name: string;
  state: ResState = RES_MASTERING;
  owner: NodeId = 0;
  /** Domain epoch in which the current mastership began. */
  gen = 0;
  /** Domain epoch that it has been brought to (pass.ts). */
  seen: number;
  /** The owner was assigned in a recovery and has not confirmed yet that it rebuilt the resource. */
  isUnconfirmed = false;
  /** Policy `servers`: nothing was registered with this owner in a recovery, so it may not know the resource (nominate.ts). */
  isDoubtful = false;

  readonly granted = new LockQueue(Q_GRANTED);
  readonly converting = new LockQueue(Q_CONVERTING);
  readonly blocked = new LockQueue(Q_BLOCKED);
  grantedPr = 0;
  grantedEx = 0;
  /** Other nodes that remember us as the master (o2dlm's refmap). Null = none yet. */
  refs: NodeSet | null = null;
  lvbState: LvbState = 0;
  lvb: Uint8Array | null = null;

  /** Locks of local owners on this resource, whatever their state: how many, and a list in the order in which they came. */
  localCount = 0;
  localHead: Lock | null = null;
  private localTail: Lock | null = null;
  /** Local requests that wait for the master to be known, in order. */
  newWaiters: readonly Lock[] = NO_WAITERS;
  /** Mastery rounds in a row that led to a node which did not master it. */
  bounces = 0;

  isIdle = false;
  idleSince = 0;
  idlePrev: LockRes | null = null;
  idleNext: LockRes | null = null;

  constructor(domain: Domain, name: string) {
    this.domain = domain;
    this.name = name;
    this.seen = domain.epoch;
  }

  /** Counts a mode in force in or out (delta +1 / -1). */
  count(mode: Mode | -1, delta: 1 | -1): void {
    if (mode === PR) this.grantedPr += delta;
    else if (mode === EX) this.grantedEx += delta;
  }

  /** `node` remembers us as the master from now on. */
  addRef(node: NodeId): void {
    this.refs ??= new NodeSet();
    this.refs.add(node);
  }

  /** A lock of a local owner is here from now on. */
  attach(lock: Lock): void {
    const tail = this.localTail;
    if (tail === null) {
      this.localHead = lock;
    } else {
      tail.localNext = lock;
      lock.localPrev = tail;
    }
    this.localTail = lock;
    this.localCount++;
  }
  /** It is not any more. */
  detach(lock: Lock): void {
    const { localPrev: prev, localNext: next } = lock;
    if (prev === null) {
      this.localHead = next;
    } else {
      prev.localNext = next;
      lock.localPrev = null;
    }
    if (next === null) {
      this.localTail = prev;
    } else {
      next.localPrev = prev;
      lock.localNext = null;
    }
    this.localCount--;
  }
  /** Locks of local owners, a copy. */
  locals(): Lock[] {
    const all: Lock[] = [];
    for (let lock = this.localHead; lock; lock = lock.localNext) all.push(lock);
    return all;
  }

  /** `lock` waits for the master to be known. */
  addWaiter(lock: Lock): void {
    if (this.newWaiters.length === 0) this.newWaiters = [lock];
    else (this.newWaiters as Lock[]).push(lock);
  }
  /** `lock` does not wait any more. */
  removeWaiter(lock: Lock): void {
    const at = this.newWaiters.indexOf(lock);
    if (at >= 0) (this.newWaiters as Lock[]).splice(at, 1);
  }
  /** Nobody waits any more; returns who did. */
  takeWaiters(): readonly Lock[] {
    const waiters = this.newWaiters;
    this.newWaiters = NO_WAITERS;
    return waiters;
  }

  get hasQueues(): boolean {
    return this.granted.length + this.converting.length + this.blocked.length > 0;
  }
}
