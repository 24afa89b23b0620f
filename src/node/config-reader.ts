/**
 * Typed reading of a positioned TOML table.
 *
 * The problem: whoever writes a configuration wants all mistakes at once, each with file:line, the value, and what is allowed.
 * The idea: a reader per table that hands out typed values, notes every complaint in a shared list, and at the end complains
 * about keys that nobody asked for, with the nearest one that exists.
 */
import { TsdlmError } from '../protocol/errors.js';
import { nearest } from './nearest.js';
import type { TomlTable, TomlValue } from './toml.js';

/** Complaints of one file, thrown together. */
export class Complaints {
  readonly #file: string;
  readonly #texts: { line: number; text: string }[] = [];

  constructor(file: string) {
    this.#file = file;
  }

  at(line: number, text: string): void {
    this.#texts.push({ line, text });
  }

  place(line: number): string {
    return `${this.#file}:${line}`;
  }

  /** Throws TSDLM_BAD_CONFIG with one line per complaint, in the order of the file. */
  throwIfAny(): void {
    if (this.#texts.length === 0) return;
    const lines = this.#texts.sort((a, b) => a.line - b.line).map(({ line, text }) => `${this.place(line)}: ${text}`);
    throw new TsdlmError('TSDLM_BAD_CONFIG', lines.join('\n'));
  }
}

/** How a value is shown in a complaint: short, and never a secret's text. */
function shown(value: TomlValue): string {
  if (value.type === 'table') return 'a table';
  if (value.type === 'array') return 'a list';
  return typeof value.value === 'string' ? JSON.stringify(value.value.slice(0, 80)) : String(value.value);
}

export interface Found<T> {
  value: T;
  line: number;
}

export class TableReader {
  readonly line: number;
  readonly #table: TomlTable;
  readonly #name: string;
  readonly #complaints: Complaints;
  readonly #known: string[] = [];

  /** `name` as people would write it: "" for the top, "limits", "nodes". */
  constructor(table: TomlTable, name: string, complaints: Complaints) {
    this.#table = table;
    this.#name = name;
    this.#complaints = complaints;
    this.line = table.line;
  }

  #full(key: string): string {
    return this.#name === '' ? key : `${this.#name}.${key}`;
  }

  /** Line of a key, or of the table when it is not there. */
  lineOf(key: string): number {
    return this.#table.entries.get(key)?.line ?? this.line;
  }

  keys(): string[] {
    return [...this.#table.entries.keys()];
  }

  raw(key: string): TomlValue | undefined {
    this.#known.push(key);
    return this.#table.entries.get(key)?.value;
  }

  #wrong(key: string, value: TomlValue, wanted: string): undefined {
    this.#complaints.at(value.line, `${this.#full(key)} = ${shown(value)} must be ${wanted}`);
    return undefined;
  }

  /** Text of 1..max characters that fits the pattern. `secret`: its text is never shown. */
  text(key: string, rule: { max?: number; pattern?: RegExp; wanted?: string; secret?: boolean } = {}): string | undefined {
    const value = this.raw(key);
    if (value === undefined) return undefined;
    const max = rule.max ?? 1000;
    const wanted = rule.wanted ?? `text of 1 to ${max} characters`;
    const good =
      value.type === 'string' &&
      typeof value.value === 'string' &&
      value.value.length > 0 &&
      value.value.length <= max &&
      !value.value.includes('\0') &&
      (rule.pattern?.test(value.value) ?? true);
    if (good) return value.value as string;
    if (rule.secret) {
      this.#complaints.at(value.line, `${this.#full(key)} must be ${wanted}`);
      return undefined;
    }
    return this.#wrong(key, value, wanted);
  }

  integer(key: string, min: number, max: number, unit = ''): number | undefined {
    const value = this.raw(key);
    if (value === undefined) return undefined;
    const good = value.type === 'integer' && typeof value.value === 'number' && value.value >= min && value.value <= max;
    if (good) return value.value as number;
    return this.#wrong(key, value, `a whole number from ${min} to ${max}${unit}`);
  }

  boolean(key: string): boolean | undefined {
    const value = this.raw(key);
    if (value === undefined) return undefined;
    return value.type === 'boolean' ? (value.value as boolean) : this.#wrong(key, value, 'true or false');
  }

  oneOf<T extends string>(key: string, choices: readonly T[]): T | undefined {
    const value = this.raw(key);
    if (value === undefined) return undefined;
    if (value.type === 'string' && choices.includes(value.value as T)) return value.value as T;
    const near = value.type === 'string' ? nearest(value.value as string, choices) : undefined;
    const hint = near === undefined ? '' : `; did you mean "${near}"?`;
    return this.#wrong(key, value, `one of ${choices.map((c) => `"${c}"`).join(', ')}${hint}`);
  }

  /** A list of texts, at most `max` of them. */
  texts(key: string, max: number): string[] | undefined {
    const value = this.raw(key);
    if (value === undefined) return undefined;
    const good = value.type === 'array' && value.items.length <= max && value.items.every((item) => item.type === 'string');
    if (!good) return this.#wrong(key, value, `a list of at most ${max} texts`);
    return value.items.map((item) => (item.type === 'string' ? String(item.value) : ''));
  }

  /** A list of lists of texts, with the line of each inner text. */
  levels(key: string, max: number): Found<string>[][] | undefined {
    const value = this.raw(key);
    if (value === undefined) return undefined;
    const wanted = `a list of levels, each a list of method names, such as [["ipmi"], ["self"]]`;
    if (value.type !== 'array' || value.items.length === 0 || value.items.length > max) return this.#wrong(key, value, wanted);
    const levels: Found<string>[][] = [];
    for (const level of value.items) {
      if (level.type !== 'array' || level.items.length === 0 || level.items.length > max) return this.#wrong(key, level, wanted);
      const names: Found<string>[] = [];
      for (const item of level.items) {
        if (item.type !== 'string') return this.#wrong(key, item, wanted);
        names.push({ value: String(item.value), line: item.line });
      }
      levels.push(names);
    }
    return levels;
  }

  /** A sub-table, or undefined. */
  table(key: string): TableReader | undefined {
    const value = this.raw(key);
    if (value === undefined) return undefined;
    if (value.type !== 'table') return this.#wrong(key, value, `a table: write [${this.#full(key)}] on a line of its own`);
    return new TableReader(value, this.#full(key), this.#complaints);
  }

  /** The sub-tables of a table of free names ([fence.NAME]). */
  tables(key: string, max: number): Map<string, TableReader> {
    const outer = this.table(key);
    const found = new Map<string, TableReader>();
    if (!outer) return found;
    for (const name of outer.keys()) {
      const inner = outer.table(name);
      if (inner) found.set(name, inner);
    }
    if (found.size > max) this.#complaints.at(outer.line, `${this.#full(key)} has ${found.size} tables, the most is ${max}`);
    return found;
  }

  /** An array of tables ([[nodes]]). */
  list(key: string, max: number): TableReader[] {
    const value = this.raw(key);
    if (value === undefined) return [];
    if (value.type !== 'array' || !value.items.every((item) => item.type === 'table')) {
      this.#wrong(key, value, `a list of tables: write [[${this.#full(key)}]] before each`);
      return [];
    }
    if (value.items.length > max) {
      this.#complaints.at(value.line, `${this.#full(key)} has ${value.items.length} entries, the most is ${max}`);
      return [];
    }
    const readers: TableReader[] = [];
    for (const item of value.items)
      if (item.type === 'table') readers.push(new TableReader(item, this.#full(key), this.#complaints));
    return readers;
  }

  /** Complains about every key that was never asked for. Call after all reads. */
  finish(): void {
    for (const [key, { line }] of this.#table.entries) {
      if (this.#known.includes(key)) continue;
      const near = nearest(key, this.#known);
      const hint = near === undefined ? `known here: ${[...new Set(this.#known)].sort().join(', ')}` : `did you mean "${near}"?`;
      this.#complaints.at(line, `unknown key "${this.#full(key).slice(0, 100)}"; ${hint}`);
    }
  }
}
