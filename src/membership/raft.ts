/**
 * Raft roles: who leads, in which term, and who says so.
 *
 * The problem: the log needs one writer at a time, although nodes are cut off, paused, restarted and come back with opinions.
 * The idea is Raft with pre-vote (a node that was cut off does not disturb), check-quorum (a leader that has not heard from a
 * majority for an election time-out stops leading) and the refusal to vote while a leader is heard.
 * The term of a message is judged once, at the top of `step`; roles change only in the becomeX functions; a vote leaves only
 * after it is on disk. Heartbeats carry the lease protocol of lease.ts; moving entries is raft-replication.ts.
 */
import type { Millis, NodeId } from '../protocol/ids.js';
import { NODE_NONE } from '../protocol/ids.js';
import type { ControlMessage } from '../protocol/peer-messages.js';
import { Durable } from './durable.js';
import type { LimitsInForce } from './limits-in-force.js';
import { RaftLog } from './log.js';
import { Replication, type ReplicationHost } from './raft-replication.js';
import { Random } from './random.js';
import { LOST_HISTORY_EPOCHS } from './sole-voter.js';
import type { Command, PersistBatch, PersistedState, Snapshot } from './types.js';
import { majority } from './voter-set.js';

type Vote = Extract<ControlMessage, { k: 'RaftVote' }>;
type VoteReply = Extract<ControlMessage, { k: 'RaftVoteReply' }>;

export interface RaftHost extends ReplicationHost {
  persist(batch: PersistBatch): void;
  /** See MembershipOutput. */
  distrusted(why: string): void;
  /**
   * This node's journal is in use (bootstrap.ts), so its votes can be relied on. Whether they count is for the candidate to say,
   * whose log may be ahead of ours: a node votes also where its own log does not (yet) call it a voter.
   */
  mayVote(): boolean;
  /** This node knows the voters from the bootstrap or the log, not only from its configuration. */
  mayLead(): boolean;
  /** How long ago this node last acknowledged a leader's heartbeat (rule 24). */
  ackAgeMs(now: Millis): Millis;
  /** Leading from now on. `safeAt`: until then a lease of an earlier leader may run somewhere (rule 24). */
  becameLeader(now: Millis, safeAt: Millis): void;
  steppedDown(now: Millis): void;
}

export interface RaftOptions {
  self: NodeId;
  limits: LimitsInForce;
  /** Id of this node's journal, in which its promises stand. */
  journalId: string;
  persisted: Pick<PersistedState, 'term' | 'vote' | 'entries'>;
  base: Snapshot;
  seed: number;
  now: Millis;
  logKeep: number;
}

export type Role = 'follower' | 'precandidate' | 'candidate' | 'leader';

export class Raft {
  term: number;
  role: Role = 'follower';
  leader: NodeId = NODE_NONE;
  readonly durable: Durable;
  readonly replication: Replication;
  private vote: NodeId;
  private readonly self: NodeId;
  private readonly limits: LimitsInForce;
  private readonly journalId: string;
  private readonly host: RaftHost;
  private readonly random: Random;
  private electionAt: Millis;
  /** Time of the call under way, for what runs when the disk has answered. */
  private now: Millis;
  /** When the leader was heard last. */
  private leaderHeardAt: Millis = Number.NEGATIVE_INFINITY;
  /** Who granted the (pre-)vote under way, and until when earlier leases may run by their word. */
  private readonly granted = new Map<NodeId, Millis>();
  /** Leader: when each voter was heard last, and when the last heartbeat left. */
  private readonly heard = new Map<NodeId, Millis>();
  private beatAt: Millis = 0;
  /** Index of the first entry of our own term as leader; once it is applied the leader knows all that was committed. */
  private firstOwn = 0;

  constructor(options: RaftOptions, host: RaftHost) {
    this.self = options.self;
    this.limits = options.limits;
    this.journalId = options.journalId;
    this.host = host;
    this.term = options.persisted.term;
    this.vote = options.persisted.vote;
    this.random = new Random(options.seed);
    const log = new RaftLog(options.base, options.persisted.entries);
    this.durable = new Durable(log.lastIndex, (batch) => host.persist(batch));
    const { self, logKeep } = options;
    this.replication = new Replication(
      { self, logKeep, journalId: options.journalId, limits: options.limits },
      log,
      this.durable,
      host,
    );
    this.electionAt = 0;
    this.now = options.now;
    this.resetElection(options.now);
    // A voter without others has nobody to wait for.
    if (this.voters.length === 1 && this.isVoter) this.electionAt = options.now;
  }

  /** Whose votes and disks count, by all that stands in our log (voter-set.ts). */
  get voters(): readonly NodeId[] {
    return this.replication.tail.voters;
  }

  get isVoter(): boolean {
    return this.replication.tail.isVoter;
  }

  get isLeader(): boolean {
    return this.role === 'leader';
  }

  /** A leader that has applied an entry of its own term: it knows everything that was ever committed. */
  get isReady(): boolean {
    return this.role === 'leader' && this.replication.applied >= this.firstOwn;
  }

  tick(now: Millis): void {
    this.now = now;
    if (this.role === 'leader') {
      if (!this.hearsQuorum(now)) {
        this.host.note('warn', 'quorum-lost', { term: this.term });
        this.becomeFollower(now, this.term, NODE_NONE);
      } else if (now - this.beatAt >= this.limits.heartbeatMs) {
        this.beat(now);
      }
    } else if (now >= this.electionAt && this.replication.tail.mayLead && this.host.mayLead()) {
      this.becomePrecandidate(now);
    }
  }

  /**
   * Takes any message that carries a term. True: the message is of our term and from whom it may come; what is not Raft's
   * own (Heartbeat, HeartbeatAck, Lease) is then the caller's to handle.
   */
  step(now: Millis, from: NodeId, msg: Extract<ControlMessage, { term: number }>): boolean {
    this.now = now;
    if ('journal' in msg && !this.isKnownJournal(from, msg.journal)) return false;
    if (!this.judgeTerm(now, from, msg)) return false;
    if (this.role === 'leader') this.heard.set(from, now);
    switch (msg.k) {
      case 'RaftVote':
        this.onVote(now, from, msg);
        break;
      case 'RaftVoteReply':
        this.onVoteReply(now, from, msg);
        break;
      case 'RaftAppend':
        if (!this.heardLeader(now, from)) return false;
        this.replication.onAppend(this.term, from, msg);
        this.replication.applyCommitted(false);
        break;
      case 'RaftSnapshot':
        if (!this.heardLeader(now, from)) return false;
        this.replication.onSnapshot(this.term, from, msg);
        this.replication.applyCommitted(false);
        break;
      case 'Heartbeat':
        if (!this.heardLeader(now, from)) return false;
        if (this.hasForgotten(msg.commit)) return false;
        this.replication.onHeartbeat(msg.commit);
        this.replication.applyCommitted(false);
        break;
      case 'RaftAppendReply':
        if (this.role !== 'leader') return false;
        this.replication.onReply(now, this.term, from, msg);
        this.advance(now);
        break;
      case 'HeartbeatAck':
        if (this.role !== 'leader') return false;
        this.replication.onMatch(now, this.term, from, msg.match);
        this.advance(now);
        break;
      case 'Lease':
        return from === this.leader;
    }
    return true;
  }

  /** Something became durable. */
  persisted(now: Millis, ticket: number): void {
    this.now = now;
    this.durable.persisted(ticket);
    this.advance(now);
    this.replication.applyCommitted(this.isLeader);
    this.leaveIfRemoved(now);
  }

  /** Leader: appends and sends. */
  append(now: Millis, command: Command): void {
    this.replication.append(this.term, command);
    this.replication.sendAll(now, this.term);
  }

  /** Leader: leaves the lead to others and does not run against them for `ms`. */
  yieldLead(now: Millis, ms: Millis): void {
    this.becomeFollower(now, this.term, NODE_NONE);
    this.electionAt = now + ms;
  }

  /**
   * Leads without asking anybody, by an entry that makes this node the only voter (rule 13); whoever calls has made sure that it may.
   * Term, vote and entry are one write. Should another term come in between, the entry stands all the same, and an election
   * among one follows. `lostHistory`: leases may have been given until now, in terms that we never heard of.
   */
  seize(now: Millis, command: Command, lostHistory: boolean): void {
    this.now = now;
    this.becomeFollower(now, this.term + (lostHistory ? LOST_HISTORY_EPOCHS : 1), this.self);
    this.leader = NODE_NONE;
    this.replication.append(this.term, command);
    const { term } = this;
    const safeAt = now - (lostHistory ? 0 : this.host.ackAgeMs(now)) + this.limits.waitMs;
    this.durable.after(() => {
      if (this.term !== term || this.role !== 'follower' || this.leader !== NODE_NONE) return;
      this.granted.clear();
      this.granted.set(this.self, safeAt);
      if (this.hasMajority()) this.becomeLeader(this.now);
    });
  }

  /** The leader of this term was heard, or is ourselves, and an entry of it is applied: what our view says of votes holds now. */
  get knowsTerm(): boolean {
    const { applied, log } = this.replication;
    return this.leader !== NODE_NONE && log.termAt(applied) === this.term;
  }

  // --- The term, once --------------------------------------------------------------------------------------------------

  private judgeTerm(now: Millis, from: NodeId, msg: Extract<ControlMessage, { term: number }>): boolean {
    // Whether the sender votes is not asked: its log may be ahead of ours in that. Who counts is decided where it is counted.
    const leads = msg.k === 'RaftAppend' || msg.k === 'RaftSnapshot' || msg.k === 'Heartbeat';
    if (msg.term > this.term) {
      if (msg.k === 'RaftVote') {
        if (this.hasLiveLeader(now)) return false;
        if (msg.pre) return true;
      }
      if (msg.k === 'RaftVoteReply' && msg.pre && msg.granted) return true;
      this.becomeFollower(now, msg.term, leads ? from : NODE_NONE);
      return true;
    }
    if (msg.term === this.term) return true;
    // An old leader, or a candidate that was away, learns of the newer term and gives up.
    if (leads) this.durable.afterHard(() => this.sendTerm(from));
    else if (msg.k === 'RaftVote' && msg.pre) {
      this.host.send(from, this.voteReply(this.term, true, false, 0));
    }
    return false;
  }

  private sendTerm(to: NodeId): void {
    this.host.send(to, { k: 'RaftAppendReply', term: this.term, success: false, match: 0, journal: this.journalId });
  }

  /** A node that lost its journal has forgotten what it promised: it counts for nothing until the log knows the new one. */
  private isKnownJournal(node: NodeId, journal: string): boolean {
    const known = this.replication.tail.view.nodes.find((n) => n.id === node)?.journal ?? '';
    return known === '' || known === journal;
  }

  private hasLiveLeader(now: Millis): boolean {
    if (this.role === 'leader') return true;
    return this.leader !== NODE_NONE && now - this.leaderHeardAt < this.limits.electionMs;
  }

  /** A message of our term from its leader. False when we lead that term ourselves: then the sender is no leader of ours. */
  private heardLeader(now: Millis, from: NodeId): boolean {
    if (this.role === 'leader') {
      this.host.note('error', 'two-leaders', { term: this.term, other: from });
      return false;
    }
    if (this.role !== 'follower' || this.leader !== from) this.becomeFollower(now, this.term, from);
    this.leaderHeardAt = now;
    this.resetElection(now);
    return true;
  }

  // --- Elections ---------------------------------------------------------------------------------------------------------

  private onVote(now: Millis, from: NodeId, msg: Vote): void {
    if (!this.host.mayVote()) return;
    const free =
      this.vote === from || (this.vote === NODE_NONE && this.leader === NODE_NONE) || (msg.pre && msg.term > this.term);
    const granted = free && !(msg.pre && this.hasLiveLeader(now)) && this.replication.log.isUpToDate(msg.lastIndex, msg.lastTerm);
    if (msg.pre) {
      const term = granted ? msg.term : this.term;
      this.host.send(from, this.voteReply(term, true, granted, 0));
      return;
    }
    if (granted && this.vote !== from) {
      this.vote = from;
      this.durable.hard(this.term, from);
    }
    if (granted) this.resetElection(now);
    // The age is taken now, not when the disk has answered: an acknowledgement in between there is none, we have left that term.
    const reply = this.voteReply(this.term, false, granted, this.host.ackAgeMs(now));
    this.durable.afterHard(() => this.host.send(from, reply));
  }

  private voteReply(term: number, pre: boolean, granted: boolean, ackAgeMs: Millis): VoteReply {
    return { k: 'RaftVoteReply', term, pre, granted, ackAgeMs, journal: this.journalId };
  }

  private onVoteReply(now: Millis, from: NodeId, msg: VoteReply): void {
    if (!msg.granted) return;
    if (this.role === 'precandidate' && msg.pre && msg.term === this.term + 1) {
      this.granted.set(from, 0);
      if (this.hasMajority()) this.becomeCandidate(now);
    } else if (this.role === 'candidate' && !msg.pre && msg.term === this.term) {
      this.granted.set(from, now - Math.max(0, msg.ackAgeMs) + this.limits.waitMs);
      if (this.hasMajority()) this.becomeLeader(now);
    }
  }

  private hasMajority(): boolean {
    return this.voters.filter((v) => this.granted.has(v)).length >= majority(this.voters);
  }

  private hearsQuorum(now: Millis): boolean {
    let count = 0;
    for (const voter of this.voters) {
      if (voter === this.self || now - (this.heard.get(voter) ?? Number.NEGATIVE_INFINITY) <= this.limits.electionMs) count++;
    }
    return count >= majority(this.voters);
  }

  private resetElection(now: Millis): void {
    this.electionAt = now + this.limits.electionMs * (1 + this.random.next());
  }

  // --- Roles -------------------------------------------------------------------------------------------------------------

  /**
   * A heartbeat names at most what this node has acknowledged, synced. A log that ends before it is an older copy of the journal.
   * A blank one may be a new journal of a node that was admitted again.
   */
  private hasForgotten(commit: number): boolean {
    const { lastIndex } = this.replication.log;
    if (commit <= lastIndex || lastIndex === 0) return false;
    this.host.distrusted(
      `this node has acknowledged the log up to entry ${commit}, and its journal ends at entry ${lastIndex}: an older copy of it was put back`,
    );
    return true;
  }

  private becomeFollower(now: Millis, term: number, leader: NodeId): void {
    const led = this.role === 'leader';
    if (term > this.term) {
      this.term = term;
      // Who heard of the term from its leader votes for nobody else in it, even if it forgets having heard.
      this.vote = leader;
      this.durable.hard(term, leader);
      this.replication.newTerm();
    }
    this.role = 'follower';
    this.leader = leader;
    this.granted.clear();
    this.resetElection(now);
    if (led) this.host.steppedDown(now);
  }

  private becomePrecandidate(now: Millis): void {
    this.role = 'precandidate';
    this.leader = NODE_NONE;
    this.resetElection(now);
    this.granted.clear();
    this.granted.set(this.self, 0);
    if (this.hasMajority()) this.becomeCandidate(now);
    else this.askVotes(this.term + 1, true);
  }

  private becomeCandidate(now: Millis): void {
    this.role = 'candidate';
    this.term++;
    this.vote = this.self;
    this.leader = NODE_NONE;
    this.resetElection(now);
    this.granted.clear();
    this.replication.newTerm();
    this.durable.hard(this.term, this.self);
    const term = this.term;
    // Our own vote is a vote like any other: it counts, and others are asked, once it cannot be forgotten.
    const safeAt = now - this.host.ackAgeMs(now) + this.limits.waitMs;
    this.durable.after(() => {
      if (this.role !== 'candidate' || this.term !== term) return;
      this.granted.set(this.self, safeAt);
      if (this.hasMajority()) this.becomeLeader(this.now);
      else this.askVotes(term, false);
    });
  }

  private becomeLeader(now: Millis): void {
    this.role = 'leader';
    this.leader = this.self;
    let safeAt = Number.NEGATIVE_INFINITY;
    for (const voter of this.voters) safeAt = Math.max(safeAt, this.granted.get(voter) ?? Number.NEGATIVE_INFINITY);
    this.granted.clear();
    this.heard.clear();
    for (const voter of this.voters) this.heard.set(voter, now);
    this.replication.lead();
    this.host.note('info', 'leader', { term: this.term, lastIndex: this.replication.log.lastIndex });
    this.firstOwn = this.replication.append(this.term, { c: 'noop' }).index;
    this.host.becameLeader(now, safeAt);
    this.replication.sendAll(now, this.term);
    this.beat(now);
  }

  // --- The leader's work -------------------------------------------------------------------------------------------------

  private askVotes(term: number, pre: boolean): void {
    const { lastIndex, lastTerm } = this.replication.log;
    for (const voter of this.voters) {
      if (voter !== this.self) this.host.send(voter, { k: 'RaftVote', term, pre, lastIndex, lastTerm });
    }
  }

  private beat(now: Millis): void {
    this.beatAt = now;
    for (const peer of this.replication.tail.peers) {
      this.host.send(peer, { k: 'Heartbeat', term: this.term, commit: this.replication.commitFor(peer), sentAt: now });
    }
  }

  private advance(now: Millis): void {
    if (this.role !== 'leader' || !this.replication.advance(now, this.term)) return;
    this.replication.applyCommitted(true);
    this.leaveIfRemoved(now);
  }

  /** A leader whose own vote was taken leads until that is committed, without counting itself, and no longer. */
  private leaveIfRemoved(now: Millis): void {
    if (this.role !== 'leader' || this.isVoter || this.replication.applied < this.replication.tail.votersAt) return;
    this.host.note('info', 'vote-taken', { term: this.term });
    this.becomeFollower(now, this.term, NODE_NONE);
  }
}
