/**
 * The dialling side of one peer: connects, hands the socket on, and begins again when it is gone, for ever.
 *
 * The problem: a node that is away is away in many ways (no route, no name, refused, silent, another key) and comes back at any
 * moment. The idea: each attempt is short (one second to connect), the pause between attempts grows to a second only, and a
 * failure is logged when it is a new one.
 *
 * Left to others: the handshake and everything after it (peer-connection.ts).
 */
import { type Socket, connect as tcpConnect } from 'node:net';
import { connect as tlsConnect } from 'node:tls';
import { TsdlmError } from '../protocol/errors.js';
import type { NodeId } from '../protocol/ids.js';
import type { PeerConnection } from './peer-connection.js';
import { PSK_IDENTITY, TLS_COMMON } from './peer-keys.js';
import type { PeerLink } from './peer-link.js';

const CONNECT_MS = 1000;
const BACKOFF_MIN_MS = 20;
const BACKOFF_MAX_MS = 1000;
/** A link that lived this long was sound: the next dialling starts with the short back-off. */
const SOUND_MS = 1000;

export interface PeerNode {
  id: NodeId;
  name: string;
  host: string;
  /** Read at each dialling. */
  port: number;
}

export interface PeerDialOptions {
  node: PeerNode;
  link: PeerLink;
  /** The pre-shared key of TLS, or null for plain TCP. */
  psk: Buffer | null;
  log(level: 'info' | 'warn' | 'error', event: string, data: Record<string, unknown>): void;
  /** Wraps a connected socket; `ended` is to be called when it is gone. */
  connected(socket: Socket, ended: (conn: PeerConnection, error: TsdlmError) => void): PeerConnection;
}

export class PeerDial {
  #o: PeerDialOptions;
  #socket: Socket | null = null;
  #conn: PeerConnection | null = null;
  #timer: NodeJS.Timeout | null = null;
  #fails = 0;
  #stopped = false;

  constructor(options: PeerDialOptions) {
    this.#o = options;
  }

  /** The connection under way or up that this side dialled. */
  get conn(): PeerConnection | null {
    return this.#conn;
  }

  start(): void {
    this.#timer = null;
    if (this.#stopped) return;
    const { node, link, psk } = this.#o;
    if (link.blocked) {
      this.#again(null);
      return;
    }
    const { host, port } = node;
    const socket: Socket = psk
      ? tlsConnect({
          ...TLS_COMMON,
          host,
          port,
          pskCallback: () => ({ psk, identity: PSK_IDENTITY }),
          // Reached only by a server that shows a certificate instead of knowing the key.
          checkServerIdentity: () => new Error('the other side shows a certificate instead of the cluster key'),
        })
      : tcpConnect({ host, port });
    this.#socket = socket;
    let failure: Error | null = null;
    const timer = setTimeout(() => socket.destroy(new Error(`no connection after ${CONNECT_MS} ms`)), CONNECT_MS);
    const onError = (e: Error): void => {
      failure = e;
    };
    const onClose = (): void => {
      clearTimeout(timer);
      this.#socket = null;
      this.#again(dialError(node, failure));
    };
    socket.on('error', onError);
    socket.once('close', onClose);
    socket.once(psk ? 'secureConnect' : 'connect', () => {
      clearTimeout(timer);
      socket.off('error', onError);
      socket.off('close', onClose);
      this.#conn = this.#o.connected(socket, (conn, error) => {
        if (conn.upForMs >= SOUND_MS) this.#fails = 0;
        this.#conn = null;
        this.#socket = null;
        this.#again(conn.wasUp ? null : error);
      });
    });
  }

  /** The node is reached elsewhere, or has another name, from the next attempt on. */
  moved(node: PeerNode): void {
    const { host, port } = this.#o.node;
    this.#o = { ...this.#o, node };
    if ((host !== node.host || port !== node.port) && this.#conn?.wasUp !== true) this.hurry();
  }

  /** Something has changed: the next attempt comes soon, one under way without a connection is given up. */
  hurry(): void {
    this.#fails = 0;
    if (this.#timer) {
      clearTimeout(this.#timer);
      this.#timer = null;
      this.#again(null);
    } else if (!this.#conn) {
      this.#socket?.destroy();
    }
  }

  /** Dials no more; an attempt under way ends, a connection is left to its owner. */
  stop(): void {
    this.#stopped = true;
    if (this.#timer) clearTimeout(this.#timer);
    if (!this.#conn?.wasUp) this.#socket?.destroy();
  }

  #again(error: TsdlmError | null): void {
    if (this.#stopped || this.#timer) return;
    const { link, node, log } = this.#o;
    if (error) {
      const known = link.lastError;
      link.lastError = error;
      // Said once, not once a second.
      if (known?.code !== error.code || known.message !== error.message) {
        log('warn', 'peer_dial_failed', { peer: node.id, code: error.code, text: error.message });
      }
    }
    const most = Math.min(BACKOFF_MAX_MS, BACKOFF_MIN_MS * 2 ** Math.min(this.#fails, 10));
    this.#fails++;
    this.#timer = setTimeout(() => this.start(), most * (0.5 + Math.random() / 2));
  }
}

/** Why a dialled socket ended before the handshake. */
function dialError(node: PeerNode, e: Error | null): TsdlmError {
  const where = `node ${node.id} (${node.host}:${node.port})`;
  const code = (e as NodeJS.ErrnoException | null)?.code ?? '';
  if (code.startsWith('ERR_SSL') || code === 'EPROTO') {
    return new TsdlmError(
      'TSDLM_AUTH_FAILED',
      `TLS handshake with ${where} failed (${e?.message ?? code}): the cluster key and the tls setting must be equal on all nodes`,
    );
  }
  return new TsdlmError('TSDLM_UNAVAILABLE', `cannot reach ${where}: ${e?.message ?? 'connection closed'}`);
}
