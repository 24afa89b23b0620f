/**
 * The `[fence.NAME]` tables: how nodes are ended. Only their text and the files they name are checked here; whether a device
 * answers is asked when the daemon runs (fence/monitor.ts), and src/fence makes methods of them.
 */
import { accessSync, constants, statSync } from 'node:fs';
import { dirname, isAbsolute, resolve } from 'node:path';
import { secretFileFault } from '../fence/secret-file.js';
import type { AgentFenceConfig, FenceMethodConfig, IpmiFenceConfig, ScriptFenceConfig } from '../fence/types.js';
import type { Complaints, TableReader } from './config-reader.js';

const METHODS_MAX = 64;
const TYPES = ['script', 'ipmi', 'agent'] as const;
/** Fence methods that need no table. */
export const BUILT_IN_METHODS: readonly string[] = ['self', 'manual'];
const TIMEOUT_DEFAULT_MS = 60_000;
const OPTION_NAME = /^[a-z][a-z0-9_-]{0,63}$/;
/** Given by us with every request. */
const OPTION_OURS = ['action', 'nodename'];
const PRIVILEGES = ['USER', 'OPERATOR', 'ADMINISTRATOR'] as const;
const IPMI_PORT = 623;
const CIPHER_MAX = 255;
/** No blank, and no leading "-": it becomes an argument of ipmitool. */
const ARGUMENT = /^[^\s-]\S*$/;
const WHAT_A_TYPE_NEEDS: Record<(typeof TYPES)[number], readonly (readonly [key: string, example: string])[]> = {
  script: [['command', '["/path/of/program"]']],
  ipmi: [
    ['host', '"10.0.1.1"'],
    ['user', '"fence"'],
    ['password_file', '"/etc/tsdlm/bmc.password"'],
  ],
  agent: [['program', '"/usr/sbin/fence_apc"']],
};

/** Options that are a secret by themselves, not the name of a file or script that has it. */
const SECRET_OPTION = /^(password|passwd|passphrase|secret|token|community)$/;

/** Where the file lies (onDisk: what is read comes from there) and whom its secrets must be kept from. */
export interface FenceFileContext {
  file: string;
  onDisk: boolean;
  uid: number;
}

function checkCommand(table: TableReader, command: string[], complaints: Complaints): void {
  const line = table.lineOf('command');
  const program = command[0];
  if (program === undefined || !isAbsolute(program)) {
    complaints.at(line, `command ${JSON.stringify(command)} must begin with the absolute path of a program`);
    return;
  }
  checkProgram(line, 'command', program, complaints);
}

function checkProgram(line: number, what: string, program: string, complaints: Complaints): void {
  try {
    if (!statSync(program).isFile()) throw new Error('it is not a file');
    accessSync(program, constants.X_OK);
  } catch (cause) {
    complaints.at(line, `${what} ${program} cannot be run: ${(cause as Error).message}`);
    return;
  }
  const { mode } = statSync(program);
  if ((mode & 0o002) !== 0) complaints.at(line, `${what} ${program} can be changed by anybody: run chmod o-w ${program}`);
}

function readOptions(table: TableReader, complaints: Complaints, ours = OPTION_OURS): Record<string, string> {
  const options: Record<string, string> = {};
  const inner = table.table('options');
  if (!inner) return options;
  for (const key of inner.keys()) {
    const value = inner.text(key, { max: 4096, pattern: /^[^\n\r]*$/, wanted: 'text on one line', secret: true });
    if (!OPTION_NAME.test(key)) complaints.at(inner.lineOf(key), `option ${JSON.stringify(key)} must be a lower case word`);
    else if (ours.includes(key)) complaints.at(inner.lineOf(key), `option "${key}" is set by tsdlmd itself: remove it`);
    else if (value !== undefined) options[key] = value;
  }
  return options;
}

function readScript(name: string, table: TableReader, complaints: Complaints): ScriptFenceConfig | null {
  const command = table.texts('command', 100);
  const timeoutMs = readTimeout(table);
  const options = readOptions(table, complaints);
  if (command === undefined) return null;
  checkCommand(table, command, complaints);
  return { name, type: 'script', command, timeoutMs, options };
}

function readIpmi(name: string, table: TableReader, complaints: Complaints, context: FenceFileContext): IpmiFenceConfig | null {
  const host = table.text('host', {
    max: 255,
    pattern: ARGUMENT,
    wanted: 'a host name or address without blanks, not beginning with "-"',
  });
  const port = table.integer('port', 1, 65_535) ?? IPMI_PORT;
  const user = table.text('user', { max: 64, pattern: ARGUMENT, wanted: 'a user name without blanks, not beginning with "-"' });
  const given = table.text('password_file');
  const cipher = table.integer('cipher', 0, CIPHER_MAX) ?? null;
  const privilege = table.oneOf('privilege', PRIVILEGES) ?? '';
  const timeoutMs = readTimeout(table);
  const powerOn = table.boolean('power_on') ?? true;
  const program = table.text('program') ?? 'ipmitool';
  if (isAbsolute(program)) checkProgram(table.lineOf('program'), 'program', program, complaints);
  else if (program !== 'ipmitool')
    complaints.at(table.lineOf('program'), `program "${program}" must be an absolute path, or "ipmitool"`);
  if (host === undefined || user === undefined || given === undefined) return null;
  const passwordFile = isAbsolute(given) ? given : resolve(dirname(context.file === '' ? '.' : context.file), given);
  const fault = secretFileFault(passwordFile, context.uid);
  if (fault !== undefined) complaints.at(table.lineOf('password_file'), `password_file ${passwordFile} ${fault}`);
  return { name, type: 'ipmi', host, port, user, passwordFile, cipher, privilege, timeoutMs, powerOn, program };
}

/** A program that is missing is a warning of the running daemon, not an error: the agents' package may come later. */
function readAgent(name: string, table: TableReader, complaints: Complaints): AgentFenceConfig | null {
  const program = table.text('program');
  const plug = table.text('plug', { max: 255, pattern: /^[^\n\r]*$/, wanted: 'text on one line' }) ?? '';
  const timeoutMs = readTimeout(table);
  const powerOn = table.boolean('power_on') ?? true;
  const options = readOptions(table, complaints, [...OPTION_OURS, 'plug']);
  if (program === undefined) return null;
  if (!isAbsolute(program)) {
    complaints.at(table.lineOf('program'), `program "${program}" must be an absolute path, such as /usr/sbin/fence_apc`);
  }
  return { name, type: 'agent', program, plug, timeoutMs, powerOn, options };
}

function readTimeout(table: TableReader): number {
  return table.integer('timeout_ms', 100, 600_000, ' milliseconds') ?? TIMEOUT_DEFAULT_MS;
}

/** Reads all `[fence.NAME]` tables. */
export function readFenceMethods(
  top: TableReader,
  complaints: Complaints,
  context: FenceFileContext,
): Map<string, FenceMethodConfig> {
  const methods = new Map<string, FenceMethodConfig>();
  for (const [name, table] of top.tables('fence', METHODS_MAX)) {
    const type = table.oneOf('type', TYPES);
    const keys = table.keys();
    if (BUILT_IN_METHODS.includes(name))
      complaints.at(table.line, `fence.${name} is built in and cannot be defined: choose another name`);
    else if (!/^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$/.test(name)) {
      complaints.at(
        table.line,
        `fence method ${JSON.stringify(name.slice(0, 80))} must be named by letters, digits, ".", "_" and "-"`,
      );
    }
    if (type === undefined) {
      if (!keys.includes('type'))
        complaints.at(table.line, `fence.${name} has no type: write type = ${TYPES.map((x) => `"${x}"`).join(' or ')}`);
      continue;
    }
    for (const [key, example] of WHAT_A_TYPE_NEEDS[type])
      if (!keys.includes(key)) complaints.at(table.line, `fence.${name} has no ${key}: write ${key} = ${example}`);
    const method =
      type === 'script'
        ? readScript(name, table, complaints)
        : type === 'ipmi'
          ? readIpmi(name, table, complaints, context)
          : readAgent(name, table, complaints);
    table.finish();
    const secret = method !== null && 'options' in method && Object.keys(method.options).find((key) => SECRET_OPTION.test(key));
    const fault = secret && context.onDisk ? secretFileFault(context.file, context.uid) : undefined;
    if (fault !== undefined)
      complaints.at(table.lineOf('options'), `this file holds the option "${secret}" of fence.${name} and ${fault}`);
    if (method !== null) methods.set(name, method);
  }
  return methods;
}
