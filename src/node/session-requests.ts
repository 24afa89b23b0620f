/**
 * What each request of a client means for the core.
 *
 * The problem: requests, answers and ends cross each other. A release may come while a conversion waits, a grant may come
 * for an owner that is gone, events may come before the call that caused them returns, and no event may call back into
 * the core. So every lock has one small record (Hold) that says what was asked, told and is to be done. What is asked of the
 * core for one is session-hold-calls.ts, what its events mean session-events.ts, and claims after a restart session-reclaim.ts.
 */
import type { ClientMessage } from '../protocol/client-messages.js';
import { SESSION_LOCKS_MAX } from '../protocol/limits.js';
import { EX, type Mode, modeName } from '../protocol/modes.js';
import { LOCK_LVB, LOCK_NODE_OWNED, LOCK_TRY } from '../protocol/peer-messages.js';
import type { Session } from './session.js';
import { type EventsOptions, SessionEvents } from './session-events.js';
import { Hold } from './session-hold.js';
import { HoldCalls } from './session-hold-calls.js';
import { WaitingPlaces } from './session-places.js';
import { type ReclaimsOptions, SessionReclaims } from './session-reclaim.js';
import { NODE_OWNED_REFUSED } from './session-text.js';

type Message<K extends ClientMessage['k']> = Extract<ClientMessage, { k: K }>;

export type RequestsOptions = EventsOptions & ReclaimsOptions;

export class SessionRequests {
  readonly calls: HoldCalls;
  readonly events: SessionEvents;
  readonly reclaims: SessionReclaims;
  readonly #o: RequestsOptions;
  readonly #places = new WaitingPlaces();

  constructor(options: RequestsOptions) {
    this.#o = options;
    this.calls = new HoldCalls(options.core, options.now);
    this.events = new SessionEvents(options, this.calls);
    this.reclaims = new SessionReclaims(options, this.calls, this.events, this.#places);
  }

  /** The clock has moved on by a tick. */
  tick(): void {
    this.#places.tick();
  }

  lock(session: Session, m: Message<'ClientLock'>): void {
    const known = session.holds.get(m.rid);
    if (known?.isUnasked === true) {
      // Asked of the daemon before, whose record has it: the client had not been told its place yet.
      this.reclaims.recognize(session, known, m.rid);
      return;
    }
    if (session.holds.has(m.rid) || session.converting.has(m.rid)) {
      session.deny(m.rid, 'TSDLM_BAD_ARGUMENT', `request number ${m.rid} is in use in this session`);
      return;
    }
    if (session.holds.size >= SESSION_LOCKS_MAX) {
      session.deny(m.rid, 'TSDLM_LIMIT_REACHED', `this session has ${SESSION_LOCKS_MAX} locks, which is the most; release some`);
      return;
    }
    const nodeOwned = (m.flags & LOCK_NODE_OWNED) !== 0;
    const hold = new Hold(session, m.rid, nodeOwned, (m.flags & LOCK_LVB) !== 0);
    if (nodeOwned) {
      if (!this.#o.nodeOwnedAllowed()) {
        session.deny(m.rid, 'TSDLM_NOT_ALLOWED', NODE_OWNED_REFUSED);
        return;
      }
      const other = this.#o.nodeOwned.find(m.domain, m.name);
      if (other !== undefined) {
        const state = other.told >= 0 ? `owns '${m.name}' in ${modeName(other.told as Mode)}` : `waits for '${m.name}'`;
        session.deny(m.rid, 'TSDLM_CONFLICT', `this node already ${state}: convert it, or release it with tsdlm unlock`);
        return;
      }
      this.#o.nodeOwned.add(m.domain, m.name, hold);
    }
    session.holds.set(m.rid, hold);
    if ((m.flags & LOCK_TRY) === 0) this.#places.add(hold);
    const now = this.#o.now();
    // Events may come before this returns: they find the record through ctx.
    hold.lock = this.#o.core.lock(now, {
      domain: m.domain,
      name: m.name,
      mode: m.mode,
      try: (m.flags & LOCK_TRY) !== 0,
      nodeOwned,
      lvb: hold.usesLvb,
      who: session.who,
      why: m.why,
      deadline: m.timeoutMs > 0 ? now + m.timeoutMs : 0,
      ctx: hold,
    });
  }

  convert(session: Session, m: Message<'ClientConvert'>): void {
    const hold = session.holds.get(m.lock);
    if (hold === undefined || hold.lock === null || !hold.isGranted || hold.release !== null) {
      session.deny(m.rid, 'TSDLM_NOT_HELD', `lock ${m.lock} of this session is not held, so it cannot be converted`);
    } else if (hold.asked !== 0 || hold.converted !== null) {
      session.deny(m.rid, 'TSDLM_BAD_ARGUMENT', `lock ${m.lock} of this session is being converted already`);
    } else if (session.holds.has(m.rid) || session.converting.has(m.rid)) {
      session.deny(m.rid, 'TSDLM_BAD_ARGUMENT', `request number ${m.rid} is in use in this session`);
    } else {
      hold.asked = m.rid;
      session.converting.set(m.rid, hold);
      if (m.lvb !== null) hold.usesLvb = true;
      this.calls.convert(hold, hold.lock, m.mode, (m.flags & LOCK_TRY) !== 0, m.timeoutMs, m.lvb);
    }
  }

  unlock(session: Session, m: Message<'ClientUnlock'>): void {
    const hold = session.holds.get(m.lock);
    if (hold === undefined || hold.release !== null) {
      session.deny(m.rid, 'TSDLM_NOT_HELD', `lock ${m.lock} of this session is not held`);
      return;
    }
    if (m.lvb !== null) hold.usesLvb = true;
    this.calls.release(hold, m.rid, m.lvb);
  }

  cancel(session: Session, m: Message<'ClientCancel'>): void {
    const hold = session.holds.get(m.target) ?? session.converting.get(m.target);
    // Answered before: the answer is on its way and tells the outcome.
    if (hold?.lock && hold.asked === m.target) this.#o.core.cancel(this.#o.now(), hold.lock);
    session.done(m.rid);
  }

  writeLvb(session: Session, m: Message<'ClientLvbWrite'>): void {
    const hold = session.holds.get(m.lock);
    if (hold === undefined || hold.lock === null || !hold.isGranted || hold.release !== null) {
      session.deny(m.rid, 'TSDLM_NOT_HELD', `lock ${m.lock} of this session is not held, so its value cannot be written`);
    } else if (hold.told !== EX) {
      session.deny(
        m.rid,
        'TSDLM_BAD_ARGUMENT',
        `a value block is written under EX; lock ${m.lock} is held in ${modeName(hold.told as Mode)}`,
      );
    } else if (m.lvb === null) {
      session.deny(m.rid, 'TSDLM_BAD_ARGUMENT', 'a value block of 64 bytes is missing');
    } else {
      hold.usesLvb = true;
      this.#o.core.writeLvb(hold.lock, m.lvb);
      session.done(m.rid);
    }
  }

  /** Withdraws what the session waits for, and forgets who asked. */
  withdrawWaiting(session: Session): void {
    for (const hold of [...session.holds.values()]) {
      if (hold.asked === 0 || hold.lock === null) continue;
      if (!hold.isGranted) hold.isDead = true;
      this.#o.core.cancel(this.#o.now(), hold.lock);
    }
  }

  /** The owner is gone: frees all of the session's locks, and leaves the node its own. */
  freeAll(session: Session): void {
    for (const hold of [...session.holds.values()]) {
      if (hold.nodeOwned && hold.isGranted) {
        session.holds.delete(hold.rid);
        session.granted--;
        if (hold.asked !== 0 && hold.lock !== null) this.#o.core.cancel(this.#o.now(), hold.lock);
        hold.asked = 0;
        hold.session = null;
        continue;
      }
      if (hold.isReleasing) continue;
      hold.isDead = true;
      if (hold.lock === null) continue;
      if (hold.asked !== 0) this.#o.core.cancel(this.#o.now(), hold.lock);
      else this.calls.unlock(hold, hold.lock);
    }
    session.converting.clear();
    if (session.holds.size === 0) this.#o.emptied(session);
  }
}
