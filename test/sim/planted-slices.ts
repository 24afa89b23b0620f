/** Bugs in recoveries that go in steps (src/master/pass.ts, sweep.ts); see planted.ts for the method. */
import { Engine } from '../../src/master/engine.js';
import type { LockRes } from '../../src/master/lockres.js';
import { EngineState } from '../../src/master/state.js';
import type { SimOptions } from './options.js';
import { busy, only, type Plant, replace } from './planted.js';

/** Many names, members that die all the time, and steps so small that everything comes between them. */
function smallSteps(options: SimOptions): void {
  busy(options);
  only(options, ['crash', 'reboot'], 500);
  options.nodes = options.voters = 4;
  options.hotNames = 6;
  options.nodeOwnedShare = 0;
  options.reclaimShare = 0;
  options.giveWayShare = 0.3;
  options.sliceOps = 1;
  options.sliceMs = 20;
  options.registerBatch = options.registerWindow = 1;
}

/** Passes that some nodes are through with long before others, and locks that are held meanwhile. */
function unequalSteps(options: SimOptions): void {
  smallSteps(options);
  // One change at a time: the next one would end the pass.
  options.faultEveryMs = 1500;
  options.faultPhaseMs = 8000;
  options.sliceMs = 60;
  // Each look at a lock brings its resource over.
  options.thinkMs = 100;
  options.hotNames = 8;
  options.hotShare = 1;
  options.sessionsPerNode = 4;
  options.giveWayShare = 0;
  options.deadlineShare = options.dieShare = options.tryShare = 0;
}

export const SLICE_PLANTS: Plant[] = [
  {
    name: 'a resource that the pass has not come to is looked at as it was in the epoch before',
    expect: /^(S1|S2|S3|one master|L1): |threw|outcome/,
    seedsMax: 60,
    tune: unequalSteps,
    patch: () => lookEarly(),
  },
  {
    name: 'the barrier is told before the last step of the pass',
    expect: /^(S1|S2|S3|one master): /,
    seedsMax: 60,
    tune: unequalSteps,
    patch: () =>
      replace(
        Engine.prototype,
        'applyView',
        (old) =>
          function (this: Engine, now, view): void {
            old.call(this, now, view);
            const s = this.state;
            for (const domain of s.domains.values()) {
              if (domain.pass === null) continue;
              for (const node of domain.barrierIds) if (node !== s.self) s.send(domain, node, { k: 'RecoveryDone' });
            }
          },
      ),
  },
  {
    name: 'behind the barrier a resource serves before it has been rebuilt',
    expect: /^(S1|S2|S3|one master|L1): |threw/,
    seedsMax: 60,
    tune: smallSteps,
    patch: () =>
      replace(
        Engine.prototype,
        'receive',
        (old) =>
          function (this: Engine, now, from, msg): void {
            old.call(this, now, from, msg);
            for (const domain of this.state.domains.values()) {
              if (domain.isRecovering) continue;
              for (const res of domain.toRebuild) {
                res.state = 1;
                domain.toRebuild.delete(res);
              }
            }
          },
      ),
  },
];

/** Takes the mark of the present epoch for granted. */
function lookEarly(): () => void {
  const mark = (res: LockRes | undefined): void => {
    if (res) res.seen = res.domain.epoch;
  };
  const undo = [
    replace(
      EngineState.prototype,
      'find',
      (old) =>
        function (this: EngineState, domain, name) {
          mark(domain.resources.get(name));
          return old.call(this, domain, name);
        },
    ),
    replace(
      EngineState.prototype,
      'touch',
      () =>
        function (this: EngineState, lock): void {
          mark(lock.res);
        },
    ),
  ];
  return () => {
    for (const u of undo) u();
  };
}
