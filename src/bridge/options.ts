/** What the bridge is made of: its two neighbours, their clocks, and its domains. */
import type { CoreApi } from '../core/types.js';
import type { LocalEvents } from '../master/types.js';
import type { Millis } from '../protocol/ids.js';
import type { BridgeLink, LinkEvents } from './link.js';

/** What owners ask of the core; the bridge offers the same. */
export type OwnerCore = Pick<
  CoreApi,
  'holdUntil' | 'isSuspended' | 'lock' | 'reclaim' | 'convert' | 'unlock' | 'cancel' | 'writeLvb' | 'setInUse'
>;

export interface BridgeOptions {
  core: OwnerCore;
  /** Where events go: the doors. */
  events: LocalEvents;
  /** The core's clock. */
  now: () => Millis;
  /** A time of the core's clock on CLOCK_MONOTONIC. */
  toMonotonic: (time: Millis) => Millis;
  /** Bridged domains. */
  domains: ReadonlySet<string>;
  /** Opens the link; its events may come from then on. */
  link: (events: LinkEvents) => BridgeLink;
  /** The last deadline that a daemon before this one may have told owners, on the core's clock; until then they may come and claim. */
  toldUntil: Millis;
  /** What nobody has claimed by then is given up so much later. */
  claimMs: number;
  /** The record of a clean restart names all that was held, and is claimed before the helper is attached (rules 3, 23). */
  hasRecord: boolean;
  /** Names of node-owned locks in the journal, "domain/name": they will be claimed. */
  journaled: ReadonlySet<string>;
  /** Owners may be told a later deadline than `lease` allowed when it was asked. */
  leaseMoved: () => void;
  /** Runs what calls the core; a broken invariant in it ends the daemon. */
  step: (work: () => void) => void;
  log: (level: 'info' | 'warn' | 'error', event: string, data: Record<string, unknown>) => void;
}

export interface BridgeStatus {
  state: 'starting' | 'up' | 'down';
  why: string;
  /** Names held in the kernel. */
  held: number;
}

/** Work that is done later, and not at all once the bridge is closed. */
export class Timers {
  readonly #step: (work: () => void) => void;
  readonly #timers = new Set<NodeJS.Timeout>();

  constructor(step: (work: () => void) => void) {
    this.#step = step;
  }

  later(ms: number, work: () => void): NodeJS.Timeout {
    const timer = setTimeout(() => {
      this.#timers.delete(timer);
      this.#step(work);
    }, ms);
    this.#timers.add(timer);
    return timer;
  }

  clear(timer: NodeJS.Timeout): void {
    clearTimeout(timer);
    this.#timers.delete(timer);
  }

  close(): void {
    for (const timer of this.#timers) clearTimeout(timer);
    this.#timers.clear();
  }
}
