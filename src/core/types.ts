/**
 * The border of a whole node's pure core: membership and lock engine composed, as production (src/node) and the
 * simulator (test/sim) both run it. Single-threaded; no clock, no random, no I/O: time and all outside facts come in with
 * each call, effects go out through CoreOutput, which must never call back into the core synchronously.
 */
import type { ClaimedLock, EngineOutput, LocalLock, LockOptions, NodeOwnedRecord } from '../master/types.js';
import type { FenceRequest, FenceVerdict, MembershipInit, PersistBatch, TableCommand, View } from '../membership/types.js';
import type { TableVerdict } from '../membership/voter-change.js';
import type { ErrorCode } from '../protocol/errors.js';
import type { Incarnation, Millis, NodeId, StartCount } from '../protocol/ids.js';
import type { Mode } from '../protocol/modes.js';
import type { PeerMessage } from '../protocol/peer-messages.js';

export interface CoreInit extends MembershipInit {
  /** Node-owned locks found in the journal (same boot id only; the journal module has dropped others). */
  nodeOwned: NodeOwnedRecord[];
  /** `unsafe_node_owned`: this node's own locks do not keep it from being fenced by its lease alone (rule 2). Default false. */
  isNodeOwnedUnsafe?: boolean;
  /** The host arms this machine to end itself without its daemon (`arm`). Default false. */
  endsItself?: boolean;
  /**
   * There is a record of a clean restart for the start count before this one: the host calls `reclaim` for all that it names,
   * before anything else. Without one owners claim what they had themselves, until `toldUntil` (rules 1, 3).
   */
  hasRecord?: boolean;
}

export interface CoreOutput extends Omit<EngineOutput, 'send' | 'propose'> {
  /** Something is left to do (a recovery goes in steps): call `advance` once, in a later turn, after the inputs that are there then. */
  moreToDo(): void;
  send(to: NodeId, msg: PeerMessage): void;
  persist(batch: PersistBatch): void;
  fence(request: FenceRequest): void;
  /** Raise the start count in the journal (synced), to at least `atLeast`, then call reincarnate. */
  incarnationOver(reason: string, atLeast: StartCount): void;
  /** This node's journal is older than what the cluster knows of it: note it there, and end (rule 12). */
  distrusted(why: string): void;
  /**
   * Holds of this node end at `until` (own clock); 0 = over now. `isSuspended`: the lease itself is over and nothing is granted,
   * but what is held goes on: the node moves the deadline by itself (rule 20).
   */
  lease(until: Millis, isSuspended: boolean): void;
  viewChanged(view: View): void;
  /** This node is a member now / is no member any more. */
  memberChanged(isMember: boolean): void;
}

export interface CoreApi {
  readonly view: View;
  readonly isMember: boolean;
  readonly leaseUntil: Millis;
  /** When holds of this node end: with the lease, or later while it is suspended (rule 20). */
  readonly holdUntil: Millis;
  readonly isSuspended: boolean;
  /** The other voter, which this node ends without a quorum, to go on alone (rule 13). */
  readonly fencesAlone: { node: NodeId; startCount: StartCount } | null;
  /** One of two voters that can not go on: which node it needs, and why. */
  readonly waitingFor: { node: NodeId; why: string } | null;
  readonly leader: NodeId;
  /** Runs all that is due: leases, elections, time-outs of requests. Call at least every limits.tickMs. `wallMs`: wall clock, for records. */
  tick(now: Millis, wallMs?: number): void;
  /** One more step of what goes in steps; see CoreOutput.moreToDo. */
  advance(now: Millis): void;
  /** A message of the link to `from`: lock messages exactly once and in order per link generation. */
  receive(now: Millis, from: NodeId, msg: PeerMessage): void;
  /** The link to `peer` is usable, to its incarnation `startCount`. `reset`: lock messages sent or received before may be lost. */
  peerUp(now: Millis, peer: NodeId, startCount: StartCount, reset: boolean): void;
  peerDown(now: Millis, peer: NodeId): void;
  persisted(now: Millis, ticket: number): void;
  journaled(now: Millis, ticket: number): void;
  /** The journal had no room for this write and lives on. False: the write was one that must not fail. */
  journalFailed(now: Millis, ticket: number, code: ErrorCode): boolean;
  fenceDone(now: Millis, op: number, ok: boolean, detail: string): void;
  /** Both by an operator, for exactly that incarnation, at the leader only. */
  confirmFence(now: Millis, node: NodeId, startCount: StartCount, by: string): FenceVerdict;
  fenceNode(now: Millis, node: NodeId, startCount: StartCount, reason: string): FenceVerdict;
  /** Changes the node table, at the leader only. */
  changeTable(now: Millis, command: TableCommand): TableVerdict;
  /** By an operator, at one of exactly two voters: goes on without knowing what the other did last; all locks are void (rule 13). */
  acceptLostHistory(now: Millis, peer: NodeId, who: string): FenceVerdict;
  trustFence(now: Millis, node: NodeId, method: string, who: string): FenceVerdict;
  reincarnate(now: Millis, incarnation: Incarnation): void;
  /** This machine ends itself within `ms` after the node's lease ended; 0 = it does not. Asked of the log until the view shows it. */
  arm(ms: number): void;

  /** Asks for a lock. The outcome comes as granted / denied, possibly before this returns. */
  lock(now: Millis, options: LockOptions): LocalLock;
  /** An owner claims what it held or waited for under an earlier daemon on this boot. See Engine.reclaim. */
  reclaim(now: Millis, claim: ClaimedLock): LocalLock;
  /** Asks for another mode of a granted lock. `lvb`: value to store when leaving EX. */
  convert(now: Millis, lock: LocalLock, mode: Mode, options: { try: boolean; deadline: Millis; lvb: Uint8Array | null }): void;
  /** Releases a granted lock. `lvb`: value to store, only under EX. `lvbInvalid`: its writer died (rule 18). */
  unlock(now: Millis, lock: LocalLock, options?: { lvb?: Uint8Array | null; lvbInvalid?: boolean }): void;
  /** Withdraws the waiting request or conversion; denied(TSDLM_CANCELLED) or granted follows, whichever won. */
  cancel(now: Millis, lock: LocalLock): void;
  /** Stores a value block under a held EX, to be published at the release. */
  writeLvb(lock: LocalLock, value: Uint8Array): void;
  /** Whether files are open under a lock of the file door; `recorded` once the journal has it (rule 6). */
  setInUse(now: Millis, lock: LocalLock, isInUse: boolean, recorded: (ok: boolean) => void): void;
  /** Clean stop: refuses new requests, waits until local owners are gone, hands over, leaves; `done` by memberChanged(false). */
  stop(now: Millis): void;
  /**
   * Restart (rule 23): hands masterships over, keeps locks; then `restartRecord` gives what the host has to write before it calls
   * restartWritten. When the view shows this node as `restarting` the host tells owners their deadline and ends the process.
   */
  restart(now: Millis): void;
  /** The record is synced: the view is to show that this node is away for at most `forMs` from now. */
  restartWritten(now: Millis, forMs: Millis): void;
  /** No owner counts on a deadline of an earlier restart any more. */
  settled(now: Millis): void;
  /** Everything this node knows, as plain data: state dump and `show`. */
  dump(): Record<string, unknown>;
}
