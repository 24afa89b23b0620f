/**
 * The tags of one 9P connection: every request that is not answered yet, and the only way to answer one.
 *
 * The problem: a request may be flushed while it waits, and an answer after its Rflush would be taken for the answer to another
 * request with the same tag (that broke real mounts). The idea: every request is in this table until it is answered; a flush
 * takes it out and withdraws what it was for, and whoever answers late finds it gone.
 */
import { encode } from './9p-codec.js';
import type { Body, Message, ReplyName, ReplyTo, RequestName } from './9p-messages.js';
import { type Errno, errnoNumber } from './errno.js';

/** A request that is not answered yet. A tag may be used again after a flush: the message itself tells whose answer it is. */
export interface Pending {
  message: { tag: number };
  withdraw: (() => void) | null;
}

export class TagTable {
  readonly #send: (bytes: Buffer) => void;
  readonly #pending = new Map<number, Pending>();

  /** `send`: bytes for the client. */
  constructor(send: (bytes: Buffer) => void) {
    this.#send = send;
  }

  get size(): number {
    return this.#pending.size;
  }
  has(tag: number): boolean {
    return this.#pending.has(tag);
  }
  get(tag: number): Pending | undefined {
    return this.#pending.get(tag);
  }
  add(message: { tag: number }): void {
    this.#pending.set(message.tag, { message, withdraw: null });
  }

  /** The only way to answer. Nothing happens when the request was flushed. */
  reply<N extends RequestName>(request: { k: N; tag: number }, body: Body<ReplyTo<N>>): void {
    if (!this.#isAnswered(request)) return;
    const k = `R${request.k.slice(1)}` as ReplyName;
    this.#send(encode({ k, tag: request.tag, ...body } as Message));
  }

  fail(request: { tag: number }, error: Errno): void {
    if (this.#isAnswered(request)) this.error(request.tag, error);
  }

  /** Takes the request out of the table; false when it was flushed. */
  #isAnswered(request: { tag: number }): boolean {
    return this.#pending.get(request.tag)?.message === request && this.#pending.delete(request.tag);
  }

  /** Without a look at the table: for what never became a request. */
  error(tag: number, error: Errno): void {
    this.#send(encode({ k: 'Rlerror', tag, ecode: errnoNumber(error) }));
  }

  /** What can be withdrawn is; the old request is never answered from here on. Unknown tags are answered all the same. */
  flush(tag: number, oldtag: number): void {
    const pending = this.#pending.get(oldtag);
    if (pending !== undefined) {
      this.#pending.delete(oldtag);
      pending.withdraw?.();
    }
    this.#send(encode({ k: 'Rflush', tag }));
  }

  /** Nothing that waits is answered any more. */
  withdrawAll(): void {
    const tags = [...this.#pending.values()];
    this.#pending.clear();
    for (const pending of tags) pending.withdraw?.();
  }
}
