/**
 * What the engine knows, as plain data: one function family shared by the state dump, `show`, `ls` and the simulator's
 * checkers. Reads only.
 */
import type { MasteryPolicy } from '../membership/types.js';
import { type NodeId, tokenToBigInt } from '../protocol/ids.js';
import { type Mode, modeName } from '../protocol/modes.js';
import type { MasteredCounts } from './counters.js';
import type { Domain } from './domain.js';
import type { Engine } from './engine.js';
import type { Lock } from './lock.js';
import { type LockRes, RES_OWNED } from './lockres.js';

const RES_STATES = ['mastering', 'owned', 'rebuilding', 'dropping', 'orphaned'] as const;
const LOCK_STATES = ['remote', 'new', 'locking', 'held', 'converting', 'unlocking', 'gone'] as const;

export interface LockDump {
  id: number;
  node: number;
  mode: Mode | -1;
  want: Mode | -1;
  state: string;
  token: string;
  who: string;
  why: string;
  sinceMs: number;
  isNodeOwned: boolean;
}

export interface ResourceDump {
  domain: string;
  name: string;
  state: string;
  master: number;
  gen: number;
  lvbState: number;
  refs: number[];
  /** Empty unless this node masters the resource. */
  granted: LockDump[];
  converting: LockDump[];
  blocked: LockDump[];
  localCount: number;
  /** Of the whole queues, also where the lists above are cut. */
  holders: number;
  waiting: number;
}

/** Locks of one queue that one answer to another node may carry (its frame has a limit). */
const QUEUE_SHOWN_MAX = 1000;

function dumpLock(lock: Lock, now: number): LockDump {
  return {
    id: lock.id,
    node: lock.node,
    mode: lock.mode,
    want: lock.want,
    state: LOCK_STATES[lock.st],
    token: tokenToBigInt(lock.te, lock.tc).toString(),
    who: lock.who,
    why: lock.why,
    sinceMs: Math.max(0, Math.round(now - lock.since)),
    isNodeOwned: lock.nodeOwned,
  };
}

export function dumpResource(res: LockRes, now: number, queueMax = QUEUE_SHOWN_MAX): ResourceDump {
  const list = (locks: Lock[]): LockDump[] => locks.slice(0, queueMax).map((lock) => dumpLock(lock, now));
  return {
    domain: res.domain.name,
    name: res.name,
    state: RES_STATES[res.state],
    master: res.owner,
    gen: res.gen,
    lvbState: res.lvbState,
    refs: [...(res.refs ?? [])].sort((a, b) => a - b),
    granted: list(res.granted.toArray()),
    converting: list(res.converting.toArray()),
    blocked: list(res.blocked.toArray()),
    localCount: res.localCount,
    holders: res.granted.length + res.converting.length,
    waiting: res.converting.length + res.blocked.length,
  };
}

/** The resource of that name if this node masters it, else null. */
export function masteredResource(engine: Engine, domainName: string, name: string): ResourceDump | null {
  const s = engine.state;
  const res = s.domains.get(domainName)?.resources.get(name);
  if (!res || res.owner !== s.self || res.state !== RES_OWNED) return null;
  return dumpResource(res, s.now);
}

/** Resources mastered here in (domain, name) order, after `after` (= domain NUL name), at most `max`. */
export function masteredResources(engine: Engine, domainName: string | null, after: string, max: number): ResourceDump[] {
  const s = engine.state;
  const keys: { key: string; res: LockRes }[] = [];
  for (const domain of s.domains.values()) {
    if (domainName !== null && domain.name !== domainName) continue;
    for (const res of domain.resources.values()) {
      if (res.owner !== s.self || !res.hasQueues) continue;
      const key = `${domain.name}\0${res.name}`;
      if (key > after) keys.push({ key, res });
    }
  }
  keys.sort((a, b) => (a.key < b.key ? -1 : 1));
  return keys.slice(0, max).map(({ res }) => dumpResource(res, s.now, 2));
}

/** Locks of local owners: granted ones and waiting requests. */
export function countLocal(engine: Engine): { held: number; waiting: number } {
  let held = 0;
  let waiting = engine.state.waiting.size;
  for (const lock of engine.state.own.values()) {
    if (lock.mode !== -1) held++;
    else waiting++;
  }
  return { held, waiting };
}

/** Walks all resources that this node masters: some ten milliseconds for a million. */
export function countMastered(engine: Engine): MasteredCounts {
  const s = engine.state;
  const counts: MasteredCounts = { resources: 0, nl: 0, pr: 0, ex: 0, converting: 0, blocked: 0 };
  for (const domain of s.domains.values()) {
    for (const res of domain.resources.values()) {
      if (res.owner !== s.self || res.state !== RES_OWNED) continue;
      counts.resources++;
      counts.pr += res.grantedPr;
      counts.ex += res.grantedEx;
      counts.nl += res.granted.length + res.converting.length - res.grantedPr - res.grantedEx;
      counts.converting += res.converting.length;
      counts.blocked += res.blocked.length;
    }
  }
  return counts;
}

/** Locks of local owners by mode, waiting requests, and how many of the held ones the node itself owns. */
export function countOwned(engine: Engine): { nl: number; pr: number; ex: number; waiting: number; nodeOwned: number } {
  const counts = { nl: 0, pr: 0, ex: 0, waiting: engine.state.waiting.size, nodeOwned: 0 };
  for (const lock of engine.state.own.values()) {
    if (lock.mode === -1) counts.waiting++;
    else {
      if (lock.mode === 0) counts.nl++;
      else if (lock.mode === 1) counts.pr++;
      else counts.ex++;
      if (lock.nodeOwned) counts.nodeOwned++;
    }
  }
  return counts;
}

/** The domains of this node: who is in them, who may master, whether a recovery runs. */
export function listDomains(
  engine: Engine,
): { name: string; mastery: MasteryPolicy; epoch: number; members: NodeId[]; masters: NodeId[]; isRecovering: boolean }[] {
  return [...engine.state.domains.values()].map(({ name, mastery, epoch, memberIds, masterIds, isRecovering, toRebuild }) => ({
    name,
    mastery,
    epoch,
    members: [...memberIds],
    masters: [...masterIds],
    isRecovering: isRecovering || toRebuild.size > 0,
  }));
}

function dumpDomain(domain: Domain, now: number): Record<string, unknown> {
  return {
    dom: domain.dom,
    name: domain.name,
    epoch: domain.epoch,
    mastery: domain.mastery,
    masters: [...domain.masterIds],
    members: domain.members.map((m) => ({ ...m })),
    leaving: domain.leaving.map((m) => ({ ...m })),
    away: domain.away.map((m) => ({ ...m })),
    isInGrace: domain.isInGrace,
    isRecovering: domain.isRecovering,
    isDoneSent: domain.isDoneSent,
    doneFrom: [...domain.doneFrom],
    unconfirmed: [...domain.unconfirmed].map((r) => r.name).slice(0, 100),
    handing: [...domain.handing.keys()].slice(0, 100),
    toRebuild: domain.toRebuild.size,
    parked: domain.parked.length,
    ahead: domain.ahead.length,
    tainted: [...domain.tainted.keys()],
    rounds: [...domain.mles.values()].slice(0, 100).map((m) => ({
      name: m.name,
      isAsking: m.isAsking,
      pending: [...m.pending],
      rivals: [...m.rivals],
    })),
    resources: [...domain.resources.values()].slice(0, 1000).map((res) => dumpResource(res, now, 100)),
    resourceCount: domain.resources.size,
  };
}

/** Everything, bounded. */
export function dumpEngine(engine: Engine): Record<string, unknown> {
  const s = engine.state;
  return {
    self: s.self,
    startCount: s.startCount,
    isLeased: s.isLeased,
    clock: { epoch: s.clock.epoch, counter: s.clock.counter },
    own: [...s.own.values()].slice(0, 1000).map((lock) => ({ ...dumpLock(lock, s.now), domain: lock.domain, name: lock.name })),
    ownCount: s.own.size,
    waiting: [...s.waiting].slice(0, 100).map((lock) => ({ id: lock.id, domain: lock.domain, name: lock.name, want: lock.want })),
    domains: [...s.domains.values()].map((d) => dumpDomain(d, s.now)),
    modes: { 0: modeName(0), 1: modeName(1), 2: modeName(2) },
  };
}
