/**
 * The one exception of S4, exactly (rules 13, 20): of exactly two voters one may fence, and then grant, without a quorum.
 *
 * It may fence the other when, in this life of its daemon, the two were together while both had a vote. It has a quorum by itself
 * from the moment when its own disk has synced the record that says so, and the device that this very node asked for has really
 * switched the other's machine off in (or after) the life that the record names. A clean leave (both disks know of it) and an operator's order
 * make a sole voter too. It ends when the survivor's disk has synced that the other has its vote back.
 *
 * All of it is read off disks, devices and the topology of the world; the core is not asked.
 */
import type { Command, PersistBatch } from '../../src/membership/types.js';
import type { SimNode } from './node.js';

export class PairChecker {
  readonly #fail: (text: string) => void;
  readonly #isPair: boolean;
  readonly #voters: readonly number[];
  /** The only voter, as far as disks say. */
  sole = 0;
  /** Daemon life in which the node was together with the other while both voted. */
  readonly #full = new Map<number, number>();
  readonly #hits = new Map<number, { by: number; startCount: number }>();
  /** Disks that have the leave of this node, as node/startCount. */
  readonly #left = new Map<string, Set<number>>();
  changed: () => void = () => {};
  /** The daemon life that runs on a node, 0 = none. */
  lifeOf: (node: number) => number = () => 0;
  /** An operator has given up what the other knows. */
  readonly ordered = new Set<number>();

  constructor(voters: readonly number[], fail: (text: string) => void) {
    this.#voters = voters;
    this.#isPair = voters.length === 2;
    this.#fail = fail;
  }

  /** A side of the network: nodes that run and reach each other. */
  side(nodes: readonly SimNode[]): void {
    if (!this.#isPair || !this.#voters.every((v) => nodes.some((n) => n.id === v))) return;
    for (const n of nodes) if (n.life && (this.sole === 0 || this.sole === n.id)) this.#full.set(n.id, n.life.uid);
  }

  /** By whose order a device has switched the machine off. */
  hit(victim: SimNode, by: number): void {
    this.#hits.set(victim.id, { by, startCount: victim.startCount });
  }

  /** True when this node may fence that one without a quorum. */
  mayFence(node: SimNode, victim: number): boolean {
    if (!this.#isPair || !this.#voters.includes(victim) || !this.#voters.includes(node.id)) return false;
    if (this.sole !== 0 && this.sole !== node.id) return false;
    return node.life !== null && this.#full.get(node.id) === node.life?.uid;
  }

  /** True when the votes of these nodes are more than half of those that count now. */
  hasQuorum(ids: readonly number[]): boolean {
    if (this.sole !== 0) return ids.includes(this.sole);
    return ids.filter((id) => this.#voters.includes(id)).length * 2 > this.#voters.length;
  }

  /** A node's disk has these entries for good. */
  synced(node: number, batch: PersistBatch): void {
    if (!this.#isPair) return;
    for (const { cmd } of batch.entries ?? []) this.#entry(node, cmd as Command);
  }

  #entry(node: number, cmd: Command): void {
    if (cmd.c === 'alone' && cmd.node === node) {
      const hit = this.#hits.get(cmd.peer);
      if (this.sole !== 0 && this.sole !== node) this.#fail(`S4: n${node} goes on alone, but n${this.sole} is the only voter`);
      if (hit === undefined || hit.by !== node || hit.startCount < cmd.startCount) {
        this.#fail(`S4: n${node} goes on alone, but its device has not switched n${cmd.peer}/${cmd.startCount} off`);
      }
      const life = this.lifeOf(node);
      if (life !== 0 && this.sole !== node && this.#full.get(node) !== life) {
        this.#fail(`S4: n${node} goes on alone, but since its start it was not together with n${cmd.peer} while both had a vote`);
      }
      this.#set(node);
    } else if (cmd.c === 'lostHistory' && cmd.node === node) {
      if (!this.ordered.has(node)) this.#fail(`S4: n${node} gives up a history, and nobody told it to`);
      this.#set(node);
    } else if (cmd.c === 'nodeLeave' && [cmd.node, node].every((id) => this.#voters.includes(id)) && this.sole === 0) {
      const key = `${cmd.node}/${cmd.startCount}`;
      const disks = this.#left.get(key) ?? new Set();
      this.#left.set(key, disks.add(node));
    } else if (cmd.c === 'sole' && cmd.node === node && this.sole === 0) {
      const other = this.#voters.find((v) => v !== node) ?? 0;
      const isKnown = [...this.#left].some(([key, disks]) => key.startsWith(`${other}/`) && disks.size === 2);
      if (!isKnown) this.#fail(`S4: n${node} takes itself for the only voter, but not both disks know that n${other} left`);
      this.#set(node);
    } else if (cmd.c === 'voter' && cmd.on && this.sole === node) {
      this.#set(0);
    }
  }

  #set(sole: number): void {
    this.sole = sole;
    this.changed();
  }
}
