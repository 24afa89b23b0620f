/**
 * What the administration verbs of the local socket ask and answer (`ClientAdmin` / `DaemonAdminReply`).
 *
 * The problem: status texts that people read and programs parse tend to drift apart. So the daemon answers plain data of
 * the types below and nothing else; the command line only lays it out, and `--json` prints it as it came.
 *
 * All of it must pass `plain(8)`: no undefined, no bigint, no bytes. Tokens are decimal strings. Times are durations in
 * milliseconds ("since" = so long ago), because a point on one machine's clock means nothing on another.
 *
 *   verb       arguments              answer        done by
 *   status     {}                     StatusData    the daemon
 *   nodes      {}                     NodesData     the daemon
 *   ls         ListArgs               ListData      the daemon
 *   show       ShowArgs               ShowData      the daemon (TSDLM_NOT_HELD when it knows no such lock)
 *   fence-history  FenceHistoryArgs   FenceHistoryData   the daemon, from the view: the same on every node
 *   fence-steps    {}                 FenceStepsData     the daemon, which asks all members
 *   fence-check    FenceCheckArgs     FenceCheckData     the daemon; takes as long as the slowest device
 *   fence-node     FenceOrderArgs     FenceOrderData     the leader (TSDLM_NOT_ALLOWED with the reason when it refuses)
 *   fence-confirm  FenceOrderArgs     FenceOrderData     the leader (likewise)
 *   fence-lost-history  LostHistoryArgs  LostHistoryData   the daemon itself, one of two voters that waits for the other
 *   fence-trust    FenceTrustArgs     FenceTrustData     the leader, through the log
 *   table-step     TableGoal          TableStepData      the leader (src/protocol/table-goal.ts)
 *   files-free     FilesFreeArgs      FilesFreeData      the daemon
 *   stats      StatsArgs              StatsData     the daemon, or another that it asks
 *   node-shutdown  ShutdownArgs       ShutdownData  the node itself (TSDLM_NOT_ALLOWED with the reasons when it refuses)
 *   domain-join    DomainJoinArgs     DomainEntry   the daemon, through the log (TSDLM_NOT_ALLOWED when the policies differ)
 *   restart    {}                     EndData       the daemon, which then ends and is to be started again (rule 23)
 *   unlock     UnlockArgs             UnlockData    the session server (node-owned locks of this node)
 *   convert    ConvertArgs            ConvertData   the session server (node-owned locks of this node)
 */
import type { ModeName } from './modes.js';

/** Answer of one `ls`: further ones follow with `after = next`, so that no answer outgrows a frame. */
export const LIST_PAGE_MAX = 500;
/** Waiters given in one `show`; the rest are only counted. */
export const SHOW_WAITERS_MAX = 1000;

export interface NodeRef {
  id: number;
  name: string;
}

/**
 * What a node is to the cluster now. leader: its word counts. voter: it has a vote and follows. member: no vote (LOCK_GULM's Client).
 * joining: it is no member yet. arbitrating: it votes, and there is no quorum that it hears of: nothing is granted here.
 */
export type Role = 'leader' | 'voter' | 'member' | 'joining' | 'arbitrating';

export interface QuorumData {
  /** Voters that this node has a link to, itself among them if it votes. */
  has: number;
  /** A majority of all voters. */
  needs: number;
  voters: number;
  /** This node has a lease from a quorum now. */
  isQuorate: boolean;
}

export interface DomainEntry {
  name: string;
  mastery: 'peer' | 'servers';
  epoch: number;
  members: NodeRef[];
  /** Who may master there; empty in a domain of policy `servers` that no server lives in. */
  masters: NodeRef[];
  /** arbitrating: nothing is granted, for want of a lease or of a server. */
  state: 'active' | 'recovering' | 'arbitrating';
}

export interface StatusData {
  node: NodeRef;
  role: Role;
  quorum: QuorumData;
  domains: DomainEntry[];
  cluster: string;
  version: string;
  pid: number;
  uptimeMs: number;
  /** This incarnation is a member of the view. */
  isMember: boolean;
  /** State of this node in the view: in, suspect, out, ... */
  state: string;
  startCount: number;
  epoch: number;
  leader: NodeRef | null;
  /** Time left of this node's lease; 0 = none, nothing is granted here. */
  leaseLeftMs: number;
  /** No lease, but what is held here is kept: nobody frees it before this machine was seen off (rule 20). */
  isSuspended: boolean;
  /** One of two voters that can not go on: which node it needs, and why; null = it is not so. */
  waitsFor: { node: NodeRef; why: string } | null;
  /** One of two voters went on alone; `peer` gets its vote back when it is here and has caught up (rule 13). */
  alone: { survivor: NodeRef; peer: NodeRef; method: string } | null;
  members: { id: number; name: string; state: string; voter: boolean; witness: boolean }[];
  /** `isSettling`: a change is in force, and who waits for a lease still counts by the former limits (rule 14). */
  limits: {
    heartbeatMs: number;
    leaseMs: number;
    marginMs: number;
    suspectMs: number;
    deadMs: number;
    electionMs: number;
    isSettling: boolean;
  };
  journal: { path: string; state: string; sizeBytes: number };
  /** `state`: up, connecting, down. `backlogBytes`: kept for the peer, unsent or unacknowledged. */
  links: { node: number; name: string; address: string; state: string; backlogBytes: number }[];
  sessions: number;
  /** Locks of owners on this node: granted ones and waiting requests. */
  locks: { held: number; waiting: number };
  nodeOwnedAllowed: boolean;
  /** The others count on it that this machine ends itself within so many ms after its lease; 0 = on nothing. */
  armedMs: number;
  /** Domains whose locks are held in the kernel's dlmfs too: can they be, and why not; null = there are none. */
  bridge: { state: 'starting' | 'up' | 'down'; why: string; held: number } | null;
  files: FilesData;
  /** Sentences an operator should read: fence methods that fail, unsafe settings, a node that cannot be fenced. */
  warnings: string[];
}

/** The daemon that is about to end. */
export interface EndData {
  node: NodeRef;
  pid: number;
}
export interface LostHistoryArgs {
  /** Name of the other voter, whose history is given up. */
  node: string;
}
export interface LostHistoryData {
  node: string;
  /** Epoch that all tokens and views are above from now on. */
  epoch: number;
}

export interface NodesData {
  epoch: number;
  nodes: NodeEntry[];
}
export interface NodeEntry {
  id: number;
  name: string;
  state: string;
  voter: boolean;
  /** It votes and owns nothing. */
  witness: boolean;
  /** It gets a vote once it has caught up. */
  wantsVote: boolean;
  /** Fence levels. */
  fence: string[][];
  /** Id of the journal that its membership is bound to; '' until it was a member. */
  journal: string;
  isLeader: boolean;
  isSelf: boolean;
  address: string;
  /** Of the incarnation that is, or was last, a member; null when it was never seen. */
  incarnation: { startCount: number; bootId: string } | null;
  /** Link from the answering node: up, connecting, down, or self. */
  link: string;
  fencedBy: string;
  /** A person's word that it is over is in the log, and it still counts as being fenced. */
  isConfirmed: boolean;
}

export interface ListArgs {
  /** Only this domain. */
  domain?: string;
  /** `next` of the answer before. */
  after?: string;
}
export interface ListData {
  locks: ListEntry[];
  next: string | null;
}
export interface ListEntry {
  domain: string;
  name: string;
  /** Strongest granted mode; NL when only waiters are known. */
  mode: ModeName;
  /** First holder, as "host:pid label"; '' when there is none. */
  owner: string;
  /** Node of that holder, or null. */
  node: NodeRef | null;
  holders: number;
  waiting: number;
  isNodeOwned: boolean;
  /** A file of the answering node that was open when its mount, or daemon, went away (rule 6). */
  isOrphan: boolean;
}

export interface ShowArgs {
  domain: string;
  name: string;
}
export interface ShowData {
  domain: string;
  name: string;
  master: NodeRef | null;
  lvbState: 'none' | 'valid' | 'invalid';
  holders: ShowHolder[];
  /** In the order in which they will be served, conversions first. */
  waiting: ShowWaiter[];
  /** Waiters beyond SHOW_WAITERS_MAX. */
  moreWaiting: number;
}
export interface ShowHolder {
  mode: ModeName;
  node: NodeRef;
  who: string;
  why: string;
  /** Decimal; '0' for NL. */
  token: string;
  sinceMs: number;
  isNodeOwned: boolean;
}
export interface ShowWaiter {
  /** What it holds meanwhile (a conversion), else null. */
  from: ModeName | null;
  mode: ModeName;
  node: NodeRef;
  who: string;
  why: string;
  sinceMs: number;
}

export interface UnlockArgs {
  domain: string;
  name: string;
}
export interface UnlockData {
  domain: string;
  name: string;
}
export interface ConvertArgs {
  domain: string;
  name: string;
  mode: ModeName;
  try: boolean;
  /** 0 = wait for ever. */
  timeoutMs: number;
}
export interface ConvertData {
  domain: string;
  name: string;
  mode: ModeName;
  token: string;
}

export interface FenceHistoryArgs {
  /** Only this node. */
  node?: string;
}
export interface FenceHistoryData {
  /** Oldest first. */
  operations: FenceOperation[];
}
/** One fence operation, as the log has it. Points in time are ISO 8601, by the clock of the leader of that time; '' = none. */
export interface FenceOperation {
  /** Name of the victim. */
  node: string;
  startCount: number;
  /** Who or what asked for it, and why. */
  reason: string;
  began: string;
  /** Leaders that carried it out, in order. */
  fencers: string[];
  /** The newest tries. */
  tries: FenceTryEntry[];
  /** How many tries there were in all. */
  tried: number;
  confirmed: { who: string; through: string; at: string } | null;
  /** running, fenced, returned (it came back in time), left (it left cleanly before the first off). */
  outcome: 'running' | 'fenced' | 'returned' | 'left';
  /** What ended it, methods joined with "+". */
  method: string;
  /** It was seen again on the boot that this had ended. */
  isDisproved: boolean;
}
export interface FenceTryEntry {
  by: string;
  at: string;
  /** From 1. */
  level: number;
  methods: string;
  attempt: number;
  ok: boolean;
  detail: string;
  tookMs: number;
}
export interface FenceTrustArgs {
  node: string;
  method: string;
}
export interface FenceTrustData {
  node: string;
  method: string;
  leader: NodeRef;
}

export interface FenceStepsData {
  /** Oldest first, of all nodes that answered. */
  results: FenceStepEntry[];
  /** Members that did not answer. */
  silent: NodeRef[];
}
/** One step at one device, as the node that took it remembers it. */
export interface FenceStepEntry {
  agoMs: number;
  /** The node that did it. */
  by: NodeRef;
  /** Name of the victim. */
  node: string;
  startCount: number;
  method: string;
  /** off, verify, on, or confirm (a person's word). */
  step: string;
  attempt: number;
  reason: string;
  ok: boolean;
  detail: string;
  tookMs: number;
}
export interface FenceCheckArgs {
  /** Only the devices of this node. */
  node?: string;
}
export interface FenceCheckData {
  /** Where from the devices were looked at. */
  at: NodeRef;
  devices: { node: string; method: string; ok: boolean; detail: string }[];
}
/** `startCount` is the incarnation that the operator saw; the order is for no other. */
export interface FenceOrderArgs {
  node: string;
  startCount: number;
  reason?: string;
}
export interface FenceOrderData {
  node: NodeRef;
  startCount: number;
  leader: NodeRef;
}

/** The mountable files of the answering node. */
export interface FilesData {
  /** Path where mounts connect; null = they cannot. */
  socket: string | null;
  /** host:port on loopback, or null. */
  listen: string | null;
  /** Why this node serves no mounts (rule 2), or null. */
  refusal: string | null;
  mounts: FilesMount[];
  /** Files that were open when their mount lost its connection, or the daemon ended: never recalled. */
  orphans: FilesOrphan[];
  /** Messages answered with an error because they made no sense, and connections ended for what the client did. */
  refusedMessages: number;
  endedConnections: number;
}
export interface FilesMount {
  /** Its aname, as `tsdlm mount` gives it, or a number. */
  mount: string;
  sinceMs: number;
  domains: number;
  files: number;
  open: number;
  /** Opens that wait. */
  waiting: number;
}
export interface FilesOrphan {
  mount: string;
  domain: string;
  name: string;
  mode: ModeName;
  holders: number;
  sinceMs: number;
}
/** What is given must fit: a mount's, a name's, or (`all`) all orphan holds of the answering node. */
export interface FilesFreeArgs {
  mount?: string;
  domain?: string;
  name?: string;
  all?: boolean;
}
export interface FilesFreeData {
  freed: FilesOrphan[];
}

export interface StatsArgs {
  /** Of this node; default: the one asked. */
  node?: string;
}
/** One daemon in figures. Counters begin at its start. */
export interface StatsData {
  node: NodeRef;
  cluster: string;
  version: string;
  pid: number;
  uptimeMs: number;
  role: Role;
  state: string;
  /** LOCK_GULM's generation id: the epoch of the view. */
  epoch: number;
  term: number;
  /** Place among the voters, from 1 in the order of their numbers; 0 = no vote. */
  rank: number;
  leader: NodeRef | null;
  quorum: QuorumData;
  leaseLeftMs: number;
  configSum: string;
  domains: DomainEntry[];
  /** At the resources that this node masters. */
  mastered: { resources: number; nl: number; pr: number; ex: number; converting: number; blocked: number };
  /** Of owners on this node. */
  owned: { nl: number; pr: number; ex: number; waiting: number; nodeOwned: number };
  /** As a master. conflicts: had to wait. basts: recalls sent. */
  counters: { requests: number; grants: number; conflicts: number; refusals: number; basts: number; releases: number };
  links: { name: string; state: string; backlogBytes: number }[];
  sessions: number;
  journal: { state: string; sizeBytes: number };
  memory: { rssBytes: number; heapBytes: number; externalBytes: number };
}

export interface ShutdownArgs {
  /** Default: the node asked. */
  node?: string;
  /** Whatever it costs. */
  force?: boolean;
}
export interface ShutdownData {
  node: NodeRef;
  startCount: number;
  /** What it costs, and was accepted with `force`. */
  costs: string[];
}

export interface DomainJoinArgs {
  domain: string;
  /** Default: what the configuration says, or the domain has. */
  mastery?: 'peer' | 'servers';
}
