/**
 * One client connection, seen from the daemon: bytes in, bytes out, and what its client was told.
 *
 * The problem (rule 8): a client believes the last deadline that was written to its socket, whether or not it has read it.
 * So every deadline that leaves is remembered, and a connection that the *daemon* ends is only half closed: its locks stay
 * until that deadline has passed or the client has closed its side, whichever is first.
 *
 *   open -> (the client's end of file)                    -> gone
 *   open -> dismissed -> end of file, or deadline passed  -> gone
 *
 * What requests mean is session-requests.ts; who else there is, session-server.ts.
 */
import { randomInt } from 'node:crypto';
import type { Socket } from 'node:net';
import type { ClientMessage, DaemonMessage } from '../protocol/client-messages.js';
import { ERROR_CODES, type ErrorCode } from '../protocol/errors.js';
import { FrameWriter, MessageReader } from '../protocol/frame.js';
import { IdMap } from '../protocol/id-map.js';
import { CLIENT_BACKLOG_BYTES_MAX, CLIENT_FRAME_BYTES_MAX, HANDSHAKE_FRAME_BYTES_MAX } from '../protocol/limits.js';
import { cutText } from '../protocol/text.js';
import type { ProcessGroup } from './session-group.js';
import type { Hold } from './session-hold.js';

/** Above this backlog nothing more is read from the client: its own answers would pile up. */
const PAUSE_BYTES = 1024 * 1024;

/** Request numbers are chosen by clients: none of them can tell which ones collide in a table. */
const SALT = randomInt(2 ** 32);

/** Sentences to a client, as the messages limit them. */
const TEXT_BYTES_MAX = 500;

/** What a session asks of its server. */
export interface SessionHost {
  readonly now: () => number;
  /** A frame of the client. */
  message(session: Session, message: ClientMessage): void;
  /** There are bytes to write: call `flush` in this turn. */
  dirty(session: Session): void;
  /** All messages of one chunk have been handled. */
  turn(): void;
  /** The client's side is closed, or the connection is broken: nobody acts under its locks any more. */
  ended(session: Session): void;
  /** The client broke the rules: see dismiss. */
  fault(session: Session, code: ErrorCode, text: string): void;
}

export class Session {
  readonly id: number;
  readonly openedAt: number;
  pid = 0;
  /** Start time of the client's process; '' when unknown. */
  start = '';
  label = '';
  /** "node:pid label", shown to others. */
  who = '';
  /** `absent`: known from the record of a restart, its client has not come back yet. */
  state: 'greeting' | 'open' | 'dismissed' | 'gone' | 'absent' = 'greeting';
  /** Names it beyond this daemon: "start count.number". */
  key = '';
  /** Its client may still count on the deadline of a restart. */
  isUnsettled = false;
  /** Holds that the core has not confirmed since the restart. */
  claimed = 0;
  /** Request that waits for that; 0 = none. */
  resumeRid = 0;
  /** Told that the daemon stops: releases are still taken. */
  isStopping = false;
  /** Last deadline written to this client. */
  told = 0;
  /** Told that this node has no lease and holds on (rule 20). */
  isSuspended = false;
  holds = new IdMap<Hold>(SALT);
  /** Conversions under way, by their request number. */
  converting = new IdMap<Hold>(SALT);
  /** Granted holds among `holds`. */
  granted = 0;
  /** Administration requests that wait for their answer. */
  admin = 0;
  group: ProcessGroup | null = null;
  guard: NodeJS.Timeout | null = null;
  wasTermSent = false;
  timer: NodeJS.Timeout | null = null;
  isDirty = false;
  /** When reading was paused because the client does not read its answers; 0 = it is not. */
  pausedAt = 0;
  #host: SessionHost;
  #socket: Socket | null;
  #reader = new MessageReader<ClientMessage>({ frameBytesMax: HANDSHAKE_FRAME_BYTES_MAX, from: 'client' });
  #writer = new FrameWriter();
  #lost: { rid: number; code: ErrorCode; text: string }[] = [];

  /** Without a socket: absent. */
  constructor(host: SessionHost, socket: Socket | null, id: number) {
    this.#host = host;
    this.#socket = socket;
    this.id = id;
    this.openedAt = host.now();
    if (socket === null) {
      this.state = 'absent';
      return;
    }
    socket.on('data', this.#onData);
    socket.on('drain', this.#onDrain);
    socket.on('end', () => host.ended(this));
    // A reset: the client's side is gone.
    socket.on('error', () => host.ended(this));
    socket.on('close', () => host.ended(this));
  }

  /** Bytes that the client has not taken yet, beyond what the kernel holds. */
  get backlog(): number {
    return this.#socket?.writableLength ?? 0;
  }

  /** The handshake is done: frames of the full size are welcome. */
  greeted(): void {
    this.state = 'open';
    this.#reader.setFrameBytesMax(CLIENT_FRAME_BYTES_MAX);
  }

  push(message: DaemonMessage): void {
    if (this.state === 'dismissed' || this.state === 'gone' || this.state === 'absent') return;
    if (this.#lost.length > 0) this.#pushLost();
    this.#writer.push(message);
    if (!this.isDirty) this.#host.dirty(this);
  }

  deny(rid: number, code: ErrorCode, text: string): void {
    if (rid !== 0) this.push({ k: 'DaemonDenied', rid, code: ERROR_CODES[code], text: cutText(text, TEXT_BYTES_MAX) });
  }

  done(rid: number): void {
    if (rid !== 0) this.push({ k: 'DaemonDone', rid });
  }

  /** A lock is gone. When all of them go at once, as with a lost lease, one message says so. */
  pushLost(rid: number, code: ErrorCode, text: string): void {
    if (this.state === 'dismissed' || this.state === 'gone' || this.state === 'absent') return;
    this.#lost.push({ rid, code, text: cutText(text, TEXT_BYTES_MAX) });
    if (!this.isDirty) this.#host.dirty(this);
  }

  #pushLost(): void {
    const lost = this.#lost;
    this.#lost = [];
    const [first] = lost;
    if (first !== undefined && lost.length > 1 && this.granted === 0) {
      const text = cutText(`all ${lost.length} locks of this session: ${first.text}`, TEXT_BYTES_MAX);
      this.#writer.push({ k: 'DaemonLost', lock: 0, code: ERROR_CODES[first.code], text });
      return;
    }
    for (const { rid, code, text } of lost) this.#writer.push({ k: 'DaemonLost', lock: rid, code: ERROR_CODES[code], text });
  }

  /** Writes everything that was pushed since the last call, as one buffer. */
  flush(): void {
    this.isDirty = false;
    if (this.state === 'gone') return;
    if (this.#lost.length > 0) this.#pushLost();
    const bytes = this.#writer.take();
    if (bytes.length === 0 || !this.#socket?.writable) return;
    this.#socket.write(bytes);
    const backlog = this.#socket.writableLength;
    if (backlog <= PAUSE_BYTES || this.state !== 'open') return;
    if (backlog > CLIENT_BACKLOG_BYTES_MAX) {
      this.#host.fault(this, 'TSDLM_SLOW_CLIENT', `this client left ${backlog} bytes unread`);
    } else if (this.pausedAt === 0) {
      this.pausedAt = this.#host.now();
      this.#socket?.pause();
    }
  }

  /** Tells why, and closes our side only. From here on nothing is told to this client any more. `deadline`: of a restart. */
  dismiss(code: ErrorCode, text: string, deadline = 0): void {
    if (this.state !== 'greeting' && this.state !== 'open') return;
    this.push({ k: 'DaemonBye', code: ERROR_CODES[code], text: cutText(text, TEXT_BYTES_MAX), deadline });
    this.state = 'dismissed';
    this.flush();
    this.#socket?.end();
    // Its end of file is what we wait for.
    this.pausedAt = 0;
    this.#socket?.resume();
  }

  destroy(): void {
    this.state = 'gone';
    if (this.timer !== null) clearTimeout(this.timer);
    if (this.guard !== null) clearTimeout(this.guard);
    this.timer = null;
    this.guard = null;
    this.#socket?.destroy();
  }

  #onDrain = (): void => {
    if (this.pausedAt === 0) return;
    this.pausedAt = 0;
    this.#socket?.resume();
  };

  #onData = (chunk: Buffer): void => {
    if (this.state === 'gone' || (this.state === 'dismissed' && !this.isStopping)) return;
    const error = this.#reader.push(chunk, this.#onMessage);
    if (error !== null) this.#host.fault(this, error.code, error.message);
    this.#host.turn();
  };

  #onMessage = (message: ClientMessage): void => {
    if (this.state === 'gone' || (this.state === 'dismissed' && !this.isStopping)) return;
    this.#host.message(this, message);
  };
}
