/**
 * Mastery in a domain of policy `servers`: only members that vote may master (LOCK_GULM's servers), the others only ask.
 *
 * The problem: an asker that may not be master itself cannot end a round by winning it, and with many clients and few servers a
 * round must not concern the clients at all. The idea: for each name and domain epoch there is one *nominee*, the server
 * that rendezvous hashing names from the servers of that epoch, which are part of the view. Only the nominee may become master of a
 * name that nobody masters, so two askers of one epoch can never make two masters. An asker asks the nominee alone:
 *   YES      I master it (and remember you: refmap)
 *   OWNER n  n masters it; ask n, which notes you as well
 *   RETRY    a recovery runs
 * A nominee without a record first asks the other servers, because one of them may be the master since an earlier epoch; each
 * says YES, or NO (I do not master it, and in this epoch I cannot begin to). With only NO the nominee is the master.
 *
 * Clients are not asked, so unlike under `peer` nobody is held back by what a client believes. Hence a belief has to be true: it
 * is formed by the YES of the master itself, whose refmap then keeps the record, or by a registration in a recovery;
 * a name with nothing to register is asked for anew in each epoch that takes its master away (orphans.ts). OWNER alone is never
 * believed, except for claims of a restarted node, which are placed inside a recovery, where masters do not change: for
 * these all members are asked, as under `peer`.
 * A server that joins changes the nominees of later epochs only: it gets new names, masterships that exist stay.
 */
import type { NodeId } from '../protocol/ids.js';
import { ANSWER_NO, ANSWER_OWNER, ANSWER_RETRY, ANSWER_YES } from '../protocol/peer-messages.js';
import type { Domain, Mle } from './domain.js';
import { touchIdle, untouchIdle } from './idle.js';
import { type LockRes, RES_DROPPING, RES_MASTERING } from './lockres.js';
import { becomeMaster, hasClaim, learnOwner, mleOf } from './mle.js';
import { placeResource } from './placement.js';
import type { EngineState } from './state.js';

/** A resource without a known master is needed: asks for it, unless that is under way, or nobody may master. */
export function needServer(s: EngineState, res: LockRes): void {
  const domain = res.domain;
  if (domain.isRecovering && !hasClaim(domain, res)) {
    domain.wanted.add(res); // startRounds, at the barrier.
    return;
  }
  const mle = domain.mles.get(res.name);
  if (mle?.isAsking || (mle && mle.retryAt !== 0)) return;
  if (domain.masters.length === 0 && !hasClaim(domain, res)) {
    // No server lives in this domain: what is asked for waits, until a view brings one.
    if (res.localCount === 0) touchIdle(s, res);
    return;
  }
  ask(s, res, mle ?? mleOf(domain, res.name));
}

function ask(s: EngineState, res: LockRes, mle: Mle): void {
  const domain = res.domain;
  mle.isAsking = true;
  mle.found = 0;
  mle.isRetry = false;
  mle.retryAt = 0;
  mle.pending.clear();
  for (const node of whomToAsk(s, res, mle)) if (node !== s.self) mle.pending.add(node);
  mle.hint = 0;
  for (const node of mle.pending) s.send(domain, node, { k: 'MasterRequest', name: res.name });
  if (mle.pending.size === 0) decide(s, domain, mle);
}

function whomToAsk(s: EngineState, res: LockRes, mle: Mle): NodeId[] {
  const domain = res.domain;
  if (hasClaim(domain, res)) return [...domain.barrierIds].filter((node) => !domain.awayIds.has(node));
  const nominee = placeResource(res.name, domain.masters);
  if (nominee === s.self) return domain.masters.map((m) => m.node);
  return [mle.hint || nominee];
}

export function onServerRequest(s: EngineState, domain: Domain, from: NodeId, name: string): void {
  const reply = (answer: number, owner = 0, gen = 0): void =>
    s.send(domain, from, { k: 'MasterReply', name, answer, owner, gen });
  const known = s.find(domain, name);
  if (known && known.owner === s.self) {
    known.addRef(from);
    if (known.isIdle) untouchIdle(known);
    return reply(ANSWER_YES, s.self, known.gen);
  }
  const handed = domain.handing.get(name);
  if (handed) return reply(ANSWER_OWNER, handed.target, domain.epoch);
  if (known && known.owner !== 0 && known.state !== RES_DROPPING) return reply(ANSWER_OWNER, known.owner, known.gen);
  if (domain.isRecovering || (known && hasClaim(domain, known)) || known?.state === RES_DROPPING) return reply(ANSWER_RETRY);
  if (placeResource(name, domain.masters) !== s.self) return reply(ANSWER_NO);
  const res = s.resource(domain, name);
  if (res.isIdle) untouchIdle(res);
  mleOf(domain, name).rivals.add(from);
  needServer(s, res);
}

export function onServerReply(
  s: EngineState,
  domain: Domain,
  from: NodeId,
  m: { name: string; answer: number; owner: NodeId; gen: number },
): void {
  const mle = domain.mles.get(m.name);
  if (!mle?.isAsking || !mle.pending.delete(from)) return;
  const nominee = placeResource(m.name, domain.masters);
  if (m.answer === ANSWER_YES && domain.masterIds.has(from)) {
    mle.found = from;
    mle.foundGen = m.gen;
  } else if (m.answer === ANSWER_OWNER && domain.masterIds.has(m.owner) && m.owner !== s.self && m.owner !== from) {
    mle.hint = m.owner;
    // From anybody but the nominee it says only that a belief is not up to date: it will be, in a moment.
    if (from !== nominee) mle.isRetry = true;
  } else if (m.answer !== ANSWER_NO || nominee !== s.self) {
    mle.isRetry = true;
  }
  if (mle.pending.size === 0) decide(s, domain, mle);
}

/** All that were asked have answered. */
function decide(s: EngineState, domain: Domain, mle: Mle): void {
  const res = s.find(domain, mle.name);
  mle.isAsking = false;
  if (!res || res.state !== RES_MASTERING) return settle(s, domain, mle);
  if (mle.found !== 0) {
    learnOwner(s, res, mle.found, mle.foundGen);
    return settle(s, domain, mle);
  }
  if (domain.isRecovering && hasClaim(domain, res)) {
    if (mle.hint !== 0) learnOwner(s, res, mle.hint, domain.epoch);
    else s.hooks.placeClaim(res);
    return settle(s, domain, mle);
  }
  if (mle.hint !== 0 && !mle.isRetry) return ask(s, res, mle);
  if (mle.isRetry || placeResource(mle.name, domain.masters) !== s.self) {
    mle.hint = 0;
    mle.retryAt = s.now + s.tuning.retryMs;
    return;
  }
  for (const node of mle.rivals) res.addRef(node);
  becomeMaster(s, res);
  settle(s, domain, mle);
}

/** The search is over: who waits for our answer gets it. */
function settle(s: EngineState, domain: Domain, mle: Mle): void {
  domain.mles.delete(mle.name);
  for (const node of mle.rivals) onServerRequest(s, domain, node, mle.name);
}
