/**
 * The daemon's log: one JSON line per event.
 *
 * The problem: keys and passwords must never reach a log, and pino prints a bigint as a bare number that readers round.
 * The idea: one factory that redacts every key that may hold a secret, at the top and one or two levels down, and that
 * prints bigints (tokens) as strings. Everybody else takes the small {@link Log} interface, so that tests can listen.
 */
import { type DestinationStream, pino } from 'pino';
import { tokenToBigInt } from '../protocol/ids.js';

export const LOG_LEVELS = ['debug', 'info', 'warn', 'error', 'silent'] as const;
export type LogLevel = (typeof LOG_LEVELS)[number];

/** What every module of the host may use. `event` is a stable word, `data` plain. */
export interface Log {
  debug(event: string, data?: Record<string, unknown>): void;
  info(event: string, data?: Record<string, unknown>): void;
  warn(event: string, data?: Record<string, unknown>): void;
  error(event: string, data?: Record<string, unknown>): void;
}

const SECRET_KEYS = ['key', 'password', 'passwd', 'secret', 'psk', 'stdin', 'authorization'];
const REDACTED = '[secret]';
const LEVELS_DEEP = 4;

/** A copy fit for the log: bigints as strings, errors as code and message, secrets hidden, depth bounded. */
export function loggable(value: unknown, depth = 0): unknown {
  if (typeof value === 'bigint') return value.toString();
  if (value instanceof Error) {
    const code = (value as { code?: unknown }).code;
    return { message: value.message, ...(typeof code === 'string' ? { code } : {}) };
  }
  if (value instanceof Uint8Array) return `${value.length} bytes`;
  if (typeof value !== 'object' || value === null) return value;
  if (depth >= LEVELS_DEEP) return '...';
  if (Array.isArray(value)) return value.slice(0, 100).map((x) => loggable(x, depth + 1));
  const out: Record<string, unknown> = {};
  for (const [k, v] of Object.entries(value)) {
    out[k] = SECRET_KEYS.includes(k.toLowerCase()) ? REDACTED : loggable(v, depth + 1);
  }
  return out;
}

/** A token as people and logs see it: decimal, as a string. */
export function tokenText(epoch: number, counter: number): string {
  return tokenToBigInt(epoch, counter).toString();
}

/** The daemon's logger. Writes JSON lines to standard error unless given another stream; `bindings` go on every line. */
export function createLog(
  level: LogLevel = 'info',
  bindings: Record<string, string | number> = {},
  destination?: DestinationStream,
): Log {
  const target = destination ?? pino.destination({ dest: 2, sync: true });
  const logger = pino({ level, base: bindings, timestamp: pino.stdTimeFunctions.isoTime, messageKey: 'event' }, target);
  const write = (how: 'debug' | 'info' | 'warn' | 'error') => (event: string, data?: Record<string, unknown>) => {
    if (!logger.isLevelEnabled(how)) return;
    if (data === undefined) logger[how](event);
    else logger[how](loggable(data) as object, event);
  };
  return { debug: write('debug'), info: write('info'), warn: write('warn'), error: write('error') };
}

/** For tests and embedding: says nothing. */
export const SILENT_LOG: Log = { debug() {}, info() {}, warn() {}, error() {} };
