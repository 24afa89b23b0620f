/**
 * An operator who gives votes and takes them: in a domain of policy `servers` each of it makes another node a server, or a server a
 * client that hands its names over. Never below three voters: what two may do alone is another story (check-pair.ts).
 */
import { NodeCore } from '../../src/core/node-core.js';
import { votersOf } from '../../src/membership/voter-set.js';
import type { SimNode } from './node.js';
import { Prng } from './prng.js';
import type { World } from './world.js';

/** How often S4's checker looks at who votes. */
const LOOK_MS = 20;

export class Votes {
  readonly #world: World;
  readonly #random: Prng;

  constructor(world: World) {
    this.#world = world;
    this.#random = new Prng(world.options.seed, 11);
  }

  begin(): void {
    const { voteEveryMs, calmMs } = this.#world.options;
    if (voteEveryMs === 0) return;
    this.#world.quorumCheck.voterSets = (side) => side.flatMap(setsOf);
    this.#look();
    this.#world.queue.after(calmMs, () => this.#change());
  }

  #look(): void {
    const world = this.#world;
    world.queue.after(LOOK_MS, () => {
      world.topologyChanged();
      this.#look();
    });
  }

  #change(): void {
    const world = this.#world;
    world.queue.after(this.#random.exp(world.options.voteEveryMs), () => {
      if (world.isHealing) return;
      this.#change();
      const id = 1 + this.#random.int(world.nodes.length);
      const on = this.#random.chance(0.5);
      const life = world.nodes.find((n) => n.life?.core.leader === n.id && n.life.core.isMember && !n.isPaused)?.life;
      if (!life) return;
      life.node.call(life, (core, now) => {
        const { view } = core;
        if (!on && votersOf(view).length <= 3) return;
        const { what } = core.changeTable(now, { c: 'voter', table: view.table, node: id, on });
        if (what === 'taken') world.count('vote changed');
      });
    });
  }
}

/** Voter sets that are in force for this node: applied, and after all of its log. */
function setsOf(node: SimNode): number[][] {
  const core = node.life?.core;
  return core instanceof NodeCore ? [votersOf(core.view), votersOf(core.membership.ahead)] : [];
}
