/**
 * One simulated cluster: nodes, network, disks, fence device, workload, faults and checkers under one virtual clock.
 *
 * A run has three parts. *Load*: sessions work and faults happen. *Heal*: every fault ends, dead nodes start, nothing new is
 * asked for and owners release; every request must end (L1, L2). *Probe*: a fresh owner on every node must get EX on every
 * name. The first broken promise ends the run. One seed decides everything.
 */
import type { CoreApi, CoreInit, CoreOutput } from '../../src/core/types.js';
import type { NodeConfig } from '../../src/membership/types.js';
import { EX } from '../../src/protocol/modes.js';
import { FenceChecker } from './check-fence.js';
import { HoldChecker } from './check-holds.js';
import { LogChecker } from './check-log.js';
import { MasterChecker } from './check-master.js';
import { QuorumChecker } from './check-quorum.js';
import { EventQueue } from './event-queue.js';
import { Faults } from './faults.js';
import { Fencer } from './fencer.js';
import { Network } from './network.js';
import { SimNode } from './node.js';
import { Operator } from './operator.js';
import { type FaultKind, LIMITS, type SimOptions } from './options.js';
import type { Owned } from './owners.js';
import { Prng } from './prng.js';
import { hasSomeQuorum, TableOperator } from './table.js';
import { Trace } from './trace.js';
import { Votes } from './votes.js';

export type CoreFactory = (init: CoreInit, out: CoreOutput) => CoreApi;

export interface WorldSetup {
  options: SimOptions;
  makeCore: CoreFactory;
  /** Gets each trace line as text. */
  print?: (line: string) => void;
  /** Changes the world before it starts (planted bugs). */
  prepare?: (world: World) => void;
  /** What a core believes to master, as "domain number@domain epoch/name". */
  mastersOf?: (core: CoreApi) => string[];
}

export class World {
  readonly options: SimOptions;
  readonly makeCore: CoreFactory;
  readonly mastersOf: (core: CoreApi) => string[];
  readonly queue = new EventQueue();
  readonly trace = new Trace();
  readonly netRandom: Prng;
  readonly faultRandom: Prng;
  readonly nodes: SimNode[] = [];
  readonly configs: NodeConfig[] = [];
  readonly network: Network;
  readonly fencer: Fencer;
  readonly fenceCheck: FenceChecker;
  readonly faults: Faults;
  readonly holdCheck: HoldChecker;
  readonly logCheck: LogChecker;
  readonly quorumCheck: QuorumChecker;
  readonly masterCheck: MasterChecker;
  /** Engine tuning given to every core. */
  tuning: Record<string, number> | null = null;
  isLoading = true;
  isHealing = false;
  failure: string | null = null;
  readonly counts = new Map<string, number>();
  readonly faultCounts = new Map<FaultKind, number>();
  events = 0;
  #lives = 0;
  #values = 0;
  #fresh = 0;
  #epochSeen = 0;
  #isProbing = false;

  constructor(setup: WorldSetup) {
    const { options } = setup;
    this.options = options;
    this.makeCore = setup.makeCore;
    this.mastersOf = setup.mastersOf ?? (() => []);
    if (setup.print) this.trace.print = setup.print;
    this.netRandom = new Prng(options.seed, 2);
    this.faultRandom = new Prng(options.seed, 3);
    const fail = (text: string): void => this.fail(text);
    this.holdCheck = new HoldChecker(fail);
    this.logCheck = new LogChecker(fail);
    const voters = Array.from({ length: options.voters }, (_, i) => i + 1);
    const longest = options.tableEveryMs > 0 ? Math.max(options.limits.leaseMs, LIMITS.leaseMs) : options.limits.leaseMs;
    this.quorumCheck = new QuorumChecker(longest, voters, fail);
    if (options.tableEveryMs > 0) this.quorumCheck.hasOtherQuorum = (ids) => hasSomeQuorum(this, ids);
    this.quorumCheck.pair.changed = () => this.topologyChanged();
    this.quorumCheck.pair.lifeOf = (id) => this.node(id).life?.uid ?? 0;
    this.masterCheck = new MasterChecker(fail);
    this.network = new Network(this);
    this.fencer = new Fencer(this);
    this.fenceCheck = new FenceChecker(this, fail);
    this.faults = new Faults(this);
    const { sliceOps, registerBatch, registerWindow } = options;
    this.tuning = { purgeDelayMs: options.purgeMs, sliceOps, registerBatch, registerWindow };
    for (let id = 1; id <= options.nodes; id++) {
      const fenceDelay = options.fenceDelays[id - 1];
      const witness = options.hasWitness && id === options.voters;
      const fence = witness ? [['self']] : options.fence;
      const config = { id, name: `n${id}`, voter: id <= options.voters, witness, fence };
      this.configs.push(fenceDelay === undefined ? config : { ...config, fenceDelay });
    }
    for (const config of this.configs) this.nodes.push(new SimNode(this, config, options.drift));
    for (let id = options.nodes + 1; id <= options.nodes + options.spares; id++) {
      const spare = new SimNode(this, { id, name: `n${id}`, voter: false, fence: options.fence }, options.drift);
      spare.isSpare = true;
      this.nodes.push(spare);
    }
    for (const a of this.nodes) for (const b of this.nodes) if (a.id < b.id) this.network.addPair(a, b);
    setup.prepare?.(this);
  }

  // --- The run -----------------------------------------------------------------------------------------------------------

  /** Runs to the end, or to the first broken promise. True when all held. */
  run(): boolean {
    const { options, queue } = this;
    for (const n of this.nodes) if (!n.isSpare) queue.after(this.faultRandom.exp(30), () => n.start());
    this.faults.begin();
    new Operator(this).begin();
    new Votes(this).begin();
    new TableOperator(this).begin();
    this.#sampleMasters();
    this.runFor(options.calmMs + options.faultPhaseMs);
    return this.finish();
  }

  /** Heals, waits until nothing is open and every node is a member, and locks every name once more from every node. */
  finish(): boolean {
    const { options } = this;
    if (this.failure) return false;
    this.heal();
    if (!this.runUntil(() => this.isIdle, options.healMs)) {
      this.fail(`L1: after ${options.healMs} ms of a healed network\n${this.#whatWaits()}`);
    }
    if (this.failure) return false;
    this.#probe();
    return this.failure === null;
  }

  /** Lets `ms` of virtual time pass. */
  runFor(ms: number): void {
    const end = this.queue.now + ms;
    while (this.failure === null && this.queue.step(end)) this.events++;
    if (this.failure === null) this.queue.now = end;
  }

  /** Runs until `done` (asked every 50 ms of virtual time) or the limit; false when the limit came first. */
  runUntil(done: () => boolean, limitMs: number): boolean {
    const end = this.queue.now + limitMs;
    while (this.failure === null && this.queue.now < end) {
      if (done()) return true;
      this.runFor(50);
    }
    return done();
  }

  heal(): void {
    this.isLoading = false;
    this.isHealing = true;
    this.trace.add(this.queue.now, 0, 'heal');
    this.faults.heal();
    this.fencer.isHealed = true;
    for (const n of this.nodes) n.isGone = false;
    for (const n of this.nodes) n.wake();
    for (const n of this.nodes) if (!n.life) this.bootLater(n, 100);
    this.#drain();
  }

  /** Owners let go of everything, again and again: some of it comes back with a restart. */
  #drain(): void {
    for (const n of this.nodes) {
      const { life } = n;
      if (life) n.input(life, () => n.owners.releaseAll());
    }
    if (!this.#isProbing) this.queue.after(200, () => this.#drain());
  }

  isMember(node: number): boolean {
    const { life } = this.node(node);
    return life?.core.isMember === true && life.isMember;
  }

  /** Every node is a running member and no request is open. */
  get isIdle(): boolean {
    return this.nodes.every(
      (n) =>
        n.isRetired ||
        (n.life && !n.life.isStopping && !n.isPaused && n.life.core.isMember && n.life.isMember && n.owners.all.size === 0),
    );
  }

  /** One master per resource and domain epoch, looked at from time to time. */
  #sampleMasters(): void {
    this.queue.after(150, () => {
      const beliefs = [];
      for (const n of this.nodes) if (n.life) beliefs.push({ node: n.id, masters: this.mastersOf(n.life.core) });
      this.masterCheck.sample(beliefs);
      this.#sampleMasters();
    });
  }

  /** L1/L2: a fresh owner of every node gets EX on every name, one after the other. */
  #probe(): void {
    this.#isProbing = true;
    this.trace.add(this.queue.now, 0, 'probe');
    const names = this.faultRandom.shuffle([...this.holdCheck.names]).slice(0, 6);
    names.push('default/never-seen');
    const lockers = this.nodes.filter((n) => !n.isRetired && n.config.witness !== true);
    const probes = lockers.map((node) => ({ node, next: 0, lock: null as Owned | null, isGranted: false }));
    const advance = (): boolean => {
      for (const p of probes) {
        if (p.lock && p.lock.phase !== 'gone') continue;
        if (p.isGranted) p.next++;
        p.isGranted = false;
        p.lock = null;
        const name = names[p.next];
        const { life } = p.node;
        if (name === undefined || !life || life.isStopping) continue;
        const at = name.indexOf('/');
        p.lock = p.node.owners.lock(life, {
          session: null,
          domain: name.slice(0, at),
          name: name.slice(at + 1),
          mode: EX,
          isTry: false,
          nodeOwned: false,
          usesLvb: false,
          deadline: 0,
          onOutcome: (ok) => {
            p.isGranted = ok;
            const { lock } = p;
            if (ok && lock) p.node.input(life, () => p.node.owners.release(lock));
          },
        });
      }
      return probes.every((p) => p.next >= names.length) && this.isIdle;
    };
    if (!this.runUntil(advance, this.options.healMs)) {
      this.fail(`L1: the final locks of all names do not come through\n${this.#whatWaits()}`);
    }
  }

  // --- Services ----------------------------------------------------------------------------------------------------------

  node(id: number): SimNode {
    return this.nodes[id - 1] as SimNode;
  }

  nextLife(): number {
    return ++this.#lives;
  }

  nextValue(): number {
    return ++this.#values;
  }

  /** The first failure counts. */
  fail(text: string): void {
    if (this.failure === null) {
      this.failure = text;
      this.trace.add(this.queue.now, 0, 'FAILURE', text.split('\n', 1)[0] ?? '');
    }
  }

  count(what: string): void {
    this.counts.set(what, (this.counts.get(what) ?? 0) + 1);
  }

  fault(kind: FaultKind): void {
    this.trace.add(this.queue.now, 0, 'fault', kind);
    this.faultCounts.set(kind, (this.faultCounts.get(kind) ?? 0) + 1);
  }

  noted(node: number, level: string, event: string): void {
    this.trace.add(this.queue.now, node, 'note', level, event);
    this.count(`note ${event}`);
  }

  /** Some node has applied the view of this epoch: for the value blocks, masters may have gone. */
  viewSeen(epoch: number): void {
    if (epoch <= this.#epochSeen) return;
    this.#epochSeen = epoch;
    this.holdCheck.viewChanged(this.queue.now);
  }

  topologyChanged(): void {
    if (this.nodes.length < this.options.nodes + this.options.spares) return;
    this.quorumCheck.topologyChanged(this.nodes, (a, b) => this.network.isOpen(a, b), this.queue.now);
  }

  bootLater(node: SimNode, ms: number): void {
    this.queue.after(ms, () => node.start());
  }

  /** A clean stop by the operator, and a start some time later. */
  stopNode(node: SimNode): void {
    const { life } = node;
    if (!life || life.isStopping) return;
    life.isStopping = true;
    const { leaseMs } = this.options.limits;
    node.input(life, () => {
      node.call(life, (core, now) => core.stop(now));
      this.queue.after(this.faultRandom.exp(50), () => node.input(life, () => node.owners.releaseAll()));
      const again = (): void => {
        if (node.life !== life) return;
        node.input(life, () => node.owners.releaseAll());
        this.queue.after(200, again);
      };
      again();
    });
    // The service manager loses patience.
    this.queue.after(3 * leaseMs, () => {
      if (node.life === life) node.crash('stop took too long');
    });
    this.bootLater(node, 3 * leaseMs + this.faultRandom.exp(leaseMs));
  }

  /** A clean restart by the operator: usually in time, now and then too late. */
  restartNode(node: SimNode): void {
    const { life } = node;
    if (!life || life.isStopping || life.isFrozen) return;
    const { restartMs } = this.options;
    node.input(life, () => node.call(life, (core, now) => core.restart(now)));
    const comeBack = (): void => {
      if (node.life === life) {
        this.queue.after(20, comeBack);
        return;
      }
      const r = this.faultRandom;
      this.bootLater(node, r.chance(0.8) ? r.exp(restartMs / 6) : restartMs * r.between(0.5, 1.6));
    };
    // The service manager loses patience.
    this.queue.after(3 * this.options.limits.leaseMs, () => {
      if (node.life === life) node.crash('restart took too long');
    });
    comeBack();
  }

  /** A domain and name for one request: hot names, fresh ones, and some that were fresh a moment ago. */
  drawName(r: Prng): { domain: string; name: string } {
    const { domains, hotNames, hotShare } = this.options;
    const domain = r.pick(['default', 'second', 'third'].slice(0, domains));
    if (r.chance(hotShare)) return { domain, name: `hot${r.int(hotNames)}` };
    if (r.chance(0.3) && this.#fresh > 0) return { domain, name: `f${Math.max(1, this.#fresh - r.int(10))}` };
    return { domain, name: `f${++this.#fresh}` };
  }

  #whatWaits(): string {
    const lines: string[] = [];
    const now = this.queue.now;
    for (const n of this.nodes) {
      const state = !n.life ? 'no daemon' : n.isPaused ? 'paused' : n.life.core.isMember ? 'member' : 'no member';
      lines.push(`n${n.id}: ${state}`);
      for (const o of n.owners.all) {
        const id = o.local ? o.local.id % 2 ** 32 : 0;
        lines.push(
          `  ${o.key} ${o.nodeOwned ? 'node-owned ' : ''}${o.phase} want ${o.want} id ${id} since ${o.since.toFixed(3)}, holders now: ${this.holdCheck.holders(o.key, now).join(', ')}`,
        );
      }
    }
    for (const n of this.nodes) {
      if (!n.life) continue;
      lines.push(`dump of n${n.id}: ${JSON.stringify(n.life.core.dump()).slice(0, 20000)}`);
    }
    return lines.join('\n');
  }
}
