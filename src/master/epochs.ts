/**
 * Which message of another node counts: the domain epoch, judged once.
 *
 * The problem: views arrive at different times, so messages of an older and of a newer epoch than ours come in, and after a reset of
 * a link nobody knows which of them are missing.
 *
 * The idea: an older one is refused, a newer one waits for our view, within limits. What would be lost beyond these, or was lost with a
 * link, taints the peer: nothing it says counts before the next epoch, which is asked for at once.
 */
import type { NodeId } from '../protocol/ids.js';
import { DOMAINS_MAX, PARKED_MESSAGES_MAX } from '../protocol/limits.js';
import type { LockMessage } from '../protocol/peer-messages.js';
import { dispatch } from './dispatch.js';
import type { Domain } from './domain.js';
import type { EngineState } from './state.js';

/** How far ahead of our own view a sender's clock may be before it is called an error (rule 17). */
const EPOCH_AHEAD_MAX = 10_000;

/** Handles the message, keeps it or refuses it. False: it was not handled now. */
export function judge(s: EngineState, from: NodeId, msg: LockMessage): boolean {
  const domain = s.byDom.get(msg.dom);
  if (!domain) {
    const list = s.aheadOfDomain.get(msg.dom);
    if (!list && s.aheadOfDomain.size >= DOMAINS_MAX) return false;
    if (!list) s.aheadOfDomain.set(msg.dom, [{ from, msg }]);
    else if (list.length < PARKED_MESSAGES_MAX) list.push({ from, msg });
    return false;
  }
  if (msg.dep < domain.epoch) return false;
  if (msg.dep > domain.epoch) {
    if (domain.ahead.length < PARKED_MESSAGES_MAX) domain.ahead.push({ from, msg });
    else if (!domain.tainted.has(from)) taint(s, domain, from, msg.dep);
    return false;
  }
  handle(s, domain, from, msg);
  return true;
}

function handle(s: EngineState, domain: Domain, from: NodeId, msg: LockMessage): void {
  if (!domain.barrierIds.has(from) || (domain.tainted.get(from) ?? -1) >= domain.epoch) return;
  if (msg.ce > s.view.epoch + EPOCH_AHEAD_MAX) {
    s.note('error', 'epoch-unknown', { from, epoch: msg.ce, ours: s.view.epoch });
    return;
  }
  s.clock.lift(msg.ce, msg.cc);
  dispatch(s, domain, from, msg);
}

/** Nothing that `peer` says in `epoch` counts any more: a new epoch of the domain is asked for. */
export function taint(s: EngineState, domain: Domain, peer: NodeId, epoch: number): void {
  domain.tainted.set(peer, epoch);
  s.out.propose({ c: 'bump', dom: domain.dom, epoch: domain.epoch });
}

/** The view has come: what came ahead of it is handled. */
export function replayAhead(s: EngineState, domain: Domain): void {
  const list = domain.ahead;
  domain.ahead = [];
  for (const entry of list) {
    if (entry.msg.dep > domain.epoch) domain.ahead.push(entry);
    else if (entry.msg.dep === domain.epoch) handle(s, domain, entry.from, entry.msg);
  }
}
