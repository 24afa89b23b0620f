/**
 * What the daemon and its bridge helper say to each other over a Unix socket: one JSON object a line.
 *
 * The daemon says which level it *wants* of a name, and the helper says which it *has*; a new wish replaces the one before,
 * so a withdrawal is a wish as well. `seq` numbers the wishes of one name; an answer carries the number of the wish it is for.
 */
import type { Mode } from '../protocol/modes.js';

/** Raised with any change of these messages: a helper of another version is left to end by itself. */
export const BRIDGE_VERSION = 2;

/** Nothing at all; else PR or EX. */
export type Level = -1 | Mode;

export type ToHelper =
  /** The first message. `domains`: those to be joined. */
  | { k: 'hello'; version: number; domains: string[] }
  /** `isTry`: refuse rather than wait. `isForever`: not let go at the deadline; it belongs to the node. */
  | { k: 'want'; domain: string; name: string; level: Level; isTry: boolean; isForever: boolean; seq: number }
  /** To be the value block of what is held in EX; base64 of 64 bytes. */
  | { k: 'value'; domain: string; name: string; value: string }
  /**
   * What sessions hold is theirs until then, CLOCK_MONOTONIC in milliseconds. `isAll`: what daemons told before, however late, counts
   * for nobody any more.
   */
  | { k: 'until'; until: number; isAll: boolean }
  /** To be answered at once. */
  | { k: 'ping' };

export type FromHelper =
  /** `level`: what it has and keeps until the daemon wants less. */
  | { k: 'hello'; version: number; names: { domain: string; name: string; level: Level; isForever: boolean }[] }
  /** `value`: the value block as it was read with a raise, else null. */
  | { k: 'have'; domain: string; name: string; level: Level; seq: number; value: string | null }
  /** The wish is given up; what was held before is held still. `isBusy`: by others. */
  | { k: 'refused'; domain: string; name: string; seq: number; isBusy: boolean; why: string }
  /** Somebody in the kernel waits for what is held here. */
  | { k: 'blocked'; domain: string; name: string }
  /** Why nothing can be taken now; '' = it can. */
  | { k: 'state'; why: string }
  | { k: 'pong' };

/** Calls `message` for each complete line. Throws on a line that is too long or no JSON. */
export class MessageLines<T> {
  #rest = '';
  readonly #message: (message: T) => void;

  constructor(message: (message: T) => void) {
    this.#message = message;
  }

  push(chunk: string): void {
    this.#rest += chunk;
    for (let end = this.#rest.indexOf('\n'); end >= 0; end = this.#rest.indexOf('\n')) {
      const line = this.#rest.slice(0, end);
      this.#rest = this.#rest.slice(end + 1);
      this.#message(JSON.parse(line) as T);
    }
    if (this.#rest.length > LINE_CHARS_MAX) throw new Error(`a line of more than ${LINE_CHARS_MAX} characters`);
  }
}

/** The list of all names that are held is the longest. */
const LINE_CHARS_MAX = 16 * 1024 * 1024;
