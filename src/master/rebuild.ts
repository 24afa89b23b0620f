/**
 * Rebuilding the queues of a resource from what its holders registered (o2dlm's DLM_MIG_LOCKRES in recovery, fs/dlm's
 * recover.c), and the value block with them.
 */
import { InvariantError } from '../protocol/errors.js';
import { compareClock, type Millis, type NodeId } from '../protocol/ids.js';
import { EX, type Mode, PR } from '../protocol/modes.js';
import { LOCK_RECLAIM, LOCK_TRY, type RegisteredLock } from '../protocol/peer-messages.js';
import type { Domain, Rebuild } from './domain.js';
import { Lock, ST_CONVERTING, ST_LOCKING, ST_UNLOCKING, WAIT_CLAIM } from './lock.js';
import type { LockRes } from './lockres.js';
import * as serve from './serve.js';
import { LVB_INVALID } from './types.js';

/** In a registration: nothing asked for. */
export const WANT_NONE = 255;
/** Registration flag: nothing is held yet, `mode` means nothing. */
export const REG_NOTHING_HELD = 0x80;

/** Registration flag: the release is under way; only its value block counts, and only beside a hand-over that names the lock. */
export const REG_RELEASING = 0x10;

/**
 * How a local lock is told to the resource's new master; null when there is nothing to tell.
 *
 * A lock whose release is under way is not told: its hold has ended, and the dead master may have processed the release
 * and granted others, so counting it as held could contradict them. Its value block is not told either: others may have
 * written since; with no PR or EX copy left the block becomes invalid, never silently old (S3, rule 18). A
 * down-conversion under way is told at the lower mode, which is in force whether or not the dead master knew.
 */
export function registration(lock: Lock, now: Millis): RegisteredLock | null {
  if (lock.st < ST_LOCKING || lock.st > ST_UNLOCKING) return null;
  // Until its journal has forgotten a node-owned lock it is held, whatever its owner wants (rule 3).
  const isReleasing = lock.st === ST_UNLOCKING && lock.mayLeave && !lock.isHeldBack;
  if (isReleasing && lock.mode !== EX) return null;
  const isTry = (lock.flags & LOCK_TRY) !== 0;
  // A claim of before a restart that its master has not confirmed is a lock that is held, not one that is asked for.
  const isClaim = (lock.flags & (LOCK_RECLAIM | WAIT_CLAIM)) === LOCK_RECLAIM;
  // A try is decided by its repeated request, never by standing in a queue.
  if (lock.mode === -1 && isTry) return null;
  const mode = isClaim && lock.mode === -1 ? (lock.want as Mode) : modeInForce(lock);
  const isWaiting = (lock.st === ST_LOCKING || lock.st === ST_CONVERTING) && !isTry && lock.want > mode;
  return {
    name: lock.name,
    id: lock.id,
    mode: mode === -1 ? 0 : mode,
    want: isWaiting && lock.want !== -1 ? lock.want : WANT_NONE,
    flags:
      (lock.flags & 0x0f & ~(LOCK_TRY | (isClaim ? 0 : LOCK_RECLAIM))) |
      (mode === -1 ? REG_NOTHING_HELD : 0) |
      (isReleasing ? REG_RELEASING : 0),
    te: lock.te,
    tc: lock.tc,
    se: lock.se,
    sc: lock.sc,
    lvbState: lock.lvbState,
    lvb: lock.lvb,
    who: lock.who,
    why: lock.why,
    ageMs: Math.max(0, now - lock.since),
  };
}

/** The mode a lock certainly has: the lower one while a down-conversion is under way. */
export function modeInForce(lock: Lock): Mode | -1 {
  if (lock.st === ST_CONVERTING && lock.mayLeave && !lock.isHeldBack && lock.want !== -1 && lock.want < lock.mode)
    return lock.want;
  return lock.mode;
}

export function rebuildOf(domain: Domain, name: string): Rebuild {
  let rebuild = domain.rebuilding.get(name);
  if (!rebuild) {
    rebuild = { name, locks: [], index: null, handed: null, parked: [] };
    domain.rebuilding.set(name, rebuild);
  }
  return rebuild;
}

/** Up to so many locks of a resource are looked through: most have one or two, and a Map for each would cost more than all else. */
const LOOKED_THROUGH_MAX = 8;

/** A lock of another node is known now; what it said of the same one before does not count any more. */
export function noteLock(rebuild: Rebuild, lock: Lock): void {
  const { locks } = rebuild;
  let at: number;
  if (locks.length <= LOOKED_THROUGH_MAX) {
    at = locks.findIndex((l) => l.id === lock.id && l.node === lock.node);
  } else {
    rebuild.index ??= new Map(locks.map((l, i) => [`${l.node}/${l.id}`, i]));
    const key = `${lock.node}/${lock.id}`;
    at = rebuild.index.get(key) ?? -1;
    if (at < 0) rebuild.index.set(key, locks.length);
  }
  if (at >= 0) locks[at] = lock;
  else locks.push(lock);
}

/** A lock of another node, from its registration. */
export function lockFromRegistration(res: LockRes, node: NodeId, r: RegisteredLock, now: Millis): Lock {
  const isNothingHeld = (r.flags & REG_NOTHING_HELD) !== 0;
  const want = r.want === WANT_NONE ? -1 : ((r.want <= 2 ? r.want : 0) as Mode);
  const lock = new Lock(r.id, node, res, 0, r.flags & 0x0f, r.who, r.why);
  lock.isReleasing = (r.flags & REG_RELEASING) !== 0;
  lock.mode = isNothingHeld ? -1 : r.mode;
  lock.want = want;
  lock.te = r.te;
  lock.tc = r.tc;
  lock.se = r.se;
  lock.sc = r.sc;
  lock.lvbState = r.lvbState;
  lock.lvb = r.lvb;
  lock.since = now - r.ageMs;
  return lock;
}

/**
 * Puts locks (of all nodes, local ones included) into the empty queues of `res`, and finds the value block. Returns claims of
 * restarted nodes that do not go with what others hold: such a one rests on the word of a client, not on what a node knows.
 */
export function fillQueues(res: LockRes, all: Lock[], handed: Rebuild['handed']): Lock[] {
  const refused: Lock[] = [];
  const locks = all.some(isClaimed) ? [...all.filter((l) => !isClaimed(l)), ...all.filter(isClaimed)] : all;
  const converting: Lock[] = [];
  const blocked: Lock[] = [];
  let copy: Lock | null = null;
  for (const lock of locks) {
    if ((lock.st === ST_UNLOCKING && lock.mayLeave && !lock.isHeldBack) || lock.isReleasing) continue;
    if (lock.mode === -1 && (lock.flags & (LOCK_RECLAIM | WAIT_CLAIM)) === LOCK_RECLAIM) {
      lock.mode = lock.want as Mode;
      lock.want = -1;
    }
    lock.mode = modeInForce(lock);
    const isHeld = lock.mode !== -1;
    const isWaiting = lock.want > lock.mode && (lock.flags & LOCK_TRY) === 0;
    if (isHeld) {
      if (!serve.fitsAmongOthers(res, lock.mode as Mode) && isClaimed(lock)) {
        refused.push(lock);
        continue;
      }
      if (!serve.fitsAmongOthers(res, lock.mode as Mode)) {
        const holders = locks.filter((l) => l.mode > 0).map((l) => `${l.node}/${l.id} mode ${l.mode}`);
        throw new InvariantError(`rebuilding ${res.domain.name}/${res.name}: incompatible holders ${holders.join(', ')}`);
      }
      res.count(lock.mode, 1);
      if (lock.mode >= PR && (copy === null || lock.mode === EX)) copy = lock;
    }
    if (!isWaiting) {
      if (isHeld) res.granted.push(lock);
    } else if (lock.mode === PR) {
      converting.push(lock);
    } else {
      blocked.push(lock);
    }
  }
  for (const lock of inOrder(converting, handed, handed?.converting)) res.converting.push(lock);
  for (const lock of inOrder(blocked, handed, handed?.blocked)) res.blocked.push(lock);
  // The leaving master's word is the truth, but for what an EX holder that it still saw has written since; else any PR or
  // EX copy is current; else nobody knows (rule 18). A holder that it saw, and that has gone over to this epoch before the grant
  // reached it, waits still, or has given up: it has written nothing.
  const writer = handed && handed.exNode !== 0 ? locks.find((l) => l.node === handed.exNode && l.id === handed.exId) : null;
  if (handed && handed.exNode !== 0) {
    const isGrantLost = writer ? isUngranted(writer) : isLiving(res.domain, handed.exNode, handed.exId);
    const from = isGrantLost ? handed : writer;
    res.lvbState = from ? from.lvbState : LVB_INVALID;
    res.lvb = from ? from.lvb : null;
  } else if (handed) {
    res.lvbState = handed.lvbState;
    res.lvb = handed.lvb;
  } else if (copy) {
    res.lvbState = copy.lvbState;
    res.lvb = copy.lvb;
  } else {
    res.lvbState = LVB_INVALID;
    res.lvb = null;
  }
  return refused;
}

function isClaimed(lock: Lock): boolean {
  return (lock.flags & (LOCK_RECLAIM | WAIT_CLAIM)) === LOCK_RECLAIM;
}

function isUngranted(lock: Lock): boolean {
  return lock.mode === -1 || lock.want > lock.mode;
}

/** The incarnation that asked for this lock is a member: had it held the lock, it would have registered it. */
function isLiving(domain: Domain, node: NodeId, id: number): boolean {
  return domain.startCountOf(node) === Math.floor(id / 2 ** 32);
}

/**
 * By the old master's order where it handed one over, else by request stamp (rule 21). First of all whom it has granted EX, should the
 * grant not have arrived.
 */
function inOrder(locks: Lock[], handed: Rebuild['handed'], order: number[][] | undefined): Lock[] {
  if (locks.length < 2) return locks;
  const rank = new Map<string, number>();
  if (handed && handed.exNode !== 0) rank.set(`${handed.exNode}/${handed.exId}`, -1);
  order?.forEach(([node, id], at) => {
    rank.set(`${node}/${id}`, at);
  });
  const last = order?.length ?? 0;
  return locks.sort((a, b) => {
    const byRank = (rank.get(`${a.node}/${a.id}`) ?? last) - (rank.get(`${b.node}/${b.id}`) ?? last);
    return byRank || compareClock(a.se, a.sc, b.se, b.sc) || a.node - b.node || a.id - b.id;
  });
}
