/**
 * A node with its bridge under random deaths, and a checker: a kernel user and an owner in tsdlm never both act.
 *
 * The real Bridge, HelperCore and HelperDoor run on virtual time between a core (model-core.ts), owners that keep to what they were told,
 * and programs on a dlmfs in memory. Daemons are killed, restarted cleanly and lose their lease; helpers are killed, also while a call of
 * theirs waits in the kernel, and stopped; sockets get full. Only a killed helper may take a lock from under its owner: the kernel
 * closes its files, and no order of ours can be in between (docs/bridge.md); those owners must be told.
 */
import { Bridge } from '../../src/bridge/bridge.js';
import type { BridgeLink, LinkEvents } from '../../src/bridge/link.js';
import { BRIDGE_VERSION, type FromHelper, type ToHelper } from '../../src/bridge/protocol.js';
import type { ClaimedLock, LocalLock } from '../../src/master/types.js';
import { EX, isCompatible, type Mode, NL, PR } from '../../src/protocol/modes.js';
import { FakeKernel } from './fake-kernel.js';
import { ModelCore, type Remembered } from './model-core.js';
import { HelperSocket, MortalHelper } from './mortal-helper.js';
import { VirtualTime } from './virtual-time.js';

const LEASE_MS = 3000;
const HEARTBEAT_MS = 250;
const SILENCE_MS = 10_000;
const TRACE_MAX = 2000;
const NAMES = ['r', 's'] as const;

/** Each is a rule left out, which the checker must notice. */
export interface PlantedBugs {
  /** A deadline counts as known to the helper though it never left the daemon. */
  trustsFullSocket?: boolean;
  /** The next daemon's connection cuts off what the one before has sent. */
  isDoorDeaf?: boolean;
  /** The helper lets go half a second early. */
  isHelperFast?: boolean;
  /** An owner is told of its grant when the kernel has been asked, not when it has granted. */
  tellsEarly?: boolean;
  /** Owners are let in before it is known which helper there is. */
  letsInEarly?: boolean;
  /** What owners have that did not come back yet is given up with the next request for the name. */
  forgetsWhoIsAway?: boolean;
}

interface Daemon {
  bridge: Bridge;
  core: ModelCore;
  isDead: boolean;
  /** Its record for a restart is made: nothing is asked of it and nothing granted any more. */
  isFrozen: boolean;
  hasQuorum: boolean;
  isReady: boolean;
  ticker: NodeJS.Timeout;
  /** Sent, but not out of its memory. */
  backlog: ToHelper[];
  isFull: boolean;
  socket: HelperSocket | null;
  link: LinkEvents | null;
}

/** A client of the daemon: what it may do follows from what it has read. */
class Owner {
  readonly id: number;
  readonly name: string;
  told: Mode | -1 = -1;
  deadline = 0;
  isOver = false;
  /** A helper was killed under it. */
  isExposed = false;
  /** The daemon has it from a record; it has not come back. */
  isAway = false;
  lock: LocalLock | null = null;
  lastAt = 0;
  daemon: Daemon | null = null;

  constructor(id: number, name: string) {
    this.id = id;
    this.name = name;
  }

  mode(now: number): Mode | -1 {
    return !this.isOver && now < this.deadline ? this.told : -1;
  }
}

export interface ModelResult {
  violations: string[];
  /** How often things happened, so that a run that does nothing is noticed. */
  counts: Record<string, number>;
  /** The last things that happened, for whoever looks for a cause. */
  trace: string[];
}

export class Model {
  readonly #time = new VirtualTime();
  readonly #kernel = new FakeKernel();
  readonly #mount = this.#kernel.mount('bridge');
  readonly #users = this.#kernel.mount('users');
  readonly #bugs: PlantedBugs;
  readonly #seed: number;
  #state: number;
  /** Only the daemon dies in this run, and there is always a kernel user that waits: so more of it is about the deadline. */
  readonly #isCalm: boolean;
  #daemon: Daemon | null = null;
  #helper: MortalHelper | null = null;
  #owners: Owner[] = [];
  #remembered: Remembered[] = [];
  #toldUntil = 0;
  #nextId = 1;
  #holds = new Set<{ name: string; mode: Mode; close: () => void }>();
  #opening = new Set<string>();
  readonly #result: ModelResult = { violations: [], counts: {}, trace: [] };

  constructor(seed: number, bugs: PlantedBugs = {}) {
    this.#seed = seed;
    this.#state = seed * 2654435761;
    this.#bugs = bugs;
    this.#isCalm = this.#draw(4) > 0;
  }

  #draw(n: number): number {
    this.#state = (Math.imul(this.#state, 1664525) + 1013904223) >>> 0;
    return Math.floor((this.#state / 2 ** 32) * n);
  }

  #count(what: string): void {
    this.#result.counts[what] = (this.#result.counts[what] ?? 0) + 1;
  }

  #note(text: string): void {
    const { trace } = this.#result;
    trace.push(`${this.#time.now} ${text}`);
    if (trace.length > TRACE_MAX) trace.shift();
  }

  async run(steps: number): Promise<ModelResult> {
    this.#time.install();
    try {
      await this.#users.join('web');
      this.#startDaemon();
      for (let i = 0; i < steps; i++) {
        this.#step();
        await this.#time.turns(this.#draw(4));
        await this.#time.pass(this.#draw(3) === 0 ? this.#draw(1500) : this.#draw(60));
        this.#check();
      }
      await this.#finish();
    } finally {
      this.#time.restore();
    }
    return this.#result;
  }

  #wrong(text: string): void {
    if (this.#result.violations.length < 5) this.#result.violations.push(`seed ${this.#seed} at ${this.#time.now}: ${text}`);
  }

  #check(): void {
    const { now } = this.#time;
    for (const owner of this.#owners) {
      const mode = owner.mode(now);
      if (mode < PR || owner.isExposed) continue;
      for (const hold of this.#holds) {
        if (hold.name !== owner.name || isCompatible(hold.mode, mode as Mode)) continue;
        this.#wrong(
          `owner ${owner.id} has ${owner.name} in ${mode} until ${owner.deadline}, a kernel user has it in ${hold.mode}`,
        );
        hold.close();
        this.#holds.delete(hold);
      }
    }
  }

  #step(): void {
    const daemon = this.#daemon;
    const n = this.#draw(100);
    const owner = this.#owners[this.#draw(Math.max(1, this.#owners.length))];
    if (n < 30) this.#ask();
    else if (n < 48 && owner !== undefined) this.#release(owner);
    else if (n < 56 && owner !== undefined) this.#convert(owner);
    else if (n < 74) this.#userOpens();
    else if (n < 84) this.#usersClose();
    else if (daemon === null) return;
    else if (n < 88) this.#killDaemon(daemon);
    else if (n < 90) this.#restart(daemon);
    else if (n < 94 && this.#isCalm) this.#killDaemon(daemon);
    else if (n < 92) this.#killHelper();
    else if (n < 94) {
      if (daemon.hasQuorum) this.#count('quorum lost');
      this.#note(`quorum ${!daemon.hasQuorum}`);
      daemon.hasQuorum = !daemon.hasQuorum;
    } else if (n < 96 && this.#helper !== null) {
      const helper = this.#helper;
      this.#count('helper stopped');
      this.#note('helper stopped');
      helper.pause(true);
      setTimeout(() => helper.pause(false), 200 + this.#draw(5000));
    } else if (n < 99) {
      daemon.isFull = true;
      this.#count('socket full');
      setTimeout(() => this.#flush(daemon), this.#draw(1500));
    }
  }

  // Owners.

  /** What the client reads, in order, some time later; the daemon's death does not take it out of the socket. */
  #post(owner: Owner, read: () => void): void {
    owner.lastAt = Math.max(owner.lastAt, this.#time.now + this.#draw(8));
    setTimeout(() => {
      if (!owner.isOver) read();
      this.#check();
    }, owner.lastAt - this.#time.now);
  }

  #ask(): void {
    const daemon = this.#daemon;
    if (daemon === null || daemon.isFrozen || !daemon.isReady || this.#owners.length >= 4) return;
    const owner = new Owner(this.#nextId++, NAMES[this.#draw(NAMES.length)] ?? 'r');
    owner.daemon = daemon;
    this.#owners.push(owner);
    const mode = this.#draw(2) === 0 ? PR : EX;
    const more = { nodeOwned: false, lvb: false, who: '', why: '', ctx: owner };
    const deadline = this.#draw(3) === 0 ? this.#time.now + this.#draw(2000) + 1 : 0;
    this.#note(`owner ${owner.id} asks for ${owner.name} in ${mode}`);
    owner.lock = daemon.bridge.lock(this.#time.now, {
      domain: 'web',
      name: owner.name,
      mode,
      try: this.#draw(4) === 0,
      deadline,
      ...more,
    });
  }

  #release(owner: Owner): void {
    const { daemon, lock } = owner;
    const isHeld = owner.mode(this.#time.now) >= NL;
    this.#note(`owner ${owner.id} ${isHeld ? 'releases' : 'cancels'}`);
    if (daemon !== null && !daemon.isDead && !daemon.isFrozen && !owner.isAway && lock !== null) {
      if (isHeld) daemon.bridge.unlock(this.#time.now, lock);
      else if (owner.told < 0) {
        daemon.bridge.cancel(this.#time.now, lock);
        return;
      }
      // Its deadline passed unheard of by the daemon: given back.
      else daemon.bridge.unlock(this.#time.now, lock);
    } else if (owner.told < 0) return;
    this.#over(owner);
  }

  #over(owner: Owner): void {
    owner.isOver = true;
    this.#owners = this.#owners.filter((other) => other !== owner);
  }

  #convert(owner: Owner): void {
    const { daemon, lock } = owner;
    const held = owner.mode(this.#time.now);
    if (
      daemon === null ||
      daemon.isDead ||
      daemon.isFrozen ||
      owner.isAway ||
      !(lock !== null && lock.want === -1) ||
      held < PR ||
      lock.mode !== held
    )
      return;
    const mode = held === EX ? PR : EX;
    this.#note(`owner ${owner.id} converts to ${mode}`);
    if (mode < held) owner.told = mode;
    daemon.bridge.convert(this.#time.now, lock, mode, { try: this.#draw(2) === 0, deadline: 0, lvb: null });
  }

  // The daemon.

  #startDaemon(record: readonly ClaimedLock[] | null = null): void {
    const core = new ModelCore(
      this.#remembered,
      () => this.#time.now,
      () => this.#draw(this.#draw(4) === 0 ? 6000 : 200),
    );
    const ownerOf = (lock: LocalLock): Owner => lock.ctx as Owner;
    const daemon = {
      isDead: false,
      isFrozen: false,
      hasQuorum: true,
      isReady: false,
      backlog: [],
      isFull: false,
      socket: null,
      link: null,
    } as unknown as Daemon;
    const since = this.#time.now;
    daemon.core = core;
    daemon.bridge = new Bridge({
      core,
      now: () => this.#time.now,
      toMonotonic: (time) => time,
      domains: new Set(['web']),
      toldUntil: Math.max(this.#toldUntil, since + LEASE_MS),
      claimMs: 600,
      hasRecord: record !== null || this.#bugs.forgetsWhoIsAway === true,
      journaled: new Set(),
      leaseMoved: () => this.#lease(daemon, daemon.bridge.holdUntil),
      step: (work) => {
        if (!daemon.isDead) work();
      },
      log: (_level, event) => this.#count(event),
      link: (events) => this.#connect(daemon, events),
      events: {
        granted: (lock) => {
          const deadline = daemon.bridge.holdUntil;
          const mode = lock.mode as Mode;
          const owner = ownerOf(lock);
          if (daemon.isFrozen) return;
          owner.lock = lock;
          if (owner.isAway) return;
          this.#count('granted');
          // On what a helper still has that is dead but for one call: nobody can know.
          if (this.#helper?.isKilled === true) owner.isExposed = true;
          this.#note(`owner ${owner.id} granted ${mode} until ${deadline}`);
          this.#post(owner, () => {
            if (this.#time.now >= deadline && owner.told < 0) {
              // Rule 11: given back.
              if (!daemon.isDead && owner.lock !== null) daemon.bridge.unlock(this.#time.now, owner.lock);
              this.#over(owner);
              return;
            }
            owner.told = mode;
            owner.deadline = Math.max(owner.deadline, deadline);
          });
        },
        denied: (lock, code) => {
          const owner = ownerOf(lock);
          this.#note(`owner ${owner.id} denied ${code}`);
          if (lock.mode < 0) owner.lock = null;
          if (owner.isAway) return;
          this.#post(owner, () => {
            if (owner.told < 0 || lock.mode < 0) this.#over(owner);
          });
        },
        released: (lock) => {
          this.#note(`owner ${ownerOf(lock).id} released`);
          this.#over(ownerOf(lock));
        },
        bast: () => {},
        lost: (lock) => {
          this.#count('lost');
          this.#note(`owner ${ownerOf(lock).id} lost`);
          ownerOf(lock).lock = null;
          if (!ownerOf(lock).isAway) this.#post(ownerOf(lock), () => this.#over(ownerOf(lock)));
        },
      },
    });
    core.events = daemon.bridge;
    daemon.ticker = setInterval(() => this.#tick(daemon), HEARTBEAT_MS);
    this.#daemon = daemon;
    for (const claim of record ?? []) this.#restore(claim, daemon);
    this.#count('daemons');
    this.#note('daemon starts');
    const letIn = (): void => {
      if (daemon.isDead) return;
      daemon.isReady = true;
      for (const owner of this.#owners) setTimeout(() => this.#comeBack(owner, daemon), this.#draw(400));
    };
    if (this.#bugs.letsInEarly) letIn();
    else void daemon.bridge.ready.then(letIn);
  }

  /** A claim of the record: its owner finds it when it comes back, and has given it up when it does not. */
  #restore(claim: ClaimedLock, daemon: Daemon): void {
    const owner = claim.ctx as Owner;
    this.#count('restored');
    owner.daemon = daemon;
    owner.isAway = true;
    owner.lock = daemon.bridge.reclaim(this.#time.now, claim);
    setTimeout(() => {
      if (owner.daemon !== daemon || !owner.isAway || owner.lock === null || daemon.isDead || daemon.isFrozen) return;
      daemon.bridge.unlock(this.#time.now, owner.lock);
    }, this.#toldUntil - this.#time.now);
  }

  #comeBack(owner: Owner, daemon: Daemon): void {
    if (owner.isOver || daemon.isDead || daemon.isFrozen) return;
    if (owner.isAway && owner.daemon === daemon && owner.lock !== null) {
      owner.isAway = false;
      const { lock } = owner;
      if (owner.mode(this.#time.now) < PR) {
        daemon.bridge.unlock(this.#time.now, lock);
        this.#over(owner);
      } else if (lock.mode >= 0) {
        const deadline = daemon.bridge.holdUntil;
        this.#post(owner, () => {
          owner.deadline = Math.max(owner.deadline, deadline);
        });
      }
      return;
    }
    if (owner.isAway) owner.daemon = null;
    owner.isAway = false;
    const mode = owner.mode(this.#time.now);
    if (mode < PR || owner.daemon === daemon) {
      if (owner.daemon !== daemon) this.#over(owner);
      return;
    }
    this.#count('claims');
    this.#note(`owner ${owner.id} claims ${owner.name} in ${mode}, has it until ${owner.deadline}`);
    owner.daemon = daemon;
    const rest = { id: 9, want: -1 as const, te: 1, tc: 1, se: 0, sc: 0, lvbState: 0 as const, value: null, isDirty: false };
    const more = { nodeOwned: false, lvb: false, who: '', why: '', deadline: 0, ctx: owner };
    owner.lock = daemon.bridge.reclaim(this.#time.now, { ...rest, ...more, domain: 'web', name: owner.name, mode: mode as Mode });
  }

  #tick(daemon: Daemon): void {
    if (daemon.isDead) return;
    const { core } = daemon;
    if (daemon.hasQuorum) core.holdUntil = this.#time.now + LEASE_MS;
    else if (this.#time.now >= core.holdUntil && core.holdUntil > 0) {
      core.holdUntil = 0;
      core.loseAll();
    }
    core.tick();
    if (core.holdUntil > 0) this.#lease(daemon, daemon.bridge.lease(core.holdUntil));
  }

  /** As the daemon tells its sessions: those that hold something, or claim it. */
  #lease(daemon: Daemon, until: number): void {
    for (const owner of this.#owners) {
      if (owner.isAway) continue;
      if (owner.daemon !== daemon || (owner.lock?.mode ?? -1) < 0) {
        if (owner.daemon !== daemon || owner.told < 0) continue;
      }
      this.#post(owner, () => {
        if (owner.told >= 0 && this.#time.now < owner.deadline) owner.deadline = Math.max(owner.deadline, until);
      });
    }
  }

  #killDaemon(daemon: Daemon): void {
    this.#count('daemon killed');
    this.#note('daemon killed');
    this.#end(daemon, Math.max(this.#toldUntil, this.#time.now + LEASE_MS));
  }

  #end(daemon: Daemon, rememberUntil: number, record: readonly ClaimedLock[] | null = null): void {
    daemon.isDead = true;
    clearInterval(daemon.ticker);
    daemon.core.die(rememberUntil + 600, (lock) => (lock.ctx as { ctx: Owner }).ctx);
    daemon.bridge.close();
    // What has left its memory is read, and then its end.
    daemon.socket?.push(null);
    daemon.socket = null;
    this.#daemon = null;
    for (const owner of [...this.#owners]) if (owner.told < 0) this.#over(owner);
    setTimeout(
      () => {
        if (this.#daemon === null) this.#startDaemon(record);
      },
      this.#draw(this.#draw(3) === 0 ? 8000 : 600),
    );
  }

  #restart(daemon: Daemon): void {
    if (daemon.isFrozen || !daemon.hasQuorum || daemon.core.holdUntil <= this.#time.now) return;
    this.#count('clean restarts');
    this.#note('clean restart');
    const until = this.#time.now + 10_000;
    daemon.isFrozen = true;
    const record = daemon.bridge.claims(daemon.core.claims());
    this.#toldUntil = until;
    void daemon.bridge.restarting(until).then((told) => {
      if (daemon.isDead) return;
      this.#lease(daemon, told);
      this.#end(daemon, until, record);
    });
  }

  // The helper.

  #connect(daemon: Daemon, events: LinkEvents): BridgeLink {
    daemon.link = events;
    setImmediate(() => this.#attach(daemon));
    return {
      send: (m) => this.#send(daemon, m),
      drop: (why) => this.#detach(daemon, why),
      close: () => {},
    };
  }

  #send(daemon: Daemon, m: ToHelper): boolean {
    if (daemon.socket === null) return false;
    this.#note(`daemon says ${JSON.stringify(m)}${daemon.isFull ? ', into a full socket' : ''}`);
    if (this.#bugs.tellsEarly === true && m.k === 'want' && m.level >= PR) {
      const { domain, name, level, seq } = m;
      setImmediate(() => void (daemon.isDead || daemon.link?.message({ k: 'have', domain, name, level, seq, value: null })));
    }
    if (daemon.isFull) {
      daemon.backlog.push(m);
      return this.#bugs.trustsFullSocket === true;
    }
    daemon.socket.push(`${JSON.stringify(m)}\n`);
    return true;
  }

  #flush(daemon: Daemon): void {
    if (daemon.isDead || !daemon.isFull) return;
    daemon.isFull = false;
    for (const m of daemon.backlog.splice(0)) daemon.socket?.push(`${JSON.stringify(m)}\n`);
    daemon.link?.drained();
  }

  #attach(daemon: Daemon): void {
    if (daemon.isDead || daemon.socket !== null) return;
    if (this.#helper === null) {
      daemon.link?.absent();
      setTimeout(() => {
        if (this.#helper === null) this.#newHelper();
        this.#attach(daemon);
      }, 300);
      return;
    }
    let isGreeted = false;
    const socket = new HelperSocket((line) =>
      setImmediate(() => {
        if (daemon.isDead || daemon.socket !== socket) return;
        const m = JSON.parse(line) as FromHelper;
        isGreeted ||= m.k === 'hello';
        this.#note(`daemon hears ${JSON.stringify(m)}`);
        if (m.k === 'hello') daemon.link?.attached(m.names);
        else daemon.link?.message(m);
      }),
    );
    daemon.socket = socket;
    daemon.isFull = false;
    daemon.backlog = [];
    this.#helper.accept(socket);
    this.#send(daemon, { k: 'hello', version: BRIDGE_VERSION, domains: ['web'] });
    setTimeout(() => {
      if (!isGreeted && daemon.socket === socket) this.#detach(daemon, 'the helper does not answer');
    }, SILENCE_MS);
  }

  #detach(daemon: Daemon, why: string): void {
    if (daemon.isDead || daemon.socket === null) return;
    daemon.socket.push(null);
    daemon.socket = null;
    daemon.backlog = [];
    daemon.isFull = false;
    this.#note(`detached: ${why}`);
    daemon.link?.detached(why);
    setTimeout(() => this.#attach(daemon), 500);
  }

  #newHelper(): void {
    this.#count('helpers');
    const helper = new MortalHelper({
      files: this.#mount,
      now: () => this.#time.now + (this.#bugs.isHelperFast === true ? 500 : 0),
      isDeaf: this.#bugs.isDoorDeaf === true,
      onGone: () => {
        if (this.#helper === helper) this.#helper = null;
        const daemon = this.#daemon;
        if (daemon !== null) setImmediate(() => this.#detach(daemon, 'the helper has ended'));
      },
    });
    this.#helper = helper;
  }

  #killHelper(): void {
    const helper = this.#helper;
    if (helper === null || helper.isKilled) return;
    this.#count('helper killed');
    this.#note('helper killed');
    for (const owner of this.#owners) owner.isExposed = true;
    helper.kill();
    // When a call of it waits in the kernel, only its silence is noticed.
    setTimeout(() => {
      if (this.#daemon !== null && !helper.isGone) this.#detach(this.#daemon, 'the helper does not answer');
    }, SILENCE_MS);
  }

  // The kernel's users.

  #userOpens(): void {
    const name = NAMES[this.#draw(NAMES.length)] ?? 'r';
    if (this.#opening.has(name) || [...this.#holds].some((hold) => hold.name === name)) return;
    const mode = this.#isCalm || this.#draw(2) > 0 ? EX : PR;
    this.#opening.add(name);
    this.#users.open('web', name, mode, !this.#isCalm && this.#draw(3) === 0).then(
      (hold) => {
        this.#opening.delete(name);
        this.#count('kernel granted');
        this.#note(`kernel user has ${name} in ${mode}`);
        this.#holds.add({ name, mode, close: () => hold.close() });
        this.#check();
      },
      () => this.#opening.delete(name),
    );
  }

  #usersClose(): void {
    for (const hold of this.#holds) {
      if (this.#draw(2) === 0) continue;
      this.#holds.delete(hold);
      hold.close();
    }
  }

  /** Nothing fails any more: all that was asked for is decided, and in the end nobody keeps anything. */
  async #finish(): Promise<void> {
    this.#helper?.pause(false);
    for (let i = 0; i < 400; i++) {
      const daemon = this.#daemon;
      if (daemon !== null) {
        daemon.hasQuorum = true;
        this.#flush(daemon);
      }
      for (const hold of this.#holds) hold.close();
      this.#holds.clear();
      for (const owner of [...this.#owners]) this.#release(owner);
      await this.#time.pass(100);
      this.#check();
    }
    const left = this.#owners.map((owner) => `${owner.id} ${owner.name} told ${owner.told}`);
    if (left.length > 0) this.#wrong(`owners are left undecided: ${left.join(', ')}`);
    if (this.#daemon?.bridge.status.state !== 'up') this.#wrong(`the bridge is ${JSON.stringify(this.#daemon?.bridge.status)}`);
    for (const name of NAMES)
      if (this.#kernel.level('bridge', 'web', name) !== NL) this.#wrong(`nobody needs ${name}, but it is kept in the kernel`);
    for (const fault of this.#kernel.faults) this.#wrong(fault);
  }
}
