/**
 * The `[self_end]` table: how this machine ends itself when its lease is over. Only this node's own: it tells the others in the log
 * what they may count on.
 */
import { accessSync, constants, statSync } from 'node:fs';
import { isAbsolute } from 'node:path';
import type { SelfEndConfig } from '../fence/self-end.js';
import { timeoutFault, timeoutFileOf } from '../fence/watchdog.js';
import { checkSelfEnd, type TimeLimits } from '../membership/time-limits.js';
import type { Complaints, TableReader } from './config-reader.js';

const METHODS = ['watchdog', 'sysrq', 'script'] as const;
const TIMEOUT_DEFAULT_MS = 10_000;

/** Reads it; null when there is none. */
export function readSelfEnd(top: TableReader, limits: TimeLimits, complaints: Complaints): SelfEndConfig | null {
  const table = top.table('self_end');
  if (!table) return null;
  const method = table.oneOf('method', METHODS);
  const device = table.text('device') ?? '/dev/watchdog';
  const timeoutMs = table.integer('timeout_ms', 1000, 600_000, ' milliseconds') ?? TIMEOUT_DEFAULT_MS;
  const timeoutFile = table.text('timeout_file') ?? timeoutFileOf(device);
  const trigger = table.text('trigger') ?? '/proc/sysrq-trigger';
  const command = table.texts('command', 100) ?? [];
  table.finish();
  if (method === undefined) {
    if (!table.keys().includes('method'))
      complaints.at(table.line, `self_end has no method: write method = ${METHODS.map((m) => `"${m}"`).join(' or ')}`);
    return null;
  }
  for (const [key, path] of [
    ['device', device],
    ['timeout_file', timeoutFile],
    ['trigger', trigger],
  ] as const) {
    if (!isAbsolute(path)) complaints.at(table.lineOf(key), `self_end: ${key} = "${path}" must be an absolute path`);
  }
  try {
    checkSelfEnd(limits, timeoutMs);
  } catch (error) {
    complaints.at(table.lineOf('timeout_ms'), (error as Error).message);
  }
  const fault = method === 'watchdog' ? timeoutFault(timeoutFile, timeoutMs) : '';
  if (fault !== '') complaints.at(table.lineOf('timeout_ms'), `self_end: watchdog ${device} ${fault}`);
  if (method === 'script') checkCommand(table, command, complaints);
  return { method, timeoutMs, device, timeoutFile, trigger, command };
}

function checkCommand(table: TableReader, command: string[], complaints: Complaints): void {
  const program = command[0] ?? '';
  if (!isAbsolute(program)) {
    complaints.at(table.lineOf('command'), 'self_end: command must begin with the absolute path of a program');
    return;
  }
  try {
    if (!statSync(program).isFile()) throw new Error('it is not a file');
    accessSync(program, constants.X_OK);
  } catch (cause) {
    complaints.at(table.lineOf('command'), `self_end: command ${program} cannot be run: ${(cause as Error).message}`);
  }
}
