/**
 * Tells the owners of held locks in time that their lease is running out.
 *
 * The problem: a timer that says "the deadline is over" may itself be late or early: the process may have been stopped,
 * or a renewal may lie unread in the socket. So every timer here only asks to look: it reads the clock first, and before
 * anything is announced it lets the event loop read the socket once more (trap 9 of the design). `valid()` does not
 * depend on any of this.
 *
 *   no renewal for 3 heartbeats   -> suspended: silence (at once when the connection is lost)
 *   the daemon says so            -> suspended: quorum (rule 20); the daemon goes on moving the deadline
 *   deadline - abortBefore        -> the handle's signal fires
 *   deadline                      -> lost
 *
 * One timer serves all handles of a connection: in quiet times it fires about once in three heartbeats and finds that the
 * deadline has moved.
 */
import { KILL_MARGIN_MS, PUSH_SLACK_MS } from '../membership/time-limits.js';
import { TsdlmError } from '../protocol/errors.js';
import { monotonicMs } from './clock.js';
import type { LockHandle, SuspendReason } from './handle.js';

/** Grace between SIGTERM and SIGKILL when nobody says otherwise (G of rule 24). */
export const GRACE_MS_DEFAULT = 1000;

/** When a handle's signal fires by default: G+K+P before the deadline, but never more than half a lease. */
export function defaultAbortBefore(leaseMs: number): number {
  return Math.min(GRACE_MS_DEFAULT + KILL_MARGIN_MS + PUSH_SLACK_MS, leaseMs / 2);
}

export interface LeaseWatchHost {
  /** `values()` is a copy. */
  readonly handles: { readonly size: number; values(): LockHandle[] };
  /** The deadline passed: the handle is lost; forget it and tell the daemon. */
  expired(handle: LockHandle, error: TsdlmError): void;
}

export class LeaseWatch {
  deadline = 0;
  #host: LeaseWatchHost;
  #silenceMs: number;
  #movedAt = 0;
  #isSilent = false;
  #isDisconnected = false;
  /** The node has no lease and holds on (rule 20). */
  #isNodeSuspended = false;
  /** Largest abortBefore of any handle so far: when to look at the latest. */
  #earliestAbort = 0;
  #timer: NodeJS.Timeout | null = null;
  #isLooking = false;

  constructor(host: LeaseWatchHost, heartbeatMs: number) {
    this.#host = host;
    this.#silenceMs = 3 * heartbeatMs;
  }

  /** The daemon told a deadline: with a grant or as a renewal. `isNodeSuspended`: without a lease of its own. */
  moved(deadline: number, isNodeSuspended = this.#isNodeSuspended): void {
    const wasNodeSuspended = this.#isNodeSuspended;
    this.#isNodeSuspended = isNodeSuspended;
    if (deadline <= this.deadline && isNodeSuspended === wasNodeSuspended) return;
    this.deadline = Math.max(this.deadline, deadline);
    this.#movedAt = monotonicMs();
    const wasSilent = this.#isSilent;
    if (!this.#isDisconnected) this.#isSilent = false;
    if (wasSilent === this.#isSilent && isNodeSuspended === wasNodeSuspended) return;
    this.#tell();
    if (wasSilent !== this.#isSilent) this.#arm();
  }

  /** Silence is the worse news. */
  get #reason(): SuspendReason | null {
    if (this.#isSilent) return 'silence';
    return this.#isNodeSuspended ? 'quorum' : null;
  }

  #tell(): void {
    const reason = this.#reason;
    for (const handle of this.#host.handles.values()) handle._suspend(reason);
  }

  /** A handle came to the connection. */
  added(handle: LockHandle): void {
    if (handle.abortBefore > this.#earliestAbort) {
      this.#earliestAbort = handle.abortBefore;
      if (this.#timer !== null) this.#arm();
    }
    handle._suspend(this.#reason);
    if (this.#timer === null) this.#arm();
  }

  /** No renewal can come any more. */
  disconnected(): void {
    this.#isDisconnected = true;
    this.#silent();
    this.#arm();
  }

  /** The next daemon has confirmed what the last one told: renewals come again. `deadline`: what it told, perhaps less than before. */
  reconnected(deadline: number): void {
    this.#isDisconnected = false;
    this.#isSilent = false;
    this.#isNodeSuspended = false;
    if (deadline > 0) this.deadline = deadline;
    this.#movedAt = monotonicMs();
    this.#tell();
    this.#arm();
  }

  stop(): void {
    if (this.#timer !== null) clearTimeout(this.#timer);
    this.#timer = null;
  }

  #silent(): void {
    this.#isSilent = true;
    this.#tell();
  }

  #arm(): void {
    this.stop();
    if (this.#host.handles.size === 0) return;
    this.#timer = setTimeout(this.#fired, Math.max(0, this.#nextLook() - monotonicMs()));
  }

  /** When something may become due. */
  #nextLook(): number {
    if (!this.#isSilent) return Math.min(this.#movedAt + this.#silenceMs, this.deadline - this.#earliestAbort);
    let next = this.deadline;
    for (const handle of this.#host.handles.values()) {
      if (!handle.aborted) next = Math.min(next, this.deadline - handle.abortBefore);
    }
    return next;
  }

  #fired = (): void => {
    this.#timer = null;
    if (this.#host.handles.size === 0) return;
    if (monotonicMs() < this.#nextLook()) {
      this.#arm();
      return;
    }
    if (this.#isLooking) return;
    this.#isLooking = true;
    // The poll phase comes before the check phase: whatever lies in the socket is read before we judge.
    setImmediate(this.#look);
  };

  #look = (): void => {
    this.#isLooking = false;
    const now = monotonicMs();
    if (now >= this.deadline) {
      for (const handle of this.#host.handles.values()) this.#host.expired(handle, overdue(handle, now - this.deadline));
    } else {
      if (!this.#isSilent && now >= Math.min(this.#movedAt + this.#silenceMs, this.deadline - this.#earliestAbort))
        this.#silent();
      for (const handle of this.#host.handles.values()) {
        if (!handle.aborted && now >= this.deadline - handle.abortBefore) handle._abort(running(handle, this.deadline - now));
      }
    }
    this.#arm();
  };
}

function overdue(handle: LockHandle, byMs: number): TsdlmError {
  return new TsdlmError(
    'TSDLM_LOST',
    `'${handle.name}' in domain '${handle.domain}' is lost: its lease was not renewed and ended ${Math.round(byMs)} ms ago`,
  );
}

function running(handle: LockHandle, leftMs: number): TsdlmError {
  return new TsdlmError(
    'TSDLM_LOST',
    `'${handle.name}' in domain '${handle.domain}' is being lost: its lease was not renewed and ends in ${Math.round(leftMs)} ms`,
  );
}
