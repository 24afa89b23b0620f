/**
 * What each event of the core means for the client whose lock it is.
 *
 * The problem: a grant may come for an owner that is gone, a release may have been asked for meanwhile, and no event may call
 * back into the core. The idea: the lock's record (Hold) says what was asked and told, the client is told what follows from
 * both, and what has to be released is released after the event (HoldCalls).
 */
import { type LocalLock, LVB_VALID } from '../master/types.js';
import type { ErrorCode } from '../protocol/errors.js';
import type { Mode } from '../protocol/modes.js';
import type { DoorCore } from './clock-core.js';
import type { Session } from './session.js';
import { Hold } from './session-hold.js';
import type { HoldCalls } from './session-hold-calls.js';
import type { NodeOwnedLocks } from './session-node-owned.js';
import { denialText, lostText } from './session-text.js';

export interface EventsOptions {
  core: DoorCore;
  now: () => number;
  nodeOwned: NodeOwnedLocks;
  /** The last lock of a session that has ended is gone. */
  emptied(session: Session): void;
  /** A lock was lost: a command that still runs under it must end now. */
  lostUnder(session: Session): void;
  granted(session: Session): void;
  /** Of what the session had before a restart one more is decided. */
  decided(session: Session): void;
}

export class SessionEvents {
  readonly #o: EventsOptions;
  readonly #calls: HoldCalls;

  constructor(options: EventsOptions, calls: HoldCalls) {
    this.#o = options;
    this.#calls = calls;
  }

  granted(lock: LocalLock): void {
    const hold = lock.ctx instanceof Hold ? lock.ctx : this.#o.nodeOwned.adopt(lock, this.#o.now());
    if (hold === null) return;
    hold.lock = lock;
    if (hold.isDead && !hold.isGranted) {
      this.#calls.unlockLater(hold);
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
        if (hold.release !== null || hold.isDead) this.#calls.unlockLater(hold);
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
      this.tellGranted(session, hold.asked, lock);
      this.#o.granted(session);
    }
    hold.asked = 0;
    callback?.('done', lock);
    if (hold.release !== null || hold.isDead) this.#calls.unlockLater(hold);
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
      if (hold.release !== null || hold.isDead) this.#calls.unlockLater(hold);
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

  /** The core has confirmed, or given up, what was held before the restart. */
  #confirm(hold: Hold, session: Session | null): void {
    hold.isClaimed = false;
    if (session === null) return;
    session.claimed--;
    if (hold.reclaim !== 0 && hold.lock !== null && hold.lock.mode !== -1) this.tellGranted(session, hold.reclaim, hold.lock);
    hold.reclaim = 0;
    this.#o.decided(session);
  }

  tellGranted(session: Session, rid: number, lock: LocalLock): void {
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
}
