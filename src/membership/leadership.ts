/**
 * What a node does while it leads: it hears the others, grants leases, admits, and runs the gate.
 *
 * The problem: the leader acts on what is applied, but commands of its own that are in the log and not yet applied must not be
 * contradicted: no lease for an incarnation whose replacement is on its way, no command twice. The idea is a second view,
 * `ahead`: the state after all entries of the log (voter-set.ts). What may be said of a member must hold in both.
 * Who leads is raft.ts; times are lease.ts; fencing is gate.ts; admissions are joins.ts.
 */
import { ERROR_CODES } from '../protocol/errors.js';
import type { Incarnation, Millis, NodeId, StartCount } from '../protocol/ids.js';
import type { ControlMessage, LogEntry } from '../protocol/peer-messages.js';
import type { Bootstrap } from './bootstrap.js';
import { mayPropose, parseCommand } from './commands.js';
import { logText } from './fence-record.js';
import { Gate } from './gate.js';
import { judgeJoin } from './joins.js';
import { type AckMemory, LeaderLeases, type OwnLease } from './lease.js';
import { type LimitsInForce, limitValues } from './limits-in-force.js';
import type { Presence } from './presence.js';
import type { Raft } from './raft.js';
import { judgeTable, LimitsChange } from './table-change.js';
import { restartWaitMs } from './time-limits.js';
import type {
  Command,
  FenceVerdict,
  MasteryPolicy,
  MembershipOutput,
  NodeConfig,
  NodeView,
  TableCommand,
  View,
} from './types.js';
import { applyCommand, findNode, isLive, isLiveAs } from './view.js';
import { type TableVerdict, VoterChanges } from './voter-change.js';
import { sameVoters, votersOf } from './voter-set.js';

/** Commands that a leader takes before the first of them is committed. */
const PENDING_MAX = 5000;
const NOT_LEADING_TEXT = 'this node does not lead the cluster now: ask again';
const NOT_LEADING: FenceVerdict = { ok: false, text: NOT_LEADING_TEXT };

export interface LeadershipContext {
  self: NodeId;
  /** The nodes as configured, for a log that does not name them yet. */
  nodes: readonly NodeConfig[];
  limits: LimitsInForce;
  /** Of the domain `default`, in a new log. */
  mastery: MasteryPolicy;
  output: MembershipOutput;
  raft: Raft;
  bootstrap: Bootstrap;
  presence: Presence;
  own: OwnLease;
  acks: AckMemory;
  /** Owners on this very node may count on deadlines up to here, on our clock (see MembershipInit.toldUntil). */
  toldUntil: Millis;
  /** The applied view. */
  view(): View;
  /** Wall clock, ms since 1970, for records that people read; 0 = not known. */
  wall(): number;
  /** A number for a fence operation. */
  nextOp(): number;
  /** Our own request to join was refused by ourselves. */
  refused(code: number, text: string, startCount: StartCount): void;
}

export class Leadership {
  private readonly c: LeadershipContext;
  private readonly leases: LeaderLeases;
  private readonly gate: Gate;
  private readonly voterChanges = new VoterChanges();
  private readonly limitsChange = new LimitsChange();
  /** Time of the last tick as a leader. */
  private now: Millis = 0;
  /** When the deadline that a restarting node told its owners is over for certain, of nodes that the view shows with one. */
  private readonly restartOverAt = new Map<NodeId, Millis>();

  constructor(context: LeadershipContext) {
    this.c = context;
    const { self, limits, output, presence, raft } = context;
    this.leases = new LeaderLeases(self, () => raft.voters, limits);
    this.gate = new Gate({ self, hasOtherVoters: () => raft.voters.some((v) => v !== self), limits }, presence, {
      note: (level, event, data) => output.note(level, event, data),
      fence: (request) => output.fence(request),
      nextOp: () => context.nextOp(),
      propose: (command) => this.append(this.now, command),
      overAt: (node, startCount) => this.overAt(node, startCount),
      wall: () => context.wall(),
      yieldLead: () => this.c.raft.yieldLead(this.now, 4 * limits.electionMs),
    });
  }

  /** The view after all entries of the log. */
  private get ahead(): View {
    return this.c.raft.replication.tail.view;
  }

  begin(now: Millis, safeAt: Millis): void {
    this.now = now;
    this.leases.begin(now, safeAt);
    this.c.presence.begin(now);
    this.gate.reset();
    this.voterChanges.begin();
    this.restartOverAt.clear();
    // When it began our predecessor knew: from now on is never too short.
    this.noteRestarts(now);
    this.limitsChange.begin();
  }

  end(now: Millis): void {
    // A leader acknowledges its own heartbeats: its word on how old the last lease may be counts from here.
    this.c.acks.acknowledged(now);
    this.gate.reset();
    this.c.output.note('info', 'stepped-down', { term: this.c.raft.term });
  }

  tick(now: Millis): void {
    if (!this.c.raft.isReady) return;
    if (now - this.now > this.c.limits.suspectMs / 2) {
      this.c.presence.forgive(now);
      this.gate.forgive();
    }
    this.now = now;
    this.renewOwn(now);
    this.gate.tick(now, this.c.view());
    if (this.c.raft.replication.tail.mustConfirm) this.c.raft.append(now, { c: 'sole', node: this.c.self });
    this.tendTable(now);
  }

  /** Whoever acknowledges is heard; who is a member gets what is left of our own lease. */
  heard(now: Millis, from: NodeId, msg: Extract<ControlMessage, { k: 'HeartbeatAck' }>): void {
    const { startCount, down, limits, journal } = msg;
    this.c.presence.heard(now, from, { startCount, down, limits, journal });
    this.leases.acknowledged(now, from, msg.echo);
    if (!this.c.raft.isReady) return;
    this.renewOwn(now);
    if (!this.mayLease(from, msg.startCount)) return;
    const remainingMs = this.leases.grant(now, from, msg.startCount);
    if (remainingMs <= 0) return;
    const { term } = this.c.raft;
    this.c.output.send(from, { k: 'Lease', term, echo: msg.sentAt, remainingMs, startCount: msg.startCount });
  }

  /** A command from another node, or from our own composition. */
  proposed(now: Millis, from: NodeId, value: unknown): void {
    if (!this.c.raft.isLeader) return;
    const command = parseCommand(value);
    if (command === null || !mayPropose(from, command)) {
      const kind = String((value as { c?: unknown } | null)?.c).slice(0, 40);
      this.c.output.note('warn', 'proposal-refused', { from, command: kind });
      return;
    }
    if (command.c === 'nodeLeave' && !this.mayTakeVote(now, command)) return;
    if (command.c === 'join') this.considerJoin(now, from, command.inc, command.keeps);
    else this.append(now, command);
  }

  /** Of two voters one leaves and takes its vote along: as any change of the voters; it asks again. */
  private mayTakeVote(now: Millis, command: Extract<Command, { c: 'nodeLeave' }>): boolean {
    const { node } = command;
    const { voters } = this.c.raft.replication.tail;
    if (voters.length !== 2 || !voters.includes(node) || sameVoters(votersOf(applyCommand(this.ahead, command)), voters))
      return true;
    return this.judgeVoter(now, node, false).what === 'taken';
  }

  fenceDone(op: number, ok: boolean, detail: string): void {
    this.gate.fenceDone(op, ok, detail);
  }

  confirmFence(node: NodeId, startCount: StartCount, by: string): FenceVerdict {
    return this.c.raft.isReady ? this.gate.confirm(this.c.view(), node, startCount, by) : NOT_LEADING;
  }

  fenceNode(node: NodeId, startCount: StartCount, reason: string): FenceVerdict {
    return this.c.raft.isReady ? this.gate.fenceNow(this.c.view(), node, startCount, reason) : NOT_LEADING;
  }

  trustFence(node: NodeId, method: string, who: string): FenceVerdict {
    if (!this.c.raft.isReady) return NOT_LEADING;
    this.append(this.now, { c: 'trust', node, method, who: logText(who) });
    return { ok: true };
  }

  /** Gives a vote, takes it, ...: judged here, void if the table is another by then. */
  changeTable(now: Millis, wish: TableCommand): TableVerdict {
    const { raft, bootstrap } = this.c;
    // Which journal a node asks with, only its leader need know.
    const isOpen = wish.c === 'readmit' && wish.journal === '';
    const command = isOpen ? { ...wish, journal: bootstrap.askedWith(now, wish.node) } : wish;
    if (!raft.isReady) return { what: 'wait', why: NOT_LEADING_TEXT };
    const verdict = judgeTable(command, {
      ahead: this.ahead,
      askedWith: (node) => bootstrap.askedWith(now, node),
      judgeVoter: (node, on) => this.judgeVoter(now, node, on),
    });
    if (verdict.what === 'taken') this.append(now, command);
    return verdict;
  }

  private judgeVoter(now: Millis, node: NodeId, on: boolean): TableVerdict {
    const { raft, presence, limits } = this.c;
    const { tail, applied, log } = raft.replication;
    return this.voterChanges.judge(now, node, on, {
      isReady: raft.isReady,
      safeAt: this.leases.safeAt,
      waitMs: limits.waitMs,
      voters: tail.voters,
      votersAt: tail.votersAt,
      applied,
      lastIndex: log.lastIndex,
      matchOf: (id) => raft.replication.matchOf(id),
      isHeard: (id) => id === this.c.self || presence.isHeard(now, id),
    });
  }

  /** What the leader does by itself: a vote to who has caught up, and the end of a change of the time limits. */
  private tendTable(now: Millis): void {
    const { ahead } = this;
    const { self, presence, limits } = this.c;
    const view = this.c.view();
    if (ahead !== view) return;
    const { table } = view;
    for (const node of view.nodes) {
      if (!node.wantsVote || !isLive(node) || this.judgeVoter(now, node.id, true).what !== 'taken') continue;
      this.append(now, { c: 'voter', table, node: node.id, on: true });
      return;
    }
    const versionOf = (node: NodeView): number => (node.id === self ? limits.version : presence.limitsOf(node));
    if (this.limitsChange.isSettled(now, view, versionOf) && now >= this.leases.safeAt) {
      this.append(now, { c: 'limitsSettled', table });
    }
  }

  /** An entry was applied. `votersChanged`: by it, other nodes vote. */
  applied(now: Millis, entry: LogEntry, command: Command, votersChanged: boolean): void {
    const { raft, bootstrap } = this.c;
    if (!raft.isLeader) return;
    if (votersChanged) this.voterChanges.committed(now);
    if (command.c === 'restarting') this.restartOverAt.delete(command.node);
    this.noteRestarts(now);
    // The first leader of a new log says which cluster it is.
    if (command.c === 'noop' && entry.term === raft.term && this.ahead.clusterId === '') {
      this.append(now, {
        c: 'cluster',
        id: bootstrap.clusterId,
        nodes: this.c.nodes.slice(),
        journals: bootstrap.journals,
        limits: limitValues(this.c.limits),
        mastery: this.c.mastery,
      });
    }
  }

  dump(now: Millis): Record<string, unknown> {
    return { earlierLeasesOverInMs: Math.max(0, this.leases.safeAt - now), fencing: this.gate.dump() };
  }

  /** Appends unless the command would have no effect after all that is in the log already. */
  private append(now: Millis, command: Command): void {
    const { raft } = this.c;
    if (!raft.isLeader) return;
    const { log, commit } = raft.replication;
    const next = applyCommand(this.ahead, command);
    if (next === this.ahead || log.lastIndex - commit >= PENDING_MAX) return;
    raft.append(now, command);
  }

  private considerJoin(now: Millis, from: NodeId, inc: Incarnation, keeps: boolean): void {
    if (!this.c.raft.isReady) return;
    // Whoever had a lease by the history that was given up is over by then.
    if (this.ahead.alone?.method === 'lost-history' && now < this.leases.safeAt) return;
    const old = findNode(this.ahead, from)?.incarnation?.startCount ?? 0;
    const verdict = judgeJoin(now, from, inc, {
      view: this.ahead,
      presence: this.c.presence,
      overAt: this.overAt(from, old),
      keeps,
    });
    if (verdict.what === 'admit') {
      this.doubtPerson(from, inc);
      this.append(now, { c: 'join', node: from, inc, keeps: verdict.keeps });
    } else if (verdict.what === 'refuse') {
      if (verdict.lied !== undefined) this.doubtDevice(from, inc, verdict.lied, verdict.text);
      const code = ERROR_CODES[verdict.code];
      // Two machine ids of 128 bytes each may stand in it: this many letters are below the 500 bytes of the field.
      const text = verdict.text.slice(0, 330);
      if (from === this.c.self) this.c.refused(code, text, inc.startCount);
      else this.c.output.send(from, { k: 'Refuse', code, startCount: inc.startCount, text });
    }
  }

  /** A person vouched for its end, and it is back on the same boot: its daemon was over, its machine was not (rule 12). */
  private doubtPerson(id: NodeId, inc: Incarnation): void {
    const node = findNode(this.ahead, id);
    if (node?.state !== 'evicted' || node.fencedBy !== 'manual' || node.incarnation?.bootId !== inc.bootId) return;
    this.c.output.note('warn', 'same-boot-after-fence', { node: id, method: node.fencedBy, bootId: inc.bootId });
  }

  /** Its devices called the machine off, and here it is: they lied, or switched another one off (rule 12). */
  private doubtDevice(id: NodeId, inc: Incarnation, startCount: StartCount, text: string): void {
    const { fencings } = this.ahead;
    const record = fencings.findLast((r) => r.node === id && r.startCount === startCount && r.outcome === 'fenced');
    if (record === undefined || record.doubted) return;
    this.c.output.note('error', 'fence-device-lied', { node: id, method: record.method, bootId: inc.bootId, text });
    const why = `node ${id} was seen as start ${inc.startCount} on the boot that ${record.method} had ended`;
    this.append(this.now, { c: 'distrust', node: id, startCount, why: logText(why), at: this.c.wall() });
  }

  /** A lease only for who is a member now and stays one by all that is in the log. */
  private mayLease(node: NodeId, startCount: StartCount): boolean {
    const view = this.c.view();
    return isLiveAs(view, node, startCount) && (this.ahead === view || isLiveAs(this.ahead, node, startCount));
  }

  private renewOwn(now: Millis): void {
    const { acks, presence, self, own } = this.c;
    acks.acknowledged(now);
    if (presence.ownStartCount === 0 || !this.mayLease(self, presence.ownStartCount)) return;
    const remaining = this.leases.grant(now, self, presence.ownStartCount);
    if (remaining > 0) own.extend(now, now + remaining);
  }

  private overAt(node: NodeId, startCount: StartCount): Millis {
    const restart = this.restartOverAt.get(node) ?? Number.NEGATIVE_INFINITY;
    // That our own earlier lease has ended we know from our own clock; what daemons before this one told, too.
    if (node === this.c.self && startCount !== 0 && this.c.own.lapsed === startCount) return Math.max(restart, this.c.toldUntil);
    return Math.max(restart, this.leases.overAt(node, startCount));
  }

  /** Keeps one time for each node that the view shows with a deadline of a restart. */
  private noteRestarts(now: Millis): void {
    for (const node of this.c.view().nodes) {
      if (node.restartMs === 0) this.restartOverAt.delete(node.id);
      else if (!this.restartOverAt.has(node.id)) this.restartOverAt.set(node.id, now + restartWaitMs(node.restartMs));
    }
  }
}
