/**
 * Sessions over a restart of the daemon: what is recorded of them, and who comes back to what it had.
 *
 * The problem: clients count on what the last daemon told them until its deadline, but each comes back when it likes, or never,
 * and nobody else may come back in its name. The idea: what the record names is claimed for *absent* sessions without a socket;
 * a client that proves its key takes its session over, and at the deadline whoever is still absent has ended.
 */
import type { ClaimedLock } from '../master/types.js';
import type { ClientMessage } from '../protocol/client-messages.js';
import { IdMap } from '../protocol/id-map.js';
import type { RecordedClaim, RecordedSession, RestartRecord } from './journal.js';
import type { Session } from './session.js';
import type { Hold } from './session-hold.js';
import type { SessionIdentity } from './session-identity.js';
import type { SessionReclaims } from './session-reclaim.js';

export interface ReturnOptions {
  /** All sessions of the server, by number. */
  sessions: Map<number, Session>;
  reclaims: SessionReclaims;
  identity: SessionIdentity;
  now: () => number;
  log: (level: 'info' | 'warn' | 'error', event: string, data: Record<string, unknown>) => void;
  /** As in SessionServerOptions. */
  graceUntil: number | undefined;
  settled: (() => void) | undefined;
  /** A session without a socket. */
  newAbsent(): Session;
  /** Its command has to be watched. */
  watch(session: Session): void;
  /** It did not come back. */
  ended(session: Session): void;
}

export class SessionReturn {
  readonly #o: ReturnOptions;
  /** Sessions of the record whose client has not come back. */
  readonly #absent = new Map<string, Session>();
  /** There is a record, and it names everybody who may come back. */
  #isComplete = false;
  #isWaiting = false;

  constructor(options: ReturnOptions) {
    this.#o = options;
  }

  get absentCount(): number {
    return this.#absent.size;
  }

  /** The client of a session of before, if it can prove that; else a new session begins. */
  resume(session: Session, m: Extract<ClientMessage, { k: 'ClientHello' }>): boolean {
    session.key = this.#o.identity.keyOf(session.id);
    if (m.session === '') return false;
    const claimed = { key: m.session, pid: m.pid, label: m.label };
    if (!this.#o.identity.isProven(claimed, m.secret)) {
      this.#o.log('warn', 'session-not-proven', { session: m.session.slice(0, 40), pid: m.pid });
      return false;
    }
    const absent = this.#absent.get(m.session);
    const graceUntil = this.#o.graceUntil ?? 0;
    for (const other of this.#o.sessions.values())
      if (other !== session && other.key === m.session && other !== absent) return false;
    if (absent === undefined && this.#o.now() >= graceUntil) return false;
    session.key = m.session;
    session.isUnsettled = true;
    session.told = Math.max(graceUntil, absent?.told ?? 0);
    if (absent !== undefined) {
      this.#absent.delete(m.session);
      this.#o.sessions.delete(absent.id);
      session.holds = absent.holds;
      session.converting = absent.converting;
      for (const hold of session.holds.values()) hold.session = session;
      session.granted = absent.granted;
      session.claimed = absent.claimed;
      session.group = absent.group;
      absent.holds = new IdMap<Hold>(0);
      absent.group = null;
      absent.destroy();
    }
    this.#o.log('info', 'session-resumed', { session: session.id, name: session.key, pid: session.pid, held: session.granted });
    return true;
  }

  /** Done, once all that the session had before the restart is decided and it can be told a deadline. */
  answerResumed(session: Session): void {
    if (session.resumeRid === 0 || session.claimed > 0) return;
    session.done(session.resumeRid);
    session.resumeRid = 0;
  }

  settleWhenDone(): void {
    if (this.#o.settled === undefined || this.#absent.size > 0) return;
    for (const session of this.#o.sessions.values()) if (session.isUnsettled) return;
    const graceUntil = this.#o.graceUntil ?? 0;
    if (!this.#isComplete && this.#o.now() < graceUntil) {
      // After a crash nobody knows who is still to come: some may have been told the deadline of a restart before it.
      if (!this.#isWaiting) this.endAbsentAt(graceUntil);
      this.#isWaiting = true;
      return;
    }
    this.#o.settled();
  }

  /** What the record of a restart names is claimed; clients find it when they come back, until the deadline they were told. */
  restore(record: RestartRecord): void {
    this.#isComplete = true;
    const sessionOf = (key: string): Session => {
      const known = this.#absent.get(key);
      if (known !== undefined) return known;
      const session = this.#o.newAbsent();
      session.key = key;
      session.told = record.until;
      this.#o.sessions.set(session.id, session);
      this.#absent.set(key, session);
      return session;
    };
    for (const { key, pid, label, group } of record.sessions) {
      const session = sessionOf(key);
      session.pid = pid;
      session.label = label;
      session.who = this.#o.identity.whoOf(session);
      session.group = group;
    }
    for (const claim of record.claims) this.#o.reclaims.restore(sessionOf(claim.session), claim);
    for (const session of this.#absent.values()) this.#o.watch(session);
    if (this.#absent.size > 0) this.endAbsentAt(record.until);
    else this.settleWhenDone();
  }

  endAbsentAt(until: number): void {
    setTimeout(
      () => {
        if (this.#o.now() < until) return this.endAbsentAt(until);
        const late = [...this.#absent.values()];
        this.#absent.clear();
        for (const session of late) {
          const data = { name: session.key, pid: session.pid, held: session.granted };
          if (session.key !== '') this.#o.log('warn', 'session-did-not-return', data);
          this.#o.ended(session);
        }
        // Whoever came back and did not say so counts on nothing longer than its lease any more.
        for (const session of this.#o.sessions.values()) session.isUnsettled = false;
        this.settleWhenDone();
      },
      Math.max(1, until - this.#o.now()),
    ).unref();
  }

  /** What the journal has to know of clients for a clean restart. */
  record(claims: readonly ClaimedLock[]): Pick<RestartRecord, 'sessions' | 'claims'> {
    const sessions = new Map<string, RecordedSession>();
    const recorded: RecordedClaim[] = [];
    for (const { ctx, ...claim } of claims) {
      const owner = this.#o.reclaims.recorded(ctx);
      if (owner !== null) {
        const { key, pid, label, group } = owner.session;
        sessions.set(key, { key, pid, label, group });
      }
      recorded.push({
        ...claim,
        session: owner?.session.key ?? '',
        rid: owner?.rid ?? recorded.length + 1,
        convert: owner?.convert ?? 0,
      });
    }
    return { sessions: [...sessions.values()], claims: recorded };
  }
}
