/** The names of bridged domains on this node: who needs what of each, what the helper was asked for, and what it has. */

import type { BridgedLock } from './bridged-lock.js';
import { keyOf } from './helper-core.js';
import type { FromHelper, Level, ToHelper } from './protocol.js';

export class BridgedName {
  readonly domain: string;
  readonly name: string;
  readonly locks = new Set<BridgedLock>();
  /** The kernel has at most this, as far as the helper has said. */
  have: Level = -1;
  /** And at least this: no wish for less is under way. */
  kept: Level = -1;
  /** The last wish, and its number. */
  asked: Level = -1;
  seq = 0;
  answered = 0;
  /** Belongs to the node rather than to a session. */
  isForever = false;
  /** Owners of before, who have not said so yet, may count on this much. */
  reserved: Level = -1;
  /** As it was read with the last raise, or written since. */
  value: Uint8Array | null = null;
  /** What waits until the kernel has less. */
  drops: { lock: BridgedLock; then: () => void }[] = [];

  constructor(domain: string, name: string) {
    this.domain = domain;
    this.name = name;
  }

  get need(): Level {
    let need = this.reserved;
    for (const lock of this.locks) if (lock.need > need) need = lock.need;
    return need;
  }

  /** The last wish has not been answered. */
  get isPending(): boolean {
    return this.answered !== this.seq;
  }

  /** The kernel has at least this, and keeps it. */
  covers(level: Level): boolean {
    return this.kept >= level;
  }
}

export class BridgedNames {
  readonly #names = new Map<string, BridgedName>();
  readonly #send: (message: ToHelper) => void;
  /** Called when a name has what was asked for. */
  readonly #settle: (name: BridgedName) => void;
  /** Runs work that may call the core when its present call is over. */
  readonly #defer: (work: () => void) => void;
  #isAttached = false;
  /** Never used twice: the helper may still have a name that was forgotten here. */
  #seq = 0;

  constructor(o: { send: (m: ToHelper) => void; settle: (name: BridgedName) => void; defer: (work: () => void) => void }) {
    this.#send = o.send;
    this.#settle = o.settle;
    this.#defer = o.defer;
  }

  get heldCount(): number {
    let count = 0;
    for (const name of this.#names.values()) if (name.have >= 0) count++;
    return count;
  }

  all(): BridgedName[] {
    return [...this.#names.values()];
  }

  find(domain: string, name: string): BridgedName | undefined {
    return this.#names.get(keyOf(domain, name));
  }

  add(lock: BridgedLock): BridgedName {
    const name = this.#of(lock.domain, lock.name);
    name.locks.add(lock);
    if (lock.nodeOwned) name.isForever = true;
    return name;
  }

  #of(domain: string, name: string): BridgedName {
    const key = keyOf(domain, name);
    let found = this.#names.get(key);
    if (found === undefined) {
      found = new BridgedName(domain, name);
      this.#names.set(key, found);
    }
    return found;
  }

  /** Asks the helper for what is needed now, unless that is what was asked for last. */
  sync(name: BridgedName): void {
    const { need } = name;
    if (!this.#isAttached || need === name.asked) return;
    // A wish that is replaced is never answered: what waited for less of the kernel need not wait for the new one.
    if (need > name.asked && name.drops.length > 0) this.#defer(() => this.#runDrops(name));
    const waiting = [...name.locks].filter((lock) => lock.need > name.kept);
    name.isForever = [...name.locks].some((lock) => lock.nodeOwned) || (name.isForever && name.reserved >= 0);
    name.asked = need;
    if (need < name.kept) name.kept = need;
    name.seq = ++this.#seq;
    this.#send({
      k: 'want',
      domain: name.domain,
      name: name.name,
      level: need,
      isTry: waiting.length > 0 && waiting.every((lock) => lock.isTry),
      isForever: name.isForever,
      seq: name.seq,
    });
  }

  /** Runs `then` when the kernel has no more than what the owners need now. `lock.need` has been lowered already. */
  drop(lock: BridgedLock, then: () => void): void {
    const name = this.#of(lock.domain, lock.name);
    const { need } = name;
    const isNothingToDrop = (need >= name.have && need >= name.asked) || (need === name.asked && !name.isPending);
    if (!this.#isAttached || isNothingToDrop) {
      then();
      return;
    }
    this.sync(name);
    name.drops.push({ lock, then });
  }

  value(lock: BridgedLock, value: Uint8Array): void {
    const name = this.#of(lock.domain, lock.name);
    name.value = value;
    if (this.#isAttached)
      this.#send({ k: 'value', domain: lock.domain, name: lock.name, value: Buffer.from(value).toString('base64') });
  }

  /** What was to be done for it in the core when the kernel has less is void. */
  abandon(lock: BridgedLock): void {
    const name = this.#names.get(keyOf(lock.domain, lock.name));
    if (name !== undefined) name.drops = name.drops.filter((drop) => drop.lock !== lock);
  }

  /** The lock is no more: what only it needed is given up. */
  forget(lock: BridgedLock): void {
    const name = this.#names.get(keyOf(lock.domain, lock.name));
    if (name === undefined) return;
    name.locks.delete(lock);
    name.drops = name.drops.filter((drop) => drop.lock !== lock);
    this.sync(name);
    this.#cleanUp(name);
  }

  have(m: Extract<FromHelper, { k: 'have' }>): void {
    const name = this.#names.get(keyOf(m.domain, m.name));
    if (name === undefined || m.seq !== name.seq) return;
    // After a wish for less the helper may still have more, but not for long.
    name.have = m.level;
    name.kept = m.level < name.asked ? m.level : name.asked;
    name.answered = m.seq;
    if (m.value !== null) name.value = Buffer.from(m.value, 'base64');
    this.#runDrops(name);
    this.#settle(name);
    this.#cleanUp(name);
  }

  /** The wish is void; null when it is not the last one. */
  refused(m: Extract<FromHelper, { k: 'refused' }>): BridgedName | null {
    const name = this.#names.get(keyOf(m.domain, m.name));
    if (name === undefined || m.seq !== name.seq) return null;
    name.asked = name.kept;
    name.answered = m.seq;
    this.#runDrops(name);
    return name;
  }

  #runDrops(name: BridgedName): void {
    const { drops } = name;
    name.drops = [];
    for (const { then } of drops) then();
  }

  /** `isReserved`: not all who count on what the helper has are known. */
  attached(names: Extract<FromHelper, { k: 'hello' }>['names'], isReserved: boolean): void {
    this.#isAttached = true;
    for (const m of names) {
      const name = this.#of(m.domain, m.name);
      if (isReserved || m.isForever) name.reserved = m.level;
      name.have = m.level;
      name.kept = m.level;
      name.asked = m.level;
      name.isForever ||= m.isForever;
    }
  }

  /** Nothing is had any more. */
  detached(): BridgedName[] {
    this.#isAttached = false;
    const names = this.all();
    for (const name of names) {
      name.have = -1;
      name.kept = -1;
      name.asked = -1;
      name.reserved = -1;
      name.answered = name.seq;
      this.#runDrops(name);
      this.#cleanUp(name);
    }
    return names;
  }

  #cleanUp(name: BridgedName): void {
    const key = keyOf(name.domain, name.name);
    // What was done for this one may have made another of that name.
    if (this.#names.get(key) !== name) return;
    if (name.locks.size === 0 && name.reserved < 0 && name.have < 0 && name.asked < 0 && name.drops.length === 0)
      this.#names.delete(key);
  }
}
