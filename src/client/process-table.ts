/**
 * What /proc says of processes and process groups. Used by both ends of a command that runs under a lock: the command line,
 * which ends it, and the daemon, which ends it when the command line cannot (rule 7).
 *
 * Zombies count as gone: they run nothing, and in containers whose first process collects nobody they stay for ever.
 */
import { readdirSync, readFileSync } from 'node:fs';

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

export function isOver(stat: ProcessStat): boolean {
  return stat.state === 'Z' || stat.state === 'X';
}

/** True while the group has a member that runs, sleeps or is stopped. */
export function hasLivingMembers(pgid: number): boolean {
  const leader = processStat(pgid);
  if (leader !== null && leader.pgrp === pgid && !isOver(leader)) return true;
  try {
    process.kill(-pgid, 0);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ESRCH') return false;
  }
  // The leader is gone or a zombie: only the table of processes tells whether others are left.
  for (const entry of readdirSync('/proc')) {
    const pid = Number(entry);
    if (!Number.isInteger(pid)) continue;
    const stat = processStat(pid);
    if (stat !== null && stat.pgrp === pgid && !isOver(stat)) return true;
  }
  return false;
}
