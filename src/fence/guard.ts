/**
 * The daemon's side of the helper that ends the machine (guard-process.ts): starts it when none answers, keeps it alive, and says
 * whether the others may count on it. Only `sysrq` counts: that a script has ended the machine nobody can verify.
 */
import { spawn } from 'node:child_process';
import { connect, type Socket } from 'node:net';
import { uptime } from 'node:os';
import { fileURLToPath } from 'node:url';
import { type GuardOrder, greetingOf } from './guard-order.js';
import { KEEP_ALIVES, type SelfEnd, type SelfEndConfig, type SelfEndLog } from './self-end.js';

const PROGRAM = fileURLToPath(new URL('./guard-process.js', import.meta.url));
const RETRY_MS = 500;
const DISARM_MS = 2000;

export class Guard implements SelfEnd {
  readonly #c: SelfEndConfig;
  readonly #order: GuardOrder;
  readonly #log: SelfEndLog;
  #socket: Socket | null = null;
  #isReady = false;
  #last = Number.NEGATIVE_INFINITY;
  #fault = '';
  #isEnding = false;

  /** `socket`: where the helper listens; in the state directory, so that only this user's daemons reach it. */
  constructor(config: SelfEndConfig, socket: string, log: SelfEndLog) {
    this.#c = config;
    const { trigger, command, timeoutMs, method } = config;
    this.#order = { socket, method: method === 'sysrq' ? 'sysrq' : 'script', trigger, command, timeoutMs };
    this.#log = log;
  }

  get armedMs(): number {
    return this.#isReady && this.#c.method === 'sysrq' ? this.#c.timeoutMs : 0;
  }

  keepAlive(): void {
    if (this.#isEnding) return;
    const now = performance.now();
    if (now - this.#last < (this.#isReady ? this.#c.timeoutMs / KEEP_ALIVES : RETRY_MS)) return;
    this.#last = now;
    if (this.#isReady) this.#say(this.#deadline());
    else if (this.#socket === null) this.#reach();
  }

  endNow(why: string): void {
    if (this.#isEnding) return;
    this.#isEnding = true;
    this.#log('error', 'self-end', { method: this.#c.method, why });
    this.#say('E');
  }

  async disarm(): Promise<void> {
    const socket = this.#socket;
    if (socket === null || !this.#isReady || this.#isEnding) return;
    this.#isEnding = true;
    socket.ref();
    await new Promise<void>((resolve) => {
      const timer = setTimeout(resolve, DISARM_MS);
      socket.once('close', () => {
        clearTimeout(timer);
        resolve();
      });
      this.#say('V');
    });
    this.#log('info', 'self-end-disarmed', { method: this.#c.method });
  }

  warnings(): string[] {
    return this.#fault === '' ? [] : [`this machine would not end itself: ${this.#fault}`];
  }

  #deadline(): string {
    return `K${Math.round(uptime() * 1000 + this.#c.timeoutMs)}`;
  }

  #say(line: string): void {
    this.#socket?.write(`${line}\n`);
  }

  #reach(): void {
    const socket = connect(this.#order.socket);
    this.#socket = socket;
    socket.setEncoding('utf8');
    socket.on('data', (said: string) => {
      if (this.#isReady) return;
      // One that another configuration has left behind would do something else.
      if (said.trim() !== greetingOf(this.#order)) {
        this.#say('V');
        return;
      }
      this.#isReady = true;
      this.#fault = '';
      this.#say(this.#deadline());
      const { method, timeoutMs } = this.#c;
      this.#log('warn', 'self-end-armed', { method, timeoutMs, counts: method === 'sysrq' });
    });
    socket.on('error', () => undefined);
    socket.once('close', () => {
      const wasReady = this.#isReady;
      this.#socket = null;
      this.#isReady = false;
      if (this.#isEnding) return;
      if (wasReady)
        this.#log('error', 'self-end-failed', { error: 'the helper that ends this machine is gone: starting another' });
      this.#fault = 'the helper that ends it does not run';
      this.#start();
    });
    socket.unref();
  }

  /** Not our child in more than name: it outlives us. */
  #start(): void {
    const child = spawn(process.execPath, [PROGRAM, JSON.stringify(this.#order)], {
      detached: true,
      stdio: ['ignore', 'ignore', 'inherit'],
      cwd: '/',
    });
    child.on('error', (error) => {
      this.#fault = `the helper that ends it does not start: ${error.message}`;
      this.#log('error', 'self-end-failed', { error: this.#fault });
    });
    child.unref();
  }
}
