/**
 * What the engine wants of the log: asked for again and again until a view shows it (commands may get lost, and may be
 * proposed twice).
 */
import type { Command, DomainView, MasteryPolicy, NodeView } from '../membership/types.js';
import { ST_GONE } from './lock.js';
import { isHandedOver } from './restart.js';
import type { EngineState } from './state.js';

/** This node's record in the view, if it is about this incarnation. */
export function ownRecord(s: EngineState): NodeView | null {
  if (s.isOver) return null;
  const me = s.view.nodes.find((n) => n.id === s.self);
  return me?.incarnation?.startCount === s.startCount ? me : null;
}

/** This node votes and owns nothing: it is in no domain, so nobody here gets a lock. */
export function isWitness(s: EngineState): boolean {
  return s.view.nodes.some((n) => n.id === s.self && n.witness);
}

/**
 * Node-owned locks may be granted: the view knows that this node has some, so that its lease alone never counts as its
 * end (rule 2); or the operator takes that risk.
 */
export function isNodeOwnedMarked(s: EngineState): boolean {
  if (s.isNodeOwnedUnsafe) return true;
  return ownRecord(s)?.nodeOwned ?? false;
}

/**
 * Nothing ends this machine but itself, and the view does not show yet that it is armed to: should it die now, only a person could
 * free what it owns (rule 2).
 */
function waitsForArming(s: EngineState, me: NodeView): boolean {
  return s.endsItself && me.armedMs === 0 && me.fence.every((level) => level.includes('self'));
}

function domainOf(s: EngineState, name: string): DomainView | undefined {
  return s.view.domains.find((d) => d.name === name);
}

/** Nobody is in it: whoever comes next makes it anew, with another policy perhaps. */
function isEmpty(domain: DomainView): boolean {
  return domain.members.length === 0 && domain.leaving.length === 0;
}

/** Why this node may not join the domain with this policy (null: with the configured one), or null. */
export function contradiction(s: EngineState, name: string, mastery: MasteryPolicy | null): string | null {
  const domain = domainOf(s, name);
  const wished = mastery ?? s.mastery.domains.get(name);
  if (!domain || isEmpty(domain) || wished === undefined || wished === domain.mastery) return null;
  const who = mastery === null ? "this node's configuration" : 'this request';
  return `domain ${name} has mastery "${domain.mastery}" as long as any node is in it, and ${who} says "${wished}"`;
}

/** Says so in the log, too. */
export function isContradicted(s: EngineState, name: string): boolean {
  const text = contradiction(s, name, null);
  if (text !== null) s.note('warn', 'mastery-contradiction', { domain: name, text });
  return text !== null;
}

/** Asks for this node's membership in a domain; null: the policy that the configuration says, or that the domain has. */
export function proposeJoin(s: EngineState, name: string, mastery: MasteryPolicy | null): void {
  const domain = domainOf(s, name);
  const present = domain && !isEmpty(domain) ? domain.mastery : undefined;
  const policy = mastery ?? s.mastery.domains.get(name) ?? present ?? s.mastery.standard;
  s.out.propose({ c: 'domainJoin', node: s.self, startCount: s.startCount, name, mastery: policy });
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
    for (const lock of [...s.waiting]) {
      if (!s.domains.has(lock.domain)) {
        if (!wanted.has(lock.domain) && isContradicted(s, lock.domain)) {
          s.waiting.delete(lock);
          lock.st = ST_GONE;
          s.out.denied(lock, 'TSDLM_NOT_ALLOWED');
          continue;
        }
        wanted.add(lock.domain);
      }
      if (lock.nodeOwned && !isNodeOwnedMarked(s)) isMarkWanted = true;
    }
    for (const name of [...wanted].sort()) proposeJoin(s, name, null);
    if (isMarkWanted && !waitsForArming(s, me)) propose({ c: 'nodeOwned', ...who, on: true });
    if (s.restart === 'handing' && s.domains.size > 0 && ![...s.domains.values()].every((d) => d.isLeaving)) {
      propose({ c: 'nodeRestart', ...who });
    }
    if (s.restart === 'announcing' && isHandedOver(s)) {
      propose({ c: 'restarting', ...who, forMs: s.restartForMs, epoch: s.view.epoch });
    }
    if (s.isSettled && me.restartMs > 0) propose({ c: 'settled', ...who });
  }
  // Also while it is to be fenced: what was not begun is withdrawn then.
  const mayLeave = me.state === 'in' || me.state === 'suspect' || me.state === 'fencing';
  // What owners were told before a restart stands until the end of the grace, whoever has claimed it.
  const isFree = s.own.size + s.claimable.length === 0 && s.now >= s.graceUntil;
  if (mayLeave && s.isStopping && isFree) propose({ c: 'nodeLeave', ...who });
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
