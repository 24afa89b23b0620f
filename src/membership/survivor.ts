/**
 * The survivor of two: when it may go on without a quorum (rules 13 and 20, trap 7).
 *
 * The problem: of two voters one is silent; the other is no majority, and must neither stop for ever nor go on while the first
 * may still act, nor go on from an older log than the first has. The idea: it ends the other by device, outside of the log, and
 * only when the device has verified that does it put one entry into its own log, synced, that names all of it and makes it the
 * only voter (`alone`). Nothing is granted before that entry is on disk.
 *
 *   silent > deadMs -> its delay (duel.ts) -> devices, verified, lease over -> `alone` on disk -> leads alone
 *
 * May go on: exactly two voters, by our log and by what is applied of it, and none of them a witness; a device that ends the other; and
 * since this daemon started it was a full voter, which it knows once it has applied an entry of a term in which it heard the
 * leader, or led. For whatever two voters commit stands on both disks (voter-set.ts), and the one other way on, `alone` at the
 * peer, begins with the end of this very machine. So a node that has just started waits until it has seen its peer once
 * (`wait_for_all`), and a learner never goes on.
 *
 * Only devices and verified scripts count here: nothing in the cluster stands behind the decision but their word. A person's, who is
 * no more certain but far less bounded, is `lostHistory`, which trusts nobody's locks. Any sign of life of the peer before the entry is
 * written calls everything off.
 */
import type { Millis, NodeId, StartCount } from '../protocol/ids.js';
import { EPOCH_MAX } from '../protocol/ids.js';
import { drawDelay, duelGapMs, type FenceDelay, NO_DELAY } from './duel.js';
import { deviceLevels } from './fence-levels.js';
import { logText } from './fence-record.js';
import { FenceRun } from './fence-run.js';
import type { LimitsInForce } from './limits-in-force.js';
import type { Random } from './random.js';
import { arePair, LOST_HISTORY_EPOCHS } from './sole-voter.js';
import type { Command, FenceRequest, FenceVerdict, NodeView } from './types.js';
import type { LogTail } from './voter-set.js';

export interface SurvivorHost {
  readonly isLeader: boolean;
  readonly tail: LogTail;
  /** This node's journal is in use. */
  readonly isUsable: boolean;
  /** How long ago we last let another lead: acknowledged a heartbeat, or led. */
  ackAgeMs(now: Millis): Millis;
  delayOf(node: NodeId): FenceDelay | undefined;
  wall(): number;
  fence(request: FenceRequest): void;
  nextOp(): number;
  note(level: 'info' | 'warn' | 'error', event: string, data: Record<string, unknown>): void;
  /** Puts the entry into our log, synced, and leads by it. `lostHistory`: what leases run, and which terms there were, is not known. */
  seize(now: Millis, command: Command, lostHistory: boolean): void;
}

export class Survivor {
  private readonly self: NodeId;
  private readonly limits: LimitsInForce;
  private readonly random: Random;
  private readonly host: SurvivorHost;
  /** Since this daemon started it was a full voter in a committed view. */
  private full = false;
  /** When the peer last gave any sign of life. */
  private heardAt: Millis;
  private tickedAt: Millis;
  private notBefore: Millis = Number.NEGATIVE_INFINITY;
  /** When its delay is over; 0 = not drawn. */
  private shootAt: Millis = 0;
  private run: FenceRun | null = null;
  /** When it was first seen to be restarting; 0 = it is not. */
  private restartSeenAt: Millis = 0;
  private tried = { attempt: 1, detail: '', tookMs: 0 };

  constructor(self: NodeId, limits: LimitsInForce, random: Random, now: Millis, host: SurvivorHost) {
    this.self = self;
    this.limits = limits;
    this.random = random;
    this.host = host;
    this.heardAt = now;
    this.tickedAt = now;
  }

  /** What is applied of the present term says that we vote, or that we do not. */
  knows(isVoter: boolean): void {
    if (this.full === isVoter) return;
    this.full = isVoter;
    this.host.note('info', isVoter ? 'full-voter' : 'learner', {});
  }

  /** The incarnation that is being ended outside of the log. */
  get victim(): { node: NodeId; startCount: StartCount } | null {
    return this.run === null ? null : { node: this.run.node, startCount: this.run.startCount };
  }

  heard(now: Millis, from: NodeId): void {
    if (from !== this.peerId) return;
    this.heardAt = now;
    if (this.shootAt !== 0) this.callOff('it was heard again');
  }

  fenceDone(op: number, ok: boolean, detail: string): boolean {
    return this.run?.done(op, ok, detail) ?? false;
  }

  tick(now: Millis): void {
    // What came while we got no processor lies unread, and is read first (trap 9). A stop that was long enough for the connection to
    // be given up is nobody's silence at all; a short one must not move our turn into the other's.
    const stoodStillMs = now - this.tickedAt;
    if (stoodStillMs > this.limits.suspectMs) this.heardAt = now;
    else if (stoodStillMs > this.limits.suspectMs / 2) this.notBefore = now + this.limits.heartbeatMs;
    this.tickedAt = now;
    const peer = this.eligiblePeer(now);
    if (peer === null || now - this.heardAt <= this.limits.deadMs) {
      if (this.shootAt !== 0) this.callOff('it is not for this node to go on alone');
      return;
    }
    if (this.shootAt === 0) {
      const delay = this.host.delayOf(peer.id) ?? NO_DELAY;
      const delayMs = drawDelay(delay, peer.id > this.self, duelGapMs(this.limits), this.random.next());
      this.shootAt = now + delayMs;
      this.host.note('warn', 'peer-silent', { node: peer.id, silentMs: Math.round(now - this.heardAt), delayMs });
    }
    if (now >= this.shootAt && now >= this.notBefore) this.end(now, peer);
  }

  /**
   * An operator gives up what the peer may know, and vouches that it does not run: this node goes on alone, whatever its own
   * log lacks. All locks are void.
   */
  acceptLostHistory(now: Millis, peer: NodeId, who: string): FenceVerdict {
    const { tail, isLeader, isUsable } = this.host;
    const no = (text: string): FenceVerdict => ({ ok: false, text });
    if (isLeader) return no('this node leads the cluster: nothing is lost, and nothing to be given up');
    if (!isUsable) return no('the journal of this node is new or foreign: there is nothing to go on from');
    const { view } = tail;
    const isPair = arePair(tail.voters, this.self, peer) && arePair(tail.appliedVoters, this.self, peer);
    if (peer === this.self || !isPair || !view.nodes.some((n) => n.id === peer)) {
      return no(`the voters are ${tail.voters.join(', ')}: only one of exactly two voters can go on without the other`);
    }
    if (now - this.heardAt <= this.limits.deadMs)
      return no(`node ${peer} was heard ${Math.round(now - this.heardAt)} ms ago: it runs`);
    if (view.epoch + LOST_HISTORY_EPOCHS > EPOCH_MAX) return no(`epoch ${view.epoch} can not be raised so far any more`);
    if (this.shootAt !== 0) this.callOff('an operator gives the history up');
    this.host.note('error', 'lost-history-accepted', { peer, by: who, epoch: view.epoch + LOST_HISTORY_EPOCHS });
    this.host.seize(now, { c: 'lostHistory', node: this.self, peer, who: logText(who), at: this.host.wall() }, true);
    return { ok: true };
  }

  /** Why this node does not go on, for people; '' when it is not for it to say. */
  status(now: Millis): string {
    const { tail, isLeader } = this.host;
    if (isLeader || this.peerId === 0) return '';
    if (!tail.isVoter) return 'this node has no vote: it waits for the one that went on without it';
    if (!this.full) return 'since its start this node has not yet seen the other voter: it waits for it';
    if (this.run !== null)
      return 'the other voter is silent and is being ended by its fence devices, then this node goes on alone; if no device works: tsdlm fence alone';
    if (this.shootAt !== 0) return `the other voter is silent: it is ended in ${Math.max(0, Math.round(this.shootAt - now))} ms`;
    return '';
  }

  dump(now: Millis): Record<string, unknown> {
    return {
      full: this.full,
      peer: this.peerId,
      silentMs: Math.round(now - this.heardAt),
      shootInMs: this.shootAt === 0 ? null : Math.round(this.shootAt - now),
      run: this.run?.dump() ?? null,
    };
  }

  /** The other of two voters; 0 = there are not two. */
  get peerId(): NodeId {
    const { voters, view } = this.host.tail;
    if (voters.length === 2) return voters.find((v) => v !== this.self) ?? 0;
    const { alone } = view;
    return alone !== null && alone.peer === this.self ? alone.survivor : 0;
  }

  private eligiblePeer(now: Millis): NodeView | null {
    const { isLeader, isUsable, tail } = this.host;
    if (isLeader || !isUsable || !this.full || tail.voters.length !== 2 || !tail.isVoter) return null;
    const { nodes, epoch } = tail.view;
    const peer = nodes.find((n) => n.id === this.peerId);
    const me = nodes.find((n) => n.id === this.self);
    if (peer === undefined || me === undefined || epoch >= EPOCH_MAX) return null;
    if (!arePair(tail.appliedVoters, this.self, peer.id)) return null;
    // Our own leave stands in our log: for all we know the other has committed it, and goes on.
    if (!me.voter) return null;
    // Who is being ended, or was, has no way back by itself.
    if (me.state === 'fencing' || me.state === 'fenced' || me.witness || peer.witness) return null;
    return deviceLevels(peer.fence).length > 0 && !this.isRestarting(now, peer) ? peer : null;
  }

  /** It has said until when it will be back: until then nobody ends it (rule 23). */
  private isRestarting(now: Millis, peer: NodeView): boolean {
    if (peer.state !== 'restarting') {
      this.restartSeenAt = 0;
      return false;
    }
    if (this.restartSeenAt === 0) this.restartSeenAt = now;
    return now < this.restartSeenAt + peer.restartMs + this.limits.marginMs;
  }

  private end(now: Millis, peer: NodeView): void {
    const startCount = peer.incarnation?.startCount ?? 0;
    if (this.run !== null && (this.run.node !== peer.id || this.run.startCount !== startCount)) this.run = null;
    if (this.run === null) {
      const reason = logText(`silent for ${Math.round(now - this.heardAt)} ms, one of two voters`);
      this.run = new FenceRun(peer.id, startCount, reason, {
        fence: (request) => this.host.fence(request),
        note: (level, event, data) => this.host.note(level, event, data),
        nextOp: () => this.host.nextOp(),
        tried: (_node, _startCount, { attempt, detail, tookMs }) => {
          this.tried = { attempt, detail, tookMs };
        },
      });
      this.host.note('warn', 'fencing-alone', { node: peer.id, startCount });
    }
    const { view } = this.host.tail;
    const distrusted = view.distrusted.filter((d) => d.node === peer.id).map((d) => d.method);
    const levels = deviceLevels(peer.fence);
    const method = this.run.tick(now, { node: peer, levels, overAt: this.overAt(now), distrusted });
    if (method === null) return;
    this.host.note('warn', 'alone', { peer: peer.id, startCount, method, epoch: view.epoch + 1 });
    const { attempt, detail, tookMs } = this.tried;
    this.host.seize(
      now,
      {
        c: 'alone',
        node: this.self,
        peer: peer.id,
        startCount,
        method,
        reason: logText(`silent for ${Math.round(now - this.heardAt)} ms, one of two voters`),
        detail: logText(detail),
        attempt,
        tookMs,
        at: this.host.wall(),
      },
      false,
    );
    this.run = null;
    this.shootAt = 0;
  }

  /** Whatever lease the peer has came of an acknowledgement of ours, or of a lead of ours that it acknowledged. */
  private overAt(now: Millis): Millis {
    const last = Math.max(this.heardAt, now - this.host.ackAgeMs(now));
    return last + this.limits.waitMs;
  }

  private callOff(why: string): void {
    this.host.note('info', 'survivor-calls-off', { node: this.peerId, why });
    this.shootAt = 0;
    this.run = null;
  }
}
