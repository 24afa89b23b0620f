/**
 * Identifiers that every part of tsdlm shares.
 *
 * The problem: node numbers, epochs, lock ids and tokens are all "just numbers", and several of them travel together.
 * This file fixes their ranges once, and holds the one conversion between a token's two halves and its 64-bit form.
 */

/** Node number, 1..254 (0 means "nobody", 255 is kept free as ocfs2 does). Never reused for another machine. */
export type NodeId = number;
export const NODE_NONE: NodeId = 0;
export const NODE_MAX: NodeId = 254;

/** Number of a view, 24 bits. Only grows; each change of membership, of the cluster's or of one domain's, makes a new one. */
export type Epoch = number;
export const EPOCH_MAX = 2 ** 24 - 1;

/** Low 40 bits of the token clock. */
export const COUNTER_MAX = 2 ** 40 - 1;

/**
 * Number of one daemon life on a node: raised, synced, in the journal before the daemon speaks to anyone; also raised when a
 * daemon that lost its lease starts over inside one process. Higher wins.
 */
export type StartCount = number;

/**
 * Id of one lock (lkb) on its node: `startCount * 2^32 + counter`, so that no life of a node ever repeats an id.
 * Below 2^53. Cluster-wide a lock is named by (node, lock id).
 */
export type LockId = number;

/** Milliseconds on a monotonic clock of the node that says them; never compared between machines. */
export type Millis = number;

/**
 * Fencing token: epoch in the upper 24 bits, counter in the lower 40. The core carries the halves as two plain numbers
 * (a BigInt would allocate on the hot path); only the edges show it as one.
 */
export function tokenToBigInt(epoch: Epoch, counter: number): bigint {
  return (BigInt(epoch) << 40n) | BigInt(counter);
}

/** Orders two clock or token values: negative when a is older than b. */
export function compareClock(aEpoch: Epoch, aCounter: number, bEpoch: Epoch, bCounter: number): number {
  return aEpoch !== bEpoch ? aEpoch - bEpoch : aCounter - bCounter;
}

/** What makes one life of a node different from every other. */
export interface Incarnation {
  /** The kernel's boot id (`/proc/sys/kernel/random/boot_id`): changes exactly at a reboot. */
  bootId: string;
  /** `/etc/machine-id` or what the configuration says instead. */
  machineId: string;
  startCount: StartCount;
  /** Random id written when the journal was created: a wiped disk shows as another journal id. */
  journalId: string;
}
