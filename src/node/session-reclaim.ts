/**
 * What clients had before this daemon was restarted, claimed again.
 *
 * The problem: the record of a restart names what the last daemon knew, clients come back and say what they know, and both may
 * have changed meanwhile. The idea: the record is claimed at once and marked as not asked for; what a client names is matched
 * with it or claimed beside it, and what it does not name by the time it is done it has given up.
 */
import type { ClientMessage } from '../protocol/client-messages.js';
import { SESSION_LOCKS_MAX } from '../protocol/limits.js';
import { EX, type Mode } from '../protocol/modes.js';
import { LOCK_LVB, LOCK_NODE_OWNED } from '../protocol/peer-messages.js';
import type { DoorCore } from './clock-core.js';
import type { RecordedClaim } from './journal.js';
import type { Session } from './session.js';
import type { SessionEvents } from './session-events.js';
import { Hold } from './session-hold.js';
import type { HoldCalls } from './session-hold-calls.js';
import type { NodeOwnedLocks } from './session-node-owned.js';
import type { WaitingPlaces } from './session-places.js';
import { NODE_OWNED_REFUSED } from './session-text.js';

type Message<K extends ClientMessage['k']> = Extract<ClientMessage, { k: K }>;

export interface ReclaimsOptions {
  core: DoorCore;
  now: () => number;
  nodeOwnedAllowed: () => boolean;
  nodeOwned: NodeOwnedLocks;
}

export class SessionReclaims {
  readonly #o: ReclaimsOptions;
  readonly #calls: HoldCalls;
  readonly #events: SessionEvents;
  readonly #places: WaitingPlaces;

  constructor(options: ReclaimsOptions, calls: HoldCalls, events: SessionEvents, places: WaitingPlaces) {
    this.#o = options;
    this.#calls = calls;
    this.#events = events;
    this.#places = places;
  }

  /** A client is back and says what it had. What the record of the restart named the core has claimed already. */
  reclaim(session: Session, m: Message<'ClientReclaim'>): void {
    const known = session.holds.get(m.rid);
    if (known !== undefined) {
      this.#found(session, known, m);
      return;
    }
    const isHeld = m.mode <= EX;
    const want = m.want <= EX ? (m.want as Mode) : -1;
    const nodeOwned = (m.flags & LOCK_NODE_OWNED) !== 0;
    if ((!isHeld && want === -1) || (isHeld && nodeOwned) || session.converting.has(m.rid)) {
      session.deny(m.rid, 'TSDLM_BAD_ARGUMENT', 'a claim names a session lock that is held, or a request that waits');
    } else if (nodeOwned && !this.#o.nodeOwnedAllowed()) {
      session.deny(m.rid, 'TSDLM_NOT_ALLOWED', NODE_OWNED_REFUSED);
    } else if (nodeOwned && this.#o.nodeOwned.find(m.domain, m.name) !== undefined) {
      session.deny(m.rid, 'TSDLM_CONFLICT', `this node already owns '${m.name}' or waits for it`);
    } else if (session.holds.size >= SESSION_LOCKS_MAX) {
      session.deny(m.rid, 'TSDLM_LIMIT_REACHED', `this session has ${SESSION_LOCKS_MAX} locks, which is the most; release some`);
    } else {
      const now = this.#o.now();
      this.#claim(session, now, {
        id: m.id,
        domain: m.domain,
        name: m.name,
        mode: isHeld ? (m.mode as Mode) : -1,
        want,
        nodeOwned,
        lvb: (m.flags & LOCK_LVB) !== 0,
        te: m.te,
        tc: m.tc,
        se: m.se,
        sc: m.sc,
        lvbState: m.lvbState,
        value: m.lvb,
        isDirty: m.dirty,
        who: session.who,
        why: m.why,
        deadline: m.timeoutMs > 0 ? now + m.timeoutMs : 0,
        session: session.key,
        rid: m.rid,
        convert: isHeld ? m.convert : 0,
      }).reclaim = isHeld ? m.rid : 0;
    }
  }

  /** The daemon claims what the record of its restart names; the client, if it comes back, finds it. */
  restore(session: Session, claim: RecordedClaim): void {
    const hold = this.#claim(session, this.#o.now(), claim);
    hold.isUnasked = true;
    if (claim.session === '') this.#calls.release(hold, 0, null);
  }

  #claim(session: Session, now: number, claim: RecordedClaim): Hold {
    const { rid, convert, session: _, ...rest } = claim;
    const hold = new Hold(session, rid, claim.nodeOwned, claim.lvb);
    session.holds.set(rid, hold);
    if (claim.nodeOwned) this.#o.nodeOwned.add(claim.domain, claim.name, hold);
    if (claim.mode !== -1) {
      hold.told = claim.mode;
      hold.since = now;
      hold.isClaimed = true;
      session.granted++;
      session.claimed++;
      hold.asked = convert;
      hold.wanted = convert === 0 ? -1 : claim.want;
      if (convert !== 0) session.converting.set(convert, hold);
    } else {
      this.#places.add(hold);
    }
    // Events may come before this returns: they find the record through ctx.
    const lock = this.#o.core.reclaim(now, { ...rest, ctx: hold });
    if (session.holds.get(rid) === hold) hold.lock = lock;
    return hold;
  }

  /** A client asks (again) for what was in the record. False when it waits, and is told its place. */
  recognize(session: Session, hold: Hold, rid: number): boolean {
    hold.isUnasked = false;
    // What the core has not confirmed yet is told when it has.
    if (hold.isClaimed) hold.reclaim = rid;
    else if (hold.isGranted && hold.lock !== null) this.#events.tellGranted(session, rid, hold.lock);
    else {
      this.#places.add(hold);
      return false;
    }
    return true;
  }

  /** A claim of a client for what was in the record. */
  #found(session: Session, hold: Hold, m: Message<'ClientReclaim'>): void {
    if (hold.asked !== 0 && hold.isGranted && hold.asked !== m.convert && hold.lock !== null) {
      // Its client gave the conversion up meanwhile.
      session.converting.delete(hold.asked);
      hold.asked = 0;
      this.#o.core.cancel(this.#o.now(), hold.lock);
    }
    if (!this.recognize(session, hold, m.rid)) return;
    if (m.convert === 0 || hold.asked === m.convert || hold.lock === null) return;
    // Decided while the client was away, or never asked for.
    if (hold.told === m.want) this.#events.tellGranted(session, m.convert, hold.lock);
    else if (!hold.isClaimed && m.want <= EX) {
      hold.asked = m.convert;
      session.converting.set(m.convert, hold);
      this.#calls.convert(hold, hold.lock, m.want as Mode, false, 0, null);
    }
  }

  /** All that the client had has been claimed: what it did not name it has given up meanwhile. */
  resumed(session: Session): void {
    for (const hold of [...session.holds.values()]) {
      if (!hold.isUnasked) continue;
      hold.isUnasked = false;
      if (hold.release === null) this.#calls.release(hold, 0, null);
    }
  }

  /** What a session has, for the record of a restart; null: its owner is gone. */
  recorded(ctx: unknown): { session: Session; rid: number; convert: number } | null {
    const hold = ctx;
    if (!(hold instanceof Hold) || hold.session === null || hold.isDead || hold.release !== null) return null;
    return { session: hold.session, rid: hold.rid, convert: hold.isGranted ? hold.asked : 0 };
  }
}
