/** What membership begins with: the configured nodes and the journal, judged before anything is built on them. */
import { TsdlmError } from '../protocol/errors.js';
import { VOTERS_MAX } from '../protocol/limits.js';
import type { NodePlace } from './bootstrap.js';
import type { MembershipInit, NodeConfig, Snapshot } from './types.js';
import { initialView } from './view.js';
import { parseView } from './view-check.js';

export function placeOf({ id, name, host = '', port = 0 }: NodeConfig): NodePlace {
  return { id, name, host, port };
}

/** Throws TSDLM_BAD_CONFIG for an impossible set of nodes, TSDLM_JOURNAL_CORRUPT for a log with a gap. */
export function checkInit(init: MembershipInit): void {
  const voters = init.nodes.filter((n) => n.voter).length;
  if (!init.nodes.some((n) => n.id === init.self)) {
    throw new TsdlmError('TSDLM_BAD_CONFIG', `this node's number ${init.self} is not among the configured nodes: add it`);
  }
  if (voters < 1 || voters > VOTERS_MAX) {
    throw new TsdlmError('TSDLM_BAD_CONFIG', `${voters} nodes have a vote: there must be 1 to ${VOTERS_MAX}`);
  }
  if (new Set(init.nodes.map((n) => n.id)).size !== init.nodes.length) {
    throw new TsdlmError('TSDLM_BAD_CONFIG', 'two configured nodes have the same number: numbers must differ');
  }
  let index = init.persisted.snapshot?.index ?? 0;
  for (const entry of init.persisted.entries) {
    if (entry.index !== ++index) {
      throw new TsdlmError('TSDLM_JOURNAL_CORRUPT', `log entry ${entry.index} in the journal stands where ${index} should be`);
    }
  }
}

/** What the log stands on. Throws TSDLM_JOURNAL_CORRUPT when the snapshot holds no view. */
export function baseOf({ persisted: { snapshot }, nodes }: MembershipInit): Snapshot {
  if (snapshot === null) return { index: 0, term: 0, view: initialView(nodes.slice(), '') };
  const view = parseView(snapshot.view);
  if (view === null) {
    throw new TsdlmError(
      'TSDLM_JOURNAL_CORRUPT',
      `the snapshot at log index ${snapshot.index} in the journal holds no view: restore the state directory from this machine's copy`,
    );
  }
  return { index: snapshot.index, term: snapshot.term, view };
}
