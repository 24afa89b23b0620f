/**
 * What the leader hears of the nodes: when, as which incarnation, and which links they miss.
 *
 * The problem: "silent" and "cut off from that one" are judged in several places (the gate, admissions) and must mean the same.
 * Silence is counted from when this leader began at the earliest: what its predecessor heard it does not know.
 */
import type { Incarnation, Millis, NodeId, StartCount } from '../protocol/ids.js';
import { endsWithMachine } from './fence-levels.js';
import type { TimeLimits } from './time-limits.js';
import type { NodeView, View } from './types.js';
import { isLive } from './view.js';

/** `waitMs`: what who waits for a lease has to wait (limits-in-force.ts). */
export type PresenceLimits = TimeLimits & { readonly waitMs: Millis };

interface Heard {
  journal: string;
  startCount: StartCount;
  at: Millis;
  down: readonly NodeId[];
  /** Version of the time limits that it goes by. */
  limits: number;
}

export interface Talking {
  node: NodeId;
  down: readonly NodeId[];
}

/** A newer incarnation asks to be admitted. */
interface Asking {
  inc: Incarnation;
  at: Millis;
  /** When this leader heard it ask first. */
  since: Millis;
}

export class Presence {
  private readonly self: NodeId;
  private readonly limits: PresenceLimits;
  private since: Millis = 0;
  private readonly last = new Map<NodeId, Heard>();
  private readonly asks = new Map<NodeId, Asking>();
  /** Peers of ours without a link, sorted: kept always, also while not leading. */
  ownDown: readonly NodeId[] = [];
  private peers: readonly NodeId[] = [];
  private readonly up = new Set<NodeId>();
  /** The incarnation of ours that lives, 0 while none does. */
  ownStartCount: StartCount = 0;

  constructor(self: NodeId, peers: readonly NodeId[], limits: PresenceLimits) {
    this.self = self;
    this.limits = limits;
    this.setPeers(peers);
  }

  /** Who the others are, sorted; links to nodes that are not (yet) among them are remembered. */
  setPeers(peers: readonly NodeId[]): void {
    this.peers = peers;
    this.ownDown = peers.filter((p) => !this.up.has(p));
  }

  /** Our own link to a peer is usable / not usable. */
  setLink(peer: NodeId, up: boolean): void {
    if (up) this.up.add(peer);
    else this.up.delete(peer);
    this.ownDown = this.peers.filter((p) => !this.up.has(p));
  }

  begin(now: Millis): void {
    this.since = now;
    this.last.clear();
    this.asks.clear();
  }

  /** We ourselves did not run for a while (trap 9): what was not heard then is nobody's silence. */
  forgive(now: Millis): void {
    this.since = now;
  }

  /** This node got no processor for a while: silence counts from now. */
  stoodStill(now: Millis): void {
    this.since = now;
  }

  /**
   * An acknowledgement arrived. One of an older incarnation than heard before is late and says nothing. Start counts of two journals do
   * not compare: raft.ts lets through only those of the journal that the node table names.
   */
  heard(now: Millis, from: NodeId, said: Omit<Heard, 'at'>): void {
    const before = this.last.get(from);
    if (said.startCount === 0 || (before?.journal === said.journal && said.startCount < before.startCount)) return;
    this.last.set(from, { ...said, at: now });
  }

  /** Version of the time limits that this member has acknowledged. */
  limitsOf(node: NodeView): number {
    const heard = this.last.get(node.id);
    return heard !== undefined && heard.startCount === node.incarnation?.startCount ? heard.limits : 0;
  }

  /** Any incarnation of the node was heard lately. */
  isHeard(now: Millis, node: NodeId): boolean {
    const heard = this.last.get(node);
    return heard !== undefined && now - heard.at <= this.limits.suspectMs;
  }

  asked(now: Millis, from: NodeId, inc: Incarnation): void {
    const before = this.asks.get(from);
    const since = before?.inc.startCount === inc.startCount ? before.since : now;
    this.asks.set(from, { inc, at: now, since });
  }

  /** How long the member that the view shows has been silent. */
  silentMs(now: Millis, node: NodeView): Millis {
    const startCount = node.incarnation?.startCount ?? 0;
    if (node.id === this.self) return startCount === this.ownStartCount ? 0 : now - this.since;
    const heard = this.last.get(node.id);
    return now - (heard?.startCount === startCount ? Math.max(heard.at, this.since) : this.since);
  }

  isSilent(now: Millis, node: NodeView): boolean {
    return this.silentMs(now, node) > this.limits.suspectMs;
  }

  /** A later incarnation from the same machine, heard lately, wants this member's place: the old one is not being ended for it. */
  isBeingReplaced(now: Millis, node: NodeView): boolean {
    const asking = this.asks.get(node.id);
    const old = node.incarnation;
    if (asking === undefined || old === null || now - asking.at > this.limits.suspectMs) return false;
    // With another journal it comes as a new node, and start counts of two journals do not compare.
    return (
      asking.inc.startCount > old.startCount && asking.inc.machineId === old.machineId && asking.inc.journalId === old.journalId
    );
  }

  /**
   * When the incarnation that asks may take the place of the one that the view shows. `overAt`: when that one's lease is over. A
   * node that is ended by device only may have told its owners later deadlines (suspension.ts), none beyond one lease after it ended.
   */
  replaceableAt(node: NodeView, overAt: Millis): Millis {
    const asking = this.asks.get(node.id);
    if (asking === undefined || asking.inc.bootId !== node.incarnation?.bootId || !endsWithMachine(node.fence)) return overAt;
    return Math.max(overAt, asking.since + this.limits.waitMs);
  }

  /** The same machine asks to be admitted after a reboot, perhaps with a new disk: what ran on it before is over beyond doubt (rule 12). */
  isRebooted(now: Millis, node: NodeView): boolean {
    const asking = this.asks.get(node.id);
    const old = node.incarnation;
    if (asking === undefined || old === null || asking.inc.bootId === old.bootId) return false;
    const isWiped = asking.inc.journalId !== old.journalId && asking.inc.machineId === old.machineId;
    return this.isBeingReplaced(now, node) || (isWiped && now - asking.at <= this.limits.suspectMs);
  }

  /** We have led for so short a time that a node which is there need not have asked us yet. */
  isEarly(now: Millis): boolean {
    return now - this.since < 2 * this.limits.heartbeatMs;
  }

  /** Links that incarnation `startCount` of the node misses, or null when it was not heard lately. */
  downOf(now: Millis, node: NodeId, startCount: StartCount): readonly NodeId[] | null {
    if (node === this.self) return this.ownDown;
    const heard = this.last.get(node);
    if (heard === undefined || heard.startCount !== startCount || now - heard.at > this.limits.suspectMs) return null;
    return heard.down;
  }

  /** Members that talk to us, with the links each misses; sorted by node. */
  talking(now: Millis, view: View): Talking[] {
    const found: Talking[] = [];
    for (const node of view.nodes) {
      if (!isLive(node) || this.isSilent(now, node)) continue;
      const down = this.downOf(now, node.id, node.incarnation?.startCount ?? 0);
      if (down !== null) found.push({ node: node.id, down });
    }
    return found;
  }
}
