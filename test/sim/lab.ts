/**
 * A small world driven by hand: no sessions and no faults of its own, every checker on. For tests that tell one story.
 */
import type { Mode } from '../../src/protocol/modes.js';
import type { PeerMessage } from '../../src/protocol/peer-messages.js';
import { drawOptions, FAULT_KINDS, PAIR_FAULTS, type SimOptions } from './options.js';
import type { Owned } from './owners.js';
import { realCore } from './run.js';
import { World } from './world.js';

export interface Seen {
  at: number;
  from: number;
  to: number;
  msg: PeerMessage;
}

export class Lab {
  readonly world: World;
  /** Every lock message that was delivered. */
  readonly seen: Seen[] = [];
  /** What owners were told without a grant. */
  readonly leaseMs: number;

  constructor(nodes: number, override: Partial<SimOptions> = {}) {
    const options = drawOptions(1);
    Object.assign(options, {
      nodes,
      voters: nodes,
      domains: 1,
      sessionsPerNode: 0,
      faultEveryMs: 0,
      drift: 0,
      delayMs: 1,
      slowShare: 0,
      diskMs: 1,
      fence: [['self']],
      fenceFail: 0,
      fenceLate: 0,
      fenceMs: 20,
      devices: { lies: 0, wrong: 0, stalls: 0, actsLate: 0, cycles: 0, fencerDies: 0 },
      fenceOrderMs: 0,
      selfEndMs: 0,
      purgeMs: 500,
      freeze: true,
      codec: false,
      lvbShare: 0,
      nodeOwnedShare: 0,
      mastery: 'peer',
      voteEveryMs: 0,
      spares: 0,
      hasWitness: false,
      tableEveryMs: 0,
    } satisfies Partial<SimOptions>);
    for (const kind of [...FAULT_KINDS, ...PAIR_FAULTS]) options.faults[kind] = 0;
    Object.assign(options, override);
    this.leaseMs = options.limits.leaseMs;
    this.world = new World({ options, makeCore: realCore });
    this.world.network.alter = (from, to, msg) => {
      if ('dom' in msg) this.seen.push({ at: this.now, from: from.id, to: to.id, msg });
      return msg;
    };
    for (const n of this.world.nodes) n.start();
    if (!this.until(() => this.world.isIdle, 10_000)) throw new Error('the cluster does not form');
  }

  get now(): number {
    return this.world.queue.now;
  }

  advance(ms: number): void {
    this.world.runFor(ms);
    this.check();
  }

  until(done: () => boolean, limitMs: number): boolean {
    const ok = this.world.runUntil(done, limitMs);
    this.check();
    return ok;
  }

  check(): void {
    if (this.world.failure !== null) throw new Error(`${this.world.failure}\n${this.world.trace.tail(40).join('\n')}`);
  }

  /** Asks for a lock; the outcome shows in the result's phase after some time. */
  ask(
    node: number,
    name: string,
    mode: Mode,
    more: { isTry?: boolean; lvb?: boolean; nodeOwned?: boolean; deadlineMs?: number } = {},
  ): Owned {
    const n = this.world.node(node);
    if (!n.life) throw new Error(`n${node} has no daemon`);
    return n.owners.lock(n.life, {
      session: null,
      domain: 'default',
      name,
      mode,
      isTry: more.isTry ?? false,
      nodeOwned: more.nodeOwned ?? false,
      usesLvb: more.lvb ?? false,
      deadline: more.deadlineMs === undefined ? 0 : n.clock + more.deadlineMs,
    });
  }

  /** Asks, and waits until it is held. */
  hold(node: number, name: string, mode: Mode, more: { lvb?: boolean; nodeOwned?: boolean } = {}): Owned {
    const o = this.ask(node, name, mode, more);
    if (!this.until(() => o.phase === 'held', 10_000)) throw new Error(`n${node} does not get ${name}: ${o.phase}`);
    return o;
  }

  release(o: Owned): void {
    o.node.owners.release(o);
    if (!this.until(() => o.phase === 'gone', 10_000)) throw new Error(`${o.key} is not released`);
  }

  isolate(node: number): void {
    for (const n of this.world.nodes) {
      if (n.id === node) continue;
      this.world.network.block(node, n.id);
      this.world.network.block(n.id, node);
    }
  }

  rejoin(node: number): void {
    for (const n of this.world.nodes) {
      if (n.id === node) continue;
      this.world.network.unblock(node, n.id);
      this.world.network.unblock(n.id, node);
    }
  }

  /** Node that leads, as most see it. */
  get leader(): number {
    return this.world.nodes.find((n) => n.life?.core.leader === n.id)?.id ?? 0;
  }

  token(o: Owned): [number, number] {
    return [o.local?.te ?? 0, o.local?.tc ?? 0];
  }

  epoch(node: number): number {
    return this.world.node(node).life?.core.view.epoch ?? 0;
  }
}
