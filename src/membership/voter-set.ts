/**
 * Who votes, now: the one place that says so.
 *
 * The problem: the voter set is itself changed through the log, and must be in force at a node from the moment the entry stands
 * in its log, committed or not (Raft, section 4): otherwise two halves could both count a majority. An entry that is truncated must
 * put the old set back. The idea: every node keeps, beside the applied view, the view *after all entries of its log* (the tail), as
 * if all were committed; voters are whoever votes in the tail. Each change moves one vote only, so majorities of neighbouring
 * sets meet in one node; when the next change may follow is voter-change.ts.
 *
 * Whatever command changes the flag `voter` of a node record changes the set: no part of consensus looks anywhere else. A command
 * that makes a node the sole voter, appended by that node without a quorum, is thereby in force there at once as well.
 *
 * One change is in force only when it is applied: from two voters to one by an ordinary command. In force at once, the one that stays could
 * commit it, and all that follows, without the other's disk; and the other, which believes in two voters, might end it by device and
 * go on alone from an older log (rule 13). So until then both must have it: what two voters agreed on, both know.
 */
import type { NodeId } from '../protocol/ids.js';
import type { LogEntry } from '../protocol/peer-messages.js';
import { parseCommand } from './commands.js';
import type { RaftLog } from './log.js';
import { isForced } from './sole-voter.js';
import type { Snapshot, View } from './types.js';
import { applyCommand } from './view.js';

/** Nodes that vote by this view, sorted. */
export function votersOf(view: View): NodeId[] {
  return view.nodes.filter((n) => n.voter).map((n) => n.id);
}

/** The least number of voters that is more than half of them. */
export function majority(voters: readonly NodeId[]): number {
  return (voters.length >> 1) + 1;
}

/** A view at a log index, with the entry that made its voter set. */
interface Point {
  index: number;
  view: View;
  voters: readonly NodeId[];
  /** Index of the last entry that changed the voters; 0 when no entry at hand did. */
  votersAt: number;
  /** The set before that entry. */
  former: readonly NodeId[];
  /** Index of the last entry by which a node made itself the only voter; 0 when none at hand did. */
  forcedAt: number;
}

/** The view after all entries of the log. */
export class LogTail {
  private readonly self: NodeId;
  /** A point that can not be truncated any more: the last applied entry or the snapshot. */
  private anchor: Point;
  private tail: Point;
  private others: readonly NodeId[] = [];
  private counted: readonly NodeId[] = [];

  constructor(self: NodeId, log: RaftLog) {
    this.self = self;
    this.anchor = this.tail = {
      index: log.base.index,
      view: log.base.view,
      voters: votersOf(log.base.view),
      votersAt: 0,
      former: [],
      forcedAt: 0,
    };
    this.fold(log);
  }

  get view(): View {
    return this.tail.view;
  }

  /** Whose word counts, sorted. */
  get voters(): readonly NodeId[] {
    return this.counted;
  }

  /** Who votes by what is applied, sorted. */
  get appliedVoters(): readonly NodeId[] {
    return this.anchor.voters;
  }

  /** This node is one of them. */
  get isVoter(): boolean {
    return this.counted.includes(this.self);
  }

  /**
   * This node may have to lead: it votes, or it did and the entry that takes its vote is, for all it knows, on its disk alone. Then
   * the others can not win against its longer log, and it has to commit its own leaving (Raft, section 4.2.2).
   */
  get mayLead(): boolean {
    return this.isVoter || (this.tail.votersAt > this.anchor.index && this.anchor.voters.includes(this.self));
  }

  /** Index of the last entry that changed the voters; 0 when none did since the snapshot. */
  get votersAt(): number {
    return this.tail.votersAt;
  }

  /** We are the only voter, by an ordinary change that is applied, and a restart would not know that (sole-voter.ts). */
  get mustConfirm(): boolean {
    const { voters, votersAt, forcedAt } = this.anchor;
    return voters.length === 1 && voters[0] === this.self && votersAt > 0 && Math.max(forcedAt, this.tail.forcedAt) < votersAt;
  }

  /** All other nodes of the table, sorted. */
  get peers(): readonly NodeId[] {
    return this.others;
  }

  appended(entry: LogEntry): void {
    this.setTail(after(this.tail, entry));
  }

  /** Entries were removed: what they said is void. */
  truncated(log: RaftLog): void {
    this.fold(log);
  }

  /** The log begins anew with a snapshot. */
  reset(base: Snapshot): void {
    this.anchor = { index: base.index, view: base.view, voters: votersOf(base.view), votersAt: 0, former: [], forcedAt: 0 };
    this.setTail(this.anchor);
  }

  /** The entry at `index` is applied; `view` is what came of it. */
  applied(index: number, view: View): void {
    if (index === this.tail.index) {
      // The same by content; from now on also the same object.
      this.anchor = { ...this.tail, view };
      this.setTail(this.anchor);
      return;
    }
    const voters = view === this.anchor.view ? this.anchor.voters : votersOf(view);
    const isSame = sameVoters(voters, this.anchor.voters);
    const { votersAt, former, forcedAt } = this.anchor;
    const change = isSame ? { votersAt, former } : { votersAt: index, former: this.anchor.voters };
    this.anchor = { index, view, voters, ...change, forcedAt };
    this.count();
  }

  private fold(log: RaftLog): void {
    let point = this.anchor;
    for (let index = point.index + 1; index <= log.lastIndex; index++) {
      const entry = log.entry(index);
      if (entry !== undefined) point = after(point, entry);
    }
    this.setTail(point);
  }

  private setTail(point: Point): void {
    const { nodes } = point.view;
    if (nodes !== this.tail.view.nodes || this.others.length === 0) {
      this.others = nodes.filter((n) => n.id !== this.self).map((n) => n.id);
    }
    this.tail = point;
    this.count();
  }

  private count(): void {
    const { tail, anchor } = this;
    const isShrinking = tail.former.length === 2 && tail.voters.length === 1 && tail.votersAt > anchor.index;
    this.counted = isShrinking && tail.forcedAt < tail.votersAt ? tail.former : tail.voters;
  }
}

function after(point: Point, entry: LogEntry): Point {
  const command = parseCommand(entry.cmd);
  const view = command === null ? point.view : applyCommand(point.view, command);
  const forcedAt = isForced(command) ? entry.index : point.forcedAt;
  if (view.nodes === point.view.nodes) return { ...point, index: entry.index, view, forcedAt };
  const voters = votersOf(view);
  return sameVoters(voters, point.voters)
    ? { ...point, index: entry.index, view, forcedAt }
    : { index: entry.index, view, voters, votersAt: entry.index, former: point.voters, forcedAt };
}

export function sameVoters(a: readonly NodeId[], b: readonly NodeId[]): boolean {
  return a.length === b.length && a.every((id, i) => id === b[i]);
}
