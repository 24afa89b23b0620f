/**
 * Everything about one peer that outlives its connections: the message stream, what waits to be written, the state of the link.
 *
 * The problem: messages are made at any time, also while there is no connection or the peer does not read, and nobody upstairs
 * waits. The idea: each message is encoded at once into a buffer that one write per event-loop turn hands to the socket; lock
 * messages stay in the LinkState until they are acknowledged. When the socket's queue is long, writing pauses: lock messages
 * then wait in the LinkState alone (bounded; its overflow resets the pair, rule 25), control messages in a short queue of their
 * own that goes first, so that leases survive a flood.
 *
 * Left to others: sockets (peer-connection.ts), dialling and ticking (peer-net.ts). send() never calls back.
 */
import { type Item, LinkState } from '../link/link-state.js';
import { type AnyMessage, codecOf, decodeAt } from '../protocol/codec.js';
import { TsdlmError } from '../protocol/errors.js';
import { FrameWriter, isSequenced, SEQ_BYTES } from '../protocol/frame.js';
import type { Incarnation, NodeId } from '../protocol/ids.js';
import { PEER_BACKLOG_BYTES_MAX } from '../protocol/limits.js';
import type { LinkMessage } from '../protocol/link-messages.js';
import { LOCK_CLASS_MIN, type PeerMessage } from '../protocol/peer-messages.js';
import { PeerConnection } from './peer-connection.js';
import type { HandshakeResult } from './peer-handshake.js';

/** Where a kept frame lies. */
interface Frame {
  readonly slab: Buffer;
  readonly start: number;
  readonly end: number;
}

/** Socket queue above which writing pauses, and how much is written at once when it goes on. */
const PAUSE_BYTES = 1024 * 1024;
/** Control messages kept for a peer that does not read; more are dropped, as control messages may be. */
const CONTROL_BYTES_MAX = 4 * 1024 * 1024;
/** Received lock messages after which an acknowledgement goes out with the next write or by itself. */
const ACK_MESSAGES = 64;
const ACK_BYTES = 64 * 1024;

export interface PeerLinkHost {
  /** Something waits to be written: call flush() in this turn of the event loop. */
  wantFlush(link: PeerLink): void;
  /** Something nobody waits for: call flush() within a few milliseconds, unless it goes with something else before. */
  wantFlushSoon(link: PeerLink): void;
  /** An acknowledgement is due within a few milliseconds. */
  wantAck(link: PeerLink): void;
  onMessage(from: NodeId, m: PeerMessage): void;
  onUp(link: PeerLink, reset: boolean): void;
  onDown(link: PeerLink, error: TsdlmError): void;
  log(level: 'info' | 'warn' | 'error', event: string, data: Record<string, unknown>): void;
}

export class PeerLink {
  readonly id: NodeId;
  readonly stream: LinkState<Frame>;
  readonly #host: PeerLinkHost;
  readonly #backlogBytesMax: number;
  conn: PeerConnection | null = null;
  lastSeen: Incarnation | null = null;
  lastError: TsdlmError | null = null;
  rttMs: number | null = null;
  blocked = false;
  #out = new FrameWriter();
  /** Lock frames that are not to be written now; only their bytes matter. */
  #stash = new FrameWriter();
  #control = new FrameWriter();
  #paused = false;
  /** Last lock message handed to the socket; meaningful while paused. */
  #writtenSeq = 0;
  #ackMessages = 0;
  #ackBytes = 0;
  #pingId = 0;
  #pingAt = 0;

  constructor(id: NodeId, host: PeerLinkHost, backlogBytesMax = PEER_BACKLOG_BYTES_MAX) {
    this.id = id;
    this.#host = host;
    this.#backlogBytesMax = backlogBytesMax;
    this.stream = new LinkState<Frame>({ backlogBytesMax });
  }

  get bytesQueued(): number {
    return this.stream.unackedBytes + this.#control.bytes + (this.conn?.writableBytes ?? 0);
  }

  /** Sends or keeps a message; see the head of the file. Never calls back, never throws for what the peer does. */
  send(m: PeerMessage): void {
    if (codecOf(m).type >= LOCK_CLASS_MIN) this.#sendLock(m);
    else this.#sendControl(m);
  }

  #sendLock(m: PeerMessage): void {
    const writer = this.conn === null || this.#paused ? this.#stash : this.#out;
    const bytes = this.#push(writer, m, this.stream.nextSeq);
    if (bytes === 0) {
      // A lock message must not go missing in silence: both sides start over and register again.
      this.stream.breakOff();
      this.#host.wantFlush(this);
      return;
    }
    const item = this.stream.send({ slab: writer.slab, start: writer.frameStart, end: writer.frameEnd }, bytes);
    if (writer === this.#stash) writer.take();
    if (item === null) this.#host.wantFlush(this);
    else if (writer !== this.#out) return;
    // The end of a mastery round only clears tables where no rival waits: it rides along with the next message.
    else if (m.k === 'AssertMaster') this.#host.wantFlushSoon(this);
    else this.#host.wantFlush(this);
  }

  #sendControl(m: PeerMessage): void {
    if (this.conn === null) return;
    const writer = this.#paused ? this.#control : this.#out;
    if (this.#paused && writer.bytes > CONTROL_BYTES_MAX) return;
    if (this.#push(writer, m, 0) > 0) this.#host.wantFlush(this);
  }

  /** Returns 0 and says so loudly when the message is too large for a frame: a bug of whoever made it. */
  #push(writer: FrameWriter, m: PeerMessage, seq: number): number {
    try {
      return writer.push(m, seq);
    } catch (e) {
      if (!(e instanceof TsdlmError) || e.code !== 'TSDLM_FRAME_TOO_LARGE') throw e;
      this.#host.log('error', 'message_too_large', { peer: this.id, text: e.message });
      return 0;
    }
  }

  /** Writes what this turn has collected; once per turn, from the event loop itself. */
  flush(): void {
    const conn = this.conn;
    if (conn === null) return;
    if (this.stream.overflowed) {
      this.#host.log('warn', 'peer_overflow', { peer: this.id, most: this.#backlogBytesMax });
      conn.close(new TsdlmError('TSDLM_OVERLOADED', `node ${this.id} does not take its messages: the pair starts over`), 'tell');
      return;
    }
    // An acknowledgement that rides along costs the peer no turn of its own.
    if (this.#ackMessages > 0 && (this.#out.bytes > 0 || this.#ackMessages >= ACK_MESSAGES || this.#ackBytes >= ACK_BYTES)) {
      this.#ack();
    }
    conn.write(this.#out.take());
    if (!this.#paused && conn.writableBytes > PAUSE_BYTES) {
      this.#paused = true;
      this.#writtenSeq = this.stream.nextSeq - 1;
    }
  }

  /** The socket's queue is empty again: control messages first, then lock messages where writing stopped. */
  onDrain(): void {
    const conn = this.conn;
    if (conn === null || !this.#paused) return;
    conn.write(this.#control.take());
    while (conn.writableBytes <= PAUSE_BYTES) {
      const items = this.stream.keptAfter(this.#writtenSeq, PAUSE_BYTES);
      const last = items.at(-1);
      if (!last) {
        this.#paused = false;
        return;
      }
      this.#writtenSeq = last.seq;
      conn.write(joined(items));
    }
  }

  /** A handshake is complete: this connection replaces any other. Returns an error when it was overtaken by another one. */
  opened(conn: PeerConnection, result: HandshakeResult): TsdlmError | null {
    if (!this.stream.isCurrent(result.own.open)) {
      return new TsdlmError('TSDLM_UNAVAILABLE', `handshake with node ${this.id} was overtaken by another one`);
    }
    const old = this.conn;
    if (old !== null) {
      const error = new TsdlmError('TSDLM_UNAVAILABLE', `node ${this.id} opened another connection`);
      old.close(error);
      this.#down(error);
    }
    const verdict = this.stream.opened(result.own.open, result.theirs.open);
    this.conn = conn;
    this.lastSeen = result.theirs.incarnation;
    this.lastError = null;
    this.#out = new FrameWriter();
    this.#control = new FrameWriter();
    this.#ackMessages = 0;
    this.#ackBytes = 0;
    this.#pingAt = 0;
    // What is to be sent again goes the way of a paused writer: in portions, before anything new.
    const first = verdict.resend[0];
    this.#paused = first !== undefined;
    this.#writtenSeq = first ? first.seq - 1 : 0;
    this.#host.onUp(this, verdict.reset);
    this.onDrain();
    return null;
  }

  /** The connection is gone. */
  closed(conn: PeerConnection, error: TsdlmError): void {
    if (this.conn !== conn) return;
    this.lastError = error;
    this.#down(error);
  }

  #down(error: TsdlmError): void {
    this.conn = null;
    this.rttMs = null;
    this.#host.onDown(this, error);
  }

  /** Our own new incarnation, or the end: no connection, nothing kept. */
  reset(error: TsdlmError): void {
    const conn = this.conn;
    this.stream.reset();
    if (conn === null) return;
    conn.close(error, 'soon');
    this.#down(error);
  }

  /** One frame of the connection that is up. */
  onFrame(conn: PeerConnection, type: number, b: Buffer, start: number, end: number): void {
    if (this.conn !== conn) return;
    let m: AnyMessage;
    try {
      if (isSequenced(type)) {
        if (end - start < SEQ_BYTES) throw new TsdlmError('TSDLM_BAD_FRAME', 'lock message without a sequence number');
        const seq = b.readUIntLE(start, SEQ_BYTES);
        const verdict = this.stream.onSequenced(seq);
        if (verdict === 'duplicate') return;
        if (verdict === 'gap') {
          throw new TsdlmError('TSDLM_PROTOCOL', `node ${this.id} sent message ${seq} after ${this.stream.ackDue()}`);
        }
        this.#ackMessages++;
        this.#ackBytes += end - start;
        m = decodeAt(type, b, start + SEQ_BYTES, end, conn.lenient);
      } else {
        m = decodeAt(type, b, start, end, conn.lenient);
        if (m.k.startsWith('Link')) {
          this.#onLinkMessage(conn, m as LinkMessage);
          return;
        }
        if (type >= LOCK_CLASS_MIN)
          throw new TsdlmError('TSDLM_BAD_FRAME', `message type 0x${type.toString(16)} is not for daemons`);
      }
    } catch (e) {
      this.#fail(conn, e);
      return;
    }
    this.#host.onMessage(this.id, m as PeerMessage);
  }

  /** After all frames of one chunk: does an acknowledgement have to go out? */
  onTurn(): void {
    if (this.#ackMessages >= ACK_MESSAGES || this.#ackBytes >= ACK_BYTES) this.#host.wantFlush(this);
    else if (this.#ackMessages > 0) this.#host.wantAck(this);
  }

  /** The acknowledgement that onTurn asked for. */
  ackNow(): void {
    if (this.conn === null || this.#ackMessages === 0) return;
    this.#ack();
    this.#host.wantFlush(this);
  }

  /** Once per heartbeat: `late` = this process itself was held up, so nobody's silence counts. */
  tick(now: number, late: boolean): void {
    const conn = this.conn;
    if (conn === null) return;
    if (conn.heard || late) conn.silentTicks = 0;
    else if (++conn.silentTicks >= 3) {
      conn.close(new TsdlmError('TSDLM_TIMEOUT', `node ${this.id} was silent for 3 heartbeats`));
      return;
    }
    conn.heard = false;
    if (!conn.said || this.#pingAt === 0 || now - this.#pingAt > 5000) {
      this.#pingAt = now;
      this.#link({ k: 'LinkPing', id: ++this.#pingId >>> 0 });
    }
    conn.said = false;
  }

  #onLinkMessage(conn: PeerConnection, m: LinkMessage): void {
    switch (m.k) {
      case 'LinkAck':
        this.stream.onAck(m.seq);
        return;
      case 'LinkPing':
        this.#link({ k: 'LinkPong', id: m.id });
        return;
      case 'LinkPong':
        if (m.id === this.#pingId >>> 0) this.rttMs = performance.now() - this.#pingAt;
        return;
      case 'LinkRefusal':
        conn.close(PeerConnection.refusal(this.id, m));
        return;
      default:
        throw new TsdlmError('TSDLM_PROTOCOL', `${m.k} arrived on a link that is up`);
    }
  }

  /** A peer whose frame cannot be understood would send it again after a reconnect: the pair starts over instead. */
  #fail(conn: PeerConnection, e: unknown): void {
    if (!(e instanceof TsdlmError) || e.code === 'TSDLM_INVARIANT') throw e;
    this.stream.breakOff();
    this.#host.log('error', 'peer_protocol', { peer: this.id, code: e.code, text: e.message });
    conn.close(e, 'tell');
  }

  #ack(): void {
    this.#ackMessages = 0;
    this.#ackBytes = 0;
    this.#link({ k: 'LinkAck', seq: this.stream.ackDue() });
  }

  #link(m: LinkMessage): void {
    if (this.conn === null) return;
    (this.#paused ? this.#control : this.#out).push(m);
    this.#host.wantFlush(this);
  }
}

/** The bytes of kept frames; neighbours in one slab are one piece. */
function joined(items: readonly Item<Frame>[]): Buffer {
  const parts: Buffer[] = [];
  let slab: Buffer | null = null;
  let start = 0;
  let end = 0;
  for (const { payload: f } of items) {
    if (f.slab === slab && f.start === end) {
      end = f.end;
      continue;
    }
    if (slab) parts.push(slab.subarray(start, end));
    ({ slab, start, end } = f);
  }
  if (slab) parts.push(slab.subarray(start, end));
  return parts.length === 1 ? (parts[0] as Buffer) : Buffer.concat(parts);
}
