/**
 * The replicated log as it stands in memory: a snapshot at its beginning and the gapless entries behind it.
 *
 * The problem: everything in consensus is arithmetic on indexes, and an off-by-one there is a lost vote. So the arithmetic is
 * here and nowhere else. What is durable and what may be sent is durable.ts; what the entries mean is view.ts.
 */
import { invariant } from '../protocol/errors.js';
import type { LogEntry } from '../protocol/peer-messages.js';
import type { Snapshot } from './types.js';

export class RaftLog {
  /** Everything up to base.index is contained in base.view. */
  base: Snapshot;
  private entries: LogEntry[];

  /** `entries` follow `base` without a gap; the array is copied, the entries are shared and never changed. */
  constructor(base: Snapshot, entries: readonly LogEntry[]) {
    this.base = base;
    this.entries = entries.slice();
    this.entries.forEach((entry, i) => {
      invariant(entry.index === base.index + 1 + i, `log entry ${entry.index} stands at place ${base.index + 1 + i}`);
    });
  }

  get lastIndex(): number {
    return this.base.index + this.entries.length;
  }

  get lastTerm(): number {
    const last = this.entries[this.entries.length - 1];
    return last === undefined ? this.base.term : last.term;
  }

  get length(): number {
    return this.entries.length;
  }

  /** Term of the entry at `index`, or -1 when it is behind the snapshot or past the end. */
  termAt(index: number): number {
    if (index === this.base.index) return this.base.term;
    return this.entry(index)?.term ?? -1;
  }

  entry(index: number): LogEntry | undefined {
    return this.entries[index - this.base.index - 1];
  }

  /** At most `max` entries from `from` on; `from` must be behind the snapshot. */
  slice(from: number, max: number): LogEntry[] {
    const start = from - this.base.index - 1;
    invariant(start >= 0, `log entries from ${from} are gone: the snapshot is at ${this.base.index}`);
    return this.entries.slice(start, start + max);
  }

  append(entry: LogEntry): void {
    invariant(entry.index === this.lastIndex + 1, `log entry ${entry.index} does not follow ${this.lastIndex}`);
    this.entries.push(entry);
  }

  /** Removes the entries from `index` on. */
  truncateFrom(index: number): void {
    invariant(index > this.base.index, `cannot cut the log at ${index}: the snapshot is at ${this.base.index}`);
    this.entries.length = Math.min(this.entries.length, index - this.base.index - 1);
  }

  /** Moves the beginning forward to a snapshot of our own; the entries behind it stay. */
  compact(snapshot: Snapshot): void {
    invariant(
      snapshot.index >= this.base.index && snapshot.index <= this.lastIndex,
      `snapshot ${snapshot.index} is out of range`,
    );
    this.entries = this.entries.slice(snapshot.index - this.base.index);
    this.base = snapshot;
  }

  /** Begins anew with a snapshot of the leader's. */
  reset(snapshot: Snapshot): void {
    this.entries = [];
    this.base = snapshot;
  }

  /** True when a log that ends with (index, term) holds everything this one may have committed (the Raft voting rule). */
  isUpToDate(index: number, term: number): boolean {
    return term > this.lastTerm || (term === this.lastTerm && index >= this.lastIndex);
  }

  /** After a refused append at (index, term): the last index of ours that can agree with the sender's log. */
  conflictHint(index: number, term: number): number {
    let i = Math.min(index, this.lastIndex);
    while (i > this.base.index && this.termAt(i) > term) i--;
    return i;
  }
}
