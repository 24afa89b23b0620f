/**
 * A set of a few node numbers. A Set of the language costs some hundred bytes before it holds anything, and there are two for
 * each mastery round and one for each resource that others know; these sets have as many entries as the domain has members.
 */
import type { NodeId } from '../protocol/ids.js';

export class NodeSet {
  private readonly list: NodeId[] = [];

  get size(): number {
    return this.list.length;
  }
  has(node: NodeId): boolean {
    return this.list.includes(node);
  }
  add(node: NodeId): void {
    if (!this.list.includes(node)) this.list.push(node);
  }
  delete(node: NodeId): boolean {
    const at = this.list.indexOf(node);
    if (at < 0) return false;
    this.list.splice(at, 1);
    return true;
  }
  clear(): void {
    this.list.length = 0;
  }
  /** In the order they were added; the set may be changed meanwhile. */
  [Symbol.iterator](): IterableIterator<NodeId> {
    return this.list.slice()[Symbol.iterator]();
  }
}
