/**
 * When the log is cut, and where.
 *
 * The problem: the log must not grow for ever, but a snapshot needs the view as it was at the cut, while only the newest view
 * is at hand; and a member that gets a snapshot has missed views and must start over. The idea: views never change once made,
 * so every `keep` entries the then-current view is remembered (a reference, no copy); the cut is made at the newest remembered
 * one that is `keep` entries behind and that no living member still needs. One that lags hopelessly is not waited for.
 */
import type { LogEntry } from '../protocol/peer-messages.js';
import type { Snapshot, View } from './types.js';

export class Compaction {
  private marks: Snapshot[] = [];
  private readonly keep: number;

  /** `keep`: entries that stay behind the snapshot. */
  constructor(keep: number) {
    this.keep = Math.max(1, keep);
  }

  applied(entry: LogEntry, view: View): void {
    if (entry.index % this.keep === 0) this.marks.push({ index: entry.index, term: entry.term, view });
  }

  clear(): void {
    this.marks = [];
  }

  /**
   * The snapshot to cut at, or null. `first` = index of the present snapshot, `needed` = index up to which all living
   * members have the log (Infinity when not known or not leading).
   */
  cut(first: number, applied: number, needed: number): Snapshot | null {
    if (applied - first <= 2 * this.keep) return null;
    const lagging = applied - needed > 10 * this.keep;
    const limit = Math.min(applied - this.keep, lagging ? Number.POSITIVE_INFINITY : needed);
    let found: Snapshot | null = null;
    while (this.marks.length > 0 && (this.marks[0] as Snapshot).index <= limit) found = this.marks.shift() as Snapshot;
    return found !== null && found.index > first ? found : null;
  }
}
