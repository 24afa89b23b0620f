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
 *   DIR/lock.*     who uses it (dir-lock.ts)
 *
 * After the first failed commit the state on disk is unknown: `onFailure` is called once, every later write is refused, and
 * the daemon is expected to end.
 */
import { randomUUID } from 'node:crypto';
import { chmodSync, mkdirSync, readdirSync, renameSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import type { JournalOp, NodeOwnedRecord } from '../master/types.js';
import type { PersistBatch, PersistedState } from '../membership/types.js';
import { TsdlmError } from '../protocol/errors.js';
import type { NodeId, StartCount } from '../protocol/ids.js';
import { type DirLock, isLockFile, lockDirectory } from './dir-lock.js';
import { GroupCommit } from './group-commit.js';
import { ControlRecords, controlState } from './journal-control.js';
import { checkFiles, syncDirectory } from './journal-files.js';
import { LOCKS_BOOT_KEY, openStore, type Store, type StoreKey, WAY_OUT } from './journal-store.js';
import type { Log } from './log.js';

/** Version of the records. A journal of a higher one is refused; lower ones are brought up at open (there are none yet). */
export const JOURNAL_SCHEMA = 1;
const MAGIC = 'tsdlm journal';
const DEFAULT_MAX_BYTES = 1024 * 1024 * 1024;
/** The size of locks/ is looked at after this many writes. */
const SIZE_CHECK_EVERY = 200;

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
  wrapStore?: (store: Store, name: 'control' | 'locks') => Store;
}

export interface Journal {
  /** Random, made with the journal: a wiped disk shows as another one. */
  readonly journalId: string;
  /** True when this call made it. */
  readonly isNew: boolean;
  /** As last raised; 0 in a new journal. */
  readonly startCount: StartCount;
  /** Start count + 1, synced before it is returned. */
  raiseStartCount(): Promise<StartCount>;
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
  /** Bytes of the pages in use, both environments. */
  readonly sizeBytes: number;
  /** Writes what is under way, then lets the directory go. */
  close(): Promise<void>;
}

interface Meta {
  magic: string;
  schema: number;
  journalId: string;
  nodeId: NodeId;
  clusterName: string;
}

/** Names of ours in the directory, whole or half made, and what a mount point brings by itself. */
function isOwnName(name: string): boolean {
  return isLockFile(name) || ['control', 'locks', 'control.new', 'locks.new', 'lost+found'].includes(name);
}

/** Turns an error of the file system into one with a code and the place. */
function fileError(what: string, cause: unknown): TsdlmError {
  if (cause instanceof TsdlmError) return cause;
  const { code, message } = cause as NodeJS.ErrnoException;
  if (code === 'ENOSPC' || code === 'EDQUOT') {
    return new TsdlmError('TSDLM_JOURNAL_FULL', `no space left for ${what}: free space on its file system, then start again`, {
      cause,
    });
  }
  return new TsdlmError('TSDLM_JOURNAL_FAILED', `${what} cannot be used: ${message}; check owner and permissions of state_dir`, {
    cause,
  });
}

/** Makes an environment with its first records beside its place, then moves it there: it is never half made. */
async function createStore(
  dir: string,
  name: 'control' | 'locks',
  synced: boolean,
  first: Record<string, unknown>,
): Promise<void> {
  const building = join(dir, `${name}.new`);
  rmSync(building, { recursive: true, force: true });
  mkdirSync(building, { mode: 0o700 });
  const store = openStore(building, synced);
  try {
    await store.commit(Object.entries(first).map(([key, value]) => ({ key, value })));
  } finally {
    await store.close();
  }
  syncDirectory(building);
  renameSync(building, join(dir, name));
  syncDirectory(dir);
}

function checkMeta(records: ReadonlyMap<StoreKey, unknown>, options: JournalOptions): Meta {
  const path = join(options.dir, 'control');
  const meta = records.get('meta') as Meta | undefined;
  if (meta?.magic !== MAGIC) {
    throw new TsdlmError('TSDLM_JOURNAL_FOREIGN', `${path} is a database of something else: give this node another state_dir`);
  }
  if (meta.schema > JOURNAL_SCHEMA) {
    throw new TsdlmError(
      'TSDLM_JOURNAL_TOO_NEW',
      `journal ${path} has schema ${meta.schema}, this version knows up to ${JOURNAL_SCHEMA}: start the newer tsdlmd that wrote it`,
    );
  }
  if (meta.nodeId !== options.nodeId || meta.clusterName !== options.clusterName) {
    throw new TsdlmError(
      'TSDLM_JOURNAL_FOREIGN',
      `journal ${path} belongs to node ${meta.nodeId} of cluster ${JSON.stringify(meta.clusterName)}, this is node ${options.nodeId} of ` +
        `cluster ${JSON.stringify(options.clusterName)}: correct the configuration, or give this node another state_dir`,
    );
  }
  return meta;
}

/** Finds or makes control/, or says why not. Returns true when it was made. */
async function ensureControl(options: JournalOptions): Promise<boolean> {
  const { dir } = options;
  const names = readdirSync(dir);
  if (names.includes('control')) return false;
  if (names.includes('locks')) {
    throw new TsdlmError('TSDLM_JOURNAL_CORRUPT', `journal ${dir} is damaged: it has locks/ but no control/. ${WAY_OUT}`);
  }
  const foreign = names.find((name) => !isOwnName(name));
  if (foreign !== undefined) {
    throw new TsdlmError(
      'TSDLM_JOURNAL_FOREIGN',
      `the state directory ${dir} holds something else (${JSON.stringify(foreign)}): give this node an empty state_dir`,
    );
  }
  const meta: Meta = {
    magic: MAGIC,
    schema: JOURNAL_SCHEMA,
    journalId: randomUUID(),
    nodeId: options.nodeId,
    clusterName: options.clusterName,
  };
  await createStore(dir, 'control', true, { meta, start: 0 });
  return true;
}

/**
 * Opens the journal in `dir`, or makes a new one when the directory is missing or empty. Throws TSDLM_JOURNAL_IN_USE,
 * _FOREIGN, _TOO_NEW, _CORRUPT, _FULL or _FAILED, each with the way out; it leaves the directory as it was then.
 */
export async function openJournal(options: JournalOptions): Promise<Journal> {
  const { dir, bootId, log } = options;
  let lock: DirLock | null = null;
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
    const controlStore = wrap(openStore(control, true), 'control');
    open.push(controlStore);
    const records = controlStore.load();
    const meta = checkMeta(records, options);
    const state = controlState(records, control);
    const start = records.get('start');
    if (typeof start !== 'number') {
      throw new TsdlmError('TSDLM_JOURNAL_CORRUPT', `journal ${control} is damaged: it has no start count. ${WAY_OUT}`);
    }

    const sameBoot = records.get(LOCKS_BOOT_KEY) === bootId;
    if (sameBoot) checkFiles(locks);
    else {
      // Before the stamp in control/: dying in between only makes us start over here.
      rmSync(locks, { recursive: true, force: true });
      await createStore(dir, 'locks', false, { [LOCKS_BOOT_KEY]: bootId });
      await controlStore.commit([{ key: LOCKS_BOOT_KEY, value: bootId }]);
    }
    const lockStore = wrap(openStore(locks, false), 'locks');
    open.push(lockStore);
    const lockRecords = lockStore.load();
    if (lockRecords.get(LOCKS_BOOT_KEY) !== bootId) {
      throw new TsdlmError(
        'TSDLM_JOURNAL_CORRUPT',
        `journal ${locks} is damaged: it carries the stamp of another boot. ${WAY_OUT}`,
      );
    }
    lockRecords.delete(LOCKS_BOOT_KEY);
    log.info('journal-open', {
      dir,
      isNew,
      startCount: start,
      entries: state.entries.length,
      nodeOwned: lockRecords.size,
      sameBoot,
    });
    return new LmdbJournal(options, { lock, controlStore, lockStore, meta, isNew, start, state, lockRecords });
  } catch (caught) {
    for (const store of open) await store.close().catch(() => undefined);
    await lock?.release().catch(() => undefined);
    throw fileError(`the state directory ${dir}`, caught);
  }
}

interface Opened {
  lock: DirLock;
  controlStore: Store;
  lockStore: Store;
  meta: Meta;
  isNew: boolean;
  start: StartCount;
  state: PersistedState;
  lockRecords: Map<StoreKey, unknown>;
}

class LmdbJournal implements Journal {
  readonly journalId: string;
  readonly isNew: boolean;
  readonly #options: JournalOptions;
  readonly #opened: Opened;
  readonly #control: GroupCommit;
  readonly #locks: GroupCommit;
  readonly #records: ControlRecords;
  readonly #lockIds: Set<number>;
  #startCount: StartCount;
  #failed = false;
  #writesSinceSizeCheck = 0;
  #locksFull = false;
  #closed: Promise<void> | null = null;

  constructor(options: JournalOptions, opened: Opened) {
    this.journalId = opened.meta.journalId;
    this.isNew = opened.isNew;
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

  async raiseStartCount(): Promise<StartCount> {
    const next = this.#startCount + 1;
    this.#startCount = next;
    await this.#control.write([{ key: 'start', value: next }]);
    return next;
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
    if (!this.#failed && (++this.#writesSinceSizeCheck >= SIZE_CHECK_EVERY || this.#locksFull)) {
      this.#writesSinceSizeCheck = 0;
      this.#locksFull = this.#opened.lockStore.usedBytes() > this.#maxBytes;
    }
    if (this.#locksFull) {
      return Promise.reject(
        new TsdlmError(
          'TSDLM_JOURNAL_FULL',
          `journal ${this.#options.dir}/locks is above its limit of ${this.#maxBytes} bytes: drop node-owned locks, or raise the limit`,
        ),
      );
    }
    this.#lockIds.add(op.record.id);
    return this.#locks.write([{ key: op.record.id, value: op.record }]);
  }

  clearNodeOwned(): Promise<void> {
    const ops = [...this.#lockIds].map((key) => ({ key }));
    this.#lockIds.clear();
    return this.#locks.write(ops);
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
    await this.#opened.lock.release();
  }
}
