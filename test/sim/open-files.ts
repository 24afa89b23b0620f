/**
 * Programs that open and close files under the node-owned locks of a mount (rule 6): what a program was told is open must be
 * in the journal as open when its daemon dies, and come back so, however closes and other opens cross it.
 */
import type { LocalLock } from '../../src/master/types.js';
import type { SimNode } from './node.js';
import type { Owned } from './owners.js';

export class OpenFiles {
  readonly #node: SimNode;
  /** On their way to the journal; a second open waits with the first. */
  readonly #opening = new WeakSet<LocalLock>();

  constructor(node: SimNode) {
    this.#node = node;
  }

  /** A lock of a mount was granted for the first time, for a file that is open now. */
  began(o: Owned): void {
    if (o.door === '') return;
    o.isOpen = true;
    this.#later(o.hold?.id ?? 0);
  }

  /** The daemon died; its disk is what the next one will read. */
  daemonDied(o: Owned): void {
    const { world, disk, id } = this.#node;
    if (o.door === '' || !o.isOpen || !o.hold) return;
    if (disk.locks.get(o.hold.id)?.isInUse !== true)
      world.fail(`S5: files are open under ${o.key} on n${id}, its journal forgot that (rule 6)`);
    world.count('open at a crash');
  }

  /** The next daemon claims it. */
  claimed(o: Owned): void {
    if (o.door === '' || !o.isOpen || !o.local) return;
    if (!o.local.isInUse || o.local.door !== o.door)
      this.#node.world.fail(`S5: ${o.key} came back without its open files (rule 6)`);
    this.#later(o.hold?.id ?? 0);
  }

  #trace(o: Owned, what: string): void {
    this.#node.world.trace.add(this.#node.world.queue.now, this.#node.id, what, o.key, (o.hold?.id ?? 0) % 2 ** 32);
  }

  #later(holdId: number): void {
    const { world, random, owners } = this.#node;
    world.queue.after(5 + random.exp(world.options.nodeOwnedMs / 8), () => {
      // Its daemon may be another one, or none, by now: then a claim goes on with it.
      for (const o of owners.all) {
        if (o.hold?.id !== holdId || o.door === '') continue;
        this.#node.input(o.life, () => this.#act(o));
        return;
      }
    });
  }

  #act(o: Owned): void {
    const { owners } = this.#node;
    const { local, life, hold } = o;
    if (!local || !hold || (o.phase !== 'held' && o.phase !== 'converting') || life.isFrozen || !owners.all.has(o)) return;
    if (o.isOpen) {
      o.isOpen = false;
      this.#trace(o, 'closes');
      this.#node.call(life, (core, now) => core.setInUse(now, local, false, () => {}));
    } else if (!this.#opening.has(local)) {
      this.#opening.add(local);
      this.#trace(o, 'opens');
      this.#node.call(life, (core, now) =>
        core.setInUse(now, local, true, (ok) => {
          this.#opening.delete(local);
          this.#trace(o, ok ? 'opened' : 'not opened');
          if (ok && this.#node.life === life && owners.all.has(o)) o.isOpen = true;
        }),
      );
    }
    this.#later(hold.id);
  }
}
