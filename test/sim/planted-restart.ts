/** Planted bugs of restarts (rules 1, 3, 23). See planted.ts. */
import { Engine } from '../../src/master/engine.js';
import { Leadership } from '../../src/membership/leadership.js';
import { deriveTimeLimits } from '../../src/membership/time-limits.js';
import type { Member } from '../../src/membership/types.js';
import type { SimOptions } from './options.js';
import { busy, only, type Plant, replace } from './planted.js';

/** Daemons are killed and are back soon; owners keep what they have for long, and claim it. */
function restarts(options: SimOptions): void {
  busy(options);
  only(options, ['crash'], 600);
  options.reclaimShare = 1;
  options.restartMs = 5000;
  options.hotNames = 4;
  options.giveWayShare = 0.1;
  options.thinkMs = 200;
  options.dieShare = 0;
  options.nodeOwnedShare = 0;
  options.fence = [['self']];
  options.fenceOrderMs = 0;
  options.selfEndMs = 0;
}

export const RESTART_PLANTS: Plant[] = [
  {
    name: 'a node in grace is done at the barrier before its owners have claimed (rule 1)',
    expect: /^(S1|S2|L3): |threw/,
    seedsMax: 40,
    tune: restarts,
    patch: () =>
      replace(
        Engine.prototype,
        'applyView',
        (old) =>
          function (this: Engine, now, view) {
            this.state.graceUntil = 0;
            old.call(this, now, view);
          },
      ),
  },
  {
    name: 'masters drop the session locks of a node that is only being restarted (rules 1, 23)',
    expect: /^(S1|S2|L3): |threw/,
    seedsMax: 40,
    tune: restarts,
    patch: () =>
      replace(
        Engine.prototype,
        'applyView',
        (old) =>
          function (this: Engine, now, view) {
            const { self } = this.state;
            const members = (list: Member[]): Member[] => list.map((m) => (m.node === self ? m : { ...m, keeps: false }));
            old.call(this, now, { ...view, domains: view.domains.map((d) => ({ ...d, members: members(d.members) })) });
          },
      ),
  },
  {
    name: 'the record of a clean restart survives the start that follows it (rule 3, X2)',
    expect: /^(S1|S2|S3|L3): |threw|in phase held|its deadline is 0/,
    seedsMax: 60,
    tune: (o) => {
      restarts(o);
      only(o, ['cleanRestart', 'crash'], 500);
    },
    world: (w) => {
      for (const n of w.nodes) n.disk.keepsRecord = true;
    },
  },
  {
    name: 'the deadline of a restart is not waited for (rule 23)',
    expect: /^(S1|S2|L3): |threw/,
    seedsMax: 80,
    tune: (o) => {
      restarts(o);
      only(o, ['cleanRestart'], 700);
      o.limits = deriveTimeLimits({ heartbeatMs: 100, leaseMs: 1200, suspectMs: 300, deadMs: 700 });
      o.restartMs = 5000;
      o.fence = [['self']];
    },
    patch: () =>
      replace(Leadership.prototype as unknown as { noteRestarts(now: number): void }, 'noteRestarts', () => () => {
        // Nobody remembers what a restarting node told its owners.
      }),
  },
];
