/**
 * The floors, as a process of its own: `floor-server.js KIND [...]`, one of
 *
 *   echo  SOCKET          every byte back, one write per turn of the event loop
 *   ideal SOCKET          a bare lock server in memory: exclusive locks, FIFO, tokens; no modes, leases, peers, journal
 *   relay SOCKET PORT TLS frames of the first connection go through another process (kind `far`) and back
 *   far   PORT TLS        the far end of `relay`: an echo over TCP, TLS as between daemons when TLS is 1
 *   ninep SOCKET          9P: answers every request at once with an empty reply of its kind
 *   files SOCKET          9P: a tree in memory that a kernel can mount (floor-ninep.ts); SIGUSR2: prints how many messages it has answered
 *   watch SOCKET          tells all other connections ("x") the moment it sees a connection that said "h" close
 *
 * SOCKET is a path, or a number for TCP on 127.0.0.1. Prints "ready" when it listens.
 */
import { createServer, type ListenOptions, type Server, type Socket, connect as tcpConnect } from 'node:net';
import { createServer as createTlsServer, connect as tlsConnect } from 'node:tls';
import { FrameReader } from '../src/dlmfs/9p-codec.js';
import { derivePeerKeys, PSK_IDENTITY, TLS_COMMON } from '../src/node/peer-keys.js';
import { FRAME_BYTES, Frames, LOCK } from './floor-frames.js';
import { bareFiles } from './floor-ninep.js';

const [kind = '', where = '', ...rest] = process.argv.slice(2);
const { psk } = derivePeerKeys(Buffer.alloc(32, 7));

function at(place: string): ListenOptions {
  return /^\d+$/.test(place) ? { host: '127.0.0.1', port: Number(place) } : { path: place };
}

function listen(server: Server, place: string): void {
  server.listen(at(place), () => process.stdout.write('ready\n'));
}

function quiet(socket: Socket): void {
  socket.setNoDelay(true);
  socket.on('error', () => socket.destroy());
}

const echo = (socket: Socket): void => {
  quiet(socket);
  socket.on('data', (chunk) => socket.write(chunk));
};

/** A lock: its holder, and who waits, in order. */
interface Entry {
  token: number;
  queue: { socket: Out; slot: number }[];
}

/** One write per turn and connection. */
class Out {
  readonly socket: Socket;
  #parts: Buffer[] = [];

  constructor(socket: Socket) {
    this.socket = socket;
  }
  answer(type: number, slot: number, token: number): void {
    const b = Buffer.alloc(FRAME_BYTES);
    b[0] = type;
    b.writeUInt32LE(slot, 4);
    b.writeDoubleLE(token, 8);
    this.#parts.push(b);
    if (this.#parts.length === 1) dirty.push(this);
  }
  flush(): void {
    const parts = this.#parts;
    this.#parts = [];
    this.socket.write(parts.length === 1 ? (parts[0] as Buffer) : Buffer.concat(parts));
  }
}

let dirty: Out[] = [];
const locks = new Map<string, Entry>();
let token = 0;

function ideal(socket: Socket): void {
  quiet(socket);
  const frames = new Frames();
  const out = new Out(socket);
  socket.on('data', (chunk) => {
    const b = frames.take(chunk);
    for (let p = 0; p < b.length; p += FRAME_BYTES) {
      const name = b.toString('latin1', p + 8, p + 8 + (b[p + 1] as number));
      const slot = b.readUInt32LE(p + 4);
      const entry = locks.get(name);
      if (b[p] === LOCK) {
        if (entry === undefined) {
          locks.set(name, { token: ++token, queue: [] });
          out.answer(LOCK, slot, token);
        } else {
          entry.queue.push({ socket: out, slot });
        }
      } else {
        const next = entry?.queue.shift();
        if (entry === undefined || next === undefined) {
          locks.delete(name);
        } else {
          entry.token = ++token;
          next.socket.answer(LOCK, next.slot, token);
        }
        out.answer(2, slot, 0);
      }
    }
    const all = dirty;
    dirty = [];
    for (const one of all) one.flush();
  });
}

function far(): void {
  const server =
    rest[0] === '1' ? createTlsServer({ ...TLS_COMMON, pskCallback: () => psk }, echo) : createServer({ noDelay: true }, echo);
  listen(server, where);
}

function relay(): void {
  const [port = '', tls = ''] = rest;
  const to: Socket =
    tls === '1'
      ? tlsConnect({
          ...TLS_COMMON,
          host: '127.0.0.1',
          port: Number(port),
          pskCallback: () => ({ psk, identity: PSK_IDENTITY }),
          checkServerIdentity: () => undefined,
        })
      : tcpConnect({ host: '127.0.0.1', port: Number(port) });
  quiet(to);
  to.once(tls === '1' ? 'secureConnect' : 'connect', () => {
    let near: Socket | null = null;
    to.on('data', (chunk) => near?.write(chunk));
    listen(
      createServer((socket) => {
        quiet(socket);
        near = socket;
        socket.on('data', (chunk) => to.write(chunk));
      }),
      where,
    );
  });
}

/** The shortest reply to each kind of request: what a 9P server costs that does nothing. */
function ninep(socket: Socket): void {
  quiet(socket);
  const qid = Buffer.alloc(13);
  const bodies = new Map<number, Buffer>([
    [13, Buffer.concat([qid, Buffer.alloc(4)])],
    [15, Buffer.concat([qid, Buffer.alloc(4)])],
    [73, qid],
    [105, qid],
  ]);
  const reader = new FrameReader(65_536);
  socket.on('data', (chunk) => {
    const out: Buffer[] = [];
    reader.push(chunk, (frame) => {
      const type = frame.readUInt8(4) + 1;
      let body = bodies.get(type) ?? Buffer.alloc(0);
      if (type === 101) body = frame.subarray(7);
      if (type === 111) {
        const count = frame.readUInt16LE(15);
        body = Buffer.alloc(2 + count * 13);
        body.writeUInt16LE(count);
      }
      const reply = Buffer.allocUnsafe(7 + body.length);
      reply.writeUInt32LE(reply.length, 0);
      reply.writeUInt8(type, 4);
      reply.writeUInt16LE(frame.readUInt16LE(5), 5);
      body.copy(reply, 7);
      out.push(reply);
    });
    socket.write(out.length === 1 ? (out[0] as Buffer) : Buffer.concat(out));
  });
}

let served = 0;

function files(socket: Socket): void {
  quiet(socket);
  const answer = bareFiles();
  const reader = new FrameReader(65_536);
  socket.on('data', (chunk) => {
    const out: Buffer[] = [];
    reader.push(chunk, (frame) => out.push(answer(frame)));
    served += out.length;
    if (out.length > 0) socket.write(out.length === 1 ? (out[0] as Buffer) : Buffer.concat(out));
  });
}

function watch(): void {
  const watchers = new Set<Socket>();
  listen(
    createServer({ allowHalfOpen: true }, (socket) => {
      let isHolder = false;
      const gone = (): void => {
        watchers.delete(socket);
        if (isHolder) for (const one of watchers) one.write('x');
        isHolder = false;
        socket.destroy();
      };
      watchers.add(socket);
      socket.on('data', (chunk) => {
        if (chunk[0] !== 0x68) return;
        isHolder = true;
        watchers.delete(socket);
        socket.write('g');
      });
      socket.on('end', gone);
      socket.on('close', gone);
      socket.on('error', gone);
    }),
    where,
  );
}

if (kind === 'echo') listen(createServer(echo), where);
else if (kind === 'ideal') listen(createServer(ideal), where);
else if (kind === 'far') far();
else if (kind === 'relay') relay();
else if (kind === 'ninep') listen(createServer(ninep), where);
else if (kind === 'files') {
  process.on('SIGUSR2', () => process.stdout.write(`served ${served}\n`));
  listen(createServer(files), where);
} else if (kind === 'watch') watch();
else throw new Error(`kind '${kind}' must be one of echo, ideal, far, relay, ninep, files, watch`);
