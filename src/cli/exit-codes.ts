/** The exit codes of `tsdlm`, after sysexits.h; scripts rely on them, so each error code has exactly one. */
import type { ErrorCode } from '../protocol/errors.js';

export const EXIT_OK = 0;
/** Anything that has no code of its own, such as unlocking what is not held. */
export const EXIT_FAILED = 1;
export const EXIT_USAGE = 64;
/** The daemon is unreachable, or cannot decide now. */
export const EXIT_UNAVAILABLE = 69;
/** Held by others, or the time is over. `-E` sets another. */
export const EXIT_CONFLICT = 75;
export const EXIT_LOST = 76;
export const EXIT_NOT_ALLOWED = 77;
export const EXIT_CONFIG = 78;
/** As in shells: found but not executable, and not found. */
export const EXIT_NOT_EXECUTABLE = 126;
export const EXIT_NOT_FOUND = 127;

const BY_CODE: Partial<Record<ErrorCode, number>> = {
  TSDLM_CONFLICT: EXIT_CONFLICT,
  TSDLM_TIMEOUT: EXIT_CONFLICT,
  TSDLM_DEADLOCK: EXIT_CONFLICT,
  TSDLM_LOST: EXIT_LOST,
  TSDLM_NOT_ALLOWED: EXIT_NOT_ALLOWED,
  TSDLM_WITNESS: EXIT_NOT_ALLOWED,
  TSDLM_BAD_CONFIG: EXIT_CONFIG,
  TSDLM_USAGE: EXIT_USAGE,
  TSDLM_BAD_ARGUMENT: EXIT_USAGE,
  TSDLM_NAME_TOO_LONG: EXIT_USAGE,
  TSDLM_UNAVAILABLE: EXIT_UNAVAILABLE,
  TSDLM_BRIDGE_DOWN: EXIT_UNAVAILABLE,
  TSDLM_OUTCOME_UNKNOWN: EXIT_UNAVAILABLE,
  TSDLM_DAEMON_UNREACHABLE: EXIT_UNAVAILABLE,
  TSDLM_STOPPING: EXIT_UNAVAILABLE,
  TSDLM_RESTARTING: EXIT_UNAVAILABLE,
  TSDLM_OVERLOADED: EXIT_UNAVAILABLE,
  TSDLM_LIMIT_REACHED: EXIT_UNAVAILABLE,
  TSDLM_VERSION_MISMATCH: EXIT_UNAVAILABLE,
};

export function exitCodeOf(code: ErrorCode): number {
  return BY_CODE[code] ?? EXIT_FAILED;
}
