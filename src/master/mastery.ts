/**
 * Mastery: who masters a name nobody here knows the master of (o2dlm `dlm_get_lock_resource`, fs/ocfs2/dlm/dlmmaster.c).
 *
 * The first node that needs a name asks all domain members in parallel. Each answers from one of five states:
 *   YES     I master it (and now remember that you know: refmap)
 *   OWNER n it is mastered by n, as far as I know (rule 9: never `no` with such knowledge)
 *   MAYBE   I am asking too; the lowest node number wins
 *   NO      I have no record at all; from now on I wait for the end of your round before I start one of my own
 *   RETRY   I cannot say yet: a recovery runs, in which I may become its master; or I hold a claim on it from before my
 *           restart and must place that first (rules 1, 3)
 * With only NO, and MAYBE from higher numbers, the asker is the master. Every round ends with an AssertMaster to all
 * members: owner = sender (won), another node (found), 0 (withdrawn).
 *
 * Why it is safe: a round and all its answers belong to one domain epoch, whose members are the same for everybody, and
 * messages of other epochs are never handled. Inside one epoch a second asker is either told by the first (YES, MAYBE), or
 * held back by the NO it gave. Mastership of an existing resource changes hands only at a new epoch (recovery.ts).
 *
 * All this is the policy `peer`; a domain of policy `servers` goes the way of nominate.ts from here.
 */

import type { NodeId } from '../protocol/ids.js';
import { ANSWER_MAYBE, ANSWER_NO, ANSWER_OWNER, ANSWER_RETRY, ANSWER_YES } from '../protocol/peer-messages.js';
import type { Domain, Mle } from './domain.js';
import { touchIdle, untouchIdle } from './idle.js';
import { type LockRes, RES_DROPPING, RES_MASTERING, RES_OWNED } from './lockres.js';
import { becomeMaster, hasClaim, learnOwner, mleOf } from './mle.js';
import { needServer, onServerReply, onServerRequest } from './nominate.js';
import type { EngineState } from './state.js';

/** A resource without a known master is needed: starts a round, unless one is running here or elsewhere. */
export function needMaster(s: EngineState, res: LockRes): void {
  const domain = res.domain;
  if (domain.isLeaving) return; // Who leaves masters nothing any more.
  if (domain.mastery === 'servers') return needServer(s, res);
  const isClaimed = hasClaim(domain, res);
  if (domain.isRecovering && !isClaimed) {
    domain.wanted.add(res); // startRounds, at the barrier.
    return;
  }
  if (domain.memberIds.size === 1) {
    domain.mles.delete(res.name);
    if (isClaimed && domain.isRecovering) s.hooks.placeClaim(res);
    else becomeMaster(s, res);
    return;
  }
  const mle = mleOf(domain, res.name);
  if (mle.isAsking || mle.retryAt !== 0) return;
  if (mle.rivals.size > 0) return; // Another node's round: its end starts ours, or answers it.
  ask(s, res, mle);
}

function ask(s: EngineState, res: LockRes, mle: Mle): void {
  const domain = res.domain;
  mle.isAsking = true;
  mle.found = 0;
  mle.isRetry = false;
  mle.retryAt = 0;
  mle.pending.clear();
  for (const m of domain.members) if (m.node !== s.self) mle.pending.add(m.node);
  // A claim is placed inside a recovery: who leaves may be handing over this very name, and nobody else need know where to yet.
  if (hasClaim(domain, res)) for (const m of domain.leaving) if (m.node !== s.self) mle.pending.add(m.node);
  for (const node of mle.pending) s.send(domain, node, { k: 'MasterRequest', name: res.name });
}

export function onMasterRequest(s: EngineState, domain: Domain, from: NodeId, name: string): void {
  if (domain.mastery === 'servers') return onServerRequest(s, domain, from, name);
  const res = s.find(domain, name);
  const reply = (answer: number, owner = 0, gen = 0): void =>
    s.send(domain, from, { k: 'MasterReply', name, answer, owner, gen });
  if (res && res.owner === s.self) {
    res.addRef(from);
    if (res.isIdle) untouchIdle(res);
    return reply(ANSWER_YES, s.self, res.gen);
  }
  const handed = domain.handing.get(name);
  if (handed) return reply(ANSWER_OWNER, handed.target, domain.epoch);
  if (res && res.owner !== 0 && res.state !== RES_DROPPING) return reply(ANSWER_OWNER, res.owner, res.gen);
  // A NO is a promise for this epoch, and until the barrier the name may still be registered with us (placed by its holders,
  // who may forget it again before they are asked). The same for a name that we claim ourselves.
  if (domain.isRecovering || (res && hasClaim(domain, res))) return reply(ANSWER_RETRY);
  const mle = mleOf(domain, name);
  mle.rivals.add(from);
  return reply(mle.isAsking ? ANSWER_MAYBE : ANSWER_NO);
}

export function onMasterReply(
  s: EngineState,
  domain: Domain,
  from: NodeId,
  m: { name: string; answer: number; owner: NodeId; gen: number },
): void {
  if (domain.mastery === 'servers') return onServerReply(s, domain, from, m);
  const mle = domain.mles.get(m.name);
  if (!mle?.isAsking || !mle.pending.delete(from)) return;
  if (m.answer === ANSWER_YES) {
    mle.found = from;
    mle.foundGen = m.gen;
  } else if (m.answer === ANSWER_OWNER) {
    // Hearsay counts only while the master itself has not spoken, and only about a member.
    if (mle.found === 0 && m.owner !== s.self && domain.memberIds.has(m.owner)) {
      mle.found = m.owner;
      mle.foundGen = m.gen;
    }
  } else if (m.answer === ANSWER_MAYBE) {
    mle.rivals.add(from);
  } else if (m.answer === ANSWER_RETRY) {
    mle.isRetry = true;
  }
  if (mle.pending.size === 0) decide(s, domain, mle);
}

/** All members have answered our round. */
function decide(s: EngineState, domain: Domain, mle: Mle): void {
  const res = s.find(domain, mle.name);
  mle.isAsking = false;
  if (!res || res.state !== RES_MASTERING) {
    endRound(s, domain, mle, 0, 0);
    settle(domain, mle);
    return;
  }
  if (mle.found !== 0) {
    const { found, foundGen } = mle;
    endRound(s, domain, mle, found, foundGen);
    settle(domain, mle);
    learnOwner(s, res, found, foundGen);
    return;
  }
  if (domain.isRecovering && hasClaim(domain, res)) {
    endRound(s, domain, mle, 0, 0);
    settle(domain, mle);
    s.hooks.placeClaim(res);
    return;
  }
  if (mle.isRetry) {
    endRound(s, domain, mle, 0, 0);
    mle.retryAt = s.now + s.tuning.retryMs;
    return;
  }
  for (const rival of mle.rivals) {
    if (rival < s.self) {
      endRound(s, domain, mle, 0, 0);
      return;
    }
  }
  endRound(s, domain, mle, s.self, domain.epoch);
  settle(domain, mle);
  becomeMaster(s, res);
}

function endRound(s: EngineState, domain: Domain, mle: Mle, owner: NodeId, gen: number): void {
  s.sendToMembers(domain, () => ({ k: 'AssertMaster', name: mle.name, owner, gen }));
}

/** The name's master is known here: only rounds of others whose end we still wait for keep the entry. */
function settle(domain: Domain, mle: Mle): void {
  mle.retryAt = 0;
  if (mle.rivals.size === 0) domain.mles.delete(mle.name);
}

/** A member's round has ended. */
export function onAssertMaster(
  s: EngineState,
  domain: Domain,
  from: NodeId,
  m: { name: string; owner: NodeId; gen: number },
): void {
  if (domain.mastery === 'servers') return; // Nobody asserts there.
  const mle = domain.mles.get(m.name);
  const res = s.find(domain, m.name);
  if (m.owner === from && res?.owner === s.self) {
    // Two masters of one name in one epoch: nothing either of us says about it can be trusted any more.
    s.note('error', 'two-masters', { domain: domain.name, name: m.name, other: from, epoch: domain.epoch });
    s.out.propose({ c: 'bump', dom: domain.dom, epoch: domain.epoch });
    return;
  }
  if (!mle) return;
  mle.rivals.delete(from);
  const isUsable = m.owner !== 0 && m.owner !== s.self && domain.memberIds.has(m.owner);
  if (mle.isAsking) {
    if (isUsable && mle.found === 0) {
      mle.found = m.owner;
      mle.foundGen = m.gen;
    }
    return;
  }
  if (!res || res.state !== RES_MASTERING) {
    if (mle.rivals.size === 0 && mle.retryAt === 0) domain.mles.delete(m.name);
    return;
  }
  if (isUsable) {
    settle(domain, mle);
    learnOwner(s, res, m.owner, m.gen);
  } else if (mle.rivals.size === 0 && mle.retryAt === 0) {
    needMaster(s, res);
  }
}

/** Our request met a node that does not master the name: forget what we believed and ask again. */
export function onNotMaster(s: EngineState, domain: Domain, from: NodeId, name: string): void {
  const res = s.find(domain, name);
  if (res?.state !== RES_OWNED || res.owner !== from) return;
  res.state = RES_MASTERING;
  res.owner = 0;
  res.bounces++;
  if (res.bounces > 3) {
    const mle = mleOf(domain, name);
    if (!mle.isAsking) mle.retryAt = s.now + s.tuning.retryMs;
  }
  if (res.localCount === 0) touchIdle(s, res);
  else needMaster(s, res);
}

/** Repeats the rounds whose pause is over. */
export function tickMastery(s: EngineState, domain: Domain): void {
  for (const mle of domain.mles.values()) {
    if (mle.retryAt === 0 || mle.retryAt > s.now) continue;
    mle.retryAt = 0;
    const res = s.find(domain, mle.name);
    const isNominee = domain.mastery === 'servers' && mle.rivals.size > 0;
    if (res?.state === RES_MASTERING && (res.localCount > 0 || isNominee)) {
      needMaster(s, res);
    } else if (mle.rivals.size === 0 && !mle.isAsking) {
      domain.mles.delete(mle.name);
      if (res && res.localCount === 0) touchIdle(s, res);
    }
  }
}

/**
 * A new epoch: rounds of the old one are void; the names that are still wanted are asked for again (`startRounds`, at the
 * barrier; claims at once). So is a name whose round was running though nobody wants it any more: a master may have noted
 * our reference in a YES that we refused with the old epoch, and only a finished round leads to the Deref that clears it.
 */
export function voidRounds(domain: Domain): void {
  for (const mle of domain.mles.values()) if (mle.isAsking) domain.askedBefore.add(mle.name);
  domain.mles.clear();
}

/** Claims of before a restart look for their masters inside the recovery. */
export function startClaims(s: EngineState, domain: Domain): void {
  for (const res of new Set([...domain.claims].map((lock) => lock.res))) if (res.state === RES_MASTERING) needMaster(s, res);
}

/** The barrier is reached: mastery rounds begin. */
export function startRounds(s: EngineState, domain: Domain): void {
  const asked = new Set(domain.askedBefore);
  const wanted = [...domain.wanted];
  domain.askedBefore.clear();
  domain.wanted.clear();
  for (const res of wanted) {
    if (res.state !== RES_MASTERING || domain.resources.get(res.name) !== res) continue;
    if (res.localCount > 0 || asked.has(res.name)) needMaster(s, res);
    else touchIdle(s, res);
  }
}
