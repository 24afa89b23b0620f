/**
 * The text of GFS 6.0's `.ccs` files: sections `name { ... }`, values `key = "text"`, `key = 15`, `key = ["a", "b"]`, comments from
 * `#` to the end of the line.
 */
import { checkText, DEPTH_MAX, ENTRIES_MAX, type Entry, entry, shown, VALUE_CHARS_MAX, wrong } from './tree.js';

interface Token {
  kind: '{' | '}' | '[' | ']' | '=' | ',' | 'word' | 'string' | 'end';
  text: string;
  line: number;
}

export function parseCcs(text: string, file: string): Entry {
  checkText(file, text);
  return new CcsParser(text, file).parse();
}

class CcsParser {
  readonly #text: string;
  readonly #file: string;
  #at = 0;
  #line = 1;
  #entries = 0;

  constructor(text: string, file: string) {
    this.#text = text.replace(/^\ufeff/, '');
    this.#file = file;
  }

  /** Sections that are open are kept in a list, not on the stack of calls. */
  parse(): Entry {
    const root = entry(this.#file, 1, '');
    const open: Entry[] = [root];
    const lines = new WeakMap<Entry, Map<string, number>>([[root, new Map()]]);
    for (;;) {
      const section = open.at(-1) ?? root;
      const token = this.#next();
      if (token.kind === 'end') {
        if (section !== root)
          throw this.#wrong(token, `the section ${section.key} of line ${section.line} is not closed: "}" is missing`);
        return root;
      }
      if (token.kind === '}') {
        if (section === root) throw this.#wrong(token, '"}" closes no section');
        open.pop();
        continue;
      }
      if (token.kind !== 'word' && token.kind !== 'string') {
        throw this.#wrong(token, `${this.#shown(token)} where a name is expected`);
      }
      if (++this.#entries > ENTRIES_MAX) throw this.#wrong(token, `more than ${ENTRIES_MAX} entries`);
      const known = lines.get(section);
      const before = known?.get(token.text);
      known?.set(token.text, token.line);
      if (before !== undefined)
        throw this.#wrong(token, `${shown(token.text)} was given before in this section, in line ${before}`);
      const sign = this.#next();
      if (sign.kind === '{') {
        if (open.length >= DEPTH_MAX) throw this.#wrong(sign, `sections are nested deeper than ${DEPTH_MAX}`);
        const inner = entry(this.#file, token.line, token.text);
        section.children.push(inner);
        lines.set(inner, new Map());
        open.push(inner);
      } else if (sign.kind === '=') {
        section.children.push(this.#value(token));
      } else {
        throw this.#wrong(sign, `${this.#shown(sign)} after ${shown(token.text)}: "=" or "{" is expected`);
      }
    }
  }

  #value(key: Token): Entry {
    const token = this.#next();
    if (token.kind === 'word' || token.kind === 'string') return entry(this.#file, key.line, key.text, token.text);
    if (token.kind !== '[') throw this.#wrong(token, `${this.#shown(token)} where the value of ${shown(key.text)} is expected`);
    const list: string[] = [];
    for (;;) {
      const item = this.#next();
      if (item.kind === ']') break;
      if (item.kind === 'end') throw this.#wrong(key, `the list ${shown(key.text)} is not closed: "]" is missing`);
      if (item.kind === ',') continue;
      if (item.kind !== 'word' && item.kind !== 'string')
        throw this.#wrong(item, `${this.#shown(item)} in the list ${shown(key.text)}`);
      if (++this.#entries > ENTRIES_MAX) throw this.#wrong(item, `more than ${ENTRIES_MAX} entries`);
      list.push(item.text);
    }
    return { ...entry(this.#file, key.line, key.text), list };
  }

  #next(): Token {
    const text = this.#text;
    for (;;) {
      const c = text[this.#at];
      if (c === '\n') this.#line++;
      if (c === '#') {
        const end = text.indexOf('\n', this.#at);
        this.#at = end < 0 ? text.length : end;
      } else if (c === ' ' || c === '\t' || c === '\r' || c === '\n' || c === ';') {
        this.#at++;
      } else {
        break;
      }
    }
    const { length } = text;
    const line = this.#line;
    if (this.#at >= length) return { kind: 'end', text: '', line };
    const c = text[this.#at] as string;
    if (c === '{' || c === '}' || c === '[' || c === ']' || c === '=' || c === ',') {
      this.#at++;
      return { kind: c, text: c, line };
    }
    if (c === '"') return this.#string(line);
    const start = this.#at;
    while (this.#at < length && !' \t\r\n{}[]=,"#;'.includes(text[this.#at] as string)) this.#at++;
    return this.#checked({ kind: 'word', text: text.slice(start, this.#at), line });
  }

  #string(line: number): Token {
    let value = '';
    for (let at = this.#at + 1; ; at++) {
      const c = this.#text[at];
      if (c === undefined || c === '\n') throw wrong(this.#file, line, 'a text in quotes does not end on its line');
      if (c === '"') {
        this.#at = at + 1;
        return this.#checked({ kind: 'string', text: value, line });
      }
      const next = this.#text[at + 1];
      if (c === '\\' && (next === '"' || next === '\\')) at++;
      value += this.#text[at];
    }
  }

  #checked(token: Token): Token {
    if (token.text.length > VALUE_CHARS_MAX)
      throw this.#wrong(token, `a name or value has more than ${VALUE_CHARS_MAX} characters`);
    return token;
  }

  #shown(token: Token): string {
    return token.kind === 'end' ? 'the end of the file' : shown(token.text);
  }

  #wrong(token: Token, text: string): Error {
    return wrong(this.#file, token.line, text);
  }
}
