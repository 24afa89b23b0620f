/**
 * Leases: who may act on local knowledge, and until when (trap 1, rules 15 and 24).
 *
 * The problem: a member that is cut off does not know that the others go on without it, and the others do not know when it
 * noticed. The idea is a chain counted from *sent* messages on each clock by itself: voters acknowledge the leader's heartbeats, so
 * the leader holds a lease from the time the majority-th newest acknowledged one left; it passes on no more than what is left
 * of that; the member counts it from when its own acknowledgement left. Whoever waits for a lease to be over waits on his own
 * clock for the lease and a margin that covers the drift between the two.
 *
 *   real time:   leader sends h ---- voter acks ---- member acks a ---- leader answers ---------------- the end
 *                |<----------------------- leaseMs on the leader's clock ------------------------>|
 *                                                    a + remaining on the member's clock
 *
 * A new leader does not know what the last one passed on; each vote carries the age of the voter's last acknowledgement, and any
 * majority of voters contains one that took part in the last lease, so the youngest age bounds it. Voters change one at a time and
 * only when no lease given under another set can run any more (voter-change.ts), which keeps that true.
 */
import type { Millis, NodeId, StartCount } from '../protocol/ids.js';
import type { TimeLimits } from './time-limits.js';
import { majority } from './voter-set.js';

/** On the wire for "never": a number, because infinity does not travel. */
export const NEVER_MS = 1e12;

/** Leases are given by the limits of now; who waits for one takes the longest margin that may still be counted by (rule 14). */
export type LeaseLimits = Pick<TimeLimits, 'leaseMs'> & { readonly waitMarginMs: Millis };

/** The leader's side, for one time of leading. */
export class LeaderLeases {
  /** Until then a lease granted by an earlier leader may run. */
  safeAt: Millis = Number.NEGATIVE_INFINITY;
  private readonly self: NodeId;
  private readonly voters: () => readonly NodeId[];
  private readonly limits: LeaseLimits;
  private startedAt: Millis = 0;
  /** Newest heartbeat send time that each other node has acknowledged; whose count is asked when it is counted. */
  private readonly acked = new Map<NodeId, Millis>();
  private readonly granted = new Map<NodeId, { startCount: StartCount; until: Millis }>();

  /** `voters`: the set in force. */
  constructor(self: NodeId, voters: () => readonly NodeId[], limits: LeaseLimits) {
    this.self = self;
    this.voters = voters;
    this.limits = limits;
  }

  begin(now: Millis, safeAt: Millis): void {
    this.startedAt = now;
    this.safeAt = safeAt;
    this.acked.clear();
    this.granted.clear();
  }

  /** A node acknowledged the heartbeat that left at `sentAt` on our clock. */
  acknowledged(now: Millis, from: NodeId, sentAt: Millis): void {
    if (sentAt > now || sentAt < this.startedAt) return;
    if (sentAt > (this.acked.get(from) ?? Number.NEGATIVE_INFINITY)) this.acked.set(from, sentAt);
  }

  /** End of what the quorum gave us: the majority-th newest acknowledged send time (our own is now) plus the lease. */
  leaseEnd(now: Millis): Millis {
    const voters = this.voters();
    const times: Millis[] = [];
    for (const voter of voters) {
      const at = voter === this.self ? now : this.acked.get(voter);
      if (at !== undefined) times.push(at);
    }
    times.sort((a, b) => b - a);
    return (times[majority(voters) - 1] ?? Number.NEGATIVE_INFINITY) + this.limits.leaseMs;
  }

  /** Grants what is left to a member; gives the milliseconds, 0 when nothing is. */
  grant(now: Millis, node: NodeId, startCount: StartCount): Millis {
    const remaining = Math.min(this.limits.leaseMs, this.leaseEnd(now) - now);
    if (!(remaining > 0)) return 0;
    // What an earlier incarnation was given may still run: the next one on the same boot answers for its owners (rule 1).
    const until = Math.max(now + remaining, this.granted.get(node)?.until ?? Number.NEGATIVE_INFINITY);
    this.granted.set(node, { startCount, until });
    return remaining;
  }

  /** From when on this incarnation's lease is certainly over, provided that it gets no other. */
  overAt(node: NodeId, _startCount: StartCount): Millis {
    const granted = this.granted.get(node);
    if (granted === undefined) return this.safeAt;
    // What an earlier leader gave may outlast what we gave, also to the same incarnation: the time limits may have been changed (rule 14).
    return Math.max(granted.until + this.limits.waitMarginMs, this.safeAt);
  }
}

/** Our own lease as a member. */
export class OwnLease {
  /** On our clock; 0 = we have none. */
  until: Millis = 0;
  /** The incarnation whose lease ended by our own clock in this process: that one is over beyond doubt. */
  lapsed: StartCount = 0;

  extend(now: Millis, until: Millis): void {
    if (until > now) this.until = Math.max(this.until, until);
  }

  isOver(now: Millis): boolean {
    return this.until !== 0 && now >= this.until;
  }

  lapse(startCount: StartCount): void {
    this.until = 0;
    this.lapsed = startCount;
  }
}

/** A voter's memory of the last heartbeat it acknowledged, for its votes (rule 24). */
export class AckMemory {
  private at: Millis;
  private never: boolean;

  /** `blank`: nothing at all is in the journal yet, so this node never acknowledged anything before with it. */
  constructor(now: Millis, blank: boolean) {
    this.at = now;
    this.never = blank;
  }

  acknowledged(now: Millis): void {
    this.at = now;
    this.never = false;
  }

  ageMs(now: Millis): Millis {
    return this.never ? NEVER_MS : now - this.at;
  }
}
