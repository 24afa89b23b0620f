/**
 * The local owners of one simulated node: sessions that lock, convert, write, cancel, release and die, and locks owned by
 * the node itself. They do to the core what the session server of the daemon does, and know only what it would tell them.
 *
 * Each request is an {@link Owned}; its phases and the outcome codes are checked here (one outcome per request, no time-out
 * before its time, no conflict without a try). Holds, tokens and value blocks go to the checkers.
 */
import { NodeCore } from '../../src/core/node-core.js';
import type { ClaimedLock, LocalLock } from '../../src/master/types.js';
import { type ErrorCode, InvariantError, TsdlmError } from '../../src/protocol/errors.js';
import { EX, type Mode, modeName, NL, PR } from '../../src/protocol/modes.js';
import { deadlineOf, type Hold, isOver } from './check-holds.js';
import type { RestartRecord } from './disk.js';
import type { Life, SimNode } from './node.js';
import { OpenFiles } from './open-files.js';
import { Session } from './session.js';
import { decodeLvb, encodeLvb } from './value.js';

export type Phase = 'waiting' | 'held' | 'converting' | 'releasing' | 'gone';

/** One lock of one owner, from request to end. */
export interface Owned {
  readonly node: SimNode;
  life: Life;
  readonly session: Session | null;
  readonly key: string;
  readonly domain: string;
  readonly name: string;
  readonly nodeOwned: boolean;
  readonly usesLvb: boolean;
  /** The mount that a node-owned lock belongs to; '' = none. */
  readonly door: string;
  /** A program was told that its file is open, and has not closed it. */
  isOpen: boolean;
  readonly since: number;
  local: LocalLock | null;
  hold: Hold | null;
  phase: Phase;
  want: Mode;
  isTry: boolean;
  /** Of the request under way, on the node's clock; 0 = none. */
  deadline: number;
  isCancelled: boolean;
  /** To be released as soon as it is held. */
  isUnwanted: boolean;
  /** Taken from the journal by a restarted daemon: an old hold goes on, nothing new is granted. */
  isClaim: boolean;
  /** Value written under the present EX, 0 = none. */
  written: number;
  /** Value on its way with a down-conversion, 0 = none. */
  putting: number;
  /** Its daemon is gone, and it has not met the next one: what it knows of its lock. */
  away: ClaimedLock | null;
  /** What the next daemon has said before they met. */
  missed: (() => void)[];
  /** Claimed, and not confirmed yet: token of before. */
  reclaiming: ClaimedLock | null;
  /** Called when it is granted for the first time or ended without (the final probe waits with it). */
  onOutcome: ((ok: boolean) => void) | null;
}

export interface Ask {
  session: Session | null;
  domain: string;
  name: string;
  mode: Mode;
  isTry: boolean;
  nodeOwned: boolean;
  usesLvb: boolean;
  door?: string;
  /** On the node's clock; 0 = none. */
  deadline: number;
  onOutcome?: (ok: boolean) => void;
}

/** A lock in the record of a restart whose owner did not come back: the daemon keeps it until the deadline it was told. */
class Ghost {
  local: LocalLock | null = null;
  /** Its owner was told of EX with the value block, and may have written. */
  mayWrite = false;
}

export class NodeOwners {
  readonly #node: SimNode;
  readonly all = new Set<Owned>();
  readonly #files: OpenFiles;
  sessions: Session[] = [];

  constructor(node: SimNode) {
    this.#node = node;
    this.#files = new OpenFiles(node);
  }

  // --- What happens to the daemon ------------------------------------------------------------------------------------------

  started(life: Life, record: RestartRecord | null): void {
    const { world, random } = this.#node;
    if (record) this.#claimRecorded(life, record);
    const back = this.sessions;
    for (const session of back) {
      world.queue.after(0.5 + random.exp(40), () => this.#node.input(life, () => this.#reconnect(session, life)));
    }
    // Driven by hand, without sessions: requests of their own.
    if ([...this.all].some((o) => o.away && !o.session)) {
      world.queue.after(0.5 + random.exp(40), () => this.#node.input(life, () => this.#reconnect(null, life)));
    }
    // Nobody gets a lock from a witness.
    if (this.#node.config.witness === true) return;
    for (let i = back.length; i < world.options.sessionsPerNode; i++) this.openSession(life);
  }

  /** The daemon claims all that the record of the restart names, whoever of its owners comes back. */
  #claimRecorded(life: Life, record: RestartRecord): void {
    const node = this.#node;
    const ghosts: Ghost[] = [];
    for (const claim of record.claims) {
      const o = claim.ctx as Owned;
      const isBack = this.all.has(o) && o.away !== null;
      const ghost = new Ghost();
      ghost.mayWrite = claim.mode === EX && claim.lvb;
      if (isBack) {
        o.life = life;
        o.reclaiming = o.hold ? claim : null;
      } else {
        ghosts.push(ghost);
      }
      node.call(life, (core, now) => {
        const local = core.reclaim(now, { ...claim, ctx: isBack ? o : ghost });
        if (isBack) o.local = local;
        else ghost.local = local;
      });
    }
    const release = (): void => {
      if (node.life !== life) return;
      if (node.clock < record.until) {
        node.world.queue.after(20, release);
        return;
      }
      node.input(life, () => {
        for (const { local, mayWrite } of ghosts)
          if (local) node.call(life, (core, now) => core.unlock(now, local, { lvbInvalid: mayWrite }));
        node.call(life, (core, now) => core.settled(now));
      });
    };
    release();
  }

  /** A client finds the new daemon. */
  #reconnect(session: Session | null, life: Life): void {
    const { world } = this.#node;
    if (session && !this.sessions.includes(session)) return;
    for (const o of [...this.all]) {
      if (o.session !== session || !o.away) continue;
      const claim = o.away;
      o.away = null;
      const isOver = o.hold !== null && deadlineOf(o.hold) <= world.queue.now;
      const isWanted = !isOver && !(o.isUnwanted && o.hold);
      if (!isWanted) this.#giveUp(o);
      if (life.hasRecord && o.local) {
        // The daemon has it; what it has said meanwhile is told now.
        const { local, missed } = o;
        o.missed = [];
        if (!isWanted) {
          this.#gone(o, true);
          local.ctx = new Ghost();
          this.#node.call(life, (core, now) => core.unlock(now, local, { lvbInvalid: o.usesLvb && o.hold?.mode === EX }));
          continue;
        }
        for (const tell of missed) tell();
        if (this.all.has(o) && o.isUnwanted) this.release(o);
      } else if (!isWanted) {
        this.#gone(o, true);
      } else {
        o.life = life;
        o.reclaiming = o.hold ? claim : null;
        this.#guarded(o, life, (now) => {
          // The id of a request that had not waited for long was not told yet: it begins anew.
          const isKnown = o.hold !== null || world.queue.now - o.since > 50;
          o.local = isKnown
            ? life.core.reclaim(now, { ...claim, ctx: o })
            : life.core.lock(now, {
                domain: o.domain,
                name: o.name,
                mode: o.want,
                try: false,
                nodeOwned: false,
                lvb: o.usesLvb,
                who: claim.who,
                why: '',
                deadline: o.deadline,
                ctx: o,
              });
        });
        world.count('claim');
      }
    }
    session?.resume(life);
  }

  openSession(life: Life): void {
    const session = new Session(this.#node, life);
    this.sessions.push(session);
    session.begin();
  }

  /** Sessions saw the end of their connection; what they held lasts until the deadline they were told. */
  daemonDied(life: Life): void {
    const { world } = this.#node;
    for (const o of this.all) {
      if (o.nodeOwned && o.hold && (o.phase === 'held' || o.phase === 'converting')) {
        if (!this.#node.disk.locks.has(o.hold.id)) {
          world.fail(`S5: n${this.#node.id} told of node-owned ${o.key} but its journal lost it`);
        }
        this.#files.daemonDied(o);
        o.phase = 'held';
        o.local = null;
        continue;
      }
      if (o.away) {
        // It has not met this daemon at all, and looks for the next.
        o.local = null;
        o.missed = [];
        o.reclaiming = null;
        continue;
      }
      if (o.life !== life && !o.nodeOwned) continue;
      if (!this.#livesOn(o)) this.#gone(o, false);
    }
    const alive = new Set([...this.all].map((o) => (o.away ? o.session : null)));
    this.sessions = this.sessions.filter((s) => alive.has(s));
  }

  /** Decided once for all locks of a session: it goes on without a daemon, and will look for the next one. */
  #livesOn(o: Owned): boolean {
    const { world, random } = this.#node;
    const { local } = o;
    if (o.nodeOwned || !local) return false;
    const isWaiting = o.phase === 'waiting' && !o.isTry && !o.isCancelled;
    if (!isWaiting && o.phase !== 'held' && o.phase !== 'converting') return false;
    if (o.session) {
      if (!this.sessions.includes(o.session)) return false;
      o.session.livesOn ??= random.chance(world.options.reclaimShare);
      if (!o.session.livesOn) return false;
    } else if (world.options.sessionsPerNode > 0) {
      return false;
    }
    const { hold } = o;
    const goesUp = o.phase === 'converting' && hold !== null && !o.isTry && !o.isCancelled && o.want > hold.mode;
    const stamp = this.#stampOf(o.life, local);
    o.away = {
      id: local.id,
      domain: o.domain,
      name: o.name,
      mode: hold ? hold.mode : -1,
      want: hold ? (goesUp ? o.want : -1) : o.want,
      nodeOwned: false,
      lvb: o.usesLvb,
      te: local.te,
      tc: local.tc,
      se: stamp[0],
      sc: stamp[1],
      lvbState: o.putting > 0 ? 1 : local.lvbState,
      value: o.putting > 0 ? encodeLvb(o.putting) : local.lvb,
      isDirty: o.written > 0 || o.putting > 0,
      who: local.who,
      why: local.why,
      deadline: o.deadline,
      ctx: o,
    };
    if (o.phase === 'converting' && !goesUp) o.phase = 'held';
    o.local = null;
    o.missed = [];
    return true;
  }

  /** The daemon tells a client the stamp of a request that waits. */
  #stampOf(life: Life, local: LocalLock): [number, number] {
    const lock = life.core instanceof NodeCore ? (local as unknown as { se: number; sc: number }) : { se: 0, sc: 0 };
    return [lock.se, lock.sc];
  }

  machineDied(): void {
    const { world } = this.#node;
    for (const o of this.all) this.#gone(o, false);
    world.holdCheck.machineGone(this.#node.id, world.queue.now);
    this.sessions = [];
  }

  /** The deadline told to the owners of this life has passed: these holds are over for ever. */
  lapsed(life: Life): void {
    for (const o of this.all) {
      const { hold } = o;
      if (hold && !hold.nodeOwned && hold.lease === life.lease && hold.end > deadlineOf(hold)) hold.end = deadlineOf(hold);
    }
  }

  // --- Requests -------------------------------------------------------------------------------------------------------------

  lock(life: Life, ask: Ask): Owned {
    const { world } = this.#node;
    const o: Owned = {
      node: this.#node,
      life,
      session: ask.session,
      key: `${ask.domain}/${ask.name}`,
      domain: ask.domain,
      name: ask.name,
      nodeOwned: ask.nodeOwned,
      usesLvb: ask.usesLvb,
      door: ask.door ?? '',
      isOpen: false,
      since: world.queue.now,
      local: null,
      hold: null,
      phase: 'waiting',
      want: ask.mode,
      isTry: ask.isTry,
      deadline: ask.deadline,
      isCancelled: false,
      isUnwanted: false,
      isClaim: false,
      written: 0,
      putting: 0,
      away: null,
      missed: [],
      reclaiming: null,
      onOutcome: ask.onOutcome ?? null,
    };
    this.all.add(o);
    world.count('lock');
    world.trace.add(world.queue.now, this.#node.id, 'lock', o.key, modeName(ask.mode), ask.isTry, ask.deadline, ask.nodeOwned);
    this.#guarded(o, life, (now) => {
      const local = life.core.lock(now, {
        domain: ask.domain,
        name: ask.name,
        mode: ask.mode,
        try: ask.isTry,
        nodeOwned: ask.nodeOwned,
        ...(ask.door ? { door: ask.door } : {}),
        lvb: ask.usesLvb,
        who: `n${this.#node.id}`,
        why: '',
        deadline: ask.deadline,
        ctx: o,
      });
      o.local = local;
      world.trace.add(world.queue.now, this.#node.id, 'id', local.id % 2 ** 32, o.key);
    });
    return o;
  }

  convert(o: Owned, mode: Mode, isTry: boolean, deadline: number): void {
    const { local, hold } = o;
    if (o.phase !== 'held' || !local || !hold || mode === hold.mode || this.#isShut(o)) return;
    const { world } = this.#node;
    if (hold.end <= world.queue.now) return;
    let lvb: Uint8Array | null = null;
    if (mode < hold.mode) {
      if (hold.mode === EX && o.written > 0) {
        lvb = encodeLvb(o.written);
        world.holdCheck.lvbOf(o.key).publishing(hold, o.written);
        o.putting = o.written;
      }
      world.holdCheck.converted(hold, mode, world.queue.now);
      o.written = 0;
    }
    o.phase = 'converting';
    o.want = mode;
    o.isTry = isTry;
    o.deadline = deadline;
    o.isCancelled = false;
    world.count('convert');
    world.trace.add(world.queue.now, this.#node.id, 'convert', o.key, local.id % 2 ** 32, modeName(mode), isTry);
    this.#guarded(o, o.life, (now) => o.life.core.convert(now, local, mode, { try: isTry, deadline, lvb }));
  }

  /** A new value under EX; told to the daemon now or with the release. */
  write(o: Owned): void {
    const { local, hold } = o;
    if (o.phase !== 'held' || !local || hold?.mode !== EX || !o.usesLvb || this.#isShut(o)) return;
    const { world } = this.#node;
    if (hold.end <= world.queue.now) return;
    o.written = world.nextValue();
    hold.dirty = true;
    world.count('write');
    world.trace.add(world.queue.now, this.#node.id, 'write', o.key, o.written);
    this.#guarded(o, o.life, () => o.life.core.writeLvb(local, encodeLvb(o.written)));
  }

  cancel(o: Owned): void {
    const { local } = o;
    if (!local || (o.phase !== 'waiting' && o.phase !== 'converting') || o.isCancelled || this.#isShut(o)) return;
    const { world } = this.#node;
    o.isCancelled = true;
    world.count('cancel');
    world.trace.add(world.queue.now, this.#node.id, 'cancel', o.key, local.id % 2 ** 32);
    this.#guarded(o, o.life, (now) => o.life.core.cancel(now, local));
  }

  /** The owner acts under its lock no more, though no daemon has been told. */
  #giveUp(o: Owned): void {
    const { world } = this.#node;
    if (!o.hold || o.phase === 'releasing') return;
    // Its value counts once, and not after its time.
    const givesValue = o.hold.mode === EX && o.usesLvb && !isOver(o.hold, world.queue.now);
    world.holdCheck.released(o.hold, world.queue.now);
    if (givesValue) world.holdCheck.lvbOf(o.key).publishing(o.hold, -1);
  }

  /** Ends this lock as its owner wants it: cancel what waits, release what is held. */
  release(o: Owned, isDeath = false): void {
    const { world } = this.#node;
    o.isUnwanted = true;
    if (o.away || o.reclaiming || o.life.isFrozen) {
      // Nobody to tell: the owner does not act under it any more, and lets it go when it can.
      this.#giveUp(o);
      return;
    }
    if (o.phase === 'waiting' || o.phase === 'converting') {
      this.cancel(o);
      return;
    }
    const { local, hold } = o;
    if (o.phase !== 'held' || !local || !hold) return;
    if (hold.end <= world.queue.now) {
      // Given up while there was no daemon: its value ended with that.
      this.#endUnwanted(o);
      return;
    }
    o.phase = 'releasing';
    world.holdCheck.released(hold, world.queue.now);
    world.count('unlock');
    const lvbInvalid = isDeath && hold.mode === EX && o.usesLvb;
    world.trace.add(world.queue.now, this.#node.id, 'unlock', o.key, local.id % 2 ** 32, lvbInvalid);
    const model = world.holdCheck.lvbOf(o.key);
    if (lvbInvalid) model.publishing(hold, -1);
    else if (hold.mode === EX && o.written > 0) model.publishing(hold, o.written);
    const withValue = !lvbInvalid && o.written > 0 && o.written % 2 === 0;
    this.#guarded(o, o.life, (now) =>
      o.life.core.unlock(now, local, lvbInvalid ? { lvbInvalid } : withValue ? { lvb: encodeLvb(o.written) } : {}),
    );
  }

  /** A client died: as the session server does it. */
  sessionDied(session: Session): void {
    for (const o of [...this.all]) if (o.session === session) this.release(o, true);
    this.sessions = this.sessions.filter((s) => s !== session);
  }

  releaseAll(): void {
    for (const o of [...this.all]) this.release(o);
  }

  // --- What the core says -----------------------------------------------------------------------------------------------------

  onGranted(life: Life, lock: LocalLock): void {
    const { world } = this.#node;
    const now = world.queue.now;
    const o = this.#ownedOf(life, lock, 'granted');
    if (!o || this.#isMissed(o, () => this.onGranted(life, lock))) return;
    const mode = lock.mode as Mode;
    if (o.reclaiming && this.#confirmed(life, o, lock)) return;
    // A master grants while it applies a view, before it tells of the view.
    world.viewSeen(life.core.view.epoch);
    world.trace.add(now, this.#node.id, 'granted', o.key, lock.id % 2 ** 32, modeName(mode), lock.te, lock.tc, lock.lvbState);
    // A node-owned lock that the next incarnation of the same process claimed again: nothing new to its owner.
    if (o.nodeOwned && o.phase === 'held' && o.hold?.mode === mode) return;
    if (o.phase !== 'waiting' && o.phase !== 'converting') {
      world.fail(`n${this.#node.id}: granted ${o.key} in phase ${o.phase}`);
      return;
    }
    if (mode !== o.want) world.fail(`n${this.#node.id}: granted ${o.key} at ${modeName(mode)}, asked for ${modeName(o.want)}`);
    const isDown = o.hold !== null && mode <= o.hold.mode;
    const leaseUntil = life.core.leaseUntil;
    // A node-owned lock of an earlier incarnation goes on: nothing new is granted, and no lease frees it (rule 2).
    const isClaim = o.isClaim || (o.nodeOwned && Math.floor(lock.id / 2 ** 32) < life.startCount);
    if (!isDown && !isClaim) this.#checkRight(o, mode, leaseUntil);
    if (leaseUntil > 0) life.lease.until = Math.max(life.lease.until, this.#node.realTime(leaseUntil));
    o.local = lock;
    o.phase = 'held';
    o.putting = 0;
    o.deadline = 0;
    const model = world.holdCheck.lvbOf(o.key);
    if (isDown) {
      model.published(o.hold as Hold);
    } else if (o.hold) {
      world.holdCheck.converted(o.hold, mode, now);
    } else {
      o.hold = {
        key: o.key,
        node: this.#node.id,
        id: lock.id,
        nodeOwned: o.nodeOwned,
        usesLvb: o.usesLvb,
        lease: life.lease,
        floor: 0,
        mode,
        dirty: false,
        from: now,
        end: Number.POSITIVE_INFINITY,
      };
      world.holdCheck.granted(o.hold, now);
      if (!isClaim) this.#files.began(o);
    }
    if (!isDown && mode === EX && !isClaim) world.holdCheck.token(o.hold as Hold, lock.te, lock.tc);
    if (!isDown && mode > NL && o.usesLvb) this.#checkValue(o, lock);
    this.#outcome(o, true);
    if (o.isUnwanted) this.#soon(o, () => this.release(o));
    else o.session?.granted(o);
  }

  onDenied(life: Life, lock: LocalLock, code: ErrorCode): void {
    const { world } = this.#node;
    const o = this.#ownedOf(life, lock, 'denied');
    if (!o || this.#isMissed(o, () => this.onDenied(life, lock, code))) return;
    world.trace.add(world.queue.now, this.#node.id, 'denied', o.key, lock.id % 2 ** 32, code);
    world.count(`denied ${code}`);
    // The call itself found the lease over: `lost` was told first.
    if (o.phase === 'gone' && code === 'TSDLM_NOT_HELD') return;
    this.#checkCode(o, code);
    if (o.phase === 'waiting') {
      this.#gone(o, true);
    } else if (o.phase === 'converting') {
      o.phase = 'held';
      o.deadline = 0;
      if (o.hold && o.want <= o.hold.mode) {
        world.holdCheck.lvbOf(o.key).publishFailed(o.hold);
        // A step down that was refused leaves the owner what it had: it has had that all the time.
        if (lock.mode > o.hold.mode) world.holdCheck.kept(o.hold, lock.mode as Mode, world.queue.now);
      }
      if (o.isUnwanted) this.#soon(o, () => this.release(o));
      else o.session?.granted(o);
    } else {
      world.fail(`n${this.#node.id}: denied(${code}) for ${o.key} in phase ${o.phase}`);
    }
  }

  onReleased(life: Life, lock: LocalLock): void {
    const { world } = this.#node;
    const o = this.#ownedOf(life, lock, 'released');
    if (!o) return;
    world.trace.add(world.queue.now, this.#node.id, 'released', o.key, lock.id % 2 ** 32);
    if (o.phase !== 'releasing') {
      world.fail(`n${this.#node.id}: released ${o.key} in phase ${o.phase}`);
      return;
    }
    if (o.hold) world.holdCheck.lvbOf(o.key).published(o.hold);
    this.#gone(o, true);
  }

  onBast(life: Life, lock: LocalLock, mode: Mode): void {
    const { world } = this.#node;
    const o = this.#ownedOf(life, lock, 'bast');
    if (!o || o.reclaiming || this.#isMissed(o, () => this.onBast(life, lock, mode))) return;
    world.trace.add(world.queue.now, this.#node.id, 'bast', o.key, lock.id % 2 ** 32, modeName(mode));
    world.count('bast');
    const { sessionsPerNode, nodeOwnedMs } = world.options;
    if (o.nodeOwned && sessionsPerNode > 0) this.#after(o, 20 + this.#node.random.exp(nodeOwnedMs / 3), () => this.release(o));
    else o.session?.bast(o, mode);
  }

  onLost(life: Life, lock: LocalLock, code: ErrorCode): void {
    const { world } = this.#node;
    const o = this.#ownedOf(life, lock, 'lost');
    if (!o || this.#isMissed(o, () => this.onLost(life, lock, code))) return;
    this.#checkLost(life, o);
    const isEarly = o.hold !== null && o.phase !== 'releasing' && (o.nodeOwned || deadlineOf(o.hold) > world.queue.now);
    world.trace.add(world.queue.now, this.#node.id, 'lost', o.key, lock.id % 2 ** 32, code, isEarly);
    world.count(isEarly ? 'lost before the deadline' : 'lost');
    this.#gone(o, true);
  }

  // --- Checks ---------------------------------------------------------------------------------------------------------------

  /** L3: the master has confirmed what an owner held before its daemon was restarted. False: it is news after all. */
  #confirmed(life: Life, o: Owned, lock: LocalLock): boolean {
    const { world } = this.#node;
    const { hold, reclaiming } = o;
    if (!hold || !reclaiming) return false;
    o.reclaiming = null;
    world.count('confirmed');
    if (life.core.leaseUntil > 0) life.lease.until = Math.max(life.lease.until, this.#node.realTime(life.core.leaseUntil));
    hold.floor = Math.max(hold.floor, hold.lease.until);
    hold.lease = life.lease;
    o.local = lock;
    if (lock.mode !== hold.mode) return false;
    world.trace.add(world.queue.now, this.#node.id, 'confirmed', o.key, lock.id % 2 ** 32, modeName(lock.mode as Mode));
    if (hold.mode === EX && (lock.te !== reclaiming.te || lock.tc !== reclaiming.tc)) {
      world.fail(`L3: ${o.key} has token ${lock.te}:${lock.tc} after the restart, it had ${reclaiming.te}:${reclaiming.tc}`);
    }
    if (o.isUnwanted) this.#soon(o, () => this.#endUnwanted(o));
    return true;
  }

  /** Released by its owner while there was no daemon. */
  #endUnwanted(o: Owned): void {
    const { local } = o;
    if (o.phase !== 'held' || !local || o.away || o.life.isFrozen) return;
    o.phase = 'releasing';
    this.#guarded(o, o.life, (now) => o.life.core.unlock(now, local, { lvbInvalid: o.usesLvb }));
  }

  /** L3: what was claimed before its deadline is not lost by the restart, only with an incarnation. */
  #checkLost(life: Life, o: Owned): void {
    const { world } = this.#node;
    const { hold, reclaiming } = o;
    if (!hold || !reclaiming || deadlineOf(hold) <= world.queue.now || hold.end <= world.queue.now) return;
    world.queue.after(0.001, () => {
      if (!life.wasOver) world.fail(`L3: n${this.#node.id} lost ${o.key} by a restart of its daemon`);
    });
  }

  /** The owner has not met this daemon: it will hear of it then. */
  #isMissed(o: Owned, tell: () => void): boolean {
    if (!o.away) return false;
    o.missed.push(tell);
    return true;
  }

  /** No daemon that would listen. */
  #isShut(o: Owned): boolean {
    return o.away !== null || o.reclaiming !== null || o.life.isFrozen;
  }

  /** S4 and rule 11: a grant needs a lease that is not over and a side that had a quorum within the lease. */
  #checkRight(o: Owned, mode: Mode, leaseUntil: number): void {
    if (mode === NL) return;
    const { world, clock } = this.#node;
    if (leaseUntil <= clock) {
      world.fail(
        `S4: n${this.#node.id} granted ${o.key} with a lease that ended at ${leaseUntil.toFixed(3)}, its clock shows ${clock.toFixed(3)}`,
      );
    }
    world.quorumCheck.granted(this.#node.id, o.key, world.queue.now);
  }

  #checkValue(o: Owned, lock: LocalLock): void {
    const { world } = this.#node;
    let answer = lock.lvbState === 2 ? -1 : 0;
    if (lock.lvbState === 1) {
      const value = lock.lvb === null ? null : decodeLvb(lock.lvb);
      if (value === null) {
        world.fail(`S3: n${this.#node.id} granted ${o.key} with a valid value block that nobody wrote`);
        return;
      }
      answer = value;
    }
    world.holdCheck.lvbOf(o.key).answered(o.hold as Hold, answer);
  }

  #checkCode(o: Owned, code: ErrorCode): void {
    const { world, clock } = this.#node;
    const bad = (why: string): void => world.fail(`n${this.#node.id}: ${o.key} denied with ${code}: ${why}`);
    switch (code) {
      case 'TSDLM_CONFLICT':
        if (!o.isTry) bad('it was no try');
        return;
      case 'TSDLM_TIMEOUT':
        if (o.deadline === 0 || clock < o.deadline) bad(`its deadline is ${o.deadline}, the clock shows ${clock}`);
        return;
      case 'TSDLM_CANCELLED':
        if (!o.isCancelled) bad('nobody cancelled it');
        return;
      case 'TSDLM_DEADLOCK':
        if (o.phase !== 'converting' || o.want !== EX || o.hold?.mode !== PR) bad('it is no conversion from PR to EX');
        return;
      case 'TSDLM_STOPPING':
        if (!o.life.isStopping) bad('the node is not stopping');
        return;
      case 'TSDLM_UNAVAILABLE':
        return;
      default:
        bad('that is no outcome of a request');
    }
  }

  // --- Small things ----------------------------------------------------------------------------------------------------------

  /** The request a callback is about; a lock of a life that is no more, or of nobody, is a fault of the core. */
  #ownedOf(life: Life, lock: LocalLock, what: string): Owned | null {
    if (this.#node.life !== life) return null;
    const o = lock.ctx as Owned | Ghost | null | undefined;
    if (o instanceof Ghost) return null;
    if (o) return o;
    if (lock.nodeOwned) return this.#reattached(life, lock);
    this.#node.world.fail(`n${this.#node.id}: ${what} for lock ${lock.id} of ${lock.name}, which nobody asked for`);
    return null;
  }

  /** A node-owned lock that the core took from the journal shows up. */
  #reattached(life: Life, lock: LocalLock): Owned {
    const { world } = this.#node;
    let o: Owned | undefined;
    for (const x of this.all) if (x.nodeOwned && x.hold?.id === lock.id) o = x;
    if (!o) {
      o = {
        node: this.#node,
        life,
        session: null,
        key: `${lock.domain}/${lock.name}`,
        domain: lock.domain,
        name: lock.name,
        nodeOwned: true,
        usesLvb: false,
        door: lock.door,
        isOpen: false,
        since: world.queue.now,
        local: lock,
        hold: null,
        phase: 'waiting',
        want: lock.mode as Mode,
        isTry: false,
        deadline: 0,
        isCancelled: false,
        isUnwanted: false,
        isClaim: true,
        written: 0,
        putting: 0,
        away: null,
        missed: [],
        reclaiming: null,
        onOutcome: null,
      };
    } else {
      // The same hold goes on in another life of the daemon.
      this.all.delete(o);
      o = { ...o, life, local: lock, phase: 'held', onOutcome: null };
    }
    lock.ctx = o;
    this.all.add(o);
    const again = o;
    this.#files.claimed(again);
    // Without sessions the world is driven by hand: whoever does that releases, too.
    if (world.options.sessionsPerNode > 0) this.#after(again, 50 + this.#node.random.exp(300), () => this.release(again));
    return again;
  }

  #guarded(o: Owned, life: Life, run: (now: number) => void): void {
    this.#node.call(life, (_core, now) => {
      try {
        run(now);
      } catch (e) {
        if (e instanceof TsdlmError && !(e instanceof InvariantError) && o.phase === 'waiting') {
          this.#node.world.count(`refused ${e.code}`);
          this.#gone(o, true);
          return;
        }
        throw e;
      }
    });
  }

  #outcome(o: Owned, ok: boolean): void {
    const tell = o.onOutcome;
    o.onOutcome = null;
    if (tell) this.#node.world.queue.after(0, () => tell(ok));
  }

  #gone(o: Owned, tell: boolean): void {
    o.phase = 'gone';
    this.all.delete(o);
    if (tell) this.#outcome(o, false);
    else o.onOutcome = null;
  }

  #soon(o: Owned, run: () => void): void {
    this.#after(o, 0.1 + this.#node.random.exp(2), run);
  }

  /** Later, if the daemon still lives. */
  #after(o: Owned, delay: number, run: () => void): void {
    this.#node.world.queue.after(delay, () => this.#node.input(o.life, run));
  }
}
