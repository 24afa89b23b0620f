/**
 * Ends a session's command in time when its wrapper cannot (rules 7 and 24).
 *
 * The problem: SIGTERM must reach the command at end-(G+K+P) and SIGKILL at end-K, but the wrapper that does this may have
 * been killed or stopped. So the daemon looks by itself at both points: at the first it acts only when the wrapper is
 * gone or stopped, at the second in any case. As in the client, a timer only asks to look, and the clock decides.
 */
import { KILL_MARGIN_MS, PUSH_SLACK_MS } from '../membership/time-limits.js';
import type { Session } from './session.js';
import { isGroupAlive, isInert, type ProcessGroup, signalGroup } from './session-group.js';

export interface SessionGuardOptions {
  now: () => number;
  log: (level: 'info' | 'warn' | 'error', event: string, data: Record<string, unknown>) => void;
  /** End of the holds of this node, as it is told. */
  holdUntil: () => number;
  /** A command runs on although it was killed and its time is over: the machine is to end, where it can (rule 11). */
  survives: (why: string) => void;
  /** For tests. */
  isAlive?: (group: ProcessGroup) => boolean;
}

export class SessionGuard {
  #o: SessionGuardOptions;
  /** Groups that got SIGKILL: each is looked at once more. */
  readonly #dying = new WeakSet<ProcessGroup>();

  constructor(options: SessionGuardOptions) {
    this.#o = options;
  }

  /** Something changed: the session has a lock, a group, or was dismissed. */
  watch(session: Session): void {
    if (session.group === null || session.granted === 0 || session.state === 'gone') return;
    if (session.guard !== null && session.state === 'open') return;
    this.#arm(session);
  }

  /** A lock of the session was lost: its command has no right to run on. */
  lost(session: Session): void {
    if (session.group === null) return;
    const group = session.group;
    // Out of the core's call, and after the wrapper had its turn.
    setImmediate(() => {
      if (session.group !== group || !isGroupAlive(group)) return;
      this.#o.log('warn', 'command-killed', { session: session.id, pgid: group.pgid, why: 'its lock was lost' });
      signalGroup(group, 'SIGKILL');
      this.#watchDeath(session.id, group);
    });
  }

  /** SIGKILL ends a process at once, unless the kernel keeps it (a disk that does not answer). */
  #watchDeath(session: number, group: ProcessGroup): void {
    if (this.#dying.has(group)) return;
    this.#dying.add(group);
    setTimeout(() => {
      if (!(this.#o.isAlive ?? isGroupAlive)(group)) return;
      const data = { session, pgid: group.pgid };
      this.#o.log('error', 'command-survives', { ...data, why: 'it runs on after SIGKILL, without a right to its lock' });
      this.#o.survives(`the command with process group ${group.pgid} has survived SIGKILL`);
    }, 2 * KILL_MARGIN_MS);
  }

  /** When the session's holds end, as far as is known now. */
  #end(session: Session): number {
    if (session.state !== 'open') return session.told;
    // Of before a restart: what the daemon before told still stands.
    return session.isUnsettled ? Math.max(session.told, this.#o.holdUntil()) : this.#o.holdUntil();
  }

  #arm(session: Session): void {
    if (session.guard !== null) clearTimeout(session.guard);
    session.guard = null;
    const group = session.group;
    if (group === null || session.granted === 0 || session.state === 'gone') return;
    const end = this.#end(session);
    const killAt = end - KILL_MARGIN_MS;
    const at = session.wasTermSent ? killAt : killAt - group.graceMs - PUSH_SLACK_MS;
    session.guard = setTimeout(() => this.#look(session), Math.max(1, at - this.#o.now()));
  }

  #look(session: Session): void {
    session.guard = null;
    const group = session.group;
    if (group === null || session.granted === 0 || session.state === 'gone') return;
    const now = this.#o.now();
    const killAt = this.#end(session) - KILL_MARGIN_MS;
    const data = { session: session.id, pgid: group.pgid };
    if (now >= killAt) {
      if (signalGroup(group, 'SIGKILL')) this.#o.log('warn', 'command-killed', { ...data, why: 'the lease of its lock ends' });
      this.#watchDeath(session.id, group);
      return;
    }
    if (!session.wasTermSent && now >= killAt - group.graceMs - PUSH_SLACK_MS) {
      // From here on only the second point matters, unless the lease moves on.
      session.wasTermSent = true;
      if (isInert(session.pid, session.start) && signalGroup(group, 'SIGTERM')) {
        this.#o.log('warn', 'command-terminated', {
          ...data,
          why: 'the lease of its lock ends and its wrapper is gone or stopped',
        });
      }
    } else if (session.wasTermSent && now < killAt - group.graceMs - PUSH_SLACK_MS) {
      session.wasTermSent = false;
    }
    this.#arm(session);
  }
}
