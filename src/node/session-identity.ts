/**
 * Who a client is, beyond the daemon that greeted it (L3).
 *
 * The problem: after a restart, a clean one or a crash, clients claim what they had, and nobody may claim what is another's; but a
 * crashed daemon leaves no list of sessions. The idea: a session's secret is a keyed hash of its name, process and label, under a
 * key that stands in the journal: the next daemon can check it and need not have noted it. The name is part of `who`, which
 * masters keep with each lock, so they confirm a claim to that session only.
 */
import { createHmac, timingSafeEqual } from 'node:crypto';
import type { StartCount } from '../protocol/ids.js';
import { cutText } from '../protocol/text.js';

/** "node:pid#session label" as it travels in lock requests. */
const WHO_BYTES_MAX = 120;

export interface ClientIdentity {
  key: string;
  pid: number;
  label: string;
}

export class SessionIdentity {
  readonly #key: Buffer;
  readonly #node: string;
  readonly #startCount: StartCount;

  constructor(key: Buffer, node: string, startCount: StartCount) {
    this.#key = key;
    this.#node = node;
    this.#startCount = startCount;
  }

  /** Name of a session that begins at this daemon. */
  keyOf(session: number): string {
    return `${this.#startCount}.${session}`;
  }

  secretOf(c: ClientIdentity): string {
    return createHmac('sha256', this.#key).update(`${c.key}/${c.pid}/${c.label}`).digest('hex').slice(0, 40);
  }

  /** True when the client is the one that an earlier daemon on this journal greeted under this name. */
  isProven(c: ClientIdentity, secret: string): boolean {
    const wanted = Buffer.from(this.secretOf(c));
    const given = Buffer.from(secret);
    const start = Number(c.key.split('.', 1)[0]);
    return wanted.length === given.length && timingSafeEqual(wanted, given) && start > 0 && start < this.#startCount;
  }

  whoOf(c: ClientIdentity): string {
    return cutText(`${this.#node}:${c.pid}#${c.key} ${c.label}`.trimEnd(), WHO_BYTES_MAX);
  }
}
