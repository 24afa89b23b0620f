/**
 * The text of `cluster.xml`, the later `/etc/cluster/cluster.conf`: elements and attributes, nothing else.
 *
 * A small part of XML on purpose. A document type is refused as a whole, and with it every way to define an entity; the five entities
 * of the language and character numbers are all there is. Elements that are open are kept in a list, not on the stack of calls.
 */
import { checkText, DEPTH_MAX, ENTRIES_MAX, type Entry, entry, shown, VALUE_CHARS_MAX, wrong } from './tree.js';

const NAMED: Readonly<Record<string, string>> = { lt: '<', gt: '>', amp: '&', quot: '"', apos: "'" };
/** Attributes of one element. */
const ATTRIBUTES_MAX = 256;
const NAME = /[A-Za-z_:][A-Za-z0-9_:.-]*/y;
const SPACE = /[ \t\r\n]*/y;

export function parseXml(text: string, file: string): Entry {
  checkText(file, text);
  return new XmlParser(text.replace(/^\ufeff/, ''), file).parse();
}

class XmlParser {
  readonly #text: string;
  readonly #file: string;
  #at = 0;
  #entries = 0;
  /** Line of `#lineAt`, so that lines are counted once. */
  #line = 1;
  #lineAt = 0;

  constructor(text: string, file: string) {
    this.#text = text;
    this.#file = file;
  }

  parse(): Entry {
    const root = entry(this.#file, 1, '');
    const open: Entry[] = [root];
    for (;;) {
      const top = open.at(-1) ?? root;
      this.#content(top === root ? null : top);
      if (this.#at >= this.#text.length) {
        if (top !== root) throw this.#wrong(`<${top.key}> of line ${top.line} is not closed`);
        if (root.children.length === 0) throw this.#wrong('there is no element');
        return root;
      }
      if (this.#takes('<!--')) this.#skipTo('-->', 'a comment');
      else if (this.#takes('<?')) this.#skipTo('?>', 'an instruction <?...');
      else if (this.#takes('<![CDATA['))
        throw this.#wrong('CDATA is refused: a cluster configuration has only elements and attributes');
      else if (this.#takes('<!')) throw this.#wrong('a document type (<!DOCTYPE, <!ENTITY) is refused: remove it');
      else if (this.#takes('</')) {
        const name = this.#name('the name of the element that ends here');
        this.#space();
        if (!this.#takes('>')) throw this.#wrong(`</${name} has no ">"`);
        if (top === root || name !== top.key) {
          throw this.#wrong(
            top === root ? `</${name}> closes nothing` : `</${name}> where </${top.key}> (line ${top.line}) is expected`,
          );
        }
        open.pop();
      } else {
        this.#at++; // "<"
        if (top === root && root.children.length > 0) throw this.#wrong('there is a second element at the top');
        const element = this.#element();
        top.children.push(element);
        if (this.#takes('/>')) continue;
        if (!this.#takes('>')) throw this.#wrong(`<${element.key} has no ">"`);
        if (open.length >= DEPTH_MAX) throw this.#wrong(`elements are nested deeper than ${DEPTH_MAX}`);
        open.push(element);
      }
    }
  }

  #element(): Entry {
    const line = this.#lineNo();
    const element = entry(this.#file, line, this.#name('the name of an element'));
    this.#count();
    for (;;) {
      const before = this.#at;
      this.#space();
      const c = this.#text[this.#at];
      if (c === undefined || c === '>' || c === '/') return element;
      if (before === this.#at) throw this.#wrong(`a blank is missing before ${shown(this.#text.slice(this.#at, this.#at + 20))}`);
      const at = this.#lineNo();
      const key = this.#name(`an attribute of <${element.key}>`);
      this.#count();
      this.#space();
      if (!this.#takes('=')) throw this.#wrong(`attribute ${key} has no "="`);
      this.#space();
      const quote = this.#text[this.#at];
      if (quote !== '"' && quote !== "'") throw this.#wrong(`the value of ${key} must stand in quotes`);
      const end = this.#text.indexOf(quote, this.#at + 1);
      if (end < 0) throw this.#wrong(`the value of ${key} has no end`);
      const raw = this.#text.slice(this.#at + 1, end);
      if (raw.length > VALUE_CHARS_MAX) throw this.#wrong(`the value of ${key} has more than ${VALUE_CHARS_MAX} characters`);
      if (raw.includes('<')) throw this.#wrong(`the value of ${key} contains "<": a quote is missing`);
      if (element.children.length >= ATTRIBUTES_MAX)
        throw this.#wrong(`<${element.key}> has more than ${ATTRIBUTES_MAX} attributes`);
      if (element.children.some((a) => a.key === key)) throw this.#wrong(`attribute ${key} is given twice`);
      element.children.push(entry(this.#file, at, key, this.#decoded(raw.replace(/[\t\r\n]/g, ' '))));
      this.#at = end + 1;
    }
  }

  #decoded(raw: string): string {
    return raw.replace(/&([^;&]{0,12};?)/g, (whole, body: string) => {
      const name = body.endsWith(';') ? body.slice(0, -1) : null;
      if (name === null) throw this.#wrong(`"&" of ${shown(raw)} begins no entity: write &amp;`);
      const known = Object.hasOwn(NAMED, name) ? NAMED[name] : undefined;
      if (known !== undefined) return known;
      const number = /^#(?:x([0-9a-fA-F]{1,6})|([0-9]{1,7}))$/.exec(name);
      const code = number ? Number.parseInt(number[1] ?? number[2] ?? '', number[1] === undefined ? 10 : 16) : -1;
      const isText = (code >= 0x20 && code < 0x7f) || (code >= 0xa0 && code <= 0x10ffff && (code < 0xd800 || code > 0xdfff));
      if (!isText)
        throw this.#wrong(`the entity ${shown(whole)} is refused: only &lt; &gt; &amp; &quot; &apos; and printable characters`);
      return String.fromCodePoint(code);
    });
  }

  /** Text between elements: a configuration has none. */
  #content(element: Entry | null): void {
    const end = this.#text.indexOf('<', this.#at);
    const stop = end < 0 ? this.#text.length : end;
    const text = this.#text.slice(this.#at, stop);
    if (text.trim() !== '') {
      this.#space();
      throw this.#wrong(
        `${shown(text.trim())} stands ${element ? `in <${element.key}>` : 'outside of any element'}: only elements are expected`,
      );
    }
    this.#at = stop;
  }

  #name(what: string): string {
    NAME.lastIndex = this.#at;
    const found = NAME.exec(this.#text)?.[0];
    if (found === undefined) throw this.#wrong(`${what} is expected at ${shown(this.#text.slice(this.#at, this.#at + 20))}`);
    if (found.length > 255) throw this.#wrong('a name has more than 255 characters');
    this.#at += found.length;
    return found;
  }

  #space(): void {
    SPACE.lastIndex = this.#at;
    this.#at += SPACE.exec(this.#text)?.[0].length ?? 0;
  }

  #takes(sign: string): boolean {
    if (!this.#text.startsWith(sign, this.#at)) return false;
    this.#at += sign.length;
    return true;
  }

  #skipTo(end: string, what: string): void {
    const at = this.#text.indexOf(end, this.#at);
    if (at < 0) throw this.#wrong(`${what} has no end`);
    this.#at = at + end.length;
  }

  #count(): void {
    if (++this.#entries > ENTRIES_MAX) throw this.#wrong(`more than ${ENTRIES_MAX} elements and attributes`);
  }

  #lineNo(): number {
    for (; this.#lineAt < this.#at; this.#lineAt++) if (this.#text[this.#lineAt] === '\n') this.#line++;
    return this.#line;
  }

  #wrong(text: string): Error {
    return wrong(this.#file, this.#lineNo(), text);
  }
}
