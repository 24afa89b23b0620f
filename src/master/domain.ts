/**
 * One domain on this node: its members, its resources, its mastery rounds and the state of its recovery barrier.
 */

import type { AwayMember, MasteryPolicy, Member } from '../membership/types.js';
import { IdMap } from '../protocol/id-map.js';
import type { NodeId, StartCount } from '../protocol/ids.js';
import type { HandedResource, LockMessage } from '../protocol/peer-messages.js';
import type { Lock } from './lock.js';
import type { LockRes } from './lockres.js';
import type { NodeSet } from './node-set.js';
import type { Pass } from './pass.js';

/**
 * Master list entry: what this node knows of mastery rounds for one name whose master it does not know (o2dlm's MLE).
 * `isAsking`: our own round runs. `rivals`: nodes whose rounds run too and whose end we will be told.
 */
export interface Mle {
  name: string;
  isAsking: boolean;
  /** Members that have not answered our round. */
  pending: NodeSet;
  /** Nodes asking for this name; each ends with its AssertMaster. Under `servers`, at the nominee: nodes that wait for its answer. */
  rivals: NodeSet;
  /** Owner learned from an answer or a rival's assert; 0 = none. */
  found: NodeId;
  foundGen: number;
  /** Somebody could not say: ask again at `retryAt`. */
  isRetry: boolean;
  /** 0 = not scheduled. */
  retryAt: number;
  /** Under `servers`: the master that the nominee named, to be asked itself; 0 = none. */
  hint: NodeId;
}

export class Domain {
  readonly dom: number;
  readonly name: string;
  epoch = 0;
  mastery: MasteryPolicy = 'peer';
  members: Member[] = [];
  leaving: Member[] = [];
  /** Members that may master in this epoch: all, or the servers. */
  masters: readonly Member[] = [];
  masterIds = new Set<NodeId>();
  away: AwayMember[] = [];
  /** Nobody is there to be told anything. */
  awayIds = new Set<NodeId>();
  /** Node numbers of members, for quick tests. */
  memberIds = new Set<NodeId>();
  /** Members, leaving ones, and those that are away but have something to say: who takes part in the barrier. */
  barrierIds = new Set<NodeId>();
  isLeaving = false;
  /** Leaving: what was mastered here has been collected for the others. */
  hasHandedOver = false;

  readonly resources = new Map<string, LockRes>();
  readonly mles = new Map<string, Mle>();
  /** Locks of other nodes at resources mastered here: node -> lock id -> lock. */
  readonly remote = new Map<NodeId, IdMap<Lock>>();

  /** Names whose rounds an epoch change cut short: to be asked for again even if nobody wants them (see voidRounds). */
  readonly askedBefore = new Set<string>();
  /** Barrier 1 reached by (this epoch). */
  readonly doneFrom = new Set<NodeId>();
  /** Everybody registered: our rebuilt resources serve again. */
  isRecovering = false;
  /** Our own RecoveryDone was sent in this epoch. */
  isDoneSent = false;
  /**
   * Local locks of which something was sent to their master in this epoch, until it is answered: should the epoch end before, the
   * master may have refused it. An answer that ends it otherwise leaves an entry behind, which the next epoch forgets.
   */
  readonly underWay = new IdMap<Lock>();
  /** The change of members that resources are being brought over; null: all are at the present epoch. */
  pass: Pass | null = null;
  /** Locks of restarted nodes that they have not claimed, by node (rules 1, 3). */
  readonly unclaimed = new Map<NodeId, Set<Lock>>();
  /** Nodes that will not claim any more; what they have left is being dropped. */
  dropping: NodeId[] = [];
  /** Own resources whose new master has not confirmed. */
  readonly unconfirmed = new Set<LockRes>();
  /** Masters that have confirmed in this epoch, and whose resources will be taken out of `unconfirmed`, one after the other. */
  confirming: NodeId[] = [];
  /** For these that is under way; null = for none. */
  confirmRound: { masters: ReadonlySet<NodeId>; cursor: Iterator<LockRes> } | null = null;
  /** Resources in state REBUILDING: placed here, and not rebuilt. Behind the barrier they are rebuilt one after the other. */
  readonly toRebuild = new Set<LockRes>();
  /** In a recovery: resources without a master that somebody may want once the barrier is reached. */
  readonly wanted = new Set<LockRes>();
  /** Registrations for resources we are to master: name -> what holders sent. */
  readonly rebuilding = new Map<string, Rebuild>();
  /** Leaving: resources handed over and not yet confirmed by their new master. */
  readonly handing = new Map<string, Handing>();
  /** Requests that wait for the barrier, in order of arrival. */
  parked: { from: NodeId; msg: LockMessage }[] = [];
  /** Messages of a newer epoch than ours. */
  ahead: { from: NodeId; msg: LockMessage }[] = [];
  /** Peers whose link was reset in this epoch: their lock messages wait for the next (rule 25). peer -> epoch. */
  readonly tainted = new Map<NodeId, number>();
  /** This node restarted, and owners may still claim what it held before: it is not done at any barrier (rule 1). */
  isInGrace = false;
  /** Locks of before its restart that this node has still to claim before it is done at the barrier (rules 1, 3). */
  readonly claims = new Set<Lock>();

  idleHead: LockRes | null = null;
  idleTail: LockRes | null = null;
  idleCount = 0;

  constructor(dom: number, name: string) {
    this.dom = dom;
    this.name = name;
  }

  startCountOf(node: NodeId): StartCount {
    for (const m of this.members) if (m.node === node) return m.startCount;
    for (const m of this.leaving) if (m.node === node) return m.startCount;
    for (const m of this.away) if (m.node === node) return m.startCount;
    return 0;
  }
}

/** A resource on its way to its next master. */
export interface Handing {
  target: NodeId;
  data: HandedResource;
  /** An epoch that `target` may have begun to serve it in is over, and it has not confirmed: only it knows the last state. */
  mayBeServed: boolean;
}

/** What is known of a resource that we rebuild. */
export interface Rebuild {
  name: string;
  /** Locks of other nodes, made from registrations; one for each node and id (rebuild.ts `noteLock`). */
  locks: Lock[];
  /** Where each stands among many. */
  index: Map<string, number> | null;
  handed: HandedResource | null;
  /** Requests that came behind the barrier and before it was rebuilt, in order. */
  parked: { from: NodeId; msg: LockMessage }[];
}
