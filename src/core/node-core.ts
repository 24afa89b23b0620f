/**
 * One node's pure core: the membership core and the lock engine, composed.
 *
 * The problem: each of the two reacts to the other (a view changes what the engine may do, the engine wants commands in
 * the log, a lapsed lease ends both), and neither may be entered while it is at work. The idea: their effects on each
 * other are only noted while a call runs, and carried out in a loop before the call returns. Every call looks at the clock
 * first: a process that was stopped and wakes with a backlog finds its lease over before it handles anything else.
 */
import { dumpEngine } from '../master/dump.js';
import { Engine } from '../master/engine.js';
import type { EngineTuning } from '../master/state.js';
import type { ClaimedLock, EngineOutput, LocalLock, LockOptions } from '../master/types.js';
import { Membership } from '../membership/membership.js';
import type {
  Command,
  FenceRequest,
  FenceVerdict,
  MasteryPolicy,
  MembershipOutput,
  TableCommand,
  View,
} from '../membership/types.js';
import type { TableVerdict } from '../membership/voter-change.js';
import type { ErrorCode } from '../protocol/errors.js';
import type { Incarnation, Millis, NodeId, StartCount } from '../protocol/ids.js';
import type { Mode } from '../protocol/modes.js';
import type { ControlMessage, LockMessage, PeerMessage } from '../protocol/peer-messages.js';
import type { CoreApi, CoreInit, CoreOutput } from './types.js';

/** Lock messages by their kind; all others are control messages. */
const LOCK_KINDS: ReadonlySet<PeerMessage['k']> = new Set<LockMessage['k']>([
  'MasterRequest',
  'MasterReply',
  'AssertMaster',
  'LockRequest',
  'Grant',
  'Deny',
  'ConvertRequest',
  'UnlockRequest',
  'UnlockDone',
  'CancelRequest',
  'Bast',
  'NotMaster',
  'Deref',
  'DerefDone',
  'Register',
  'HandOver',
  'RecoveryDone',
  'RecoveryActive',
  'Reclaim',
  'RegisterDone',
]);

export class NodeCore implements CoreApi {
  readonly membership: Membership;
  readonly engine: Engine;
  private readonly out: CoreOutput;
  private startCount: StartCount;
  private views: View[] = [];
  private commands: Command[] = [];
  private overReason: string | null = null;
  private overAtLeast: StartCount = 0;
  /** The host was asked to call `advance`, and has not yet. */
  private isToAdvance = false;
  private lastMember = false;
  private lastHoldUntil: Millis = 0;
  private lastSuspended = false;
  /** What the view is to say of this machine's end; 0 = nothing ends it. */
  private armedMs = 0;

  constructor(init: CoreInit & { tuning?: Partial<EngineTuning> }, out: CoreOutput) {
    this.out = out;
    this.startCount = init.incarnation.startCount;
    const membershipOut: MembershipOutput = {
      send: (to, msg) => out.send(to, msg),
      persist: (batch) => out.persist(batch),
      viewChanged: (view) => {
        this.views.push(view);
      },
      fence: (request: FenceRequest) => out.fence(request),
      incarnationOver: (reason, atLeast) => {
        this.overReason = reason;
        this.overAtLeast = atLeast;
      },
      distrusted: (why) => out.distrusted(why),
      note: (level, event, data) => out.note(level, event, data),
    };
    const engineOut: EngineOutput = {
      granted: (lock) => out.granted(lock),
      denied: (lock, code) => out.denied(lock, code),
      released: (lock) => out.released(lock),
      bast: (lock, mode) => out.bast(lock, mode),
      lost: (lock, code) => out.lost(lock, code),
      send: (to, msg) => out.send(to, msg),
      propose: (command) => {
        this.commands.push(command);
      },
      journal: (ticket, op) => out.journal(ticket, op),
      restartRecord: (claims) => out.restartRecord(claims),
      note: (level, event, data) => out.note(level, event, data),
    };
    this.membership = new Membership(init, membershipOut);
    this.engine = new Engine(
      {
        self: init.self,
        startCount: init.incarnation.startCount,
        view: this.membership.view,
        nodeOwned: init.nodeOwned,
        isNodeOwnedUnsafe: init.isNodeOwnedUnsafe ?? false,
        endsItself: init.endsItself ?? false,
        ...(init.mastery ? { mastery: init.mastery } : {}),
        hasRecord: init.hasRecord ?? false,
        graceUntil: init.hasRecord ? 0 : (init.toldUntil ?? 0),
        ...(init.tuning ? { tuning: init.tuning } : {}),
      },
      engineOut,
    );
    this.settle(init.now);
  }

  get view(): View {
    return this.membership.view;
  }
  get isMember(): boolean {
    return this.membership.isMember;
  }
  get leaseUntil(): Millis {
    return this.membership.leaseUntil;
  }
  get holdUntil(): Millis {
    return this.membership.holdUntil;
  }
  get isSuspended(): boolean {
    return this.membership.isSuspended;
  }
  get fencesAlone(): { node: NodeId; startCount: StartCount } | null {
    return this.membership.fencesAlone;
  }
  get waitingFor(): { node: NodeId; why: string } | null {
    return this.membership.waitingFor;
  }
  get leader(): NodeId {
    return this.membership.leader;
  }

  /** First of all the clock: what the lease no longer covers must not happen (design section 6, trap 9). */
  private enter(now: Millis): void {
    const until = this.membership.leaseUntil;
    if (until !== 0 && now >= until) {
      this.membership.tick(now);
      this.settle(now);
    }
  }

  /** Carries out what the last call brought about between the two halves, until nothing is left. */
  private settle(now: Millis): void {
    for (;;) {
      if (this.overReason !== null) {
        const reason = this.overReason;
        this.overReason = null;
        this.views = [];
        this.commands = [];
        this.engine.reset(now);
        this.announce(now);
        this.out.incarnationOver(reason, this.overAtLeast);
      } else if (this.views.length > 0) {
        const view = this.views.shift() as View;
        this.engine.applyView(now, view);
        this.out.viewChanged(view);
      } else if (this.commands.length > 0) {
        const command = this.commands.shift() as Command;
        this.membership.propose(now, command);
      } else {
        this.announce(now);
        if (this.views.length === 0 && this.commands.length === 0 && this.overReason === null) break;
      }
    }
    if (!this.isToAdvance && this.engine.hasWork) {
      this.isToAdvance = true;
      this.out.moreToDo();
    }
  }

  /** The next step of what goes in steps; see CoreOutput.moreToDo. */
  advance(now: Millis): void {
    this.enter(now);
    this.isToAdvance = false;
    this.engine.advance(now);
    this.settle(now);
  }

  private announce(now: Millis): void {
    const { isMember: member, leaseUntil: lease, holdUntil, isSuspended } = this.membership;
    if (member !== this.lastMember) {
      this.lastMember = member;
      this.out.memberChanged(member);
    }
    if (holdUntil !== this.lastHoldUntil || isSuspended !== this.lastSuspended) {
      this.lastHoldUntil = holdUntil;
      this.lastSuspended = isSuspended;
      this.out.lease(holdUntil, isSuspended);
    }
    const isLeased = member && lease > now;
    if (isSuspended && !this.engine.state.isSuspended) this.engine.suspend(now);
    else if (!isSuspended && this.engine.state.isSuspended) this.engine.resume(now, isLeased);
    if (isLeased !== this.engine.state.isLeased) this.engine.setLeased(now, isLeased);
  }

  tick(now: Millis, wallMs?: number): void {
    this.membership.tick(now, wallMs);
    this.settle(now);
    this.announceArmed(now);
    this.engine.tick(now);
    this.settle(now);
  }

  arm(ms: number): void {
    this.armedMs = ms;
  }

  private announceArmed(now: Millis): void {
    if (!this.membership.isMember) return;
    const { self, startCount } = this.engine.state;
    if (this.membership.view.nodes.find((n) => n.id === self)?.armedMs === this.armedMs) return;
    this.membership.propose(now, { c: 'armed', node: self, startCount, ms: this.armedMs });
    this.settle(now);
  }

  receive(now: Millis, from: NodeId, msg: PeerMessage): void {
    this.enter(now);
    if (LOCK_KINDS.has(msg.k)) this.engine.receive(now, from, msg as LockMessage);
    else this.membership.receive(now, from, msg as ControlMessage);
    this.settle(now);
  }

  peerUp(now: Millis, peer: NodeId, startCount: StartCount, reset: boolean): void {
    this.enter(now);
    this.membership.peerUp(now, peer);
    this.settle(now);
    if (reset) this.engine.peerReset(now, peer, startCount);
    this.settle(now);
  }

  peerDown(now: Millis, peer: NodeId): void {
    this.enter(now);
    this.membership.peerDown(now, peer);
    this.settle(now);
  }

  persisted(now: Millis, ticket: number): void {
    this.enter(now);
    this.membership.persisted(now, ticket);
    this.settle(now);
  }

  journaled(now: Millis, ticket: number): void {
    this.enter(now);
    this.engine.journaled(now, ticket);
    this.settle(now);
  }

  journalFailed(now: Millis, ticket: number, code: ErrorCode): boolean {
    this.enter(now);
    const isSettled = this.engine.journalFailed(now, ticket, code);
    this.settle(now);
    return isSettled;
  }

  fenceDone(now: Millis, op: number, ok: boolean, detail: string): void {
    this.enter(now);
    this.membership.fenceDone(now, op, ok, detail);
    this.settle(now);
  }

  confirmFence(now: Millis, node: NodeId, startCount: StartCount, by: string): FenceVerdict {
    this.enter(now);
    const verdict = this.membership.confirmFence(now, node, startCount, by);
    this.settle(now);
    return verdict;
  }

  fenceNode(now: Millis, node: NodeId, startCount: StartCount, reason: string): FenceVerdict {
    this.enter(now);
    const verdict = this.membership.fenceNode(now, node, startCount, reason);
    this.settle(now);
    return verdict;
  }

  acceptLostHistory(now: Millis, peer: NodeId, who: string): FenceVerdict {
    this.enter(now);
    const verdict = this.membership.acceptLostHistory(now, peer, who);
    this.settle(now);
    return verdict;
  }

  changeTable(now: Millis, command: TableCommand): TableVerdict {
    this.enter(now);
    const verdict = this.membership.changeTable(now, command);
    this.settle(now);
    return verdict;
  }

  trustFence(now: Millis, node: NodeId, method: string, who: string): FenceVerdict {
    this.enter(now);
    const verdict = this.membership.trustFence(now, node, method, who);
    this.settle(now);
    return verdict;
  }

  reincarnate(now: Millis, incarnation: Incarnation): void {
    this.startCount = incarnation.startCount;
    this.engine.reincarnate(incarnation.startCount);
    this.membership.reincarnate(now, incarnation);
    this.settle(now);
  }

  lock(now: Millis, options: LockOptions): LocalLock {
    this.enter(now);
    const lock = this.engine.lock(now, options);
    if (this.commands.length > 0) this.settle(now);
    return lock;
  }

  /** See Engine.joinDomain. */
  joinDomain(now: Millis, name: string, mastery: MasteryPolicy | null): string | null {
    this.enter(now);
    const text = this.engine.joinDomain(now, name, mastery);
    this.settle(now);
    return text;
  }

  convert(now: Millis, lock: LocalLock, mode: Mode, options: { try: boolean; deadline: Millis; lvb: Uint8Array | null }): void {
    this.enter(now);
    this.engine.convert(now, lock, mode, options);
    if (this.commands.length > 0) this.settle(now);
  }

  unlock(now: Millis, lock: LocalLock, options?: { lvb?: Uint8Array | null; lvbInvalid?: boolean }): void {
    this.enter(now);
    this.engine.unlock(now, lock, options);
    if (this.commands.length > 0) this.settle(now);
  }

  cancel(now: Millis, lock: LocalLock): void {
    this.enter(now);
    this.engine.cancel(now, lock);
    if (this.commands.length > 0) this.settle(now);
  }

  writeLvb(lock: LocalLock, value: Uint8Array): void {
    this.engine.writeLvb(lock, value);
  }

  setInUse(now: Millis, lock: LocalLock, isInUse: boolean, recorded: (ok: boolean) => void): void {
    this.enter(now);
    this.engine.setInUse(now, lock, isInUse, recorded);
  }

  stop(now: Millis): void {
    this.enter(now);
    this.membership.stopJoining();
    this.engine.stop(now);
    this.settle(now);
  }

  reclaim(now: Millis, claim: ClaimedLock): LocalLock {
    this.enter(now);
    const lock = this.engine.reclaim(now, claim);
    this.settle(now);
    return lock;
  }

  restart(now: Millis): void {
    this.enter(now);
    this.engine.restart(now);
    this.settle(now);
  }

  restartWritten(now: Millis, forMs: Millis): void {
    this.enter(now);
    this.engine.restartWritten(now, forMs);
    this.settle(now);
  }

  settled(now: Millis): void {
    this.enter(now);
    this.engine.settled(now);
    this.settle(now);
  }

  dump(): Record<string, unknown> {
    return {
      startCount: this.startCount,
      isMember: this.isMember,
      leaseUntil: this.leaseUntil,
      isSuspended: this.isSuspended,
      membership: this.membership.dump(),
      engine: dumpEngine(this.engine),
    };
  }
}
