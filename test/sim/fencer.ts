/**
 * The simulated fence devices, and what becomes of requests to them.
 *
 * A machine has as many power feeds as its devices say: `psu1` and `psu2` switch one each, every other device all of it. A run
 * may do what it is told; do nothing and say so; act and never say so; say "off" and do nothing, or hit another machine (lies);
 * stall; act long after it was given up; or switch off a feed that switches itself on again. A run goes on when the daemon that began it
 * has died (its program is a process of its own), and what has reached the device cannot be called back by killing the program.
 */
import type { FenceRequest } from '../../src/membership/types.js';
import type { Life } from './node.js';
import { Prng } from './prng.js';
import type { World } from './world.js';

/** Devices that switch one feed of two. */
const FEEDS: readonly string[] = ['psu1', 'psu2'];
const MANNERS = ['works', 'fails', 'late', 'lies', 'wrong', 'stalls', 'cycles'] as const;
type Manner = (typeof MANNERS)[number];

export interface Run {
  readonly life: Life;
  readonly request: FenceRequest;
  /** The daemon that asked does not want it any more, and has killed the program. */
  isWithdrawn: boolean;
  /** It has reached the device. */
  isSent: boolean;
  isAnswered: boolean;
}

export class Fencer {
  readonly #world: World;
  /** Draws of its own: what a seed meant before there were such devices stays the same. */
  readonly #random: Prng;
  readonly #runs = new Set<Run>();
  /** Feeds that are off, by node. */
  readonly #off = new Map<number, Set<string>>();
  /** Incarnations that a device lied about, as node/startCount. */
  readonly lies = new Set<string>();
  /** Set while healing: the devices work. */
  isHealed = false;

  constructor(world: World) {
    this.#world = world;
    this.#random = new Prng(world.options.seed, 5);
  }

  run(life: Life, request: FenceRequest, done: (ok: boolean, detail: string) => void): void {
    const run: Run = { life, request, isWithdrawn: false, isSent: false, isAnswered: false };
    this.#runs.add(run);
    const answer = (ok: boolean, detail: string): void => {
      if (run.isWithdrawn) this.#runs.delete(run);
      if (run.isAnswered || run.isWithdrawn) return;
      run.isAnswered = true;
      this.#runs.delete(run);
      done(ok, detail);
      if (ok && request.step === 'off' && !this.isHealed && this.#random.chance(this.#world.options.devices.fencerDies)) {
        this.#killFencer(life);
      }
    };
    if (request.step === 'verify') this.#verify(request, answer);
    else this.#switchOff(run, answer);
  }

  /**
   * What the daemon does at each turn: runs for a victim that is not to be fenced by it any more are killed. What has reached
   * the device is remembered against a daemon that still leads: it was for it to wait.
   */
  withdraw(life: Life, leads: boolean, isWanted: (node: number, startCount: number) => boolean): void {
    for (const run of this.#runs) {
      if (run.life !== life || run.isWithdrawn || isWanted(run.request.node, run.request.startCount)) continue;
      run.isWithdrawn = true;
      if (!leads || !run.isSent) this.#runs.delete(run);
      this.#world.count('fence withdrawn');
    }
  }

  /** Runs of this daemon against an earlier incarnation of the node that have not ended. */
  underWay(life: Life, node: number, before: number): Run[] {
    return [...this.#runs].filter(
      (run) => run.life === life && run.request.node === node && run.request.startCount < before && run.request.step === 'off',
    );
  }

  /** The machine has power again. */
  poweredOn(node: number): void {
    this.#off.delete(node);
  }

  /** Dies between `off` and the second look (F8). */
  #killFencer(life: Life): void {
    const world = this.#world;
    world.queue.after(0.5, () => {
      if (life.node.life !== life) return;
      world.count('fencer killed');
      life.node.crash('killed between off and verify');
      world.bootLater(life.node, 50 + this.#random.exp(500));
    });
  }

  #manner(method: string): Manner {
    const { fenceFail, fenceLate, devices } = this.#world.options;
    if (this.isHealed) return 'works';
    const fails = this.#world.faultRandom.chance(fenceFail);
    const isLate = this.#world.faultRandom.chance(fenceLate);
    if (fails) return 'fails';
    if (isLate) return 'late';
    const r = this.#random;
    for (const manner of ['lies', 'wrong', 'stalls', 'cycles'] as const) {
      const share = devices[manner];
      if (share > 0 && r.chance(share)) return manner === 'cycles' && !FEEDS.includes(method) ? 'works' : manner;
    }
    return 'works';
  }

  #switchOff(run: Run, answer: (ok: boolean, detail: string) => void): void {
    const world = this.#world;
    const { node, startCount, method } = run.request;
    const r = this.#random;
    const { fenceMs, limits, devices } = world.options;
    const takes = this.isHealed ? 20 : 5 + world.faultRandom.exp(fenceMs);
    const manner = this.#manner(method);
    const actsLate = manner === 'stalls' && r.chance(devices.actsLate);
    if (manner !== 'works') world.count(`fence device ${manner}`);
    if (manner === 'lies' || manner === 'wrong') this.lies.add(`${node}/${startCount}`);
    // What has left the program before it is killed arrives all the same.
    const sentAfter = takes * r.float();
    world.queue.after(sentAfter, () => {
      run.isSent = !run.isWithdrawn;
    });
    const act = (): void => {
      if (!run.isSent) return;
      this.#feedOff(node, method, run);
      if (manner === 'cycles') world.queue.after(30, () => this.#off.get(node)?.delete(method));
    };
    world.queue.after(takes, () => {
      switch (manner) {
        case 'fails':
          answer(false, 'the script exited 1');
          return;
        case 'lies':
          answer(true, 'off');
          return;
        case 'wrong': {
          const others = world.nodes.filter((n) => n.id !== node);
          if (others.length > 0) this.#hit(r.pick(others).id, 'hit instead of another', run);
          answer(true, 'off');
          return;
        }
        case 'stalls': {
          const limit = r.between(1, 3) * limits.leaseMs;
          world.queue.after(limit, () => answer(false, 'was killed after its time limit'));
          if (actsLate) world.queue.after(limit + r.exp(2 * limits.leaseMs), act);
          return;
        }
        case 'late':
          act();
          answer(false, 'the script was killed after its time limit');
          return;
        default:
          act();
          answer(true, 'off');
      }
    });
  }

  #feedOff(node: number, feed: string, run: Run): void {
    if (!FEEDS.includes(feed)) {
      this.#hit(node, `fenced for n${node}/${run.request.startCount} by ${feed}`, run);
      return;
    }
    const off = this.#off.get(node) ?? new Set();
    off.add(feed);
    this.#off.set(node, off);
    if (FEEDS.every((f) => off.has(f)))
      this.#hit(node, `fenced for n${node}/${run.request.startCount} by ${FEEDS.join('+')}`, run);
  }

  #hit(id: number, why: string, run: Run): void {
    const world = this.#world;
    const victim = world.node(id);
    if (victim.life?.isMember && victim.startCount > run.request.startCount && id === run.request.node) world.count('late off');
    world.count('fenced');
    world.quorumCheck.pair.hit(victim, run.life.node.id);
    victim.powerOff(why);
    if (!world.isHealing) world.bootLater(victim, 300 + world.faultRandom.exp(3000));
    else world.bootLater(victim, 100);
  }

  #verify(request: FenceRequest, answer: (ok: boolean, detail: string) => void): void {
    const { node, startCount, method } = request;
    const isLie = this.lies.has(`${node}/${startCount}`);
    this.#world.queue.after(this.isHealed || method === 'script' ? 1 : this.#random.between(1, 20), () => {
      // A script has no other way to say that the machine is off: its exit code was its proof.
      if (isLie || method === 'script') answer(true, 'verified before');
      else if (FEEDS.includes(method) && this.#off.get(node)?.has(method) !== true) answer(false, 'it is on');
      else answer(true, 'it is off');
    });
  }
}
