/**
 * The time limits of a cluster and the inequalities between them (rules 10, 15, 24).
 *
 * The problem: a lease is only as safe as the relation between what its holder believes and what the others wait. All of
 * it is decided by a few durations that must agree on every node, so they are derived and checked in one place, compared
 * in the handshake, and refused at start where they do not fit.
 *
 *   lease L     a member may grant and its holds are valid until L after it *sent* the heartbeat that was acknowledged
 *   margin      the others wait L + margin: margin >= L * ((1+rho)/(1-rho) - 1) + slack, rho = worst drift between clocks
 *   suspect, dead   silence after which a member is reported, and after which fencing begins
 *   G, K, P     grace between SIGTERM and SIGKILL, margin of SIGKILL, slack for the push to the client
 */
import { TsdlmError } from '../protocol/errors.js';

/** All in milliseconds. */
export interface TimeLimits {
  heartbeatMs: number;
  leaseMs: number;
  /** Waited on top of the lease before a silent member counts as over. */
  marginMs: number;
  suspectMs: number;
  deadMs: number;
  /** Election time-out is drawn from [electionMs, 2 * electionMs). */
  electionMs: number;
  /** Period of Membership.tick and Engine.tick. */
  tickMs: number;
}

/** Worst relative drift between two monotonic clocks: wall-clock daemons may slew CLOCK_MONOTONIC (rule 10). */
export const DRIFT_MAX = 0.084;
const DRIFT_FACTOR = (1 + DRIFT_MAX) / (1 - DRIFT_MAX);
const SLACK_MS = 50;

export interface TimeLimitsInput {
  heartbeatMs?: number;
  leaseMs?: number;
  suspectMs?: number;
  deadMs?: number;
  electionMs?: number;
}

/** Fills in what was not given and checks everything. Throws TSDLM_BAD_CONFIG naming the two values that do not fit. */
export function deriveTimeLimits(input: TimeLimitsInput = {}): TimeLimits {
  const heartbeatMs = input.heartbeatMs ?? 250;
  const leaseMs = input.leaseMs ?? 12 * heartbeatMs;
  const limits: TimeLimits = {
    heartbeatMs,
    leaseMs,
    marginMs: Math.ceil(leaseMs * ((1 + DRIFT_MAX) / (1 - DRIFT_MAX) - 1)) + SLACK_MS,
    suspectMs: input.suspectMs ?? 4 * heartbeatMs,
    deadMs: input.deadMs ?? Math.max(6 * heartbeatMs, Math.round(leaseMs * 0.6)),
    electionMs: input.electionMs ?? Math.max(2 * heartbeatMs, Math.round(leaseMs / 6)),
    tickMs: Math.min(50, Math.max(5, Math.round(heartbeatMs / 5))),
  };
  checkTimeLimits(limits);
  return limits;
}

/** How long others wait until a deadline that a node told `ms` ahead is over for certain: by the worst drift between clocks. */
export function restartWaitMs(ms: number): number {
  return Math.ceil(ms * ((1 + DRIFT_MAX) / (1 - DRIFT_MAX))) + SLACK_MS;
}

/** Longest time from the loss of a leader to the first lease of the next, with one split vote (rule 24). */
export function worstElectionMs(limits: TimeLimits): number {
  return 2 * limits.electionMs + 2 * limits.tickMs;
}

export function checkTimeLimits(l: TimeLimits): void {
  const refuse = (text: string): never => {
    throw new TsdlmError('TSDLM_BAD_CONFIG', text);
  };
  for (const [key, value] of Object.entries(l)) {
    if (!Number.isFinite(value) || value <= 0) refuse(`time limit ${key} = ${value} must be a positive number of milliseconds`);
  }
  if (l.heartbeatMs < 20) refuse(`heartbeat ${l.heartbeatMs} ms is below the least of 20 ms`);
  if (l.leaseMs > 600_000) refuse(`lease ${l.leaseMs} ms is above the most of 600000 ms`);
  if (l.leaseMs < 6 * l.heartbeatMs)
    refuse(
      `lease ${l.leaseMs} ms must be at least 6 heartbeats (6 x ${l.heartbeatMs} ms): raise the lease or lower the heartbeat`,
    );
  if (l.electionMs < 2 * l.heartbeatMs)
    refuse(`election ${l.electionMs} ms must be at least 2 heartbeats (2 x ${l.heartbeatMs} ms)`);
  if (l.suspectMs < 2 * l.heartbeatMs)
    refuse(`suspect_after ${l.suspectMs} ms must be at least 2 heartbeats (2 x ${l.heartbeatMs} ms)`);
  if (l.deadMs < l.suspectMs) refuse(`dead_after ${l.deadMs} ms must not be below suspect_after ${l.suspectMs} ms`);
  if (l.leaseMs < 2 * l.heartbeatMs + worstElectionMs(l))
    refuse(
      `lease ${l.leaseMs} ms is too short to outlive the election of a new leader (2 x heartbeat ${l.heartbeatMs} + worst election ${worstElectionMs(l)} ms)`,
    );
}

/** Bounds of the time after its lease within which a machine ends itself, ms. */
export const SELF_END_MS_MIN = 1000;
export const SELF_END_MS_MAX = 600_000;

/**
 * How long after lease + margin a machine that ends itself is waited for, where what its node owns is to be freed (rule 2). It is kept
 * alive only while its lease is valid, so it ends `armedMs` after the last keep-alive. A keep-alive that was decided in time may
 * be written by a process that stood still in between, for just under `armedMs`, or its watchdog would have fired. So twice that is
 * waited for (as sbd's msgwait is twice its watchdog's time-out), and the drift between the clocks:
 *
 *   L + margin + 2T * f  >=  (L + T + T) * f + slack,   f = (1+rho)/(1-rho)       L: lease from the last acknowledgement, T: armedMs
 */
export function selfEndWaitMs(armedMs: number): number {
  return Math.ceil(2 * armedMs * DRIFT_FACTOR);
}

/**
 * Checks the time T within which the machine ends itself after its lease. Throws TSDLM_BAD_CONFIG naming both values.
 * A keep-alive leaves at least once a heartbeat, so T >= 4 heartbeats lets three of them be late.
 */
export function checkSelfEnd(l: Pick<TimeLimits, 'heartbeatMs' | 'leaseMs' | 'marginMs'>, armedMs: number): void {
  const refuse = (text: string): never => {
    throw new TsdlmError('TSDLM_BAD_CONFIG', text);
  };
  if (!(armedMs >= SELF_END_MS_MIN && armedMs <= SELF_END_MS_MAX)) {
    refuse(`self_end: timeout ${armedMs} ms must be ${SELF_END_MS_MIN} to ${SELF_END_MS_MAX} ms`);
  }
  if (armedMs < 4 * l.heartbeatMs)
    refuse(`self_end: timeout ${armedMs} ms must be at least 4 heartbeats (4 x ${l.heartbeatMs} ms)`);
  const waited = l.leaseMs + l.marginMs + selfEndWaitMs(armedMs);
  const ended = (l.leaseMs + 2 * armedMs) * DRIFT_FACTOR + SLACK_MS;
  if (waited < ended) {
    refuse(
      `self_end: lease ${l.leaseMs} + margin ${l.marginMs} + wait for timeout ${armedMs} = ${waited} ms is less than the ${Math.ceil(ended)} ms in which the machine has ended for certain`,
    );
  }
}

/** Margin of SIGKILL before the deadline (K) and slack for the push of a lease to the client (P). */
export const KILL_MARGIN_MS = 250;
export const PUSH_SLACK_MS = 100;

/**
 * Checks a command's grace time G (rule 24): L - (G+K+P) must leave 2 heartbeats, the worst election and a round trip.
 * Throws TSDLM_BAD_CONFIG with the largest grace that fits.
 */
export function checkGrace(l: Pick<TimeLimits, 'leaseMs' | 'heartbeatMs'> & Partial<TimeLimits>, graceMs: number): void {
  const electionMs = l.electionMs ?? Math.max(2 * l.heartbeatMs, Math.round(l.leaseMs / 6));
  const tickMs = l.tickMs ?? 50;
  const most = l.leaseMs - KILL_MARGIN_MS - PUSH_SLACK_MS - 2 * l.heartbeatMs - (2 * electionMs + 2 * tickMs) - 50;
  if (!(graceMs >= 0) || graceMs > most) {
    throw new TsdlmError(
      'TSDLM_BAD_CONFIG',
      `grace ${graceMs} ms does not fit a lease of ${l.leaseMs} ms: at most ${Math.max(0, Math.floor(most))} ms, or a longer lease on all nodes`,
    );
  }
}
