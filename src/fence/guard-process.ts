/**
 * The helper that ends the machine when the daemon cannot: a process of its own, so that a daemon that was killed, stopped or is stuck
 * does not take it along. It is told deadlines over a socket in the state directory, and acts when one has passed. A daemon that
 * starts anew finds it there and goes on keeping it alive. It ends only by "V", which a daemon says after a clean leave.
 *
 * Deadlines are on CLOCK_BOOTTIME, which goes on while the machine is suspended, and were made before they were sent: one that waited
 * in a stopped process is worth nothing more.
 */
import { spawn } from 'node:child_process';
import { rmSync, writeFileSync } from 'node:fs';
import { connect, createServer, type Socket } from 'node:net';
import { uptime } from 'node:os';
import { type GuardOrder, greetingOf } from './guard-order.js';

const LOOK_MS = 100;
/** A machine that did not end is ended again. */
const AGAIN_MS = 10_000;
const LINE_CHARS_MAX = 100;

const order = JSON.parse(process.argv[2] ?? '{}') as GuardOrder;
const boottimeMs = (): number => uptime() * 1000;
let deadline = boottimeMs() + order.timeoutMs;
let hasActed = false;

function say(level: number, event: string, data: Record<string, unknown>): void {
  const line = JSON.stringify({ level, time: new Date().toISOString(), event, pid: process.pid, ...data });
  process.stderr.write(`${line}\n`);
}

function act(why: string): void {
  const { method, trigger, command } = order;
  say(50, 'self-end', { method, why });
  if (!hasActed) setInterval(() => act('it still runs'), AGAIN_MS);
  hasActed = true;
  try {
    if (method === 'sysrq') {
      writeFileSync(trigger, 'b');
      return;
    }
    const [program = '', ...args] = command;
    spawn(program, args, { detached: true, stdio: 'ignore' })
      .on('error', (error) => say(50, 'self-end-failed', { error: error.message }))
      .unref();
  } catch (error) {
    say(50, 'self-end-failed', { error: (error as Error).message });
  }
}

function onLine(line: string): void {
  if (line === 'V') {
    rmSync(order.socket, { force: true });
    process.exit(0);
  }
  if (line === 'E') act('the daemon asks for it');
  const until = /^K(\d+)$/.exec(line)?.[1];
  if (until !== undefined && !hasActed) deadline = Math.max(deadline, Math.min(Number(until), boottimeMs() + order.timeoutMs));
}

function serve(socket: Socket): void {
  let rest = '';
  socket.setEncoding('utf8');
  socket.on('error', () => undefined);
  socket.on('data', (chunk: string) => {
    const lines = (rest + chunk).split('\n');
    rest = (lines.pop() ?? '').slice(-LINE_CHARS_MAX);
    for (const line of lines) onLine(line);
  });
  socket.write(`${greetingOf(order)}\n`);
}

for (const signal of ['SIGTERM', 'SIGINT', 'SIGHUP', 'SIGPIPE'] as const) process.on(signal, () => undefined);
process.stderr.on('error', () => undefined);
try {
  writeFileSync('/proc/self/oom_score_adj', '-1000');
} catch {
  // Not root: the kernel may choose it when memory runs out.
}
// One guard per state directory: whoever answers there already is it.
const other = connect(order.socket);
other.once('connect', () => process.exit(3));
other.once('error', () => {
  rmSync(order.socket, { force: true });
  createServer(serve)
    .on('error', (error) => {
      say(50, 'self-end-failed', { error: error.message });
      process.exit(1);
    })
    .listen(order.socket, () => say(30, 'guard-started', { method: order.method, timeoutMs: order.timeoutMs }));
  setInterval(() => {
    if (!hasActed && boottimeMs() >= deadline) act('it was not kept alive');
  }, LOOK_MS);
});
