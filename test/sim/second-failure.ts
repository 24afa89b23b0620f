/**
 * A second failure at every step of what follows a first one.
 *
 * The problem: random faults seldom meet the few steps of a recovery, a hand-over, a fencing or a join, and the design's worst
 * mistakes live exactly there. The idea: a scene is played once, and every step in it that is more than a heartbeat is noted by its
 * number of events; then it is played again for each of these steps, up to just there, with a second failure at that moment.
 * The simulator is deterministic, so the part before is the same each time. After that the world heals, and all must hold: the
 * checkers of S1 to S5, every request ends, every name can be locked from every node (L1, L2).
 */
import { NodeCore } from '../../src/core/node-core.js';
import { EX, PR } from '../../src/protocol/modes.js';
import { Lab } from './lab.js';
import type { SimNode } from './node.js';
import type { SimOptions } from './options.js';

/** One scene: a cluster with locks, and the first failure. */
export interface Scene {
  name: string;
  nodes: number;
  options?: Partial<SimOptions>;
  /** The first failure. Returns when it has begun, not when it is over. */
  begin(lab: Lab): void;
  /** What follows the first failure is over. */
  isOver(lab: Lab): boolean;
  /** Undoes what does not end by itself. */
  mend?(lab: Lab): void;
}

export interface SecondFailure {
  name: string;
  strike(lab: Lab): void;
}

/** Heartbeats and leases go on all the time: a step of the scene is anything else that happened. */
const IDLE_WORDS = /^ *[\d.]+ \S+ (Heartbeat|HeartbeatAck|Lease|BootProbe|lease)\b/;
const SCENE_MS_MAX = 40_000;

/** Owners on every node: held and waited for, shared and exclusive, with value blocks, mastered on different nodes. */
function furnish(lab: Lab): void {
  const { nodes } = lab.world;
  for (const n of nodes) {
    for (let i = 0; i < 2; i++) {
      const o = lab.hold(n.id, `own-${n.id}-${i}`, EX, { lvb: true });
      n.owners.write(o);
    }
    lab.hold(n.id, 'shared', PR);
  }
  for (const n of nodes) {
    for (const other of nodes) if (other !== n) lab.ask(n.id, `own-${other.id}-0`, EX, { lvb: true });
  }
  lab.advance(20);
}

function newLab(scene: Scene, seed: number): Lab {
  const lab = new Lab(scene.nodes, { seed, freeze: false, delayMs: 2, diskMs: 2, drift: 0.02, ...scene.options });
  furnish(lab);
  return lab;
}

/** Numbers of events, counted from the first failure, after which something happened that belongs to the scene. */
export function stepsOf(scene: Scene, seed: number): number[] {
  const lab = newLab(scene, seed);
  const { world } = lab;
  const steps = new Set<number>([0]);
  scene.begin(lab);
  const start = world.events;
  const end = world.queue.now + SCENE_MS_MAX;
  world.trace.print = (line) => {
    if (!IDLE_WORDS.test(line)) steps.add(world.events + 1 - start);
  };
  while (!scene.isOver(lab)) {
    if (world.queue.now > end) throw new Error(`${scene.name}: not over after ${SCENE_MS_MAX} ms`);
    if (world.queue.step(end)) world.events++;
    lab.check();
  }
  world.trace.print = null;
  return [...steps].sort((a, b) => a - b);
}

/** Plays the scene up to `step` events after the first failure, strikes, heals. Null, or what was broken. */
export function playWith(
  scene: Scene,
  seed: number,
  second: SecondFailure,
  step: number,
  plant?: (lab: Lab) => void,
): string | null {
  const lab = newLab(scene, seed);
  plant?.(lab);
  const { world } = lab;
  scene.begin(lab);
  const end = world.queue.now + SCENE_MS_MAX;
  for (let i = 0; i < step && world.failure === null; i++) if (world.queue.step(end)) world.events++;
  if (world.failure === null) second.strike(lab);
  // Long enough for leases to end and fencing to begin, before everything is mended.
  if (world.failure === null) world.runFor(2 * lab.leaseMs);
  if (world.failure === null) scene.mend?.(lab);
  if (world.failure === null) world.finish();
  if (world.failure === null) return null;
  return `seed ${seed}: ${scene.name}, then ${second.name} after ${step} events: ${world.failure}\n${world.trace.tail(80).join('\n')}`;
}

function living(lab: Lab): SimNode[] {
  return lab.world.nodes.filter((n) => n.life !== null);
}

/** The living node that leads, or the lowest. */
function leader(lab: Lab): SimNode | undefined {
  return living(lab).find((n) => n.id === lab.leader) ?? living(lab)[0];
}

/** The living node with the highest number that does not lead. */
function follower(lab: Lab): SimNode | undefined {
  const others = living(lab).filter((n) => n !== leader(lab));
  return others[others.length - 1] ?? leader(lab);
}

function crash(lab: Lab, node: SimNode | undefined): void {
  if (!node) return;
  node.crash('second failure');
  lab.world.bootLater(node, 300);
}

export const SECOND_FAILURES: readonly SecondFailure[] = [
  { name: 'the leader dies', strike: (lab) => crash(lab, leader(lab)) },
  { name: 'a member dies', strike: (lab) => crash(lab, follower(lab)) },
  {
    name: 'the machine of a member goes off',
    strike: (lab) => {
      const node = follower(lab);
      node?.powerOff('second failure');
      if (node) lab.world.bootLater(node, 1500);
    },
  },
  {
    name: 'a member is cut off',
    strike: (lab) => {
      const node = follower(lab);
      if (!node) return;
      lab.isolate(node.id);
      lab.world.queue.after(1.5 * lab.leaseMs, () => lab.rejoin(node.id));
    },
  },
  {
    name: 'all connections break',
    strike: (lab) => {
      for (const a of lab.world.nodes) for (const b of lab.world.nodes) if (a.id < b.id) lab.world.network.cut(a.id, b.id);
    },
  },
  {
    name: 'a queue between two members overflows',
    strike: (lab) => {
      const [a, b] = [leader(lab), follower(lab)];
      if (!a?.life || !b || a === b) return;
      a.life.ends.get(b.id)?.link.reset();
      lab.world.network.cut(a.id, b.id);
    },
  },
  { name: 'the leader stands still', strike: (lab) => leader(lab)?.pause(1.3 * lab.leaseMs) },
  { name: 'a member stops cleanly', strike: (lab) => stop(lab, follower(lab)) },
];

function stop(lab: Lab, node: SimNode | undefined): void {
  if (node) lab.world.stopNode(node);
}

/** Every node that is not `gone` is a member, and no resource waits for a new master. */
function isSettled(lab: Lab, gone: number): boolean {
  return lab.world.nodes.every((n) => {
    if (n.id === gone) return true;
    if (n.life === null || !lab.world.isMember(n.id)) return false;
    const { nodes, domains } = n.life.core.view;
    const state = nodes.find((v) => v.id === gone)?.state;
    if (gone !== 0 && state !== 'evicted' && state !== 'left') return false;
    if (gone === 0 && nodes.some((v) => v.state !== 'in')) return false;
    const { core } = n.life;
    if (!(core instanceof NodeCore) || domains.length === 0) return false;
    return [...core.engine.state.domains.values()].every((d) => !d.isRecovering);
  });
}

const SCRIPT: Partial<SimOptions> = { fence: [['script']], fenceMs: 50 };

export const SCENES: readonly Scene[] = [
  {
    name: 'recovery of a dead master, fenced by its lease',
    nodes: 3,
    begin: (lab) => lab.world.node(3).crash('first failure'),
    isOver: (lab) => isSettled(lab, 3),
  },
  {
    name: 'recovery of a dead machine among five',
    nodes: 5,
    begin: (lab) => lab.world.node(4).powerOff('first failure'),
    isOver: (lab) => isSettled(lab, 4),
  },
  {
    name: 'fencing of a machine by a script',
    nodes: 4,
    options: SCRIPT,
    begin: (lab) => lab.isolate(3),
    mend: (lab) => lab.rejoin(3),
    isOver: (lab) => isSettled(lab, 3),
  },
  {
    name: 'a clean leave with its hand-over',
    nodes: 3,
    begin: (lab) => lab.world.stopNode(lab.world.node(2)),
    isOver: (lab) => isSettled(lab, 2),
  },
  {
    name: 'a restarted daemon joins again',
    nodes: 3,
    begin: (lab) => {
      lab.world.node(2).crash('first failure');
      lab.world.node(2).start();
    },
    isOver: (lab) => isSettled(lab, 0),
  },
];
