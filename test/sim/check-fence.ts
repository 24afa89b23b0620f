/**
 * Checks what `fenced` claims, from outside: the machine and the leases that were told decide, not the core.
 *
 * A node that counts as fenced has no lease that runs any more, whatever ended it (rule 15). If devices ended it and none of them
 * lied, its machine has been off since (both feeds at one time). And no leader admits a node while an `off` of its own against an
 * earlier life of that node is still under way (F7, trap 10), nor on a boot that a device has called off (rule 12).
 */
import { devicesIn } from '../../src/membership/fence-record.js';
import type { View } from '../../src/membership/types.js';
import type { Life } from './node.js';
import type { World } from './world.js';

export class FenceChecker {
  readonly #world: World;
  readonly #fail: (text: string) => void;
  /** Real end of the longest lease told, by node/startCount. */
  readonly #told = new Map<string, number>();
  readonly #judged = new Set<string>();
  /** Boots of machines that devices "ended" without ending them, as node and boot id. */
  readonly #disproved = new Set<string>();
  #epoch = 0;

  constructor(world: World, fail: (text: string) => void) {
    this.#world = world;
    this.#fail = fail;
  }

  /** Owners on the node were told that their holds last until then. */
  told(node: number, startCount: number, until: number): void {
    const key = `${node}/${startCount}`;
    if (until > (this.#told.get(key) ?? 0)) this.#told.set(key, until);
  }

  /** A daemon has applied a view. */
  applied(life: Life, view: View, now: number): void {
    // A daemon that starts walks through the views of the past again: only a new one says that somebody was admitted now.
    if (life.core?.leader === life.node.id) this.#admitted(life, view);
    if (view.epoch <= this.#epoch) return;
    this.#epoch = view.epoch;
    for (const node of view.nodes) {
      const { incarnation, fencedBy, state } = node;
      if (state !== 'fenced' || incarnation === null) continue;
      const key = `${node.id}/${incarnation.startCount}`;
      if (this.#judged.has(key)) continue;
      this.#judged.add(key);
      const isSameBoot = this.#world.node(node.id).bootId === incarnation.bootId;
      if (isSameBoot && devicesIn(fencedBy).length > 0) this.#disproved.add(`${node.id} ${incarnation.bootId}`);
      const until = this.#told.get(key) ?? 0;
      if (isSameBoot && until > now) {
        this.#fail(`fence: n${key} counts as fenced by ${fencedBy} while its lease runs until ${until.toFixed(3)}`);
      }
      if (isSameBoot && fencedBy === 'manual')
        this.#fail(`fence: n${key} counts as fenced by hand, and its machine was never off`);
      if (isSameBoot && devicesIn(fencedBy).length > 0 && !this.#world.fencer.lies.has(key)) {
        this.#fail(`fence: n${key} counts as fenced by ${fencedBy}, and its machine was never off`);
      }
    }
  }

  #admitted(life: Life, view: View): void {
    for (const { id, state, incarnation } of view.nodes) {
      if ((state !== 'in' && state !== 'suspect') || incarnation === null) continue;
      const { bootId, startCount: present } = this.#world.node(id);
      if (view.epoch > this.#epoch && present === incarnation.startCount && this.#disproved.has(`${id} ${bootId}`)) {
        this.#fail(`fence: n${id}/${present} is admitted on ${bootId}, which a device had called off (rule 12)`);
      }
      const [run] = this.#world.fencer.underWay(life, id, incarnation.startCount);
      // A person's word wins over what a device is still at.
      const isConfirmed = view.fencings.some(
        (r) => r.node === id && r.startCount === run?.request.startCount && r.confirmed !== null,
      );
      if (run === undefined || isConfirmed) continue;
      const { startCount, method } = run.request;
      this.#fail(
        `fence: n${life.node.id} admitted n${id}/${incarnation.startCount} while its own off by ${method} for start ${startCount} is under way`,
      );
    }
  }
}
