/**
 * The process group of a command that runs under a session's locks (rule 7).
 *
 * The problem: `tsdlm lock -- cmd` ends its command before the lock is lost, but the wrapper itself can be killed or
 * stopped. So it registers the command's process group, and the daemon ends that group when the wrapper cannot.
 *
 * A process number from a client is only a claim, and signalling the wrong group would be a disaster. A group is accepted
 * when its leader is alive, leads that group, descends from the client and runs under the client's user; before each
 * signal the leader's start time is compared, because numbers are used again. This is the best that is possible without
 * the peer credentials of the socket, which Node does not offer: a client could still name another process of its own
 * user as itself. Then it ends processes that it could have ended anyway.
 *
 * What left the group with setsid is not covered.
 */
import { statSync } from 'node:fs';
import { hasLivingMembers, isOver, processStat } from '../client/process-table.js';
import { TsdlmError } from '../protocol/errors.js';

/** How often a group that was told to end is looked at. */
const POLL_MS_FIRST = 10;
const POLL_MS_MAX = 200;
/** After SIGKILL a process is gone at once, except in uninterruptible sleep. */
const KILL_WAIT_MS = 2000;
const ANCESTORS_MAX = 64;

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
export function acceptGroup(pgid: number, graceMs: number, clientPid: number): ProcessGroup {
  const refuse = (why: string): never => {
    throw new TsdlmError('TSDLM_NOT_ALLOWED', `process group ${pgid} is not accepted: ${why}`);
  };
  if (pgid <= 1) refuse('it must be a process group of the client');
  const own = processStat(process.pid);
  if (pgid === own?.pgrp || pgid === process.pid) refuse("it is the daemon's own");
  const leader = processStat(pgid) ?? refuse('it has no leader that is alive');
  if (leader.pgrp !== pgid) refuse(`process ${pgid} leads no group`);
  if (!descendsFrom(pgid, clientPid)) refuse(`its leader does not descend from the client, process ${clientPid}`);
  if (userOf(pgid) !== userOf(clientPid)) refuse('it runs under another user than the client');
  if (!(graceMs >= 0 && graceMs <= 600_000)) refuse(`its grace of ${graceMs} ms must be 0 to 600000 ms`);
  return { pgid, graceMs, leaderStart: leader.start };
}

function descendsFrom(pid: number, ancestor: number): boolean {
  let at = pid;
  for (let i = 0; i < ANCESTORS_MAX && at > 1; i++) {
    const stat = processStat(at);
    if (stat === null) return false;
    if (stat.ppid === ancestor) return true;
    at = stat.ppid;
  }
  return false;
}

function userOf(pid: number): number | null {
  try {
    return statSync(`/proc/${pid}`).uid;
  } catch {
    return null;
  }
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
