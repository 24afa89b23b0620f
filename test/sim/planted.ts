/**
 * Bugs planted on purpose: the simulator must find each of them, or its silence means nothing.
 *
 * None has a switch in production code. A bug is a changed method of a production class, a message changed on its way, or a
 * disk that forgets; each stands for a mistake somebody could make in the core. `expect` names the broken promise that must be
 * reported; `tune` gives the seeds the faults that the bug needs, and no others.
 */
import { NodeCore } from '../../src/core/node-core.js';
import { LinkState } from '../../src/link/link-state.js';
import { Engine } from '../../src/master/engine.js';
import { FenceRun } from '../../src/membership/fence-run.js';
import { LeaderLeases, OwnLease } from '../../src/membership/lease.js';
import { Raft } from '../../src/membership/raft.js';
import { Replication } from '../../src/membership/raft-replication.js';
import type { Command, DomainView } from '../../src/membership/types.js';
import type { LockMessage, PeerMessage } from '../../src/protocol/peer-messages.js';
import { FAULT_KINDS, type FaultKind, PAIR_FAULTS, type SimOptions } from './options.js';
import type { World } from './world.js';

export interface Plant {
  name: string;
  expect: RegExp;
  /** Found within this many seeds. */
  seedsMax: number;
  tune: (options: SimOptions) => void;
  /** Changes the world of one run. */
  world?: (world: World) => void;
  /** Changes production classes; returns what undoes it. */
  patch?: () => () => void;
}

export function only(options: SimOptions, kinds: FaultKind[], everyMs: number): void {
  for (const kind of [...FAULT_KINDS, ...PAIR_FAULTS]) options.faults[kind] = kinds.includes(kind) ? 1 : 0;
  options.faultEveryMs = everyMs;
  options.faultPhaseMs = Math.min(options.faultPhaseMs, 8000);
  options.tableEveryMs = options.spares = 0;
  options.hasWitness = false;
}

/** Three voters, a few hot names, busy sessions. */
export function busy(options: SimOptions): void {
  options.nodes = 3;
  options.voters = 3;
  options.tableEveryMs = options.spares = 0;
  options.hasWitness = false;
  options.mastery = 'peer';
  options.voteEveryMs = 0;
  options.domains = 1;
  options.drift = Math.min(options.drift, 0.05);
  options.delayMs = Math.min(options.delayMs, 1);
  options.slowShare = 0;
  options.hotNames = 2;
  options.hotShare = 0.9;
  options.thinkMs = 30;
  options.sessionsPerNode = 3;
  options.calmMs = 1000;
}

/** Replaces a method of a class until undone. */
export function replace<T extends object, K extends keyof T>(of: T, key: K, make: (old: T[K]) => T[K]): () => void {
  const old = of[key];
  of[key] = make(old);
  return () => {
    of[key] = old;
  };
}

export function alterLock(world: World, change: (msg: LockMessage, from: number, to: number) => PeerMessage | null): void {
  world.network.alter = (from, to, msg) => ('dom' in msg ? change(msg, from.id, to.id) : msg);
}

export const PLANTS: Plant[] = [
  {
    name: 'skip the fencing wait: a silent member counts as over at once',
    expect: /^S1: /,
    seedsMax: 40,
    tune: (o) => {
      busy(o);
      only(o, ['isolate', 'pause'], 700);
      o.fence = [['self']];
      o.nodeOwnedShare = 0;
    },
    patch: () => replace(LeaderLeases.prototype, 'overAt', () => () => Number.NEGATIVE_INFINITY),
  },
  {
    name: 'reset a token: the clock does not ride on messages',
    expect: /^S2: /,
    seedsMax: 20,
    tune: (o) => {
      busy(o);
      only(o, [], 0);
      o.purgeMs = 50;
      o.hotShare = 0.5;
    },
    world: (w) => alterLock(w, (m) => ({ ...m, ce: 0, cc: 0 })),
  },
  {
    name: 'forget a converting lock in recovery',
    expect: /^(S1|L1|S3): |threw|outcome/,
    seedsMax: 200,
    tune: (o) => {
      busy(o);
      only(o, ['crash', 'reboot'], 500);
      o.nodes = o.voters = 5;
      o.hotNames = 4;
      o.hotShare = 1;
      o.convertShare = 1;
      o.giveWayShare = 0;
      o.thinkMs = 100;
      o.sessionsPerNode = 4;
      o.nodeOwnedShare = 0;
      o.dieShare = 0;
      o.tryShare = 0;
      o.deadlineShare = 0;
    },
    world: (w) =>
      alterLock(w, (m) => (m.k === 'Register' ? { ...m, locks: m.locks.filter((l) => l.want === 255 || l.mode === 0) } : m)),
  },
  {
    name: 'two masters after a purge race: an unused resource is denied while it is still referenced',
    expect: /^(one master|S1|S2|S3): |threw/,
    seedsMax: 40,
    tune: (o) => {
      busy(o);
      only(o, [], 0);
      o.purgeMs = 50;
    },
    world: (w) =>
      alterLock(w, (m, from) => {
        if (m.k !== 'MasterReply' || (m.answer !== 1 && m.answer !== 3)) return m;
        return isUnused(w, from, m.dom, m.name) ? { ...m, answer: 0, owner: 0, gen: 0 } : m;
      }),
  },
  {
    name: 'stale value block: a release does not take the value along',
    expect: /^S3: /,
    seedsMax: 20,
    tune: (o) => {
      busy(o);
      only(o, [], 0);
      o.lvbShare = 0.9;
    },
    world: (w) =>
      alterLock(w, (m) => (m.k === 'UnlockRequest' || m.k === 'ConvertRequest' ? { ...m, lvbState: 0, lvb: null } : m)),
  },
  {
    name: 'grant with an expired lease: a member believes in a lease that was not given',
    expect: /^S[14]: /,
    seedsMax: 40,
    tune: (o) => {
      busy(o);
      only(o, ['isolate', 'split'], 900);
      o.fence = [['self']];
      o.nodeOwnedShare = 0;
    },
    patch: () =>
      replace(
        OwnLease.prototype,
        'extend',
        () =>
          function (this: OwnLease, now: number, until: number): void {
            if (until > now) this.until = Math.max(this.until, until + 3 * (until - now));
          },
      ),
  },
  {
    name: 'vote twice after a crash: the vote was answered but is not on the disk',
    expect: /^S5: /,
    seedsMax: 60,
    tune: (o) => {
      busy(o);
      o.nodes = o.voters = 5;
      o.sessionsPerNode = 1;
      only(o, ['crash', 'restartAll', 'majorityLoss'], 250);
      o.calmMs = 0;
      o.delayMs = 20;
    },
    world: (w) => {
      for (const n of w.nodes) {
        n.disk.atCrash = (disk) => {
          disk.state.vote = 0;
        };
      }
    },
  },
  {
    name: 'answer before the sync: writes are confirmed when they are given to the disk',
    expect: /^S5: |threw/,
    seedsMax: 60,
    tune: (o) => {
      busy(o);
      o.nodes = o.voters = 5;
      o.sessionsPerNode = 1;
      only(o, ['crash', 'restartAll', 'majorityLoss', 'slowDisk'], 250);
      o.calmMs = 0;
      o.diskMs = 10;
    },
    world: (w) => {
      for (const n of w.nodes) n.disk.answersEarly = true;
    },
  },
  {
    name: 'drop the duplicate check: a repeated message is handled again',
    expect: /^link: /,
    seedsMax: 20,
    tune: (o) => {
      busy(o);
      only(o, ['cut', 'flap'], 300);
    },
    patch: () =>
      replace(
        LinkState.prototype as LinkState<unknown>,
        'onSequenced',
        (old) =>
          function (this: LinkState<unknown>, seq: number) {
            const verdict = old.call(this, seq);
            return verdict === 'duplicate' ? 'deliver' : verdict;
          },
      ),
  },
  {
    name: 'evict without a quorum: a leader counts its own disk alone',
    expect: /^S[145]: |threw/,
    seedsMax: 40,
    tune: (o) => {
      busy(o);
      only(o, ['isolate', 'split'], 700);
      o.fence = [['self']];
      o.nodeOwnedShare = 0;
    },
    patch: () => loneCommit(),
  },
  {
    name: 're-grant during migration: holders do not register with the new master of a leaving node',
    expect: /^(S1|S2|S3|one master|L1): |threw/,
    seedsMax: 60,
    tune: (o) => {
      busy(o);
      only(o, ['stop'], 400);
      o.nodes = o.voters = 5;
      o.hotNames = 4;
      o.hotShare = 1;
      o.giveWayShare = 0;
      o.thinkMs = 200;
      o.nodeOwnedShare = 0;
    },
    world: (w) =>
      alterLock(w, (m) => {
        if (m.k === 'Register') return { ...m, locks: m.locks.filter((l) => l.mode === 0) };
        return m.k === 'HandOver' ? { ...m, resources: m.resources.map((r) => ({ ...r, exNode: 0, exId: 0 })) } : m;
      }),
  },
  {
    name: '`no` is answered while another owner is known',
    expect: /^(one master|S1|S2|S3): |threw/,
    seedsMax: 20,
    tune: (o) => {
      busy(o);
      only(o, [], 0);
    },
    world: (w) =>
      alterLock(w, (m) =>
        m.k === 'MasterReply' && (m.answer === 1 || m.answer === 3) ? { ...m, answer: 0, owner: 0, gen: 0 } : m,
      ),
  },
  {
    name: 'an expired lease frees node-owned locks (rule 2)',
    expect: /^S1: /,
    seedsMax: 80,
    tune: (o) => {
      busy(o);
      only(o, ['isolate', 'pause'], 600);
      o.fence = [['self']];
      o.nodeOwnedShare = 0.4;
      o.nodeOwnedMs = 20_000;
      o.hotShare = 1;
    },
    patch: () =>
      replace(
        FenceRun.prototype,
        'tick',
        (old) =>
          function (this: FenceRun, now, facts) {
            return old.call(this, now, { ...facts, node: { ...facts.node, nodeOwned: false } });
          },
      ),
  },
  {
    name: 'a retry remembers what worked in an earlier attempt (rule 15)',
    expect: /^(fence|S1): /,
    seedsMax: 120,
    tune: (o) => {
      feeds(o);
      o.devices.cycles = 0.5;
      o.fenceFail = 0.4;
    },
    patch: () => remembered(),
  },
  {
    name: 'all feeds have said off once; no second look at whether they are off at one time (rule 15)',
    expect: /^(fence|S1): /,
    seedsMax: 100,
    tune: (o) => {
      feeds(o);
      o.devices.cycles = 0.5;
    },
    patch: () =>
      replace(
        Asking,
        'ask',
        (old) =>
          function (this: AskingRun, step, methods): void {
            if (step === 'off') old.call(this, step, methods);
            else this.step = step;
          },
      ),
  },
  {
    name: 'a device is believed before lease and margin are over (rule 15)',
    expect: /^(fence|S1): /,
    seedsMax: 40,
    tune: (o) => {
      feeds(o);
      o.fence = [['bmc'], ['self']];
      o.devices.lies = 1;
      only(o, ['isolate', 'split', 'pause'], 700);
    },
    patch: () =>
      replace(
        FenceRun.prototype,
        'tick',
        (old) =>
          function (this: FenceRun, now, facts) {
            return old.call(this, now, { ...facts, overAt: Number.NEGATIVE_INFINITY });
          },
      ),
  },
  {
    name: 'nobody compares the boot that a device has ended with the one that asks to join (rule 12)',
    expect: /^fence: .*rule 12/,
    seedsMax: 40,
    tune: (o) => {
      feeds(o);
      o.fence = [['bmc'], ['self']];
      o.devices.lies = 1;
    },
    world: (w) => {
      w.network.alter = (_from, _to, msg) => {
        const cmd = msg.k === 'Propose' ? (msg.cmd as Command) : null;
        if (cmd?.c !== 'join' || cmd.inc.startCount === 1) return msg;
        return { ...msg, cmd: { ...cmd, inc: { ...cmd.inc, bootId: `${cmd.inc.bootId}-${cmd.inc.startCount}` } } } as PeerMessage;
      };
    },
  },
  {
    name: 'a rebooted victim is admitted while an off against its last life is under way (F7, trap 10)',
    expect: /^fence: .*under way/,
    seedsMax: 80,
    tune: (o) => {
      feeds(o);
      o.fence = [['bmc']];
      o.devices.stalls = 0.7;
      o.devices.actsLate = 1;
      only(o, ['reboot'], 900);
    },
    patch: () => replaceGetter(FenceRun.prototype, 'isUnderWay', () => false),
  },
  {
    name: 'a node without a vote is nominated, and masters',
    expect: /^servers: /,
    seedsMax: 3,
    tune: (o) => {
      servers(o);
      only(o, [], 0);
    },
    patch: () => alterDomainView((view) => ({ ...view, servers: view.members.map((m) => m.node) })),
  },
  {
    name: 'two servers master one name: the nominee of a new epoch does not hear who masters it since an earlier one',
    expect: /^(one master|S1|S2|S3): |threw/,
    seedsMax: 20,
    tune: (o) => {
      servers(o);
      only(o, ['stop', 'crash'], 600);
      o.nodeOwnedShare = 0;
    },
    world: (w) =>
      alterLock(w, (m, from, to) =>
        m.k === 'MasterReply' && from <= w.options.voters && to <= w.options.voters && (m.answer === 1 || m.answer === 3)
          ? { ...m, answer: 0, owner: 0, gen: 0 }
          : m,
      ),
  },
  {
    name: 'without a living server the others master among themselves',
    expect: /^servers: /,
    seedsMax: 40,
    tune: (o) => {
      servers(o);
      o.voters = 1;
      o.nodes = 3;
      o.fence = [['self']];
      o.nodeOwnedShare = 0;
      o.hotShare = 0.3;
      only(o, ['stop'], 300);
    },
    patch: () => alterDomainView((view) => (view.servers.length === 0 ? { ...view, mastery: 'peer' } : view)),
  },
  {
    name: 'a node that has lost its vote goes on as a server',
    expect: /^(servers|one master|S1|S2|S3): |threw/,
    seedsMax: 20,
    tune: (o) => {
      servers(o);
      o.nodes = 6;
      o.voters = 5;
      o.voteEveryMs = 300;
      only(o, [], 0);
    },
    patch: () => {
      const had = new WeakMap<object, Set<number>>();
      return alterDomainView((view, engine) => {
        const ever = had.get(engine) ?? new Set<number>();
        had.set(engine, ever);
        for (const id of view.servers) ever.add(id);
        return { ...view, servers: view.members.map((m) => m.node).filter((id) => ever.has(id)) };
      });
    },
  },
  {
    name: 'a machine that ends itself counts as ended as soon as its lease is over (rule 2)',
    expect: /^(fence: .*never off|S1: )/,
    seedsMax: 60,
    tune: (o) => {
      feeds(o);
      o.fence = [['self']];
      o.selfEndMs = 2000;
      o.nodeOwnedShare = 0.4;
      o.nodeOwnedMs = 20_000;
      o.hotShare = 1;
    },
    patch: () =>
      replace(
        FenceRun.prototype,
        'tick',
        (old) =>
          function (this: FenceRun, now, facts) {
            return old.call(this, now, { ...facts, node: { ...facts.node, armedMs: Math.min(1, facts.node.armedMs) } });
          },
      ),
  },
  {
    name: 'a file is called open before the journal has it (rule 6)',
    expect: /^S5: .*rule 6/,
    seedsMax: 150,
    tune: filesOnly,
    patch: () =>
      replace(
        Engine.prototype,
        'setInUse',
        (old) =>
          function (this: Engine, now, lock, isInUse, recorded): void {
            old.call(this, now, lock, isInUse, () => {});
            recorded(true);
          },
      ),
  },
];

type AskingRun = { step: string; ask(step: 'off' | 'verify', methods: readonly string[]): void };
/** The private half of FenceRun that two bugs break. */
const Asking = FenceRun.prototype as unknown as AskingRun;

/** Devices at work, few other faults, locks of nodes too where no device lies. */
function feeds(o: SimOptions): void {
  busy(o);
  only(o, ['isolate', 'pause', 'crash'], 700);
  o.fence = [['psu1', 'psu2']];
  o.fenceFail = 0;
  o.fenceLate = 0;
  o.fenceMs = 50;
  o.nodeOwnedShare = 0;
  o.devices = { lies: 0, wrong: 0, stalls: 0, actsLate: 0, cycles: 0, fencerDies: 0 };
  o.fenceOrderMs = 0;
  o.selfEndMs = 0;
}

/** What was off once in this operation is not asked again, at `off` and at the second look. */
function remembered(): () => void {
  const done = new WeakMap<object, Set<string>>();
  const knownOf = (run: object): Set<string> => {
    const known = done.get(run) ?? new Set();
    done.set(run, known);
    return known;
  };
  const undo = [
    replace(
      Asking,
      'ask',
      (old) =>
        function (this: AskingRun, step, methods): void {
          this.step = step;
          const known = knownOf(this);
          const left = methods.filter((m) => !known.has(m));
          if (left.length > 0) old.call(this, step, left);
        },
    ),
    replace(
      FenceRun.prototype,
      'done',
      (old) =>
        function (this: FenceRun, op, ok, detail): boolean {
          const method = (this as unknown as { waiting: Map<number, string> }).waiting.get(op);
          if (ok && method !== undefined) knownOf(this).add(method);
          return old.call(this, op, ok, detail);
        },
    ),
  ];
  return () => {
    for (const u of undo) u();
  };
}

export function replaceGetter<T extends object>(of: T, key: keyof T, get: (this: T) => unknown): () => void {
  const old = Object.getOwnPropertyDescriptor(of, key);
  Object.defineProperty(of, key, { get, configurable: true });
  return () => {
    if (old) Object.defineProperty(of, key, old);
  };
}

/** A leader that takes its own disk and its own voice for a majority. */
function loneCommit(): () => void {
  const undo = [
    replace(LeaderLeases.prototype, 'leaseEnd', () => (now: number) => now + 3000),
    replace(Raft.prototype as unknown as { hearsQuorum(): boolean }, 'hearsQuorum', () => () => true),
    replace(
      Replication.prototype as unknown as { matchOf(node: number): number; durable: { stable: number } },
      'matchOf',
      () =>
        function (this: { durable: { stable: number } }): number {
          return this.durable.stable;
        },
    ),
  ];
  return () => {
    for (const u of undo) u();
  };
}

/** The node knows the name, and nobody holds or waits for it there: it is on its way to be forgotten. */
function isUnused(world: World, node: number, dom: number, name: string): boolean {
  const core = world.node(node).life?.core;
  if (!(core instanceof NodeCore)) return false;
  const res = core.engine.state.byDom.get(dom)?.resources.get(name);
  return res !== undefined && res.localCount === 0 && !res.hasQueues;
}

/** Mounts whose daemons are killed all the time. */
function filesOnly(options: SimOptions): void {
  busy(options);
  only(options, ['crash'], 300);
  options.fence = [['script']];
  options.nodeOwnedShare = 0.5;
  options.fileShare = 1;
  options.diskMs = 10;
}

/** Three servers and two clients. */
function servers(options: SimOptions): void {
  busy(options);
  options.mastery = 'servers';
  options.nodes = 5;
  options.sessionsPerNode = 2;
}

/** Every engine gets another domain view than the log has. */
function alterDomainView(change: (view: DomainView, engine: object) => DomainView): () => void {
  type Inner = { applyDomain(view: DomainView): void };
  return replace(
    Engine.prototype as unknown as Inner,
    'applyDomain',
    (old) =>
      function (this: Inner, view: DomainView): void {
        old.call(this, change(view, this));
      },
  );
}
