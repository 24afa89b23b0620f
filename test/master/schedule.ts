/**
 * The engine under one random schedule: three or four engines, random local requests, random delivery order
 * between pairs, deaths, restarts and leaves at random moments, each death a new view; after each step held modes must be
 * compatible, tokens must rise, a name must have one master per epoch; at the end everything waiting must be granted.
 *
 * With `isServers` the domain is of policy `servers`: some nodes vote, votes change at random moments too, and whoever masters must
 * be a server of its epoch. While no server lives nothing is granted; the end brings one.
 * With `isSliced` recoveries go in steps of a few operations, and everything else comes between them.
 */
import { dumpEngine } from '../../src/master/dump.js';
import type { LocalLock } from '../../src/master/types.js';
import { EX, isCompatible, type Mode } from '../../src/protocol/modes.js';
import { EngineWorld } from './harness.js';

function rng(seed: number): () => number {
  let a = seed >>> 0;
  return () => {
    a = (a + 0x6d2b79f5) >>> 0;
    let x = Math.imul(a ^ (a >>> 15), 1 | a);
    x = (x + Math.imul(x ^ (x >>> 7), 61 | x)) ^ x;
    return ((x ^ (x >>> 14)) >>> 0) / 4294967296;
  };
}

interface Owned {
  node: number;
  lock: LocalLock;
  /** Held mode; -1 waiting. */
  held: Mode | -1;
  isEnding: boolean;
}

export function runSchedule(seed: number, steps = 400, isServers = false, isSliced = false): string | null {
  const random = rng(seed);
  const pick = (n: number): number => Math.floor(random() * n);
  const count = 2 + pick(3);
  const drawServers = (): number[] | null => (isServers ? [1, 2, 3, 4, 5, 6].filter(() => random() < 0.5) : null);
  const world = new EngineWorld(
    Array.from({ length: count }, (_, i) => i + 1),
    drawServers(),
    isSliced ? { sliceOps: 1 + pick(3), registerBatch: 1 + pick(2), registerWindow: 1 } : {},
  );
  const owned = new Set<Owned>();
  const byLock = new Map<LocalLock, Owned>();
  const tokens = new Map<string, bigint>();
  let seen = 0;
  const names = ['a', 'b', 'c', 'd', 'e'].slice(0, 1 + pick(5));
  let killed = 0;

  const check = (): string | null => {
    for (; seen < world.events.length; seen++) {
      const e = world.events[seen];
      if (!e) break;
      const o = byLock.get(e.lock);
      if (!o || !world.engines.has(e.at)) continue;
      if (e.what === 'granted') {
        o.held = e.mode as Mode;
        if (e.mode === EX) {
          const before = tokens.get(e.lock.name) ?? 0n;
          // A grant may be announced again only for a conversion to the same mode: the token stays.
          if (e.token < before) return `token of ${e.lock.name} fell from ${before} to ${e.token}`;
          tokens.set(e.lock.name, e.token);
        }
        if (o.isEnding) o.held = -1;
      } else if (e.what === 'denied') {
        if (o.held === -1) {
          owned.delete(o);
        }
      } else if (e.what === 'released' || e.what === 'lost') {
        owned.delete(o);
      }
    }
    for (const name of names) {
      const holds = [...owned].filter((o) => o.lock.name === name && o.held !== -1);
      for (const a of holds)
        for (const b of holds)
          if (a !== b && !isCompatible(a.held as Mode, b.held as Mode))
            return `${name}: node ${a.node} holds ${a.held}, node ${b.node} holds ${b.held}`;
      const masters = world.mastersOf(name);
      if (masters.length > 1) return `${name} has masters ${masters}`;
      const odd = masters.find((node) => !world.engine(node).state.domains.get('default')?.masterIds.has(node));
      if (odd !== undefined) return `${name} is mastered by ${odd}, which is no server`;
    }
    return null;
  };

  for (let step = 0; step < steps; step++) {
    const nodes = [...world.engines.keys()];
    const node = nodes[pick(nodes.length)] as number;
    if (isSliced && random() < 0.4) world.advanceOne(nodes[pick(nodes.length)] as number);
    const dice = random();
    if (dice < 0.25) {
      const name = names[pick(names.length)] as string;
      const mode = pick(3) as Mode;
      const o: Owned = { node, lock: null as unknown as LocalLock, held: -1, isEnding: false };
      const isTry = random() < 0.2;
      const deadline = random() < 0.2 ? world.now + 100 + pick(500) : 0;
      o.lock = world.lock(node, name, mode, { try: isTry, deadline });
      owned.add(o);
      byLock.set(o.lock, o);
    } else if (dice < 0.45) {
      const mine = [...owned].filter((o) => o.node === node && o.held !== -1 && !o.isEnding);
      const o = mine[pick(mine.length)];
      if (o) {
        o.isEnding = true;
        o.held = -1;
        world.unlock(node, o.lock);
      }
    } else if (dice < 0.52) {
      const mine = [...owned].filter((o) => o.node === node && o.held !== -1 && !o.isEnding && o.lock.want === -1);
      const o = mine[pick(mine.length)];
      if (o) {
        const mode = pick(3) as Mode;
        if (mode < (o.held as number)) o.held = mode;
        world.convert(node, o.lock, mode, random() < 0.3);
      }
    } else if (dice < 0.57) {
      const mine = [...owned].filter((o) => o.node === node && !o.isEnding);
      const o = mine[pick(mine.length)];
      if (o) world.engine(node).cancel(world.now, o.lock);
    } else if (dice < 0.94) {
      for (let i = 0; i < 1 + pick(4); i++) {
        const keys = [...world.queues.keys()].filter((k) => (world.queues.get(k)?.length ?? 0) > 0);
        const key = keys[pick(keys.length)];
        if (key) {
          const [from, to] = key.split('>').map(Number) as [number, number];
          world.deliver(from, to);
        }
      }
    } else if (dice < 0.97) {
      world.now += 10 + pick(200);
      for (const engine of world.engines.values()) engine.tick(world.now);
    } else if (dice < 0.98 && nodes.length > 1) {
      // Death: its owners are gone (fenced), then the new view comes.
      for (const o of [...owned]) if (o.node === node) owned.delete(o);
      killed++;
      world.evict(node, true);
    } else if (dice < 0.982) {
      // A new member, or one that comes back.
      const id = 1 + pick(6);
      if (!world.engines.has(id)) {
        world.members = [...world.members, { node: id, startCount: step + 2, continues: 0, keeps: false }].sort(
          (a, b) => a.node - b.node,
        );
        world.addEngine(id, step + 2);
        world.epoch++;
        world.makeViewPending();
      }
    } else if (dice < 0.985) {
      if (random() < 0.7) world.servers = drawServers();
      world.epoch++;
      world.makeViewPending();
    } else {
      world.applyNextView(node);
    }
    const wrong = check();
    if (wrong) return `seed ${seed} step ${step}: ${wrong}`;
  }
  if (isServers && !world.members.some((m) => world.servers?.includes(m.node))) {
    world.servers = world.members.slice(0, 1).map((m) => m.node);
    world.epoch++;
    world.makeViewPending();
  }
  world.applyViews();
  // Heal: everything is delivered and released, until nobody waits.
  for (let round = 0; round < 200 && owned.size > 0; round++) {
    for (const o of [...owned]) {
      if (o.held !== -1 && !o.isEnding && o.lock.want === -1) {
        o.isEnding = true;
        o.held = -1;
        world.unlock(o.node, o.lock);
      }
    }
    world.advance(50);
    const wrong = check();
    if (wrong) return `seed ${seed} healing: ${wrong}`;
  }
  if (owned.size > 0) {
    const o = [...owned][0] as Owned;
    if (process.env.DUMP) for (const [n, e] of world.engines) console.error(n, JSON.stringify(dumpEngine(e).domains));
    return `seed ${seed} (killed ${killed}): ${owned.size} requests never end, e.g. node ${o.node} ${o.lock.name} ${o.lock.id} want ${o.lock.want} mode ${o.lock.mode} master ${world.masterOf(o.lock.name)} ${world.of(o.lock)}`;
  }
  world.advance(2000);
  for (const [node, engine] of world.engines) {
    for (const domain of engine.state.domains.values()) {
      if (domain.resources.size > 0)
        return `seed ${seed}: node ${node} still remembers ${JSON.stringify([...domain.resources.values()].map((r) => ({ n: r.name, s: r.state, o: r.owner, g: r.gen, u: r.isUnconfirmed, idle: r.isIdle, local: r.localCount, w: r.newWaiters.length, refs: [...(r.refs ?? [])], q: r.hasQueues, mle: domain.mles.has(r.name) })))}`;
      for (const locks of domain.remote.values())
        if (locks.size > 0) return `seed ${seed}: node ${node} keeps ${locks.size} locks of others`;
    }
  }
  return null;
}
