/**
 * Checks S4 from the topology of the world alone: a node whose side (all it can exchange messages with, over others too)
 * has had no majority of running voters for longer than a lease neither grants nor fences.
 */
import { DRIFT_MAX } from '../../src/membership/time-limits.js';
import { PairChecker } from './check-pair.js';
import type { SimNode } from './node.js';

export class QuorumChecker {
  readonly #fail: (text: string) => void;
  readonly #leaseMs: number;
  /** Since when (real time) the node's side has no quorum; Infinity = it has one. */
  readonly #lostAt = new Map<number, number>();

  readonly pair: PairChecker;
  /** Where votes change: the voter sets that any of these nodes may go by; a majority of one of them is enough. */
  voterSets: ((side: readonly SimNode[]) => number[][]) | null = null;
  /** Where the node table changes: some log in the world calls these a majority. */
  hasOtherQuorum: (ids: readonly number[]) => boolean = () => false;

  constructor(leaseMs: number, voters: readonly number[], fail: (text: string) => void) {
    this.#leaseMs = leaseMs;
    this.#fail = fail;
    this.pair = new PairChecker(voters, fail);
  }

  topologyChanged(nodes: readonly SimNode[], isOpen: (a: number, b: number) => boolean, now: number): void {
    const todo = new Set(nodes.filter((n) => n.life && !n.isStandingStill));
    for (const n of nodes) if (!todo.has(n)) this.#set(n.id, false, now);
    for (const first of todo) {
      todo.delete(first);
      const side = [first];
      for (let i = 0; i < side.length; i++) {
        for (const n of todo) {
          if (!isOpen((side[i] as SimNode).id, n.id)) continue;
          todo.delete(n);
          side.push(n);
        }
      }
      this.pair.side(side);
      const ids = side.map((n) => n.id);
      const isMajority = (set: number[]): boolean => set.filter((id) => ids.includes(id)).length * 2 > set.length;
      const isOfSome = this.voterSets?.(side).some(isMajority) ?? false;
      const hasQuorum = this.pair.hasQuorum(ids) || isOfSome || this.hasOtherQuorum(ids);
      for (const n of side) this.#set(n.id, hasQuorum, now);
    }
  }

  granted(node: number, key: string, now: number): void {
    const since = this.#over(node, now);
    if (since !== null) this.#fail(`S4: n${node} granted ${key}, but its side has no quorum since ${since.toFixed(3)}`);
  }

  fencing(node: SimNode, victim: number, now: number): void {
    const since = this.#over(node.id, now);
    if (since === null || this.pair.mayFence(node, victim)) return;
    this.#fail(`S4: n${node.id} fences n${victim}, but its side has no quorum since ${since.toFixed(3)}`);
  }

  #set(node: number, hasQuorum: boolean, now: number): void {
    const lostAt = this.#lostAt.get(node) ?? 0;
    if (hasQuorum) this.#lostAt.set(node, Number.POSITIVE_INFINITY);
    else if (lostAt === Number.POSITIVE_INFINITY) this.#lostAt.set(node, now);
    else this.#lostAt.set(node, lostAt);
  }

  #over(node: number, now: number): number | null {
    const lostAt = this.#lostAt.get(node) ?? 0;
    return lostAt + this.#leaseMs / (1 - DRIFT_MAX) + 1 < now ? lostAt : null;
  }
}
