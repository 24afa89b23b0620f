/**
 * What all parts of the lock engine share: the node's identity, its clock, its tables, and the small operations that every
 * part needs. The parts (serve, hold, answers, mastery, recovery, idle) are functions over this state and know each other only
 * through `hooks` where a call would run against the direction of imports.
 */
import type { MasteryWishes, View } from '../membership/types.js';
import type { ErrorCode } from '../protocol/errors.js';
import { IdMap } from '../protocol/id-map.js';
import type { LockId, Millis, NodeId, StartCount } from '../protocol/ids.js';
import type { Mode } from '../protocol/modes.js';
import type { LockMessage } from '../protocol/peer-messages.js';
import { Counters } from './counters.js';
import { DeadlineTable } from './deadlines.js';
import type { Domain } from './domain.js';
import { type Lock, ST_GONE } from './lock.js';
import { LockRes } from './lockres.js';
import type { Pass } from './pass.js';
import { HeldBack } from './suspend.js';
import { TokenClock } from './token-clock.js';
import type { EngineOutput, JournalOp } from './types.js';

/** What the master tells the owner of a lock; for local owners a direct call, for others a message. */
export interface Hooks {
  granted(lock: Lock): void;
  denied(lock: Lock, code: ErrorCode): void;
  unlocked(lock: Lock): void;
  bast(lock: Lock, mode: Mode): void;
  /** The master of a resource has become known: its waiting requests may go. */
  ownerKnown(res: LockRes): void;
  /** Brings a resource to the domain's epoch. */
  visit(res: LockRes): void;
  /** All resources are at the epoch. */
  passDone(domain: Domain, pass: Pass): void;
  /** A message that waited is handled. */
  dispatch(domain: Domain, from: NodeId, msg: LockMessage): void;
  /** Nobody masters a resource that we claim from before a restart. */
  placeClaim(res: LockRes): void;
}

export interface EngineTuning {
  /** How long an unused resource is remembered (o2dlm DLM_PURGE_INTERVAL_MS is 8 s). */
  purgeDelayMs: Millis;
  /** Unused resources remembered per domain. */
  idleMax: number;
  /** A try that cannot be decided within this fails with TSDLM_UNAVAILABLE (rule 22). */
  tryLimitMs: Millis;
  /** Pause before a mastery round that met `retry` is repeated. */
  retryMs: Millis;
  /** Pause between repeated proposals. */
  proposeMs: Millis;
  /** What one step of a recovery does at most, in resources and locks; the host calls `advance` for the next (sweep.ts). */
  sliceOps: number;
  /** Locks in one registration with a new master, and such messages under way to it. */
  registerBatch: number;
  registerWindow: number;
}

export const DEFAULT_TUNING: EngineTuning = {
  purgeDelayMs: 8000,
  idleMax: 10_000,
  tryLimitMs: 500,
  retryMs: 50,
  proposeMs: 250,
  sliceOps: 100,
  registerBatch: 100,
  registerWindow: 4,
};

/** The common head of a lock message, as the message constructors below fill it in. */
export interface Head {
  dom: number;
  dep: number;
  ce: number;
  cc: number;
}

/** none; handing: masterships go; frozen: the record is being written; announcing: the view is to show it. */
export type RestartPhase = 'none' | 'handing' | 'frozen' | 'announcing';

/** A lock message without its head. */
export type Body<M = LockMessage> = M extends LockMessage ? Omit<M, keyof Head> : never;

export class EngineState {
  readonly self: NodeId;
  startCount: StartCount;
  readonly out: EngineOutput;
  readonly tuning: EngineTuning;
  hooks: Hooks;
  now: Millis = 0;
  view: View;
  readonly clock = new TokenClock();
  readonly counters = new Counters();
  /** Active domains of this node: those it is a member of (or leaving) with its present incarnation. */
  readonly domains = new Map<string, Domain>();
  readonly byDom = new Map<number, Domain>();
  /** All locks of local owners that have a resource. */
  readonly own = new IdMap<Lock>();
  private lockCounter = 0;
  private ticketCounter = 0;
  /** Journal writes under way: ticket -> what to do when written. */
  readonly journaling = new Map<number, { then: () => void; failed: ((code: ErrorCode) => void) | null }>();
  /** Work that must not run inside another handler; done at the end of the present call. */
  deferred: (() => void)[] = [];
  /** Local requests that wait for something other than a master: membership, a domain, the node-owned flag. */
  waiting = new Set<Lock>();
  /** A valid lease is at hand: local requests are served. */
  isLeased = false;
  /** The lease is over, the holds are not: nothing is granted and nothing of other nodes is handled (rule 20; suspend.ts). */
  isSuspended = false;
  /** Waits for the end of a suspension. */
  readonly held = new HeldBack();
  /** What waits for the lease: a restarted node claims before it has one, but tells of nothing new without. */
  whenLeased: (() => void)[] = [];
  /** Local requests that end at a time. */
  readonly deadlines = new DeadlineTable();
  /** Messages for domains we are not in (yet), by domain number. */
  readonly aheadOfDomain = new Map<number, { from: NodeId; msg: LockMessage }[]>();
  /** When the wishes of this node are proposed (again); 0: at once. */
  proposeAt: Millis = 0;
  /** Placeholders for locks whose domain is not active here, by domain name. */
  readonly detached = new Map<string, Domain>();
  /** Locks of the incarnation before, to be claimed by this one once it is active in their domains. */
  claimable: Lock[] = [];
  /** Conversions that waited when the daemon before ended: they go on when the lock itself is confirmed. */
  readonly claimedWants = new Map<LockId, Mode>();
  /** Ids of all claims so far. */
  readonly claimedIds = new Set<LockId>();
  /** Strongest mode claimed of each "domain/name". */
  readonly claimedModes = new Map<string, Mode>();
  /** No owner counts on a deadline of our restart any more: the view is to show it. */
  isSettled = false;
  /** A record names all that owners here hold from before. */
  hasRecord = false;
  /** Nothing names what owners here hold from before: until this time they may still claim it, and no barrier is done (rule 1). */
  graceUntil: Millis = 0;
  /** A restart is under way: what is mastered here goes to others, owners keep their locks (rule 23). */
  restart: RestartPhase = 'none';
  /** The view may go without this node for so long. Set with `restart` = announcing. */
  restartForMs: Millis = 0;
  /** This incarnation is over and the next has not begun: views are noted, nothing is done for a membership. */
  isOver = false;
  /** The operator takes the risk that an expired lease frees node-owned locks (`unsafe_node_owned`). */
  isNodeOwnedUnsafe = false;
  /** The host will arm this machine to end itself without its daemon. */
  endsItself = false;
  /** Policies of the domains that this node makes. */
  mastery: MasteryWishes = { standard: 'peer', domains: new Map() };
  /** Clean stop under way. */
  isStopping = false;

  constructor(
    self: NodeId,
    startCount: StartCount,
    view: View,
    out: EngineOutput,
    hooks: Hooks,
    tuning: Partial<EngineTuning> | undefined,
  ) {
    this.self = self;
    this.startCount = startCount;
    this.view = view;
    this.out = out;
    this.hooks = hooks;
    this.tuning = { ...DEFAULT_TUNING, ...tuning };
  }

  newLockId(): LockId {
    return this.startCount * 2 ** 32 + ++this.lockCounter;
  }

  /** Sends a lock message with the domain's head; nothing goes to a peer whose link was reset in this epoch. */
  send(domain: Domain, to: NodeId, body: Body): void {
    if (domain.tainted.size > 0 && domain.tainted.get(to) === domain.epoch) return;
    if (domain.awayIds.size > 0 && domain.awayIds.has(to)) return;
    const message = body as unknown as Head;
    message.dom = domain.dom;
    message.dep = domain.epoch;
    message.ce = this.clock.epoch;
    message.cc = this.clock.counter;
    this.out.send(to, body as unknown as LockMessage);
  }

  sendToMembers(domain: Domain, make: () => Body): void {
    for (const m of domain.members) if (m.node !== this.self) this.send(domain, m.node, make());
  }

  /** Writes to the journal of node-owned locks; `then` runs when written, `failed` when the journal refuses this one write. */
  journal(op: JournalOp, then: () => void, failed: ((code: ErrorCode) => void) | null = null): void {
    const ticket = ++this.ticketCounter;
    this.journaling.set(ticket, { then, failed });
    this.out.journal(ticket, op);
  }

  /** Brings the resource of a local lock to the domain's epoch: before that nobody may look at either (pass.ts). */
  touch(lock: Lock): void {
    if (lock.res.seen !== lock.res.domain.epoch && lock.st !== ST_GONE) this.hooks.visit(lock.res);
  }

  /** The resource of that name, at the domain's epoch. */
  find(domain: Domain, name: string): LockRes | undefined {
    const res = domain.resources.get(name);
    if (!res || res.seen === domain.epoch) return res;
    this.hooks.visit(res);
    return domain.resources.get(name);
  }

  /** The same, made on first use. */
  resource(domain: Domain, name: string): LockRes {
    let res = this.find(domain, name);
    if (!res) {
      res = new LockRes(domain, name);
      domain.resources.set(name, res);
    }
    return res;
  }

  note(level: 'info' | 'warn' | 'error', event: string, data: Record<string, unknown>): void {
    this.out.note(level, event, data);
  }
}
