/**
 * Which member masters a resource whose master is gone: rendezvous hashing, so that every node computes the same answer
 * from the name and the members alone, and a dead node's resources spread over all survivors.
 */

import type { Member } from '../membership/types.js';
import type { NodeId } from '../protocol/ids.js';

/** FNV-1a over the UTF-16 units, then a finishing mix (murmur3's) with the node number. 32 bits. */
function weight(hash: number, node: NodeId): number {
  let h = hash ^ Math.imul(node, 0x9e3779b1);
  h = Math.imul(h ^ (h >>> 16), 0x85ebca6b);
  h = Math.imul(h ^ (h >>> 13), 0xc2b2ae35);
  return (h ^ (h >>> 16)) >>> 0;
}

/** The member with the greatest weight for `name`; the lower number wins a tie. 0 when there are no members. */
export function placeResource(name: string, members: readonly Member[]): NodeId {
  let hash = 0x811c9dc5;
  for (let i = 0; i < name.length; i++) hash = Math.imul(hash ^ name.charCodeAt(i), 0x01000193);
  let best = 0;
  let bestWeight = -1;
  for (const m of members) {
    const w = weight(hash, m.node);
    if (w > bestWeight) {
      bestWeight = w;
      best = m.node;
    }
  }
  return best;
}
