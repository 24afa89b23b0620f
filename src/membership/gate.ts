/**
 * The fencing gate: how a member that does not answer ends, step by step, each step in the log.
 *
 *   in -> suspect (silent > suspectMs) -> fencing (silent > deadMs, no way back) -> fenced (proven over) -> evicted
 *
 * The problem: locks of a node that is silent must not be granted anew before it certainly cannot act, and the decision must
 * survive the leader that took it. So each step is a command of the log, only a leader that knows all that was committed takes
 * one, and a new leader repeats the whole operation for whoever stands in `fencing` (a success that is not in the log is none).
 * Half a partition (trap 2): two members without a link to each other hang each other's requests though both talk to the leader;
 * after deadMs one of them goes: the one with fewer working links, then the higher number.
 * When a lease is over is lease.ts; what the steps do to a view is view.ts.
 */
import type { Millis, NodeId, StartCount } from '../protocol/ids.js';
import { logText, openFence } from './fence-record.js';
import { FenceRun, type FenceRunHost } from './fence-run.js';
import type { Presence, Talking } from './presence.js';
import type { TimeLimits } from './time-limits.js';
import type { Command, FenceRecord, FenceVerdict, NodeView, View } from './types.js';
import { findNode, isLive, isLiveAs } from './view.js';

export interface GateHost extends Omit<FenceRunHost, 'tried'> {
  /** Puts a command into the log. */
  propose(command: Command): void;
  /** When that incarnation's lease is certainly over. */
  overAt(node: NodeId, startCount: StartCount): Millis;
  /** We lead, but our own node is to be fenced: another voter must lead and do it. */
  yieldLead(): void;
  /** Wall clock, ms since 1970: for records that people read. */
  wall(): number;
}

export class Gate {
  private readonly self: NodeId;
  private readonly hasOtherVoters: () => boolean;
  private readonly limits: TimeLimits;
  private readonly presence: Presence;
  private readonly host: GateHost;
  private runs: FenceRun[] = [];
  private readonly runHost: FenceRunHost;
  /** Since when a pair of talking members has no link; key low * 256 + high. */
  private cut = new Map<number, Millis>();
  /** Condemned for a missing link; nobody else is, until the log shows it. */
  private victim: { node: NodeId; startCount: StartCount } | null = null;

  constructor(options: { self: NodeId; hasOtherVoters: () => boolean; limits: TimeLimits }, presence: Presence, host: GateHost) {
    this.self = options.self;
    this.hasOtherVoters = options.hasOtherVoters;
    this.limits = options.limits;
    this.presence = presence;
    this.host = host;
    this.runHost = {
      fence: (request) => host.fence(request),
      note: (level, event, data) => host.note(level, event, data),
      nextOp: () => host.nextOp(),
      tried: (node, startCount, one) => {
        const detail = logText(one.detail);
        host.propose({ c: 'fenceTry', node, startCount, ...one, detail, by: this.self, at: host.wall() });
      },
    };
  }

  /** A new time of leading, or the end of one: nothing of the last one counts. */
  reset(): void {
    this.runs = [];
    this.cut.clear();
    this.victim = null;
  }

  /** We did not run for a while: how long links have been missing is counted anew. */
  forgive(): void {
    this.cut.clear();
  }

  /** Only while leading and knowing all that was committed. */
  tick(now: Millis, view: View): void {
    let anyFencing = false;
    for (const node of view.nodes) {
      switch (node.state) {
        case 'in':
        case 'suspect':
          this.watch(now, node);
          break;
        case 'restarting':
          // The only voter's own machine has nobody to end it, and is no other: its next incarnation takes the place.
          if (node.id === this.self && !this.hasOtherVoters()) break;
          if (now >= this.host.overAt(node.id, about(node).startCount) && !this.presence.isBeingReplaced(now, node)) {
            this.condemn(node, `did not come back within the ${node.restartMs} ms of its restart`);
          }
          break;
        case 'fencing':
          anyFencing = true;
          break;
        case 'fenced':
          this.host.propose({ c: 'evicted', ...about(node) });
          break;
        case 'leaving':
          if (this.presence.silentMs(now, node) > this.limits.deadMs) this.host.propose({ c: 'nodeLeft', ...about(node) });
          break;
      }
    }
    if (anyFencing) this.fenceAll(now, view);
    else if (this.runs.length > 0) this.runs = [];
    this.watchLinks(now, view);
  }

  fenceDone(op: number, ok: boolean, detail: string): void {
    for (const run of this.runs) if (run.done(op, ok, detail)) return;
  }

  /**
   * A person vouches for a victim: counts once it is in the log, at whatever level its run stands and whoever leads then. "ok"
   * means that it was put there, not that it stays: the one who asks looks at the view.
   */
  confirm(view: View, id: NodeId, startCount: StartCount, by: string): FenceVerdict {
    const node = findNode(view, id);
    if (node?.state !== 'fencing') return { ok: false, text: `node ${id} is not being fenced: there is nothing to confirm` };
    if (node.incarnation?.startCount !== startCount) return { ok: false, text: otherLife(node, startCount) };
    if (node.id === this.self && this.hasOtherVoters()) {
      return { ok: false, text: `node ${id} is this very machine, which still runs: ask another node` };
    }
    this.host.propose({ c: 'fenceConfirm', node: node.id, startCount, who: logText(by), by: this.self, at: this.host.wall() });
    return { ok: true };
  }

  /** An operator wants a member fenced. What follows is as for one that fell silent. */
  fenceNow(view: View, id: NodeId, startCount: StartCount, reason: string): FenceVerdict {
    const node = findNode(view, id);
    const isUnderWay = node?.state === 'fencing';
    if (node === undefined || !(isLive(node) || isUnderWay)) {
      return { ok: false, text: `node ${id} is ${node?.state ?? 'not known'}: only a member can be fenced` };
    }
    if (node.incarnation?.startCount !== startCount) return { ok: false, text: otherLife(node, startCount) };
    if (node.id === this.self && !this.hasOtherVoters()) {
      return { ok: false, text: `node ${id} is the only voter: nobody else could fence it` };
    }
    // One operation per victim: who asks for one that is under way waits for the same.
    if (!isUnderWay) this.condemn(node, reason);
    return { ok: true };
  }

  dump(): Record<string, unknown>[] {
    return this.runs.map((r) => r.dump());
  }

  private watch(now: Millis, node: NodeView): void {
    const silent = this.presence.silentMs(now, node);
    if (silent <= this.limits.suspectMs) {
      if (node.state === 'suspect') this.host.propose({ c: 'alive', ...about(node) });
      return;
    }
    // Nobody could end the only voter's own machine, and it is no other: its next incarnation takes the place after the lease.
    if (node.id === this.self && !this.hasOtherVoters()) return;
    const { node: id, startCount } = about(node);
    // Its next incarnation is at the door: it takes the place once the old lease is over. Not for ever, though.
    const replaceableAt = this.presence.replaceableAt(node, this.host.overAt(id, startCount));
    if (this.presence.isBeingReplaced(now, node) && now < replaceableAt + this.limits.deadMs) return;
    if (silent > this.limits.deadMs) this.condemn(node, `silent for ${Math.round(silent)} ms`);
    else if (node.state === 'in') this.host.propose({ c: 'suspect', node: id, startCount });
  }

  private condemn(node: NodeView, reason: string): void {
    this.host.propose({ c: 'fencing', ...about(node), reason: logText(reason) });
  }

  private fenceAll(now: Millis, view: View): void {
    this.runs = this.runs.filter((run) =>
      view.nodes.some((n) => n.id === run.node && n.state === 'fencing' && n.incarnation?.startCount === run.startCount),
    );
    for (const node of view.nodes) {
      if (node.state !== 'fencing') continue;
      // A leader never turns a fence on its own machine: whoever can lead next does it.
      if (node.id === this.self && this.hasOtherVoters()) {
        if (view.nodes.some((n) => this.mayFollow(now, n))) {
          this.host.yieldLead();
          return;
        }
        continue;
      }
      const { startCount } = about(node);
      // Ended by its own lease alone, and its next incarnation is at the door: that one takes the place (view.ts mayReturn).
      const overAt = this.host.overAt(node.id, startCount);
      if (isSelfOnly(node) && this.presence.isBeingReplaced(now, node) && now < overAt + this.limits.deadMs) continue;
      let run = this.runs.find((r) => r.node === node.id);
      if (!run?.isUnderWay && this.presence.isRebooted(now, node)) {
        // Whatever ended it: it is over, and to fence the machine once more would only hit its next incarnation (rule 12).
        if (now < overAt) continue;
        const tried = { level: 0, attempt: 1, methods: 'reboot', ok: true, detail: 'its machine was rebooted', tookMs: 0 };
        this.runHost.tried(node.id, startCount, tried);
        this.host.propose({ c: 'fenced', node: node.id, startCount, method: 'reboot' });
        continue;
      }
      const record = openFence(view, node.id, startCount);
      if (run === undefined) {
        const isConfirmed = record !== undefined && record.confirmed !== null;
        if (!isConfirmed && (this.mustWait(node, view) || (!isSelfOnly(node) && this.presence.isEarly(now)))) continue;
        // Who carries it out is in the log before the first `off` leaves: from then on nobody withdraws it.
        if (!isConfirmed && record !== undefined && record.fencers.at(-1) !== this.self) {
          this.host.propose({ c: 'fenceBegin', node: node.id, startCount, by: this.self, at: this.host.wall() });
          continue;
        }
        run = this.begin(node, record);
      }
      if (record !== undefined && record.confirmed !== null) run.confirm(record.confirmed.who);
      const levels = node.id === this.self ? [['self']] : node.fence;
      const distrusted = view.distrusted.filter((d) => d.node === node.id).map((d) => d.method);
      const method = run.tick(now, { node, levels, overAt, distrusted });
      if (method !== null) this.host.propose({ c: 'fenced', node: node.id, startCount, method });
    }
  }

  /**
   * Voters are ended one at a time: with several off at once there may be no majority left to put `fenced` into the log, and
   * the next leader would begin with all of them again. A run whose first attempt failed holds nobody up.
   */
  private mustWait(node: NodeView, view: View): boolean {
    if (!node.voter || isSelfOnly(node)) return false;
    return this.runs.some((run) => run.isFirstAttempt && view.nodes.some((n) => n.id === run.node && n.voter && !isSelfOnly(n)));
  }

  /** Begins to fence a node. */
  private begin(node: NodeView, record: FenceRecord | undefined): FenceRun {
    const { startCount } = about(node);
    const run = new FenceRun(node.id, startCount, record?.reason ?? '', this.runHost);
    this.runs.push(run);
    this.host.note('warn', 'fencing', { node: node.id, startCount, levels: node.fence.map((l) => l.join('+')) });
    return run;
  }

  /** Another voter that talks to us and is not to be fenced itself. */
  private mayFollow(now: Millis, node: NodeView): boolean {
    return node.voter && node.id !== this.self && node.state !== 'fencing' && this.presence.isHeard(now, node.id);
  }

  // --- Half a partition --------------------------------------------------------------------------------------------

  private watchLinks(now: Millis, view: View): void {
    const pending = this.victim;
    if (pending !== null && isLiveAs(view, pending.node, pending.startCount)) return;
    this.victim = null;
    const talking = this.presence.talking(now, view);
    if (talking.every((t) => t.down.length === 0)) {
      if (this.cut.size > 0) this.cut.clear();
      return;
    }
    const still = new Map<number, Millis>();
    let worst: Talking | undefined;
    for (const low of talking) {
      for (const high of talking) {
        // The leader's own links are not judged here: who cannot reach the leader is silent.
        if (low.node >= high.node || low.node === this.self || high.node === this.self || isUp(low, high)) continue;
        const key = low.node * 256 + high.node;
        const since = this.cut.get(key) ?? now;
        still.set(key, since);
        if (now - since > this.limits.deadMs) worst ??= worse(low, high, talking);
      }
    }
    this.cut = still;
    const node = view.nodes.find((n) => n.id === worst?.node);
    if (node === undefined) return;
    this.victim = about(node);
    this.condemn(node, 'no link to another member');
  }
}

function about(node: NodeView): { node: NodeId; startCount: StartCount } {
  return { node: node.id, startCount: node.incarnation?.startCount ?? 0 };
}

function isSelfOnly(node: NodeView): boolean {
  return node.fence.every((level) => level.every((method) => method === 'self'));
}

function otherLife(node: NodeView, asked: StartCount): string {
  return `node ${node.id} is a member since start ${node.incarnation?.startCount ?? 0}, not ${asked}: look again and repeat`;
}

/** A one-way link is none. */
function isUp(a: Talking, b: Talking): boolean {
  return !a.down.includes(b.node) && !b.down.includes(a.node);
}

function worse(low: Talking, high: Talking, all: readonly Talking[]): Talking {
  const links = (t: Talking): number => all.reduce((sum, o) => sum + (o !== t && isUp(t, o) ? 1 : 0), 0);
  return links(low) < links(high) ? low : high;
}
