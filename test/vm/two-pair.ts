/**
 * Two machines in one o2cb cluster and one tsdlm cluster, with a bridged domain, and a witness on the host.
 *
 *   host    hub (the cluster's network), shared disk, tsdlmd w (votes, owns nothing)
 *   A, B    o2cb node 1 and 2, /dlm, tsdlmd a and b with  [domains.web] bridge = "/dlm"
 *
 * The guests reach the witness by their first card (10.0.2.2 is the host), and each other by the second.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { GUEST, REPO } from './cache.js';
import { APP } from './image.js';
import { type GuestProcess, Machine, makeDisk, makeInitrd, workFile } from './machine.js';
import { GuestClock, type Instant } from './two-clock.js';
import { Hub } from './two-hub.js';

/** An emulated daemon takes its time. */
export const PATIENCE_MS = 150_000;

export interface Times {
  /** o2cb: heartbeats missed until a node counts as dead, two seconds each, and the network's idle time. */
  dead: number;
  idleMs: number;
  /** tsdlm. */
  leaseMs: number;
}

export const TIMES: Times = { dead: 7, idleMs: 10_000, leaseMs: 10_000 };

type Name = 'a' | 'b';

/** Of tsdlmd in each guest. */
export const SOCKET = '/run/tsdlm.sock';

const NUMBER: Record<Name, number> = { a: 1, b: 2 };

function configText(machine: number, witnessPort: number, leaseMs: number): string {
  return `cluster = "two"
key = "0123456789abcdef0123456789abcdef"
machine_id = "${String(machine).repeat(32)}"
never_paused = true
${machine === 3 ? `listen = "127.0.0.1:${witnessPort}"` : ''}
limits = { heartbeat_ms = 1000, lease_ms = ${leaseMs}, suspect_ms = 5000, dead_ms = ${leaseMs}, election_ms = 2000 }
[domains.web]
bridge = "/dlm"
[[nodes]]
id = 1
name = "w"
host = "10.0.2.2"
port = ${witnessPort}
role = "witness"
[[nodes]]
id = 2
name = "a"
host = "10.1.0.1"
port = 7801
[[nodes]]
id = 3
name = "b"
host = "10.1.0.2"
port = 7801
`;
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

/** The witness, a daemon of this machine. */
class Witness {
  readonly #dir = mkdtempSync(join(tmpdir(), 'tsdlm-two-'));
  readonly #child: ChildProcess;
  readonly #over: Promise<void>;
  log = '';

  constructor(port: number, leaseMs: number) {
    const config = join(this.#dir, 'tsdlm.conf');
    writeFileSync(config, configText(3, port, leaseMs), { mode: 0o600 });
    this.#child = spawn(
      process.execPath,
      [
        join(REPO, 'dist/bin/tsdlmd.js'),
        ...['--config', config, '--node', 'w', '--state-dir', join(this.#dir, 'state'), '--socket', join(this.#dir, 's')],
      ],
      { stdio: ['ignore', 'ignore', 'pipe'] },
    );
    this.#child.stderr?.on('data', (chunk: Buffer) => {
      this.log = (this.log + chunk.toString()).slice(-60_000);
    });
    this.#over = new Promise((resolve) => {
      this.#child.once('exit', () => resolve());
      this.#child.once('error', () => resolve());
    });
    process.once('exit', () => {
      this.#child.kill('SIGKILL');
      rmSync(this.#dir, { recursive: true, force: true });
    });
  }

  async end(): Promise<void> {
    // It cannot leave: it may be the last of its cluster.
    this.#child.kill('SIGKILL');
    await this.#over;
    rmSync(this.#dir, { recursive: true, force: true });
  }
}

export interface Status {
  isMember: boolean;
  leaseLeftMs: number;
  bridge: { state: string; why: string; held: number } | null;
}

/** One of the two machines, and the tsdlmd in it. */
export class Node {
  readonly name: Name;
  readonly #pair: Pair;
  #machine: Machine | null = null;
  #clock: GuestClock | null = null;
  daemon: GuestProcess | null = null;

  constructor(pair: Pair, name: Name) {
    this.#pair = pair;
    this.name = name;
  }

  get machine(): Machine {
    if (this.#machine === null) throw new Error(`machine ${this.name} was never started`);
    return this.#machine;
  }
  /** What its kernel has printed, once it was started. */
  get console(): string {
    return this.#machine?.console ?? '';
  }
  get clock(): GuestClock {
    if (this.#clock === null) throw new Error(`machine ${this.name} was never started`);
    return this.#clock;
  }

  async boot(): Promise<void> {
    this.#machine = await this.#pair.boot(NUMBER[this.name]);
    this.#clock = await GuestClock.of(this.#machine);
    await this.#machine.sh('mkdir -p /dlm/web');
  }

  async start(): Promise<void> {
    const text = configText(NUMBER[this.name], this.#pair.witnessPort, this.#pair.times.leaseMs);
    await this.machine.sh(`cat >/root/tsdlm.conf <<'END'\n${text}END\nchmod 600 /root/tsdlm.conf`);
    this.daemon = this.machine.start([
      'tsdlmd',
      ...['--config', '/root/tsdlm.conf', '--node', this.name, '--state-dir', '/var/lib/tsdlm', '--socket', SOCKET],
    ]);
  }

  /** Null while no daemon answers. */
  async status(): Promise<Status | null> {
    const { out } = await this.machine.run(['tsdlm', '--socket', SOCKET, '--json', 'status']);
    return out === '' ? null : JSON.parse(out);
  }

  async until(what: string, isTrue: (status: Status | null) => boolean): Promise<void> {
    const end = Date.now() + PATIENCE_MS;
    let last: Status | null = null;
    while (Date.now() < end) {
      last = await this.status();
      if (isTrue(last)) return;
    }
    throw new Error(`${this.name} is not ${what}: ${JSON.stringify(last)}\n${this.daemon?.err.slice(-3000)}`);
  }

  async up(): Promise<void> {
    await this.until('up', (status) => status?.isMember === true && status.leaseLeftMs > 0 && status.bridge?.state === 'up');
  }

  /** A program on this node's /dlm. */
  async kernelUser(): Promise<User> {
    const text = readFileSync(join(GUEST, 'kernel-user.py'), 'utf8');
    return User.of(this, 'kernel', this.machine.start(['python3', '-c', text, '/dlm/web']));
  }

  /** A program on this node's tsdlmd. */
  async user(domain = 'web'): Promise<User> {
    return User.of(this, 'tsdlm', this.machine.start(['node', `${APP}/dist/test/vm/guest-user.js`, SOCKET, domain]));
  }

  /** What the daemon logged with a view in which `node` is in one of the states, first. */
  viewWith(node: Name, state: RegExp, after: number): Instant | null {
    for (const line of (this.daemon?.err ?? '').split('\n')) {
      const found = /"time":"([^"]+)".*"nodes":"([^"]*)"/.exec(line);
      if (found?.[1] === undefined || found[2] === undefined) continue;
      const own = found[2].split(' ').find((word) => word.startsWith(`${node}:`));
      if (own === undefined || !state.test(own)) continue;
      const instant = this.clock.hereWall(Date.parse(found[1]));
      if (instant.at > after) return instant;
    }
    return null;
  }

  /** Lines of the kernel's log of this node since `after`, on our clock. */
  async kernelLog(pattern: RegExp, after: number): Promise<{ at: number; text: string }[]> {
    const lines: { at: number; text: string }[] = [];
    for (const line of (await this.machine.sh('dmesg')).split('\n')) {
      const found = /^\[ *([\d.]+)\] (.*)$/.exec(line);
      if (found?.[2] === undefined || !pattern.test(found[2])) continue;
      const { at } = this.clock.here(Number(found[1]) * 1000);
      if (at > after) lines.push({ at, text: found[2] });
    }
    return lines;
  }
}

/** A program in a guest that takes and gives locks on orders, and says when. */
export class User {
  readonly node: Node;
  readonly kind: 'kernel' | 'tsdlm';
  readonly process: GuestProcess;
  #seen = 0;

  static async of(node: Node, kind: User['kind'], process: GuestProcess): Promise<User> {
    const user = new User(node, kind, process);
    await user.says(/^ready /, PATIENCE_MS);
    return user;
  }

  private constructor(node: Node, kind: User['kind'], process: GuestProcess) {
    this.node = node;
    this.kind = kind;
    this.process = process;
  }

  send(order: string): void {
    this.process.write(`${order}\n`);
  }

  /** Waits for the next line that matches, and skips the others. */
  async says(pattern: RegExp, limitMs = PATIENCE_MS): Promise<{ words: string[]; time: Instant }> {
    const end = performance.now() + limitMs;
    for (;;) {
      const left = end - performance.now();
      const hasLine = (): boolean => this.process.out.indexOf('\n', this.#seen) >= 0;
      if (!(await this.process.until(hasLine, Math.max(1, left))))
        throw new Error(
          `${this.node.name}: no ${pattern} within ${limitMs} ms; it said:\n${this.process.out.slice(-1500)}\n${this.process.err.slice(-1500)}`,
        );
      const to = this.process.out.indexOf('\n', this.#seen);
      const line = this.process.out.slice(this.#seen, to);
      this.#seen = to + 1;
      if (!pattern.test(line)) continue;
      const words = line.split(' ');
      return { words, time: this.node.clock.here(Number(words.at(-1))) };
    }
  }

  /** True when it has said so already or says so within the limit; the line is skipped. */
  async isSaying(pattern: RegExp, limitMs: number): Promise<boolean> {
    return this.says(pattern, limitMs).then(
      () => true,
      () => false,
    );
  }

  async open(name: string, mode: 'pr' | 'ex' = 'ex', more = ''): Promise<Instant> {
    this.ask(name, mode, more);
    return this.granted(name);
  }

  ask(name: string, mode: 'pr' | 'ex' = 'ex', more = ''): void {
    this.send(`open ${name} ${mode} ${more}`.trim());
  }

  async granted(name: string, limitMs = PATIENCE_MS): Promise<Instant> {
    const { words, time } = await this.says(new RegExp(`^(granted|failed) ${name} `), limitMs);
    if (words[0] === 'failed') throw new Error(`${this.node.name}: ${words.join(' ')}`);
    return time;
  }

  /** Tries; 'granted' or the error's name. What was granted is given back. */
  async tries(name: string, mode: 'pr' | 'ex' = 'ex'): Promise<string> {
    this.ask(name, mode, 'try');
    const { words } = await this.says(new RegExp(`^(granted|failed) ${name} `));
    if (words[0] === 'failed') return words[2] ?? '';
    await this.close(name);
    return 'granted';
  }

  async close(name: string): Promise<Instant> {
    this.send(`close ${name}`);
    return (await this.says(new RegExp(`^(closed|failed) ${name} `))).time;
  }

  /** Kernel users only: closes, and lets nothing stay with the node. */
  async drop(name: string): Promise<Instant> {
    this.send(`drop ${name}`);
    return (await this.says(new RegExp(`^(dropped|failed) ${name} `))).time;
  }

  end(): void {
    this.process.close();
  }
}

export class Pair {
  readonly a = new Node(this, 'a');
  readonly b = new Node(this, 'b');
  readonly times: Times;
  readonly hub: Hub;
  readonly witnessPort: number;
  readonly witness: Witness;
  readonly #disk = makeDisk(workFile('two-disk'));
  readonly #initrd = makeInitrd(workFile('two-initrd'));
  readonly #cards = new Map<number, string[]>();
  readonly #machines: Machine[] = [];

  static async start(times: Times): Promise<Pair> {
    const pair = new Pair(times, await Hub.open(), await freePort());
    try {
      await Promise.all([pair.a.boot(), pair.b.boot()]);
      return pair;
    } catch (error) {
      await pair.end();
      throw error;
    }
  }

  private constructor(times: Times, hub: Hub, witnessPort: number) {
    this.times = times;
    this.hub = hub;
    this.witnessPort = witnessPort;
    this.witness = new Witness(witnessPort, times.leaseMs);
  }

  async boot(node: number): Promise<Machine> {
    const args = this.#cards.get(node) ?? (await this.hub.card(node));
    this.#cards.set(node, args);
    const { dead, idleMs } = this.times;
    const machine = await Machine.boot({ node, nodes: 2, disk: this.#disk, initrd: this.#initrd, args, dead, idleMs });
    this.#machines.push(machine);
    return machine;
  }

  /** For a failure: what the guests and the daemons said last. */
  lastWords(): string {
    const words = [this.a, this.b].map(
      ({ name, daemon, console }) =>
        `-- machine ${name}\n${console.slice(-1000)}\n-- tsdlmd ${name}\n${daemon?.err.slice(-2500) ?? ''}`,
    );
    return [...words, `-- the witness\n${this.witness.log.slice(-1500)}`].join('\n');
  }

  async end(): Promise<void> {
    for (const machine of this.#machines) await machine.end();
    await this.witness.end();
    this.hub.close();
  }
}
