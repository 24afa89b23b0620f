/**
 * A few engines and nothing else: views are given by hand, messages travel in FIFO queues per directed pair and are
 * delivered when the test says so, time is a number. What a rule of the engine says can be written down as: make the
 * state, give one input, look.
 */
import { Engine } from '../../src/master/engine.js';
import type { EngineTuning } from '../../src/master/state.js';
import type { ClaimedLock, EngineOutput, JournalOp, LocalLock, LockOptions } from '../../src/master/types.js';
import { blankNode } from '../../src/membership/node-table.js';
import type { Command, Member, View } from '../../src/membership/types.js';
import type { ErrorCode } from '../../src/protocol/errors.js';
import { tokenToBigInt } from '../../src/protocol/ids.js';
import { EX, type Mode } from '../../src/protocol/modes.js';
import type { LockMessage } from '../../src/protocol/peer-messages.js';

export interface Happened {
  at: number;
  what: 'granted' | 'denied' | 'released' | 'bast' | 'lost';
  lock: LocalLock;
  mode?: Mode | -1;
  code?: ErrorCode;
  token: bigint;
}

export function makeView(
  epoch: number,
  members: Member[],
  leaving: Member[] = [],
  extraDomains: string[] = [],
  servers: number[] | null = null,
): View {
  const mastery = servers === null ? ('peer' as const) : ('servers' as const);
  const policy = { mastery, servers: members.map((m) => m.node).filter((id) => servers?.includes(id)) };
  const ids = [...members, ...leaving];
  return {
    epoch,
    table: 1,
    limits: null,
    retired: [],
    clusterId: 'test',
    nextDom: 2 + extraDomains.length,
    nodes: ids
      .map((m) => ({
        ...blankNode(
          { id: m.node, name: `n${m.node}`, voter: servers?.includes(m.node) ?? true, fence: [['self']] },
          `j${m.node}`,
        ),
        state: leaving.includes(m) ? ('leaving' as const) : ('in' as const),
        incarnation: { bootId: `b${m.node}`, machineId: `m${m.node}`, startCount: m.startCount, journalId: `j${m.node}` },
        nodeOwned: true,
        since: epoch,
      }))
      .sort((a, b) => a.id - b.id),
    domains: [
      { dom: 1, name: 'default', epoch, members, leaving, away: [], ...policy },
      ...extraDomains.map((name, i) => ({ dom: 2 + i, name, epoch, members, leaving, away: [], ...policy })),
    ],
    fencings: [],
    distrusted: [],
    alone: null,
  };
}

export class EngineWorld {
  readonly engines = new Map<number, Engine>();
  readonly queues = new Map<string, LockMessage[]>();
  readonly events: Happened[] = [];
  readonly commands: { node: number; command: Command }[] = [];
  readonly records = new Map<number, ClaimedLock[]>();
  readonly journals = new Map<number, Map<number, JournalOp>>();
  readonly pendingViews = new Map<number, View[]>();
  private readonly pendingJournal: { node: number; ticket: number; op: JournalOp }[] = [];
  now = 1000;
  members: Member[];
  epoch = 1;
  /** By default a recovery is done in one step, as soon as it can be. */
  readonly tuning: Partial<EngineTuning>;
  /** Domains beside 'default'. */
  readonly otherDomains = ['other'];
  /** Hears events while they happen; must not call an engine. */
  onEvent: ((event: Happened) => void) | null = null;
  /** Node numbers of voters: the domains are of policy `servers`. Null: `peer`. */
  servers: number[] | null;

  constructor(nodes: number[], servers: number[] | null = null, tuning: Partial<EngineTuning> = {}) {
    this.tuning = { sliceOps: Number.POSITIVE_INFINITY, ...tuning };
    this.servers = servers;
    this.members = nodes.map((node) => ({ node, startCount: 1, continues: 0, keeps: false }));
    for (const node of nodes) this.addEngine(node, 1);
    this.setView();
  }

  addEngine(node: number, startCount: number, nodeOwned: Extract<JournalOp, { op: 'put' }>['record'][] = []): Engine {
    const happened = (what: Happened['what'], lock: LocalLock, extra: Partial<Happened> = {}): void => {
      const event = { at: node, what, lock, mode: lock.mode, token: tokenToBigInt(lock.te, lock.tc), ...extra };
      this.events.push(event);
      this.onEvent?.(event);
    };
    const out: EngineOutput = {
      granted: (lock) => happened('granted', lock),
      denied: (lock, code) => happened('denied', lock, { code }),
      released: (lock) => happened('released', lock),
      bast: (lock, mode) => happened('bast', lock, { mode }),
      lost: (lock, code) => happened('lost', lock, { code }),
      send: (to, msg) => {
        const key = `${node}>${to}`;
        const queue = this.queues.get(key);
        const copy = structuredClone(msg);
        if (queue) queue.push(copy);
        else this.queues.set(key, [copy]);
      },
      restartRecord: (claims) => {
        this.records.set(node, claims);
      },
      propose: (command) => {
        this.commands.push({ node, command });
      },
      journal: (ticket, op) => {
        this.pendingJournal.push({ node, ticket, op });
      },
      note: (level, event, data) => {
        if (level === 'error') throw new Error(`${event} ${JSON.stringify(data)}`);
      },
    };
    const engine = new Engine(
      { self: node, startCount, view: makeView(0, []), nodeOwned, tuning: { purgeDelayMs: 500, ...this.tuning } },
      out,
    );
    this.engines.set(node, engine);
    return engine;
  }

  engine(node: number): Engine {
    const engine = this.engines.get(node);
    if (!engine) throw new Error(`no engine ${node}`);
    return engine;
  }

  /** All live engines pass to a new view with the present members. */
  setView(leaving: Member[] = []): void {
    this.makeViewPending(leaving);
    this.applyViews();
  }

  /** A new view exists; each engine passes to it when `applyNextView` says so. */
  makeViewPending(leaving: Member[] = []): void {
    const view = makeView(this.epoch, this.members, leaving, this.otherDomains, this.servers);
    for (const node of this.engines.keys()) {
      const list = this.pendingViews.get(node);
      if (list) list.push(view);
      else this.pendingViews.set(node, [view]);
    }
  }
  applyNextView(node: number): boolean {
    const view = this.pendingViews.get(node)?.shift();
    const engine = this.engines.get(node);
    if (!view || !engine) return false;
    engine.applyView(this.now, view);
    engine.setLeased(this.now, true);
    return true;
  }
  applyViews(): void {
    for (const node of this.engines.keys()) while (this.applyNextView(node));
  }

  /** The node's process is gone; its messages in flight with it. */
  kill(node: number): void {
    this.engines.delete(node);
    this.pendingViews.delete(node);
    for (const key of [...this.queues.keys()]) {
      const [from, to] = key.split('>').map(Number);
      if (from === node || to === node) this.queues.delete(key);
    }
  }

  /** The members lose `node`: a new epoch without it. */
  evict(node: number, isSlow = false): void {
    this.kill(node);
    this.members = this.members.filter((m) => m.node !== node);
    this.epoch++;
    if (isSlow) this.makeViewPending();
    else this.setView();
  }

  lock(node: number, name: string, mode: Mode = EX, options: Partial<LockOptions> = {}): LocalLock {
    return this.engine(node).lock(this.now, {
      domain: 'default',
      name,
      mode,
      try: false,
      nodeOwned: false,
      lvb: false,
      who: `n${node}`,
      why: '',
      deadline: 0,
      ctx: null,
      ...options,
    });
  }
  unlock(node: number, lock: LocalLock, lvb: Uint8Array | null = null): void {
    this.engine(node).unlock(this.now, lock, { lvb });
  }
  convert(node: number, lock: LocalLock, mode: Mode, isTry = false, lvb: Uint8Array | null = null): void {
    this.engine(node).convert(this.now, lock, mode, { try: isTry, deadline: 0, lvb });
  }

  /** Delivers one message of the pair; false when there is none. */
  deliver(from: number, to: number): LockMessage | null {
    const msg = this.queues.get(`${from}>${to}`)?.shift();
    if (!msg) return null;
    this.engines.get(to)?.receive(this.now, from, msg);
    return msg;
  }

  /** One step of a recovery at the node; false when there is none to do. */
  advanceOne(node: number): boolean {
    const engine = this.engine(node);
    if (!engine.hasWork) return false;
    engine.advance(this.now);
    return true;
  }

  writeJournals(): boolean {
    const writes = this.pendingJournal.splice(0);
    for (const { node, ticket, op } of writes) {
      let journal = this.journals.get(node);
      if (!journal) {
        journal = new Map();
        this.journals.set(node, journal);
      }
      if (op.op === 'put') journal.set(op.record.id, op);
      else journal.delete(op.id);
      this.engines.get(node)?.journaled(this.now, ticket);
    }
    return writes.length > 0;
  }

  /** Delivers everything, journal writes too, until nothing is left. */
  settle(): void {
    for (let round = 0; round < 10_000; round++) {
      let moved = this.writeJournals();
      for (const node of this.engines.keys()) if (this.advanceOne(node)) moved = true;
      for (const [key, queue] of [...this.queues]) {
        const [from, to] = key.split('>').map(Number) as [number, number];
        if (queue.length > 0) {
          this.deliver(from, to);
          moved = true;
        }
      }
      if (!moved) return;
    }
    throw new Error('messages go round for ever');
  }

  /** Time passes, with ticks every 50 ms and everything delivered. */
  advance(ms: number): void {
    for (const end = this.now + ms; this.now < end; ) {
      this.now += 50;
      for (const engine of this.engines.values()) engine.tick(this.now);
      this.settle();
    }
  }

  /** What happened to one lock, in order, as short words. */
  of(lock: LocalLock): string[] {
    return this.events
      .filter((e) => e.lock === lock)
      .map((e) => {
        if (e.what === 'granted') return `granted ${['NL', 'PR', 'EX'][e.mode as number]}`;
        if (e.what === 'bast') return `bast ${['NL', 'PR', 'EX'][e.mode as number]}`;
        if (e.what === 'denied' || e.what === 'lost') return `${e.what} ${e.code}`;
        return e.what;
      });
  }
  /** The last of these that is not a BAST. */
  last(lock: LocalLock): string | undefined {
    return this.of(lock).findLast((word) => !word.startsWith('bast'));
  }
  /** Node that masters the name, by the engines' own belief; 0 none. */
  masterOf(name: string): number {
    for (const [node, engine] of this.engines) {
      const res = engine.state.domains.get('default')?.resources.get(name);
      if (res && res.owner === node && res.state === 1) return node;
    }
    return 0;
  }
  mastersOf(name: string): number[] {
    return [...this.engines.keys()].filter((node) => {
      const domain = this.engine(node).state.domains.get('default');
      const res = domain?.resources.get(name);
      // What a node has not brought to the epoch it does not believe: it will look first.
      return res?.owner === node && res.state === 1 && res.seen === domain?.epoch;
    });
  }
}
