/**
 * A machine that ends itself: what `self` may count on beyond the lease (rules 2 and 11).
 *
 * The problem: when a node's lease is over the others may grant its session locks, but a script that raised an address under a
 * node-owned lock knows nothing of that; it ends only with the machine. The idea, as sbd's and every hardware watchdog's: something
 * that does not need the daemon ends the machine unless it is kept alive, and the daemon keeps it alive only while its lease is
 * valid. So a daemon that is cut off, killed, stopped or stuck takes the machine along, `timeoutMs` after its last keep-alive. The
 * others wait for twice that and the drift between clocks (time-limits.ts).
 *
 *   watchdog   the kernel's device: it is armed by opening it, kept alive by any byte, disarmed by "V" before it is closed
 *   sysrq      a helper process of ours (guard.ts) writes "b" to /proc/sysrq-trigger: as good as that process
 *   script     the same helper runs a program: best effort, it frees nothing
 *
 * What it leaves to others: when it may be kept alive and disarmed (the daemon), and what follows from it (src/membership).
 */
export interface SelfEndConfig {
  method: 'watchdog' | 'sysrq' | 'script';
  /** The machine has ended at most so long after the last keep-alive, ms. */
  timeoutMs: number;
  /** The watchdog's device. */
  device: string;
  /** Where the device's own time-out can be read, in seconds; '' = nowhere. */
  timeoutFile: string;
  /** What sysrq is written to. */
  trigger: string;
  /** Program and arguments of the script. */
  command: string[];
}

export type SelfEndLog = (level: 'info' | 'warn' | 'error', event: string, data: Record<string, unknown>) => void;

export interface SelfEnd {
  /** What the others may count on now: the machine ends within so many ms after the last keep-alive; 0 = on nothing. */
  readonly armedMs: number;
  /** Arms it, or keeps it alive. Only while the lease is valid; called often, acts a few times per `timeoutMs`. */
  keepAlive(): void;
  /** The machine is to end as soon as this can bring it about. There is no way back. */
  endNow(why: string): void;
  /** Nothing on this machine needs to end: the daemon has left cleanly. */
  disarm(): Promise<void>;
  /** For status. */
  warnings(): string[];
}

/** Keep-alives per time-out. */
export const KEEP_ALIVES = 5;
