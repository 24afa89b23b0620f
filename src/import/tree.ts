/**
 * One tree for all configurations that are imported.
 *
 * The problem: three formats of three decades say the same things, and whoever moves to tsdlm must learn of each key that has no
 * counterpart. The idea: each format is read into the same tree of entries with file and line; what the conversion understands it
 * *takes*; whatever nobody took is named at the end. So nothing can be forgotten silently.
 */
import { TsdlmError } from '../protocol/errors.js';

/** A value (`text` or `list`) or a section with `children`. An XML element is a section, its attributes are values. */
export interface Entry {
  readonly file: string;
  readonly line: number;
  readonly key: string;
  readonly text: string | null;
  readonly list: readonly string[] | null;
  readonly children: Entry[];
  isTaken: boolean;
  /** Why it was not carried over, where that is known better than by its key. */
  why: string;
}

/** Characters of one file. */
export const FILE_CHARS_MAX = 1024 * 1024;
/** Sections inside sections. */
export const DEPTH_MAX = 32;
/** Entries of one file. */
export const ENTRIES_MAX = 20_000;
/** Characters of one key or value. */
export const VALUE_CHARS_MAX = 4096;

export function entry(file: string, line: number, key: string, text: string | null = null): Entry {
  return { file, line, key, text, list: null, children: [], isTaken: false, why: '' };
}

/** A mistake in a file: TSDLM_BAD_CONFIG as `file:line: what is wrong`. */
export function wrong(file: string, line: number, text: string): TsdlmError {
  return new TsdlmError('TSDLM_BAD_CONFIG', `${file}:${line}: ${text}`);
}

/** Short, on one line, without anything that moves a cursor. */
export function shown(text: string): string {
  return JSON.stringify(text.length > 80 ? `${text.slice(0, 77)}...` : text).replace(/[\u007f-\u009f\u2028\u2029]/g, '?');
}

/** Refuses what no configuration file of people has, with the line. Tab, line feed and carriage return are the only control characters. */
export function checkText(file: string, text: string): void {
  if (text.length > FILE_CHARS_MAX) {
    throw wrong(file, 1, `${text.length} characters are more than a configuration may have (${FILE_CHARS_MAX})`);
  }
  // biome-ignore lint/suspicious/noControlCharactersInRegex: control characters are what is looked for
  const hit = /[\u0000-\u0008\u000b\u000c\u000e-\u001f\u007f-\u009f\ufeff\u2028\u2029]/.exec(text.replace(/^\ufeff/, ' '));
  if (hit) {
    const code = hit[0].charCodeAt(0).toString(16).padStart(4, '0');
    throw wrong(file, text.slice(0, hit.index).split('\n').length, `control character U+${code} is refused`);
  }
}

/** The value of the only child of that name, taken; undefined when there is none or it is a section. */
export function takeText(of: Entry, key: string): string | undefined {
  const found = of.children.find((c) => c.key === key && c.text !== null);
  if (!found || found.text === null) return undefined;
  found.isTaken = true;
  return found.text;
}

export function lineOf(of: Entry, key: string): number {
  return of.children.find((c) => c.key === key)?.line ?? of.line;
}

/** Sections of that name, taken themselves (not what is in them). */
export function sections(of: Entry, key: string): Entry[] {
  const found = of.children.filter((c) => c.key === key && c.text === null && c.list === null);
  for (const s of found) s.isTaken = true;
  return found;
}

/** Says of everything in `of` why it is not carried over. */
export function leave(of: Entry, why: string): void {
  of.why = why;
  for (const c of of.children) leave(c, why);
}
