/**
 * Suspended: the lease is over, the holds are not (rule 20).
 *
 * The problem: of a pair one node dies; the other has no quorum and its own lease ends; if that ended its owners, the service
 * would be gone on both before anybody could go on alone. Where a node is ended by device only, nobody frees what it holds before
 * its machine was seen off, and then there is no owner left to be told. So its owners may keep what they hold beyond the lease.
 *
 * They still have a deadline, for rule 11 asks for one and it must end when this *process* is gone: on such a node the daemon
 * moves it by itself, at every heartbeat, to one lease from now; not only once the lease is over, for commands are ended well before
 * their deadline. Whoever was told a deadline by a process was so at the latest when that process ended; so a later one of
 * the same boot takes its place only one lease after it began to ask (presence.ts).
 */
import type { Millis } from '../protocol/ids.js';
import type { TimeLimits } from './time-limits.js';

export class Suspension {
  /** The lease is over, and what is held goes on. */
  isOn = false;
  /** What owners are told by ourselves; 0 = they are told the lease. */
  until: Millis = 0;
  /** Views that came while suspended. */
  views = 0;
  private readonly limits: Pick<TimeLimits, 'leaseMs' | 'heartbeatMs'>;

  constructor(limits: Pick<TimeLimits, 'leaseMs' | 'heartbeatMs'>) {
    this.limits = limits;
  }

  begin(): void {
    this.isOn = true;
    this.views = 0;
  }

  /** Moves the deadline once in a heartbeat, if only a device frees what is held here. */
  look(now: Millis, byDevice: boolean): void {
    const { leaseMs, heartbeatMs } = this.limits;
    if (!byDevice) this.until = 0;
    else if (this.until - now <= leaseMs - heartbeatMs) this.until = now + leaseMs;
  }

  resume(): void {
    this.isOn = false;
  }

  /** The incarnation is over. */
  end(): void {
    this.isOn = false;
    this.until = 0;
  }
}
