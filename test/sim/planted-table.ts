/**
 * Bugs planted in what changes the node table, the voters and the time limits (see planted.ts).
 */
import { Bootstrap } from '../../src/membership/bootstrap.js';
import { LimitsInForce } from '../../src/membership/limits-in-force.js';
import { Raft } from '../../src/membership/raft.js';
import { VoterChanges } from '../../src/membership/voter-change.js';
import { FAULT_KINDS, type FaultKind, LIMITS, type SimOptions } from './options.js';
import { type Plant, replace, replaceGetter } from './planted.js';

function changing(o: SimOptions, kinds: SimOptions['tableKinds'], everyMs: number, faults: FaultKind[], faultMs: number): void {
  o.nodes = o.voters = 5;
  o.spares = 0;
  o.hasWitness = false;
  o.voteEveryMs = 0;
  o.fileShare = 0;
  o.domains = 1;
  o.sessionsPerNode = 2;
  o.thinkMs = 60;
  o.hotNames = 2;
  o.hotShare = 1;
  o.fence = [['self']];
  o.fenceOrderMs = o.selfEndMs = 0;
  o.nodeOwnedShare = 0;
  o.devices = { lies: 0, wrong: 0, stalls: 0, actsLate: 0, cycles: 0, fencerDies: 0 };
  o.mastery = 'peer';
  o.limits = LIMITS;
  o.delayMs = 1;
  o.slowShare = 0;
  o.faultPhaseMs = 12_000;
  o.tableKinds = kinds;
  o.tableEveryMs = everyMs;
  for (const kind of FAULT_KINDS) o.faults[kind] = faults.includes(kind) ? 1 : 0;
  o.faultEveryMs = faultMs;
}

export const TABLE_PLANTS: readonly Plant[] = [
  {
    name: 'votes are taken one after the other without a wait, not even for the commit of the last one',
    expect: /^(S5|S1|S2|S4|one master): |threw/,
    seedsMax: 40,
    tune: (o) => changing(o, ['vote'], 40, ['split', 'isolate'], 500),
    patch: () =>
      replace(VoterChanges.prototype, 'judge', () => (_now, node, on, c) => {
        const left = c.voters.length - (on ? 0 : 1);
        return c.isReady && left > 0 && c.matchOf(node) >= 0 ? { what: 'taken' } : { what: 'wait', why: 'planted' };
      }),
  },
  {
    name: 'rule 14: who waits for a lease takes the shorter limits as soon as they are applied',
    expect: /^(S1|S2|S3|fence): /,
    seedsMax: 20,
    tune: (o) => changing(o, ['limits'], 200, ['isolate', 'crash', 'split'], 500),
    patch: () => {
      const undo = [
        replaceGetter(LimitsInForce.prototype, 'waitMs', function (this: LimitsInForce) {
          return this.leaseMs + this.marginMs;
        }),
        replaceGetter(LimitsInForce.prototype, 'waitMarginMs', function (this: LimitsInForce) {
          return this.marginMs;
        }),
      ];
      return () => {
        for (const u of undo) u();
      };
    },
  },
  {
    name: 'a node that lost its journal votes at once',
    expect: /^(S5|S1|S2|S4): |threw/,
    seedsMax: 80,
    tune: (o) => {
      changing(o, ['wipe', 'limits'], 150, ['isolate', 'split', 'cut'], 300);
    },
    patch: () => {
      const isBlank = Object.getOwnPropertyDescriptor(Bootstrap.prototype, 'isBlank')?.get;
      let asks = false;
      const asking = <A extends unknown[]>(old: (this: Bootstrap, ...args: A) => void) =>
        function (this: Bootstrap, ...args: A): void {
          asks = true;
          old.apply(this, args);
          asks = false;
        };
      const undo = [
        // It goes on asking to be readmitted, but has a say meanwhile.
        replaceGetter(Bootstrap.prototype, 'isBlank', function (this: Bootstrap) {
          return (asks || !this.isLost) && (isBlank?.call(this) as boolean);
        }),
        replace(Bootstrap.prototype, 'tick', asking),
        replace(Bootstrap.prototype, 'receive', asking),
        replace(Raft.prototype as unknown as { isKnownJournal(): boolean }, 'isKnownJournal', () => () => true),
      ];
      return () => {
        for (const u of undo) u();
      };
    },
  },
];
