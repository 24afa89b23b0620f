/** Planted bugs of clusters of two, and of nodes that only a device ends (rules 13, 20); see planted.ts. */
import { Engine } from '../../src/master/engine.js';
import { Survivor } from '../../src/membership/survivor.js';
import { LogTail } from '../../src/membership/voter-set.js';
import type { SimOptions } from './options.js';
import { busy, only, type Plant, replace } from './planted.js';

export const TWO_NODE_PLANTS: Plant[] = [
  {
    name: 'a suspended node goes on serving (rule 20)',
    expect: /^S4: /,
    seedsMax: 40,
    tune: (o) => {
      busy(o);
      only(o, ['split', 'isolate'], 1200);
      o.nodes = o.voters = 2;
      o.fence = [['script']];
      o.fenceFail = 1;
      o.thinkMs = 100;
    },
    patch: () => replace(Engine.prototype, 'suspend', () => () => {}),
  },
  {
    name: 'the survivor goes on before its record is on disk (rule 13, trap 7)',
    expect: /^S4: .*no quorum/,
    seedsMax: 60,
    tune: (o) => {
      pair(o);
      only(o, ['gone', 'severed'], 2500);
      o.faultPhaseMs = 20_000;
      o.diskMs = 200;
      o.sessionsPerNode = 4;
    },
    world: (w) => {
      for (const n of w.nodes) n.disk.answersEarly = true;
    },
  },
  {
    name: 'a node that has just started, or only learns, goes on alone (rule 13: wait_for_all)',
    expect: /^S4: .*(fences|goes on alone)/,
    seedsMax: 40,
    tune: (o) => {
      pair(o);
      only(o, ['gone', 'coldOne', 'reboot'], 2500);
      o.faultPhaseMs = 20_000;
    },
    patch: () => alwaysFull(),
  },
  {
    name: 'the survivor believes a device that has failed (rules 13, 20)',
    expect: /^S4: .*has not switched/,
    seedsMax: 40,
    tune: (o) => {
      pair(o);
      only(o, ['severed', 'gone'], 2500);
      o.fenceFail = 0.7;
    },
    patch: () =>
      replace(
        Survivor.prototype,
        'fenceDone',
        (old) =>
          function (this: Survivor, op, _ok, detail): boolean {
            return old.call(this, op, true, detail);
          },
      ),
  },
  {
    name: 'the dead one of two comes back from its own journal, with its vote (rule 13)',
    expect: /^S[1245]: |threw/,
    seedsMax: 60,
    tune: (o) => {
      pair(o);
      only(o, ['severed', 'gone', 'coldOne'], 2000);
      o.faultPhaseMs = 20_000;
    },
    // It is as if the survivor's record did not concern the other: what it learns of it takes no vote.
    patch: () => {
      const undo = [
        replace(
          LogTail.prototype as unknown as { count(): void },
          'count',
          (old) =>
            function (this: {
              self: number;
              counted: readonly number[];
              tail: { view: { alone: { peer: number; survivor: number } | null } };
            }): void {
              old.call(this as never);
              const { alone } = this.tail.view;
              if (alone !== null && alone.peer === this.self) this.counted = [alone.peer, alone.survivor].sort((a, b) => a - b);
            },
        ),
        alwaysFull(),
      ];
      return () => {
        for (const u of undo) u();
      };
    },
  },
];

/** Whoever starts takes itself for a full voter. */
function alwaysFull(): () => void {
  return replace(
    Survivor.prototype,
    'tick',
    (old) =>
      function (this: Survivor, now: number): void {
        (this as unknown as { full: boolean }).full = true;
        old.call(this, now);
      },
  );
}

/** Two voters with a device that works, and something to lose. */
function pair(o: SimOptions): void {
  busy(o);
  o.nodes = o.voters = 2;
  o.fence = [['script']];
  o.devices = { lies: 0, wrong: 0, stalls: 0, actsLate: 0, cycles: 0, fencerDies: 0 };
  o.fenceFail = 0;
  o.fenceLate = 0;
  o.fenceMs = 50;
  o.fenceOrderMs = 0;
  o.faultPhaseMs = 15_000;
}
