/** Random faults over many seeds: the checks of checks.ts hold at every step, and after healing the cluster is whole again. */
import t from 'tap';
import { limitValues } from '../../src/membership/limits-in-force.js';
import { deriveTimeLimits } from '../../src/membership/time-limits.js';
import { Cluster } from './harness.js';

const LONG = deriveTimeLimits({ leaseMs: 8000 });

const SEEDS = Number(process.env.TSDLM_MEMBERSHIP_SEEDS ?? 300);

function chaos(seed: number): { problems: string[]; healed: boolean; fenced: number; terms: number; changes: number } {
  const shape = seed % 5;
  const voters = [3, 3, 5, 1, 4][shape] as number;
  const c = new Cluster({
    seed,
    voters,
    learners: seed % 3,
    spares: seed % 8 === 4 ? 2 : 0,
    drift: 0.084,
    loss: seed % 4 === 0 ? 0.05 : 0,
    diskMs: seed % 7 === 0 ? [1, 120] : [0.5, 5],
    delayMs: seed % 5 === 0 ? [0.2, 60] : [0.2, 3],
    logKeep: seed % 6 === 0 ? 4 : 1000,
  });
  c.startAll();
  let changes = 0;
  const ids = [...c.hosts.keys()];
  const pick = (): number => ids[Math.floor(c.random.next() * ids.length)] as number;
  for (let step = 0; step < 25; step++) {
    c.run(c.between([50, 3000]));
    const id = pick();
    // Voters change in every other run; the seeds of the others keep their meaning.
    if (seed % 2 === 0 && c.leaderId() !== 0 && step % 2 === 0 && haveDisks(c)) {
      if (c.voter(pick(), c.random.next() < 0.6).what === 'taken') changes++;
    }
    if (seed % 4 === 0) changeTable(c, step, pick());
    switch (Math.floor(c.random.next() * 10)) {
      case 0:
        c.kill(id);
        c.at(c.between([10, 6000]), () => c.start(id));
        break;
      case 1:
        c.reboot(id);
        c.at(c.between([10, 6000]), () => c.start(id));
        break;
      case 2:
        c.pause(id, c.between([100, 8000]));
        break;
      case 3:
        c.isolate(id);
        break;
      case 4:
        c.cut(id, pick());
        break;
      case 5:
        c.cutBoth(id, pick());
        break;
      case 6:
      case 7:
        c.heal();
        break;
      case 8: {
        const host = c.host(id);
        c.propose(id, {
          c: 'domainJoin',
          node: id,
          startCount: host.startCount,
          name: `dom${step % 3}`,
          mastery: step % 2 ? 'peer' : 'servers',
        });
        break;
      }
      case 9:
        c.propose(id, { c: 'epoch', epoch: c.hosts.get(id)?.m?.view.epoch ?? 0 });
        break;
    }
  }
  c.heal();
  c.loss = 0;
  for (const id of [...c.hosts.keys()]) {
    if (known(c, id)) c.start(id);
    else c.retire(id);
  }
  const healed = c.until(() => {
    for (const id of c.hosts.keys()) c.readmit(id);
    // Whether a node was removed, those that know it may have to start first.
    for (const id of c.hosts.keys()) if (!known(c, id)) c.retire(id);
    return c.settled();
  }, 60_000);
  return { problems: c.checks.problems, healed, fenced: c.checks.commands('fenced').length, terms: c.view().epoch, changes };
}

/** One change by an operator: the limits, a wiped disk, a machine that comes or goes. */
function changeTable(c: Cluster, step: number, id: number): void {
  switch (step % 6) {
    case 0:
      c.table((table) => ({ c: 'limits', table, limits: limitValues(step % 12 === 0 ? LONG : c.limits) }));
      return;
    case 1:
      if (mayLoseDisk(c, id) && c.random.next() < 0.5) {
        c.wipe(id);
        c.at(c.between([10, 3000]), () => c.start(id));
      }
      return;
    case 2:
      for (const host of c.hosts.keys())
        if (!known(c, host)) c.table((table) => ({ c: 'nodeAdd', table, spec: c.spec(host, true) }));
      return;
    case 3:
      c.table((table) => ({ c: 'nodeRemove', table, node: id }));
      return;
    default:
      for (const host of c.hosts.keys()) c.readmit(host);
  }
}

/**
 * A majority of the voters keeps its disks, and one that lost its own is readmitted before the next one does. Nobody could tell
 * the only voter of the configuration file, without its journal, that there is a cluster already: it would begin another one.
 */
function mayLoseDisk(c: Cluster, id: number): boolean {
  if (c.leaderId() === 0 || !known(c, id)) return false;
  const first = c.nodes.filter((n) => n.voter);
  if (first.length === 1 && first[0]?.id === id) return false;
  return c.view().nodes.filter((n) => n.voter).length >= 3 && haveDisks(c);
}

function haveDisks(c: Cluster): boolean {
  return c.view().nodes.every((n) => n.journal === '' || n.journal === c.host(n.id).journalId);
}

function known(c: Cluster, id: number): boolean {
  for (const host of c.hosts.values()) if (host.m?.ahead.retired.some((r) => r.id === id)) return false;
  return (
    c.nodes.some((n) => n.id === id) ||
    [...c.hosts.values()].some((h) => h.m?.ahead.nodes.some((n) => n.id === id) && h.id !== id)
  );
}

t.test('rule 24: no lease outlives what others wait for, under random faults and drifting clocks', async (t) => {
  t.setTimeout(280_000);
  let fenced = 0;
  let changes = 0;
  const from = Number(process.env.TSDLM_MEMBERSHIP_FROM ?? 1);
  for (let seed = from; seed < from + SEEDS; seed++) {
    const result = chaos(seed);
    fenced += result.fenced;
    changes += result.changes;
    if (result.problems.length > 0) t.fail(`seed ${seed}: ${result.problems.slice(0, 3).join('\n')}`);
    if (!result.healed) t.fail(`seed ${seed}: not whole again a minute after healing`);
  }
  t.ok(fenced > SEEDS / 4, `the runs had ${fenced} fencings`);
  t.ok(changes > SEEDS / 4, `the runs had ${changes} changes of the voters`);
});
