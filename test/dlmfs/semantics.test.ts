/** The conformance table over the semantics alone: several mounts on bare engines, everything delivered by hand. */
import t from 'tap';
import { Bed } from './bed.js';
import { CASES, describeResult, runCase } from './conformance.js';

const BEDS: { title: string; nodes: number[]; on: number[] }[] = [
  { title: 'each owner on a node of its own', nodes: [1, 2, 3], on: [1, 2, 3] },
  { title: 'the master is elsewhere', nodes: [1, 2, 3], on: [3, 2, 1] },
  { title: 'all owners on one node', nodes: [1], on: [1, 1, 1] },
  { title: 'two mounts on one node, one on another', nodes: [1, 2], on: [2, 2, 1] },
];

for (const { title, nodes, on } of BEDS) {
  t.test(title, async (t) => {
    const bed = new Bed(nodes, on);
    let number = 0;
    for (const c of CASES) {
      const wrong = await runCase(bed.peer(), c, `c${++number}-`);
      t.equal(wrong.map((r) => describeResult(c, r)).join('\n'), '', `${c.id}: ${c.title}`);
    }
  });
}
