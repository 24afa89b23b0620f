/**
 * One simulated machine with one daemon on it: the host of a core, as src/node is in production.
 *
 * Everything reaches the core through {@link SimNode.input}: nothing while the daemon is dead, later and in a heap when it
 * is paused. Owners are on this machine's clock; what they were told of the lease is kept here, in real time.
 */
import type { CoreApi, CoreInit, CoreOutput } from '../../src/core/types.js';
import type { ClaimedLock, LocalLock } from '../../src/master/types.js';
import { longestLeaseMs } from '../../src/membership/limits-in-force.js';
import { RaftLog } from '../../src/membership/log.js';
import type { FenceRequest, NodeConfig, PersistedState, View } from '../../src/membership/types.js';
import { initialView } from '../../src/membership/view.js';
import { LogTail } from '../../src/membership/voter-set.js';
import type { Incarnation } from '../../src/protocol/ids.js';
import type { ToldLease } from './check-holds.js';
import { NodeDisk, type RestartRecord } from './disk.js';
import { deepFreeze } from './freeze.js';
import type { PeerEnd } from './network.js';
import { NodeOwners } from './owners.js';
import { Prng } from './prng.js';
import type { World } from './world.js';

/** One run of a daemon, from start to death. */
export interface Life {
  readonly uid: number;
  readonly node: SimNode;
  core: CoreApi;
  startCount: number;
  /** Holds told in the present incarnation. */
  lease: ToldLease;
  ends: Map<number, PeerEnd>;
  isStopping: boolean;
  isReincarnating: boolean;
  isMember: boolean;
  /** Its owners were told that the node has no lease and holds on (rule 20). */
  isSuspended: boolean;
  /** The clean restart has made its record: owners are not let in any more. */
  isFrozen: boolean;
  /** Deadline of the clean restart, on the node's clock; 0 = none. */
  restartUntil: number;
  /** It was told of this incarnation's end: what it claimed may be lost. */
  wasOver: boolean;
  /** Began with the record of a clean restart. */
  hasRecord: boolean;
}

export class SimNode {
  readonly id: number;
  readonly world: World;
  readonly config: NodeConfig;
  readonly random: Prng;
  readonly disk: NodeDisk;
  readonly owners: NodeOwners;
  /** Local clock = offset + rate * real time. */
  readonly #offset: number;
  readonly #rate: number;
  #boot = 1;
  /** The machine is off. */
  #isOff = false;
  /** The watchdog of the machine: real time at which it ends it, unless it is kept alive; Infinity = not armed. */
  #watchdogAt = Number.POSITIVE_INFINITY;
  life: Life | null = null;
  isPaused = false;
  /** Runs again, but has not worked off its backlog. */
  #isWaking = false;
  #backlog: { life: Life; run: () => void }[] = [];
  #pauseUntil = 0;
  /** Off on purpose (stopped, or waiting for its restart): the healing phase starts it again. */
  isStarting = false;
  record: RestartRecord | null = null;
  /** The machine is off and nobody switches it on. */
  isGone = false;
  /** No configuration but its own names it. */
  isSpare = false;
  /** Gone for good. */
  isRetired = false;
  #disks = 1;

  constructor(world: World, config: NodeConfig, drift: number) {
    this.world = world;
    this.id = config.id;
    this.config = config;
    this.random = new Prng(world.options.seed, 1000 + config.id);
    this.#offset = 1000 + this.random.float() * 1_000_000;
    this.#rate = 1 + this.random.between(-drift, drift);
    this.disk = new NodeDisk(world.queue, this.random, world.options.diskMs);
    this.owners = new NodeOwners(this);
    this.disk.synced = (batch) => world.quorumCheck.pair.synced(this.id, batch);
  }

  /** Gets no processor at all. */
  get isStandingStill(): boolean {
    return this.isPaused && !this.#isWaking;
  }

  /** This node's monotonic clock, ms. */
  get clock(): number {
    return this.#offset + this.#rate * this.world.queue.now;
  }

  /** Real time at which this node's clock shows `local`. */
  realTime(local: number): number {
    return (local - this.#offset) / this.#rate;
  }

  /** The present boot of the machine. */
  get bootId(): string {
    return `boot-${this.id}-${this.#boot}`;
  }

  get journalId(): string {
    return this.#disks === 1 ? `journal-${this.id}` : `journal-${this.id}-${this.#disks}`;
  }

  get startCount(): number {
    return this.life?.startCount ?? this.disk.startCount;
  }

  get #incarnation(): Incarnation {
    return {
      bootId: this.bootId,
      machineId: `machine-${this.id}`,
      startCount: this.disk.startCount,
      journalId: this.journalId,
    };
  }

  // --- Life and death -----------------------------------------------------------------------------------------------------

  /** Starts the daemon: the start count is raised and synced first. */
  start(): void {
    if (this.life || this.isStarting || this.isGone || this.isRetired) return;
    this.isStarting = true;
    if (this.#isOff) this.world.fencer.poweredOn(this.id);
    this.#isOff = false;
    const boot = this.#boot;
    // Found at open, before the start count is raised and the record goes with it (rule 3).
    const found = this.disk.record;
    this.record = found?.startCount === this.disk.startCount || (found !== null && this.disk.keepsRecord) ? found : null;
    this.disk.raiseStartCount(() => {
      this.isStarting = false;
      if (!this.life && boot === this.#boot && !this.isGone && !this.isRetired) this.#run();
    });
  }

  #run(): void {
    const { world } = this;
    const uid = world.nextLife();
    world.trace.add(world.queue.now, this.id, 'start', this.disk.startCount, this.#boot, this.disk.locks.size);
    const persisted = this.disk.load();
    const { record } = this;
    this.record = null;
    world.logCheck.restarted(this.id, persisted.snapshot?.index ?? 0, persisted.entries);
    const seed = this.random.u32();
    // A draw that nothing uses any more: without it every seed would mean another schedule.
    this.random.u32();
    const init: CoreInit = {
      self: this.id,
      incarnation: this.#incarnation,
      nodes: this.isSpare ? [...world.configs.slice(0, 2), this.config] : world.configs,
      limits: world.options.limits,
      persisted,
      seed,
      now: this.clock,
      logKeep: world.options.logKeep,
      endsItself: world.options.selfEndMs > 0,
      nodeOwned: [...this.disk.locks.values()],
      mastery: { standard: world.options.mastery, domains: new Map() },
      toldUntil: Math.max(this.clock + longestLeaseMs(world.options.limits, this.#ahead(persisted)), this.disk.toldUntil),
      hasRecord: record !== null,
      ...(world.tuning ? { tuning: world.tuning } : {}),
    };
    const life = {
      uid,
      node: this,
      startCount: this.disk.startCount,
      lease: { until: 0, alive: true },
      ends: new Map<number, PeerEnd>(),
      isStopping: false,
      isReincarnating: false,
      isMember: false,
      isSuspended: false,
      isFrozen: false,
      restartUntil: 0,
      wasOver: false,
      hasRecord: record !== null,
    } as unknown as Life;
    for (const c of world.nodes) if (c.id !== this.id) life.ends.set(c.id, world.network.newEnd());
    this.life = life;
    this.isPaused = false;
    this.#backlog = [];
    const out = this.#output(life);
    try {
      life.core = world.makeCore(init, out);
    } catch (e) {
      world.fail(`n${this.id}: the core does not start: ${describe(e)}`);
      return;
    }
    world.topologyChanged();
    this.owners.started(life, record);
    this.#tickLater(life);
  }

  /** The view after all entries of its log, as the daemon works it out at start. */
  #ahead(persisted: PersistedState): View {
    const base = persisted.snapshot ?? { index: 0, term: 0, view: initialView(this.world.configs, '') };
    return new LogTail(this.id, new RaftLog(base, persisted.entries)).view;
  }

  #tickLater(life: Life): void {
    const { world } = this;
    const wait = (world.options.limits.tickMs / this.#rate) * (0.9 + this.random.float() * 0.2);
    world.queue.after(wait, () => {
      if (this.life !== life) return;
      this.input(life, () => {
        this.call(life, (core, now) => core.tick(now, world.queue.now));
        this.#keepAlive(life);
        world.fencer.withdraw(life, life.core.leader === this.id, (node, startCount) => this.#isFencing(life, node, startCount));
        this.#tickLater(life);
      });
    });
  }

  /** As src/fence/self-end.ts: the watchdog is armed and kept alive only under a lease. */
  #keepAlive(life: Life): void {
    const { world } = this;
    const { selfEndMs } = world.options;
    if (selfEndMs === 0 || this.life !== life || !life.core.isMember || life.core.leaseUntil <= this.clock) return;
    const isArmed = this.#watchdogAt !== Number.POSITIVE_INFINITY;
    // Its clock is none of the best.
    this.#watchdogAt = world.queue.now + selfEndMs * this.random.between(0.9, 1.2);
    life.core.arm(selfEndMs);
    if (!isArmed) this.#watchLater();
  }

  #watchLater(): void {
    const { world } = this;
    const boot = this.#boot;
    world.queue.at(this.#watchdogAt, () => {
      if (boot !== this.#boot || this.#watchdogAt === Number.POSITIVE_INFINITY) return;
      if (world.queue.now < this.#watchdogAt) {
        this.#watchLater();
        return;
      }
      world.count('ended by its watchdog');
      this.powerOff('its watchdog');
      world.bootLater(this, 300);
    });
  }

  /** As src/node/daemon.ts: it is for this daemon to fence that incarnation. */
  #isFencing(life: Life, node: number, startCount: number): boolean {
    const { view, leader, fencesAlone } = life.core;
    if (fencesAlone?.node === node && fencesAlone.startCount === startCount) return true;
    if (leader !== this.id) return false;
    return view.nodes.some((n) => n.id === node && n.state === 'fencing' && n.incarnation?.startCount === startCount);
  }

  /** The daemon dies; the machine and what others own on it stays, for a crash that is. */
  crash(why: string): void {
    const life = this.life;
    if (!life) return;
    this.world.trace.add(this.world.queue.now, this.id, 'dies', why);
    this.#end(life);
    this.disk.crash();
    this.owners.daemonDied(life);
    this.world.network.died(this, false);
    this.world.topologyChanged();
  }

  /** The end of a clean stop: the daemon ends, and disarms the watchdog unless somebody may count on it (daemon.ts). */
  #left(): void {
    const me = this.life?.core.view.nodes.find((n) => n.id === this.id);
    const isCounted = me?.nodeOwned === true && ['in', 'suspect', 'fencing'].includes(me.state);
    if (!isCounted) this.#watchdogAt = Number.POSITIVE_INFINITY;
    this.crash('stopped');
  }

  /** The machine goes down: nothing on it acts any more. */
  powerOff(why: string): void {
    this.world.trace.add(this.world.queue.now, this.id, 'off', why);
    this.#boot++;
    this.#isOff = true;
    this.#watchdogAt = Number.POSITIVE_INFINITY;
    this.isStarting = false;
    const life = this.life;
    if (life) this.#end(life);
    this.disk.reboot();
    this.owners.machineDied();
    if (life) this.world.network.died(this, true);
    this.world.topologyChanged();
  }

  /** The machine goes down and loses its disk: what comes back has a new journal. */
  wipe(): void {
    this.powerOff('wiped');
    this.disk.wipe();
    this.#disks++;
  }

  /** The machine goes down and never comes back. */
  retire(): void {
    this.powerOff('retired');
    this.isRetired = true;
  }

  #end(life: Life): void {
    life.lease.alive = false;
    this.life = null;
    this.isPaused = false;
    this.#backlog = [];
  }

  // --- Standing still -----------------------------------------------------------------------------------------------------

  /** The process gets no processor until `ms` from now; its clock goes on. */
  pause(ms: number): void {
    if (!this.life) return;
    const { world } = this;
    this.#pauseUntil = Math.max(this.#pauseUntil, world.queue.now + ms);
    if (this.isPaused) return;
    world.trace.add(world.queue.now, this.id, 'pause', ms);
    this.isPaused = true;
    this.#isWaking = false;
    world.topologyChanged();
    const life = this.life;
    world.queue.after(world.network.silenceMs, () => {
      if (this.life === life && this.isPaused) world.network.stalled(this);
    });
    this.#resumeAt(life);
  }

  #resumeAt(life: Life): void {
    this.world.queue.at(this.#pauseUntil, () => {
      if (this.life !== life) return;
      if (this.world.queue.now < this.#pauseUntil) this.#resumeAt(life);
      else {
        this.world.trace.add(this.world.queue.now, this.id, 'resume', this.#backlog.length);
        // Timers and sockets are served in no order that one could rely on (trap 9).
        this.#isWaking = true;
        this.world.topologyChanged();
        if (this.random.chance(0.5)) this.#tickFirst(life);
        this.#drain(life);
      }
    });
  }

  #tickFirst(life: Life): void {
    this.call(life, (core, now) => core.tick(now));
  }

  #drain(life: Life): void {
    if (this.life !== life) return;
    const next = this.#backlog.shift();
    if (!next) {
      this.isPaused = false;
      this.#isWaking = false;
      return;
    }
    if (next.life === life) next.run();
    this.world.queue.after(0.01, () => this.#drain(life));
  }

  /** Wakes a paused daemon at once (healing). */
  wake(): void {
    this.#pauseUntil = this.world.queue.now;
    if (this.life && this.isPaused) this.#resumeAt(this.life);
  }

  // --- Into the core ------------------------------------------------------------------------------------------------------

  /** An event for this life of the daemon: now, after the pause, or never. */
  input(life: Life, run: () => void): void {
    if (this.life !== life) return;
    if (this.isPaused) this.#backlog.push({ life, run });
    else run();
  }

  /** One call into the core; whatever it throws fails the run. */
  call(life: Life, run: (core: CoreApi, now: number) => void): void {
    if (this.life !== life) return;
    try {
      run(life.core, this.clock);
    } catch (e) {
      this.world.fail(`n${this.id}: the core threw ${describe(e)}`);
    }
  }

  // --- Out of the core ----------------------------------------------------------------------------------------------------

  #output(life: Life): CoreOutput {
    const { world, owners } = this;
    const after = (run: () => void): void => this.input(life, run);
    return {
      send: (to, msg) => {
        if (this.life !== life) return;
        world.logCheck.sent(this.id, life.uid, to, msg);
        world.masterCheck.sent(this.id, msg);
        if (world.options.freeze) deepFreeze(msg);
        world.network.send(life, to, msg);
      },
      moreToDo: () => {
        // Behind whatever else comes meanwhile.
        world.queue.after(this.random.exp(world.options.sliceMs), () =>
          after(() => this.call(life, (core, now) => core.advance(now))),
        );
      },
      persist: (batch) => {
        world.logCheck.persist(this.id, batch);
        this.disk.persist(batch, () => after(() => this.call(life, (core, now) => core.persisted(now, batch.ticket))));
      },
      journal: (ticket, op) => {
        world.trace.add(world.queue.now, this.id, 'journal', ticket, op.op);
        this.disk.journal(op, () => after(() => this.call(life, (core, now) => core.journaled(now, ticket))));
      },
      restartRecord: (claims) => this.#writeRestart(life, claims),
      fence: (request) => this.#fence(life, request),
      incarnationOver: (reason, atLeast) => this.#incarnationOver(life, reason, atLeast),
      distrusted: (why) => world.fail(`node ${this.id} is told that its journal is an older copy: ${why}`),
      lease: (until, isSuspended) => this.#leaseTold(life, until, isSuspended),
      viewChanged: (view) => {
        world.trace.add(world.queue.now, this.id, 'view', view.epoch, viewText(view));
        world.logCheck.applied(this.id, view);
        world.fenceCheck.applied(life, view, world.queue.now);
        world.masterCheck.viewed(view);
        world.viewSeen(view.epoch);
        this.#seeRestart(life, view);
      },
      memberChanged: (isMember) => {
        world.trace.add(world.queue.now, this.id, 'member', isMember);
        life.isMember = isMember;
        if (!isMember && life.isStopping) world.queue.after(1, () => this.input(life, () => this.#left()));
      },
      note: (level, event, data) => {
        world.noted(this.id, level, event);
        if (world.trace.print) world.trace.add(world.queue.now, this.id, `note:${event}`, JSON.stringify(data));
      },
      // Once the record is made owners hear nothing that is not in it.
      granted: (lock: LocalLock) => (life.isFrozen ? undefined : owners.onGranted(life, lock)),
      denied: (lock, code) => (life.isFrozen ? undefined : owners.onDenied(life, lock, code)),
      released: (lock) => (life.isFrozen ? undefined : owners.onReleased(life, lock)),
      bast: (lock, mode) => (life.isFrozen ? undefined : owners.onBast(life, lock, mode)),
      lost: (lock, code) => owners.onLost(life, lock, code),
    };
  }

  #leaseTold(life: Life, until: number, isSuspended: boolean): void {
    const { world } = this;
    const now = world.queue.now;
    const { lease } = life;
    if (until === 0) {
      world.trace.add(now, this.id, 'lease', 0);
      return;
    }
    if (isSuspended !== life.isSuspended) {
      life.isSuspended = isSuspended;
      world.trace.add(now, this.id, isSuspended ? 'suspended' : 'resumed');
      world.count(isSuspended ? 'suspended' : 'resumed');
    }
    if (life.isFrozen) return;
    // Holds whose deadline has passed are over, whatever comes now.
    if (lease.until <= now) this.owners.lapsed(life);
    const real = this.realTime(until);
    if (real > lease.until) lease.until = real;
    world.fenceCheck.told(this.id, life.startCount, real);
  }

  /** Clean restart: what owners hold and wait for goes to the disk; nobody is let in any more. */
  #writeRestart(life: Life, claims: ClaimedLock[]): void {
    const { world } = this;
    life.isFrozen = true;
    // No sooner than the lease that owners have been told.
    const until = Math.max(this.clock + world.options.restartMs, life.core.holdUntil, this.disk.toldUntil);
    world.trace.add(world.queue.now, this.id, 'record', claims.length);
    this.disk.writeRestart({ startCount: life.startCount, until, claims: structuredCloneOf(claims) }, () =>
      this.input(life, () => {
        life.restartUntil = until;
        const left = Math.floor(until - this.clock);
        if (left > 0) this.call(life, (core, now) => core.restartWritten(now, left));
      }),
    );
  }

  /** The view says that we are being restarted: owners are told until when they may go on, and the daemon ends. */
  #seeRestart(life: Life, view: View): void {
    const { world } = this;
    const me = view.nodes.find((n) => n.id === this.id);
    if (life.restartUntil === 0 || me?.state !== 'restarting' || me.incarnation?.startCount !== life.startCount) return;
    const until = this.realTime(life.restartUntil);
    life.restartUntil = 0;
    world.queue.after(this.random.exp(5), () =>
      this.input(life, () => {
        world.count('restart told');
        if (until > life.lease.until && life.lease.until > world.queue.now) life.lease.until = until;
        world.queue.after(this.random.exp(10), () => this.input(life, () => this.crash('restarts')));
      }),
    );
  }

  #fence(life: Life, request: FenceRequest): void {
    const { world } = this;
    world.trace.add(world.queue.now, this.id, 'fence', request.node, request.startCount, request.method, request.attempt);
    world.quorumCheck.fencing(this, request.node, world.queue.now);
    world.fencer.run(life, request, (ok, detail) =>
      this.input(life, () => this.call(life, (core, now) => core.fenceDone(now, request.op, ok, detail))),
    );
  }

  #incarnationOver(life: Life, reason: string, atLeast: number): void {
    const { world } = this;
    world.trace.add(world.queue.now, this.id, 'incarnationOver', reason);
    world.count('incarnationOver');
    // Nobody frees what is held on a machine that only a device ends: its owners need not be told (rule 20). A lease that came
    // before the view that admits this node never covered anything.
    const hadLocks = life.core.view.nodes.some((n) => n.id === this.id && n.incarnation?.startCount === life.startCount);
    if (reason === 'lease' && hadLocks && this.config.fence.every((level) => !['self', 'manual'].includes(level[0] ?? 'self'))) {
      world.fail(`rule 20: n${this.id} ends its holds with its lease, though only a device could have freed them`);
    }
    life.wasOver = true;
    if (life.isReincarnating) return;
    life.isReincarnating = true;
    const over = life.lease;
    world.queue.after(0, () => {
      if (this.life !== life) return;
      over.alive = false;
      this.disk.raiseStartCount((startCount) => {
        this.input(life, () => {
          world.network.closeAll(life);
          for (const end of life.ends.values()) end.link.reset();
          life.startCount = startCount;
          life.lease = { until: 0, alive: true };
          life.isReincarnating = false;
          world.trace.add(world.queue.now, this.id, 'reincarnate', startCount);
          this.call(life, (core, now) => core.reincarnate(now, this.#incarnation));
        });
      }, atLeast);
    });
  }
}

/** A copy that leaves owners (`ctx`) alone. */
function structuredCloneOf(claims: ClaimedLock[]): ClaimedLock[] {
  return claims.map((c) => ({ ...c, value: c.value?.slice() ?? null }));
}

function viewText(view: { nodes: readonly { id: number; state: string; incarnation: Incarnation | null }[] }): string {
  return view.nodes.map((n) => `${n.id}:${n.state}/${n.incarnation?.startCount ?? 0}`).join(',');
}

function describe(e: unknown): string {
  return e instanceof Error ? (e.stack ?? e.message) : String(e);
}
