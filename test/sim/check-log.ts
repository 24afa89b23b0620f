/**
 * Checks S5 from what leaves the nodes and what reaches their disks: one vote per term and node, one leader per term, committed
 * log entries that stay, and one meaning of each epoch.
 *
 * It needs no help from the consensus code: votes and leadership are read off messages, entries off the writes to disk.
 */
import type { PersistBatch, View } from '../../src/membership/types.js';
import type { PeerMessage } from '../../src/protocol/peer-messages.js';

interface Stored {
  snapshotIndex: number;
  entries: Map<number, string>;
}

export class LogChecker {
  readonly #fail: (text: string) => void;
  readonly #leaders = new Map<number, string>();
  readonly #votes = new Map<string, number>();
  readonly #committed = new Map<number, string>();
  #commitIndex = 0;
  /** By epoch and version of the node table. */
  readonly #epochs = new Map<string, string>();
  /** What each node has been told to write in its present life. */
  readonly #stored = new Map<number, Stored>();

  constructor(fail: (text: string) => void) {
    this.#fail = fail;
  }

  get commitIndex(): number {
    return this.#commitIndex;
  }

  /** A message leaves node `from`, life number `life`. */
  sent(from: number, life: number, to: number, msg: PeerMessage): void {
    switch (msg.k) {
      case 'RaftVoteReply': {
        if (msg.pre || !msg.granted) return;
        const key = `${from}/${msg.term}`;
        const other = this.#votes.get(key);
        if (other !== undefined && other !== to) {
          this.#fail(`S5: n${from} voted for n${to} in term ${msg.term} after it had voted for n${other}`);
        }
        this.#votes.set(key, to);
        return;
      }
      case 'RaftVote': {
        if (msg.pre) return;
        const key = `${from}/${msg.term}`;
        const other = this.#votes.get(key);
        if (other !== undefined && other !== from) {
          this.#fail(`S5: n${from} stands in term ${msg.term} after it had voted for n${other}`);
        }
        this.#votes.set(key, from);
        return;
      }
      case 'RaftAppend':
      case 'Heartbeat': {
        const leader = `n${from} (life ${life})`;
        const other = this.#leaders.get(msg.term);
        if (other === undefined) this.#leaders.set(msg.term, leader);
        else if (other !== leader) this.#fail(`S5: ${leader} and ${other} both lead term ${msg.term}`);
        if (msg.commit > this.#commitIndex) this.#commit(from, msg.commit);
        return;
      }
      default:
        return;
    }
  }

  /** A node is given a batch to write. Checked when it is given, not when it is synced: what it means is decided here. */
  persist(node: number, batch: PersistBatch): void {
    const s = this.#of(node);
    if (batch.snapshot) {
      s.snapshotIndex = Math.max(s.snapshotIndex, batch.snapshot.index);
      for (const index of [...s.entries.keys()]) if (index <= batch.snapshot.index) s.entries.delete(index);
    }
    if (batch.truncateFrom !== undefined) {
      for (const index of [...s.entries.keys()]) if (index >= batch.truncateFrom) s.entries.delete(index);
    }
    for (const e of batch.entries ?? []) {
      const text = `${e.term} ${JSON.stringify(e.cmd)}`;
      s.entries.set(e.index, text);
      const committed = this.#committed.get(e.index);
      // An entry of an older term may still be on its way to a node that lags; only a newer one contradicts.
      if (committed !== undefined && committed !== text && e.term > Number(committed.split(' ', 1)[0])) {
        this.#fail(`S5: n${node} writes entry ${e.index} as ${text}, which was committed as ${committed}`);
      }
    }
  }

  /** The node starts (again) from these entries. */
  restarted(node: number, snapshotIndex: number, entries: readonly { index: number; term: number; cmd: unknown }[]): void {
    const map = new Map<number, string>();
    for (const e of entries) map.set(e.index, `${e.term} ${JSON.stringify(e.cmd)}`);
    this.#stored.set(node, { snapshotIndex, entries: map });
  }

  /** A node applied a view: an epoch means the same to all. True when this epoch was never seen before. */
  applied(node: number, view: View): boolean {
    const text = JSON.stringify([view.clusterId, view.domains, view.nodes.map((n) => n.incarnation)]);
    const key = `${view.epoch}/${view.table}`;
    const known = this.#epochs.get(key);
    if (known === undefined) {
      this.#epochs.set(key, text);
      return true;
    }
    if (known !== text) this.#fail(`S5: n${node} applied another view of epoch ${view.epoch}: ${text} instead of ${known}`);
    return false;
  }

  #commit(leader: number, commit: number): void {
    const s = this.#of(leader);
    for (let i = this.#commitIndex + 1; i <= commit; i++) {
      const entry = s.entries.get(i);
      if (entry !== undefined) this.#committed.set(i, entry);
    }
    this.#commitIndex = commit;
  }

  #of(node: number): Stored {
    let s = this.#stored.get(node);
    if (!s) {
      s = { snapshotIndex: 0, entries: new Map() };
      this.#stored.set(node, s);
    }
    return s;
  }
}
