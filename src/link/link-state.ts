/**
 * One peer's message stream, across any number of connections to it.
 *
 * The problem: TCP says nothing about what the other side had read when a connection broke; o2net lost messages there and
 * lock requests hung for ever. The idea: lock messages are numbered and kept until they are acknowledged; the handshake of
 * the next connection compares what each side has received with what the other still keeps. Where the two fit, the stream
 * goes on as if nothing had happened. Where they do not (a restart, an overflow), both sides drop everything, begin a new
 * *generation* and say so upwards, so that the lock engine registers again (rule 25).
 *
 * Why a stream is never mixed up: a side's generation only grows within one of its incarnations, so (incarnation,
 * incarnation, generation) names one pair of queues that both began empty. Messages flow only on a connection on which
 * both sides reached the same verdict from the same two LinkOpen.
 *
 * Left to others: bytes and sockets (src/node/peer-*), what a reset means for locks (src/master). Pure: no clock, no I/O.
 */
import { invariant, TsdlmError } from '../protocol/errors.js';
import type { StartCount } from '../protocol/ids.js';

/** Highest sequence number: it travels as 48 bits. Reaching it counts as an overflow, so the pair starts a new generation. */
export const SEQ_MAX = 2 ** 48 - 1;

/** What each side says of its half of the stream in the handshake. All are unsigned integers below 2^53. */
export interface LinkOpen {
  /** The sender's incarnation. */
  startCount: StartCount;
  /** Incarnation of the peer whose stream the sender holds; 0 = none. */
  peerStartCount: StartCount;
  /** Generation of that stream; 0 = never had one. */
  generation: number;
  /** Last sequence number that was delivered from the peer. */
  received: number;
  /** Lowest sequence number the sender could still send again. */
  keptFrom: number;
  /** Last sequence number the sender has given out. */
  sentLast: number;
}

export interface Item<T> {
  readonly seq: number;
  readonly payload: T;
  readonly bytes: number;
}

export interface LinkVerdict<T> {
  /**
   * A new generation has begun: lock messages of before may be lost, in both directions. Also true at the first contact;
   * what was queued before a first contact is then kept and is in `resend`.
   */
  reset: boolean;
  /** To be sent first on the new connection, in this order. */
  resend: Item<T>[];
}

/** True when the two halves are one stream. Symmetric: f(a, b) === f(b, a). */
function canResume(a: LinkOpen, b: LinkOpen): boolean {
  return (
    a.peerStartCount === b.startCount &&
    b.peerStartCount === a.startCount &&
    a.generation === b.generation &&
    a.generation > 0 &&
    b.received >= a.keptFrom - 1 &&
    b.received <= a.sentLast &&
    a.received >= b.keptFrom - 1 &&
    a.received <= b.sentLast
  );
}

/** Generation of the pair after a handshake; the same on both sides. */
export function nextGeneration(a: LinkOpen, b: LinkOpen): number {
  return canResume(a, b) ? a.generation : Math.max(a.generation, b.generation) + 1;
}

/** State of the pair "this node and one peer"; lives across reconnects, one per peer. */
export class LinkState<T> {
  readonly #backlogBytesMax: number;
  /** Our incarnation and the peer's, of the stream held; 0 = no stream yet in this incarnation. */
  #ownStartCount = 0;
  #peerStartCount = 0;
  #generation = 0;
  #received = 0;
  #sentLast = 0;
  /** Kept items are #items[#head..], with sequence numbers #acked + 1 .. #sentLast. */
  #items: (Item<T> | undefined)[] = [];
  #head = 0;
  #unackedBytes = 0;
  /** Overflowed: nothing is kept any more, the pair must be reset at the next handshake. */
  #broken = false;

  constructor(options: { backlogBytesMax: number }) {
    invariant(options.backlogBytesMax > 0, `backlogBytesMax ${options.backlogBytesMax} must be positive`);
    this.#backlogBytesMax = options.backlogBytesMax;
  }

  /** Bytes kept for the peer: sent but not acknowledged, or not sent yet. */
  get unackedBytes(): number {
    return this.#unackedBytes;
  }
  get unackedCount(): number {
    return this.#items.length - this.#head;
  }
  get generation(): number {
    return this.#generation;
  }
  /** Sequence number that the next send() will give out. */
  get nextSeq(): number {
    return this.#sentLast + 1;
  }
  /** True after an overflow until the next handshake. */
  get overflowed(): boolean {
    return this.#broken;
  }

  /** What to say in the handshake of a new connection. The same object must be given to {@link opened}. */
  opening(ownStartCount: StartCount): LinkOpen {
    const usable = !this.#broken && this.#ownStartCount === ownStartCount;
    return {
      startCount: ownStartCount,
      peerStartCount: usable ? this.#peerStartCount : 0,
      generation: this.#generation,
      received: this.#received,
      keptFrom: this.#sentLast + 1 - this.unackedCount,
      sentLast: this.#sentLast,
    };
  }

  /**
   * False when this side has moved on since it said `own` (another connection was opened, an overflow, a reset): that
   * handshake is void and its connection must be closed.
   */
  isCurrent(own: LinkOpen): boolean {
    if (own.generation !== this.#generation) return false;
    return own.peerStartCount === 0 || (!this.#broken && own.peerStartCount === this.#peerStartCount);
  }

  /**
   * Both sides have said their LinkOpen. Decides between going on and a new generation; the decision depends on nothing but
   * the two values, so both sides decide alike. Needs {@link isCurrent}.
   */
  opened(own: LinkOpen, peer: LinkOpen): LinkVerdict<T> {
    invariant(this.isCurrent(own), `link opened with a stale handshake of generation ${own.generation}, now ${this.#generation}`);
    if (canResume(own, peer)) {
      this.onAck(peer.received);
      return { reset: false, resend: this.#kept() };
    }
    const firstContact = this.#ownStartCount === 0 && !this.#broken;
    if (!firstContact) this.#dropAll();
    this.#received = 0;
    this.#broken = false;
    this.#ownStartCount = own.startCount;
    this.#peerStartCount = peer.startCount;
    this.#generation = nextGeneration(own, peer);
    return { reset: true, resend: this.#kept() };
  }

  /**
   * Numbers a message and keeps it until it is acknowledged, also while there is no connection. Null = overflow: everything
   * kept was dropped, the caller closes the connection, and the next handshake resets the pair.
   */
  send(payload: T, bytes: number): Item<T> | null {
    if (this.#broken) return null;
    if (this.#unackedBytes + bytes > this.#backlogBytesMax || this.#sentLast >= SEQ_MAX) {
      this.breakOff();
      return null;
    }
    const item: Item<T> = { seq: ++this.#sentLast, payload, bytes };
    this.#items.push(item);
    this.#unackedBytes += bytes;
    return item;
  }

  /** Kept messages behind `seq`, oldest first, as many as fit `bytesMax` (at least one): for a writer that had to pause. */
  keptAfter(seq: number, bytesMax: number): Item<T>[] {
    const skip = Math.max(0, seq - (this.#sentLast - this.unackedCount));
    const out: Item<T>[] = [];
    let bytes = 0;
    for (let i = this.#head + skip; i < this.#items.length; i++) {
      const item = this.#items[i] as Item<T>;
      bytes += item.bytes;
      if (bytes > bytesMax && out.length > 0) break;
      out.push(item);
    }
    return out;
  }

  /** Gives the stream up, as after an overflow: the pair must be reset at the next handshake. */
  breakOff(): void {
    this.#dropAll();
    this.#broken = true;
  }

  /** A numbered message has arrived. `gap`: messages are missing, which cannot happen on a sound connection; close it. */
  onSequenced(seq: number): 'deliver' | 'duplicate' | 'gap' {
    if (seq === this.#received + 1) {
      this.#received = seq;
      return 'deliver';
    }
    return seq <= this.#received ? 'duplicate' : 'gap';
  }

  /** The peer has everything up to `seq`. Throws TSDLM_PROTOCOL for a number that was never given out. */
  onAck(seq: number): void {
    if (seq > this.#sentLast) {
      throw new TsdlmError('TSDLM_PROTOCOL', `peer acknowledged message ${seq}, but the last one sent is ${this.#sentLast}`);
    }
    let drop = seq - (this.#sentLast - this.unackedCount);
    while (drop-- > 0) {
      this.#unackedBytes -= (this.#items[this.#head] as Item<T>).bytes;
      this.#items[this.#head++] = undefined;
    }
    if (this.#head === this.#items.length) {
      this.#items = [];
      this.#head = 0;
    } else if (this.#head > 1024 && this.#head * 2 > this.#items.length) {
      this.#items = this.#items.slice(this.#head);
      this.#head = 0;
    }
  }

  /** Sequence number to acknowledge: the last one delivered. */
  ackDue(): number {
    return this.#received;
  }

  /**
   * Forgets the stream and all that is kept (own new incarnation). The generation grows, so that no stream is named twice and
   * handshakes under way are void.
   */
  reset(): void {
    this.#dropAll();
    this.#generation += 1;
    this.#ownStartCount = 0;
    this.#peerStartCount = 0;
    this.#received = 0;
    this.#broken = false;
  }

  #kept(): Item<T>[] {
    return this.#items.slice(this.#head) as Item<T>[];
  }

  #dropAll(): void {
    this.#items = [];
    this.#head = 0;
    this.#unackedBytes = 0;
    this.#sentLast = 0;
  }
}
