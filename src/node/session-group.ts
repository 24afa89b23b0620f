/**
 * The process group of a command that runs under a session's locks (rule 7).
 *
 * The problem: `tsdlm lock -- cmd` ends its command before the lock is lost, but the wrapper itself can be killed or
 * stopped. So it registers the command's process group, and the daemon ends that group when the wrapper cannot. But a
 * process number from a client is only a claim, and Node does not offer the credentials of the peer: a client could name
 * any group and have the daemon, perhaps root, end it.
 *
 * The idea: the leader's own environment is the proof. The wrapper starts the command with a random TSDLM_SESSION and tells
 * the daemon the same value; nobody can put a value into the environment that somebody else's process was started with.
 * Before each signal the leader's start time is compared, because numbers are used again.
 *
 * Not covered: what left the group with setsid; commands of another user when the daemon is not root (it can neither read
 * their environment nor signal them; the client is told).
 */
import { readFileSync } from 'node:fs';
import { hasLivingMembers, isOver, processStat } from '../client/process-table.js';
import { TsdlmError } from '../protocol/errors.js';

/** How often a group that was told to end is looked at. */
const POLL_MS_FIRST = 10;
const POLL_MS_MAX = 200;
/** After SIGKILL a process is gone at once, except in uninterruptible sleep. */
const KILL_WAIT_MS = 2000;
const GRACE_MS_MAX = 600_000;
const PROOF_CHARS_MIN = 16;

export interface ProcessGroup {
  readonly pgid: number;
  readonly graceMs: number;
  /** Start time of the leader at the registration, in clock ticks since boot. */
  readonly leaderStart: string;
}

/** True when the process is gone, a zombie or stopped: it can do nothing for its command. */
export function isInert(pid: number, start: string): boolean {
  const stat = processStat(pid);
  return stat === null || stat.start !== start || isOver(stat) || stat.state === 'T' || stat.state === 't';
}

/** Checks a claimed group. Throws TSDLM_NOT_ALLOWED with the reason. */
export function acceptGroup(pgid: number, graceMs: number, proof: string): ProcessGroup {
  const refuse = (why: string): never => {
    throw new TsdlmError('TSDLM_NOT_ALLOWED', `process group ${pgid} is not accepted: ${why}`);
  };
  if (pgid <= 1) refuse('it must be a process group of the client');
  if (pgid === processStat(process.pid)?.pgrp || pgid === process.pid) refuse("it is the daemon's own");
  if (!(graceMs >= 0 && graceMs <= GRACE_MS_MAX)) refuse(`its grace of ${graceMs} ms must be 0 to ${GRACE_MS_MAX} ms`);
  if (proof.length < PROOF_CHARS_MIN) refuse(`its proof must have at least ${PROOF_CHARS_MIN} characters`);
  const leader = processStat(pgid) ?? refuse('it has no leader that is alive');
  if (leader.pgrp !== pgid) refuse(`process ${pgid} leads no group`);
  let environment: string[];
  try {
    environment = readFileSync(`/proc/${pgid}/environ`, 'utf8').split('\0');
  } catch (error) {
    return refuse(`the environment of its leader cannot be read (${(error as NodeJS.ErrnoException).code})`);
  }
  if (!environment.includes(`TSDLM_SESSION=${proof}`)) refuse('its leader was not started by this client');
  return { pgid, graceMs, leaderStart: leader.start };
}

/** True while the group has a member that is no zombie, and its number still means this group. */
export function isGroupAlive(group: ProcessGroup): boolean {
  const leader = processStat(group.pgid);
  if (leader !== null && leader.start !== group.leaderStart) return false;
  return hasLivingMembers(group.pgid);
}

/** Sends a signal to the group. False when it is gone or may not be signalled. */
export function signalGroup(group: ProcessGroup, signal: 'SIGTERM' | 'SIGKILL'): boolean {
  if (!isGroupAlive(group)) return false;
  try {
    process.kill(-group.pgid, signal);
    // A stopped process acts on SIGTERM only when it is continued.
    if (signal === 'SIGTERM') process.kill(-group.pgid, 'SIGCONT');
    return true;
  } catch {
    return false;
  }
}

/**
 * Ends a group: SIGTERM, its grace (at most `graceMsMax`), SIGKILL. Resolves with true when nothing of it is left, with
 * false when it could not be ended.
 */
export async function endGroup(group: ProcessGroup, graceMsMax: number): Promise<boolean> {
  if (!isGroupAlive(group)) return true;
  signalGroup(group, 'SIGTERM');
  if (await isGoneWithin(group, Math.min(group.graceMs, graceMsMax))) return true;
  signalGroup(group, 'SIGKILL');
  return isGoneWithin(group, KILL_WAIT_MS);
}

async function isGoneWithin(group: ProcessGroup, limitMs: number): Promise<boolean> {
  const began = performance.now();
  let pause = POLL_MS_FIRST;
  for (;;) {
    if (!isGroupAlive(group)) return true;
    const left = limitMs - (performance.now() - began);
    if (left <= 0) return false;
    await new Promise((resolve) => setTimeout(resolve, Math.min(pause, left)));
    pause = Math.min(pause * 2, POLL_MS_MAX);
  }
}
