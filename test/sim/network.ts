/**
 * The simulated network: connections between daemons with the production LinkState on both ends.
 *
 * A connection keeps order in each direction and loses everything in flight when it breaks. A blocked direction stalls
 * what is sent, as TCP does; when that lasts, the side that hears nothing gives the connection up. A new connection begins
 * with the LinkOpen exchange. Beside each lock message travels a serial number of the harness, unknown to LinkState, by which
 * exactly-once and order are checked.
 */
import { type LinkOpen, LinkState } from '../../src/link/link-state.js';
import { LOCK_MESSAGES, type PeerMessage } from '../../src/protocol/peer-messages.js';
import type { Life, SimNode } from './node.js';
import type { World } from './world.js';

const LOCK_NAMES: ReadonlySet<string> = new Set(LOCK_MESSAGES.map((m) => m.name));
const PAYLOAD_BYTES = 100;

export interface Envelope {
  msg: PeerMessage;
  serial: number;
}
type Frame =
  | { t: 'hello'; hello: LinkOpen }
  | { t: 'seq'; seq: number; env: Envelope }
  | { t: 'ctl'; msg: PeerMessage }
  | { t: 'ack'; seq: number };

/** A daemon life's end of a pair: lives across connections. */
export interface PeerEnd {
  link: LinkState<Envelope>;
  conn: Conn | null;
  /** The last numbered frame sent: a reconnect may repeat it though it arrived. */
  lastSent: Frame | null;
  /** Of the harness: serial of the last message given out / taken in, and by whom. */
  serialOut: number;
  serialIn: number;
  serialFrom: number;
  gapAllowed: boolean;
}

interface Side {
  node: SimNode;
  life: Life;
  own: LinkOpen;
  state: 'hello' | 'open' | 'closed';
  ackPending: boolean;
}

interface Conn {
  id: number;
  /** [lower node, higher node]. */
  sides: [Side, Side];
  /** Time of the last delivery toward each side: order. */
  last: [number, number];
  held: [Frame[], Frame[]];
  isBroken: boolean;
}

/** One unordered pair of nodes. Index 0 = toward the lower node, 1 = toward the higher. */
interface Pair {
  nodes: [SimNode, SimNode];
  blocks: [number, number];
  /** Extra delay per direction, ms. */
  extra: [number, number];
  conns: Conn[];
  isDialing: boolean;
}

export class Network {
  readonly #world: World;
  readonly #pairs = new Map<number, Pair>();
  #connCount = 0;
  delivered = 0;
  /** A planted bug: a message on its way may be changed, or dropped: null. */
  alter: ((from: SimNode, to: SimNode, msg: PeerMessage) => PeerMessage | null) | null = null;
  /** The real codec there and back, in the seeds that want it. */
  throughCodec: ((msg: PeerMessage) => PeerMessage) | null = null;

  constructor(world: World) {
    this.#world = world;
  }

  addPair(a: SimNode, b: SimNode): void {
    const pair: Pair = { nodes: [a, b], blocks: [0, 0], extra: [0, 0], conns: [], isDialing: false };
    this.#pairs.set(a.id * 256 + b.id, pair);
    this.#dialLater(pair, 1);
  }

  #pair(a: number, b: number): Pair {
    return this.#pairs.get(a < b ? a * 256 + b : b * 256 + a) as Pair;
  }

  newEnd(): PeerEnd {
    return {
      link: new LinkState<Envelope>({ backlogBytesMax: 2_000_000 }),
      conn: null,
      lastSent: null,
      serialOut: 0,
      serialIn: 0,
      serialFrom: 0,
      gapAllowed: true,
    };
  }

  // --- Faults -----------------------------------------------------------------------------------------------------------

  /** Blocks what `from` sends to `to`. Counted: as many {@link unblock} calls heal it. */
  block(from: number, to: number): void {
    const pair = this.#pair(from, to);
    const dir = to > from ? 1 : 0;
    if (++pair.blocks[dir] > 1) return;
    this.#world.topologyChanged();
    const detect = this.#detectMs();
    this.#world.queue.after(detect, () => {
      if (pair.blocks[dir] === 0) return;
      for (const conn of [...pair.conns]) this.#sideGivesUp(pair, conn, dir);
    });
  }

  unblock(from: number, to: number): void {
    const pair = this.#pair(from, to);
    const dir = to > from ? 1 : 0;
    if (--pair.blocks[dir] > 0) return;
    this.#world.topologyChanged();
    // Frames that arrive before the held ones are through are held behind them: order.
    for (const conn of pair.conns)
      this.#world.queue.after(0.1 + this.#world.netRandom.exp(5), () => this.#flush(pair, conn, dir));
  }

  #flush(pair: Pair, conn: Conn, dir: 0 | 1): void {
    if (conn.isBroken || pair.blocks[dir] > 0) return;
    const held = conn.held[dir];
    conn.held[dir] = [];
    for (const frame of held) this.#arrive(pair, conn, dir, frame);
  }

  #arrive(pair: Pair, conn: Conn, dir: 0 | 1, frame: Frame): void {
    const side = conn.sides[dir];
    side.node.input(side.life, () => this.#receive(pair, conn, dir, frame));
  }

  isOpen(a: number, b: number): boolean {
    const pair = this.#pair(a, b);
    return pair.blocks[0] === 0 && pair.blocks[1] === 0;
  }

  setExtraDelay(from: number, to: number, ms: number): void {
    this.#pair(from, to).extra[to > from ? 1 : 0] = ms;
  }

  /** Breaks the pair's connections; both sides notice soon. */
  cut(a: number, b: number): void {
    const pair = this.#pair(a, b);
    for (const conn of [...pair.conns]) {
      conn.isBroken = true;
      for (const dir of [0, 1] as const) this.#eofLater(pair, conn, dir, this.#world.netRandom.exp(20));
    }
  }

  /** All connections of a daemon that died: peers see the end soon, or by silence when the machine is gone. */
  died(node: SimNode, isMachineGone: boolean): void {
    for (const pair of this.#pairs.values()) {
      const at = pair.nodes[0] === node ? 0 : pair.nodes[1] === node ? 1 : -1;
      if (at < 0) continue;
      for (const conn of [...pair.conns]) {
        conn.isBroken = true;
        conn.sides[at as 0 | 1].state = 'closed';
        const delay = isMachineGone ? this.#detectMs() : this.#world.netRandom.exp(5);
        this.#eofLater(pair, conn, at === 0 ? 1 : 0, delay);
        this.#forget(pair, conn);
      }
    }
  }

  /** The process stands still for longer than peers wait: they give the connection up. */
  stalled(node: SimNode): void {
    for (const pair of this.#pairs.values()) {
      const at = pair.nodes[0] === node ? 0 : pair.nodes[1] === node ? 1 : -1;
      if (at < 0) continue;
      for (const conn of [...pair.conns]) this.#sideGivesUp(pair, conn, at === 0 ? 1 : 0);
    }
  }

  get silenceMs(): number {
    return this.#detectMs();
  }

  #detectMs(): number {
    return this.#world.options.limits.heartbeatMs * this.#world.netRandom.between(2, 4);
  }

  // --- What a daemon does -----------------------------------------------------------------------------------------------

  send(life: Life, to: number, msg: PeerMessage): void {
    const end = life.ends.get(to);
    if (!end) {
      this.#world.fail(`n${life.node.id} sends ${msg.k} to n${to}, which is no other node`);
      return;
    }
    const conn = end.conn;
    if (!LOCK_NAMES.has(msg.k)) {
      if (conn) this.#put(life, conn, { t: 'ctl', msg });
      return;
    }
    const env: Envelope = { msg, serial: ++end.serialOut };
    const item = end.link.send(env, PAYLOAD_BYTES);
    if (item === null) {
      if (conn) this.closeSide(life, conn);
      return;
    }
    end.lastSent = { t: 'seq', seq: item.seq, env };
    if (conn) this.#put(life, conn, end.lastSent);
  }

  /** This daemon gives up its end; what it sent before still arrives. */
  closeSide(life: Life, conn: Conn): void {
    const pair = this.#pair(conn.sides[0].node.id, conn.sides[1].node.id);
    const at = conn.sides[0].life === life ? 0 : 1;
    this.#close(pair, conn, at);
  }

  /** Closes every connection of the life (new incarnation); the core is told of each. */
  closeAll(life: Life): void {
    for (const pair of this.#pairs.values()) {
      for (const conn of [...pair.conns]) {
        for (const at of [0, 1] as const) if (conn.sides[at].life === life) this.#close(pair, conn, at);
      }
    }
  }

  // --- Connections ------------------------------------------------------------------------------------------------------

  #dialLater(pair: Pair, mean: number): void {
    if (pair.isDialing) return;
    pair.isDialing = true;
    this.#world.queue.after(1 + this.#world.netRandom.exp(mean), () => {
      pair.isDialing = false;
      this.#dial(pair);
    });
  }

  #dial(pair: Pair): void {
    const [a, b] = pair.nodes;
    if (pair.conns.some((c) => !c.isBroken && c.sides[0].state !== 'closed' && c.sides[1].state !== 'closed')) return;
    const canDial = a.life && b.life && !a.isPaused && !b.isPaused && pair.blocks[0] === 0 && pair.blocks[1] === 0;
    if (!canDial || !a.life || !b.life) {
      this.#dialLater(pair, 120);
      return;
    }
    this.#connect(pair, a.life, b.life);
    // Both sides dialled at the same time: the later handshake makes the earlier connection void.
    if (this.#world.netRandom.chance(0.05)) this.#connect(pair, a.life, b.life);
  }

  #connect(pair: Pair, a: Life, b: Life): void {
    const side = (life: Life, peer: SimNode): Side => ({
      node: life.node,
      life,
      own: (life.ends.get(peer.id) as PeerEnd).link.opening(life.startCount),
      state: 'hello',
      ackPending: false,
    });
    const now = this.#world.queue.now;
    const conn: Conn = {
      id: ++this.#connCount,
      sides: [side(a, b.node), side(b, a.node)],
      last: [now, now],
      held: [[], []],
      isBroken: false,
    };
    pair.conns.push(conn);
    for (const at of [0, 1] as const) this.#transmit(pair, conn, at === 0 ? 1 : 0, { t: 'hello', hello: conn.sides[at].own });
  }

  #put(life: Life, conn: Conn, frame: Frame): void {
    const at = conn.sides[0].life === life ? 0 : 1;
    if (conn.sides[at].state !== 'open') return;
    const pair = this.#pair(conn.sides[0].node.id, conn.sides[1].node.id);
    this.#transmit(pair, conn, at === 0 ? 1 : 0, frame);
  }

  #transmit(pair: Pair, conn: Conn, dir: 0 | 1, frame: Frame): void {
    if (conn.isBroken) return;
    const world = this.#world;
    const r = world.netRandom;
    const { delayMs, slowShare, limits } = world.options;
    // A healed network delivers well inside a heartbeat: that is what liveness is promised for.
    const mean = world.isHealing ? Math.min(delayMs, limits.heartbeatMs / 50) : delayMs;
    let delay = mean * (0.5 + r.float()) + pair.extra[dir];
    if (slowShare > 0 && !world.isHealing && r.chance(slowShare)) delay += r.exp(delayMs * 10);
    const at = Math.max(conn.last[dir] + 0.001, world.queue.now + delay);
    conn.last[dir] = at;
    world.queue.at(at, () => {
      if (conn.isBroken) return;
      if (pair.blocks[dir] > 0 || conn.held[dir].length > 0) {
        conn.held[dir].push(frame);
        return;
      }
      this.#arrive(pair, conn, dir, frame);
    });
  }

  #receive(pair: Pair, conn: Conn, at: 0 | 1, frame: Frame): void {
    const side = conn.sides[at];
    const other = conn.sides[at === 0 ? 1 : 0];
    if (side.state === 'closed') return;
    const life = side.life;
    const end = life.ends.get(other.node.id) as PeerEnd;
    const world = this.#world;
    const peer = other.node.id;
    if (side.state === 'hello') {
      if (frame.t !== 'hello') return;
      if (!end.link.isCurrent(side.own) || side.own.startCount !== life.startCount) {
        this.#close(pair, conn, at);
        return;
      }
      const verdict = end.link.opened(side.own, frame.hello);
      if (end.conn && end.conn !== conn) this.#close(pair, end.conn, at);
      end.conn = conn;
      side.state = 'open';
      if (verdict.reset) {
        end.gapAllowed = true;
        end.lastSent = null;
      }
      world.trace.add(world.queue.now, side.node.id, 'peerUp', peer, frame.hello.startCount, verdict.reset, end.link.generation);
      // A careful sender repeats too much rather than too little; the receiver has to notice.
      const { lastSent } = end;
      if (lastSent && verdict.resend.length === 0 && world.netRandom.chance(0.5)) {
        this.#transmit(pair, conn, at === 0 ? 1 : 0, lastSent);
      }
      for (const item of verdict.resend)
        this.#transmit(pair, conn, at === 0 ? 1 : 0, { t: 'seq', seq: item.seq, env: item.payload });
      side.node.call(life, (core, now) => core.peerUp(now, peer, frame.hello.startCount, verdict.reset));
      return;
    }
    switch (frame.t) {
      case 'hello':
        return;
      case 'ack':
        end.link.onAck(frame.seq);
        return;
      case 'ctl':
        this.#deliver(side, other, frame.msg);
        return;
      case 'seq': {
        const verdict = end.link.onSequenced(frame.seq);
        if (verdict === 'gap') {
          world.fail(`link: n${side.node.id} sees a gap at message ${frame.seq} of n${peer}`);
          return;
        }
        this.#ackLater(pair, conn, at, end);
        if (verdict === 'duplicate') return;
        this.#checkSerial(side, other, end, frame.env);
        this.#deliver(side, other, frame.env.msg);
        return;
      }
    }
  }

  #checkSerial(side: Side, other: Side, end: PeerEnd, env: Envelope): void {
    if (end.serialFrom !== other.life.uid) {
      end.serialFrom = other.life.uid;
      end.serialIn = 0;
      end.gapAllowed = true;
    }
    const expected = end.serialIn + 1;
    if (env.serial < expected || (env.serial > expected && !end.gapAllowed)) {
      this.#world.fail(
        `link: n${side.node.id} got lock message ${env.serial} (${env.msg.k}) of n${other.node.id}, expected ${expected}`,
      );
    }
    end.serialIn = env.serial;
    end.gapAllowed = false;
  }

  #deliver(side: Side, other: Side, message: PeerMessage): void {
    const world = this.#world;
    let msg: PeerMessage | null = message;
    if (this.throughCodec) msg = this.throughCodec(msg);
    if (this.alter) msg = this.alter(other.node, side.node, msg);
    if (msg === null) return;
    this.delivered++;
    const final = msg;
    traceMessage(world, side.node.id, other.node.id, final);
    side.node.call(side.life, (core, now) => core.receive(now, other.node.id, final));
  }

  #ackLater(pair: Pair, conn: Conn, at: 0 | 1, end: PeerEnd): void {
    const side = conn.sides[at];
    if (side.ackPending) return;
    side.ackPending = true;
    this.#world.queue.after(5 + this.#world.netRandom.exp(10), () => {
      side.node.input(side.life, () => {
        side.ackPending = false;
        if (side.state === 'open' && end.conn === conn) {
          this.#transmit(pair, conn, at === 0 ? 1 : 0, { t: 'ack', seq: end.link.ackDue() });
        }
      });
    });
  }

  #eofLater(pair: Pair, conn: Conn, at: 0 | 1, delay: number): void {
    const side = conn.sides[at];
    this.#world.queue.after(delay, () => side.node.input(side.life, () => this.#close(pair, conn, at)));
  }

  /** Side `at` hears nothing and closes. */
  #sideGivesUp(pair: Pair, conn: Conn, at: 0 | 1): void {
    const side = conn.sides[at];
    side.node.input(side.life, () => this.#close(pair, conn, at));
  }

  #close(pair: Pair, conn: Conn, at: 0 | 1): void {
    const side = conn.sides[at];
    if (side.state === 'closed') return;
    const wasOpen = side.state === 'open';
    side.state = 'closed';
    const otherAt = at === 0 ? 1 : 0;
    const other = conn.sides[otherAt];
    const end = side.life.ends.get(other.node.id) as PeerEnd;
    if (other.state === 'closed') this.#forget(pair, conn);
    else if (!conn.isBroken && pair.blocks[otherAt] === 0) {
      // The end of the stream follows what was sent before, in order.
      const delay = Math.max(conn.last[otherAt], this.#world.queue.now + this.#world.options.delayMs) - this.#world.queue.now;
      this.#eofLater(pair, conn, otherAt, delay + 0.01);
    } else if (!conn.isBroken) {
      this.#eofLater(pair, conn, otherAt, this.#detectMs());
    }
    if (end.conn === conn) end.conn = null;
    if (wasOpen && end.conn === null && side.node.life === side.life) {
      this.#world.trace.add(this.#world.queue.now, side.node.id, 'peerDown', other.node.id);
      side.node.call(side.life, (core, now) => core.peerDown(now, other.node.id));
    }
    this.#dialLater(pair, 60);
  }

  #forget(pair: Pair, conn: Conn): void {
    conn.isBroken = true;
    const i = pair.conns.indexOf(conn);
    if (i >= 0) pair.conns.splice(i, 1);
    this.#dialLater(pair, 60);
  }
}

function traceMessage(world: World, to: number, from: number, msg: PeerMessage): void {
  const now = world.queue.now;
  const m = msg as unknown as Record<string, unknown>;
  if ('dom' in msg) {
    const name = typeof m.name === 'string' ? m.name : namesOf(msg);
    const id = typeof m.id === 'number' ? m.id % 2 ** 32 : 0;
    const extra =
      typeof m.mode === 'number' ? m.mode : typeof m.answer === 'number' ? m.answer : typeof m.code === 'number' ? m.code : -1;
    const owner = typeof m.owner === 'number' ? m.owner : typeof m.flags === 'number' ? m.flags : -1;
    world.trace.add(now, to, msg.k, `<-n${from}`, msg.dom, msg.dep, name, id, extra, owner, msg.ce, msg.cc);
    return;
  }
  const term = typeof m.term === 'number' ? m.term : -1;
  const detail =
    typeof m.index === 'number' ? m.index : typeof m.commit === 'number' ? m.commit : typeof m.match === 'number' ? m.match : -1;
  const granted = typeof m.granted === 'boolean' ? m.granted : null;
  world.trace.add(now, to, msg.k, `<-n${from}`, term, detail, granted);
}

function namesOf(msg: PeerMessage): string {
  if (msg.k === 'Register') return msg.locks.map((l) => `${l.name}(${l.id % 2 ** 32}:${l.mode}>${l.want})`).join(',');
  if (msg.k === 'HandOver') return msg.resources.map((r) => r.name).join(',');
  return '';
}
