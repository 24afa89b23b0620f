/**
 * What new masters are told in a recovery, on its way out: registrations and hand-overs, in messages of bounded size.
 *
 * The problem: a hundred thousand registrations sent at once keep their receiver busy for longer than a lease, fill the queue of the
 * link, and everything else that goes to that node waits behind them.
 *
 * The idea: a window of their own (rule 25). To each node so many messages are under way, and the next goes when one has been handled
 * (RegisterDone); who makes them stops while one of its receivers is behind. They belong to one epoch, and end with it.
 */
import type { NodeId } from '../protocol/ids.js';
import type { HandedResource, RegisteredLock } from '../protocol/peer-messages.js';
import type { Domain } from './domain.js';
import type { EngineState } from './state.js';

/** Queue entries in one HandOver: a frame between daemons holds them with room to spare. */
const HANDED_ENTRIES_MAX = 100_000;

interface Outbox {
  locks: RegisteredLock[];
  resources: HandedResource[];
  underWay: number;
}

export class Registrations {
  readonly #s: EngineState;
  readonly #domain: Domain;
  readonly #boxes = new Map<NodeId, Outbox>();

  constructor(s: EngineState, domain: Domain) {
    this.#s = s;
    this.#domain = domain;
  }

  #box(target: NodeId): Outbox {
    let box = this.#boxes.get(target);
    if (!box) {
      box = { locks: [], resources: [], underWay: 0 };
      this.#boxes.set(target, box);
    }
    return box;
  }

  register(target: NodeId, lock: RegisteredLock): void {
    const box = this.#box(target);
    box.locks.push(lock);
    if (box.locks.length >= this.#s.tuning.registerBatch) this.#sendLocks(target, box);
  }

  handOver(target: NodeId, data: HandedResource): void {
    const box = this.#box(target);
    box.resources.push(data);
    if (box.resources.length >= this.#s.tuning.registerBatch) this.#sendResources(target, box);
  }

  /** A receiver is behind: no more should be made now. */
  get isFull(): boolean {
    const { registerBatch } = this.#s.tuning;
    for (const { locks, resources } of this.#boxes.values())
      if (locks.length >= registerBatch || resources.length >= registerBatch) return true;
    return false;
  }

  /** Sends what is left, as far as the receivers go along. True: nothing is left. */
  flush(): boolean {
    let isEmpty = true;
    for (const [target, box] of [...this.#boxes].sort((a, b) => a[0] - b[0])) {
      this.#sendLocks(target, box);
      this.#sendResources(target, box);
      if (box.locks.length > 0 || box.resources.length > 0) isEmpty = false;
    }
    return isEmpty;
  }

  /** The node has handled one message. */
  done(from: NodeId): void {
    const box = this.#boxes.get(from);
    if (!box || box.underWay === 0) return;
    box.underWay--;
    const { registerBatch } = this.#s.tuning;
    if (box.locks.length >= registerBatch) this.#sendLocks(from, box);
    if (box.resources.length >= registerBatch) this.#sendResources(from, box);
  }

  #sendLocks(target: NodeId, box: Outbox): void {
    const { registerBatch, registerWindow } = this.#s.tuning;
    while (box.locks.length > 0 && box.underWay < registerWindow) {
      const locks = box.locks.length <= registerBatch ? box.locks : box.locks.slice(0, registerBatch);
      box.locks = box.locks.slice(locks.length);
      box.underWay++;
      this.#s.send(this.#domain, target, { k: 'Register', locks });
    }
  }

  #sendResources(target: NodeId, box: Outbox): void {
    const { registerBatch, registerWindow } = this.#s.tuning;
    while (box.resources.length > 0 && box.underWay < registerWindow) {
      let count = 0;
      let entries = 0;
      for (const { converting, blocked } of box.resources) {
        entries += converting.length + blocked.length;
        if (count === registerBatch || (count > 0 && entries > HANDED_ENTRIES_MAX)) break;
        count++;
      }
      const resources = box.resources.slice(0, count);
      box.resources = box.resources.slice(count);
      box.underWay++;
      this.#s.send(this.#domain, target, { k: 'HandOver', resources });
    }
  }
}
