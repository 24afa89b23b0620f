/**
 * What must hold in every run of the membership harness, whatever happens: one leader per term, one vote per node and term, one
 * view per log index on all nodes, and no lease that lives when the log says that its holder is over.
 * Times here are real time of the harness, not any node's clock.
 */

import type { Command, View } from '../../src/membership/types.js';
import type { NodeId } from '../../src/protocol/ids.js';

export class Checks {
  readonly problems: string[] = [];
  private readonly leaders = new Map<number, NodeId>();
  private readonly votes = new Map<string, NodeId>();
  private readonly views = new Map<number, string>();
  /** Real end of the longest lease of an incarnation, by `node:startCount`. */
  private readonly leases = new Map<string, number>();
  private readonly over = new Map<string, number>();
  /** Of each log index that changed the view: when it was applied first. */
  readonly history: { at: number; index: number; command: Command | null; view: View }[] = [];

  leader(term: number, id: NodeId): void {
    const other = this.leaders.get(term);
    if (other !== undefined && other !== id) this.problems.push(`two leaders in term ${term}: ${other} and ${id}`);
    this.leaders.set(term, id);
  }

  vote(node: NodeId, term: number, to: NodeId): void {
    const key = `${node}:${term}`;
    const other = this.votes.get(key);
    if (other !== undefined && other !== to) this.problems.push(`node ${node} voted for ${other} and ${to} in term ${term}`);
    this.votes.set(key, to);
  }

  lease(node: NodeId, startCount: number, end: number): void {
    const key = `${node}:${startCount}`;
    if (end <= (this.leases.get(key) ?? 0)) return;
    this.leases.set(key, end);
    const over = this.over.get(key);
    if (over !== undefined && end > over) this.problems.push(`${key} was over at ${over}, has a lease until ${end}`);
  }

  view(at: number, index: number, view: View, previous: View, command: Command | null): void {
    const text = JSON.stringify(view);
    const known = this.views.get(index);
    if (known !== undefined) {
      if (known !== text) this.problems.push(`two views at index ${index}:\n${known}\n${text}`);
      return;
    }
    if (command === null) return;
    this.views.set(index, text);
    this.history.push({ at, index, command, view });
    if (view.epoch < previous.epoch) this.problems.push(`epoch fell at index ${index}`);
    if (command.c !== 'fenced' && command.c !== 'join') return;
    const old = previous.nodes.find((n) => n.id === command.node);
    if (old === undefined || old.incarnation === null || !['in', 'suspect', 'fencing'].includes(old.state)) return;
    const key = `${old.id}:${old.incarnation.startCount}`;
    this.over.set(key, at);
    const end = this.leases.get(key) ?? 0;
    if (end > at) this.problems.push(`${command.c} of ${key} at ${at}, its lease runs until ${end}`);
  }

  commands(kind: Command['c'], node?: NodeId): { at: number; view: View }[] {
    return this.history.filter(
      (h) => h.command?.c === kind && (node === undefined || ('node' in h.command && h.command.node === node)),
    );
  }
}
