/** One membership core without any others: its clock, its disk and its wire are in the hands of the test. */
import { Membership } from '../../src/membership/membership.js';
import { deriveTimeLimits } from '../../src/membership/time-limits.js';
import type { MembershipOutput, NodeConfig, PersistBatch, PersistedState } from '../../src/membership/types.js';
import type { ControlMessage } from '../../src/protocol/peer-messages.js';
import { emptyDisk } from './harness.js';

export function nodes(voters: number, learners: number): NodeConfig[] {
  return Array.from({ length: voters + learners }, (_, i) => ({
    id: i + 1,
    name: `n${i + 1}`,
    voter: i < voters,
    fence: [['self']],
  }));
}

/** The disk of a voter whose bootstrap is over. */
export function booted(count: number): PersistedState {
  const known: Record<string, string> = {};
  for (let i = 1; i <= count; i++) known[String(i)] = `j${i}`;
  return { ...emptyDisk(), boot: { clusterId: 'c', known } };
}

/** Node 1 alone on the table, its disk and its wire in our hands. */
export function single(persisted: PersistedState, count = 3, startCount = 1, learners = 0) {
  const sent: { to: number; msg: ControlMessage }[] = [];
  const batches: PersistBatch[] = [];
  const distrusts: string[] = [];
  const output: MembershipOutput = {
    send: (to, msg) => sent.push({ to, msg }),
    persist: (batch) => batches.push(batch),
    viewChanged: () => {},
    fence: () => {},
    incarnationOver: () => {},
    distrusted: (why) => distrusts.push(why),
    note: () => {},
  };
  const m = new Membership(
    {
      self: 1,
      incarnation: { bootId: 'b', machineId: 'm', startCount, journalId: 'j1' },
      nodes: nodes(count, learners),
      limits: deriveTimeLimits(),
      persisted,
      seed: 5,
      now: 1000,
    },
    output,
  );
  const take = <K extends ControlMessage['k']>(kind: K): Extract<ControlMessage, { k: K }>[] => {
    const found = sent.filter((s) => s.msg.k === kind).map((s) => s.msg as Extract<ControlMessage, { k: K }>);
    sent.length = 0;
    return found;
  };
  return { m, sent, batches, take, distrusts };
}
