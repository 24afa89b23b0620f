/**
 * Checks S3: what a PR or EX grant says of the value block.
 *
 * The model keeps, per resource, the *set* of answers that are allowed: one value while everybody lives, more where a crash makes
 * the outcome open. Every grant narrows the set to what it said. Allowed answers are numbers: 0 = none, -1 = invalid,
 * above = the unique number inside a written block.
 *  - a release or down-convert with a value, once complete or once anybody else was granted after it: exactly that value;
 *  - its node died first: that value or invalid (never the older value);
 *  - an EX holder with a written, unpublished value died: invalid only;
 *  - a master may have gone (a new view) and no living PR/EX copy exists: also invalid;
 *  - no lock existed for a moment (rule 18: S3 holds while any lock exists): anything known so far, none, invalid.
 */
import { type Hold, isOver } from './check-holds.js';

interface Pending {
  hold: Hold;
  value: number;
  /** The master may have gone since, with the only copy that is certainly current. */
  mayBeLost: boolean;
  /** No lock existed for a moment since: all may be forgotten. */
  mayBeForgotten: boolean;
}

const NONE = 0;
const INVALID = -1;

export class LvbModel {
  readonly #key: string;
  readonly #fail: (text: string) => void;
  #allowed = new Set<number>([NONE]);
  #pending: Pending[] = [];
  /** Holds seen at the last look, to notice those that died. */
  #dead = new Set<Hold>();

  constructor(key: string, fail: (text: string) => void) {
    this.#key = key;
    this.#fail = fail;
  }

  /** The EX holder begins to publish (release or down-convert). `value` INVALID (-1): its writer died (rule 18). */
  publishing(hold: Hold, value: number): void {
    this.#pending.push({ hold, value, mayBeLost: false, mayBeForgotten: false });
    hold.dirty = false;
  }

  /** The release or down-convert of this hold is complete. */
  published(hold: Hold): void {
    const at = this.#pending.findIndex((p) => p.hold === hold);
    if (at < 0) return;
    const [p] = this.#pending.splice(at, 1);
    if (p) this.#commit(p, false);
  }

  /** The down-convert was refused: nobody knows whether the value was taken. */
  publishFailed(hold: Hold): void {
    const at = this.#pending.findIndex((p) => p.hold === hold);
    if (at < 0) return;
    const [p] = this.#pending.splice(at, 1);
    if (p) this.#allowed.add(p.value).add(INVALID);
  }

  /** Folds in what happened since the last look, before a grant on this resource counts. `holds`: as before the grant. */
  beforeGrant(holds: readonly Hold[], mode: number, now: number): void {
    this.#foldDead(holds, now);
    if (!holds.some((h) => !isOver(h, now))) {
      this.#allowed.add(NONE).add(INVALID);
      for (const p of this.#pending) p.mayBeForgotten = true;
    }
    // NL goes with EX: such a grant says nothing about a release under way.
    if (mode > 0) this.#foldPending(now);
  }

  /**
   * Masters may have gone. The value of a release under way is no certain copy: its old master may have granted, and taken a newer
   * value from, somebody who is gone as well.
   */
  viewChanged(holds: readonly Hold[], now: number): void {
    this.#foldDead(holds, now);
    for (const h of holds) if (h.mode > 0 && h.usesLvb && !isOver(h, now) && isReachable(h, now)) return;
    this.#allowed.add(INVALID);
    for (const p of this.#pending) p.mayBeLost = true;
  }

  /** A PR or EX grant with use of the value block said `answer`. */
  answered(hold: Hold, answer: number): void {
    if (!this.#allowed.has(answer)) {
      this.#fail(
        `S3: ${this.#key} granted to n${hold.node} with value ${text(answer)}, allowed is ${[...this.#allowed].map(text).join(' or ')}`,
      );
    }
    this.#allowed = new Set([answer]);
  }

  #foldDead(holds: readonly Hold[], now: number): void {
    for (const h of holds) {
      if (h.mode !== 2 || !h.usesLvb || h.end < Number.POSITIVE_INFINITY || !isOver(h, now) || this.#dead.has(h)) continue;
      this.#dead.add(h);
      this.#died(h);
    }
  }

  /** An EX holder ended without a release. Also called for holds of a machine that was switched off. */
  died(hold: Hold): void {
    if (hold.mode !== 2 || !hold.usesLvb || this.#dead.has(hold)) return;
    this.#dead.add(hold);
    this.#died(hold);
  }

  #died(hold: Hold): void {
    if (hold.dirty) this.#allowed = new Set([INVALID]);
    else this.#allowed.add(INVALID);
  }

  #foldPending(now: number): void {
    for (const p of this.#pending) this.#commit(p, !isReachable(p.hold, now));
    this.#pending = [];
  }

  #commit(p: Pending, isUnsure: boolean): void {
    this.#allowed = new Set([p.value]);
    if (isUnsure || p.mayBeLost || p.mayBeForgotten) this.#allowed.add(INVALID);
    if (p.mayBeForgotten) this.#allowed.add(NONE);
  }
}

/** Its daemon life runs and is inside its lease: a recovery hears of it. */
function isReachable(hold: Hold, now: number): boolean {
  return hold.lease.alive && hold.lease.until > now;
}

function text(answer: number): string {
  return answer === NONE ? 'none' : answer === INVALID ? 'invalid' : `#${answer}`;
}
