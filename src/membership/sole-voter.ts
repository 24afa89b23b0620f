/**
 * What a view becomes when one of two voters goes on alone, and when it is two again (rule 13).
 *
 * Three ways lead to one voter: the peer was ended by device (`alone`), it left cleanly (`nodeLeave`), or an operator gave up
 * what the peer may know (`lostHistory`). In each the view remembers whom the survivor waits for: that node comes back without a
 * vote, whatever its journal says, learns the survivor's log, and is given its vote again (`wantsVote`) by an ordinary entry.
 * When a node may go on alone is survivor.ts; whose votes count meanwhile is voter-set.ts.
 */
import type { Epoch, NodeId } from '../protocol/ids.js';
import { EPOCH_MAX } from '../protocol/ids.js';
import type { Command, View } from './types.js';

/** So far ahead that no history which is given up can have come there. */
export const LOST_HISTORY_EPOCHS = 2 ** 16;

/**
 * Commands with which a node's being the only voter is in force as soon as they stand in a log: two that ask nobody, and one that
 * says that the ordinary change before it was committed (which a restarted node could not know by itself).
 */
export function isForced(command: Pick<Command, 'c'> | null): boolean {
  return command?.c === 'alone' || command?.c === 'lostHistory' || command?.c === 'sole';
}

/** The voters are exactly these two, or one of them; no other vote counts and nobody else's is on its way. */
export function arePair(voters: readonly NodeId[], a: NodeId, b: NodeId): boolean {
  return voters.length > 0 && voters.every((v) => v === a || v === b);
}

/** The view with one voter, before members and domains are changed; null when the rule does not apply. */
export function withSoleVoter(view: View, survivor: NodeId, peer: NodeId, epoch: Epoch, method: string): View | null {
  const voters = view.nodes.filter((n) => n.voter).map((n) => n.id);
  const left = view.nodes.find((n) => n.id === peer);
  const me = view.nodes.find((n) => n.id === survivor);
  // A witness is there so that nobody has to go on alone, and has nothing to go on with.
  if (left === undefined || me === undefined || survivor === peer || left.witness || me.witness) return null;
  if (!arePair(voters, survivor, peer) || epoch > EPOCH_MAX) return null;
  const nodes = view.nodes.map((n) => {
    if (n.id === survivor) return { ...n, voter: true, wantsVote: false };
    return n.id === peer ? { ...n, voter: false, wantsVote: true } : n;
  });
  const alone = { survivor, peer, startCount: left.incarnation?.startCount ?? 0, epoch, method };
  return { ...view, epoch, table: view.table + 1, nodes, alone };
}

/** Nobody is waited for once the peer has a vote again, or is no node any more. */
export function withoutWait(view: View): View {
  const { alone } = view;
  if (alone === null) return view;
  const peer = view.nodes.find((n) => n.id === alone.peer);
  return peer === undefined || peer.voter ? { ...view, alone: null } : view;
}
