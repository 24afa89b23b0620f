/**
 * One TCP (or TLS) connection to another daemon, from its first byte to its end.
 *
 * The problem: a socket may be anybody's, may stop in the middle of anything, and reports its end in several ways. The idea:
 * one object per socket that knows three states (handshake, up, closed), ends exactly once and says why.
 *
 * Left to others: which messages go out when (peer-link.ts), which peers there are (peer-net.ts), the order of the handshake
 * (peer-handshake.ts).
 */
import type { Socket } from 'node:net';
import { type AnyMessage, decodeAt } from '../protocol/codec.js';
import { ERROR_CODES, InvariantError, TsdlmError } from '../protocol/errors.js';
import { FRAME_HEADER_BYTES, FrameReader, FrameWriter } from '../protocol/frame.js';
import type { NodeId } from '../protocol/ids.js';
import { HANDSHAKE_FRAME_BYTES_MAX, PEER_FRAME_BYTES_MAX } from '../protocol/limits.js';
import type { LinkMessage } from '../protocol/link-messages.js';
import { cutText } from '../protocol/text.js';
import { Handshake, type HandshakeOptions, type HandshakeResult, refusedBy } from './peer-handshake.js';

/** What a closing connection grants its last bytes to leave. */
const LINGER_MS = 500;

export interface PeerConnectionOptions extends Omit<HandshakeOptions, 'send'> {
  socket: Socket;
  /** Milliseconds for the whole handshake. */
  handshakeMs: number;
  /** The other side has said its number; nothing is proven. False: say nothing more to it, ever (the test switch). */
  onClaim(peer: NodeId): boolean;
  /** The handshake is complete. An error closes the connection with a refusal. */
  onUp(conn: PeerConnection, result: HandshakeResult): TsdlmError | null;
  /** One whole frame of a connection that is up. */
  onFrame(conn: PeerConnection, type: number, b: Buffer, start: number, end: number): void;
  /** All frames of one chunk have been handed on. */
  onTurn(conn: PeerConnection): void;
  /** What was queued in the socket has been written. */
  onDrain(conn: PeerConnection): void;
  /** The end; called once, never from inside a call of ours to this object's constructor or write. */
  onClosed(conn: PeerConnection, error: TsdlmError): void;
}

export class PeerConnection {
  readonly #o: PeerConnectionOptions;
  readonly #socket: Socket;
  readonly #reader = new FrameReader({ frameBytesMax: HANDSHAKE_FRAME_BYTES_MAX });
  readonly #handshake: Handshake;
  #timer: NodeJS.Timeout | null;
  #state: 'handshake' | 'up' | 'closed' = 'handshake';
  #muted = false;
  #firstBytes = true;
  #result: HandshakeResult | null = null;
  #reason: TsdlmError | null = null;
  #upAt = 0;
  #whenProven: (() => void) | null = null;
  /** For the keep-alive: something was received / written since the last look. */
  heard = false;
  said = false;
  silentTicks = 0;

  /** The socket is connected (and TLS is established). */
  constructor(options: PeerConnectionOptions) {
    this.#o = options;
    this.#socket = options.socket;
    const socket = this.#socket;
    socket.setNoDelay(true);
    socket.on('data', (chunk: Buffer) => this.#onData(chunk));
    socket.on('drain', () => {
      if (this.#state === 'up') this.#o.onDrain(this);
    });
    socket.on('error', (e: Error) => {
      this.#reason ??= new TsdlmError('TSDLM_UNAVAILABLE', `connection to node ${this.peer} broke: ${e.message}${this.#hint()}`);
    });
    socket.on('end', () => {
      this.#reason ??= new TsdlmError('TSDLM_UNAVAILABLE', `node ${this.peer} closed the connection${this.#hint()}`);
    });
    socket.on('close', () => this.#end());
    this.#timer = setTimeout(() => {
      this.close(
        new TsdlmError('TSDLM_TIMEOUT', `handshake with node ${this.peer} was not over after ${options.handshakeMs} ms`),
      );
    }, options.handshakeMs);
    this.#handshake = new Handshake({ ...options, send: (m) => this.#say(m) });
  }

  /** The number of the other side; 0 while it has not said one. */
  get peer(): NodeId {
    return this.#result?.peer ?? this.#handshake.claimedPeer;
  }
  get isUp(): boolean {
    return this.#state === 'up';
  }
  /** The handshake was completed once. */
  get wasUp(): boolean {
    return this.#result !== null;
  }
  /** Milliseconds since the handshake was complete; 0 when it never was. */
  get upForMs(): number {
    return this.#result ? performance.now() - this.#upAt : 0;
  }
  /** Calls back when the handshake is complete. */
  whenProven(call: () => void): void {
    this.#whenProven = call;
  }
  get lenient(): boolean {
    return this.#result?.lenient ?? true;
  }
  get startCount(): number {
    return this.#result?.theirs.incarnation.startCount ?? 0;
  }
  /** Bytes handed to the socket and not yet taken by the kernel. */
  get writableBytes(): number {
    return this.#socket.writableLength;
  }
  get isMuted(): boolean {
    return this.#muted;
  }

  /** The other side has proven the key, and refused us as this start count; 0 when it did not. */
  get refusedStartCount(): number {
    return this.#handshake.isRefused && this.#handshake.isProven ? this.#handshake.ownStartCount : 0;
  }

  /** Neither reads nor writes any more, as if the cable were cut; the silence closes it in the end. For tests. */
  mute(): void {
    this.#muted = true;
  }

  /** Hands bytes to the socket. Never closes synchronously. */
  write(bytes: Buffer): void {
    if (this.#state === 'closed' || this.#muted || bytes.length === 0) return;
    this.said = true;
    this.#socket.write(bytes);
  }

  /**
   * Ends the connection; onClosed follows as soon as the socket is gone. No frame is handed on any more from now on.
   * now: at once. soon: after what was written has left. tell: the same, and with a refusal to the other side.
   */
  close(error: TsdlmError, how: 'now' | 'soon' | 'tell' = 'now'): void {
    if (this.#state === 'closed') return;
    this.#reason ??= error;
    this.#state = 'closed';
    this.#clearTimer();
    this.#reader.stop();
    const socket = this.#socket;
    if (how === 'now' || this.#muted) {
      socket.destroy();
      return;
    }
    if (how === 'tell') {
      const writer = new FrameWriter();
      writer.push({ k: 'LinkRefusal', code: ERROR_CODES[error.code], text: cutText(error.message, 500) });
      socket.write(writer.take());
    }
    socket.destroySoon();
    // An other side that does not read gets its socket destroyed with what is left in it.
    const timer = setTimeout(() => socket.destroy(), LINGER_MS);
    socket.once('close', () => clearTimeout(timer));
  }

  /** A TLS server ends a plain connection without a word. */
  #hint(): string {
    return this.#firstBytes ? ' before it said anything: is it stopping, or is tls switched on there and off here?' : '';
  }

  #clearTimer(): void {
    if (this.#timer) clearTimeout(this.#timer);
    this.#timer = null;
  }

  #end(): void {
    this.#state = 'closed';
    this.#clearTimer();
    this.#reader.stop();
    this.#o.onClosed(this, this.#reason ?? new TsdlmError('TSDLM_UNAVAILABLE', `connection to node ${this.peer} ended`));
  }

  #onData(chunk: Buffer): void {
    if (this.#state === 'closed' || this.#muted) return;
    this.heard = true;
    if (this.#firstBytes) {
      this.#firstBytes = false;
      // A TLS record (handshake 0x16 or alert 0x15, version 3.x) at a plain door is worth a clear word: on this side by this
      // text, on the other because a plain answer is no TLS.
      if ((chunk[0] === 0x16 || chunk[0] === 0x15) && chunk[1] === 0x03) {
        const text = 'the other side speaks TLS and this node does not: the tls setting must be equal on all nodes';
        this.close(new TsdlmError('TSDLM_AUTH_FAILED', text), 'tell');
        return;
      }
    }
    const error = this.#reader.push(chunk, (type, b, start, end) => {
      if (this.#state === 'up') this.#o.onFrame(this, type, b, start, end);
      else if (this.#state === 'handshake') this.#onHandshakeFrame(type, b, start, end);
    });
    if (error) this.close(error, this.#handshake.isProven ? 'tell' : 'now');
    else if (this.isUp) this.#o.onTurn(this);
  }

  #onHandshakeFrame(type: number, b: Buffer, start: number, end: number): void {
    let result: HandshakeResult | null;
    try {
      // A newer version may have appended fields to the messages that find out about versions.
      const m: AnyMessage = decodeAt(type, b, start, end, true);
      if (m.k === 'LinkChallenge' && !this.#o.onClaim(m.from)) {
        this.mute();
        return;
      }
      result = this.#handshake.take(m as LinkMessage, b.subarray(start - FRAME_HEADER_BYTES, end));
    } catch (e) {
      if (!(e instanceof TsdlmError) || e instanceof InvariantError) throw e;
      this.close(e, this.#handshake.isRefused ? 'now' : 'tell');
      return;
    }
    if (!result) return;
    this.#result = result;
    this.#clearTimer();
    this.#reader.setFrameBytesMax(PEER_FRAME_BYTES_MAX);
    this.#state = 'up';
    this.#upAt = performance.now();
    this.#whenProven?.();
    const error = this.#o.onUp(this, result);
    if (error) this.close(error, 'tell');
  }

  /** A refusal on a connection that is up. */
  static refusal(peer: NodeId, m: Extract<LinkMessage, { k: 'LinkRefusal' }>): TsdlmError {
    return refusedBy(peer, m.code, m.text);
  }

  #say(m: LinkMessage): Buffer {
    const writer = new FrameWriter();
    writer.push(m);
    const frame = writer.take();
    this.write(frame);
    return frame;
  }
}
