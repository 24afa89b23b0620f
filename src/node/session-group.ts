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
import { readdirSync, readFileSync, statSync } from 'node:fs';
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

export interface ProcessStat {
  /** R, S, D, T (stopped), t (traced), Z (zombie), ... */
  state: string;
  ppid: number;
  pgrp: number;
  /** Clock ticks since boot: with the number it names one process for ever. */
  start: string;
}

/** Reads /proc/PID/stat; null when there is no such process. */
export function processStat(pid: number): ProcessStat | null {
  let text: string;
  try {
    text = readFileSync(`/proc/${pid}/stat`, 'latin1');
  } catch {
    return null;
  }
  // The name, in parentheses, may itself contain spaces and parentheses.
  const fields = text.slice(text.lastIndexOf(')') + 2).split(' ');
  return { state: fields[0] ?? '', ppid: Number(fields[1]), pgrp: Number(fields[2]), start: fields[19] ?? '' };
}

/** True when the process is gone, a zombie or stopped: it can do nothing for its command. */
export function isInert(pid: number, start: string): boolean {
  const stat = processStat(pid);
  return (
    stat === null || stat.start !== start || stat.state === 'Z' || stat.state === 'X' || stat.state === 'T' || stat.state === 't'
  );
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

/** True while the group has a member that is no zombie. */
export function isGroupAlive(group: ProcessGroup): boolean {
  const leader = processStat(group.pgid);
  if (leader !== null && leader.start !== group.leaderStart) return false;
  if (leader !== null && leader.pgrp === group.pgid && leader.state !== 'Z' && leader.state !== 'X') return true;
  try {
    process.kill(-group.pgid, 0);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ESRCH') return false;
  }
  // The leader is gone or a zombie: only the table of processes tells whether others are left.
  for (const entry of readdirSync('/proc')) {
    const pid = Number(entry);
    if (!Number.isInteger(pid)) continue;
    const stat = processStat(pid);
    if (stat !== null && stat.pgrp === group.pgid && stat.state !== 'Z' && stat.state !== 'X') return true;
  }
  return false;
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
