/**
 * Membership: who is in, as one pure state machine per node (design 5).
 *
 * The problem: consensus, leases, admissions and fencing each are small, but they share one clock, one view and one disk, and
 * the order in which they look at an event decides about safety. This class is that order: at each entry first the clock (is
 * our own lease over? trap 9), then the message's term (raft.ts), then what it means; at the end one batch for the disk.
 * It has no clock, no random and no I/O; effects go out through MembershipOutput.
 */
import { errorCodeOf } from '../protocol/errors.js';
import type { Incarnation, Millis, NodeId, StartCount } from '../protocol/ids.js';
import type { ControlMessage, LogEntry } from '../protocol/peer-messages.js';
import { Bootstrap, type NodePlace } from './bootstrap.js';
import { parseCommand } from './commands.js';
import { Leadership } from './leadership.js';
import { AckMemory, OwnLease } from './lease.js';
import { LimitsInForce } from './limits-in-force.js';
import { baseOf, checkInit, placeOf } from './membership-init.js';
import { OwnIncarnation } from './own-incarnation.js';
import { Presence } from './presence.js';
import { Raft } from './raft.js';
import { Random } from './random.js';
import { Survivor, type SurvivorHost } from './survivor.js';
import { Suspension } from './suspension.js';
import type {
  Command,
  FenceVerdict,
  MembershipApi,
  MembershipInit,
  MembershipOutput,
  NodeConfig,
  NodeView,
  Snapshot,
  TableCommand,
  View,
} from './types.js';
import { applyCommand, DEFAULT_DOMAIN, findNode, isLive } from './view.js';
import type { TableVerdict } from './voter-change.js';
import { sameVoters, votersOf } from './voter-set.js';

const LOG_KEEP = 1000;
/** A refusal that says the same again is noted at most this often. */
const REFUSAL_NOTE_MS = 30_000;

type Ack = Extract<ControlMessage, { k: 'HeartbeatAck' }>;

export class Membership implements MembershipApi {
  private readonly self: NodeId;
  /** As configured: who they are until the log says it. */
  private readonly nodes: readonly NodeConfig[];
  readonly limits: LimitsInForce;
  private readonly output: MembershipOutput;
  private readonly raft: Raft;
  private readonly bootstrap: Bootstrap;
  private readonly own = new OwnLease();
  private readonly acks: AckMemory;
  private readonly presence: Presence;
  private readonly leadership: Leadership;
  private now: Millis;
  /** Wall clock minus our clock, for records that people read. */
  private wallAhead: number | null = null;
  private applied: View;
  private readonly life: OwnIncarnation;
  private joinAt: Millis;
  private readonly suspension: Suspension;
  private readonly survivor: Survivor;
  private ops = 0;
  private refusal = { text: '', at: Number.NEGATIVE_INFINITY };
  private blankLeader: NodeId = 0;
  private readonly configured: readonly NodePlace[];
  private placed: { nodes: readonly NodeConfig[] | null; places: readonly NodePlace[] } = { nodes: null, places: [] };

  /** Throws TSDLM_BAD_CONFIG for an impossible set of nodes, TSDLM_JOURNAL_CORRUPT for a journal that cannot be. */
  constructor(init: MembershipInit, output: MembershipOutput) {
    checkInit(init);
    this.self = init.self;
    this.nodes = init.nodes.slice();
    this.configured = init.nodes.map(placeOf);
    this.output = output;
    this.now = init.now;
    this.joinAt = init.now;
    const ids = init.nodes.map((n) => n.id).sort((a, b) => a - b);
    const peers = ids.filter((id) => id !== init.self);
    const voters = ids.filter((id) => init.nodes.some((n) => n.id === id && n.voter));
    const { term, boot, snapshot, entries } = init.persisted;
    const hasLog = snapshot !== null || entries.length > 0;
    const base = baseOf(init);
    this.applied = base.view;
    let raft: Raft | null = null;
    this.limits = new LimitsInForce(
      init.limits,
      () => this.applied,
      () => raft?.replication.tail.view ?? this.applied,
    );
    this.suspension = new Suspension(this.limits);
    this.acks = new AckMemory(init.now, boot === null && !hasLog && term === 0);
    this.presence = new Presence(init.self, peers, this.limits);
    this.life = new OwnIncarnation(
      {
        self: init.self,
        lease: this.own,
        suspension: this.suspension,
        presence: this.presence,
        output,
        view: () => this.applied,
      },
      init.incarnation,
      (init.toldUntil ?? 0) > init.now,
    );
    const note = output.note.bind(output);
    const send = output.send.bind(output);
    this.raft = raft = new Raft(
      {
        self: init.self,
        journalId: init.incarnation.journalId,
        limits: this.limits,
        persisted: init.persisted,
        base,
        seed: init.seed,
        now: init.now,
        logKeep: init.logKeep ?? LOG_KEEP,
      },
      {
        send,
        note,
        persist: (batch) => output.persist(batch),
        distrusted: (why) => output.distrusted(why),
        apply: (entry) => this.apply(entry),
        restore: (snapshot) => this.restore(snapshot),
        isLive: (id) => this.applied.nodes.some((n) => n.id === id && isLive(n)),
        mayVote: () => !this.bootstrap.isBlank,
        mayLead: () => !this.bootstrap.isBlank && (this.bootstrap.clusterId !== '' || this.ahead.clusterId !== ''),
        ackAgeMs: (now) => this.acks.ageMs(now),
        becameLeader: (now, safeAt) => {
          this.leadership.begin(now, safeAt);
          this.joinAt = now;
        },
        steppedDown: (now) => this.leadership.end(now),
      },
    );
    this.bootstrap = new Bootstrap(
      {
        self: init.self,
        voters,
        peers,
        journalId: init.incarnation.journalId,
        boot,
        hasLog,
        periodMs: init.limits.heartbeatMs,
      },
      this.raft.durable,
      {
        send,
        note,
        record: (id) => this.recordOf(id),
        admitted: (floor) => this.life.raiseAbove(floor),
        places: () => this.applied.nodes.map(placeOf),
      },
    );
    this.leadership = new Leadership({
      self: init.self,
      limits: this.limits,
      mastery: init.mastery?.domains.get(DEFAULT_DOMAIN) ?? init.mastery?.standard ?? 'peer',
      output,
      raft: this.raft,
      bootstrap: this.bootstrap,
      presence: this.presence,
      own: this.own,
      acks: this.acks,
      nodes: this.nodes,
      toldUntil: init.toldUntil ?? 0,
      view: () => this.applied,
      wall: () => (this.wallAhead === null ? 0 : Math.round(this.now + this.wallAhead)),
      nextOp: () => ++this.ops,
      refused: (code, text, startCount) => this.onRefuse(this.self, code, text, startCount),
    });
    this.survivor = new Survivor(init.self, this.limits, new Random(init.seed ^ 0x5eed), init.now, this.survivorHost());
  }

  private survivorHost(): SurvivorHost {
    const { raft, bootstrap, output } = this;
    return {
      get isLeader() {
        return raft.isLeader;
      },
      get isUsable() {
        return !bootstrap.isBlank;
      },
      tail: raft.replication.tail,
      ackAgeMs: (now) => this.acks.ageMs(now),
      delayOf: (node) => this.nodes.find((n) => n.id === node)?.fenceDelay,
      wall: () => (this.wallAhead === null ? 0 : Math.round(this.now + this.wallAhead)),
      fence: (request) => output.fence(request),
      nextOp: () => ++this.ops,
      note: (level, event, data) => output.note(level, event, data),
      seize: (now, command, lostHistory) => raft.seize(now, command, lostHistory),
    };
  }

  get view(): View {
    return this.applied;
  }

  get ahead(): View {
    return this.raft.replication.tail.view;
  }

  /** By the log; before it says so, by who was asked; else as configured. The same array while nothing changes. */
  get places(): readonly NodePlace[] {
    const { nodes } = this.ahead;
    if (this.ahead.clusterId === '') return this.bootstrap.places.length > 0 ? this.bootstrap.places : this.configured;
    if (nodes !== this.placed.nodes) this.placed = { nodes, places: nodes.map(placeOf) };
    return this.placed.places;
  }

  get isMember(): boolean {
    return this.life.isMember;
  }

  get leaseUntil(): Millis {
    return this.own.until;
  }

  get isSuspended(): boolean {
    return this.suspension.isOn;
  }

  get holdUntil(): Millis {
    return Math.max(this.suspension.until, this.own.until);
  }

  get fencesAlone(): { node: NodeId; startCount: StartCount } | null {
    return this.survivor.victim;
  }

  get waitingFor(): { node: NodeId; why: string } | null {
    const why = this.survivor.status(this.now);
    return why === '' ? null : { node: this.survivor.peerId, why };
  }

  get leader(): NodeId {
    return this.bootstrap.isBlank ? this.blankLeader : this.raft.leader;
  }

  get isLeader(): boolean {
    return this.raft.isLeader;
  }

  get term(): number {
    return this.raft.term;
  }

  // --- Entries: each looks at the clock first and hands the disk its batch last ------------------------------------------

  tick(now: Millis, wallMs?: number): void {
    this.enter(now);
    if (wallMs !== undefined) this.wallAhead = wallMs - this.now;
    this.bootstrap.tick(this.now);
    this.raft.tick(this.now);
    this.leadership.tick(this.now);
    if (this.raft.knowsTerm) this.survivor.knows(this.raft.isVoter && findNode(this.applied, this.self)?.voter === true);
    this.survivor.tick(this.now);
    this.life.leased();
    if (this.now >= this.joinAt) {
      this.joinAt = this.now + this.limits.heartbeatMs;
      this.askToJoin();
    }
    this.raft.durable.flush();
  }

  receive(now: Millis, from: NodeId, msg: ControlMessage): void {
    this.enter(now);
    if (from === this.self) return;
    this.survivor.heard(this.now, from);
    switch (msg.k) {
      case 'BootProbe':
        this.bootstrap.receive(this.now, from, msg);
        break;
      case 'Propose':
        this.leadership.proposed(this.now, from, msg.cmd);
        break;
      case 'Refuse':
        this.onRefuse(from, msg.code, msg.text, msg.startCount);
        break;
      case 'Query':
      case 'QueryReply':
        break;
      default:
        this.onTermMessage(from, msg);
    }
    this.raft.durable.flush();
  }

  persisted(now: Millis, ticket: number): void {
    this.enter(now);
    this.raft.persisted(this.now, ticket);
    this.raft.durable.flush();
  }

  peerUp(now: Millis, peer: NodeId): void {
    this.enter(now);
    if (peer !== this.self) {
      this.presence.setLink(peer, true);
      this.survivor.heard(this.now, peer);
    }
    this.raft.durable.flush();
  }

  peerDown(now: Millis, peer: NodeId): void {
    this.enter(now);
    if (peer !== this.self) this.presence.setLink(peer, false);
    this.raft.durable.flush();
  }

  fenceDone(now: Millis, op: number, ok: boolean, detail: string): void {
    this.enter(now);
    if (!this.survivor.fenceDone(op, ok, detail)) this.leadership.fenceDone(op, ok, detail);
    this.raft.durable.flush();
  }

  confirmFence(now: Millis, node: NodeId, startCount: StartCount, by: string): FenceVerdict {
    this.enter(now);
    const verdict = this.leadership.confirmFence(node, startCount, by);
    this.raft.durable.flush();
    return verdict;
  }

  fenceNode(now: Millis, node: NodeId, startCount: StartCount, reason: string): FenceVerdict {
    this.enter(now);
    const verdict = this.leadership.fenceNode(node, startCount, reason);
    this.raft.durable.flush();
    return verdict;
  }

  acceptLostHistory(now: Millis, peer: NodeId, who: string): FenceVerdict {
    this.enter(now);
    const verdict = this.survivor.acceptLostHistory(this.now, peer, who);
    this.raft.durable.flush();
    return verdict;
  }

  changeTable(now: Millis, command: TableCommand): TableVerdict {
    this.enter(now);
    const verdict = this.leadership.changeTable(this.now, command);
    this.raft.durable.flush();
    return verdict;
  }

  trustFence(now: Millis, node: NodeId, method: string, who: string): FenceVerdict {
    this.enter(now);
    const verdict = this.leadership.trustFence(node, method, who);
    this.raft.durable.flush();
    return verdict;
  }

  propose(now: Millis, command: Command): void {
    this.enter(now);
    if (this.raft.isLeader) this.leadership.proposed(this.now, this.self, command);
    else if (this.leader !== 0) this.output.send(this.leader, { k: 'Propose', cmd: command });
    this.raft.durable.flush();
  }

  reincarnate(now: Millis, incarnation: Incarnation): void {
    this.enter(now);
    this.joinAt = this.now;
    this.life.begin(incarnation);
    this.raft.durable.flush();
  }

  stopJoining(): void {
    this.life.stopJoining();
  }

  dump(): Record<string, unknown> {
    const { log, commit, applied } = this.raft.replication;
    return {
      self: this.self,
      incarnation: this.life.present,
      role: this.raft.role,
      term: this.raft.term,
      leader: this.leader,
      log: { snapshot: log.base.index, last: log.lastIndex, durable: this.raft.durable.stable, commit, applied },
      voters: this.raft.voters,
      blank: this.bootstrap.isBlank,
      journalLost: this.bootstrap.isLost,
      clusterId: this.bootstrap.clusterId,
      member: this.life.isMember,
      ended: this.life.isEnded,
      leaseUntil: this.own.until,
      leaseLeftMs: this.own.until === 0 ? 0 : this.own.until - this.now,
      isSuspended: this.suspension.isOn,
      holdUntil: this.holdUntil,
      linksDown: this.presence.ownDown,
      survivor: this.survivor.dump(this.now),
      leading: this.raft.isLeader ? this.leadership.dump(this.now) : null,
      view: this.applied,
    };
  }

  // --- The clock, before anything else -------------------------------------------------------------------------------------

  /** Time never runs backwards in here. A lease that ended while nobody called is seen before anything acts on it. */
  private enter(now: Millis): void {
    if (now > this.now) this.now = now;
    this.life.look(this.now);
  }

  private recordOf(id: NodeId): NodeView | null | undefined {
    return this.applied.clusterId === '' ? undefined : (findNode(this.applied, id) ?? null);
  }

  // --- Messages ----------------------------------------------------------------------------------------------------------

  private onTermMessage(from: NodeId, msg: Extract<ControlMessage, { term: number }>): void {
    if (this.bootstrap.isBlank) {
      // An empty journal has no say, and nothing it would acknowledge could be relied on.
      if (msg.k === 'Heartbeat') {
        this.blankLeader = from;
        this.bootstrap.hears(from);
      }
      return;
    }
    if (!this.raft.step(this.now, from, msg)) return;
    if (msg.k === 'Heartbeat') this.onHeartbeat(from, msg.sentAt);
    else if (msg.k === 'HeartbeatAck') {
      this.leadership.heard(this.now, from, msg);
      this.life.leased();
    } else if (msg.k === 'Lease') this.onLease(msg);
  }

  private onHeartbeat(from: NodeId, echo: Millis): void {
    this.acks.acknowledged(this.now);
    const ack: Ack = {
      k: 'HeartbeatAck',
      term: this.raft.term,
      echo,
      sentAt: this.now,
      startCount: this.life.isEnded ? 0 : this.life.present.startCount,
      match: this.raft.replication.match,
      down: this.presence.ownDown.slice(),
      limits: this.limits.version,
      journal: this.life.present.journalId,
    };
    this.raft.durable.afterHard(() => this.output.send(from, ack));
  }

  private onLease(msg: Extract<ControlMessage, { k: 'Lease' }>): void {
    if (this.life.isEnded || msg.startCount !== this.life.present.startCount || msg.echo > this.now) return;
    this.own.extend(this.now, msg.echo + Math.min(msg.remainingMs, this.limits.leaseMs));
    this.life.leased();
  }

  private onRefuse(from: NodeId, code: number, text: string, startCount: StartCount): void {
    // A later request of this process may have been admitted meanwhile.
    if (startCount !== this.life.present.startCount) return;
    if (errorCodeOf(code) === 'TSDLM_JOURNAL_LOST') this.bootstrap.disown();
    if (text === this.refusal.text && this.now - this.refusal.at < REFUSAL_NOTE_MS) return;
    this.refusal = { text, at: this.now };
    const name = errorCodeOf(code) ?? 'TSDLM_NOT_ALLOWED';
    const waits = name === 'TSDLM_NOT_ALLOWED';
    this.output.note(waits ? 'warn' : 'error', 'join-refused', { by: from, code: name, text });
    if (name === 'TSDLM_STALE_INCARNATION') this.output.distrusted(text);
  }

  // --- Becoming a member -------------------------------------------------------------------------------------------------

  private askToJoin(): void {
    const command = this.life.joinRequest();
    if (command === null) return;
    if (this.raft.isLeader) this.leadership.proposed(this.now, this.self, command);
    else if (this.leader !== 0) this.output.send(this.leader, { k: 'Propose', cmd: command });
  }

  // --- Views ---------------------------------------------------------------------------------------------------------------

  private apply(entry: LogEntry): View {
    const command = parseCommand(entry.cmd);
    if (command === null) {
      this.output.note('error', 'unknown-command', { index: entry.index });
      return this.applied;
    }
    const previous = this.applied;
    const next = applyCommand(previous, command);
    if (next !== previous) {
      this.applied = next;
      this.changed(next, previous, command);
    }
    const votersChanged = next.nodes !== previous.nodes && !sameVoters(votersOf(next), votersOf(previous));
    this.leadership.applied(this.now, entry, command, votersChanged);
    return this.applied;
  }

  private restore(snapshot: Snapshot): void {
    const previous = this.applied;
    const next = snapshot.view;
    this.life.skipped(next, previous);
    this.applied = next;
    this.changed(next, previous, null);
  }

  private changed(next: View, previous: View, command: Command | null): void {
    this.life.viewed();
    if (next.table !== previous.table) this.presence.setPeers(next.nodes.filter((n) => n.id !== this.self).map((n) => n.id));
    this.output.viewChanged(next, previous, command);
    this.life.judge();
  }
}
