/**
 * The simulated fence device: a script that ends a machine for real, fails, answers late, or takes long.
 */
import type { FenceRequest } from '../../src/membership/types.js';
import type { World } from './world.js';

export class Fencer {
  readonly #world: World;
  /** Set while healing: the device works. */
  isHealed = false;

  constructor(world: World) {
    this.#world = world;
  }

  run(request: FenceRequest, done: (ok: boolean, detail: string) => void): void {
    const world = this.#world;
    // A script's exit code was its proof; it has no other way to say that the machine is off.
    if (request.step === 'verify') {
      world.queue.after(1, () => done(true, 'verified before'));
      return;
    }
    const r = world.faultRandom;
    const { fenceFail, fenceLate, fenceMs } = world.options;
    const takes = this.isHealed ? 20 : 5 + r.exp(fenceMs);
    const fails = !this.isHealed && r.chance(fenceFail);
    const isLate = !this.isHealed && r.chance(fenceLate);
    world.queue.after(takes, () => {
      const victim = world.node(request.node);
      if (fails) {
        world.count('fence failed');
        done(false, 'the script exited 1');
        return;
      }
      world.count('fenced');
      victim.powerOff(`fenced for n${request.node}/${request.startCount}`);
      if (!world.isHealing) world.bootLater(victim, 300 + r.exp(3000));
      else world.bootLater(victim, 100);
      if (isLate) done(false, 'the script was killed after its time limit');
      else done(true, 'off');
    });
  }
}
