/**
 * Replication: how entries get from the leader's log into everybody's, and when they count.
 *
 * The problem: a few small entries an hour, but none may be lost, reordered or counted before it is on a majority's disks.
 * The idea: per peer one append under way at a time, whatever has gathered meanwhile goes in the next one; a lost one is
 * repeated at a heartbeat. Voters count towards commitment, learners only receive. An entry is applied when it is committed
 * *and* on our own disk (an epoch is synced before it counts).
 * Terms, roles and elections are raft.ts; what an entry means is the host's.
 */
import { invariant } from '../protocol/errors.js';
import type { Millis, NodeId } from '../protocol/ids.js';
import type { ControlMessage, LogEntry } from '../protocol/peer-messages.js';
import { Compaction } from './compaction.js';
import type { Durable } from './durable.js';
import type { RaftLog } from './log.js';
import type { TimeLimits } from './time-limits.js';
import type { Command, Snapshot, View } from './types.js';
import { parseView } from './view-check.js';
import { LogTail, majority } from './voter-set.js';

type Append = Extract<ControlMessage, { k: 'RaftAppend' }>;
type AppendReply = Extract<ControlMessage, { k: 'RaftAppendReply' }>;
type SnapshotMessage = Extract<ControlMessage, { k: 'RaftSnapshot' }>;

/** Entries of one append; with the largest commands far below the frame limit. */
const BATCH_MAX = 500;

export interface ReplicationHost {
  send(to: NodeId, msg: ControlMessage): void;
  /** Applies a committed entry; gives the view after it. */
  apply(entry: LogEntry): View;
  /** The applied state is now this snapshot (with the view as checked and merged by `adopt`). */
  restore(snapshot: Snapshot): void;
  /** True when the peer is a living member, for which the log is kept. */
  isLive(node: NodeId): boolean;
  note(level: 'info' | 'warn' | 'error', event: string, data: Record<string, unknown>): void;
}

interface Progress {
  /** The journal that `match` is about: a node that comes with another one holds nothing of the log. */
  journal: string;
  match: number;
  next: number;
  /** An append is under way since `sentAt`; no other is sent until it is answered or a heartbeat finds it lost. */
  underWay: boolean;
  sentAt: Millis;
}

export class Replication {
  readonly log: RaftLog;
  /** What the log says as a whole, committed or not: whose word counts, and who gets it. */
  readonly tail: LogTail;
  readonly durable: Durable;
  commit: number;
  applied: number;
  private readonly self: NodeId;
  private readonly journalId: string;
  private readonly limits: TimeLimits;
  private readonly host: ReplicationHost;
  private readonly compaction: Compaction;
  /** Index of our first entry as leader. */
  private leadFrom = 1;
  private readonly progress = new Map<NodeId, Progress>();
  /** Last index known to equal the log of this term's leader. */
  private verified = 0;
  /** A snapshot that is on its way to our disk. */
  private restoring: Snapshot | null = null;

  constructor(
    options: { self: NodeId; journalId: string; limits: TimeLimits; logKeep: number },
    log: RaftLog,
    durable: Durable,
    host: ReplicationHost,
  ) {
    this.self = options.self;
    this.journalId = options.journalId;
    this.limits = options.limits;
    this.compaction = new Compaction(options.logKeep);
    this.log = log;
    this.tail = new LogTail(options.self, log);
    this.durable = durable;
    this.host = host;
    this.commit = log.base.index;
    this.applied = log.base.index;
  }

  /** What this node may claim to hold, durably, of the present leader's log. */
  get match(): number {
    return Math.min(this.verified, this.durable.stable);
  }

  /** A new term: nothing is known yet of how our log relates to its leader's. */
  newTerm(): void {
    this.verified = 0;
  }

  // --- The leader's side -------------------------------------------------------------------------------------------

  lead(): void {
    this.leadFrom = this.log.lastIndex + 1;
    this.progress.clear();
    for (const peer of this.tail.peers) this.progressOf(peer);
  }

  append(term: number, cmd: Command): LogEntry {
    const entry: LogEntry = { index: this.log.lastIndex + 1, term, cmd };
    this.log.append(entry);
    this.tail.appended(entry);
    this.durable.entries([entry]);
    return entry;
  }

  /** Sends what each peer lacks, unless an append to it is under way. */
  sendAll(now: Millis, term: number): void {
    for (const peer of this.tail.peers) this.sendTo(now, term, peer);
  }

  /** Commit index as `peer` may know it: what it has not is not named. */
  commitFor(peer: NodeId): number {
    return Math.min(this.commit, this.progress.get(peer)?.match ?? 0);
  }

  /** What a node durably holds of our log, as far as we know. */
  matchOf(node: NodeId): number {
    return node === this.self ? this.durable.stable : (this.progress.get(node)?.match ?? 0);
  }

  onReply(now: Millis, term: number, from: NodeId, msg: AppendReply): void {
    const p = this.progressOf(from);
    if (p === undefined || msg.match > this.log.lastIndex) return;
    p.underWay = false;
    if (msg.success) {
      p.match = Math.max(p.match, msg.match);
      p.next = Math.max(p.next, p.match + 1);
    } else {
      // Go back to what the peer hints at, never before what it has confirmed. A refusal that moves nothing (a stale one, or a
      // log of another cluster) is not answered at once: the next heartbeat tries again.
      const next = Math.max(p.match + 1, Math.min(msg.match + 1, p.next - 1));
      if (next === p.next) {
        p.underWay = true;
        p.sentAt = now;
      }
      p.next = next;
    }
    this.sendTo(now, term, from);
  }

  /** The match index of a heartbeat's acknowledgement: finds lost appends and lost replies. */
  onMatch(now: Millis, term: number, from: NodeId, match: number): void {
    const p = this.progressOf(from);
    if (p === undefined || match > this.log.lastIndex) return;
    if (match > p.match) {
      p.match = match;
      p.next = Math.max(p.next, match + 1);
    }
    if (p.underWay && now - p.sentAt >= 2 * this.limits.heartbeatMs) {
      p.underWay = false;
      p.next = p.match + 1;
    }
    if (!p.underWay && p.match < this.log.lastIndex) {
      p.next = Math.min(p.next, this.log.lastIndex);
      this.sendTo(now, term, from);
    }
  }

  /** Counts; only an entry of the leader's own term commits, and all before it with it. True when the commit index moved. */
  advance(now: Millis, term: number): boolean {
    const { voters } = this.tail;
    const matches = voters.map((v) => this.matchOf(v)).sort((a, b) => b - a);
    const index = matches[majority(voters) - 1] ?? 0;
    if (index <= this.commit || this.log.termAt(index) !== term) return false;
    this.commit = index;
    for (const peer of this.tail.peers) this.tellCommit(now, term, peer);
    return true;
  }

  /** Of any node in the table: nodes come into it while we lead, and their first append finds out what they have. */
  private progressOf(peer: NodeId): Progress | undefined {
    const p = this.progress.get(peer);
    const node = this.tail.view.nodes.find((n) => n.id === peer);
    if (node === undefined) return undefined;
    if (p !== undefined && (p.journal === node.journal || p.journal === '')) {
      p.journal = node.journal;
      return p;
    }
    const fresh = { journal: node.journal, match: 0, next: this.leadFrom, sentAt: 0, underWay: false };
    this.progress.set(peer, fresh);
    return fresh;
  }

  private sendTo(now: Millis, term: number, to: NodeId): void {
    const p = this.progressOf(to);
    if (p === undefined || p.underWay || p.next > this.log.lastIndex) return;
    p.underWay = true;
    p.sentAt = now;
    const base = this.log.base;
    if (p.next <= base.index) {
      p.next = base.index + 1;
      this.host.send(to, { k: 'RaftSnapshot', term, index: base.index, lastTerm: base.term, state: base.view });
      return;
    }
    const prevIndex = p.next - 1;
    const entries = this.log.slice(p.next, BATCH_MAX);
    this.host.send(to, { k: 'RaftAppend', term, prevIndex, prevTerm: this.log.termAt(prevIndex), commit: this.commit, entries });
  }

  private tellCommit(now: Millis, term: number, to: NodeId): void {
    const p = this.progress.get(to);
    if (p === undefined) return;
    if (!p.underWay && p.next <= this.log.lastIndex) {
      this.sendTo(now, term, to);
    } else if (p.match > this.log.base.index) {
      const prevTerm = this.log.termAt(p.match);
      this.host.send(to, { k: 'RaftAppend', term, prevIndex: p.match, prevTerm, commit: this.commit, entries: [] });
    }
  }

  // --- The follower's side -----------------------------------------------------------------------------------------

  onAppend(term: number, from: NodeId, msg: Append): void {
    const { journalId: journal } = this;
    const reply = (success: boolean, match: number): void =>
      this.durable.after(() => this.host.send(from, { k: 'RaftAppendReply', term, success, match, journal }));
    if (msg.prevIndex < this.commit) {
      // What is committed is in every later leader's log.
      this.verified = Math.max(this.verified, this.commit);
      return reply(true, this.commit);
    }
    if (this.log.termAt(msg.prevIndex) !== msg.prevTerm) {
      if (msg.prevIndex === this.commit)
        this.host.note('error', 'log-diverged', { from, index: msg.prevIndex, commit: this.commit });
      return reply(false, Math.max(this.commit, this.log.conflictHint(msg.prevIndex - 1, msg.prevTerm)));
    }
    if (!isChain(msg, term)) {
      this.host.note('error', 'append-malformed', { from, prevIndex: msg.prevIndex, entries: msg.entries.length });
      return;
    }
    const fresh = msg.entries.findIndex((e) => this.log.termAt(e.index) !== e.term);
    if (fresh >= 0) {
      const entries = msg.entries.slice(fresh);
      const first = msg.prevIndex + 1 + fresh;
      if (first <= this.log.lastIndex) {
        if (first <= this.commit) {
          this.host.note('error', 'log-diverged', { from, index: first, commit: this.commit });
          return;
        }
        this.log.truncateFrom(first);
        this.durable.truncateFrom(first);
        this.tail.truncated(this.log);
      }
      for (const entry of entries) {
        this.log.append(entry);
        this.tail.appended(entry);
      }
      this.durable.entries(entries);
    }
    const match = msg.prevIndex + msg.entries.length;
    this.verified = Math.max(this.verified, match);
    reply(true, match);
    this.commitUpTo(Math.min(msg.commit, match));
  }

  onSnapshot(term: number, from: NodeId, msg: SnapshotMessage): void {
    const { journalId: journal } = this;
    const reply = (match: number): void =>
      this.durable.after(() => this.host.send(from, { k: 'RaftAppendReply', term, success: true, match, journal }));
    if (msg.index <= this.commit) {
      this.verified = Math.max(this.verified, this.commit);
      return reply(this.commit);
    }
    if (this.log.termAt(msg.index) === msg.lastTerm) {
      this.verified = Math.max(this.verified, msg.index);
      reply(msg.index);
      this.commitUpTo(msg.index);
      return;
    }
    const view = parseView(msg.state);
    if (view === null) {
      this.host.note('error', 'snapshot-malformed', { from, index: msg.index });
      return;
    }
    const snapshot: Snapshot = { index: msg.index, term: msg.lastTerm, view };
    this.durable.installed(snapshot, this.commit);
    this.log.reset(snapshot);
    this.tail.reset(snapshot);
    this.compaction.clear();
    this.commit = snapshot.index;
    this.verified = snapshot.index;
    this.restoring = snapshot;
    this.durable.after(() => {
      if (this.restoring !== snapshot) return;
      this.restoring = null;
      this.applied = snapshot.index;
      this.host.restore(snapshot);
    });
    reply(snapshot.index);
  }

  /**
   * A heartbeat names at most what this node has acknowledged, durably, in this term: that much of its log equals the leader's,
   * even when a restart made it forget so.
   */
  onHeartbeat(commit: number): void {
    this.verified = Math.max(this.verified, Math.min(commit, this.log.lastIndex));
    this.commitUpTo(commit);
  }

  /** Only up to what is known to equal the leader's log. */
  private commitUpTo(index: number): void {
    this.commit = Math.max(this.commit, Math.min(index, this.verified));
  }

  // --- Both --------------------------------------------------------------------------------------------------------

  /** Applies what is committed and on our disk, then cuts the log if it has grown. */
  applyCommitted(leading: boolean): void {
    if (this.restoring !== null) return;
    const to = Math.min(this.commit, this.durable.stable);
    if (this.applied >= to) return;
    while (this.applied < to) {
      const entry = this.log.entry(this.applied + 1);
      invariant(entry !== undefined, `committed log entry ${this.applied + 1} is missing`);
      this.applied = entry.index;
      const view = this.host.apply(entry);
      this.tail.applied(entry.index, view);
      this.compaction.applied(entry, view);
    }
    const needed = leading ? this.neededIndex() : Number.POSITIVE_INFINITY;
    const snapshot = this.compaction.cut(this.log.base.index, this.applied, needed);
    if (snapshot === null) return;
    this.log.compact(snapshot);
    this.durable.compacted(snapshot);
  }

  private neededIndex(): number {
    let needed = Number.POSITIVE_INFINITY;
    for (const [peer, p] of this.progress) if (this.host.isLive(peer)) needed = Math.min(needed, p.match);
    return needed;
  }
}

/** Indexes follow each other, terms never fall and none is above the sender's. */
function isChain(msg: Append, term: number): boolean {
  let index = msg.prevIndex;
  let last = msg.prevTerm;
  for (const entry of msg.entries) {
    if (entry.index !== index + 1 || entry.term < last || entry.term > term) return false;
    index = entry.index;
    last = entry.term;
  }
  return true;
}
