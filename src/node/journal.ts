/**
 * The journal of one node: what it must not forget.
 *
 * The problem: a vote that was answered and then forgotten elects two leaders, and a node-owned lock that was granted and then
 * forgotten is granted twice; but syncing every lock to disk would be slow, and a power loss voids those anyway.
 * The idea (design rule 19): two environments. control/ answers after the sync. locks/ answers after the commit, survives the
 * daemon's death, and counts only under the boot id it was made for; on another boot it is thrown away unread.
 * A journal that is damaged, foreign, too new, full or in use is refused with the way out; it is never started from nothing.
 *
 *   DIR/control/   meta, start count, vote, log, snapshot (journal-control.ts)
 *   DIR/locks/     node-owned locks under their ids
 *   DIR/stamps     what both last confirmed (journal-stamp.ts)
 *   DIR/lock.*     who uses it (dir-lock.ts)
 *
 * After the first failed commit the state on disk is unknown: `onFailure` is called once, every later write is refused, and
 * the daemon is expected to end. Before it comes to that, want of space refuses node-owned locks: the last part of the disk
 * is kept free of them, for consensus and for the records that say that such locks are gone.
 */
import { randomBytes } from 'node:crypto';
import { chmodSync, mkdirSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import type { ClaimedLock, JournalOp, NodeOwnedRecord } from '../master/types.js';
import type { PersistBatch, PersistedState } from '../membership/types.js';
import { invariant, TsdlmError } from '../protocol/errors.js';
import type { NodeId, StartCount } from '../protocol/ids.js';
import { type DirLock, lockDirectory } from './dir-lock.js';
import { GroupCommit } from './group-commit.js';
import { ControlRecords, controlState } from './journal-control.js';
import { fileError, spaceAt, WAY_OUT } from './journal-disk.js';
import { checkFiles } from './journal-files.js';
import { checkMeta, createStore, ensureControl, type Meta, SESSION_KEY } from './journal-make.js';
import { type EnvironmentName, type Stamp, Stamps } from './journal-stamp.js';
import { LOCKS_BOOT_KEY, openStore, type Store, type StoreKey } from './journal-store.js';
import type { Log } from './log.js';

/** The record of control/ that says why this journal must not be used any more. */
const DISTRUSTED_KEY = 'distrusted';
const DEFAULT_MAX_BYTES = 1024 * 1024 * 1024;
/** How often at most the size of locks/ and the space left are looked at: in so long it takes far less than the reserve. */
const SIZE_CHECK_MS = 5;
/** The record of a clean restart, and the deadlines that it told. Both in control/. */
const RESTART_KEY = 'restart';
const TOLD_KEY = 'told';
/** Kept free of node-owned locks, or a part of a small file system if that is less. */
const RESERVE_BYTES = 16 * 1024 * 1024;
const RESERVE_PART = 1 / 16;

export interface JournalOptions {
  dir: string;
  nodeId: NodeId;
  clusterName: string;
  /** The kernel's boot id: node-owned locks of another boot are void. */
  bootId: string;
  log: Log;
  /** Called once, with TSDLM_JOURNAL_FAILED or TSDLM_JOURNAL_FULL, at the first failed commit or sync. */
  onFailure?: (error: TsdlmError) => void;
  /** Most bytes in use of control/ and of locks/, each. Default 1 GiB. */
  maxBytes?: number;
  /** For tests: something that fails, in front of an environment. */
  wrapStore?: (store: Store, name: EnvironmentName) => Store;
}

/** What owners held and waited for when the daemon was restarted cleanly, and who they are. */
export interface RestartRecord {
  /** Of the daemon that wrote it: it counts for the next start only. */
  startCount: StartCount;
  /** Deadline that owners were told, on CLOCK_MONOTONIC. */
  until: number;
  sessions: RecordedSession[];
  claims: RecordedClaim[];
}
export interface RecordedSession {
  key: string;
  pid: number;
  label: string;
  /** Process group of its command (rule 7). */
  group: { pgid: number; graceMs: number; leaderStart: string } | null;
}
export interface RecordedClaim extends Omit<ClaimedLock, 'ctx'> {
  /** Key of its session; '' = nobody wants it any more. */
  session: string;
  rid: number;
  /** Number of the conversion that waits; 0 = none. */
  convert: number;
}

export interface Journal {
  /** Random, made with the journal: a wiped disk shows as another one. */
  readonly journalId: string;
  /** True when this call made it. */
  readonly isNew: boolean;
  /** As last raised; 0 in a new journal. */
  readonly startCount: StartCount;
  /** Start count + 1, synced before it is returned. */
  raiseStartCount(atLeast?: StartCount): Promise<StartCount>;
  /** Key of the proofs that clients show after a restart. Random, made with the journal. */
  readonly sessionKey: Buffer;
  /** The record of the clean restart that this start follows, as found at open: of this boot and for this start count, else null. */
  readonly restart: RestartRecord | null;
  /** Deadlines up to here (CLOCK_MONOTONIC of this boot) may have been told by a daemon that was restarted; 0 = none. */
  readonly toldUntil: number;
  /** Writes the record of a clean restart; resolves when synced. The next raise of the start count deletes it (rule 3). */
  writeRestart(record: Omit<RestartRecord, 'startCount'>): Promise<void>;
  /** Nobody counts on a deadline of a restart any more. */
  clearTold(): Promise<void>;
  /** Copy of the configuration of the last accepted start, as given to acceptConfig; null in a new journal. */
  readonly acceptedConfig: unknown;
  /** Keeps a copy of the configuration (plain data), synced. */
  acceptConfig(copy: unknown): Promise<void>;
  /** Consensus state as it was found at open. */
  loadControl(): PersistedState;
  /** In the order of calls, all of a batch or nothing; resolves when synced. Rejects once anything failed. */
  persist(batch: PersistBatch): Promise<void>;
  /** Node-owned locks as found at open; empty when the machine was booted since. */
  loadNodeOwned(): NodeOwnedRecord[];
  /** Resolves when committed: it survives this process, not a power loss. TSDLM_JOURNAL_FULL for a put over the limit. */
  writeNodeOwned(op: JournalOp): Promise<void>;
  /** Forgets all node-owned locks. */
  clearNodeOwned(): Promise<void>;
  /** Notes, synced, that the cluster knows more of this journal than it holds: it is never opened again. */
  distrust(why: string): Promise<void>;
  /** Bytes of the pages in use, both environments. */
  readonly sizeBytes: number;
  /** Writes what is under way, then lets the directory go. */
  close(): Promise<void>;
}

/**
 * Opens the journal in `dir`, or makes a new one when the directory is missing or empty. Throws TSDLM_JOURNAL_IN_USE,
 * _FOREIGN, _TOO_NEW, _CORRUPT, _ROLLED_BACK, _FULL or _FAILED, each with the way out; it leaves the directory as it was then.
 */
export async function openJournal(options: JournalOptions): Promise<Journal> {
  const { dir, bootId, log } = options;
  let lock: DirLock | null = null;
  let stamps: Stamps | null = null;
  const open: Store[] = [];
  try {
    mkdirSync(dir, { recursive: true, mode: 0o700 });
    lock = await lockDirectory(dir);
    const isNew = await ensureControl(options);
    const control = join(dir, 'control');
    const locks = join(dir, 'locks');
    chmodSync(control, 0o700);
    if (!isNew) checkFiles(control);
    const wrap = options.wrapStore ?? ((store: Store): Store => store);
    const openNoted = (name: EnvironmentName): Store => {
      const isSynced = name === 'control';
      const note = (stamp: Stamp): Promise<void> => {
        invariant(stamps !== null, 'journal: a commit before its stamps were read');
        return stamps.put(name, stamp, isSynced);
      };
      return wrap(openStore(join(dir, name), isSynced, note), name);
    };
    const controlStore = openNoted('control');
    open.push(controlStore);
    const records = controlStore.load();
    const meta = checkMeta(records, options);
    stamps = Stamps.open(dir);
    if (meta.journalId !== stamps.journalId) {
      throw new TsdlmError('TSDLM_JOURNAL_CORRUPT', `journal ${dir} is damaged: its stamps are of another journal. ${WAY_OUT}`);
    }
    await checkStamp(stamps, 'control', controlStore);
    const distrusted = records.get(DISTRUSTED_KEY);
    if (distrusted !== undefined) {
      throw new TsdlmError(
        'TSDLM_JOURNAL_ROLLED_BACK',
        `journal ${dir} is older than what the cluster knows of it: ${String(distrusted)}. Put the newest state directory back. ${WAY_OUT}`,
      );
    }
    const state = controlState(records, control);
    const start = records.get('start');
    if (typeof start !== 'number') {
      throw new TsdlmError('TSDLM_JOURNAL_CORRUPT', `journal ${control} is damaged: it has no start count. ${WAY_OUT}`);
    }

    let sessionKey = records.get(SESSION_KEY);
    if (!(sessionKey instanceof Uint8Array)) {
      sessionKey = randomBytes(32);
      await controlStore.commit([{ key: SESSION_KEY, value: sessionKey }]);
    }
    const locksOwner = `${bootId} ${meta.journalId}`;
    const sameBoot = records.get(LOCKS_BOOT_KEY) === bootId;
    if (sameBoot) checkFiles(locks);
    else {
      // Before the stamp in control/: dying in between only makes us start over here.
      rmSync(locks, { recursive: true, force: true });
      stamps.forget('locks');
      await createStore(dir, 'locks', false, { [LOCKS_BOOT_KEY]: locksOwner });
      await controlStore.commit([{ key: LOCKS_BOOT_KEY, value: bootId }]);
    }
    const lockStore = openNoted('locks');
    open.push(lockStore);
    const lockRecords = lockStore.load();
    await checkStamp(stamps, 'locks', lockStore);
    if (lockRecords.get(LOCKS_BOOT_KEY) !== locksOwner) {
      throw new TsdlmError('TSDLM_JOURNAL_CORRUPT', `journal ${locks} is damaged: it is of another boot or node. ${WAY_OUT}`);
    }
    lockRecords.delete(LOCKS_BOOT_KEY);
    // Of another boot, or followed by a start already: it says nothing about now (rule 3).
    const found = records.get(RESTART_KEY) as RestartRecord | undefined;
    const restart = sameBoot && found?.startCount === start ? found : null;
    const told = records.get(TOLD_KEY);
    const toldUntil = sameBoot && typeof told === 'number' ? told : 0;
    log.info('journal-open', {
      dir,
      isNew,
      startCount: start,
      entries: state.entries.length,
      nodeOwned: lockRecords.size,
      sameBoot,
      ...(restart === null ? {} : { restartOf: restart.claims.length }),
    });
    return new LmdbJournal(options, {
      lock,
      stamps,
      controlStore,
      lockStore,
      meta,
      isNew,
      start,
      state,
      lockRecords,
      sessionKey: Buffer.from(sessionKey as Uint8Array),
      restart,
      hasRestart: found !== undefined,
      toldUntil,
      config: records.get(CONFIG_KEY) ?? null,
    });
  } catch (caught) {
    for (const store of open) await store.close().catch(() => undefined);
    stamps?.close();
    await lock?.release().catch(() => undefined);
    throw fileError(`the state directory ${dir}`, caught);
  }
}

/** Compares an environment with its stamp, and lets the stamp catch up with the commit that the last user died after. */
async function checkStamp(stamps: Stamps, name: EnvironmentName, store: Store): Promise<void> {
  const found = store.stamp();
  stamps.check(name, found);
  if (stamps.countOf(name) !== found.count) await stamps.put(name, found, name === 'control');
}

/** Record of the configuration of the last accepted start (config-view.ts). */
const CONFIG_KEY = 'config';

interface Opened {
  lock: DirLock;
  stamps: Stamps;
  controlStore: Store;
  lockStore: Store;
  meta: Meta;
  isNew: boolean;
  start: StartCount;
  state: PersistedState;
  lockRecords: Map<StoreKey, unknown>;
  sessionKey: Buffer;
  restart: RestartRecord | null;
  /** Also one that does not count. */
  hasRestart: boolean;
  toldUntil: number;
  config: unknown;
}

class LmdbJournal implements Journal {
  readonly journalId: string;
  readonly isNew: boolean;
  readonly sessionKey: Buffer;
  readonly restart: RestartRecord | null;
  readonly toldUntil: number;
  readonly #options: JournalOptions;
  readonly #opened: Opened;
  readonly #control: GroupCommit;
  readonly #locks: GroupCommit;
  readonly #records: ControlRecords;
  readonly #lockIds: Set<number>;
  #startCount: StartCount;
  #failed = false;
  #sizeCheckedAt = Number.NEGATIVE_INFINITY;
  #hasRestart: boolean;
  /** Why no node-owned lock is taken now. */
  #locksFull: TsdlmError | null = null;
  #closed: Promise<void> | null = null;

  constructor(options: JournalOptions, opened: Opened) {
    this.journalId = opened.meta.journalId;
    this.isNew = opened.isNew;
    this.sessionKey = opened.sessionKey;
    this.restart = opened.restart;
    this.#hasRestart = opened.hasRestart;
    this.toldUntil = opened.toldUntil;
    this.#options = options;
    this.#opened = opened;
    this.#startCount = opened.start;
    this.#records = new ControlRecords(opened.state);
    this.#lockIds = new Set([...opened.lockRecords.keys()].filter((key) => typeof key === 'number'));
    this.#control = new GroupCommit(opened.controlStore, (error) => this.#fail(error));
    this.#locks = new GroupCommit(opened.lockStore, (error) => this.#fail(error));
  }

  get startCount(): StartCount {
    return this.#startCount;
  }

  get sizeBytes(): number {
    if (this.#closed) return 0;
    return this.#opened.controlStore.usedBytes() + this.#opened.lockStore.usedBytes();
  }

  get #maxBytes(): number {
    return this.#options.maxBytes ?? DEFAULT_MAX_BYTES;
  }

  /** The first failure ends both environments: what a half-failed journal would still promise is not worth having. */
  #fail(error: TsdlmError): void {
    if (this.#failed) return;
    this.#failed = true;
    this.#control.fail(error);
    this.#locks.fail(error);
    this.#options.log.error('journal-failed', { code: error.code, message: error.message });
    this.#options.onFailure?.(error);
  }

  async raiseStartCount(atLeast: StartCount = 0): Promise<StartCount> {
    const next = Math.max(this.#startCount + 1, atLeast);
    this.#startCount = next;
    // With the record of a restart, in one transaction: it must not outlive the start that follows it (rule 3).
    const gone = this.#hasRestart ? [{ key: RESTART_KEY }] : [];
    this.#hasRestart = false;
    await this.#control.write([{ key: 'start', value: next }, ...gone]);
    return next;
  }

  writeRestart(record: Omit<RestartRecord, 'startCount'>): Promise<void> {
    this.#hasRestart = true;
    const value: RestartRecord = { ...record, startCount: this.#startCount };
    return this.#control.write([
      { key: RESTART_KEY, value },
      { key: TOLD_KEY, value: record.until },
    ]);
  }

  clearTold(): Promise<void> {
    if (this.#closed !== null) return Promise.resolve();
    return this.#control.write([{ key: TOLD_KEY }]);
  }

  get acceptedConfig(): unknown {
    return this.#opened.config;
  }

  acceptConfig(copy: unknown): Promise<void> {
    return this.#control.write([{ key: CONFIG_KEY, value: copy }]);
  }

  loadControl(): PersistedState {
    return this.#opened.state;
  }

  async persist(batch: PersistBatch): Promise<void> {
    const ops = this.#records.opsOf(batch);
    if (this.#failed || ops.length === 0) return this.#control.write(ops);
    if (this.#opened.controlStore.usedBytes() > this.#maxBytes) {
      const error = new TsdlmError(
        'TSDLM_JOURNAL_FULL',
        `journal ${this.#options.dir}/control is above its limit of ${this.#maxBytes} bytes: raise the limit, then start again`,
      );
      this.#fail(error);
      throw error;
    }
    return this.#control.write(ops);
  }

  loadNodeOwned(): NodeOwnedRecord[] {
    const records: NodeOwnedRecord[] = [];
    for (const [key, value] of this.#opened.lockRecords) {
      if (typeof key !== 'number') continue;
      const record = value as NodeOwnedRecord;
      records.push({ ...record, lvb: record.lvb === null ? null : new Uint8Array(record.lvb) });
    }
    return records;
  }

  writeNodeOwned(op: JournalOp): Promise<void> {
    if (op.op === 'del') {
      this.#lockIds.delete(op.id);
      return this.#locks.write([{ key: op.id }]);
    }
    const now = performance.now();
    if (!this.#failed && (now - this.#sizeCheckedAt >= SIZE_CHECK_MS || this.#locksFull !== null)) {
      this.#sizeCheckedAt = now;
      this.#locksFull = this.#whyLocksFull();
    }
    if (this.#locksFull !== null) return Promise.reject(this.#locksFull);
    this.#lockIds.add(op.record.id);
    return this.#locks.write([{ key: op.record.id, value: op.record }]);
  }

  /** Node-owned locks take neither more than their limit nor the last part of the disk. */
  #whyLocksFull(): TsdlmError | null {
    const { dir } = this.#options;
    if (this.#opened.lockStore.usedBytes() > this.#maxBytes) {
      return new TsdlmError(
        'TSDLM_JOURNAL_FULL',
        `journal ${dir}/locks is above its limit of ${this.#maxBytes} bytes: drop node-owned locks, or raise the limit`,
      );
    }
    const { free, total } = spaceAt(dir);
    if (free >= Math.min(RESERVE_BYTES, total * RESERVE_PART)) return null;
    return new TsdlmError(
      'TSDLM_JOURNAL_FULL',
      `the file system of ${dir} has only ${free} bytes left, which are kept for consensus: free space on it`,
    );
  }

  clearNodeOwned(): Promise<void> {
    const ops = [...this.#lockIds].map((key) => ({ key }));
    this.#lockIds.clear();
    return this.#locks.write(ops);
  }

  distrust(why: string): Promise<void> {
    return this.#control.write([{ key: DISTRUSTED_KEY, value: why }]);
  }

  close(): Promise<void> {
    this.#closed ??= this.#close();
    return this.#closed;
  }

  async #close(): Promise<void> {
    await this.#control.drained();
    await this.#locks.drained();
    const closed = new TsdlmError('TSDLM_JOURNAL_FAILED', `journal ${this.#options.dir} is closed`);
    this.#failed = true;
    this.#control.fail(closed);
    this.#locks.fail(closed);
    await this.#opened.controlStore.close();
    await this.#opened.lockStore.close();
    this.#opened.stamps.close();
    await this.#opened.lock.release();
  }
}
