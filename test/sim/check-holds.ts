/**
 * Checks S1 (exclusion) and S2 (tokens) from outside: only what owners were told counts, in the real time of the world.
 *
 * A hold begins when its owner is told of the grant. It ends when its owner starts to release it, when its machine is
 * switched off, or at the deadline its owner was told, whichever is first (rule 11). That the core said `lost`, or that the
 * daemon died, does not end it: the owner may be a process that nobody can reach. A node-owned hold has no deadline.
 */
import { type Mode, modeName } from '../../src/protocol/modes.js';
import { LvbModel } from './check-lvb.js';

/** How long the owners of one daemon life may act, in real time. Grows with each renewal they were told of. */
export interface ToldLease {
  until: number;
  /** The daemon life runs. */
  alive: boolean;
}

export interface Hold {
  readonly key: string;
  readonly node: number;
  readonly id: number;
  readonly nodeOwned: boolean;
  readonly usesLvb: boolean;
  /** Of the daemon that told its owner last. */
  lease: ToldLease;
  /** A deadline that an earlier daemon told its owner, in real time. */
  floor: number;
  mode: Mode;
  /** Written under the present EX, not yet published. */
  dirty: boolean;
  from: number;
  /** Infinity until it ended by a release, a switched-off machine, or a lapsed lease. */
  end: number;
}

/** Until when its owner may count on it. */
export function deadlineOf(hold: Hold): number {
  return Math.max(hold.lease.until, hold.floor);
}

export function isOver(hold: Hold, now: number): boolean {
  return hold.end <= now || (!hold.nodeOwned && deadlineOf(hold) <= now);
}

interface Resource {
  holds: Hold[];
  tokenEpoch: number;
  tokenCounter: number;
  tokenHolder: string;
  lvb: LvbModel;
}

export class HoldChecker {
  readonly #fail: (text: string) => void;
  readonly #resources = new Map<string, Resource>();
  grants = 0;

  constructor(fail: (text: string) => void) {
    this.#fail = fail;
  }

  get names(): string[] {
    return [...this.#resources.keys()];
  }

  /** A first grant. The value block is checked by the caller through {@link lvbOf}. */
  granted(hold: Hold, now: number): void {
    const res = this.#resource(hold.key);
    this.grants++;
    res.lvb.beforeGrant(res.holds, hold.mode, now);
    res.holds = res.holds.filter((h) => !isOver(h, now));
    res.holds.push(hold);
    this.#check(res, hold, now);
  }

  /** A granted conversion, up or down. */
  converted(hold: Hold, mode: Mode, now: number): void {
    const res = this.#resource(hold.key);
    if (mode > hold.mode) res.lvb.beforeGrant(res.holds, mode, now);
    res.holds = res.holds.filter((h) => h === hold || !isOver(h, now));
    if (!res.holds.includes(hold)) res.holds.push(hold);
    if (mode > hold.mode) {
      hold.mode = mode;
      this.grants++;
      this.#check(res, hold, now);
    } else {
      hold.mode = mode;
    }
  }

  /** A conversion down was refused: the mode that its owner meant to give up was never given away. */
  kept(hold: Hold, mode: Mode, now: number): void {
    const res = this.#resource(hold.key);
    hold.mode = mode;
    if (res.holds.includes(hold) && !isOver(hold, now)) this.#check(res, hold, now);
  }

  /** S2: the token of an EX grant. */
  token(hold: Hold, epoch: number, counter: number): void {
    const res = this.#resource(hold.key);
    if (epoch < res.tokenEpoch || (epoch === res.tokenEpoch && counter <= res.tokenCounter)) {
      this.#fail(
        `S2: EX grant of ${hold.key} to ${name(hold)} has token ${epoch}:${counter}, not above ${res.tokenEpoch}:${res.tokenCounter} of ${res.tokenHolder}`,
      );
    }
    res.tokenEpoch = epoch;
    res.tokenCounter = counter;
    res.tokenHolder = name(hold);
  }

  /** The owner has begun to release. */
  released(hold: Hold, now: number): void {
    if (hold.end > now) hold.end = now;
  }

  /** The machine is off: whatever was told on it is over, also by earlier lives of its daemon. */
  machineGone(node: number, now: number): void {
    for (const res of this.#resources.values()) {
      for (const h of res.holds) {
        if (h.node !== node || isOver(h, now)) continue;
        res.lvb.died(h);
        h.end = now;
      }
    }
  }

  lvbOf(key: string): LvbModel {
    return this.#resource(key).lvb;
  }

  /** A new view has been seen for the first time: masters may have gone. */
  viewChanged(now: number): void {
    for (const res of this.#resources.values()) res.lvb.viewChanged(res.holds, now);
  }

  /** Holds of the resource that count now, for messages. */
  holders(key: string, now: number): string[] {
    const res = this.#resources.get(key);
    return res ? res.holds.filter((h) => !isOver(h, now)).map((h) => `${name(h)} ${modeName(h.mode)}`) : [];
  }

  #resource(key: string): Resource {
    let res = this.#resources.get(key);
    if (!res) {
      res = { holds: [], tokenEpoch: 0, tokenCounter: 0, tokenHolder: 'nobody', lvb: new LvbModel(key, this.#fail) };
      this.#resources.set(key, res);
    }
    return res;
  }

  #check(res: Resource, hold: Hold, now: number): void {
    for (const other of res.holds) {
      if (other === hold || isOver(other, now)) continue;
      // Written out rather than asked of src/protocol/modes.ts: the checker shares no code with what it checks.
      const isExcluded = (hold.mode === 2 && other.mode > 0) || (other.mode === 2 && hold.mode > 0);
      if (!isExcluded) continue;
      const till = other.nodeOwned ? 'its release' : deadlineOf(other).toFixed(3);
      this.#fail(
        `S1: ${hold.key} granted ${modeName(hold.mode)} to ${name(hold)} while ${name(other)} holds ${modeName(other.mode)} since ${other.from.toFixed(3)} until ${till}`,
      );
    }
  }
}

function name(hold: Hold): string {
  return `n${hold.node}/${Math.floor(hold.id / 2 ** 32)}.${hold.id % 2 ** 32}${hold.nodeOwned ? '(node-owned)' : ''}`;
}
