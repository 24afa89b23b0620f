/**
 * What goes wrong in a chaos run: each fault begins, lasts a while and is healed by itself. All choices come from one seed.
 *
 * Times are drawn around the lease, for that is where it is decided whether somebody is only slow or over.
 */
import { setTimeout as pause } from 'node:timers/promises';
import type { Prng } from '../sim/prng.js';
import { hasFaketime, type Machine } from './machine.js';
import type { Net } from './net.js';

export interface FaultContext {
  machines: readonly Machine[];
  net: Net;
  random: Prng;
  leaseMs: number;
  /** Path of the power switch. */
  script: string;
  note(text: string): void;
}

/** Weights of the kinds. */
const WEIGHTS = {
  killDaemon: 4,
  killClient: 3,
  stopDaemon: 3,
  stopClient: 3,
  stopMachine: 2,
  leave: 2,
  restart: 3,
  reset: 2,
  unplug: 3,
  oneWay: 3,
  half: 2,
  split: 2,
  refuse: 1,
  flap: 2,
  clock: 2,
  restartAll: 0.4,
};
/** A restart that finds no quorum may wait for one. */
const RESTART_MS_MAX = 20_000;
export type FaultKind = keyof typeof WEIGHTS;

/** Kinds that need a machine which no other fault has in its hands. */
const NEEDS_MACHINE: ReadonlySet<FaultKind> = new Set([
  'killDaemon',
  'killClient',
  'stopDaemon',
  'stopClient',
  'stopMachine',
  'leave',
  'restart',
  'reset',
]);

export function drawKind(random: Prng): FaultKind {
  const kind = random.weighted(WEIGHTS);
  return kind === 'clock' && !hasFaketime ? 'oneWay' : kind;
}

/** Performs one fault; resolves when it is healed. False when it was not possible now. */
export async function perform(kind: FaultKind, c: FaultContext): Promise<boolean> {
  const { random, machines } = c;
  if (kind === 'restartAll') return restartAll(c);
  if (!NEEDS_MACHINE.has(kind)) return onNetwork(kind, c);
  const machine = random.pick(machines);
  // Drawn before anything is looked at: the choices of a seed do not depend on how the run goes.
  const lasts = duration(c);
  const at = random.int(machine.clients.length);
  if (machine.isBusy || machine.isOff) return false;
  machine.isBusy = true;
  try {
    c.note(`${kind} ${machine.name} for ${Math.round(lasts)} ms`);
    await onMachine(kind, machine, at, lasts, c);
    return true;
  } finally {
    machine.isBusy = false;
  }
}

/** Mostly short, sometimes well past lease and margin. */
function duration({ random, leaseMs }: FaultContext): number {
  return random.chance(0.6) ? random.between(0, leaseMs) : random.between(leaseMs, 3 * leaseMs);
}

async function onMachine(kind: FaultKind, machine: Machine, at: number, lasts: number, c: FaultContext): Promise<void> {
  const { daemon } = machine;
  const client = machine.clients[at] ?? null;
  switch (kind) {
    case 'killDaemon':
      await machine.end(daemon, 'SIGKILL');
      await pause(lasts);
      machine.startDaemon();
      break;
    case 'leave':
      await machine.end(daemon, 'SIGTERM');
      await pause(lasts);
      machine.startDaemon();
      break;
    case 'restart':
      if (!(await machine.askRestart(RESTART_MS_MAX)))
        c.note(`restart of ${machine.name} did not come to its end, it was killed`);
      await pause(lasts / 2);
      machine.startDaemon();
      break;
    case 'killClient':
      await machine.end(client, 'SIGKILL');
      await pause(lasts / 2);
      machine.startClient(at);
      break;
    case 'stopDaemon':
    case 'stopClient':
    case 'stopMachine': {
      const stopped = kind === 'stopDaemon' ? [daemon] : kind === 'stopClient' ? [client] : machine.processes;
      for (const child of stopped) machine.signal(child, 'SIGSTOP');
      await pause(lasts);
      for (const child of stopped) machine.signal(child, 'SIGCONT');
      break;
    }
    case 'reset':
      machine.powerOff(c.script);
      await pause(lasts);
      machine.powerOn();
      break;
  }
}

async function onNetwork(kind: FaultKind, c: FaultContext): Promise<boolean> {
  const { random, net, machines } = c;
  const lasts = duration(c);
  const ids = random.shuffle(machines.map((m) => m.id));
  const [a = 1, b = 2] = ids;
  const heals: (() => Promise<void>)[] = [];
  c.note(`${kind} ${ids.join(' ')} for ${Math.round(lasts)} ms`);
  switch (kind) {
    case 'unplug':
      heals.push(await net.unplug(a));
      break;
    case 'oneWay':
      // To one, or to all others.
      for (const to of random.chance(0.5) ? [b] : ids.slice(1)) heals.push(await net.cut(a, to));
      break;
    case 'refuse':
      heals.push(await net.refuse(a, b));
      break;
    case 'half':
      heals.push(await net.cut(a, b), await net.cut(b, a));
      break;
    case 'split': {
      const size = 1 + random.int(ids.length - 1);
      for (const one of ids.slice(0, size)) {
        for (const other of ids.slice(size)) heals.push(await net.cut(one, other), await net.cut(other, one));
      }
      break;
    }
    case 'flap':
      for (let times = 3 + random.int(8); times > 0; times--) {
        const plug = await net.unplug(a);
        await pause(random.int(250));
        await plug();
        await pause(random.int(250));
      }
      return true;
    case 'clock': {
      const machine = machines[a - 1];
      const seconds = random.pick([1, 60, 3600, 86_400, 400 * 86_400]) * (random.chance(0.5) ? 1 : -1);
      c.note(`clock of ${machine?.name} by ${seconds} s`);
      machine?.setClock(seconds);
      await pause(lasts);
      if (random.chance(0.7)) machine?.setClock(0);
      return true;
    }
  }
  await pause(lasts);
  for (const heal of heals) await heal();
  return true;
}

/** The whole cluster is killed, and comes back one after the other. */
async function restartAll(c: FaultContext): Promise<boolean> {
  const { machines, random } = c;
  const pauses = machines.map(() => random.between(0, c.leaseMs));
  if (machines.some((m) => m.isBusy || m.isOff)) return false;
  c.note('restartAll');
  for (const machine of machines) machine.isBusy = true;
  try {
    await Promise.all(machines.map((machine) => machine.end(machine.daemon, 'SIGKILL')));
    for (const [i, machine] of random.shuffle([...machines]).entries()) {
      await pause(pauses[i]);
      machine.startDaemon();
    }
  } finally {
    for (const machine of machines) machine.isBusy = false;
  }
  return true;
}
