/** What a client of the chaos run writes down, one JSON line each, so that nothing is lost when it is killed. */
import type { ModeName } from '../../src/client/index.js';

/** Times are milliseconds on CLOCK_MONOTONIC, which all processes of the run share. `h` numbers the holds of one client. */
export type ClientRecord =
  /** A request begins to wait; `w` numbers them. */
  | { e: 'wait'; w: number; n: string; at: number }
  | { e: 'served'; w: number; code: string; at: number }
  | { e: 'grant'; h: number; n: string; m: ModeName; t: string; at: number }
  /** It still counted on the hold at this time. */
  | { e: 'alive'; h: number; at: number }
  | { e: 'end'; h: number; until: number; why: 'release' | 'lost' | 'deadline' }
  /** It is going to write value `v` into the counter. */
  | { e: 'intent'; h: number; n: string; v: number; at: number }
  /** It has. `late`: its deadline was over when it came back from writing, so the write may have hit a later holder. */
  | { e: 'done'; h: number; n: string; v: number; late: boolean }
  /** Something that must never be. */
  | { e: 'bad'; text: string; at: number };

/** A counter's file: value and the token of who wrote it. */
export interface Counter {
  value: number;
  token: bigint;
}

export function counterText({ value, token }: Counter): string {
  return `${value} ${token}\n`;
}

export function parseCounter(text: string): Counter {
  const [value = '', token = ''] = text.trim().split(' ');
  return { value: Number(value), token: BigInt(token) };
}
