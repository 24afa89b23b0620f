/**
 * Persist before send.
 *
 * The problem: a vote, a term or a log entry that was answered but not yet on disk when the machine died is a lie (S5, trap 8).
 * The idea: all that changes during one call into the core is collected into one batch with a ticket; whatever promises that
 * it is durable (a vote, an acknowledgement, the leader's own count of an entry) waits in a queue for that ticket.
 * The host writes batches in ticket order and answers each; how it writes is its own matter.
 */
import { invariant } from '../protocol/errors.js';
import type { NodeId } from '../protocol/ids.js';
import type { LogEntry } from '../protocol/peer-messages.js';
import type { PersistBatch, Snapshot } from './types.js';

interface Held {
  ticket: number;
  run: () => void;
}

export class Durable {
  /** Last index of the log that is on disk. */
  stable: number;
  private issued = 0;
  private done = 0;
  /** Ticket of the last change of term or vote. */
  private hardTicket = 0;
  private batch: Omit<PersistBatch, 'ticket'> | null = null;
  private held: Held[] = [];
  /** Batches under way that move `stable`. */
  private moving: { ticket: number; last: number }[] = [];
  private movesTo = -1;
  private readonly write: (batch: PersistBatch) => void;

  constructor(stable: number, write: (batch: PersistBatch) => void) {
    this.stable = stable;
    this.write = write;
  }

  hard(term: number, vote: NodeId): void {
    this.open().hard = { term, vote };
    this.hardTicket = this.issued + 1;
  }

  entries(entries: readonly LogEntry[]): void {
    const last = entries[entries.length - 1];
    if (last === undefined) return;
    const batch = this.open();
    batch.entries = batch.entries === undefined ? entries.slice() : batch.entries.concat(entries);
    this.movesTo = last.index;
  }

  truncateFrom(index: number): void {
    const batch = this.open();
    batch.truncateFrom = Math.min(batch.truncateFrom ?? index, index);
    if (batch.entries !== undefined) batch.entries = batch.entries.filter((e) => e.index < index);
    this.unpromise(index - 1);
  }

  /** Our own snapshot: the log is cut behind it. */
  compacted(snapshot: Snapshot): void {
    const batch = this.open();
    batch.snapshot = snapshot;
    if (batch.entries !== undefined) batch.entries = batch.entries.filter((e) => e.index > snapshot.index);
  }

  /** The leader's snapshot instead of all entries behind `keep`, our commit index. */
  installed(snapshot: Snapshot, keep: number): void {
    this.truncateFrom(keep + 1);
    const batch = this.open();
    batch.snapshot = snapshot;
    delete batch.entries;
    this.movesTo = snapshot.index;
  }

  boot(boot: { clusterId: string; known: Record<string, string> }): void {
    this.open().boot = boot;
  }

  /** Runs `action` once all that was changed so far is on disk; at once when it is. */
  after(action: () => void): void {
    this.wait(this.batch === null ? this.issued : this.issued + 1, action);
  }

  /** Runs `action` once term and vote are on disk; entries may still be under way. */
  afterHard(action: () => void): void {
    this.wait(this.hardTicket, action);
  }

  /** Hands the batch of this call to the host. */
  flush(): void {
    const batch = this.batch;
    if (batch === null) return;
    this.batch = null;
    const ticket = ++this.issued;
    if (this.movesTo >= 0) this.moving.push({ ticket, last: this.movesTo });
    this.movesTo = -1;
    this.write({ ticket, ...batch });
  }

  /** The host says: everything up to `ticket` is on disk. */
  persisted(ticket: number): void {
    invariant(ticket <= this.issued, `the journal confirmed ticket ${ticket}, only ${this.issued} were issued`);
    if (ticket <= this.done) return;
    this.done = ticket;
    while (this.moving.length > 0 && (this.moving[0] as { ticket: number }).ticket <= ticket) {
      this.stable = Math.max(this.stable, (this.moving.shift() as { last: number }).last);
    }
    while (this.held.length > 0 && (this.held[0] as Held).ticket <= ticket) (this.held.shift() as Held).run();
  }

  private open(): Omit<PersistBatch, 'ticket'> {
    this.batch ??= {};
    return this.batch;
  }

  private unpromise(last: number): void {
    this.stable = Math.min(this.stable, last);
    for (const move of this.moving) move.last = Math.min(move.last, last);
    if (this.movesTo > last) this.movesTo = -1;
  }

  private wait(ticket: number, action: () => void): void {
    if (ticket <= this.done) {
      action();
      return;
    }
    // Kept in ticket order; almost always the place is at the end.
    let at = this.held.length;
    while (at > 0 && (this.held[at - 1] as Held).ticket > ticket) at--;
    this.held.splice(at, 0, { ticket, run: action });
  }
}
