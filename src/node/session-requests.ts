/**
 * What each request of a client means for the core, and what each event of the core means for the client.
 *
 * The problem: requests, answers and ends cross each other. A release may come while a conversion waits, a grant may come
 * for an owner that is gone, events may come before the call that caused them returns, and no event may call back into
 * the core. So every lock has one small record (Hold) that says what was asked, told and is to be done; a release that
 * cannot be done now is noted there and done when the core's answer comes, outside of its call.
 */

import { type LocalLock, LVB_VALID } from '../master/types.js';
import type { ClientMessage } from '../protocol/client-messages.js';
import type { ErrorCode } from '../protocol/errors.js';
import { SESSION_LOCKS_MAX } from '../protocol/limits.js';
import { EX, type Mode, modeName } from '../protocol/modes.js';
import { LOCK_LVB, LOCK_NODE_OWNED, LOCK_TRY } from '../protocol/peer-messages.js';
import type { DoorCore } from './clock-core.js';
import type { RecordedClaim } from './journal.js';
import type { Session } from './session.js';
import { Hold, type HoldCallback } from './session-hold.js';
import type { NodeOwnedLocks } from './session-node-owned.js';
import { denialText, lostText, NODE_OWNED_REFUSED } from './session-text.js';

type Message<K extends ClientMessage['k']> = Extract<ClientMessage, { k: K }>;

export interface RequestsOptions {
  core: DoorCore;
  now: () => number;
  nodeOwnedAllowed: () => boolean;
  nodeOwned: NodeOwnedLocks;
  /** The last lock of a session that has ended is gone. */
  emptied(session: Session): void;
  /** A lock was lost: a command that still runs under it must end now. */
  lostUnder(session: Session): void;
  granted(session: Session): void;
  /** Of what the session had before a restart one more is decided. */
  decided(session: Session): void;
}

export class SessionRequests {
  #o: RequestsOptions;
  #later: Hold[] = [];
  /** Asked for since the last tick, and before it: who still waits then is told its place. */
  #fresh: Hold[] = [];
  #waiting: Hold[] = [];

  constructor(options: RequestsOptions) {
    this.#o = options;
  }

  lock(session: Session, m: Message<'ClientLock'>): void {
    const known = session.holds.get(m.rid);
    if (known?.isUnasked === true) {
      // Asked of the daemon before, whose record has it: the client had not been told its place yet.
      this.#recognize(session, known, m.rid);
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
    if ((m.flags & LOCK_TRY) === 0) this.#fresh.push(hold);
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

  /** Who has waited for a while learns what it needs to keep its place over a restart of this daemon. */
  tick(): void {
    const waiting = this.#waiting;
    this.#waiting = this.#fresh;
    this.#fresh = [];
    for (const hold of waiting) {
      const { lock, session } = hold;
      if (lock === null || session === null || hold.isGranted || hold.asked === 0) continue;
      if (lock.se === 0) this.#fresh.push(hold);
      else session.push({ k: 'DaemonQueued', rid: hold.rid, id: lock.id, se: lock.se, sc: lock.sc });
    }
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
    } else if (nodeOwned && (!this.#o.nodeOwnedAllowed || this.#o.nodeOwned.find(m.domain, m.name) !== undefined)) {
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
    if (claim.session === '') this.release(hold, 0, null);
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
      this.#fresh.push(hold);
    }
    // Events may come before this returns: they find the record through ctx.
    const lock = this.#o.core.reclaim(now, { ...rest, ctx: hold });
    if (session.holds.get(rid) === hold) hold.lock = lock;
    return hold;
  }

  /** A client asks (again) for what was in the record. False when it waits, and is told its place. */
  #recognize(session: Session, hold: Hold, rid: number): boolean {
    hold.isUnasked = false;
    // What the core has not confirmed yet is told when it has.
    if (hold.isClaimed) hold.reclaim = rid;
    else if (hold.isGranted && hold.lock !== null) this.#tellGranted(session, rid, hold.lock);
    else {
      this.#fresh.push(hold);
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
    if (!this.#recognize(session, hold, m.rid)) return;
    if (m.convert === 0 || hold.asked === m.convert || hold.lock === null) return;
    // Decided while the client was away, or never asked for.
    if (hold.told === m.want) this.#tellGranted(session, m.convert, hold.lock);
    else if (!hold.isClaimed && m.want <= EX) {
      hold.asked = m.convert;
      session.converting.set(m.convert, hold);
      this.#convert(hold, hold.lock, m.want as Mode, false, 0, null);
    }
  }

  /** All that the client had has been claimed: what it did not name it has given up meanwhile. */
  resumed(session: Session): void {
    for (const hold of [...session.holds.values()]) {
      if (!hold.isUnasked) continue;
      hold.isUnasked = false;
      if (hold.release === null) this.release(hold, 0, null);
    }
  }

  #tellGranted(session: Session, rid: number, lock: LocalLock): void {
    const deadline = this.#o.core.holdUntil;
    // Told counts from here on, although the bytes leave only at the end of this turn.
    if (session.state === 'open' && deadline > session.told) session.told = deadline;
    session.push({
      k: 'DaemonGranted',
      rid,
      mode: lock.mode as Mode,
      te: lock.te,
      tc: lock.tc,
      deadline,
      lvbState: lock.lvbState,
      lvb: lock.lvbState === LVB_VALID ? lock.lvb : null,
      id: lock.id,
    });
  }

  /** The core has confirmed, or given up, what was held before the restart. */
  #confirm(hold: Hold, session: Session | null): void {
    hold.isClaimed = false;
    if (session === null) return;
    session.claimed--;
    if (hold.reclaim !== 0 && hold.lock !== null && hold.lock.mode !== -1) this.#tellGranted(session, hold.reclaim, hold.lock);
    hold.reclaim = 0;
    this.#o.decided(session);
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
      this.#convert(hold, hold.lock, m.mode, (m.flags & LOCK_TRY) !== 0, m.timeoutMs, m.lvb);
    }
  }

  #convert(hold: Hold, lock: LocalLock, mode: Mode, isTry: boolean, timeoutMs: number, lvb: Uint8Array | null): void {
    const now = this.#o.now();
    const value = hold.told === EX ? lvb : null;
    this.#o.core.convert(now, lock, mode, { try: isTry, deadline: timeoutMs > 0 ? now + timeoutMs : 0, lvb: value });
  }

  /** Converts a node-owned lock by name; the outcome goes to `callback`. */
  convertOwned(hold: Hold, mode: Mode, isTry: boolean, timeoutMs: number, callback: HoldCallback): void {
    if (hold.lock === null) return;
    hold.converted = callback;
    this.#convert(hold, hold.lock, mode, isTry, timeoutMs, null);
  }

  unlock(session: Session, m: Message<'ClientUnlock'>): void {
    const hold = session.holds.get(m.lock);
    if (hold === undefined || hold.release !== null) {
      session.deny(m.rid, 'TSDLM_NOT_HELD', `lock ${m.lock} of this session is not held`);
      return;
    }
    if (m.lvb !== null) hold.usesLvb = true;
    this.release(hold, m.rid, m.lvb);
  }

  /** Ends a lock in whatever state it is: a request under way is withdrawn first. */
  release(hold: Hold, rid: number, lvb: Uint8Array | null, done: HoldCallback | null = null): void {
    hold.release = { rid, lvb, done };
    if (hold.lock === null) return;
    if (hold.asked !== 0 || hold.converted !== null) this.#o.core.cancel(this.#o.now(), hold.lock);
    else this.#unlock(hold, hold.lock);
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

  /** What a session has, for the record of a restart; null: its owner is gone. */
  recorded(ctx: unknown): { session: Session; rid: number; convert: number } | null {
    const hold = ctx;
    if (!(hold instanceof Hold) || hold.session === null || hold.isDead || hold.release !== null) return null;
    return { session: hold.session, rid: hold.rid, convert: hold.isGranted ? hold.asked : 0 };
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
      else this.#unlock(hold, hold.lock);
    }
    session.converting.clear();
    if (session.holds.size === 0) this.#o.emptied(session);
  }

  #unlock(hold: Hold, lock: LocalLock): void {
    if (hold.isReleasing) return;
    hold.isReleasing = true;
    const lvb = hold.told === EX ? (hold.release?.lvb ?? null) : null;
    // A writer that died under EX may have been about to store a new value (rule 18).
    const lvbInvalid = hold.isDead && hold.release === null && hold.told === EX && hold.usesLvb;
    this.#o.core.unlock(this.#o.now(), lock, { lvb, lvbInvalid });
  }

  /** Releases after the core's present call has returned. */
  #unlockLater(hold: Hold): void {
    this.#later.push(hold);
    if (this.#later.length === 1) queueMicrotask(this.#runLater);
  }

  #runLater = (): void => {
    const holds = this.#later;
    this.#later = [];
    for (const hold of holds) if (hold.lock !== null) this.#unlock(hold, hold.lock);
  };

  granted(lock: LocalLock): void {
    const hold = lock.ctx instanceof Hold ? lock.ctx : this.#o.nodeOwned.adopt(lock, this.#o.now());
    if (hold === null) return;
    hold.lock = lock;
    if (hold.isDead && !hold.isGranted) {
      this.#unlockLater(hold);
      return;
    }
    const session = hold.session;
    if (!hold.isGranted && session !== null) session.granted++;
    if (hold.since === 0) hold.since = this.#o.now();
    hold.told = lock.mode as Mode;
    if (hold.isClaimed) {
      this.#confirm(hold, session);
      // The conversion that waited beside it: still does, unless it had been granted unheard.
      if (hold.asked === 0 || hold.told !== hold.wanted) {
        if (hold.release !== null || hold.isDead) this.#unlockLater(hold);
        return;
      }
    }
    const callback = hold.converted;
    hold.converted = null;
    if (session !== null && hold.asked !== 0) {
      if (session.isSuspended) {
        // It owned nothing when the node resumed, so it was not told.
        session.isSuspended = false;
        session.push({ k: 'DaemonLease', deadline: session.told, suspended: false });
      }
      session.converting.delete(hold.asked);
      this.#tellGranted(session, hold.asked, lock);
      this.#o.granted(session);
    }
    hold.asked = 0;
    callback?.('done', lock);
    if (hold.release !== null || hold.isDead) this.#unlockLater(hold);
  }

  denied(lock: LocalLock, code: ErrorCode): void {
    const hold = lock.ctx;
    if (!(hold instanceof Hold)) return;
    hold.lock = lock;
    const session = hold.session;
    const callback = hold.converted;
    hold.converted = null;
    if (hold.asked !== 0 && session !== null) {
      session.converting.delete(hold.asked);
      const why = session.isStopping && code === 'TSDLM_CANCELLED' ? 'TSDLM_STOPPING' : code;
      session.deny(hold.asked, why, denialText(why, lock, hold.isGranted));
    }
    hold.asked = 0;
    callback?.(code, lock);
    if (hold.isGranted) {
      if (hold.release !== null || hold.isDead) this.#unlockLater(hold);
      return;
    }
    if (hold.release !== null) session?.done(hold.release.rid);
    this.#drop(hold, lock);
  }

  released(lock: LocalLock): void {
    const hold = lock.ctx;
    if (!(hold instanceof Hold)) return;
    if (hold.isClaimed) this.#confirm(hold, hold.session);
    if (hold.release !== null) hold.session?.done(hold.release.rid);
    const done = hold.release?.done;
    this.#drop(hold, lock);
    done?.('done', lock);
  }

  bast(lock: LocalLock, mode: Mode): void {
    const hold = lock.ctx;
    if (!(hold instanceof Hold) || hold.session === null || hold.isDead || hold.release !== null || !hold.isGranted) return;
    hold.session.push({ k: 'DaemonBast', lock: hold.rid, mode });
  }

  lost(lock: LocalLock, code: ErrorCode): void {
    const hold = lock.ctx;
    if (!(hold instanceof Hold)) return;
    const session = hold.session;
    const callback = hold.converted;
    const wasGranted = hold.isGranted;
    hold.converted = null;
    hold.reclaim = 0;
    if (hold.isClaimed) this.#confirm(hold, session);
    this.#drop(hold, lock);
    callback?.(code, lock);
    hold.release?.done?.(code, lock);
    if (session === null) return;
    if (hold.release !== null) session.done(hold.release.rid);
    else if (wasGranted) session.pushLost(hold.rid, code, lostText(code, lock));
    if (hold.asked !== 0) {
      session.converting.delete(hold.asked);
      session.deny(hold.asked, code, lostText(code, lock));
      hold.asked = 0;
    }
    if (wasGranted) this.#o.lostUnder(session);
  }

  #drop(hold: Hold, lock: LocalLock): void {
    if (hold.nodeOwned) this.#o.nodeOwned.remove(lock.domain, lock.name, hold);
    const session = hold.session;
    hold.lock = null;
    if (session === null || !session.holds.delete(hold.rid)) return;
    if (hold.isGranted) session.granted--;
    if (session.holds.size === 0) this.#o.emptied(session);
  }
}
