/** What callers may ask for, and the check of it: bad arguments are refused here, in words, before anything is sent. */
import { TsdlmError } from '../protocol/errors.js';
import { DOMAIN_BYTES_MAX, LVB_BYTES, NAME_BYTES_MAX, WHY_BYTES_MAX } from '../protocol/limits.js';
import { type Mode, type ModeName, modeFromName } from '../protocol/modes.js';

export interface ConnectOptions {
  /** Path of the daemon's socket. Default: TSDLM_SOCKET, else the usual places. */
  socket?: string;
  /** Says to others what this client is; at most 60 bytes. Default: the program's name. */
  label?: string;
  /** Connect again, with back-off, for requests made after the connection was lost. Default true. */
  reconnect?: boolean;
  /** How long a request waits for a new connection, and the first answer of the daemon may take. Default 5000 ms. */
  connectTimeout?: number;
}

/** What is used of an AbortSignal. Something that asks for very many locks may have a cheaper one. */
export interface CancelSignal {
  readonly aborted: boolean;
  readonly reason: unknown;
  addEventListener(type: 'abort', listener: () => void, options?: { once?: boolean }): void;
  removeEventListener(type: 'abort', listener: () => void): void;
}

export interface ConvertOptions {
  /** Ends the wait: the request is withdrawn and rejects with TSDLM_CANCELLED. An AbortSignal is one. */
  signal?: CancelSignal;
  /** Milliseconds after which the request rejects with TSDLM_TIMEOUT. Default: wait for ever. */
  timeout?: number;
  /** Do not wait: TSDLM_CONFLICT when somebody is in the way. */
  try?: boolean;
  /** Conversions down from EX: value block to store. */
  lvb?: Uint8Array;
}

export interface LockOptions extends Omit<ConvertOptions, 'lvb'> {
  /** Default 'default'. */
  domain?: string;
  /** Reads or writes the value block: its state becomes `invalid` should this process die holding EX (rule 18). */
  lvb?: boolean;
  /** Shown to those who wait; at most 200 bytes. */
  why?: string;
  /** The lock belongs to the node and outlives this process (rule 2). */
  nodeOwned?: boolean;
  /** The handle's signal fires so many milliseconds before the deadline. Default: see `defaultAbortBefore`. */
  abortBefore?: number;
}

/** A duration longer than this is a mistake, and longer than timers can wait (2^31 ms). */
const TIMEOUT_MS_MAX = 2 ** 31 - 1;

function refuse(text: string): never {
  throw new TsdlmError('TSDLM_BAD_ARGUMENT', text);
}

export function checkName(name: string): void {
  if (typeof name !== 'string' || name.length === 0) refuse('a lock name must be a string of at least one character');
  if (name.includes('\0')) refuse('a lock name must not contain a NUL character');
  // A string of n units is at most 3n bytes: the cheap test first.
  if (name.length * 3 > NAME_BYTES_MAX && Buffer.byteLength(name) > NAME_BYTES_MAX) {
    throw new TsdlmError(
      'TSDLM_NAME_TOO_LONG',
      `lock name of ${Buffer.byteLength(name)} bytes: at most ${NAME_BYTES_MAX} are allowed`,
    );
  }
}

export function checkDomain(domain: string): void {
  if (typeof domain !== 'string' || domain.length === 0 || domain.includes('\0') || domain.includes('/')) {
    refuse(`domain '${String(domain)}' must be a string of at least one character, without '/' and NUL`);
  }
  if (Buffer.byteLength(domain) > DOMAIN_BYTES_MAX) {
    throw new TsdlmError(
      'TSDLM_NAME_TOO_LONG',
      `domain name of ${Buffer.byteLength(domain)} bytes: at most ${DOMAIN_BYTES_MAX} are allowed`,
    );
  }
}

export function checkMode(mode: Mode | ModeName): Mode {
  if (mode === 0 || mode === 1 || mode === 2) return mode;
  const known = typeof mode === 'string' ? modeFromName(mode) : undefined;
  return known ?? refuse(`mode '${String(mode)}' must be one of NL, PR and EX`);
}

export function checkTimeout(timeout: number | undefined): void {
  if (timeout === undefined) return;
  if (!(timeout >= 0 && timeout <= TIMEOUT_MS_MAX)) refuse(`timeout ${timeout} must be 0 to ${TIMEOUT_MS_MAX} milliseconds`);
}

export function checkWhy(why: string | undefined): void {
  if (why !== undefined && Buffer.byteLength(why) > WHY_BYTES_MAX) {
    refuse(`the 'why' text has ${Buffer.byteLength(why)} bytes: at most ${WHY_BYTES_MAX} are allowed`);
  }
}

export function checkLvb(value: Uint8Array): Uint8Array {
  if (!(value instanceof Uint8Array) || value.length !== LVB_BYTES) {
    refuse(`a value block has exactly ${LVB_BYTES} bytes: pad or cut what you store`);
  }
  return value;
}
