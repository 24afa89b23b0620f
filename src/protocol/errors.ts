/**
 * The closed list of error codes. Callers match codes, never texts; a code keeps its meaning for ever.
 * On the wire a code travels as its number, so numbers are never reused either.
 */
export const ERROR_CODES = {
  // Outcomes of lock requests: normal results, not faults.
  TSDLM_CONFLICT: 1,
  TSDLM_TIMEOUT: 2,
  TSDLM_CANCELLED: 3,
  TSDLM_DEADLOCK: 4,
  TSDLM_LOST: 5,
  TSDLM_UNAVAILABLE: 6,
  TSDLM_OUTCOME_UNKNOWN: 7,
  TSDLM_NOT_HELD: 8,
  TSDLM_STOPPING: 9,
  TSDLM_LVB_INVALID: 10,
  TSDLM_RESTARTING: 11,
  TSDLM_BRIDGE_DOWN: 12,
  // What the caller or operator did wrong.
  TSDLM_BAD_ARGUMENT: 20,
  TSDLM_NAME_TOO_LONG: 21,
  TSDLM_NOT_ALLOWED: 22,
  TSDLM_LIMIT_REACHED: 23,
  TSDLM_BAD_CONFIG: 24,
  TSDLM_USAGE: 25,
  /** The node votes and owns no locks: ask another one. */
  TSDLM_WITNESS: 26,
  // Between daemons and at the doors.
  TSDLM_BAD_FRAME: 40,
  TSDLM_FRAME_TOO_LARGE: 41,
  TSDLM_VERSION_MISMATCH: 42,
  TSDLM_AUTH_FAILED: 43,
  TSDLM_WRONG_CLUSTER: 44,
  TSDLM_CONFIG_MISMATCH: 45,
  TSDLM_LIMITS_MISMATCH: 46,
  TSDLM_UNKNOWN_NODE: 47,
  TSDLM_STALE_INCARNATION: 48,
  TSDLM_JOURNAL_LOST: 49,
  TSDLM_OVERLOADED: 50,
  TSDLM_PROTOCOL: 51,
  TSDLM_DAEMON_UNREACHABLE: 52,
  TSDLM_SLOW_CLIENT: 53,
  /** The node was removed from the cluster for good. */
  TSDLM_NODE_REMOVED: 54,
  // The journal.
  TSDLM_JOURNAL_FAILED: 60,
  TSDLM_JOURNAL_CORRUPT: 61,
  TSDLM_JOURNAL_FOREIGN: 62,
  TSDLM_JOURNAL_TOO_NEW: 63,
  TSDLM_JOURNAL_FULL: 64,
  TSDLM_JOURNAL_IN_USE: 65,
  TSDLM_JOURNAL_ROLLED_BACK: 66,
  // A broken invariant of our own.
  TSDLM_INVARIANT: 90,
} as const;

export type ErrorCode = keyof typeof ERROR_CODES;

const BY_NUMBER = new Map<number, ErrorCode>(Object.entries(ERROR_CODES).map(([k, v]) => [v, k as ErrorCode]));

export function errorCodeOf(value: number): ErrorCode | undefined {
  return BY_NUMBER.get(value);
}

/** Codes after which the same call may be made again and may well succeed. */
const RETRYABLE: ReadonlySet<ErrorCode> = new Set([
  'TSDLM_CONFLICT',
  'TSDLM_TIMEOUT',
  'TSDLM_DEADLOCK',
  'TSDLM_UNAVAILABLE',
  'TSDLM_RESTARTING',
  'TSDLM_OUTCOME_UNKNOWN',
  'TSDLM_OVERLOADED',
  'TSDLM_DAEMON_UNREACHABLE',
  'TSDLM_LOST',
  'TSDLM_BRIDGE_DOWN',
]);

/** An operating error with a stable code. `message` names the value, the place and the way out. */
export class TsdlmError extends Error {
  readonly code: ErrorCode;
  constructor(code: ErrorCode, message: string, options?: { cause?: unknown }) {
    super(message, options);
    this.name = 'TsdlmError';
    this.code = code;
  }
  get canRetry(): boolean {
    return RETRYABLE.has(this.code);
  }
}

/** A broken invariant of our own: the daemon writes its state dump and stops. Never thrown for bad input. */
export class InvariantError extends TsdlmError {
  constructor(message: string) {
    super('TSDLM_INVARIANT', message);
    this.name = 'InvariantError';
  }
}

/** Throws {@link InvariantError} unless the condition holds. Stays on in production. */
export function invariant(condition: boolean, message: string): asserts condition {
  if (!condition) throw new InvariantError(message);
}
