/**
 * When the leader may change the voter set, by one vote.
 *
 * The problem: two rules rest on majorities that meet. Consensus: any majority of the set in force meets any majority that may have
 * committed something. Leases (rule 24): any majority that elects meets any majority whose acknowledgements carry a lease that
 * still runs, so that the youngest acknowledgement in the votes bounds that lease. Both hold for a set and its neighbour (one vote
 * more or less), and for no other pair.
 *
 * The idea: the leader takes a change only when no other set can matter any more:
 *  1. It has applied an entry of its own term: a majority of the present set has left all older terms, so no older leader, with
 *     whatever set it has appended and not committed, commits or renews a lease again.
 *  2. All leases of earlier leaders are over (`safeAt`): they may have been given under a set that only the older leader had.
 *  3. The last change is committed, and lease + margin have passed since then on this clock: every lease that still runs was
 *     given by a majority of the present set, for the leader counts in a new set from its append on.
 * Then the running leases were given by majorities of the present set, and whoever is elected next has the present set or the
 * new one in its log (the present one is committed). A new leader begins with 2, which covers what 3 would have waited for.
 */
import type { Millis, NodeId } from '../protocol/ids.js';
import { VOTERS_MAX } from '../protocol/limits.js';
import { majority } from './voter-set.js';

/** Entries that a node may lack and still become a voter: the commit of its own promotion waits for them. */
export const CATCH_UP_MAX = 64;

/** What became of a command that changes the node table. wait: it may be asked again. */
export type TableVerdict = { what: 'taken' } | { what: 'wait'; why: string } | { what: 'refuse'; text: string };

export interface VoterChangeContext {
  /** The leader has applied an entry of its own term. */
  isReady: boolean;
  /** Until then a lease of an earlier leader may run. */
  safeAt: Millis;
  /** lease + margin. */
  waitMs: Millis;
  voters: readonly NodeId[];
  /** Index of the entry that made the present set; and up to where the log is applied. */
  votersAt: number;
  applied: number;
  lastIndex: number;
  /** What the node's journal durably holds of our log; our own for ourselves. */
  matchOf(node: NodeId): number;
  /** The node talks to us. */
  isHeard(node: NodeId): boolean;
}

export class VoterChanges {
  /** When this leader saw the last change committed. */
  private committedAt: Millis = Number.NEGATIVE_INFINITY;

  begin(): void {
    this.committedAt = Number.NEGATIVE_INFINITY;
  }

  /** A change of the voters was applied while leading. */
  committed(now: Millis): void {
    this.committedAt = now;
  }

  /** May the vote of `node` be given (`on`) or taken now? */
  judge(now: Millis, node: NodeId, on: boolean, c: VoterChangeContext): TableVerdict {
    if (!c.isReady) return wait('the leader is new and does not know yet all that was committed');
    if (c.votersAt > c.applied) return wait('an earlier change of the voters is not committed yet');
    const from = Math.max(c.safeAt, this.committedAt + c.waitMs);
    if (now < from) {
      return wait(`leases given under earlier voters may run for another ${Math.ceil(from - now)} ms`);
    }
    const next = on ? [...c.voters, node] : c.voters.filter((v) => v !== node);
    if (next.length === 0) return refuse(`node ${node} is the only voter: give another node a vote first`);
    if (next.length > VOTERS_MAX) return refuse(`${c.voters.length} nodes vote, the most is ${VOTERS_MAX}: take one vote first`);
    if (on && c.lastIndex - c.matchOf(node) > CATCH_UP_MAX) return wait(`node ${node} has not caught up with the log yet`);
    if (on && !c.isHeard(node)) return wait(`node ${node} does not answer`);
    const heard = next.filter((v) => c.isHeard(v)).length;
    if (heard < majority(next)) {
      return refuse(
        `of the voters ${next.join(', ')} only ${heard} answer now, and ${majority(next)} must: the cluster would lose its quorum`,
      );
    }
    return { what: 'taken' };
  }
}

function wait(why: string): TableVerdict {
  return { what: 'wait', why };
}

function refuse(text: string): TableVerdict {
  return { what: 'refuse', text };
}
