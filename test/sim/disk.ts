/**
 * The simulated state directory of one node: the control journal (synced before it counts) and the journal of node-owned
 * locks (written before the answer).
 *
 * Writes complete in order after a random delay. A crash of the daemon loses what had not completed, except a random prefix
 * that had reached the disk without anybody having been told. A reboot also voids the locks (another boot id).
 */
import type { ClaimedLock, JournalOp, NodeOwnedRecord } from '../../src/master/types.js';
import type { PersistBatch, PersistedState } from '../../src/membership/types.js';
import { ControlRecords } from '../../src/node/journal-control.js';
import type { EventQueue } from './event-queue.js';
import type { Prng } from './prng.js';

interface Write {
  apply: () => void;
  /** Null once the writer is gone. */
  done: (() => void) | null;
}

/** One file that is written in order. */
class WriteQueue {
  readonly #queue: EventQueue;
  readonly #random: Prng;
  #pending: Write[] = [];
  #isBusy = false;
  #life = 0;
  meanMs: number;
  /** Planted bug: what was given counts as written. */
  answersEarly = false;

  constructor(queue: EventQueue, random: Prng, meanMs: number) {
    this.#queue = queue;
    this.#random = random;
    this.meanMs = meanMs;
  }

  write(apply: () => void, done: () => void): void {
    this.#pending.push({ apply, done: this.answersEarly ? null : done });
    if (this.answersEarly) this.#queue.after(0.05, done);
    this.#next();
  }

  /** Group commit: all that waits when a sync begins completes with it. */
  #next(): void {
    if (this.#isBusy || this.#pending.length === 0) return;
    this.#isBusy = true;
    const life = this.#life;
    const count = this.#pending.length;
    this.#queue.after(0.05 + this.#random.exp(this.meanMs), () => {
      if (life !== this.#life) return;
      const ready = this.#pending.splice(0, count);
      for (const w of ready) w.apply();
      for (const w of ready) if (w.done) w.done();
      this.#isBusy = false;
      this.#next();
    });
  }

  crash(): void {
    this.#life++;
    this.#isBusy = false;
    const kept = this.#random.chance(0.5) ? 0 : this.#random.int(this.#pending.length + 1);
    for (const w of this.#pending.slice(0, kept)) w.apply();
    this.#pending = [];
  }
}

/** The record of a clean restart. Owners are named by `ctx`, which the simulated disk keeps as it is. */
export interface RestartRecord {
  startCount: number;
  /** On the node's clock. */
  until: number;
  claims: ClaimedLock[];
}

export class NodeDisk {
  state: PersistedState = { term: 0, vote: 0, snapshot: null, entries: [], boot: null };
  startCount = 0;
  record: RestartRecord | null = null;
  /** Deadlines up to here, on the node's clock, may have been told by a daemon that was restarted. */
  toldUntil = 0;
  readonly locks = new Map<number, NodeOwnedRecord>();
  readonly #control: WriteQueue;
  readonly #journal: WriteQueue;
  readonly #meanMs: number;
  /** The production journal's own checks of what it is told to write. */
  #records = new ControlRecords(this.state);
  /** Planted bug: a record of a restart outlives the restart. */
  keepsRecord = false;
  /** Planted bug: what the disk forgets at a crash. */
  atCrash: ((disk: NodeDisk) => void) | null = null;
  /** Hears of what is on the disk for good. */
  synced: (batch: PersistBatch) => void = () => {};

  constructor(queue: EventQueue, random: Prng, meanMs: number) {
    this.#meanMs = meanMs;
    this.#control = new WriteQueue(queue, random, meanMs);
    this.#journal = new WriteQueue(queue, random, Math.min(1, meanMs));
  }

  set answersEarly(on: boolean) {
    this.#control.answersEarly = on;
  }

  /** 1 = as drawn; larger = slower. */
  set slowness(factor: number) {
    this.#control.meanMs = this.#meanMs * factor;
  }

  /** Throws, as the journal does, when the batch is out of order or would leave a gap. */
  persist(batch: PersistBatch, done: () => void): void {
    this.#records.opsOf(batch);
    this.#control.write(() => this.#apply(batch), done);
  }

  raiseStartCount(done: (startCount: number) => void, atLeast = 0): void {
    this.#control.write(
      () => {
        this.startCount = Math.max(this.startCount + 1, atLeast);
        if (!this.keepsRecord) this.record = null;
      },
      () => done(this.startCount),
    );
  }

  /** Synced, like a vote. */
  writeRestart(record: RestartRecord, done: () => void): void {
    this.#control.write(() => {
      this.record = record;
      this.toldUntil = record.until;
    }, done);
  }

  journal(op: JournalOp, done: () => void): void {
    this.#journal.write(() => {
      if (op.op === 'put') this.locks.set(op.record.id, { ...op.record, lvb: op.record.lvb?.slice() ?? null });
      else this.locks.delete(op.id);
    }, done);
  }

  /** The daemon died. */
  crash(): void {
    this.#control.crash();
    this.#journal.crash();
    this.atCrash?.(this);
  }

  /** The machine went down: a new boot id voids the locks. */
  reboot(): void {
    this.crash();
    this.locks.clear();
    this.record = null;
    this.toldUntil = 0;
  }

  /** What a starting daemon reads; its own to change. */
  /** A new disk, and a new journal on it. */
  wipe(): void {
    this.state = { term: 0, vote: 0, snapshot: null, entries: [], boot: null };
    this.startCount = 0;
    this.record = null;
    this.toldUntil = 0;
    this.locks.clear();
    this.#records = new ControlRecords(this.state);
  }

  load(): PersistedState {
    this.#records = new ControlRecords(this.state);
    return { ...this.state, entries: [...this.state.entries] };
  }

  #apply(batch: PersistBatch): void {
    const s = this.state;
    if (batch.hard) {
      s.term = batch.hard.term;
      s.vote = batch.hard.vote;
    }
    const { truncateFrom } = batch;
    if (truncateFrom !== undefined) s.entries = s.entries.filter((e) => e.index < truncateFrom);
    if (batch.snapshot) {
      const { index } = batch.snapshot;
      s.snapshot = batch.snapshot;
      s.entries = s.entries.filter((e) => e.index > index);
    }
    const base = s.snapshot?.index ?? 0;
    for (const e of batch.entries ?? []) {
      if (e.index <= base) continue;
      const at = e.index - base - 1;
      if (at > s.entries.length) throw new Error(`ticket ${batch.ticket} leaves a gap before entry ${e.index}`);
      s.entries[at] = e;
    }
    if (batch.boot) s.boot = batch.boot;
    this.synced(batch);
  }
}
