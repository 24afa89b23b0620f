/** What the bridge helper does to the kernel's dlmfs, as an interface: the real one is real-files.ts, tests have a fake. */
import type { Mode } from '../protocol/modes.js';

/** One open file: a holder of the lock. */
export interface KernelHold {
  readonly mode: Mode;
  /** The 64 bytes as of the grant. */
  read(): Promise<Uint8Array>;
  write(value: Uint8Array): Promise<void>;
  /** Calls `blocked` whenever another owner has begun to wait for what this one holds. */
  onBlocked(blocked: () => void): void;
  /** Never waits and never fails. */
  close(): void;
}

export interface KernelFiles {
  /** Throws when the dlmfs cannot be used now, with the reason. Called again and again. */
  check(): Promise<void>;
  /** Joins a domain; again is no matter. */
  join(domain: string): Promise<void>;
  /** The names that this mount has in a domain. */
  names(domain: string): Promise<string[]>;
  /** Takes a lock. Rejects with the code of node:fs: ETXTBSY when `isTry` and others hold it. */
  open(domain: string, name: string, mode: Mode, isTry: boolean): Promise<KernelHold>;
  /** Gives the lock up altogether, and publishes its value block. */
  unlink(domain: string, name: string): Promise<void>;
}
