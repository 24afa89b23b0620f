/**
 * The network of one daemon: a link to every other node, kept up for as long as the daemon runs.
 *
 * The problem: connections break, arrive twice, come from strangers, and name resolution, TLS and handshakes all fail in ways
 * of their own; the core above wants to know only "this peer is usable", "it is not", and messages. The idea: one PeerLink per
 * configured node that outlives its connections; of each pair the higher number dials (as in o2net), again and again with a
 * short random back-off; any connection that finishes its handshake replaces the one before it.
 *
 * Order: onUp comes before any onMessage of that link, onDown after the last one. With `reset` no message of before ever
 * arrives afterwards. send() never calls back.
 * Left to others: the stream and what waits (peer-link.ts), one socket (peer-connection.ts), what a message means (the core).
 */
import { createServer, type Server, type Socket } from 'node:net';
import { createServer as createTlsServer, type TLSSocket } from 'node:tls';
import type { TimeLimits } from '../membership/time-limits.js';
import { TsdlmError } from '../protocol/errors.js';
import { checkHello, FEATURES, type Versions } from '../protocol/handshake.js';
import type { Incarnation, NodeId, StartCount } from '../protocol/ids.js';
import type { Challenge, Hello } from '../protocol/link-messages.js';
import type { PeerMessage } from '../protocol/peer-messages.js';
import { LineBudget } from './line-budget.js';
import { PeerConnection, type PeerConnectionOptions } from './peer-connection.js';
import { PeerDial, type PeerDialOptions, type PeerNode } from './peer-dial.js';
import { derivePeerKeys, type PeerKeys, TLS_COMMON } from './peer-keys.js';
import { PeerLink, type PeerLinkHost } from './peer-link.js';

/** Connections that have not proven the key; one more ends the oldest. */
const UNPROVEN_MAX = 64;
const HANDSHAKE_MS = 5000;
const ACK_DELAY_MS = 20;
/** How long a message that nobody waits for may wait for company. */
const SOON_MS = 2;
/** What close() grants the last messages to leave. */
const CLOSE_MS = 300;
/** Lines about refused strangers per second. */
const STRANGER_LINES = 5;

export type { PeerNode } from './peer-dial.js';

export interface PeerNetOptions {
  self: NodeId;
  incarnation: Incarnation;
  /** All nodes of the cluster, this one may be among them. */
  nodes: readonly PeerNode[];
  listen: { host: string; port: number };
  clusterName: string;
  clusterKey: Buffer;
  /** As the journal names the cluster; '' before it does. */
  clusterId?: () => string;
  /** Name of a node that was removed for good. */
  removed?: (id: NodeId) => string | undefined;
  /** Checksum of what must agree; not secret. */
  configSum: string;
  limits: TimeLimits;
  /** False: plain TCP; the handshake still proves the key, but nothing behind it is protected. */
  tls: boolean;
  log(level: 'info' | 'warn' | 'error', event: string, data: Record<string, unknown>): void;
  onMessage(from: NodeId, m: PeerMessage): void;
  onUp(peer: NodeId, startCount: StartCount, reset: boolean): void;
  onDown(peer: NodeId): void;
  /** Once per turn of the event loop, before anything is written to peers: clients wait for their answers, peers do not. */
  beforeFlush?: () => void;
  /** For tests. */
  /** The incarnation of a node that the cluster's view names, for those this process has not met. */
  knownIncarnation?: (peer: NodeId) => Incarnation | null;
  /** A peer that has proven the key knows a later life of our journal. */
  onDistrusted?: (why: string) => void;
  versions?: Versions;
  backlogBytesMax?: number;
  handshakeMs?: number;
}

export interface PeerStatus {
  peer: NodeId;
  name: string;
  /** connecting: this side dials, without success so far; down: the other side has not dialled. */
  state: 'up' | 'connecting' | 'down';
  startCount: StartCount;
  rttMs: number | null;
  lastError: { code: string; text: string } | null;
  bytesQueued: number;
  generation: number;
}

export class PeerNet {
  readonly #o: PeerNetOptions;
  readonly #keys: PeerKeys;
  readonly #links = new Map<NodeId, PeerLink>();
  readonly #names = new Map<NodeId, string>();
  readonly #dials = new Map<NodeId, PeerDial>();
  readonly #host: PeerLinkHost;
  #limits: TimeLimits;
  readonly #server: Server;
  /** Sockets that have not finished their handshake, oldest first, by remote address (TLS hides the raw socket). */
  readonly #unproven = new Map<string, Socket>();
  /** Sockets of any kind, to end them all at close. */
  readonly #sockets = new Set<Socket>();
  readonly #dirty = new Set<PeerLink>();
  readonly #ackDue = new Set<PeerLink>();
  readonly #soon = new Set<PeerLink>();
  #soonTimer: NodeJS.Timeout | null = null;
  #incarnation: Incarnation;
  #flushing: NodeJS.Immediate | null = null;
  #ackTimer: NodeJS.Timeout | null = null;
  #heartbeat: NodeJS.Timeout | null = null;
  #lastTick = 0;
  #started = false;
  #closed = false;
  readonly #lines = new LineBudget(STRANGER_LINES);

  constructor(options: PeerNetOptions) {
    this.#o = options;
    this.#incarnation = options.incarnation;
    this.#keys = derivePeerKeys(options.clusterKey);
    this.#limits = options.limits;
    this.#host = {
      wantFlush: (link) => this.#wantFlush(link),
      wantFlushSoon: (link) => this.#wantFlushSoon(link),
      wantAck: (link) => this.#wantAck(link),
      onMessage: options.onMessage,
      onUp: (link, reset) => this.#onUp(link, reset),
      onDown: (link, error) => this.#onDown(link, error),
      log: options.log,
    };
    for (const node of options.nodes) this.#setNode(node);
    this.#server = options.tls
      ? createTlsServer({
          ...TLS_COMMON,
          handshakeTimeout: options.handshakeMs ?? HANDSHAKE_MS,
          pskCallback: () => this.#keys.psk,
        })
      : createServer();
    this.#server.on('connection', (socket: Socket) => this.#onRawSocket(socket));
    this.#server.on('secureConnection', (socket: Socket) => this.#accept(socket));
    this.#server.on('tlsClientError', (e: Error, socket: TLSSocket) => {
      this.#stranger('peer_refused', {
        code: 'TSDLM_AUTH_FAILED',
        text: `TLS handshake failed (${e.message}): another cluster key, or no tsdlm daemon`,
        from: socket.remoteAddress ?? '',
      });
    });
  }

  /**
   * Nodes that came, or are reached elsewhere now. Who is not among them keeps its link, for our log may be older than theirs; only
   * a node that was removed for good loses it.
   */
  setNodes(nodes: readonly PeerNode[]): void {
    if (this.#closed) return;
    for (const link of [...this.#links.values()]) {
      if (this.#o.removed?.(link.id) === undefined) continue;
      this.#dials.get(link.id)?.stop();
      this.#dials.delete(link.id);
      this.#links.delete(link.id);
      link.reset(new TsdlmError('TSDLM_NODE_REMOVED', `node ${link.id} is not in the node table any more`));
    }
    for (const node of nodes) this.#setNode(node);
  }

  /** Time limits from now on: how often links are looked at. */
  setLimits(limits: TimeLimits): void {
    this.#limits = limits;
    if (this.#heartbeat === null || this.#closed) return;
    clearInterval(this.#heartbeat);
    this.#heartbeat = setInterval(() => this.#tick(), limits.heartbeatMs);
  }

  #setNode(node: PeerNode): void {
    this.#names.set(node.id, node.name);
    if (node.id === this.#o.self) return;
    let link = this.#links.get(node.id);
    if (link === undefined) {
      link = new PeerLink(node.id, this.#host, this.#o.backlogBytesMax);
      this.#links.set(node.id, link);
    }
    // The lower number is dialled, where its address is known.
    if (node.id > this.#o.self || node.host === '') return;
    const dial = this.#dials.get(node.id);
    if (dial !== undefined) {
      dial.moved(node);
      return;
    }
    const connected: PeerDialOptions['connected'] = (socket, ended) => this.#connection(socket, 'dial', node.id, ended);
    const psk = this.#o.tls ? this.#keys.psk : null;
    const added = new PeerDial({ node, link, psk, log: this.#o.log, connected });
    this.#dials.set(node.id, added);
    if (this.#started) added.start();
  }

  /** Opens the port. Throws TSDLM_BAD_CONFIG when it cannot be had. */
  listen(): Promise<{ port: number }> {
    const { host, port } = this.#o.listen;
    return new Promise((resolve, reject) => {
      const onError = (e: Error): void => {
        reject(
          new TsdlmError('TSDLM_BAD_CONFIG', `cannot listen for other nodes on ${host}:${port}: ${e.message}`, { cause: e }),
        );
      };
      this.#server.once('error', onError);
      this.#server.listen({ host, port, backlog: 256 }, () => {
        this.#server.off('error', onError);
        this.#server.on('error', (e) => this.#o.log('error', 'peer_listen', { text: e.message }));
        const address = this.#server.address();
        resolve({ port: typeof address === 'object' && address !== null ? address.port : port });
      });
    });
  }

  /** Begins to dial. */
  start(): void {
    if (this.#started || this.#closed) return;
    this.#started = true;
    this.#lastTick = performance.now();
    this.#heartbeat = setInterval(() => this.#tick(), this.#limits.heartbeatMs);
    for (const dial of this.#dials.values()) dial.start();
  }

  /** Control class: dropped when there is no link. Lock class: kept until acknowledged, or lost together with a reset. */
  send(to: NodeId, m: PeerMessage): void {
    this.#links.get(to)?.send(m);
  }

  /** True when the link to the peer is usable. */
  isUp(peer: NodeId): boolean {
    return this.#links.get(peer)?.conn != null;
  }

  /** The incarnation that the peer said in its last complete handshake. */
  incarnationOf(peer: NodeId): Incarnation | null {
    return this.#links.get(peer)?.lastSeen ?? null;
  }

  /** A new life of this node inside the same process: all links end (onDown, at once) and begin anew with a reset. */
  setIncarnation(incarnation: Incarnation): void {
    this.#incarnation = incarnation;
    const error = new TsdlmError('TSDLM_UNAVAILABLE', `node ${this.#o.self} has begun a new incarnation`);
    for (const link of this.#links.values()) link.reset(error);
    for (const dial of this.#dials.values()) dial.hurry();
  }

  status(): PeerStatus[] {
    return [...this.#links.values()].map((link) => ({
      peer: link.id,
      name: this.#names.get(link.id) ?? '',
      state: link.conn ? 'up' : this.#dials.has(link.id) ? 'connecting' : 'down',
      startCount: link.lastSeen?.startCount ?? 0,
      rttMs: link.rttMs,
      lastError: link.lastError ? { code: link.lastError.code, text: link.lastError.message } : null,
      bytesQueued: link.bytesQueued,
      generation: link.stream.generation,
    }));
  }

  /** Test switch: while on, nothing passes between this node and the peer in either direction, as if the cable were cut. */
  block(peer: NodeId, on: boolean): void {
    const link = this.#links.get(peer);
    if (!link) return;
    link.blocked = on;
    const conns = [link.conn, this.#dials.get(peer)?.conn];
    for (const conn of conns) {
      if (on) conn?.mute();
      else if (conn?.isMuted) conn.close(new TsdlmError('TSDLM_UNAVAILABLE', `node ${peer} was blocked`));
    }
  }

  /**
   * Ends all links and the port. What was sent before is written first, to peers that read. onDown is still called for links
   * that were up; nothing is called after that.
   */
  async close(): Promise<void> {
    if (this.#closed) return;
    this.#closed = true;
    if (this.#heartbeat) clearInterval(this.#heartbeat);
    if (this.#ackTimer) clearTimeout(this.#ackTimer);
    if (this.#soonTimer) clearTimeout(this.#soonTimer);
    for (const link of this.#links.values()) {
      link.flush();
      link.reset(new TsdlmError('TSDLM_STOPPING', `node ${this.#o.self} is stopping`));
    }
    if (this.#flushing) clearImmediate(this.#flushing);
    for (const dial of this.#dials.values()) dial.stop();
    const done = new Promise<void>((resolve) => this.#server.close(() => resolve()));
    const timer = setTimeout(() => this.#destroyAll(), CLOSE_MS);
    for (const socket of this.#unproven.values()) socket.destroy();
    await Promise.all([done, ...[...this.#sockets].map((s) => new Promise((resolve) => s.once('close', resolve)))]);
    clearTimeout(timer);
  }

  #destroyAll(): void {
    for (const socket of this.#sockets) socket.destroy();
  }

  // --- Writing: one flush per turn of the event loop for all peers ---------------------------------------------------

  #wantFlush(link: PeerLink): void {
    this.#dirty.add(link);
    this.#flushing ??= setImmediate(() => {
      this.#flushing = null;
      this.#o.beforeFlush?.();
      const links = [...this.#dirty];
      this.#dirty.clear();
      for (const one of links) one.flush();
    });
  }

  #wantFlushSoon(link: PeerLink): void {
    this.#soon.add(link);
    if (this.#closed) return;
    this.#soonTimer ??= setTimeout(() => {
      this.#soonTimer = null;
      for (const one of this.#soon) this.#wantFlush(one);
      this.#soon.clear();
    }, SOON_MS);
  }

  #wantAck(link: PeerLink): void {
    this.#ackDue.add(link);
    if (this.#closed) return;
    this.#ackTimer ??= setTimeout(() => {
      this.#ackTimer = null;
      const links = [...this.#ackDue];
      this.#ackDue.clear();
      for (const one of links) one.ackNow();
    }, ACK_DELAY_MS);
  }

  #tick(): void {
    const now = performance.now();
    // Held up ourselves (a pause, a long turn): what others sent meanwhile is not read yet, so nobody counts as silent.
    const late = now - this.#lastTick > 2 * this.#limits.heartbeatMs;
    this.#lastTick = now;
    for (const link of this.#links.values()) link.tick(now, late);
  }

  // --- Links ---------------------------------------------------------------------------------------------------------

  #onUp(link: PeerLink, reset: boolean): void {
    const startCount = link.lastSeen?.startCount ?? 0;
    this.#o.log('info', 'peer_up', { peer: link.id, startCount, reset });
    this.#o.onUp(link.id, startCount, reset);
  }

  #onDown(link: PeerLink, error: TsdlmError): void {
    this.#o.log('info', 'peer_down', { peer: link.id, code: error.code, text: error.message });
    this.#o.onDown(link.id);
  }

  /** What the two directions of connecting have in common. */
  #connection(socket: Socket, role: 'dial' | 'accept', peer: NodeId, ended: PeerConnectionOptions['onClosed']): PeerConnection {
    this.#sockets.add(socket);
    return new PeerConnection({
      socket,
      role,
      self: this.#o.self,
      peer,
      keys: this.#keys,
      handshakeMs: this.#o.handshakeMs ?? HANDSHAKE_MS,
      ...(this.#o.versions ? { versions: this.#o.versions } : {}),
      hello: (to) => this.#hello(to),
      judge: (challenge, hello) => this.#judge(role, peer, challenge, hello),
      onClaim: (from) => !this.#links.get(from)?.blocked,
      onUp: (conn, result) => {
        // A member of the cluster that we are new in: it knows us, and what it is we learn from the log.
        if (!this.#links.has(result.peer)) this.#setNode({ id: result.peer, name: result.theirs.name, host: '', port: 0 });
        const link = this.#links.get(result.peer);
        return link ? link.opened(conn, result) : new TsdlmError('TSDLM_UNKNOWN_NODE', `node ${result.peer} is not configured`);
      },
      onFrame: (conn, type, b, start, end) => this.#links.get(conn.peer)?.onFrame(conn, type, b, start, end),
      onTurn: (conn) => this.#links.get(conn.peer)?.onTurn(),
      onDrain: (conn) => this.#links.get(conn.peer)?.onDrain(),
      onClosed: (conn, error) => {
        this.#sockets.delete(socket);
        this.#links.get(conn.peer)?.closed(conn, error);
        const isOurs = conn.refusedStartCount === this.#incarnation.startCount;
        if (isOurs && error.code === 'TSDLM_STALE_INCARNATION' && !this.#closed) this.#o.onDistrusted?.(error.message);
        ended(conn, error);
      },
    });
  }

  #hello(to: NodeId): Hello {
    const { heartbeatMs, leaseMs, marginMs, suspectMs, deadMs, electionMs, tickMs } = this.#o.limits;
    const link = this.#links.get(to);
    const startCount = this.#incarnation.startCount;
    return {
      k: 'LinkHello',
      cluster: this.#o.clusterName,
      clusterId: this.#o.clusterId?.() ?? '',
      name: this.#names.get(this.#o.self) ?? '',
      configSum: this.#o.configSum,
      limits: { heartbeatMs, leaseMs, marginMs, suspectMs, deadMs, electionMs, tickMs },
      features: [...FEATURES],
      incarnation: this.#incarnation,
      // A node that we do not know is refused by what it says next, or refuses us by this.
      open: link
        ? link.stream.opening(startCount)
        : { startCount, peerStartCount: 0, generation: 0, received: 0, keptFrom: 1, sentLast: 0 },
    };
  }

  #judge(role: 'dial' | 'accept', expected: NodeId, challenge: Challenge, hello: Hello): TsdlmError | null {
    return checkHello(
      {
        self: this.#o.self,
        role,
        expected,
        isNode: (id) => id === this.#o.self || this.#links.has(id),
        cluster: this.#o.clusterName,
        clusterId: this.#o.clusterId?.() ?? '',
        nameOf: (id) => this.#names.get(id),
        removed: (id) => this.#o.removed?.(id),
        configSum: this.#o.configSum,
        limits: this.#o.limits,
        lastSeen: (id) => this.#lastSeen(id),
      },
      challenge,
      hello,
    );
  }

  /** The latest life of that node that we know of. */
  #lastSeen(id: NodeId): Incarnation | null {
    const met = this.#links.get(id)?.lastSeen ?? null;
    const known = this.#o.knownIncarnation?.(id) ?? null;
    if (met === null || known === null || met.journalId !== known.journalId) return met ?? known;
    return known.startCount > met.startCount ? known : met;
  }

  // --- Accepting -------------------------------------------------------------------------------------------------------

  /** Every new socket, before TLS: bounds how many may be there without having proven anything. */
  #onRawSocket(socket: Socket): void {
    const key = addressOf(socket);
    this.#sockets.add(socket);
    this.#unproven.set(key, socket);
    socket.once('close', () => {
      this.#sockets.delete(socket);
      if (this.#unproven.get(key) === socket) this.#unproven.delete(key);
    });
    if (this.#unproven.size > UNPROVEN_MAX) {
      const [oldest] = this.#unproven;
      if (oldest) {
        this.#unproven.delete(oldest[0]);
        oldest[1].destroy();
        this.#stranger('peer_refused', { code: 'TSDLM_OVERLOADED', text: `more than ${UNPROVEN_MAX} connections without proof` });
      }
    }
    if (this.#closed) socket.destroy();
    else if (!this.#o.tls) this.#accept(socket);
  }

  #accept(socket: Socket): void {
    const key = addressOf(socket);
    const conn = this.#connection(socket, 'accept', 0, (ended, error) => {
      if (!this.#closed && !ended.wasUp) {
        this.#stranger('peer_refused', { peer: ended.peer, from: key, code: error.code, text: error.message });
      }
      const link = this.#links.get(ended.peer);
      if (link && !link.conn) link.lastError = error;
    });
    conn.whenProven(() => this.#unproven.delete(key));
  }

  /** A line about somebody who did not get in, at most a few per second. */
  #stranger(event: string, data: Record<string, unknown>): void {
    const line = this.#lines.take(performance.now());
    if (line.ok) this.#o.log('warn', event, line.dropped > 0 ? { ...data, notLogged: line.dropped } : data);
  }
}

function addressOf(socket: Socket): string {
  return `${socket.remoteAddress ?? '?'}:${socket.remotePort ?? 0}`;
}
