/**
 * What goes wrong in a run: at random times one of the kinds of fault that the seed chose, each with its own end.
 * Everything that was done is undone when the world heals.
 */

import type { SimNode } from './node.js';
import type { FaultKind } from './options.js';
import type { World } from './world.js';

export class Faults {
  readonly #world: World;
  readonly #undo = new Set<() => void>();

  constructor(world: World) {
    this.#world = world;
  }

  begin(): void {
    const { options, queue } = this.#world;
    if (options.faultEveryMs === 0) return;
    queue.after(options.calmMs, () => this.#next());
  }

  /** Ends every fault that still lasts. */
  heal(): void {
    for (const undo of [...this.#undo]) undo();
  }

  #next(): void {
    const world = this.#world;
    world.queue.after(world.faultRandom.exp(world.options.faultEveryMs), () => {
      if (!world.isLoading) return;
      this.inject(world.faultRandom.weighted(world.options.faults));
      this.#next();
    });
  }

  /** One fault of this kind, now. */
  inject(kind: FaultKind): void {
    const world = this.#world;
    const r = world.faultRandom;
    const { leaseMs, heartbeatMs } = world.options.limits;
    const node = r.pick(world.nodes);
    world.fault(kind);
    switch (kind) {
      case 'crash':
        node.crash('crash');
        world.bootLater(node, r.chance(0.5) ? 20 + r.exp(200) : r.exp(leaseMs));
        return;
      case 'reboot':
        node.powerOff('reboot');
        world.bootLater(node, 300 + r.exp(leaseMs));
        return;
      case 'pause':
        node.pause(r.chance(0.5) ? leaseMs * r.between(0.8, 2) : heartbeatMs * r.between(0.5, 6));
        return;
      case 'cut':
        this.#eachPair(0.4, (a, b) => world.network.cut(a, b));
        return;
      case 'flap': {
        const [a, b] = this.#twoNodes();
        if (a && b) this.#flap(a, b, 3 + r.int(6));
        return;
      }
      case 'isolate':
        this.#partition([node], r.between(0.2, 3) * leaseMs);
        return;
      case 'split': {
        const side = world.nodes.filter(() => r.chance(0.5));
        this.#partition(side, r.between(0.2, 3) * leaseMs);
        return;
      }
      case 'oneWay': {
        const side = r.chance(0.5) ? [node] : world.nodes.filter(() => r.chance(0.5));
        this.#oneWay(side, r.chance(0.5), r.between(0.2, 3) * leaseMs);
        return;
      }
      case 'halfPartition': {
        const [a, b] = this.#twoNodes();
        if (a && b) this.#blockPairs([[a.id, b.id]], r.between(0.5, 4) * leaseMs);
        return;
      }
      case 'clog':
        this.#clog(r.between(0.1, 2) * leaseMs);
        return;
      case 'slowDisk': {
        node.disk.slowness = r.between(10, 100);
        this.#later(r.between(0.3, 2) * leaseMs, () => {
          node.disk.slowness = 1;
        });
        return;
      }
      case 'restartAll':
        for (const n of world.nodes) {
          if (r.chance(0.5)) n.crash('restartAll');
          else n.powerOff('restartAll');
          world.bootLater(n, 50 + r.exp(leaseMs / 2));
        }
        return;
      case 'majorityLoss': {
        const voters = r.shuffle(world.nodes.filter((n) => n.config.voter));
        for (const n of voters.slice(0, Math.floor(voters.length / 2) + 1)) {
          if (r.chance(0.5)) n.crash('majorityLoss');
          else n.powerOff('majorityLoss');
          world.bootLater(n, r.between(0.3, 3) * leaseMs);
        }
        return;
      }
      case 'stop':
        world.stopNode(node);
        return;
      case 'cleanRestart':
        world.restartNode(node);
        return;
      case 'gone':
        this.#gone(node, r.between(2, 10) * leaseMs);
        return;
      case 'coldOne': {
        const late = node;
        for (const n of world.nodes) n.powerOff('coldOne');
        this.#gone(late, r.between(1, 5) * leaseMs);
        for (const n of world.nodes) if (n !== late) world.bootLater(n, 50 + r.exp(leaseMs / 2));
        return;
      }
      case 'severed':
        this.#partition([node], r.between(2, 8) * leaseMs);
        return;
    }
  }

  /** Off, and not switched on by anybody for so long. */
  #gone(node: SimNode, ms: number): void {
    const world = this.#world;
    if (node.isGone) return;
    node.isGone = true;
    node.powerOff('gone');
    this.#later(ms, () => {
      node.isGone = false;
      world.bootLater(node, 10);
    });
  }

  #twoNodes(): [SimNode | undefined, SimNode | undefined] {
    const some = this.#world.faultRandom.shuffle([...this.#world.nodes]);
    return [some[0], some[1]];
  }

  #eachPair(share: number, run: (a: number, b: number) => void): void {
    const { nodes, faultRandom } = this.#world;
    for (const a of nodes) for (const b of nodes) if (a.id < b.id && faultRandom.chance(share)) run(a.id, b.id);
  }

  #flap(a: SimNode, b: SimNode, times: number): void {
    const world = this.#world;
    world.network.cut(a.id, b.id);
    if (times > 1 && world.isLoading) world.queue.after(world.faultRandom.exp(300), () => this.#flap(a, b, times - 1));
  }

  #partition(side: SimNode[], ms: number): void {
    const pairs: [number, number][] = [];
    for (const a of side) for (const b of this.#world.nodes) if (!side.includes(b)) pairs.push([a.id, b.id]);
    this.#blockPairs(pairs, ms);
  }

  #blockPairs(pairs: [number, number][], ms: number): void {
    const { network } = this.#world;
    for (const [a, b] of pairs) {
      network.block(a, b);
      network.block(b, a);
    }
    this.#later(ms, () => {
      for (const [a, b] of pairs) {
        network.unblock(a, b);
        network.unblock(b, a);
      }
    });
  }

  #oneWay(side: SimNode[], isOutward: boolean, ms: number): void {
    const { network, nodes } = this.#world;
    const blocked: [number, number][] = [];
    for (const a of side) {
      for (const b of nodes) {
        if (side.includes(b)) continue;
        blocked.push(isOutward ? [a.id, b.id] : [b.id, a.id]);
      }
    }
    for (const [from, to] of blocked) network.block(from, to);
    this.#later(ms, () => {
      for (const [from, to] of blocked) network.unblock(from, to);
    });
  }

  #clog(ms: number): void {
    const { network, nodes, faultRandom, options } = this.#world;
    const slow: [number, number][] = [];
    for (const a of nodes) for (const b of nodes) if (a !== b && faultRandom.chance(0.3)) slow.push([a.id, b.id]);
    const delay = faultRandom.between(0.05, 0.8) * options.limits.leaseMs;
    for (const [a, b] of slow) network.setExtraDelay(a, b, delay);
    this.#later(ms, () => {
      for (const [a, b] of slow) network.setExtraDelay(a, b, 0);
    });
  }

  /** Undoes a fault after `ms`, or when the world heals. */
  #later(ms: number, undo: () => void): void {
    const once = (): void => {
      if (this.#undo.delete(once)) undo();
    };
    this.#undo.add(once);
    this.#world.queue.after(ms, once);
  }
}
