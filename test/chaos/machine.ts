/**
 * One machine of the run: a network namespace with a daemon and some clients in it, a boot id, and a power switch.
 *
 * The switch is a shell script, so that it serves as fence method too: it marks the machine as off, kills whatever is in the
 * namespace until nothing is, and gives it a new boot id. What is started looks for the mark after it is inside, so a
 * machine that is off stays off until `powerOn`.
 */
import { type ChildProcess, spawn, spawnSync } from 'node:child_process';
import { randomUUID } from 'node:crypto';
import { closeSync, existsSync, mkdirSync, openSync, readFileSync, writeFileSync } from 'node:fs';
import { uptime } from 'node:os';
import { join } from 'node:path';
import { setTimeout as pause } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { connect, monotonicMs } from '../../src/client/index.js';
import { TSDLMD } from '../fixtures/cluster.js';
import type { Net } from './net.js';

const CLIENT = fileURLToPath(new URL('./client.js', import.meta.url));
/** Library of libfaketime for programs with threads. */
const FAKETIME = [
  '/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1',
  '/usr/lib/aarch64-linux-gnu/faketime/libfaketimeMT.so.1',
  '/usr/lib/faketime/libfaketimeMT.so.1',
].find((path) => existsSync(path));
export const hasFaketime = FAKETIME !== undefined;

/** `power.sh NAMESPACE DIR off`: exit code 0 when nothing runs there any more. */
export const POWER_SCRIPT = `#!/bin/sh
ns=$1 dir=$2
exec 9> "$dir/power"
flock 9
read -r up rest < /proc/uptime
echo "$up" >> "$dir/off"
empty=0
while [ $empty -lt 2 ]; do
  pids=$(ip netns pids "$ns") || exit 1
  if [ -z "$pids" ]; then empty=$((empty + 1)); else empty=0; kill -9 $pids 2>/dev/null; fi
done
cat /proc/sys/kernel/random/uuid > "$dir/boot-id"
`;
/** Starts a program inside, unless the machine is off. */
const START_SCRIPT = 'test -e "$0" && exit 111; exec "$@"';
/** The shell reads time since boot; a machine that was ever suspended is ahead there by so much (in steps of 10 ms). */
const SLEPT_MS = Math.max(0, Math.floor((uptime() * 1000 - monotonicMs()) / 100) * 100);
export const EXIT_IS_OFF = 111;

export interface MachineSetup {
  id: number;
  dir: string;
  net: Net;
  config: string;
  clients: number;
  names: readonly string[];
  seed: number;
  /** An end that nobody here caused. */
  onSurprise(text: string): void;
}

export class Machine {
  readonly id: number;
  readonly name: string;
  readonly dir: string;
  readonly socket: string;
  daemon: ChildProcess | null = null;
  readonly clients: (ChildProcess | null)[];
  /** A fault has it in its hands. */
  isBusy = false;
  readonly #s: MachineSetup;
  readonly #expected = new Set<ChildProcess>();
  readonly #ids = new Map<ChildProcess, string>();
  readonly #leftAt: number[] = [];
  #runs = 0;

  constructor(setup: MachineSetup) {
    this.#s = setup;
    this.id = setup.id;
    this.name = `n${setup.id}`;
    this.dir = setup.dir;
    this.socket = join(setup.dir, 'sock');
    this.clients = Array.from({ length: setup.clients }, () => null);
    mkdirSync(setup.dir, { recursive: true, mode: 0o700 });
    writeFileSync(join(setup.dir, 'tsdlm.conf'), setup.config, { mode: 0o600 });
    writeFileSync(join(setup.dir, 'boot-id'), `${randomUUID()}\n`);
    writeFileSync(join(setup.dir, 'faketime'), '+0\n');
  }

  get isOff(): boolean {
    return existsSync(join(this.dir, 'off'));
  }

  /**
   * Times, on CLOCK_MONOTONIC in milliseconds, at which the machine's own locks ended: somebody began to switch it off, or its
   * daemon was told to leave (rule 23).
   */
  endTimes(): number[] {
    const times = (name: string): number[] => {
      try {
        return readFileSync(join(this.dir, name), 'utf8')
          .trim()
          .split('\n')
          .map((line) => Number(line) * 1000 - SLEPT_MS);
      } catch {
        return [];
      }
    };
    return [...this.#leftAt, ...times('off-log'), ...times('off')].sort((a, b) => a - b);
  }

  get #namespace(): string {
    return this.#s.net.namespace(this.id);
  }

  #spawn(program: string[], log: string, env: NodeJS.ProcessEnv, input: 'pipe' | 'ignore'): ChildProcess {
    const fd = openSync(join(this.dir, log), 'a');
    const args = ['netns', 'exec', this.#namespace, 'sh', '-c', START_SCRIPT, join(this.dir, 'off'), ...program];
    const child = spawn('ip', args, { stdio: [input, fd, fd], env: { ...process.env, ...env } });
    closeSync(fd);
    return child;
  }

  startDaemon(): void {
    if (this.daemon || this.isOff) return;
    const fake =
      FAKETIME === undefined
        ? {}
        : {
            LD_PRELOAD: FAKETIME,
            FAKETIME_TIMESTAMP_FILE: join(this.dir, 'faketime'),
            FAKETIME_DONT_FAKE_MONOTONIC: '1',
            FAKETIME_CACHE_DURATION: '1',
          };
    const program = [process.execPath, '--enable-source-maps', TSDLMD, '--config', join(this.dir, 'tsdlm.conf')];
    const child = this.#spawn(program, 'daemon.log', fake, 'ignore');
    this.daemon = child;
    this.#watch(child, 'the daemon', () => {
      if (this.daemon === child) this.daemon = null;
    });
  }

  startClient(at: number): void {
    if (this.clients[at] || this.isOff) return;
    const { names, seed, dir } = this.#s;
    const id = `${this.id}-${at}-${++this.#runs}`;
    const program = [process.execPath, '--enable-source-maps', CLIENT, this.socket, join(dir, '..', 'files'), id];
    const child = this.#spawn(
      [...program, String(seed * 1000 + this.id * 100 + this.#runs), ...names],
      'clients.log',
      {},
      'pipe',
    );
    child.stdin?.on('error', () => undefined);
    this.clients[at] = child;
    this.#ids.set(child, id);
    this.#watch(child, `client ${id}`, () => {
      if (this.clients[at] === child) this.clients[at] = null;
    });
  }

  #watch(child: ChildProcess, what: string, onExit: () => void): void {
    child.once('exit', (code, signal) => {
      onExit();
      const isExpected = this.#expected.delete(child) || this.isOff || code === EXIT_IS_OFF;
      if (!isExpected) this.#s.onSurprise(`${what} of ${this.name} ended by itself: ${signal ?? `exit code ${code}`}`);
    });
  }

  start(): void {
    this.startDaemon();
    for (let i = 0; i < this.clients.length; i++) this.startClient(i);
  }

  /** The end of one process, which is caused here. */
  end(child: ChildProcess | null, signal: NodeJS.Signals): Promise<number | null> {
    if (!child || child.exitCode !== null || child.signalCode !== null) return Promise.resolve(child?.exitCode ?? null);
    this.#expected.add(child);
    if (signal === 'SIGTERM' && child === this.daemon) this.#leftAt.push(monotonicMs());
    return new Promise((resolve) => {
      child.once('exit', (code) => resolve(code));
      child.kill(signal);
    });
  }

  /** A clean restart (rule 23): the daemon hands over, tells owners their deadline and ends. False when it had to be killed. */
  async askRestart(limitMs: number): Promise<boolean> {
    const { daemon } = this;
    if (!daemon || daemon.exitCode !== null || daemon.signalCode !== null) return true;
    this.#expected.add(daemon);
    const ended = new Promise<boolean>((resolve) => daemon.once('exit', () => resolve(true)));
    try {
      const client = await connect({ socket: this.socket, label: 'chaos', reconnect: false, connectTimeout: 1000 });
      // Whatever it answers, its end is what counts.
      await Promise.race([client.admin('restart').catch(() => null), ended]);
      client.connection.destroy();
    } catch {
      // It is just starting, or going.
    }
    if (await Promise.race([ended, pause(limitMs, false, { ref: false })])) return true;
    daemon.kill('SIGKILL');
    await ended;
    return false;
  }

  /** What a client calls itself in its records. */
  clientId(client: ChildProcess): string {
    return this.#ids.get(client) ?? '';
  }

  /** All that run here. */
  get processes(): ChildProcess[] {
    return [this.daemon, ...this.clients].filter((child) => child !== null);
  }

  signal(child: ChildProcess | null, signal: NodeJS.Signals): void {
    if (child && child.exitCode === null && child.signalCode === null) child.kill(signal);
  }

  /** A reset: everything is gone at once. Stays off until powerOn. */
  powerOff(script: string): void {
    const result = spawnSync(script, [this.#namespace, this.dir], { stdio: 'ignore' });
    if (result.status !== 0) this.#s.onSurprise(`${this.name} could not be switched off: ${result.status}`);
  }

  /** Waits for a switch that is still being thrown, so that it does not hit what is started now. */
  powerOn(): void {
    const off = join(this.dir, 'off');
    const result = spawnSync('flock', [join(this.dir, 'power'), 'sh', '-c', 'cat "$0" >> "$0-log" && rm "$0"', off]);
    if (result.status !== 0) this.#s.onSurprise(`${this.name} could not be switched on: ${result.status}`);
    // They are gone, even if this process has not been told yet.
    for (const child of this.processes) this.#expected.add(child);
    this.daemon = null;
    this.clients.fill(null);
    this.start();
  }

  /** Moves the daemon's wall clock by so many seconds against the true one. */
  setClock(seconds: number): void {
    writeFileSync(join(this.dir, 'faketime'), `${seconds >= 0 ? '+' : ''}${seconds}\n`);
  }

  log(): string {
    try {
      return readFileSync(join(this.dir, 'daemon.log'), 'utf8');
    } catch {
      return '';
    }
  }
}
