/** A session as status and administration see it. */
import type { Session } from './session.js';

export interface SessionInfo {
  id: number;
  pid: number;
  label: string;
  state: string;
  /** Granted locks. */
  held: number;
  /** Requests that wait. */
  waiting: number;
  /** Process group of its command; 0 = none. */
  group: number;
  sinceMs: number;
  backlogBytes: number;
}

export function sessionInfo(session: Session, now: number): SessionInfo {
  let waiting = 0;
  for (const hold of session.holds.values()) if (hold.asked !== 0) waiting++;
  return {
    id: session.id,
    pid: session.pid,
    label: session.label,
    state: session.state,
    held: session.granted,
    waiting,
    group: session.group?.pgid ?? 0,
    sinceMs: Math.round(now - session.openedAt),
    backlogBytes: session.backlog,
  };
}
