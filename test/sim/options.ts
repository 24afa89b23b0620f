/**
 * The problem: one seed must decide everything, and the same seed must be runnable with parts switched off while a
 * failure is being understood.
 * The idea: all sizes, rates and fault kinds are drawn here, once, into plain data that is printed with a failure and may
 * be overridden by name.
 */

import { duelGapMs, type FenceDelay } from '../../src/membership/duel.js';
import { deriveTimeLimits, type TimeLimits } from '../../src/membership/time-limits.js';
import type { MasteryPolicy } from '../../src/membership/types.js';
import { Prng } from './prng.js';

export const FAULT_KINDS = [
  'crash',
  'reboot',
  'pause',
  'cut',
  'flap',
  'isolate',
  'split',
  'oneWay',
  'halfPartition',
  'clog',
  'slowDisk',
  'restartAll',
  'majorityLoss',
  'stop',
  'cleanRestart',
] as const;
/** Faults of clusters of two, drawn apart: a machine that stays off, a start of both of which one comes late, a long cut. */
export const PAIR_FAULTS = ['gone', 'coldOne', 'severed'] as const;
export type FaultKind = (typeof FAULT_KINDS)[number] | (typeof PAIR_FAULTS)[number];

/** What the person does who changes the node table (table.ts). */
export const TABLE_KINDS = ['limits', 'vote', 'wipe', 'retire', 'spare'] as const;

export interface SimOptions {
  seed: number;
  nodes: number;
  voters: number;
  domains: number;
  sessionsPerNode: number;
  /** Virtual time with workload and faults, ms. */
  faultPhaseMs: number;
  /** Faults start after this, ms (the cluster forms in the meantime). */
  calmMs: number;
  /** Mean time between two faults, ms; 0 = none. */
  faultEveryMs: number;
  /** Weight of each kind; 0 = never. */
  faults: Record<FaultKind, number>;
  /** Largest deviation of a node's clock rate from 1. */
  drift: number;
  /** Mean one-way delay of a message, ms. */
  delayMs: number;
  /** Share of messages with a ten times longer delay. */
  slowShare: number;
  /** Mean time of a synced write, ms. */
  diskMs: number;
  /** Mean pause of a session between two actions, ms. */
  thinkMs: number;
  hotNames: number;
  hotShare: number;
  /** Share of requests that use the value block. */
  lvbShare: number;
  /** Share of requests that are owned by the node (only where a method that ends the machine exists). */
  nodeOwnedShare: number;
  /** Mean time that a node keeps a lock it owns, ms. */
  nodeOwnedMs: number;
  /** Share of looks at a held lock that convert it. */
  convertShare: number;
  /** Share of blocking notices that a session heeds. */
  giveWayShare: number;
  tryShare: number;
  deadlineShare: number;
  /** Share of actions in which a session dies. */
  dieShare: number;
  /** Fence levels of every node. */
  fence: string[][];
  /** Probability that a run of the fence script fails without effect, and with effect but no answer in time. */
  fenceFail: number;
  fenceLate: number;
  /** Mean time of the fence script, ms. */
  fenceMs: number;
  /** What else fence devices do, each a probability per run; `lies` and `wrong` only where no lock is node-owned and a lease ends. */
  devices: {
    /** Says "off" and does nothing. */
    lies: number;
    /** Says "off" and has switched off another machine. */
    wrong: number;
    /** Does not answer within its time limit. */
    stalls: number;
    /** A stalled one acts after it was given up. */
    actsLate: number;
    /** A feed switches itself on again. */
    cycles: number;
    /** The fencer's daemon dies between the answer to `off` and the second look. */
    fencerDies: number;
  };
  /** > 0: every machine is armed to end itself within so many ms after its node's lease. */
  selfEndMs: number;
  /** Waited before each node is fenced by its peer alone, by node; empty = nothing. */
  fenceDelays: FenceDelay[];
  /** Mean time between two orders to fence a member, ms; 0 = none. */
  fenceOrderMs: number;
  limits: TimeLimits;
  /** Entries kept behind a snapshot; small values make snapshots travel. */
  logKeep: number;
  /** Unused resources are forgotten after this, ms. */
  purgeMs: number;
  /** Receivers must not change messages: freeze them deeply. */
  freeze: boolean;
  /** Every message goes through the real codec. */
  codec: boolean;
  /** Machines that no configuration but their own names. */
  spares: number;
  /** The last voter owns no locks. */
  hasWitness: boolean;
  /** Mean time between two changes of the node table, ms; 0 = none. */
  tableEveryMs: number;
  tableKinds: (typeof TABLE_KINDS)[number][];
  /** Virtual time after healing in which everything must have ended, ms. */
  healMs: number;
  /** Who may master, in all domains. */
  mastery: MasteryPolicy;
  /** Mean time between two changes of who votes, ms; 0 = none. */
  voteEveryMs: number;
  /** Share of sessions that live on through a restart of their daemon and claim what they had. */
  reclaimShare: number;
  /** How long a restart may take, ms. */
  restartMs: number;
  /** What one step of a recovery does at most (EngineTuning.sliceOps), and the mean time between two of them, ms. */
  sliceOps: number;
  sliceMs: number;
  /** Locks in one registration, and registrations under way to one node. */
  registerBatch: number;
  registerWindow: number;
  /** Share of node-owned locks that belong to a mount, with files that are opened and closed under them. */
  fileShare: number;
}

export const LIMITS = deriveTimeLimits({ heartbeatMs: 250, leaseMs: 3000 });
export const SHORT_LIMITS = deriveTimeLimits({ heartbeatMs: 100, leaseMs: 1200, suspectMs: 300, deadMs: 700 });

function noFaults(): Record<FaultKind, number> {
  return Object.fromEntries([...FAULT_KINDS, ...PAIR_FAULTS].map((k) => [k, 0])) as Record<FaultKind, number>;
}

/** Everything that `seed` decides. */
export function drawOptions(seed: number): SimOptions {
  const r = new Prng(seed, 1);
  const nodes = r.pick([1, 2, 3, 3, 3, 3, 3, 4, 5, 5, 6, 7]);
  const voters = nodes <= 2 || r.chance(0.7) ? nodes : r.pick([1, 3].filter((v) => v <= nodes));
  const isLong = r.chance(0.015);
  const limits = r.chance(0.5) ? SHORT_LIMITS : LIMITS;
  const faults = noFaults();
  const kinds = r.shuffle(FAULT_KINDS.filter((k) => k !== 'cleanRestart')).slice(0, 1 + r.int(5));
  for (const kind of kinds) faults[kind] = kind === 'restartAll' || kind === 'majorityLoss' ? 0.4 : 0.5 + r.float();
  const hasScript = r.chance(0.5);
  const fence = hasScript ? (r.chance(0.5) ? [['script'], ['self']] : [['script']]) : [['self']];
  const isQuiet = r.chance(0.08);
  const options: SimOptions = {
    seed,
    nodes,
    voters,
    domains: r.pick([1, 1, 1, 2, 3]),
    sessionsPerNode: r.pick([1, 2, 2, 3, 4]),
    faultPhaseMs: (isLong ? 30_000 : r.between(4000, 9000)) * (limits === LIMITS ? 1 : 0.7),
    calmMs: r.chance(0.3) ? 0 : 1000,
    faultEveryMs: isQuiet ? 0 : r.pick([400, 800, 1500, 1500, 3000]),
    faults,
    drift: r.pick([0, 0.01, 0.05, 0.08]),
    delayMs: r.pick([0.3, 1, 1, 5, 20]),
    slowShare: r.pick([0, 0.01, 0.1]),
    diskMs: r.pick([1, 3, 10]),
    thinkMs: r.pick([30, 60, 120, 200]),
    hotNames: r.pick([1, 2, 3, 6]),
    hotShare: r.pick([0.5, 0.8, 0.95]),
    lvbShare: r.pick([0, 0.4, 0.9]),
    nodeOwnedShare: hasScript ? r.pick([0, 0.05, 0.2]) : 0,
    convertShare: 0.4,
    giveWayShare: 0.7,
    nodeOwnedMs: 600,
    tryShare: r.pick([0, 0.1, 0.3]),
    deadlineShare: r.pick([0, 0.2, 0.5]),
    dieShare: r.pick([0, 0.01, 0.05]),
    fence,
    fenceFail: r.pick([0, 0.2, 0.5]),
    fenceLate: r.pick([0, 0.1]),
    fenceMs: r.pick([50, 300, 1500]),
    limits,
    logKeep: r.pick([5, 20, 1000]),
    purgeMs: r.pick([50, 300, 1000, 8000]),
    freeze: r.chance(0.1),
    codec: r.chance(0.03),
    healMs: 40_000,
    devices: { lies: 0, wrong: 0, stalls: 0, actsLate: 0, cycles: 0, fencerDies: 0 },
    fenceOrderMs: 0,
    selfEndMs: 0,
    fenceDelays: [],
    mastery: 'peer',
    voteEveryMs: 0,
    reclaimShare: 0,
    restartMs: 0,
    fileShare: 0,
    sliceOps: 100,
    sliceMs: 0.1,
    registerBatch: 100,
    registerWindow: 4,
    spares: 0,
    hasWitness: false,
    tableEveryMs: 0,
    tableKinds: [...TABLE_KINDS],
  };
  if (hasScript && new Prng(seed, 8).chance(0.5)) drawDevices(options);
  drawServers(options);
  drawSelfEnd(options);
  drawRestarts(options);
  if (options.voters === 2) drawPair(options);
  options.fileShare = new Prng(seed, 14).pick([0, 0.5, 1]);
  if (options.voters >= 3) drawTable(options);
  drawSlices(options);
  return options;
}

/** A node table and time limits that change, a voter without locks. Draws of its own. */
function drawTable(o: SimOptions): void {
  const r = new Prng(o.seed, 16);
  o.hasWitness = r.chance(0.15);
  if (!r.chance(0.3)) return;
  // One who changes votes is enough.
  o.voteEveryMs = 0;
  o.tableEveryMs = r.pick([300, 800, 2000]);
  o.spares = r.pick([0, 1, 1, 2]);
}

/** Recoveries in small steps. Draws of its own. */
function drawSlices(o: SimOptions): void {
  const r = new Prng(o.seed, 17);
  o.sliceOps = r.pick([1, 1, 2, 4, 16, 256]);
  o.sliceMs = r.pick([0.05, 1, 5, 20]);
  o.registerBatch = r.pick([1, 2, 100]);
  o.registerWindow = r.pick([1, 1, 2, 4]);
}

/** Restarts of daemons, and owners that live on through them. Draws of its own. */
function drawRestarts(o: SimOptions): void {
  const r = new Prng(o.seed, 12);
  o.reclaimShare = r.pick([0, 0.7, 0.95, 1]);
  o.restartMs = r.pick([600, 2000, 5000]);
  if (r.chance(0.35)) o.faults.cleanRestart = 0.5 + r.float();
}

/** Machines with a watchdog, where `self` is a level. */
function drawSelfEnd(o: SimOptions): void {
  const r = new Prng(o.seed, 10);
  if (!o.fence.some((level) => level.includes('self')) || !r.chance(0.3)) return;
  o.selfEndMs = Math.round(r.pick([0.4, 1, 2]) * o.limits.leaseMs);
  o.nodeOwnedShare = r.pick([0.05, 0.2]);
  if (o.devices.lies > 0 || o.devices.wrong > 0) o.nodeOwnedShare = 0;
}

/** What is particular of two voters that can end each other by device (rule 13). Draws of its own. */
export function drawPair(o: SimOptions): void {
  const r = new Prng(o.seed, 14);
  if (!o.fence.some((level) => !level.includes('self'))) return;
  // A survivor believes its device: against one that lies there is no second voter.
  o.devices.lies = o.devices.wrong = 0;
  const gap = duelGapMs(o.limits);
  o.fenceDelays = r.pick([
    [
      { baseMs: 0, maxMs: 0 },
      { baseMs: gap, maxMs: 0 },
    ],
    [
      { baseMs: gap, maxMs: 0 },
      { baseMs: 0, maxMs: 0 },
    ],
    [
      { baseMs: 0, maxMs: 3 * gap },
      { baseMs: 0, maxMs: 3 * gap },
    ],
    [],
  ]);
  for (const kind of PAIR_FAULTS) if (r.chance(0.4)) o.faults[kind] = 0.7;
  if (r.chance(0.5)) o.faultPhaseMs *= 2;
}

/** Devices of several kinds with faults of several kinds. Draws of its own, so that nothing above changes its meaning. */
export function drawDevices(o: SimOptions): void {
  const r = new Prng(o.seed, 6);
  o.fence = r.pick([
    [['script']],
    [['bmc']],
    [['psu1', 'psu2']],
    [['psu1', 'psu2'], ['script']],
    [['bmc'], ['psu1', 'psu2']],
    [['bmc'], ['self']],
    [['bmc'], ['manual']],
    [['manual']],
  ]);
  // Of two voters the survivor goes on by the word of its device alone (rule 13): a lie would make two of them.
  const isHonest = r.chance(0.6) || o.voters === 2;
  const some = (share: number): number => (r.chance(0.5) ? share : 0);
  o.devices = {
    lies: isHonest ? 0 : some(0.3),
    wrong: isHonest ? 0 : some(0.2),
    stalls: some(0.2),
    actsLate: r.pick([0, 0.5, 1]),
    cycles: some(0.3),
    fencerDies: some(0.3),
  };
  if (!isHonest) {
    o.nodeOwnedShare = 0;
    // Like a node-owned lock, what a node holds that only devices end (rule 20) has no second protection against a lie.
    if (!o.fence.some((level) => level.includes('self'))) o.fence = [...o.fence, ['self']];
  }
  o.fenceOrderMs = r.chance(0.3) ? 1500 : 0;
}

/** LOCK_GULM's world in some runs: only voters master, and mostly some nodes are none. Draws of its own. */
function drawServers(o: SimOptions): void {
  const r = new Prng(o.seed, 9);
  if (!r.chance(0.3)) return;
  o.mastery = 'servers';
  if (r.chance(0.8)) o.voters = r.pick([1, 3, 3, 4, 5].filter((v) => v <= Math.max(1, o.nodes - 1)));
  if (o.nodes > 3 && o.voters >= 3 && r.chance(0.5)) o.voteEveryMs = r.pick([300, 800]);
}

/** One line, the same for the same options. */
export function describeOptions(o: SimOptions): string {
  const { limits, faults, ...rest } = o;
  const on = Object.entries(faults)
    .filter(([, w]) => w > 0)
    .map(([k]) => k);
  return `${JSON.stringify({ ...rest, heartbeatMs: limits.heartbeatMs, leaseMs: limits.leaseMs, faults: on })}`;
}
