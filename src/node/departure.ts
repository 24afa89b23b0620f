/**
 * How a node goes: a clean leave, or a clean restart (rule 23), until the view shows it.
 *
 * The problem: the process may only end once the cluster has taken note, and the cluster may be gone, or answer too late, or the
 * incarnation may be over meanwhile. The idea: one of two promises is open while the node goes, and views, the clock and the end of
 * the incarnation settle it; whatever is not confirmed in time goes as a crash does, which leases cover.
 */
import type { NodeCore } from '../core/node-core.js';
import type { ClaimedLock } from '../master/types.js';
import type { View } from '../membership/types.js';
import type { TsdlmError } from '../protocol/errors.js';
import type { Millis, NodeId, StartCount } from '../protocol/ids.js';
import type { Journal } from './journal.js';
import { asJournalError } from './journal-failure.js';
import type { Log } from './log.js';
import type { SessionServer } from './session-server.js';

/** How long a clean stop may take before the node leaves uncleanly (its lease then covers the rest), ms. */
const STOP_MS_MAX = 15_000;

export interface DepartureHost {
  readonly self: NodeId;
  /** How long a restart may take, ms. */
  readonly restartLimitMs: number;
  readonly journal: Pick<Journal, 'writeRestart'>;
  readonly log: Pick<Log, 'info' | 'warn'>;
  core(): NodeCore;
  sessions(): Pick<SessionServer, 'freeze'>;
  startCount(): StartCount;
  now(): Millis;
  /** What daemons before this one have told owners on this boot, on the core's clock; 0 = nothing. */
  toldUntil(): Millis;
  /** A time of the core's clock as one of the machine's monotonic clock. */
  toMonotonic(time: Millis): Millis;
  /** Runs one input of the core. */
  step(input: () => void): void;
  fatal(error: TsdlmError): void;
}

export class Departure {
  readonly #host: DepartureHost;
  #onLeft: (() => void) | null = null;
  /** A restart is under way: called with why it is no clean one, or null when the view shows it. */
  #away: ((why: string | null) => void) | null = null;
  #until: Millis = 0;

  constructor(host: DepartureHost) {
    this.#host = host;
  }

  /** Deadline of the restart, on the core's clock; 0 = none was recorded. */
  get until(): Millis {
    return this.#until;
  }

  /** Complete when the view no longer counts on this incarnation. */
  seen(view: View): void {
    if (this.#onLeft === null && this.#away === null) return;
    const me = view.nodes.find((n) => n.id === this.#host.self);
    const isOurs = me?.incarnation?.startCount === this.#host.startCount();
    const isCounted = me !== undefined && ['in', 'suspect', 'leaving'].includes(me.state);
    if (!isCounted || !isOurs) this.#onLeft?.();
    if (this.#until !== 0 && me?.state === 'restarting' && isOurs) this.#away?.(null);
  }

  /**
   * Or when nobody is left to confirm it (the whole cluster stops): without a leader no view comes, and once our lease is
   * over nobody counts on us.
   */
  tick(): void {
    const core = this.#host.core();
    if (!this.#onLeft || core.leader !== 0 || core.leaseUntil > this.#host.now()) return;
    this.#host.log.warn('left-uncleanly', { why: 'there is no quorum that could confirm the leave; the lease is over' });
    this.#onLeft();
    this.#onLeft = null;
  }

  /** Nothing of the incarnation counts any more, and the record of a restart is gone with it. */
  incarnationOver(): void {
    this.#away?.('its incarnation is over');
  }

  /** Leaves: resolves when the cluster has taken note, or cannot. */
  async leave(): Promise<void> {
    const { step, core, now, log } = this.#host;
    let timer: NodeJS.Timeout | undefined;
    await Promise.race([
      new Promise<void>((resolve) => {
        this.#onLeft = resolve;
        step(() => core().stop(now()));
        this.seen(core().view);
      }),
      new Promise<void>((resolve) => {
        timer = setTimeout(() => {
          log.warn('left-uncleanly', { afterMs: STOP_MS_MAX, why: 'the cluster did not confirm the leave in time' });
          resolve();
        }, STOP_MS_MAX);
      }),
    ]);
    clearTimeout(timer);
  }

  /** Hands over and has the restart recorded: null once the view shows it, else why it is no clean one. */
  async restart(): Promise<string | null> {
    const { step, core, now } = this.#host;
    if (!core().isMember) return 'this node is no member';
    let timer: NodeJS.Timeout | undefined;
    const why = await new Promise<string | null>((resolve) => {
      this.#away = resolve;
      timer = setTimeout(() => resolve(`the cluster did not agree within ${STOP_MS_MAX} ms`), STOP_MS_MAX);
      step(() => core().restart(now()));
    });
    clearTimeout(timer);
    return why;
  }

  /** Clean restart: nothing changes any more here; what owners have goes to the journal, and then the log is asked. */
  record(claims: ClaimedLock[]): void {
    const { step, core, now, toMonotonic, journal, log, restartLimitMs } = this.#host;
    // No sooner than what they have been told already, by this daemon or, when it has not even had a lease, by those before it.
    this.#until = Math.max(now() + restartLimitMs, core().holdUntil, this.#host.toldUntil());
    const record = { ...this.#host.sessions().freeze(claims), until: toMonotonic(this.#until) };
    for (const claim of record.claims) if (claim.deadline !== 0) claim.deadline = toMonotonic(claim.deadline);
    log.info('restart-recorded', { locks: record.claims.length, sessions: record.sessions.length });
    journal.writeRestart(record).then(
      () =>
        step(() => {
          const left = Math.floor(this.#until - now());
          if (left > 0) core().restartWritten(now(), left);
        }),
      (error: unknown) => this.#host.fatal(asJournalError(error)),
    );
  }
}
