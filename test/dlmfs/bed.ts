/**
 * A few mounts on a few engines in one process: no daemon, no socket, no clock. Messages and journal writes are delivered
 * when nothing else is left to do, so `settle` is exact: what waits after it waits for ever.
 */
import { DoorLock, EngineLocks } from '../../src/dlmfs/engine-locks.js';
import { Mount } from '../../src/dlmfs/mount.js';
import { EngineWorld } from '../master/harness.js';
import type { Peer } from './conformance.js';

export class Bed {
  readonly world: EngineWorld;
  readonly mounts: Record<string, Mount> = {};
  #later: (() => void)[] = [];
  #commands = 0;

  /** One owner per letter: A on the first node given, and so on. Several may be on one node. */
  constructor(nodes: number[], on: number[]) {
    this.world = new EngineWorld(nodes);
    this.world.onEvent = (e) => {
      const door = e.lock.ctx;
      if (!(door instanceof DoorLock)) return;
      if (e.what === 'granted') door.granted(e.lock);
      else if (e.what === 'denied') door.denied(e.lock, e.code ?? 'TSDLM_INVARIANT');
      else if (e.what === 'released') door.released();
      else if (e.what === 'bast') door.bast(e.mode === 1 ? 1 : 2);
      else door.lost(e.code ?? 'TSDLM_LOST');
    };
    on.forEach((node, at) => {
      this.mount('ABC'[at] as string, node);
    });
  }

  mount(letter: string, node: number): Mount {
    const service = this.service(letter, node);
    const mount = new Mount({ service, now: () => 0 });
    this.mounts[letter] = mount;
    return mount;
  }

  service(letter: string, node: number): EngineLocks {
    return new EngineLocks({
      core: this.world.engine(node),
      now: () => this.world.now,
      isLeased: () => this.world.engine(node).state.isLeased,
      defer: (work) => this.#later.push(work),
      door: `m${letter}`,
      who: `n${node} ${letter}`,
      why: '',
    });
  }

  /** Work that was put off until the engine's calls were over. */
  runLater(): void {
    const work = this.#later;
    this.#later = [];
    for (const f of work) f();
  }

  /** Delivers everything, also what promises bring about. */
  async settle(): Promise<void> {
    for (let quiet = 0; quiet < 3; quiet++) {
      if (this.#turn()) quiet = -1;
      await new Promise<void>((resolve) => setImmediate(resolve));
    }
  }

  /** True when something happened. */
  #turn(): boolean {
    const { world } = this;
    const work = this.#later;
    this.#later = [];
    for (const f of work) f();
    const events = world.events.length;
    const isWaiting = [...world.engines.values()].some((e) => e.state.waiting.size > 0);
    if (isWaiting) world.advance(50);
    else world.settle();
    let isNew = false;
    for (; this.#commands < world.commands.length; this.#commands++) {
      const command = world.commands[this.#commands]?.command;
      if (command?.c !== 'domainJoin' || world.otherDomains.includes(command.name)) continue;
      world.otherDomains.push(command.name);
      isNew = true;
    }
    if (isNew) {
      world.epoch++;
      world.setView();
      world.settle();
    }
    return isNew || work.length > 0 || this.#later.length > 0 || world.events.length > events;
  }

  peer(): Peer {
    return { kind: 'tsdlm', owners: this.mounts, settle: () => this.settle(), limitMs: 2000 };
  }
}
