/**
 * Orphan holds (rule 6): files that were open when their mount lost its connection or the daemon was killed. The programs
 * that opened them may still run and act, so nothing recalls these locks; they end with the mount (a successful umount that
 * is not lazy), by an operator's word, or with the machine.
 */
import type { DoorLock } from '../dlmfs/engine-locks.js';
import type { LockOwner } from '../dlmfs/service.js';
import type { Tree } from '../dlmfs/tree.js';
import type { LocalLock } from '../master/types.js';
import type { FilesOrphan } from '../protocol/admin.js';
import { type Mode, modeName } from '../protocol/modes.js';

/** Which of them. All that are given must fit; nothing given fits none. */
export interface OrphanFilter {
  mount?: string;
  domain?: string;
  name?: string;
  all?: boolean;
}

/** A lock of the journal that was open when the daemon was killed. */
class JournalOrphan implements LockOwner {
  readonly lock: LocalLock;
  readonly door: DoorLock;
  readonly since: number;
  mode: Mode;
  readonly #gone: (orphan: JournalOrphan) => void;

  constructor(lock: LocalLock, door: DoorLock, since: number, gone: (orphan: JournalOrphan) => void) {
    this.lock = lock;
    this.door = door;
    this.since = since;
    this.mode = lock.mode as Mode;
    this.#gone = gone;
  }

  granted(mode: Mode): void {
    this.mode = mode;
  }
  denied(): void {}
  /** Never recalled. */
  bast(): void {}
  recorded(): void {}
  released(): void {
    this.#gone(this);
  }
  lost(): void {
    this.#gone(this);
  }
}

interface OrphanTree {
  tree: Tree;
  mount: string;
  since: number;
}

export class FileOrphans {
  readonly #now: () => number;
  readonly #trees = new Set<OrphanTree>();
  readonly #locks = new Set<JournalOrphan>();

  constructor(now: () => number) {
    this.#now = now;
  }

  /** A mount whose connection is gone. `done` when what nobody has open is given up; the rest stays here. */
  addTree(tree: Tree, mount: string, done: () => void = () => {}): void {
    const orphan = { tree, mount, since: this.#now() };
    this.#trees.add(orphan);
    this.#settle(orphan, done);
  }

  #settle(orphan: OrphanTree, done: () => void): void {
    orphan.tree.dropUnused(() => {
      if (orphan.tree.openCount === 0 && [...orphan.tree.files()].length === 0) this.#trees.delete(orphan);
      done();
    });
  }

  /** A lock of the journal, confirmed by its master; it was in use when the daemon was killed. */
  addLock(lock: LocalLock, door: DoorLock): void {
    const orphan = new JournalOrphan(lock, door, this.#now(), (gone) => this.#locks.delete(gone));
    door.adopt(orphan);
    this.#locks.add(orphan);
  }

  get size(): number {
    let count = this.#locks.size;
    for (const { tree } of this.#trees) count += tree.held().length;
    return count;
  }

  /** Is anything left of the mount of that id? */
  has(mount: string): boolean {
    for (const o of this.#trees) if (o.mount === mount) return true;
    for (const o of this.#locks) if (o.lock.door === mount) return true;
    return false;
  }

  list(filter: OrphanFilter = { all: true }): FilesOrphan[] {
    const now = this.#now();
    const found: FilesOrphan[] = [];
    for (const { tree, mount, since } of this.#trees) {
      for (const h of tree.held()) {
        found.push({ mount, domain: h.domain, name: h.name, mode: modeName(h.mode), holders: h.holders, sinceMs: now - since });
      }
    }
    for (const { lock, mode, since } of this.#locks) {
      const { domain, name, door } = lock;
      // How many had it open is not in the journal.
      found.push({ mount: door, domain, name, mode: modeName(mode), holders: 1, sinceMs: now - since });
    }
    return found.filter((o) => fits(filter, o));
  }

  /** Frees them; returns what they were. */
  free(filter: OrphanFilter): FilesOrphan[] {
    const freed = this.list(filter);
    for (const orphan of [...this.#trees]) {
      for (const file of [...orphan.tree.files()]) {
        if (!fits(filter, { mount: orphan.mount, domain: file.dir.name, name: file.name })) continue;
        for (const open of [...file.open]) open.close();
      }
      this.#settle(orphan, () => {});
    }
    for (const { lock, door } of this.#locks) {
      if (fits(filter, { mount: lock.door, domain: lock.domain, name: lock.name })) door.unlock();
    }
    return freed;
  }

  sweep(): void {
    for (const { tree } of this.#trees) tree.sweep();
  }
}

function fits(filter: OrphanFilter, o: { mount: string; domain: string; name: string }): boolean {
  if (filter.mount === undefined && filter.domain === undefined && filter.name === undefined) return filter.all === true;
  return (
    (filter.mount === undefined || filter.mount === o.mount) &&
    (filter.domain === undefined || filter.domain === o.domain) &&
    (filter.name === undefined || filter.name === o.name)
  );
}
