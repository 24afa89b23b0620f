/** The conformance table through 9P messages, as the Linux client sends them, whole and cut into single bytes. */
import t from 'tap';
import { ninepPeer } from './9p-bed.js';
import { Bed } from './bed.js';
import { CASES, describeResult, runCase } from './conformance.js';

const BEDS: { title: string; nodes: number[]; on: number[]; cut?: (bytes: Buffer) => Buffer[] }[] = [
  { title: 'each mount on a node of its own', nodes: [1, 2, 3], on: [1, 2, 3] },
  { title: 'three mounts of one node', nodes: [1], on: [1, 1, 1] },
  { title: 'every byte by itself', nodes: [1, 2, 3], on: [2, 3, 1], cut: (b) => [...b].map((byte) => Buffer.from([byte])) },
];

for (const { title, nodes, on, cut } of BEDS) {
  t.test(title, async (t) => {
    const bed = new Bed(nodes, []);
    const peer = await ninepPeer(bed, on, cut);
    let number = 0;
    for (const c of CASES) {
      // There is no poll over 9P.
      const steps = c.steps.filter((s) => s.call.op !== 'blocked');
      const wrong = await runCase(peer, { ...c, steps }, `c${++number}-`);
      t.equal(wrong.map((r) => describeResult({ ...c, steps }, r)).join('\n'), '', `${c.id}: ${c.title}`);
    }
    for (const wire of peer.wires) {
      t.same(wire.faults, []);
      t.same(wire.rpc.strays, [], 'no answer that nobody waits for');
      t.equal(wire.session.counts.fids, 1, 'only the root is left');
      t.equal(wire.session.counts.tags, 0);
    }
  });
}
