/**
 * TOML with positions.
 *
 * The problem: "lease_ms must be at least 120" helps only with the file and line where it stands. Most TOML readers give a
 * plain object and forget where its values came from.
 * The idea: a parser that keeps the syntax tree, turned here into nested {@link TomlTable}s in which every key and value has its line.
 */
import { type AST, parseTOML } from 'toml-eslint-parser';
import { TsdlmError } from '../protocol/errors.js';

export interface TomlTable {
  type: 'table';
  line: number;
  entries: Map<string, { line: number; value: TomlValue }>;
}
export interface TomlArray {
  type: 'array';
  line: number;
  items: TomlValue[];
}
export interface TomlScalar {
  type: 'string' | 'integer' | 'float' | 'boolean' | 'date';
  line: number;
  value: string | number | boolean | Date;
}
export type TomlValue = TomlTable | TomlArray | TomlScalar;

const FILE_BYTES_MAX = 1024 * 1024;

function convert(node: AST.TOMLContentNode): TomlValue {
  const { line } = node.loc.start;
  if (node.type === 'TOMLArray') return { type: 'array', line, items: node.elements.map(convert) };
  if (node.type === 'TOMLInlineTable') {
    const table: TomlTable = { type: 'table', line, entries: new Map() };
    for (const pair of node.body) put(table, pair);
    return table;
  }
  switch (node.kind) {
    case 'string':
    case 'integer':
    case 'float':
    case 'boolean':
      return { type: node.kind, line, value: node.value };
    default:
      return { type: 'date', line, value: node.value };
  }
}

function keysOf(key: AST.TOMLKey): { name: string; line: number }[] {
  return key.keys.map((k) => ({ name: k.type === 'TOMLBare' ? k.name : k.value, line: k.loc.start.line }));
}

/** The table under `name`, made when it is missing. The parser has refused keys that are defined twice. */
function step(table: TomlTable, name: string, line: number): TomlTable {
  const found = table.entries.get(name)?.value;
  if (found?.type === 'table') return found;
  if (found?.type === 'array') {
    const last = found.items.at(-1);
    if (last?.type === 'table') return last;
  }
  const made: TomlTable = { type: 'table', line, entries: new Map() };
  table.entries.set(name, { line, value: made });
  return made;
}

function put(table: TomlTable, pair: AST.TOMLKeyValue): void {
  const keys = keysOf(pair.key);
  const last = keys.pop();
  let target = table;
  for (const { name, line } of keys) target = step(target, name, line);
  if (last) target.entries.set(last.name, { line: last.line, value: convert(pair.value) });
}

function open(root: TomlTable, node: AST.TOMLTable): TomlTable {
  const keys = keysOf(node.key);
  if (node.kind === 'standard') {
    let target = root;
    for (const { name, line } of keys) target = step(target, name, line);
    return target;
  }
  const last = keys.pop();
  let target = root;
  for (const { name, line } of keys) target = step(target, name, line);
  const { line } = node.loc.start;
  const made: TomlTable = { type: 'table', line, entries: new Map() };
  if (!last) return made;
  const list = target.entries.get(last.name)?.value;
  if (list?.type === 'array') list.items.push(made);
  else target.entries.set(last.name, { line, value: { type: 'array', line, items: [made] } });
  return made;
}

/** Parses TOML 1.0. Throws TSDLM_BAD_CONFIG as `file:line: what is wrong`. */
export function parseToml(text: string, file: string): TomlTable {
  if (text.length > FILE_BYTES_MAX) {
    throw new TsdlmError(
      'TSDLM_BAD_CONFIG',
      `${file}: ${text.length} characters are more than a configuration may have (${FILE_BYTES_MAX})`,
    );
  }
  let program: AST.TOMLProgram;
  try {
    program = parseTOML(text, { tomlVersion: '1.0' });
  } catch (cause) {
    const { lineNumber, message } = cause as { lineNumber?: number; message: string };
    throw new TsdlmError('TSDLM_BAD_CONFIG', `${file}:${lineNumber ?? 1}: not valid TOML: ${message}`, { cause });
  }
  const root: TomlTable = { type: 'table', line: 1, entries: new Map() };
  for (const node of program.body[0].body) {
    if (node.type === 'TOMLKeyValue') put(root, node);
    else {
      const table = open(root, node);
      for (const pair of node.body) put(table, pair);
    }
  }
  return root;
}
