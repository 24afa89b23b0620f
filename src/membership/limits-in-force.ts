/**
 * The time limits in force: those of the view, changed online by command (rule 14).
 *
 * The problem: a lease of 10 s becomes one of 3 s; a member that was acknowledged a moment ago under 10 s is cut off; whoever waits
 * 3 s for it grants what it still holds. The idea: who *gives* a lease goes by the applied view, so only what a majority has in its
 * logs; who *waits* for one takes the largest lease and margin of all limits that may still be out there: the present ones, the
 * former ones until the log says that they are settled, and those that stand in our log and are not applied yet.
 * The leader settles a change when every member has acknowledged it and then one former lease and margin have passed
 * (table-change.ts); that is a command too, so that a leader elected meanwhile goes on waiting.
 *
 * Until the log names the limits (its first command does), those of the configuration are in force, which the handshake compares.
 */
import type { Millis } from '../protocol/ids.js';
import { deriveTimeLimits, type TimeLimits } from './time-limits.js';
import type { LimitValues, View, ViewLimits } from './types.js';

/** The five that are set; the others follow from them. */
export function limitValues(l: TimeLimits): LimitValues {
  const { heartbeatMs, leaseMs, suspectMs, deadMs, electionMs } = l;
  return { heartbeatMs, leaseMs, suspectMs, deadMs, electionMs };
}

/** Lease and margin of these limits. */
export function waitOf(l: TimeLimits): Millis {
  return l.leaseMs + l.marginMs;
}

/** The longest lease that a process may have told its owners whose journal ends with this view: for who starts after it (rule 1). */
export function longestLeaseMs(configured: TimeLimits, ahead: View): Millis {
  const { limits } = ahead;
  return limits === null ? configured.leaseMs : Math.max(limits.active.leaseMs, limits.former?.leaseMs ?? 0);
}

export class LimitsInForce implements TimeLimits {
  private readonly configured: TimeLimits;
  private readonly applied: () => View;
  private readonly tail: () => View;
  private active: TimeLimits;
  private waits: readonly TimeLimits[];
  private from: { applied: ViewLimits | null; tail: ViewLimits | null } = { applied: null, tail: null };

  /** `applied`: what is committed here; `tail`: the view after all entries of our log. */
  constructor(configured: TimeLimits, applied: () => View, tail: () => View) {
    this.configured = configured;
    this.applied = applied;
    this.tail = tail;
    this.active = configured;
    this.waits = [configured];
  }

  /** What who gives a lease, or keeps time for itself, goes by. */
  get current(): TimeLimits {
    const applied = this.applied().limits;
    const tail = this.tail().limits;
    if (applied === this.from.applied && tail === this.from.tail) return this.active;
    this.from = { applied, tail };
    this.active = applied === null ? this.configured : deriveTimeLimits(applied.active);
    const all = [applied, tail].flatMap((l) => (l === null ? [] : l.former === null ? [l.active] : [l.active, l.former]));
    this.waits = applied === null ? [this.configured, ...all.map(deriveTimeLimits)] : all.map(deriveTimeLimits);
    return this.active;
  }

  /** Version of the limits that are applied here; 0 while those of the configuration are. */
  get version(): number {
    return this.applied().limits?.version ?? 0;
  }

  get heartbeatMs(): Millis {
    return this.current.heartbeatMs;
  }
  get leaseMs(): Millis {
    return this.current.leaseMs;
  }
  get marginMs(): Millis {
    return this.current.marginMs;
  }
  get suspectMs(): Millis {
    return this.current.suspectMs;
  }
  get deadMs(): Millis {
    return this.current.deadMs;
  }
  get electionMs(): Millis {
    return this.current.electionMs;
  }
  get tickMs(): Millis {
    return this.current.tickMs;
  }

  /** Lease and margin that who waits for a lease of unknown length has to wait. */
  get waitMs(): Millis {
    return this.longest(waitOf);
  }

  /** Margin on top of a lease whose end is known. */
  get waitMarginMs(): Millis {
    return this.longest((l) => l.marginMs);
  }

  private longest(of: (l: TimeLimits) => Millis): Millis {
    let most = of(this.current);
    for (const l of this.waits) most = Math.max(most, of(l));
    return most;
  }
}
