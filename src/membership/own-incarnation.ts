/**
 * This node's own incarnation: whether it is a member, and when it is over.
 *
 * The problem: an incarnation can end by the clock (its lease), by the log (fenced, replaced, dropped), by what it missed (a
 * snapshot) or by its journal (readmitted as new), and after any of them nothing that is held here may be used, while the host is
 * only beginning to raise the start count. The idea: one place that knows the life of the present incarnation and ends it once.
 */
import type { Incarnation, Millis, NodeId, StartCount } from '../protocol/ids.js';
import { endsWithMachine } from './fence-levels.js';
import type { OwnLease } from './lease.js';
import type { Presence } from './presence.js';
import type { Suspension } from './suspension.js';
import type { Command, MembershipOutput, View } from './types.js';
import { findNode, isLive, isLiveAs } from './view.js';

/** Views that a suspended node keeps for its resumption. */
const SUSPENDED_VIEWS_MAX = 10_000;

export interface OwnIncarnationHost {
  readonly self: NodeId;
  readonly lease: OwnLease;
  readonly suspension: Suspension;
  readonly presence: Presence;
  readonly output: Pick<MembershipOutput, 'note' | 'incarnationOver'>;
  view(): View;
}

export class OwnIncarnation {
  readonly #host: OwnIncarnationHost;
  #present: Incarnation;
  /** This incarnation is over; the host is raising the start count. */
  #isEnded = false;
  /** This incarnation has been a member. */
  #hasJoined = false;
  #isMember = false;
  #mayJoin = true;
  /** This incarnation began with its process, and may take over what owners were told by daemons before it (rules 1, 3). */
  #keeps: boolean;

  constructor(host: OwnIncarnationHost, incarnation: Incarnation, keeps: boolean) {
    this.#host = host;
    this.#present = incarnation;
    this.#keeps = keeps;
    host.presence.ownStartCount = incarnation.startCount;
  }

  get present(): Incarnation {
    return this.#present;
  }
  get isEnded(): boolean {
    return this.#isEnded;
  }
  get isMember(): boolean {
    return this.#isMember;
  }

  /** The next incarnation of the same process. */
  begin(incarnation: Incarnation): void {
    this.#present = incarnation;
    this.#isEnded = false;
    this.#hasJoined = false;
    this.#keeps = false;
    this.#host.lease.until = 0;
    this.#host.suspension.end();
    this.#host.presence.ownStartCount = incarnation.startCount;
    this.judge();
  }

  /** The node leaves: it asks for no admission any more. */
  stopJoining(): void {
    this.#mayJoin = false;
  }

  /** A lease that ended while nobody called is seen before anything acts on it (trap 9). */
  look(now: Millis): void {
    const { lease, suspension, output } = this.#host;
    const isOver = lease.isOver(now);
    if (this.#isEnded || (lease.until === 0 && !suspension.isOn)) return;
    const { startCount } = this.#present;
    const node = findNode(this.#host.view(), this.#host.self);
    const isOurs = node?.incarnation?.startCount === startCount;
    // Nobody frees what is held here before this machine is off: the end of the lease is not the end (rule 20).
    const byDevice = isOurs && endsWithMachine(node.fence) && (isLive(node) || node.state === 'fencing');
    suspension.look(now, byDevice);
    if (byDevice && !isOver) return;
    if (byDevice) {
      lease.until = 0;
      suspension.begin();
      output.note('warn', 'suspended', { startCount, state: node.state });
      return;
    }
    if (!isOver && !suspension.isOn) return;
    lease.lapse(startCount);
    // Who leaves owns nothing any more: its lease simply runs out.
    const leaves = isOurs && ['leaving', 'left', 'restarting'].includes(node.state);
    if (leaves) suspension.end();
    else this.end('lease');
  }

  /** A lease came, by a leader or by our own lead. */
  leased(): void {
    const { lease, suspension, output } = this.#host;
    if (!suspension.isOn || lease.until === 0) return;
    suspension.resume();
    output.note('info', 'resumed', { startCount: this.#present.startCount });
  }

  /** Incarnations of this journal must not be named as those of the one before it were. */
  raiseAbove(floor: StartCount): void {
    if (floor >= this.#present.startCount) this.end('readmitted', floor + 1);
  }

  /** A snapshot took the place of views: what they said about locks this incarnation will never learn. */
  skipped(next: View, previous: View): void {
    if (this.#hasJoined && next.epoch > previous.epoch) this.end('snapshot');
  }

  /** `atLeast`: start count that the next incarnation needs. */
  end(reason: string, atLeast: StartCount = 0): void {
    if (this.#isEnded) return;
    const { lease, suspension, presence, output } = this.#host;
    this.#isEnded = true;
    lease.until = 0;
    suspension.end();
    presence.ownStartCount = 0;
    this.#isMember = false;
    output.note('warn', 'incarnation-over', { reason, startCount: this.#present.startCount });
    output.incarnationOver(reason, atLeast);
  }

  /** A view was applied, and others are about to learn of it. */
  viewed(): void {
    this.#judgeMember();
    const { suspension } = this.#host;
    // What is held here waits for views meanwhile, and must not pile up (engine.ts suspend).
    if (suspension.isOn && ++suspension.views > SUSPENDED_VIEWS_MAX) this.end('suspended');
  }

  /** What the view says about this very incarnation: that it is over, perhaps. */
  judge(): void {
    this.#judgeMember();
    const { self, lease, suspension } = this.#host;
    const node = findNode(this.#host.view(), self);
    if (this.#isEnded || node === undefined) return;
    if (node.journal === this.#present.journalId) this.raiseAbove(node.floor);
    if (this.#isEnded || node.incarnation === null) return;
    const shown = node.incarnation.startCount;
    const { startCount, bootId } = this.#present;
    // The same number on another boot is not us: a journal that was rolled back must not count itself up to being admitted.
    const isOurs = shown === startCount && (this.#hasJoined || node.incarnation.bootId === bootId);
    const fenced = isOurs && (node.state === 'fenced' || node.state === 'evicted');
    const replaced = this.#hasJoined && shown > startCount;
    const dropped = isOurs && node.state === 'left' && this.#mayJoin;
    // Condemned before its first lease: no lease will end it, and where `self` is all there is, only its next life may come back.
    const condemned = isOurs && node.state === 'fencing' && lease.until === 0 && !suspension.isOn && this.#mayJoin;
    if (fenced || replaced || dropped || condemned) this.end('evicted');
  }

  #judgeMember(): void {
    const { startCount, bootId } = this.#present;
    const view = this.#host.view();
    const isOurs = findNode(view, this.#host.self)?.incarnation?.bootId === bootId;
    this.#isMember = !this.#isEnded && isOurs && isLiveAs(view, this.#host.self, startCount);
    if (this.#isMember) this.#hasJoined = true;
  }

  /** What asks for admission; null when there is nothing to ask. */
  joinRequest(): Command | null {
    if (!this.#mayJoin || this.#isEnded) return null;
    const { self } = this.#host;
    const node = findNode(this.#host.view(), self);
    const shown = node?.incarnation?.startCount;
    if (node === undefined || (shown === this.#present.startCount && node.state !== 'out')) return null;
    return { c: 'join', node: self, inc: this.#present, keeps: this.#keeps };
  }
}
