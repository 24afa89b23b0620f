/**
 * One 9P2000.L connection, from its Tversion to its end. No socket in it: frames in, frames out.
 *
 * The problem: opens wait for locks while the same connection goes on; a waiting one may be flushed at any moment, and a client
 * may send anything at any time. The idea: what ends the connection, what is refused and what becomes a request is decided
 * here; a request is in the table of tags (9p-tags.ts) until it is answered, and means what 9p-requests.ts says.
 *
 * Only Tclunk ends a hold (rule 6): whatever else ends the session leaves its open files to the host as orphans.
 */
import { decode, encode, type Malformed } from './9p-codec.js';
import { MESSAGES, type Message, type Request, VERSION } from './9p-messages.js';
import { FileRequests, type RequestsHost } from './9p-requests.js';
import { TagTable } from './9p-tags.js';
import type { Errno } from './errno.js';
import type { Tree } from './tree.js';

/** Largest message; a client may want less. */
export const MSIZE_MAX = 64 * 1024;
/** Less than this carries no directory entry; new kernels insist on 4096 themselves. */
const MSIZE_MIN = 4096;
/** Before Tversion has said how large a message may be. */
export const FIRST_FRAME_MAX = 8192;
/** Requests of one connection that wait at a time. */
const TAGS_MAX = 8192;

/** What a session asks of the server. */
export interface SessionHost extends RequestsHost {
  /** Bytes for the client; written at the end of the turn. */
  send(bytes: Buffer): void;
  /** The tree has lost its client: what is open in it is nobody's now. */
  unmounted(tree: Tree): void;
  /** The client broke the protocol in a way that ends the connection. */
  fault(why: string): void;
  /** It sent something that makes no sense, and was told so. */
  refused(why: string): void;
}

export class NinepSession {
  readonly #host: SessionHost;
  readonly #tags: TagTable;
  readonly #requests: FileRequests;
  #isOver = false;

  constructor(host: SessionHost) {
    this.#host = host;
    this.#tags = new TagTable((bytes) => host.send(bytes));
    this.#requests = new FileRequests(host, this.#tags);
  }

  /** Largest frame that may come now. */
  get frameMax(): number {
    return this.#requests.msize === 0 ? FIRST_FRAME_MAX : this.#requests.msize;
  }
  get tree(): Tree | null {
    return this.#requests.tree;
  }
  /** Requests that wait, and fids in use: nothing else grows with what a client does. */
  get counts(): { tags: number; fids: number } {
    return { tags: this.#tags.size, fids: this.#requests.fidCount };
  }

  receive(frame: Buffer): void {
    if (this.#isOver) return;
    const m = decode(frame);
    if (m.k === 'malformed') return this.#malformed(m);
    if (m.k === 'Tversion') return this.#version(m);
    if (m.k === 'Tflush') return this.#flush(m.tag, m.oldtag);
    if (this.#requests.msize === 0) return this.#host.fault(`${m.k} before Tversion`);
    if (this.#tags.has(m.tag)) return this.#host.fault(`tag ${m.tag} is in use`);
    if (!isRequest(m)) return this.#refuse(m.tag, 'EOPNOTSUPP', `${m.k} is no request`);
    if (this.#tags.size >= TAGS_MAX) return this.#refuse(m.tag, 'ENOMEM', `${TAGS_MAX} requests wait already`);
    this.#tags.add(m);
    this.#requests.handle(m);
  }

  /** The connection is gone: waiters are withdrawn, open files stay held (rule 6). */
  end(): void {
    if (this.#isOver) return;
    this.#isOver = true;
    this.#reset();
  }

  /** An answer to what never became a request. */
  #refuse(tag: number, error: Errno, why: string): void {
    this.#host.refused(why);
    this.#tags.error(tag, error);
  }

  #malformed(m: Malformed): void {
    if (this.#requests.msize === 0) return this.#host.fault(m.why);
    if (this.#tags.has(m.tag)) return this.#host.fault(`tag ${m.tag} is in use`);
    this.#refuse(m.tag, m.isUnknown ? 'EOPNOTSUPP' : 'EPROTO', m.why);
  }

  #flush(tag: number, oldtag: number): void {
    if (this.#requests.msize === 0) return this.#host.fault('Tflush before Tversion');
    if (this.#tags.has(tag)) return this.#host.fault(`tag ${tag} is in use`);
    this.#tags.flush(tag, oldtag);
  }

  #version(m: Message<'Tversion'>): void {
    this.#reset();
    const isKnown = m.version === VERSION;
    if (m.msize < MSIZE_MIN) {
      this.#requests.msize = 0;
      return this.#refuse(m.tag, 'EINVAL', `msize ${m.msize} is below ${MSIZE_MIN}`);
    }
    const msize = Math.min(m.msize, MSIZE_MAX);
    this.#requests.msize = isKnown ? msize : 0;
    if (!isKnown) this.#host.refused(`version ${JSON.stringify(m.version.slice(0, 20))}`);
    this.#host.send(encode({ k: 'Rversion', tag: m.tag, msize, version: isKnown ? VERSION : 'unknown' }));
  }

  #reset(): void {
    this.#tags.withdrawAll();
    const tree = this.#requests.reset();
    if (tree !== null) this.#host.unmounted(tree);
  }
}

function isRequest(m: Message): m is Request {
  return MESSAGES[m.k].type % 2 === 0;
}
