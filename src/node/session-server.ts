/**
 * The local door: clients connect to a Unix socket, and their locks are theirs for as long as they are connected.
 *
 * The problem: an owner is a process that can exit, be killed, be stopped, stop reading or send garbage, and each of these
 * must end its locks neither too early (somebody still works under them) nor too late. Who may have the locks next:
 *
 *   end of file or reset by the client      its locks are free at once, after its command's group was ended (rule 7)
 *   the daemon closes (fault, slow, stop)   free when the last told deadline has passed, or at end of file (rule 8)
 *   the lease ends                          the core says `lost`; commands whose wrapper is gone are ended before (rule 24)
 *
 * The daemon forwards the core's events to granted / denied / released / bast / lost / lease. Answers of one turn of the
 * event loop leave as one write per session. What requests mean is session-requests.ts; who
 * comes back after a restart, session-return.ts.
 */
import { createServer, type Server, type Socket } from 'node:net';
import { processStat } from '../client/process-table.js';
import type { ClaimedLock, LocalLock } from '../master/types.js';
import type { TimeLimits } from '../membership/time-limits.js';
import { CLIENT_VERSION_MAX, CLIENT_VERSION_MIN, type ClientMessage } from '../protocol/client-messages.js';
import { type ErrorCode, TsdlmError } from '../protocol/errors.js';
import type { StartCount } from '../protocol/ids.js';
import { SESSIONS_MAX } from '../protocol/limits.js';
import type { Mode } from '../protocol/modes.js';
import type { DoorCore } from './clock-core.js';
import type { RestartRecord } from './journal.js';
import { LineBudget } from './line-budget.js';
import { Session, type SessionHost } from './session.js';
import { type AdminResult, OwnedAdmin, SessionAdmin } from './session-admin.js';
import { acceptGroup, endGroup, isGroupAlive } from './session-group.js';
import { SessionGuard } from './session-guard.js';
import { Hold } from './session-hold.js';
import { SessionIdentity } from './session-identity.js';
import { type SessionInfo, sessionInfo } from './session-info.js';
import { NodeOwnedLocks } from './session-node-owned.js';
import { SessionRequests } from './session-requests.js';
import { SessionReturn } from './session-return.js';
import { listenOn } from './session-socket.js';

/** A client must greet within this time. */
const GREETING_MS_DEFAULT = 5000;
/** Lines about dismissed clients per second. */
const DISMISSED_LINES = 5;
/** A dismissed client without locks may take so long to read why. */
const LINGER_MS = 1000;
/** A restarting daemon waits so long for its last words to leave. */
const FAREWELL_MS = 20;

export type { AdminResult, SessionInfo };

export interface SessionServerOptions {
  path: string;
  /** Octal; default 0o660. */
  mode?: number;
  group?: string | undefined;
  core: DoorCore;
  node: { id: number; name: string };
  cluster: string;
  limits: TimeLimits;
  version: string;
  /** A fence method ends this machine, or `unsafe_node_owned` is set (rule 2). */
  nodeOwnedAllowed: () => boolean;
  /** A command without a right to its lock cannot be ended (rule 11). */
  onSurvivor?: (why: string) => void;
  /** Milliseconds on CLOCK_MONOTONIC, as clients read it. */
  now: () => number;
  log: (level: 'info' | 'warn' | 'error', event: string, data: Record<string, unknown>) => void;
  /** A client must greet within this time; default 5000. */
  greetingMs?: number;
  /** Of this life of the daemon, and the key of the journal: sessions are known again after a restart. */
  startCount: StartCount;
  sessionKey: Buffer;
  /** Owners may still claim what they had before a restart without a record, until here; also its sessions' last deadline. */
  graceUntil?: number;
  /** No client counts on a deadline of a restart any more. */
  settled?: () => void;
  /** All verbs but `unlock` and `convert`. A rejection with a TsdlmError is answered as that error. */
  admin: (verb: string, args: unknown, session: SessionInfo) => Promise<AdminResult>;
}

export class SessionServer implements SessionHost {
  readonly now: () => number;
  #o: SessionServerOptions;
  #server: Server | null = null;
  #sessions = new Map<number, Session>();
  #nextId = 1;
  #dirty: Session[] = [];
  #nodeOwned = new NodeOwnedLocks();
  #requests: SessionRequests;
  #guard: SessionGuard;
  #admin: SessionAdmin;
  readonly #lines = new LineBudget(DISMISSED_LINES);
  #isStopping = false;
  /** The record of a restart is made: no client is let in any more, and none hears anything that is not in it. */
  #isFrozen = false;
  #return: SessionReturn;
  #identity: SessionIdentity;
  #onEmpty: (() => void) | null = null;

  constructor(options: SessionServerOptions) {
    this.#o = options;
    this.now = options.now;
    this.#guard = new SessionGuard({
      now: options.now,
      log: options.log,
      holdUntil: () => options.core.holdUntil,
      survives: (why) => options.onSurvivor?.(why),
    });
    this.#requests = new SessionRequests({
      core: options.core,
      now: options.now,
      nodeOwnedAllowed: options.nodeOwnedAllowed,
      nodeOwned: this.#nodeOwned,
      emptied: (session) => this.#emptied(session),
      lostUnder: (session) => this.#guard.lost(session),
      granted: (session) => this.#guard.watch(session),
      decided: (session) => this.#return.answerResumed(session),
    });
    this.#identity = new SessionIdentity(options.sessionKey, options.node.name, options.startCount);
    this.#return = new SessionReturn({
      sessions: this.#sessions,
      reclaims: this.#requests.reclaims,
      identity: this.#identity,
      now: options.now,
      log: options.log,
      graceUntil: options.graceUntil,
      settled: options.settled,
      newAbsent: () => new Session(this, null, this.#nextId++),
      watch: (session) => this.#guard.watch(session),
      ended: (session) => this.ended(session),
    });
    const owned = new OwnedAdmin(this.#requests.calls, this.#nodeOwned, options.node.name);
    this.#admin = new SessionAdmin(owned, options.now, options.admin);
  }

  /** Opens the door. Rejects with TSDLM_BAD_CONFIG when the socket cannot be had. */
  async listen(): Promise<void> {
    const server = createServer({ allowHalfOpen: true }, (socket) => this.#accept(socket));
    await listenOn(server, { path: this.#o.path, mode: this.#o.mode ?? 0o660, group: this.#o.group });
    server.on('error', (error) => this.#o.log('error', 'session-server', { error: error.message }));
    this.#server = server;
    // After a crash: whoever lived on has come back by then.
    const graceUntil = this.#o.graceUntil ?? 0;
    if (this.#return.absentCount === 0 && graceUntil > this.now()) this.#return.endAbsentAt(graceUntil);
  }

  /**
   * Clean stop: takes no new client, tells all that the daemon stops, and resolves when the last one has closed or the
   * deadline it was told has passed. No deadline is extended meanwhile.
   */
  async close(): Promise<void> {
    this.#isStopping = true;
    const server = this.#server;
    this.#server = null;
    const closed = server === null ? Promise.resolve() : new Promise<void>((resolve) => server.close(() => resolve()));
    for (const session of [...this.#sessions.values()]) {
      session.isStopping = true;
      this.#dismiss(session, 'TSDLM_STOPPING', `the daemon on node ${this.#o.node.name} is stopping: end your work and release`);
    }
    if (this.#sessions.size > 0) {
      await new Promise<void>((resolve) => {
        this.#onEmpty = resolve;
      });
    }
    await closed;
  }

  sessions(): SessionInfo[] {
    return [...this.#sessions.values()].map((session) => sessionInfo(session, this.now()));
  }

  /** Locks that this node owns itself. */
  get nodeOwnedCount(): number {
    return this.#nodeOwned.size;
  }

  /** When a lock of this node was granted, on the node's clock; null when it is not granted or not known here. */
  grantedAt(lock: LocalLock): number | null {
    const hold = lock.ctx;
    return hold instanceof Hold && hold.since > 0 ? hold.since : null;
  }

  /** A node-owned lock from the journal. */
  adoptNodeOwned(lock: LocalLock): void {
    this.#nodeOwned.adopt(lock, this.now());
  }

  // Events of the core, forwarded by the daemon. None of them calls the core.

  granted(lock: LocalLock): void {
    if (!this.#isFrozen) this.#requests.events.granted(lock);
  }
  denied(lock: LocalLock, code: ErrorCode): void {
    if (!this.#isFrozen) this.#requests.events.denied(lock, code);
  }
  released(lock: LocalLock): void {
    if (!this.#isFrozen) this.#requests.events.released(lock);
  }
  bast(lock: LocalLock, mode: Mode): void {
    if (!this.#isFrozen) this.#requests.events.bast(lock, mode);
  }
  lost(lock: LocalLock, code: ErrorCode): void {
    this.#requests.events.lost(lock, code);
  }

  /**
   * The end of all holds moved: holders are told, unless they do not read what they were told before (rule 8). `isSuspended`: by
   * this node itself, which has no lease and grants nothing (rule 20).
   */
  lease(until: number, isSuspended: boolean): void {
    if (until <= 0 || this.#isStopping || this.#isFrozen) return;
    const now = this.now();
    for (const session of this.#sessions.values()) {
      if (session.pausedAt !== 0 && now - session.pausedAt > this.#o.limits.leaseMs) {
        this.fault(session, 'TSDLM_SLOW_CLIENT', `this client has read nothing for ${Math.round(now - session.pausedAt)} ms`);
      }
      if (session.granted === 0 || session.state !== 'open' || session.backlog > 0) continue;
      if (until <= session.told && isSuspended === session.isSuspended) continue;
      session.told = Math.max(session.told, until);
      session.isSuspended = isSuspended;
      session.push({ k: 'DaemonLease', deadline: session.told, suspended: isSuspended });
    }
  }

  // What sessions ask of their host.

  dirty(session: Session): void {
    session.isDirty = true;
    this.#dirty.push(session);
    if (this.#dirty.length === 1) setImmediate(this.#flush);
  }

  /** A chunk of a client was handled: what came of it leaves at once, without another turn of the event loop. */
  turn(): void {
    if (this.#dirty.length > 0) this.#flush();
  }

  #flush = (): void => {
    if (this.#dirty.length === 0) return;
    const sessions = this.#dirty;
    this.#dirty = [];
    for (const session of sessions) session.flush();
  };

  message(session: Session, m: ClientMessage): void {
    // Unanswered: the client asks the next daemon.
    if (this.#isFrozen) return;
    if (session.state === 'dismissed') {
      // A daemon that stops still takes back what is released; there is no answer any more.
      if (m.k === 'ClientUnlock') this.#requests.unlock(session, m);
      return;
    }
    if (session.state === 'greeting') {
      this.#greet(session, m);
      return;
    }
    if (m.k === 'ClientHello' || m.rid === 0) {
      this.fault(session, 'TSDLM_PROTOCOL', m.k === 'ClientHello' ? 'a second greeting' : 'request number 0 is not allowed');
      return;
    }
    switch (m.k) {
      case 'ClientLock':
        this.#requests.lock(session, m);
        return;
      case 'ClientUnlock':
        this.#requests.unlock(session, m);
        return;
      case 'ClientConvert':
        this.#requests.convert(session, m);
        return;
      case 'ClientCancel':
        this.#requests.cancel(session, m);
        return;
      case 'ClientLvbWrite':
        this.#requests.writeLvb(session, m);
        return;
      case 'ClientGroup':
        this.#group(session, m);
        return;
      case 'ClientAdmin':
        this.#admin.request(session, m.rid, m.verb, m.args);
        return;
      case 'ClientReclaim':
        if (session.isUnsettled) this.#requests.reclaims.reclaim(session, m);
        else session.deny(m.rid, 'TSDLM_NOT_HELD', 'this session was not resumed: nothing of before can be claimed in it');
        return;
      case 'ClientResumed':
        session.resumeRid = m.rid;
        this.#requests.reclaims.resumed(session);
        this.#return.answerResumed(session);
        return;
      case 'ClientSettled':
        session.isUnsettled = false;
        session.told = Math.max(this.#o.core.holdUntil, 0);
        this.#return.settleWhenDone();
        return;
    }
  }

  fault(session: Session, code: ErrorCode, text: string): void {
    if (session.state === 'dismissed' || session.state === 'gone') return;
    const line = this.#lines.take(this.now());
    if (line.ok) {
      const notLogged = line.dropped > 0 ? { notLogged: line.dropped } : {};
      this.#o.log('warn', 'client-dismissed', {
        session: session.id,
        pid: session.pid,
        label: session.label,
        code,
        text,
        ...notLogged,
      });
    }
    this.#dismiss(session, code, text);
  }

  /** The client's side is closed: nobody acts under its locks, except a command that closed the session's socket. */
  ended(session: Session): void {
    if (session.state === 'gone') return;
    session.destroy();
    // What it had is in the record: the next daemon keeps it until the deadline it was told.
    if (this.#isFrozen) return;
    session.isUnsettled = false;
    this.#return.settleWhenDone();
    const group = session.group;
    if (group === null || session.holds.size === 0 || !isGroupAlive(group)) {
      this.#requests.freeAll(session);
      return;
    }
    this.#requests.withdrawWaiting(session);
    this.#o.log('warn', 'command-ended', {
      session: session.id,
      pgid: group.pgid,
      why: 'its wrapper is gone and so is its session',
    });
    void endGroup(group, group.graceMs).then((isGone) => {
      if (!isGone) this.#o.log('error', 'command-survives', { session: session.id, pgid: group.pgid });
      // A command that cannot be ended keeps its locks until the last deadline it was told.
      if (isGone) this.#requests.freeAll(session);
      else setTimeout(() => this.#requests.freeAll(session), Math.max(0, session.told - this.now()));
    });
  }

  #accept(socket: Socket): void {
    const session = new Session(this, socket, this.#nextId++);
    this.#sessions.set(session.id, session);
    if (this.#sessions.size > SESSIONS_MAX) {
      this.fault(session, 'TSDLM_LIMIT_REACHED', `this daemon has ${SESSIONS_MAX} clients, which is the most`);
      return;
    }
    const greetingMs = this.#o.greetingMs ?? GREETING_MS_DEFAULT;
    session.timer = setTimeout(() => {
      this.fault(session, 'TSDLM_PROTOCOL', `no greeting came within ${greetingMs} ms`);
    }, greetingMs);
  }

  #greet(session: Session, m: ClientMessage): void {
    if (m.k !== 'ClientHello') {
      this.fault(session, 'TSDLM_PROTOCOL', `a session begins with ClientHello, not with ${m.k}`);
      return;
    }
    const version = Math.min(m.versionMax, CLIENT_VERSION_MAX);
    if (version < m.versionMin || version < CLIENT_VERSION_MIN) {
      const spoken = `this daemon speaks versions ${CLIENT_VERSION_MIN} to ${CLIENT_VERSION_MAX}`;
      this.fault(
        session,
        'TSDLM_VERSION_MISMATCH',
        `${spoken}, the client ${m.versionMin} to ${m.versionMax}: upgrade the older side`,
      );
      return;
    }
    if (session.timer !== null) clearTimeout(session.timer);
    session.timer = null;
    session.pid = m.pid;
    session.start = processStat(m.pid)?.start ?? '';
    session.label = m.label;
    const resumed = this.#return.resume(session, m);
    session.who = this.#identity.whoOf(session);
    session.greeted();
    session.push({
      k: 'DaemonWelcome',
      version,
      session: session.id,
      key: session.key,
      secret: this.#identity.secretOf(session),
      resumed,
      node: this.#o.node.id,
      nodeName: this.#o.node.name,
      cluster: this.#o.cluster,
      leaseMs: this.#o.limits.leaseMs,
      heartbeatMs: this.#o.limits.heartbeatMs,
      daemonVersion: this.#o.version,
    });
  }

  /** What the record of a restart names is claimed; clients find it when they come back, until the deadline they were told. */
  restore(record: RestartRecord): void {
    this.#return.restore(record);
  }

  /** Clean restart: from here on nothing changes. Gives what the journal has to know of clients. */
  freeze(claims: readonly ClaimedLock[]): Pick<RestartRecord, 'sessions' | 'claims'> {
    this.#isFrozen = true;
    return this.#return.record(claims);
  }

  /** The restart is in the log: clients are told that all they have is theirs until `until`, and that they should come back. */
  async restarting(until: number): Promise<void> {
    const text = `the daemon on node ${this.#o.node.name} is being restarted: connect again`;
    for (const session of this.#sessions.values()) {
      if (session.granted > 0 && until > session.told) session.told = until;
      session.dismiss('TSDLM_RESTARTING', text, until);
    }
    this.#server?.close();
    this.#server = null;
    // One turn for what lies in the sockets; a client that does not read it comes back by itself.
    await new Promise((resolve) => setTimeout(resolve, FAREWELL_MS));
  }

  /** The clock has moved on by a tick. */
  tick(): void {
    if (!this.#isFrozen) this.#requests.tick();
  }

  #dismiss(session: Session, code: ErrorCode, text: string): void {
    if (session.timer !== null) clearTimeout(session.timer);
    // A client that is not at fault is told that its waiting requests end with the daemon.
    if (session.isStopping) this.#requests.withdrawWaiting(session);
    session.dismiss(code, text);
    this.#requests.withdrawWaiting(session);
    this.#guard.watch(session);
    this.#keepUntilTold(session);
  }

  /** Rule 8: what a dismissed client holds is its own until the last deadline it was told. */
  #keepUntilTold(session: Session): void {
    const left = session.granted > 0 ? session.told - this.now() : LINGER_MS;
    session.timer = setTimeout(
      () => {
        // A timer may come early by a fraction of a millisecond.
        if (session.granted > 0 && this.now() < session.told) this.#keepUntilTold(session);
        else this.ended(session);
      },
      Math.max(1, left),
    );
  }

  /** The last lock of a session is gone. */
  #emptied(session: Session): void {
    if (session.state !== 'gone') return;
    this.#sessions.delete(session.id);
    if (this.#sessions.size === 0) this.#onEmpty?.();
  }

  #group(session: Session, { rid, pgid, graceMs, proof }: Extract<ClientMessage, { k: 'ClientGroup' }>): void {
    if (pgid === 0) {
      session.group = null;
      session.done(rid);
      return;
    }
    try {
      session.group = acceptGroup(pgid, graceMs, proof);
      session.wasTermSent = false;
      session.done(rid);
      this.#guard.watch(session);
    } catch (error) {
      if (!(error instanceof TsdlmError)) throw error;
      session.deny(rid, error.code, error.message);
    }
  }
}
