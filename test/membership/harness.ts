/**
 * A small deterministic cluster for the membership tests: virtual time, per-node clocks with drift, a lossy network whose links can
 * be cut one way, disks that lose what was not synced. One seed decides everything; the same seed gives the same run.
 */
import { Membership } from '../../src/membership/membership.js';
import { Random } from '../../src/membership/random.js';
import { deriveTimeLimits, type TimeLimits } from '../../src/membership/time-limits.js';
import type {
  Command,
  FenceRequest,
  NodeConfig,
  PersistBatch,
  PersistedState,
  TableCommand,
  View,
} from '../../src/membership/types.js';
import type { TableVerdict } from '../../src/membership/voter-change.js';
import type { NodeId } from '../../src/protocol/ids.js';
import type { ControlMessage } from '../../src/protocol/peer-messages.js';
import { Checks } from './checks.js';

export interface ClusterOptions {
  seed?: number;
  voters?: number;
  learners?: number;
  /** Machines that no table names yet; their configuration names themselves and node 1. */
  spares?: number;
  /** Fence levels of all nodes. */
  fence?: string[][];
  loss?: number;
  delayMs?: [number, number];
  diskMs?: [number, number];
  /** Worst drift of a node's clock, as a ratio. */
  drift?: number;
  limits?: TimeLimits;
  logKeep?: number;
  /** Milliseconds until a cut link is noticed at both ends. */
  linkDownMs?: number;
}

/** What a fence request does: the answer and after how long, or null for none. */
export type FenceScript = (request: FenceRequest) => { ok: boolean; afterMs: number; detail?: string } | null;

export class Host {
  readonly id: NodeId;
  readonly rate: number;
  readonly offset: number;
  m: Membership | null = null;
  life = 0;
  pausedUntil = 0;
  /** What arrived during a pause, in order. */
  readonly backlog: (() => void)[] = [];
  bootId: string;
  machineId: string;
  journalId: string;
  startCount = 0;
  disk: PersistedState = emptyDisk();
  unsynced: PersistBatch[] = [];
  diskFreeAt = 0;
  readonly notes: { at: number; level: string; event: string; data: Record<string, unknown> }[] = [];
  /** Why this node was told that its journal is an older copy, and whether the test made it one. */
  readonly distrusts: string[] = [];
  isRolledBack = false;
  readonly overs: { at: number; reason: string }[] = [];
  readonly fences: (FenceRequest & { at: number })[] = [];
  stopsJoining = false;
  isRetired = false;

  constructor(id: NodeId, rate: number, offset: number, journalId: string) {
    this.id = id;
    this.rate = rate;
    this.offset = offset;
    this.journalId = journalId;
    this.bootId = `boot-${id}-1`;
    this.machineId = `machine-${id}`;
  }
}

export function emptyDisk(): PersistedState {
  return { term: 0, vote: 0, snapshot: null, entries: [], boot: null };
}

interface Event {
  at: number;
  seq: number;
  run: () => void;
}

export class Cluster {
  t = 0;
  readonly hosts = new Map<NodeId, Host>();
  readonly checks = new Checks();
  readonly limits: TimeLimits;
  readonly random: Random;
  loss: number;
  fenceScript: FenceScript = () => ({ ok: true, afterMs: 50 });
  /** Messages sent, for the curious and for tests of what must not be sent. */
  onSend: ((from: NodeId, to: NodeId, msg: ControlMessage) => void) | null = null;
  readonly nodes: NodeConfig[] = [];
  private readonly options: Required<Omit<ClusterOptions, 'limits' | 'logKeep'>> & { logKeep: number };
  private readonly cuts = new Set<string>();
  private readonly linkState = new Map<string, boolean>();
  private heap: Event[] = [];
  private seq = 0;

  constructor(options: ClusterOptions = {}) {
    this.options = {
      seed: 1,
      voters: 3,
      learners: 0,
      spares: 0,
      fence: [['self']],
      loss: 0,
      delayMs: [0.2, 2],
      diskMs: [0.5, 5],
      drift: 0,
      linkDownMs: 300,
      logKeep: options.logKeep ?? 1000,
      ...options,
    };
    this.limits = options.limits ?? deriveTimeLimits();
    this.loss = this.options.loss;
    this.random = new Random(this.options.seed * 7919 + 13);
    for (let id = 1; id <= this.options.voters + this.options.learners; id++) {
      this.nodes.push({ id, name: `n${id}`, voter: id <= this.options.voters, fence: this.options.fence });
      this.addHost(id);
    }
    const known = this.nodes.length;
    for (let id = known + 1; id <= known + this.options.spares; id++) this.addHost(id);
  }

  private addHost(id: NodeId): void {
    const rate = 1 + this.options.drift * (2 * this.random.next() - 1);
    this.hosts.set(id, new Host(id, rate, 1000 + this.random.next() * 1e6, `journal-${id}`));
  }

  /** What a node's configuration names. */
  private configOf(id: NodeId): NodeConfig[] {
    if (this.nodes.some((n) => n.id === id)) return this.nodes;
    return [...this.nodes.slice(0, 1), this.spec(id)];
  }

  spec(id: NodeId, voter = false): NodeConfig {
    return { id, name: `n${id}`, voter, fence: this.options.fence };
  }

  host(id: NodeId): Host {
    const host = this.hosts.get(id);
    if (host === undefined) throw new Error(`no host ${id}`);
    return host;
  }

  m(id: NodeId): Membership {
    const m = this.host(id).m;
    if (m === null) throw new Error(`host ${id} is down`);
    return m;
  }

  local(host: Host, t = this.t): number {
    return host.offset + t * host.rate;
  }

  private real(host: Host, local: number): number {
    return (local - host.offset) / host.rate;
  }

  // --- What a test does ------------------------------------------------------------------------------------------------

  startAll(): void {
    for (const id of this.hosts.keys()) this.start(id);
  }

  start(id: NodeId): void {
    const host = this.host(id);
    if (host.m !== null || host.isRetired) return;
    host.startCount++;
    const life = ++host.life;
    host.pausedUntil = 0;
    host.m = new Membership(
      {
        self: id,
        incarnation: this.incarnation(host),
        nodes: this.configOf(id),
        limits: this.limits,
        persisted: structuredClone(host.disk),
        seed: Math.floor(this.random.next() * 2 ** 32),
        now: this.local(host),
        logKeep: this.options.logKeep,
      },
      {
        send: (to, msg) => this.send(host, life, to, msg),
        persist: (batch) => this.persist(host, life, batch),
        viewChanged: (view, previous, command) => {
          this.checks.view(this.t, appliedIndex(host), view, previous, command);
        },
        fence: (request) => {
          host.fences.push({ ...request, at: this.t });
          const result = this.fenceScript(request);
          if (result === null) return;
          this.on(host, life, result.afterMs, (m, now) => m.fenceDone(now, request.op, result.ok, result.detail ?? ''));
        },
        distrusted: (why) => {
          host.distrusts.push(why);
          if (!host.isRolledBack) this.checks.problems.push(`node ${id} is told that its journal is an older copy: ${why}`);
        },
        incarnationOver: (reason, atLeast) => {
          host.overs.push({ at: this.t, reason });
          this.on(host, life, this.between(this.options.diskMs), (m, now) => {
            host.startCount = Math.max(host.startCount + 1, atLeast);
            m.reincarnate(now, this.incarnation(host));
          });
        },
        note: (level, event, data) => {
          host.notes.push({ at: this.t, level, event, data });
          if (event === 'leader') this.checks.leader(data.term as number, id);
        },
      },
    );
    if (host.stopsJoining) host.m.stopJoining();
    this.tickLater(host, life);
    for (const peer of this.hosts.keys()) this.linkLater(id, peer, 5);
  }

  /** Out of the game for good. */
  retire(id: NodeId): void {
    this.kill(id);
    this.host(id).isRetired = true;
  }

  /** SIGKILL. What was not synced is lost, but for a random number of batches that were just in time. */
  kill(id: NodeId): void {
    const host = this.host(id);
    if (host.m === null) return;
    host.m = null;
    host.life++;
    const kept = Math.floor(this.random.next() * (host.unsynced.length + 1));
    for (const batch of host.unsynced.slice(0, kept)) apply(host.disk, batch);
    host.unsynced = [];
    host.backlog.length = 0;
    for (const peer of this.hosts.keys()) this.linkLater(id, peer, 20);
  }

  reboot(id: NodeId): void {
    this.kill(id);
    this.host(id).bootId = `boot-${id}-${this.host(id).life}-${Math.floor(this.t)}`;
  }

  wipe(id: NodeId): void {
    this.kill(id);
    const host = this.host(id);
    host.disk = emptyDisk();
    host.startCount = 0;
    host.journalId = `journal-${id}-wiped-${host.life}`;
  }

  /** SIGSTOP for a while: nothing is handled, everything is waiting afterwards. */
  pause(id: NodeId, ms: number): void {
    const host = this.host(id);
    host.pausedUntil = Math.max(host.pausedUntil, this.t + ms);
    const wake = (): void => {
      if (this.t < host.pausedUntil) return;
      for (const event of host.backlog.splice(0)) event();
    };
    this.schedule(host.pausedUntil, wake);
  }

  /** One way. */
  cut(from: NodeId, to: NodeId): void {
    this.cuts.add(`${from}>${to}`);
    this.linkLater(from, to, this.options.linkDownMs);
  }

  cutBoth(a: NodeId, b: NodeId): void {
    this.cut(a, b);
    this.cut(b, a);
  }

  isolate(id: NodeId): void {
    for (const other of this.hosts.keys()) if (other !== id) this.cutBoth(id, other);
  }

  heal(): void {
    const cuts = [...this.cuts];
    this.cuts.clear();
    for (const cut of cuts) {
      const [from, to] = cut.split('>').map(Number) as [number, number];
      this.linkLater(from, to, 20);
    }
  }

  propose(id: NodeId, command: Command): void {
    const host = this.host(id);
    host.m?.propose(this.local(host), command);
    this.observe(host);
  }

  /** Asks the leader for a change of the node table made for the view that the leader has. */
  voter(node: NodeId, on: boolean): TableVerdict {
    return this.table((table) => ({ c: 'voter', table, node, on }));
  }

  table(command: (table: number) => TableCommand): TableVerdict {
    const leader = this.leaderId();
    const host = leader === 0 ? undefined : this.host(leader);
    if (host === undefined || host.m === null) return { what: 'wait', why: 'no leader' };
    const verdict = host.m.changeTable(this.local(host), command(host.m.view.table));
    this.observe(host);
    return verdict;
  }

  /** Asks again and again until the newest view shows it. */
  changed(command: (table: number) => TableCommand, isDone: (view: View) => boolean, ms = 60_000): boolean {
    return this.until(() => {
      if (isDone(this.view())) return true;
      this.table(command);
      return false;
    }, ms);
  }

  /** What an operator does for a node that lost its journal, next step: its vote goes, then the new journal is known. */
  readmit(id: NodeId): TableVerdict {
    const node = this.leaderId() === 0 ? undefined : this.view().nodes.find((n) => n.id === id);
    if (node === undefined || node.journal === this.host(id).journalId) return { what: 'taken' };
    if (node.voter) return this.voter(id, false);
    return this.table((table) => ({ c: 'readmit', table, node: id, journal: this.host(id).journalId, vote: true }));
  }

  /** Runs until the condition holds; false when it did not within `ms`. */
  until(condition: () => boolean, ms: number): boolean {
    const end = this.t + ms;
    while (!condition()) if (!this.one(end)) return condition();
    return true;
  }

  run(ms: number): void {
    const end = this.t + ms;
    while (this.one(end));
  }

  at(delay: number, run: () => void): void {
    this.schedule(this.t + delay, run);
  }

  private schedule(at: number, run: () => void): void {
    const event = { at, seq: this.seq++, run };
    const heap = this.heap;
    heap.push(event);
    let i = heap.length - 1;
    while (i > 0) {
      const parent = (i - 1) >> 1;
      if (!before(heap[i] as Event, heap[parent] as Event)) break;
      [heap[i], heap[parent]] = [heap[parent] as Event, heap[i] as Event];
      i = parent;
    }
  }

  leaderId(): NodeId {
    let found = 0;
    let term = -1;
    for (const [id, host] of this.hosts) {
      if (host.m?.isLeader === true && host.m.term > term) {
        found = id;
        term = host.m.term;
      }
    }
    return found;
  }

  /** A view that some living node has applied: the newest. */
  view(): View {
    let best: View | null = null;
    let index = -1;
    for (const host of this.hosts.values()) {
      if (host.m !== null && appliedIndex(host) > index) {
        index = appliedIndex(host);
        best = host.m.view;
      }
    }
    if (best === null) throw new Error('no node lives');
    return best;
  }

  state(id: NodeId): string {
    return this.view().nodes.find((n) => n.id === id)?.state ?? '';
  }

  /** All living nodes are members with a lease and have applied the same entries (that they mean the same, checks.ts sees). */
  settled(): boolean {
    let index = -1;
    for (const host of this.hosts.values()) {
      if (host.m === null) continue;
      if (!host.m.isMember || host.m.leaseUntil <= this.local(host)) return false;
      const applied = appliedIndex(host);
      if (index >= 0 && applied !== index) return false;
      index = applied;
    }
    return true;
  }

  between(range: [number, number]): number {
    return range[0] + this.random.next() * (range[1] - range[0]);
  }

  // --- Machinery -------------------------------------------------------------------------------------------------------

  private incarnation(host: Host) {
    return { bootId: host.bootId, machineId: host.machineId, startCount: host.startCount, journalId: host.journalId };
  }

  private one(end: number): boolean {
    const next = this.heap[0];
    if (next === undefined || next.at > end) {
      this.t = end;
      return false;
    }
    const last = this.heap.pop() as Event;
    if (this.heap.length > 0) this.sink(last);
    this.t = next.at;
    next.run();
    return true;
  }

  private sink(event: Event): void {
    const heap = this.heap;
    heap[0] = event;
    let i = 0;
    for (;;) {
      let child = 2 * i + 1;
      if (child >= heap.length) return;
      if (child + 1 < heap.length && before(heap[child + 1] as Event, heap[child] as Event)) child++;
      if (!before(heap[child] as Event, heap[i] as Event)) return;
      [heap[i], heap[child]] = [heap[child] as Event, heap[i] as Event];
      i = child;
    }
  }

  /** Runs something in this life of the node, after its pause if it is paused. */
  private on(host: Host, life: number, delay: number, run: (m: Membership, now: number) => void): void {
    const event = (): void => {
      if (host.life !== life || host.m === null) return;
      run(host.m, this.local(host));
      this.observe(host);
    };
    this.at(delay, () => {
      if (this.t >= host.pausedUntil && host.backlog.length === 0) event();
      else host.backlog.push(event);
    });
  }

  private observe(host: Host): void {
    const m = host.m;
    if (m !== null && m.leaseUntil > 0) this.checks.lease(host.id, host.startCount, this.real(host, m.leaseUntil));
  }

  private tickLater(host: Host, life: number): void {
    this.on(host, life, this.limits.tickMs / host.rate, (m, now) => {
      m.tick(now);
      this.tickLater(host, life);
    });
  }

  private send(host: Host, life: number, to: NodeId, msg: ControlMessage): void {
    this.onSend?.(host.id, to, msg);
    if (msg.k === 'RaftVoteReply' && msg.granted && !msg.pre) this.checks.vote(host.id, msg.term, to);
    if (this.cuts.has(`${host.id}>${to}`) || this.random.next() < this.loss) return;
    const target = this.host(to);
    const targetLife = target.life;
    const { id } = host;
    this.on(target, targetLife, this.between(this.options.delayMs), (m, now) => {
      if (this.hosts.get(id)?.life !== life || this.cuts.has(`${id}>${to}`)) return;
      m.receive(now, id, msg);
    });
  }

  private persist(host: Host, life: number, batch: PersistBatch): void {
    host.unsynced.push(structuredClone(batch));
    host.diskFreeAt = Math.max(this.t, host.diskFreeAt) + this.between(this.options.diskMs);
    this.at(host.diskFreeAt - this.t, () => {
      if (host.life !== life) return;
      const done = host.unsynced.shift();
      if (done === undefined) return;
      apply(host.disk, done);
      this.on(host, life, 0, (m, now) => m.persisted(now, done.ticket));
    });
  }

  private linkLater(a: NodeId, b: NodeId, delay: number): void {
    if (a === b) return;
    this.at(delay, () => this.linkNow(Math.min(a, b), Math.max(a, b)));
  }

  private linkNow(a: NodeId, b: NodeId): void {
    const [one, two] = [this.host(a), this.host(b)];
    const up = one.m !== null && two.m !== null && !this.cuts.has(`${a}>${b}`) && !this.cuts.has(`${b}>${a}`);
    for (const [x, y] of [
      [one, two],
      [two, one],
    ] as const) {
      const key = `${x.id}:${x.life}:${y.id}`;
      if (x.m === null || (this.linkState.get(key) ?? false) === up) continue;
      this.linkState.set(key, up);
      this.on(x, x.life, 0, (m, now) => (up ? m.peerUp(now, y.id) : m.peerDown(now, y.id)));
    }
  }
}

function before(a: Event, b: Event): boolean {
  return a.at !== b.at ? a.at < b.at : a.seq < b.seq;
}

function appliedIndex(host: Host): number {
  return (host.m as unknown as { raft: { replication: { applied: number } } }).raft.replication.applied;
}

/** What a journal does with a batch. */
export function apply(disk: PersistedState, batch: PersistBatch): void {
  if (batch.hard !== undefined) {
    disk.term = batch.hard.term;
    disk.vote = batch.hard.vote;
  }
  if (batch.boot !== undefined) disk.boot = batch.boot;
  const from = batch.truncateFrom;
  if (from !== undefined) disk.entries = disk.entries.filter((e) => e.index < from);
  if (batch.entries !== undefined) disk.entries.push(...batch.entries);
  const snapshot = batch.snapshot;
  if (snapshot !== undefined) {
    disk.snapshot = snapshot;
    disk.entries = disk.entries.filter((e) => e.index > snapshot.index);
  }
}
