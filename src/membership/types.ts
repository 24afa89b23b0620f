/**
 * The words of the control plane: nodes, domains, views, the commands of the log, and the border between the pure
 * membership core and its host.
 */
import type { Epoch, Incarnation, Millis, NodeId, StartCount } from '../protocol/ids.js';
import type { ControlMessage, LogEntry } from '../protocol/peer-messages.js';
import type { NodePlace } from './bootstrap.js';
import type { FenceDelay } from './duel.js';
import type { TimeLimits } from './time-limits.js';
import type { TableVerdict } from './voter-change.js';

/** What is set of a node: by the configuration for the first start, by commands from then on. */
export interface NodeConfig {
  id: NodeId;
  name: string;
  voter: boolean;
  /** It votes and owns nothing: never in a domain. Default false. */
  witness?: boolean;
  /** Where the others reach it; '' and 0 where nobody needs to know. */
  host?: string;
  port?: number;
  /** Fence levels, tried in order; each level is a list of method names that must all succeed. Always at least [['self']]. */
  fence: string[][];
  /** Waited before it is fenced by a peer that has no quorum (duel.ts). Default none. Not part of the log. */
  fenceDelay?: FenceDelay;
}

/**
 * out: never seen. in: member. suspect: silent. fencing: being ended, no way back. fenced: proven over, its locks may go.
 * evicted: bookkeeping done, may join again. leaving: hands over. left: gone cleanly, may join again.
 * restarting: its daemon is being restarted and has said until when it will be back; its locks stay (rule 23).
 */
export type NodeState = 'out' | 'in' | 'suspect' | 'fencing' | 'fenced' | 'evicted' | 'leaving' | 'left' | 'restarting';

export interface NodeView extends Required<Omit<NodeConfig, 'fenceDelay'>> {
  /** The journal that its vote and its membership are bound to; '' until it is known. */
  journal: string;
  /** The leader gives it a vote as soon as it has caught up. */
  wantsVote: boolean;
  /** Start counts up to this one were used with an earlier journal. */
  floor: StartCount;
  state: NodeState;
  /** The incarnation that is (or was last) a member. */
  incarnation: Incarnation | null;
  /** It holds node-owned locks: `self` does not count as fenced for it (rule 2). */
  nodeOwned: boolean;
  /** > 0: its machine ends itself within so many ms after its lease; then `self` frees node-owned locks too, some time later. */
  armedMs: number;
  /** How it was fenced last, or ''. */
  fencedBy: string;
  /**
   * Its owners may have been told a deadline this long after the entry `restarting`, ms (rule 23); 0 = none beyond its lease.
   * Stays after the daemon is back, until that says that they are all `settled`.
   */
  restartMs: number;
  /** Epoch of the last change of this record. */
  since: Epoch;
}

/** Who may master the names of a domain: any member (as ocfs2), or only its members that vote (as LOCK_GULM's servers). */
export const MASTERY_POLICIES = ['peer', 'servers'] as const;
export type MasteryPolicy = (typeof MASTERY_POLICIES)[number];
/** What a node's configuration asks for: the policy of named domains, and of all others that it makes. */
export interface MasteryWishes {
  standard: MasteryPolicy;
  domains: ReadonlyMap<string, MasteryPolicy>;
}

/** One incarnation of a node in a domain. */
export interface Member {
  node: NodeId;
  startCount: StartCount;
  /** Start count of the un-evicted incarnation of the same boot that this one continues (its node-owned locks stay), else 0. */
  continues: StartCount;
  /** With `continues`: session locks of that incarnation stay too, until this one has re-claimed them or says it is done (rule 1). */
  keeps: boolean;
}

/** A member whose daemon is being restarted: it masters nothing and answers nothing, but its locks are held (rule 23). */
export interface AwayMember {
  node: NodeId;
  startCount: StartCount;
  /** A master went while it was away: what it holds from that one nobody knows, so every barrier waits for it (rule 1). */
  awaited: boolean;
}

export interface DomainView {
  /** Number of the domain, never reused. */
  dom: number;
  name: string;
  /** Set when the domain is made, for ever. */
  mastery: MasteryPolicy;
  /** Epoch of the last change of this domain's members, or servers. Lock messages of another domain epoch are not handled. */
  epoch: Epoch;
  /** Sorted by node. They may own locks; under `peer` they master too. */
  members: Member[];
  /** Under `servers`: the members that may master in this epoch, sorted; they change only with the epoch. Empty under `peer`. */
  servers: NodeId[];
  /** Sorted by node. They own nothing any more and are handing over their masterships. */
  leaving: Member[];
  /** Sorted by node. */
  away: AwayMember[];
}

/** One try of one fence level. `at`: wall clock of the leader, ms since 1970, for people only. */
export interface FenceTry {
  by: NodeId;
  at: number;
  level: number;
  methods: string;
  attempt: number;
  ok: boolean;
  detail: string;
  tookMs: number;
}

/** One fence operation, as the log knows it (fence-record.ts). */
export interface FenceRecord {
  node: NodeId;
  startCount: StartCount;
  /** Boot of the victim's machine. */
  bootId: string;
  /** Who or what asked for it, and why. */
  reason: string;
  /** When the first leader began; 0 = nobody has yet, so no `off` was sent. */
  begunAt: number;
  /** Leaders that carried it out, in order. */
  fencers: NodeId[];
  /** The newest of them. */
  tries: FenceTry[];
  /** All of them. */
  tried: number;
  /** A person vouched for it, through this leader. */
  confirmed: { who: string; by: NodeId; at: number } | null;
  /** '' = under way. returned: it came back in time. left: it left cleanly before the first `off`. */
  outcome: '' | 'fenced' | 'returned' | 'left';
  /** What ended it. */
  method: string;
  /** The victim was seen on the very boot that this has ended: it has not (rule 12). */
  doubted: boolean;
}

/** A device that is not believed any more when it speaks of this node (rule 12). */
export interface Distrusted {
  node: NodeId;
  method: string;
  why: string;
  at: number;
}

/** One of two voters goes on without the other (rule 13); see sole-voter.ts. */
export interface Alone {
  survivor: NodeId;
  /** Comes back without a vote, and is given it again when it has caught up. */
  peer: NodeId;
  startCount: StartCount;
  /** That this made. */
  epoch: Epoch;
  /** How the peer was ended: methods joined with '+', 'left', or 'lost-history'. */
  method: string;
}

export interface View {
  epoch: Epoch;
  /** Version of the node table (who is in it, with which vote): each change by command makes the next one. */
  table: number;
  /** Random, from the bootstrap: journals of another cluster are foreign. */
  clusterId: string;
  /** Time limits; null until the log names them: those of the configuration are in force. */
  limits: ViewLimits | null;
  /** Nodes that were removed, sorted: their numbers and names are not used again. */
  retired: { id: NodeId; name: string }[];
  /** Sorted by id. */
  nodes: NodeView[];
  /** Sorted by dom. Domain 1 is `default`; every node is in it from its join on. */
  domains: DomainView[];
  nextDom: number;
  /** Fence operations, oldest first; the last 100. */
  fencings: FenceRecord[];
  distrusted: Distrusted[];
  /** Set while one of two voters goes on without the other. */
  alone: Alone | null;
}

/** The time limits that are set, ms; the others follow from them (time-limits.ts). */
export interface LimitValues {
  heartbeatMs: number;
  leaseMs: number;
  suspectMs: number;
  deadMs: number;
  electionMs: number;
}

/** Limits in force, and those before them for as long as somebody may still count by those (rule 14, limits-in-force.ts). */
export interface ViewLimits {
  version: number;
  active: LimitValues;
  former: LimitValues | null;
}

/** Changes of the node table and the time limits; void unless the table has version `table` (node-table.ts). */
export type TableCommand =
  /** Gives a vote to a node or takes it. */
  | { c: 'voter'; table: number; node: NodeId; on: boolean }
  /** The leader shall (not) give it a vote once it has caught up. */
  | { c: 'wantVote'; table: number; node: NodeId; on: boolean }
  /** A new node, without a vote at first; `spec.voter`: it wants one. */
  | { c: 'nodeAdd'; table: number; spec: NodeConfig }
  /** For good: number and name are retired. */
  | { c: 'nodeRemove'; table: number; node: NodeId }
  /** '', 0 and [] leave the value as it is. */
  | { c: 'nodeSet'; table: number; node: NodeId; host: string; port: number; fence: string[][] }
  /**
   * Its journal was lost: it may come as a new node with this one, and get a vote once it has caught up. As a wish to the leader `journal`
   * may be '': the one with which it asks now.
   */
  | { c: 'readmit'; table: number; node: NodeId; journal: string; vote: boolean }
  | { c: 'limits'; table: number; limits: LimitValues }
  /** Nobody counts by the former limits any more. */
  | { c: 'limitsSettled'; table: number };

/**
 * Commands of the replicated log. Each names the incarnation it is about and is ignored by `applyCommand` when that is
 * not (any more) the case, so every command may be proposed twice.
 */
export type Command =
  | { c: 'noop' }
  /**
   * Names the cluster, its nodes and its time limits, once: the leader's first command in a new log. From here on the log says who
   * votes. `journals`: of the voters, by node number. `mastery`: who masters in the domain `default`.
   */
  | {
      c: 'cluster';
      id: string;
      nodes: NodeConfig[];
      journals: Record<string, string>;
      limits: LimitValues;
      mastery: MasteryPolicy;
    }
  | TableCommand
  /** New member, or the next incarnation of one (the leader has made sure that the old one is over). New epoch. */
  | { c: 'join'; node: NodeId; inc: Incarnation; keeps: boolean }
  | { c: 'suspect'; node: NodeId; startCount: StartCount }
  | { c: 'alive'; node: NodeId; startCount: StartCount }
  | { c: 'fencing'; node: NodeId; startCount: StartCount; reason: string }
  /** Its locks may be dropped: new epoch, it leaves all domains (rule 17). */
  | { c: 'fenced'; node: NodeId; startCount: StartCount; method: string }
  | { c: 'evicted'; node: NodeId; startCount: StartCount }
  /** Leader `by` carries the operation out: from now on an `off` may have been sent. */
  /**
   * Rule 13: node `node`, one of two voters, goes on alone, for it has ended the other (`peer`, as `startCount`) by device and
   * verified that. Appended by that node itself without a quorum; in force with it. New epoch, the peer leaves all domains.
   */
  | {
      c: 'alone';
      node: NodeId;
      peer: NodeId;
      startCount: StartCount;
      method: string;
      reason: string;
      detail: string;
      attempt: number;
      tookMs: number;
      at: number;
    }
  /** The only voter says that it is one: the change that made it so was committed (voter-set.ts). */
  | { c: 'sole'; node: NodeId }
  /**
   * An operator has node `node` go on alone without knowing what `peer` did last: all locks are void, the epoch jumps beyond
   * whatever the peer's can be.
   */
  | { c: 'lostHistory'; node: NodeId; peer: NodeId; who: string; at: number }
  | { c: 'fenceBegin'; node: NodeId; startCount: StartCount; by: NodeId; at: number }
  | ({ c: 'fenceTry'; node: NodeId; startCount: StartCount } & FenceTry)
  /** A person vouches that this incarnation can not act any more. */
  | { c: 'fenceConfirm'; node: NodeId; startCount: StartCount; who: string; by: NodeId; at: number }
  /** The node was seen on the boot that this fence has ended: its devices are not believed any more, until `trust` (rule 12). */
  | { c: 'distrust'; node: NodeId; startCount: StartCount; why: string; at: number }
  | { c: 'trust'; node: NodeId; method: string; who: string }
  /** Clean leave, first step: it owns no lock any more and hands over its masterships. New epoch. */
  | { c: 'nodeLeave'; node: NodeId; startCount: StartCount }
  /** Clean leave, last step. New epoch. */
  | { c: 'nodeLeft'; node: NodeId; startCount: StartCount }
  /** Restart, first step: it hands over its masterships and keeps its locks. New epoch. */
  | { c: 'nodeRestart'; node: NodeId; startCount: StartCount }
  /**
   * Restart, second step: all is handed over and in its journal; nobody fences it or frees its locks for `forMs`. Void when a
   * domain of it has changed since `epoch`: its locks may be on their way to another master. New epoch.
   */
  | { c: 'restarting'; node: NodeId; startCount: StartCount; forMs: number; epoch: Epoch }
  /** No owner on this node counts on a deadline of the restart any more. */
  | { c: 'settled'; node: NodeId; startCount: StartCount }
  /** `mastery` counts when this makes the domain; to a domain of another policy nobody is admitted by it. */
  | { c: 'domainJoin'; node: NodeId; startCount: StartCount; name: string; mastery: MasteryPolicy }
  | { c: 'domainLeave'; node: NodeId; startCount: StartCount; dom: number }
  | { c: 'domainLeft'; node: NodeId; startCount: StartCount; dom: number }
  /** Lock messages of a pair were lost (link reset): a new domain epoch makes everybody drive its requests again (rule 25). */
  | { c: 'bump'; dom: number; epoch: Epoch }
  /** A node's token counter runs high: a new epoch, only if it is still `epoch` (rule 17). */
  | { c: 'epoch'; epoch: Epoch }
  /** Its machine ends itself within `ms` after its lease ended; 0 = it does not (any more). */
  | { c: 'armed'; node: NodeId; startCount: StartCount; ms: number }
  | { c: 'nodeOwned'; node: NodeId; startCount: StartCount; on: boolean };

/** What must be durable (synced) before the messages and effects that depend on it leave. Written in ticket order. */
export interface PersistBatch {
  ticket: number;
  /** Both are given together when either changed. */
  hard?: { term: number; vote: NodeId };
  /** Entries from here on are removed before `entries` are added. */
  truncateFrom?: number;
  entries?: LogEntry[];
  /** Replaces everything up to `index`. */
  snapshot?: Snapshot;
  /** The bootstrap set: journal ids of all voters when this journal was taken into use. */
  boot?: { clusterId: string; known: Record<string, string> };
}

export interface Snapshot {
  index: number;
  term: number;
  view: View;
}

/** What the journal gives back at start. All empty (boot null) = a new, blank journal. */
export interface PersistedState {
  term: number;
  vote: NodeId;
  snapshot: Snapshot | null;
  /** Entries after the snapshot, gapless. */
  entries: LogEntry[];
  boot: { clusterId: string; known: Record<string, string> } | null;
}

export interface MembershipInit {
  self: NodeId;
  incarnation: Incarnation;
  nodes: NodeConfig[];
  limits: TimeLimits;
  persisted: PersistedState;
  /** Seed of the generator for election time-outs. */
  seed: number;
  now: Millis;
  /** Policies of the domains that this node makes, `default` among them should it name the cluster. Default: all `peer`. */
  mastery?: MasteryWishes;
  /**
   * Owners on this node may have been told deadlines up to this time (on the node's clock) by earlier daemons on this boot:
   * their locks are kept, and this incarnation answers for them (rules 1, 23). 0 = none. Default 0.
   */
  toldUntil?: Millis;
  /** Entries kept behind the snapshot; the log is cut when it exceeds twice this. Default 1000. */
  logKeep?: number;
}

export type FenceRequest = {
  op: number;
  node: NodeId;
  startCount: StartCount;
  method: string;
  reason: string;
  attempt: number;
  /** off: end the node. verify: say whether it is off now; asked of all methods of a level after its last off (rule 15). */
  step: 'off' | 'verify';
  /** Number of methods in this level. */
  together: number;
};

/** What became of a request to fence a node or to confirm a fence by hand. */
export type FenceVerdict = { ok: true } | { ok: false; text: string };

/** Effects. The host must not call back into the core from inside any of these. */
export interface MembershipOutput {
  /** Control messages; may be lost. */
  send(to: NodeId, msg: ControlMessage): void;
  /** Must be synced to disk, then answered with `persisted(now, ticket)`; in order. */
  persist(batch: PersistBatch): void;
  /** A new view is committed and applied. Every view is given, in order, none is skipped while this node is a member. */
  viewChanged(view: View, previous: View, command: Command | null): void;
  /** Run a fence method other than `self` and `manual`; answer with fenceDone(now, op, ok, detail). */
  fence(request: FenceRequest): void;
  /**
   * This incarnation is over (lease lapsed, or evicted by the others): the host raises the start count in the journal,
   * synced, to at least `atLeast`, and then calls `reincarnate`. Until then nothing is a member here.
   */
  incarnationOver(reason: string, atLeast: StartCount): void;
  /**
   * The others know more of this node's journal than it holds: it is an older copy put back, or a second one (rule 12). The host
   * notes that in the journal and ends; nothing that was promised since the copy was made can be kept.
   */
  distrusted(why: string): void;
  /** Something an operator wants to read; `event` is a stable word. */
  note(level: 'info' | 'warn' | 'error', event: string, data: Record<string, unknown>): void;
}

/** The pure membership core, as the composition (src/core) and the simulator use it. Every call takes the time. */
export interface MembershipApi {
  readonly view: View;
  /** The view after all entries of our log, committed or not: who is in the table, also before a leader was heard. */
  readonly ahead: View;
  /** Where all nodes are reached, as far as this node knows. */
  readonly places: readonly NodePlace[];
  /** The time limits in force here. */
  readonly limits: TimeLimits;
  /** This incarnation is a member in state in or suspect of the applied view. */
  readonly isMember: boolean;
  /** End of our lease on our clock; 0 when we have none. */
  readonly leaseUntil: Millis;
  /**
   * Our lease is over, but this incarnation is not: it is ended by device only, so nobody frees what is held here before the
   * machine is off (rule 20). Nothing is granted; it goes on with the next lease.
   */
  readonly isSuspended: boolean;
  /** When holds of this node end as its owners know it: with the lease; later, and moved by ourselves, while suspended. */
  readonly holdUntil: Millis;
  /** The incarnation of the other voter that this node ends without a quorum, to go on alone (rule 13). */
  readonly fencesAlone: { node: NodeId; startCount: StartCount } | null;
  /** One of two voters that can not go on: which node it needs, and why. */
  readonly waitingFor: { node: NodeId; why: string } | null;
  readonly leader: NodeId;
  readonly isLeader: boolean;
  readonly term: number;
  /** `wallMs`: wall clock, ms since 1970, for records that people read. */
  tick(now: Millis, wallMs?: number): void;
  receive(now: Millis, from: NodeId, msg: ControlMessage): void;
  persisted(now: Millis, ticket: number): void;
  /** A link to the peer is usable / not usable. */
  peerUp(now: Millis, peer: NodeId): void;
  peerDown(now: Millis, peer: NodeId): void;
  fenceDone(now: Millis, op: number, ok: boolean, detail: string): void;
  /** A person vouches that this incarnation, which is being fenced, can not act any more. Only the leader takes it. */
  confirmFence(now: Millis, node: NodeId, startCount: StartCount, by: string): FenceVerdict;
  /** An operator wants this member fenced. Only the leader takes it. */
  fenceNode(now: Millis, node: NodeId, startCount: StartCount, reason: string): FenceVerdict;
  /** Changes the node table. Only the leader takes it; what was taken may still be lost: the view shows its effect. */
  changeTable(now: Millis, command: TableCommand): TableVerdict;
  /** An operator gives up what the other of two voters may know: this node goes on alone, all locks are void (rule 13). */
  acceptLostHistory(now: Millis, peer: NodeId, who: string): FenceVerdict;
  /** A device that was caught lying about this node is believed again, by a person's order. Only the leader takes it. */
  trustFence(now: Millis, node: NodeId, method: string, who: string): FenceVerdict;
  /** Puts a command into the log, through the leader; the caller repeats it until the view shows the effect. */
  propose(now: Millis, command: Command): void;
  /** A new incarnation of this process: asks to join again. */
  reincarnate(now: Millis, incarnation: Incarnation): void;
  /** Clean stop has begun: do not ask to join again after leaving. */
  stopJoining(): void;
  /** For status and state dumps: plain data. */
  dump(): Record<string, unknown>;
}
