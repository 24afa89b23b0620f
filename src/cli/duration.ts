/** Durations on the command line: a number with its unit, because "5" would mean seconds to some and milliseconds to others. */
import { TsdlmError } from '../protocol/errors.js';

const UNITS: Readonly<Record<string, number>> = { ms: 1, s: 1000, m: 60_000, h: 3_600_000 };
/** Timers cannot wait longer. */
const MAX_MS = 2 ** 31 - 1;

/** Milliseconds of "500ms", "5s", "1.5s", "2m", "1h" or "0". Throws TSDLM_USAGE naming the option. */
export function parseDuration(text: string, option: string): number {
  const match = /^(\d+(?:\.\d+)?)(ms|s|m|h)?$/.exec(text.trim());
  const value = Number(match?.[1]);
  const unit = match?.[2];
  if (match === null || (unit === undefined && value !== 0)) {
    throw new TsdlmError('TSDLM_USAGE', `${option} '${text}' must be a number with a unit, such as 500ms, 5s or 2m`);
  }
  const ms = value * (UNITS[unit ?? 'ms'] ?? 1);
  if (ms > MAX_MS)
    throw new TsdlmError('TSDLM_USAGE', `${option} '${text}' is longer than the most of ${Math.floor(MAX_MS / 3_600_000)}h`);
  return ms;
}

/** For people: 850 ms, 12.3 s, 4 min 10 s, 2 h 5 min, 3 d 4 h. */
export function formatDuration(ms: number): string {
  const seconds = ms / 1000;
  if (ms < 1000) return `${Math.round(ms)} ms`;
  if (seconds < 60) return `${seconds.toFixed(1)} s`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min ${Math.floor(seconds % 60)} s`;
  if (seconds < 86_400) return `${Math.floor(seconds / 3600)} h ${Math.floor((seconds % 3600) / 60)} min`;
  return `${Math.floor(seconds / 86_400)} d ${Math.floor((seconds % 86_400) / 3600)} h`;
}
