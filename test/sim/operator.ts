/**
 * The person behind the cluster: orders members to be fenced now and then, reboots a machine that a lying device has not ended, says
 * when a device may be believed again, and pulls the plug of a node that waits for a person before vouching for it. Honest, not fast.
 */
import { devicesIn } from '../../src/membership/fence-record.js';
import type { Incarnation } from '../../src/protocol/ids.js';
import type { Life, SimNode } from './node.js';
import { Prng } from './prng.js';
import type { World } from './world.js';

const LOOK_MS = 400;

export class Operator {
  readonly #world: World;
  readonly #random: Prng;

  constructor(world: World) {
    this.#world = world;
    this.#random = new Prng(world.options.seed, 7);
  }

  begin(): void {
    const { devices, fence, fenceOrderMs, calmMs, selfEndMs } = this.#world.options;
    if (devices.lies > 0 || devices.wrong > 0 || isAsked(fence) || selfEndMs > 0) this.#look();
    if (fenceOrderMs > 0) this.#world.queue.after(calmMs, () => this.#order());
  }

  get #leader(): Life | null {
    const found = this.#world.nodes.find((n) => n.life?.core.leader === n.id && !n.isPaused);
    return found?.life ?? null;
  }

  /** Sooner or later, and at once while the world heals. */
  #acts(chance: number): boolean {
    return this.#random.chance(chance) || this.#world.isHealing;
  }

  #look(): void {
    const world = this.#world;
    world.queue.after(LOOK_MS, () => {
      this.#look();
      const life = this.#leader;
      if (life === null) return;
      for (const { node, method } of life.core.view.distrusted) {
        if (!this.#acts(0.1)) continue;
        world.count('fence trusted again');
        life.node.call(life, (core, now) => core.trustFence(now, node, method, 'operator'));
      }
      for (const { id, state, fence, fencedBy, incarnation, nodeOwned, armedMs } of life.core.view.nodes) {
        const node = world.node(id);
        // It died before the view knew that its machine ends itself: nothing but a person frees what it owns (rule 2).
        const isLeft = nodeOwned && armedMs === 0 && fence.flat().every((method) => method === 'self');
        if (state === 'fencing' && incarnation !== null && (isAsked(fence) || isLeft) && this.#acts(0.2)) {
          this.#confirm(life, node, incarnation);
        }
        const isDisproved = state === 'evicted' && devicesIn(fencedBy).length > 0 && node.bootId === incarnation?.bootId;
        if (!isDisproved || !node.life || !this.#acts(0.2)) continue;
        world.count('rebooted by the operator');
        node.powerOff('the operator');
        world.bootLater(node, 200);
      }
    });
  }

  /** Makes sure that the machine is off, or was since, and says so: to a leader that may die before it is in the log. */
  #confirm(life: Life, node: SimNode, incarnation: Incarnation): void {
    const world = this.#world;
    if (node.bootId === incarnation.bootId) {
      node.powerOff('by hand');
      world.bootLater(node, 200 + this.#random.exp(2000));
    }
    world.count('fence confirmed');
    life.node.call(life, (core, now) => core.confirmFence(now, node.id, incarnation.startCount, 'operator'));
    if (world.isHealing || !this.#random.chance(0.1)) return;
    life.node.crash('killed after a confirmation');
    world.bootLater(life.node, 50 + this.#random.exp(500));
  }

  /** A member is to be fenced; sometimes just when it is about to leave. */
  #order(): void {
    const world = this.#world;
    world.queue.after(this.#random.exp(world.options.fenceOrderMs), () => {
      if (!world.isLoading) return;
      this.#order();
      const life = this.#leader;
      const victim = this.#random.pick(world.nodes);
      const known = life?.core.view.nodes.find((n) => n.id === victim.id)?.incarnation;
      if (life === null || !known) return;
      if (this.#random.chance(0.3)) world.stopNode(victim);
      const wait = this.#random.pick([0, 1, 10, 50]);
      world.queue.after(wait, () => {
        life.node.call(life, (core, now) => {
          if (core.fenceNode(now, victim.id, known.startCount, 'by the operator').ok) world.count('fence ordered');
        });
      });
    });
  }
}

function isAsked(fence: readonly (readonly string[])[]): boolean {
  return fence.some((level) => level.includes('manual'));
}
