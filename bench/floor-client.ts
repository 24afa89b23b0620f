/**
 * The client's side of the floors: starts their servers and keeps a number of requests in flight for a time. No promises, no
 * objects per request: what a program could reach at best over this socket with Node.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { connect, createServer, type Socket } from 'node:net';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { FRAME_BYTES, Frames, LOCK, putRequest, UNLOCK } from './floor-frames.js';

const SERVER = fileURLToPath(new URL('./floor-server.js', import.meta.url));

export interface Floor {
  socket: Socket;
  pids: number[];
}

/** Processes and sockets of one comparison; ends what it started, by process id. */
export class Floors {
  readonly #dir: string;
  readonly #children: ChildProcess[] = [];
  readonly #sockets: Socket[] = [];
  #count = 0;

  constructor(dir: string) {
    this.#dir = dir;
  }

  /** Processes of the server that was started last (two for a relay). */
  last: number[] = [];

  async #start(args: string[]): Promise<void> {
    const child = spawn(process.execPath, [SERVER, ...args], { stdio: ['ignore', 'pipe', 'inherit'] });
    this.#children.push(child);
    if (child.pid !== undefined) this.last.push(child.pid);
    await new Promise<void>((resolve, reject) => {
      child.once('exit', (code) => reject(new Error(`floor server ${args.join(' ')} ended with ${code}`)));
      child.stdout?.once('data', () => resolve());
    });
  }

  /** Starts a server of one kind and says where it listens. */
  async server(kind: 'echo' | 'ideal' | 'ninep' | 'files' | 'watch', over: 'unix' | 'tcp' = 'unix'): Promise<string> {
    this.last = [];
    const where = over === 'tcp' ? String(await freePort()) : join(this.#dir, `${kind}${this.#count++}`);
    await this.#start([kind, where]);
    return where;
  }

  /** Two processes: one that passes frames on over TCP (or TLS as between daemons) and one that sends them back. */
  async relay(tls: boolean): Promise<string> {
    this.last = [];
    const port = String(await freePort());
    const where = join(this.#dir, `relay${this.#count++}`);
    await this.#start(['far', port, tls ? '1' : '0']);
    await this.#start(['relay', where, port, tls ? '1' : '0']);
    return where;
  }

  async connect(where: string): Promise<Socket> {
    const socket = /^\d+$/.test(where) ? connect({ host: '127.0.0.1', port: Number(where) }) : connect({ path: where });
    socket.setNoDelay(true);
    this.#sockets.push(socket);
    await new Promise<void>((resolve, reject) => {
      socket.once('connect', resolve);
      socket.once('error', reject);
    });
    socket.removeAllListeners('error');
    socket.on('error', () => {});
    return socket;
  }

  /** A connection to a server of its own, with the processes that work for it. */
  async open(where: Promise<string>): Promise<Floor> {
    const socket = await this.connect(await where);
    return { socket, pids: [process.pid, ...this.last] };
  }

  close(): void {
    for (const socket of this.#sockets) socket.destroy();
    for (const child of this.#children) {
      child.removeAllListeners('exit');
      child.kill('SIGKILL');
    }
  }
}

async function freePort(): Promise<number> {
  const server = createServer();
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const address = server.address();
  await new Promise((resolve) => server.close(resolve));
  return typeof address === 'object' && address !== null ? address.port : 0;
}

/** Frames echoed per second with `inFlight` of them under way. */
export function echoRate(socket: Socket, inFlight: number, ms: number): Promise<number> {
  return new Promise((resolve) => {
    const frames = new Frames();
    const began = performance.now();
    let count = 0;
    let left = inFlight;
    let isOver = false;
    const onData = (chunk: Buffer): void => {
      const whole = frames.take(chunk);
      const n = whole.length / FRAME_BYTES;
      count += n;
      const took = performance.now() - began;
      if (took < ms) {
        if (n > 0) socket.write(whole);
        return;
      }
      if (!isOver) {
        isOver = true;
        rate = (count / took) * 1000;
      }
      left -= n;
      if (left > 0) return;
      socket.off('data', onData);
      resolve(rate);
    };
    let rate = 0;
    socket.on('data', onData);
    socket.write(Buffer.alloc(FRAME_BYTES * inFlight, 1));
  });
}

let names = 0;

/** Cycles per second of the bare lock server: lock a fresh name, unlock it, both answered. */
export function idealRate(socket: Socket, inFlight: number, ms: number): Promise<number> {
  return new Promise((resolve) => {
    const frames = new Frames();
    const began = performance.now();
    const name: string[] = [];
    let count = 0;
    let left = inFlight;
    let rate = -1;
    const first = Buffer.alloc(FRAME_BYTES * inFlight);
    for (let slot = 0; slot < inFlight; slot++) {
      name.push(`b/${++names}`);
      putRequest(first, slot * FRAME_BYTES, LOCK, slot, name[slot] as string);
    }
    const onData = (chunk: Buffer): void => {
      const b = frames.take(chunk);
      const took = performance.now() - began;
      if (took >= ms && rate < 0) rate = (count / took) * 1000;
      const out = Buffer.allocUnsafe(b.length);
      let used = 0;
      for (let p = 0; p < b.length; p += FRAME_BYTES) {
        const slot = b.readUInt32LE(p + 4);
        if (b[p] === LOCK) {
          putRequest(out, used, UNLOCK, slot, name[slot] as string);
          used += FRAME_BYTES;
          continue;
        }
        count++;
        if (rate >= 0) {
          left--;
          continue;
        }
        name[slot] = `b/${++names}`;
        putRequest(out, used, LOCK, slot, name[slot] as string);
        used += FRAME_BYTES;
      }
      if (used > 0) socket.write(used === out.length ? out : out.subarray(0, used));
      if (left > 0) return;
      socket.off('data', onData);
      resolve(rate);
    };
    socket.on('data', onData);
    socket.write(first);
  });
}

/**
 * Hand-overs per second of one name between several connections to the bare lock server, and how often each had it. Each
 * connection asks for its next turn before it gives up the present one, so that there is always somebody to hand over to.
 */
export function idealHandOvers(sockets: readonly Socket[], ms: number): Promise<{ rate: number; counts: number[] }> {
  return new Promise((resolve) => {
    const name = `h/${++names}`;
    const counts = sockets.map(() => 0);
    const began = performance.now();
    let last = -1;
    let changes = 0;
    let left = sockets.length;
    let took = 0;
    sockets.forEach((socket, i) => {
      const frames = new Frames();
      const lock = Buffer.alloc(FRAME_BYTES);
      const both = Buffer.alloc(2 * FRAME_BYTES);
      putRequest(lock, 0, LOCK, 0, name);
      putRequest(both, 0, LOCK, 0, name);
      putRequest(both, FRAME_BYTES, UNLOCK, 0, name);
      const onData = (chunk: Buffer): void => {
        const b = frames.take(chunk);
        for (let p = 0; p < b.length; p += FRAME_BYTES) {
          if (b[p] !== LOCK) continue;
          const now = performance.now() - began;
          if (now < ms) {
            counts[i] = (counts[i] as number) + 1;
            if (last !== i) changes++;
            last = i;
            socket.write(both);
            continue;
          }
          if (took === 0) took = now;
          socket.write(both.subarray(FRAME_BYTES));
          socket.off('data', onData);
          if (--left === 0) resolve({ rate: (changes / took) * 1000, counts });
        }
      };
      socket.on('data', onData);
      socket.write(lock);
    });
  });
}
