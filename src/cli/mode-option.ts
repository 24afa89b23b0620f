/** `--ex`, `--pr` and `--nl`, of which at most one may be given. */
import type { ModeName } from '../client/index.js';
import { TsdlmError } from '../protocol/errors.js';

export interface ModeFlags {
  ex?: boolean;
  pr?: boolean;
  nl?: boolean;
}

/** The mode that the flags name; `fallback` when there is none. Throws TSDLM_USAGE. */
export function modeOption(flags: ModeFlags, fallback: ModeName | null = 'EX'): ModeName {
  const given: ModeName[] = [];
  if (flags.ex === true) given.push('EX');
  if (flags.pr === true) given.push('PR');
  if (flags.nl === true) given.push('NL');
  const [mode, other] = given;
  if (other !== undefined)
    throw new TsdlmError('TSDLM_USAGE', `--${mode?.toLowerCase()} and --${other.toLowerCase()} exclude each other`);
  if (mode !== undefined) return mode;
  if (fallback === null) throw new TsdlmError('TSDLM_USAGE', 'say which mode is wanted: --ex, --pr or --nl');
  return fallback;
}
