/**
 * The `[fence.NAME]` tables: how nodes are ended. Only their text is checked here; src/fence makes methods of them.
 */
import { accessSync, constants, statSync } from 'node:fs';
import { isAbsolute } from 'node:path';
import type { FenceMethodConfig } from '../fence/types.js';
import type { Complaints, TableReader } from './config-reader.js';

const METHODS_MAX = 64;
const TYPES = ['script'] as const;
const TIMEOUT_DEFAULT_MS = 60_000;
const OPTION_NAME = /^[a-z][a-z0-9_-]{0,63}$/;
/** Given by us with every request. */
const OPTION_OURS = ['action', 'nodename'];

function checkProgram(table: TableReader, command: string[], complaints: Complaints): void {
  const line = table.lineOf('command');
  const program = command[0];
  if (program === undefined || !isAbsolute(program)) {
    complaints.at(line, `command ${JSON.stringify(command)} must begin with the absolute path of a program`);
    return;
  }
  try {
    if (!statSync(program).isFile()) throw new Error('it is not a file');
    accessSync(program, constants.X_OK);
  } catch (cause) {
    complaints.at(line, `command ${program} cannot be run: ${(cause as Error).message}`);
    return;
  }
  const { mode } = statSync(program);
  if ((mode & 0o002) !== 0) complaints.at(line, `command ${program} can be changed by anybody: run chmod o-w ${program}`);
}

function readOptions(table: TableReader, complaints: Complaints): Record<string, string> {
  const options: Record<string, string> = {};
  const inner = table.table('options');
  if (!inner) return options;
  for (const key of inner.keys()) {
    const value = inner.text(key, { max: 4096, pattern: /^[^\n\r]*$/, wanted: 'text on one line', secret: true });
    if (!OPTION_NAME.test(key)) complaints.at(inner.lineOf(key), `option ${JSON.stringify(key)} must be a lower case word`);
    else if (OPTION_OURS.includes(key)) complaints.at(inner.lineOf(key), `option "${key}" is set by tsdlmd itself: remove it`);
    else if (value !== undefined) options[key] = value;
  }
  return options;
}

/** Reads all `[fence.NAME]` tables. */
export function readFenceMethods(top: TableReader, complaints: Complaints): Map<string, FenceMethodConfig> {
  const methods = new Map<string, FenceMethodConfig>();
  for (const [name, table] of top.tables('fence', METHODS_MAX)) {
    const type = table.oneOf('type', TYPES);
    const command = table.texts('command', 100);
    const timeoutMs = table.integer('timeout_ms', 100, 600_000, ' milliseconds') ?? TIMEOUT_DEFAULT_MS;
    const options = readOptions(table, complaints);
    table.finish();
    if (name === 'self') complaints.at(table.line, 'fence.self is built in and cannot be defined: choose another name');
    else if (!/^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$/.test(name)) {
      complaints.at(
        table.line,
        `fence method ${JSON.stringify(name.slice(0, 80))} must be named by letters, digits, ".", "_" and "-"`,
      );
    }
    if (type === undefined && !table.keys().includes('type'))
      complaints.at(table.line, `fence.${name} has no type: write type = "script"`);
    if (command === undefined) {
      if (!table.keys().includes('command'))
        complaints.at(table.line, `fence.${name} has no command: write command = ["/path/of/program"]`);
      continue;
    }
    checkProgram(table, command, complaints);
    methods.set(name, { name, type: 'script', command, timeoutMs, options });
  }
  return methods;
}
