/**
 * What the engine wants of the log: asked for again and again until a view shows it (commands may get lost, and may be
 * proposed twice).
 */
import type { Command, NodeView } from '../membership/types.js';
import type { EngineState } from './state.js';

/** This node's record in the view, if it is about this incarnation. */
export function ownRecord(s: EngineState): NodeView | null {
  if (s.isOver) return null;
  const me = s.view.nodes.find((n) => n.id === s.self);
  return me?.incarnation?.startCount === s.startCount ? me : null;
}

/**
 * Node-owned locks may be granted: the view knows that this node has some, so that its lease alone never counts as its
 * end (rule 2); or the operator takes that risk.
 */
export function isNodeOwnedMarked(s: EngineState): boolean {
  if (s.isNodeOwnedUnsafe) return true;
  return ownRecord(s)?.nodeOwned ?? false;
}

/** Domains that requests wait for, the node-owned mark, the first step of a clean leave, new epochs. */
export function proposeWanted(s: EngineState): void {
  const me = ownRecord(s);
  if (!me) return;
  const propose = (command: Command): void => s.out.propose(command);
  const who = { node: s.self, startCount: s.startCount };
  if (me.state === 'in' || me.state === 'suspect') {
    const wanted = new Set<string>();
    let isMarkWanted = false;
    for (const lock of s.waiting) {
      if (!s.domains.has(lock.domain)) wanted.add(lock.domain);
      if (lock.nodeOwned && !isNodeOwnedMarked(s)) isMarkWanted = true;
    }
    for (const name of [...wanted].sort()) propose({ c: 'domainJoin', ...who, name });
    if (isMarkWanted) propose({ c: 'nodeOwned', ...who, on: true });
  }
  // Also while it is to be fenced: what was not begun is withdrawn then.
  const mayLeave = me.state === 'in' || me.state === 'suspect' || me.state === 'fencing';
  if (mayLeave && s.isStopping && s.own.size === 0) propose({ c: 'nodeLeave', ...who });
  for (const domain of s.domains.values()) {
    if (domain.tainted.size > 0) propose({ c: 'bump', dom: domain.dom, epoch: domain.epoch });
  }
  if (s.clock.isHigh) propose({ c: 'epoch', epoch: s.view.epoch });
}

/** Last step of a clean leave: everything is handed over and confirmed. */
export function proposeLeft(s: EngineState): void {
  if (ownRecord(s)?.state !== 'leaving') return;
  for (const domain of s.domains.values()) if (domain.handing.size > 0 || !domain.isDoneSent) return;
  s.out.propose({ c: 'nodeLeft', node: s.self, startCount: s.startCount });
}
