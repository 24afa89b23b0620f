/**
 * The locks that belong to this node rather than to a session (rule 2): they stay when their session goes and come back
 * from the journal after a restart, so they are found by name, and any session may release them.
 */
import type { LocalLock } from '../master/types.js';
import type { Mode } from '../protocol/modes.js';
import { Hold } from './session-hold.js';

export class NodeOwnedLocks {
  #byName = new Map<string, Hold>();

  get size(): number {
    return this.#byName.size;
  }

  /** At most one per name: the node is one owner. */
  find(domain: string, name: string): Hold | undefined {
    return this.#byName.get(keyOf(domain, name));
  }

  add(domain: string, name: string, hold: Hold): void {
    this.#byName.set(keyOf(domain, name), hold);
  }

  remove(domain: string, name: string, hold: Hold): void {
    const key = keyOf(domain, name);
    if (this.#byName.get(key) === hold) this.#byName.delete(key);
  }

  /** Takes a lock of the journal, or one the core granted on its own; null when it is not node-owned. */
  adopt(lock: LocalLock, now: number): Hold | null {
    if (!lock.nodeOwned) return null;
    const hold = new Hold(null, 0, true, false);
    hold.lock = lock;
    hold.told = lock.mode as Mode;
    hold.since = now;
    lock.ctx = hold;
    this.add(lock.domain, lock.name, hold);
    return hold;
  }
}

/** A domain name contains no '/', so the key is unambiguous. */
function keyOf(domain: string, name: string): string {
  return `${domain}/${name}`;
}
