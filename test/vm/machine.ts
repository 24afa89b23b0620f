/**
 * One virtual machine: boots the test image under qemu, runs commands in it, and ends it.
 *
 * A command is a connection to the guest's agent (guest/agent.py): when this side closes it, the process is killed. qemu's
 * user networking accepts connections before the guest listens, so readiness is read from the console.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { rmSync, writeFileSync } from 'node:fs';
import { connect, createServer, type Socket } from 'node:net';
import { join } from 'node:path';
import { parts, QEMU } from './cache.js';
import { appLayer } from './image.js';

export interface MachineOptions {
  /** This machine's number in the o2cb cluster, from 1. */
  node?: number;
  /** Nodes of that cluster. */
  nodes?: number;
  /** Raw disk of the heartbeat, shared by the cluster's machines. */
  disk: string;
  initrd: string;
  /** More arguments of qemu: the second network card. */
  args?: string[];
  memoryMb?: number;
  /** Heartbeats missed until a node counts as dead (2 s each), and the network's idle time in milliseconds. */
  dead?: number;
  idleMs?: number;
}

/** Emulation is slow, and the machine may be busy. */
const BOOT_MS_MAX = 240_000;
const CONSOLE_KEPT = 60_000;

export interface Output {
  /** Exit code, or minus the number of the signal; null when the process was given up. */
  code: number | null;
  out: string;
  err: string;
}

/** Every machine that lives; what goes wrong must not leave one behind. */
const living = new Set<ChildProcess>();
const workFiles: string[] = [];
process.on('exit', () => {
  for (const child of living) child.kill('SIGKILL');
  for (const file of workFiles) rmSync(file, { force: true });
});
for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.on(signal, () => process.exit(1));

/** Heartbeat needs a disk, but no file system. */
export function makeDisk(file: string): string {
  writeFileSync(file, Buffer.alloc(1024 * 1024));
  return file;
}

/** The base and what was built here as one initramfs. */
export function makeInitrd(file: string): string {
  const p = parts();
  writeFileSync(file, appLayer(p.base));
  return file;
}

async function freePort(): Promise<number> {
  return new Promise((resolve, reject) => {
    const server = createServer();
    server.once('error', reject);
    server.listen(0, '127.0.0.1', () => {
      const address = server.address();
      server.close(() => resolve(typeof address === 'object' && address !== null ? address.port : 0));
    });
  });
}

export class Machine {
  readonly node: number;
  readonly #child: ChildProcess;
  readonly #port: number;
  #console = '';
  readonly #exited: Promise<void>;
  #isOver = false;
  readonly #processes = new Set<GuestProcess>();
  #onConsole: (() => void)[] = [];

  static async boot(options: MachineOptions): Promise<Machine> {
    const port = await freePort();
    const machine = new Machine(options, port);
    try {
      await machine.#until(/guest: agent/, BOOT_MS_MAX);
      return machine;
    } catch (error) {
      await machine.end();
      throw error;
    }
  }

  private constructor(o: MachineOptions, port: number) {
    this.node = o.node ?? 1;
    this.#port = port;
    const append = `console=ttyS0 quiet panic=-1 tsdlm.node=${this.node} tsdlm.nodes=${o.nodes ?? 1} tsdlm.dead=${o.dead ?? 7} tsdlm.idle=${o.idleMs ?? 10_000}`;
    this.#child = spawn(
      QEMU,
      [
        ...[
          '-accel',
          'tcg',
          '-m',
          String(o.memoryMb ?? 1280),
          '-nographic',
          '-no-reboot',
          '-nodefaults',
          '-serial',
          'stdio',
          '-monitor',
          'none',
        ],
        ...['-kernel', parts().kernel, '-initrd', o.initrd, '-append', append],
        ...[
          '-drive',
          `file=${o.disk},format=raw,if=none,id=hb,cache=none,file.locking=off`,
          '-device',
          'virtio-blk-pci,drive=hb,share-rw=on',
        ],
        ...['-netdev', `user,id=host,restrict=off,hostfwd=tcp:127.0.0.1:${port}-:5000`, '-device', 'virtio-net-pci,netdev=host'],
        ...(o.args ?? []),
      ],
      { stdio: ['ignore', 'pipe', 'pipe'] },
    );
    living.add(this.#child);
    const keep = (chunk: Buffer): void => {
      this.#console = (this.#console + chunk.toString('latin1')).slice(-CONSOLE_KEPT);
      if (process.env.TSDLM_VM_CONSOLE === '1') process.stderr.write(chunk);
      for (const look of this.#onConsole) look();
    };
    this.#child.stdout?.on('data', keep);
    this.#child.stderr?.on('data', keep);
    this.#exited = new Promise((resolve) => {
      const over = (): void => {
        this.#isOver = true;
        living.delete(this.#child);
        for (const look of this.#onConsole) look();
        resolve();
      };
      this.#child.once('exit', over);
      this.#child.once('error', over);
    });
  }

  /** What the guest's kernel and scripts have printed. */
  get console(): string {
    return this.#console;
  }

  async #until(pattern: RegExp, limitMs: number): Promise<void> {
    await new Promise<void>((resolve, reject) => {
      const fail = (why: string): void => {
        this.#onConsole = [];
        reject(new Error(`machine ${this.node}: ${why}; its console:\n${this.#console.slice(-3000)}`));
      };
      const timer = setTimeout(() => fail(`no ${pattern} within ${limitMs} ms`), limitMs);
      const look = (): void => {
        if (pattern.test(this.#console)) {
          clearTimeout(timer);
          this.#onConsole = [];
          resolve();
        } else if (this.#isOver) {
          clearTimeout(timer);
          fail('qemu has ended');
        }
      };
      this.#onConsole = [look];
      look();
    });
  }

  /** Starts a program in the guest. */
  start(argv: readonly string[], options: { env?: Record<string, string>; uid?: number } = {}): GuestProcess {
    // A case that goes on after its machine was ended must not wait for answers.
    if (this.#isOver) throw new Error(`machine ${this.node} has ended`);
    const p = new GuestProcess(connect(this.#port, '127.0.0.1'), { argv, env: options.env ?? {}, uid: options.uid ?? 0 });
    for (const other of this.#processes) if (other.isOver) this.#processes.delete(other);
    this.#processes.add(p);
    return p;
  }

  /** Ends what a case that failed has left running. */
  closeAllBut(kept: readonly (GuestProcess | null)[]): void {
    for (const p of this.#processes) if (!kept.includes(p)) p.close();
  }

  /** Runs a program to its end, or gives it up after `limitMs`. */
  async run(
    argv: readonly string[],
    limitMs = 120_000,
    options: { env?: Record<string, string>; uid?: number } = {},
  ): Promise<Output> {
    const p = this.start(argv, options);
    const result = await p.result(limitMs);
    p.close();
    return result;
  }

  /** Runs a line of shell; throws unless it exits 0. Returns what it printed. */
  async sh(line: string, limitMs = 120_000): Promise<string> {
    const r = await this.run(['sh', '-c', line], limitMs);
    if (r.code !== 0) throw new Error(`in machine ${this.node}: ${line}\nexit ${r.code}\n${r.out}${r.err}`);
    return r.out;
  }

  signal(signal: NodeJS.Signals): void {
    this.#child.kill(signal);
  }

  /** Pulls the plug. */
  async end(): Promise<void> {
    if (!this.#isOver) this.#child.kill('SIGKILL');
    await this.#exited;
  }

  /** Resolves when qemu has ended by itself: a node that fenced itself, under -no-reboot. */
  get ended(): Promise<void> {
    return this.#exited;
  }
}

export class GuestProcess {
  /** In the guest; 0 until it is known. */
  pid = 0;
  out = '';
  err = '';
  readonly #socket: Socket;
  #rest: Buffer = Buffer.alloc(0);
  #code: number | null | undefined = undefined;
  #watchers: (() => void)[] = [];

  constructor(socket: Socket, order: { argv: readonly string[]; env: Record<string, string>; uid: number }) {
    this.#socket = socket;
    socket.on('data', (chunk: Buffer) => this.#take(chunk));
    const over = (): void => {
      if (this.#code === undefined) this.#code = null;
      this.#look();
    };
    socket.on('error', over);
    socket.on('close', over);
    socket.write(`${JSON.stringify(order)}\n`);
  }

  #take(chunk: Buffer): void {
    this.#rest = Buffer.concat([this.#rest, chunk]);
    while (this.#rest.length >= 5) {
      const size = this.#rest.readUInt32LE(1);
      if (this.#rest.length < 5 + size) break;
      const kind = String.fromCharCode(this.#rest[0] ?? 0);
      const text = this.#rest.subarray(5, 5 + size).toString('utf8');
      this.#rest = this.#rest.subarray(5 + size);
      if (kind === 'o') this.out += text;
      else if (kind === 'e') this.err += text;
      else if (kind === 'p') this.pid = Number(text);
      else if (kind === 'x') this.#code = Number(text);
    }
    this.#look();
  }

  #look(): void {
    for (const watcher of this.#watchers) watcher();
  }

  get isOver(): boolean {
    return this.#code !== undefined;
  }

  write(text: string): void {
    const data = Buffer.from(text);
    const head = Buffer.alloc(4);
    head.writeUInt32LE(data.length);
    this.#socket.write(Buffer.concat([head, data]));
  }

  endInput(): void {
    this.#socket.write(Buffer.alloc(4));
  }

  /** Waits until `done` says so; false when the limit passed first. */
  async until(done: () => boolean, limitMs: number): Promise<boolean> {
    if (done()) return true;
    return new Promise((resolve) => {
      const finish = (value: boolean): void => {
        clearTimeout(timer);
        this.#watchers = this.#watchers.filter((w) => w !== watcher);
        resolve(value);
      };
      const timer = setTimeout(() => finish(false), limitMs);
      const watcher = (): void => {
        if (done()) finish(true);
        else if (this.isOver) finish(done());
      };
      this.#watchers.push(watcher);
    });
  }

  /** Waits for a line of output and returns the match. */
  async expect(pattern: RegExp, limitMs = 60_000): Promise<RegExpExecArray> {
    let match: RegExpExecArray | null = null;
    await this.until(() => {
      match = pattern.exec(this.out);
      return match !== null;
    }, limitMs);
    if (match === null)
      throw new Error(`no ${pattern} within ${limitMs} ms; stdout: ${this.out.slice(-2000)} stderr: ${this.err.slice(-2000)}`);
    return match;
  }

  async result(limitMs = 120_000): Promise<Output> {
    await this.until(() => this.isOver, limitMs);
    return { code: this.#code ?? null, out: this.out, err: this.err };
  }

  /** Ends the connection, and with it the process. */
  close(): void {
    this.#socket.destroy();
  }
}

/** A file of this run, gone with it. */
export function workFile(name: string): string {
  const file = join(parts().dir, `${name}-${process.pid}`);
  workFiles.push(file);
  return file;
}
