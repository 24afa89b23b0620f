/**
 * Round trips through PeerNet between two processes: a lock request answered by a grant, 1 and 128 in flight, TLS and plain,
 * next to a raw echo of as many bytes over the same kind of socket in the same run. Run: `node dist/bench/peer-echo.js`.
 */
import { type ChildProcess, fork } from 'node:child_process';
import { once } from 'node:events';
import { createServer, connect as tcpConnect } from 'node:net';
import { fileURLToPath } from 'node:url';
import { deriveTimeLimits } from '../src/membership/time-limits.js';
import { PeerNet } from '../src/node/peer-net.js';
import type { NodeId } from '../src/protocol/ids.js';
import type { LockMessage } from '../src/protocol/peer-messages.js';

const SECONDS = Number(process.env.SECONDS ?? 2);
const head = { dom: 1, dep: 7, ce: 7, cc: 12345 };

function makeNet(
  self: NodeId,
  ports: number[],
  tls: boolean,
  on: Partial<{ message(m: LockMessage): void; up(): void }>,
): PeerNet {
  return new PeerNet({
    self,
    incarnation: { bootId: 'b', machineId: 'm', startCount: 1, journalId: `j${self}` },
    nodes: ports.map((port, i) => ({ id: i + 1, name: `n${i + 1}`, host: '127.0.0.1', port })),
    listen: { host: '127.0.0.1', port: 0 },
    clusterName: 'bench',
    clusterKey: Buffer.from('bench key bench key bench key 32'),
    configSum: '',
    limits: deriveTimeLimits({}),
    tls,
    log: () => {},
    onMessage: (_from, m) => on.message?.(m as LockMessage),
    onUp: () => on.up?.(),
    onDown: () => {},
  });
}

/** The answering side, in a process of its own: node 1, or a raw echo. */
async function answer(kind: string): Promise<void> {
  if (kind === 'raw') {
    const server = createServer((s) => {
      s.setNoDelay(true);
      s.on('error', () => {});
      s.on('data', (b: Buffer) => s.write(b));
    });
    server.listen(0, '127.0.0.1', () => process.send?.((server.address() as { port: number }).port));
    return;
  }
  const net: PeerNet = makeNet(1, [1, 1], kind === 'tls', {
    message: (m) => {
      if (m.k === 'LockRequest') {
        net.send(2, { k: 'Grant', ...head, id: m.id, mode: m.mode, te: 7, tc: m.id, lvbState: 0, lvb: null });
      }
    },
  });
  const { port } = await net.listen();
  net.start();
  process.send?.(port);
}

interface Result {
  perSecond: number;
  /** Processor time of the asking process; says more than the clock on a busy machine. */
  cpuMicros: number;
  p50: number;
}

/** Keeps `inFlight` requests going; `send` starts number n, `next` is called for each answer. */
function measure(inFlight: number, send: (n: number) => void, hook: (next: () => void) => void): Promise<Result> {
  return new Promise((resolve) => {
    const started = new Float64Array(1 << 22);
    const times: number[] = [];
    let asked = 0;
    let answered = 0;
    let from = performance.now();
    let warm = false;
    let cpu = process.cpuUsage();
    const ask = (): void => {
      started[asked & (started.length - 1)] = performance.now();
      send(asked++);
    };
    hook(() => {
      const now = performance.now();
      if (warm && times.length < 1_000_000) times.push(now - (started[answered & (started.length - 1)] as number));
      answered++;
      if (!warm && now - from > 500) {
        warm = true;
        cpu = process.cpuUsage();
        from = now;
        asked -= answered;
        started.copyWithin(0, answered, answered + asked);
        answered = 0;
      }
      if (warm && now - from > SECONDS * 1000) {
        hook(() => {});
        const { user, system } = process.cpuUsage(cpu);
        times.sort((a, b) => a - b);
        resolve({
          perSecond: (answered / (now - from)) * 1000,
          cpuMicros: (user + system) / answered,
          p50: (times[times.length >> 1] as number) * 1000,
        });
        return;
      }
      ask();
    });
    for (let i = 0; i < inFlight; i++) ask();
  });
}

async function peer(port: number, tls: boolean, inFlight: number): Promise<Result> {
  let next: () => void = () => {};
  let up: () => void = () => {};
  const isUp = new Promise<void>((resolve) => {
    up = resolve;
  });
  const net = makeNet(2, [port, 1], tls, { message: () => next(), up: () => up() });
  await net.listen();
  net.start();
  await isUp;
  const result = await measure(
    inFlight,
    (n) =>
      net.send(1, {
        k: 'LockRequest',
        ...head,
        name: `job/${n & 1023}`,
        id: n,
        mode: 2,
        flags: 0,
        se: 7,
        sc: n,
        who: 'n2:1',
        why: '',
      }),
    (call) => {
      next = call;
    },
  );
  await net.close();
  return result;
}

async function raw(port: number, inFlight: number): Promise<Result> {
  const socket = tcpConnect({ host: '127.0.0.1', port });
  socket.setNoDelay(true);
  await once(socket, 'connect');
  const SIZE = 72;
  let next: () => void = () => {};
  let held = 0;
  let waiting = 0;
  socket.on('data', (b: Buffer) => {
    held += b.length;
    for (; held >= SIZE; held -= SIZE) next();
  });
  const frame = Buffer.alloc(SIZE, 1);
  const many = Buffer.alloc(SIZE * 1024, 1);
  const result = await measure(
    inFlight,
    () => {
      if (waiting++ > 0) return;
      setImmediate(() => {
        socket.write(waiting === 1 ? frame : many.subarray(0, SIZE * waiting));
        waiting = 0;
      });
    },
    (call) => {
      next = call;
    },
  );
  socket.destroy();
  return result;
}

async function main(): Promise<void> {
  const me = fileURLToPath(import.meta.url);
  for (const inFlight of [1, 128]) {
    for (const kind of ['raw', 'plain', 'tls']) {
      const child: ChildProcess = fork(me, [kind]);
      try {
        const [port] = (await once(child, 'message')) as [number];
        const r = kind === 'raw' ? await raw(port, inFlight) : await peer(port, kind === 'tls', inFlight);
        console.log(
          `${kind.padEnd(6)} ${String(inFlight).padStart(4)} in flight: ${r.perSecond.toFixed(0).padStart(8)}/s  p50 ${r.p50.toFixed(0)} us  cpu ${r.cpuMicros.toFixed(2)} us`,
        );
      } finally {
        child.kill();
      }
    }
  }
}

const kind = process.argv[2];
await (kind === undefined ? main() : answer(kind));
