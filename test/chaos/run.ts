/**
 * One chaos run: real daemons and clients on machines of their own network, random faults for a while, then everything is healed,
 * must come to an end, and is judged.
 */
import { appendFileSync, chmodSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as pause } from 'node:timers/promises';
import { connect, monotonicMs } from '../../src/client/index.js';
import type { StatusData } from '../../src/protocol/admin.js';
import { until } from '../fixtures/until.js';
import { Prng } from '../sim/prng.js';
import { type Judgement, judge } from './check.js';
import { drawKind, type FaultKind, perform } from './faults.js';
import { Machine, POWER_SCRIPT } from './machine.js';
import { Net, sweepLeftovers } from './net.js';
import { NodeOwned } from './node-owned.js';
import { counterText } from './records.js';

export interface ChaosOptions {
  seed: number;
  nodes: number;
  /** How long faults go on. */
  ms: number;
  fence: 'self' | 'script';
  clientsPerNode?: number;
  /** A line now and then about how it goes. */
  say?: (line: string) => void;
}

export interface ChaosResult extends Judgement {
  faults: Record<string, number>;
  rounds: number;
  /** Where the logs are; null once they were removed because nothing was wrong. */
  dir: string | null;
}

const LIMITS = { heartbeat_ms: 100, lease_ms: 1500 };
const NAMES = ['alpha', 'beta', 'gamma', 'delta'];
const FAULTS_AT_ONCE = 2;
/** For the whole cluster to come together again, and for all requests to be served, on a busy machine. */
const HEAL_MS = 60_000;

/** Two nodes that can end each other must not do so at the same moment (design rule 13). */
function delayOf(id: number, options: ChaosOptions): string {
  return options.nodes === 2 && options.fence === 'script' ? `fence_delay_base_ms = ${(id - 1) * 1500}\n` : '';
}

function configOf(id: number, dir: string, net: Net, options: ChaosOptions): string {
  const own = join(dir, `n${id}`);
  const fence = options.fence === 'script' ? 'fence = [["power"]]\n' : '';
  const nodes = Array.from(
    { length: options.nodes },
    (_, i) =>
      `[[nodes]]\nname = "n${i + 1}"\nid = ${i + 1}\nhost = "${net.address(i + 1)}"\nport = 7410\n${fence}${delayOf(i + 1, options)}\n`,
  );
  const tables =
    options.fence === 'script'
      ? `[fence.power]\ntype = "script"\ncommand = ["${join(dir, 'fence.sh')}"]\ntimeout_ms = 20000\n`
      : '';
  return [
    `cluster = "chaos"\nnode = "n${id}"\nkey = "0123456789abcdef0123456789abcdef"\n`,
    `state_dir = "${join(own, 'state')}"\nsocket = "${join(own, 'sock')}"\nboot_id_file = "${join(own, 'boot-id')}"\n`,
    `machine_id = "${String(id).padStart(32, '0')}"\nnever_paused = true\nrestart_limit_ms = 8000\nlog_level = "info"\n\n[limits]\n`,
    ...Object.entries(LIMITS).map(([key, value]) => `${key} = ${value}\n`),
    '\n',
    ...nodes,
    tables,
  ].join('');
}

export class ChaosRun {
  readonly dir = mkdtempSync(join(tmpdir(), 'tsdlm-chaos-'));
  readonly #o: ChaosOptions;
  readonly #files = join(this.dir, 'files');
  readonly #script = join(this.dir, 'power.sh');
  readonly #began = monotonicMs();
  readonly #faults: Record<string, number> = {};
  readonly #problems: string[] = [];
  #machines: Machine[] = [];
  #net: Net | null = null;
  /** Clients that were asked to end and did. */
  readonly #ended = new Set<string>();
  readonly #onExit = (): void => this.#destroy();

  constructor(options: ChaosOptions) {
    this.#o = options;
  }

  /** Rejects when the run itself could not be carried out; what it found stands in the result. Leaves nothing running. */
  async run(): Promise<ChaosResult> {
    process.once('exit', this.#onExit);
    let judgement: Judgement;
    try {
      for (const name of sweepLeftovers()) this.#note(`swept ${name}, left by a run that died`);
      await this.#start();
      const owned = this.#o.fence === 'script' ? new NodeOwned(this.#machines, (id) => new Prng(this.#o.seed, 1000 + id)) : null;
      await this.#trouble();
      await this.#heal(owned);
      judgement = judge(this.#files, NAMES, (client) => !this.#ended.has(client), owned?.holds ?? []);
    } finally {
      process.off('exit', this.#onExit);
      this.#destroy();
    }
    this.#problems.push(...judgement.problems, ...this.#readLogs());
    const left = this.#net?.left() ?? [];
    if (left.length > 0) this.#problems.push(`left behind: ${left.join(', ')}`);
    const rounds = Object.values(this.#faults).reduce((a, b) => a + b, 0);
    const isGood = this.#problems.length === 0;
    if (isGood) rmSync(this.dir, { recursive: true, force: true });
    return { ...judgement, problems: this.#problems, faults: this.#faults, rounds, dir: isGood ? null : this.dir };
  }

  #note(text: string): void {
    const line = `${new Date().toISOString()} +${((monotonicMs() - this.#began) / 1000).toFixed(3)} ${text}`;
    appendFileSync(join(this.dir, 'faults.log'), `${line}\n`);
  }

  #destroy(): void {
    this.#net?.destroy();
  }

  async #start(): Promise<void> {
    const { nodes, seed, clientsPerNode = 2 } = this.#o;
    const net = await Net.create(nodes);
    this.#net = net;
    mkdirSync(this.#files);
    for (const name of NAMES) writeFileSync(join(this.#files, name), counterText({ value: 0, token: 0n }));
    writeFileSync(this.#script, POWER_SCRIPT);
    const namespace = net.namespace(0).slice(0, -2);
    const fence = `#!/bin/sh\nexec ${this.#script} "${namespace}$TSDLM_FENCE_NODE" "${this.dir}/$TSDLM_FENCE_NODE"\n`;
    writeFileSync(join(this.dir, 'fence.sh'), fence);
    for (const file of [this.#script, join(this.dir, 'fence.sh')]) chmodSync(file, 0o755);
    this.#machines = Array.from({ length: nodes }, (_, i) => {
      const id = i + 1;
      return new Machine({
        id,
        dir: join(this.dir, `n${id}`),
        net,
        config: configOf(id, this.dir, net, this.#o),
        clients: clientsPerNode,
        names: NAMES,
        seed,
        onSurprise: (text) => {
          this.#note(`SURPRISE ${text}`);
          this.#problems.push(text);
        },
      });
    });
    for (const machine of this.#machines) machine.startDaemon();
    await this.#allIn();
    for (const machine of this.#machines) machine.start();
  }

  async #trouble(): Promise<void> {
    const { seed, ms, say } = this.#o;
    const end = monotonicMs() + ms;
    const random = new Prng(seed);
    const net = this.#net as Net;
    const running = new Set<Promise<void>>();
    let saidAt = monotonicMs();
    for (let round = 0; monotonicMs() < end; round++) {
      // Each fault draws from its own stream: how long another one took changes nothing.
      const own = new Prng(seed, 1 + round);
      const kind = drawKind(own);
      const c = {
        machines: this.#machines,
        net,
        random: own,
        leaseMs: LIMITS.lease_ms,
        script: this.#script,
        note: (text: string) => this.#note(`${round} ${text}`),
      };
      const fault = this.#fault(kind, perform(kind, c)).finally(() => running.delete(fault));
      running.add(fault);
      if (running.size >= FAULTS_AT_ONCE) await Promise.race(running);
      // Calm stretches between, in which the cluster comes together and there is much to break again.
      await pause(random.chance(0.2) ? random.between(2000, 6000) : random.between(0, 1500));
      this.#powerOn();
      if (monotonicMs() - saidAt > 30_000) {
        saidAt = monotonicMs();
        say?.(`${round + 1} faults, ${((end - saidAt) / 60_000).toFixed(1)} minutes to go, ${this.#problems.length} problems`);
      }
      if (this.#problems.length > 20) break;
    }
    await Promise.all(running);
  }

  async #fault(kind: FaultKind, done: Promise<boolean>): Promise<void> {
    if (await done) this.#faults[kind] = (this.#faults[kind] ?? 0) + 1;
  }

  /** Machines that the cluster switched off come back. */
  #powerOn(): void {
    for (const machine of this.#machines) {
      if (!machine.isOff || machine.isBusy) continue;
      this.#faults.fenced = (this.#faults.fenced ?? 0) + 1;
      this.#note(`${machine.name} was switched off by the cluster`);
      machine.powerOn();
    }
  }

  /** Every machine runs, and sees all others as members. */
  async #allIn(): Promise<void> {
    const isIn = async (machine: Machine): Promise<boolean> => {
      const client = await connect({ socket: machine.socket, label: 'chaos', reconnect: false, connectTimeout: 1000 });
      try {
        const status = (await client.admin('status')) as StatusData;
        return (
          status.isMember && status.members.length === this.#machines.length && status.members.every((m) => m.state === 'in')
        );
      } finally {
        client.connection.destroy();
      }
    };
    await until(
      'all machines are members again',
      async () => {
        this.#powerOn();
        for (const machine of this.#machines) if (!(await isIn(machine).catch(() => false))) return false;
        return true;
      },
      HEAL_MS,
    );
  }

  async #heal(owned: NodeOwned | null): Promise<void> {
    this.#note('healed');
    this.#powerOn();
    for (const machine of this.#machines) {
      machine.setClock(0);
      machine.start();
    }
    try {
      await this.#allIn();
    } catch (error) {
      this.#problems.push(String(error));
      return;
    }
    this.#note('all are in');
    // What waits now must be served without anybody's help.
    await pause(1000);
    await owned?.stop();
    const ends = this.#machines.flatMap((machine) =>
      machine.clients.map(async (client) => {
        if (client === null) return;
        const code = await Promise.race([machine.end(client, 'SIGTERM'), pause(HEAL_MS, 'late' as const, { ref: false })]);
        if (code === 0) this.#ended.add(machine.clientId(client));
        else
          this.#problems.push(`a client of ${machine.name} did not end: ${code === 'late' ? 'its request is not served' : code}`);
      }),
    );
    await Promise.all(ends);
    await this.#lockEverything();
    for (const machine of this.#machines) {
      const code = await Promise.race([machine.end(machine.daemon, 'SIGTERM'), pause(HEAL_MS, 'late' as const, { ref: false })]);
      if (code !== 0) this.#problems.push(`the daemon of ${machine.name} did not stop cleanly: ${code}`);
    }
  }

  async #lockEverything(): Promise<void> {
    for (const machine of this.#machines) {
      const client = await connect({ socket: machine.socket, label: 'chaos' });
      for (const name of NAMES) {
        try {
          await (await client.lock(name, 'EX', { timeout: 20_000 })).release();
        } catch (error) {
          this.#problems.push(`'${name}' cannot be locked on ${machine.name} at the end: ${String(error)}`);
        }
      }
      await client.close();
    }
  }

  /** What no daemon may log, whatever happens around it. */
  #readLogs(): string[] {
    const found: string[] = [];
    for (const machine of this.#machines) {
      for (const line of machine.log().split('\n')) {
        const isWrong =
          /"(fatal|state-dumped|log-diverged|journal-lost|journal-failed|append-malformed|snapshot-malformed)"/.test(line);
        const isCrash = line !== '' && !line.startsWith('{');
        if (isWrong || isCrash) found.push(`${machine.name} logged: ${line.slice(0, 500)}`);
      }
    }
    return found.slice(0, 20);
  }
}

/** One line for people and programs. */
export function resultLine(o: ChaosOptions, r: ChaosResult): string {
  const faults = Object.entries(r.faults)
    .sort(([a], [b]) => (a < b ? -1 : 1))
    .map(([kind, count]) => `${kind} ${count}`)
    .join(', ');
  return (
    `chaos seed ${o.seed}: ${o.nodes} nodes, fence ${o.fence}, ${(o.ms / 60_000).toFixed(1)} min, ${r.rounds} faults (${faults}), ` +
    `${r.grants} grants, ${r.acknowledged} increments acknowledged, ${r.unknown} unknown, ${r.late} late, ` +
    `longest gap ${Math.round(r.gapMs)} ms on '${r.gapName}': ${r.problems.length === 0 ? 'all promises kept' : `${r.problems.length} PROBLEMS`}`
  );
}

export function replayCommand(o: ChaosOptions): string {
  return `npm run chaos -- --seed ${o.seed} --nodes ${o.nodes} --fence ${o.fence} --minutes ${o.ms / 60_000}`;
}
