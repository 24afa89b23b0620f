/**
 * Locks that belong to a machine, in a chaos run: taken through a machine's daemon, kept whatever happens to daemons, and given
 * back later; they end otherwise only with the machine.
 */
import { setTimeout as pause } from 'node:timers/promises';
import { connect, monotonicMs } from '../../src/client/index.js';
import type { Hold } from '../fixtures/history.js';
import type { Prng } from '../sim/prng.js';
import type { Machine } from './machine.js';

const NAMES = ['service-1', 'service-2'];

export class NodeOwned {
  readonly holds: Hold[] = [];
  readonly #loops: Promise<void>[];
  #isOver = false;

  constructor(machines: readonly Machine[], seed: (id: number) => Prng) {
    this.#loops = machines.map((machine) => this.#loop(machine, seed(machine.id)));
  }

  /** Gives everything back; resolves when all loops have ended. */
  async stop(): Promise<void> {
    this.#isOver = true;
    await Promise.all(this.#loops);
  }

  async #loop(machine: Machine, random: Prng): Promise<void> {
    while (!this.#isOver) {
      const name = random.pick(NAMES);
      const keeps = random.between(0, 6000);
      const hold = await this.#take(machine, name).catch(() => null);
      if (hold !== null) await this.#until(monotonicMs() + keeps);
      await this.#giveBack(machine, name, hold);
      await this.#until(monotonicMs() + random.between(0, 1500));
    }
  }

  async #until(at: number): Promise<void> {
    while (!this.#isOver && monotonicMs() < at) await pause(50);
  }

  async #take(machine: Machine, name: string): Promise<Hold | null> {
    const client = await connect({ socket: machine.socket, label: 'chaos node-owned', reconnect: false });
    try {
      const handle = await client.lock(name, 'EX', { nodeOwned: true, timeout: 2000 });
      const now = monotonicMs();
      const hold: Hold = {
        resource: name,
        node: `${machine.name} itself`,
        mode: 'EX',
        token: handle.token,
        grantedAt: now,
        from: now,
        until: Number.POSITIVE_INFINITY,
        ending: 'killed',
      };
      // The machine may have come to an end before this process came to note the grant.
      this.holds.push(hold);
      this.#endWithMachine(machine, hold);
      return hold;
    } finally {
      // Not close(): a lock of the node stays.
      client.connection.destroy();
    }
  }

  #endWithMachine(machine: Machine, hold: Hold): boolean {
    const ended = machine.endTimes().find((at) => at > hold.from - 500);
    if (ended === undefined) return hold.until !== Number.POSITIVE_INFINITY;
    hold.until = Math.max(hold.from, Math.min(hold.until, ended));
    return true;
  }

  /** Until it works, or the machine was reset: also what was granted without this process hearing of it. */
  async #giveBack(machine: Machine, name: string, hold: Hold | null): Promise<void> {
    for (;;) {
      if (hold !== null && this.#endWithMachine(machine, hold)) return;
      const asked = monotonicMs();
      try {
        const client = await connect({ socket: machine.socket, label: 'chaos node-owned', reconnect: false });
        try {
          // From here on the node may have let it go, whatever comes back.
          if (hold !== null) hold.until = Math.min(hold.until, asked);
          await client.admin('unlock', { domain: 'default', name });
        } finally {
          client.connection.destroy();
        }
        return;
      } catch (error) {
        const { code } = error as { code?: string };
        if (code === 'TSDLM_NOT_HELD') return;
        await pause(100);
      }
    }
  }
}
