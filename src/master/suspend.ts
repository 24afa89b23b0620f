/**
 * What waits while this node is suspended (rule 20): its lease is over, what its owners hold is not.
 *
 * The problem: without a lease nothing may be granted, neither to our owners nor, by us as master, to anybody else; but nothing
 * is over either, and with the next lease all must go on as if the network had only been slow. The idea is just that: what other
 * nodes and the log say is kept in order and handled at the resumption, queues are not served until then, and a grant that the
 * journal confirms meanwhile is told then. Our owners may still release, cancel and time out; new requests wait.
 */
import type { NodeId } from '../protocol/ids.js';
import { PARKED_MESSAGES_MAX } from '../protocol/limits.js';
import type { Lock } from './lock.js';
import type { LockRes } from './lockres.js';

export interface Held {
  /** Messages, views and resets of links, in order. */
  inputs: (() => void)[];
  /** Resources whose queues were to be looked at. */
  toShuffle: Set<LockRes>;
  /** Granted, and not told. */
  untold: Lock[];
  /** Peers of which something was dropped. */
  overflowed: Set<NodeId>;
}

export class HeldBack implements Held {
  inputs: (() => void)[] = [];
  toShuffle = new Set<LockRes>();
  untold: Lock[] = [];
  overflowed = new Set<NodeId>();

  /** Keeps a message; a peer that says too much has to register again afterwards (rule 25). */
  keep(from: NodeId, input: () => void): void {
    if (this.inputs.length >= PARKED_MESSAGES_MAX || this.overflowed.has(from)) this.overflowed.add(from);
    else this.inputs.push(input);
  }

  /** Gives everything away and begins anew. */
  take(): Held {
    const { inputs, toShuffle, untold, overflowed } = this;
    this.inputs = [];
    this.toShuffle = new Set();
    this.untold = [];
    this.overflowed = new Set();
    return { inputs, toShuffle, untold, overflowed };
  }
}
