/**
 * One LMDB environment as a checked key-value store; this is all that touches LMDB.
 *
 * The problem: a flipped bit in a file must be found when it is read, not believed; nor may an old page that came back among
 * newer ones be, though all its values are good; a commit that failed must be told once and honestly.
 * The idea: each value carries a checksum over its key and bytes, and one record a digest of all of them, the sum of their
 * checksums, beside the number of the commit. Who notes number and digest elsewhere (journal-stamp.ts) recognizes the whole.
 * In a synced environment a group of changes is one `batch`, whose promise is the only one lmdb makes for it. `overlappingSync` is
 * off: then a commit resolves after its sync and a failed sync rejects it (with it on, `flushed` was seen to hang for ever after a
 * failed sync). Without a sync a commit is a few writes into the page cache: it is made at once, in this thread, because handing
 * it to lmdb's thread and hearing of it again takes longer than the writes. On a disk where such writes wait after all
 * that would hold up leases and everybody's locks: after one that took long, lmdb's thread makes them for a while.
 * It leaves the meaning of keys and values, and what follows from a failure, to journal.ts.
 */
import { crc32 } from 'node:zlib';
import { open, type RootDatabase } from 'lmdb';
import { Packr } from 'msgpackr';
import { TsdlmError } from '../protocol/errors.js';
import { spaceAt, WAY_OUT } from './journal-disk.js';
import type { Stamp } from './journal-stamp.js';

/** Numbers for sequences, names for single records. */
export type StoreKey = number | string;
/** One change; `value` undefined removes the key. */
export interface StoreOp {
  key: StoreKey;
  value?: unknown;
}

/** What journal.ts needs of an environment. Tests put a failing one in between. */
export interface Store {
  /** All records. Throws TSDLM_JOURNAL_CORRUPT at the first one whose checksum does not fit, or when they are not of one commit. */
  load(): Map<StoreKey, unknown>;
  /** Number of the last commit, and the digest of all records after it. */
  stamp(): Stamp;
  /** All of it or nothing. Resolves once committed and noted; in a synced store also synced. Rejects with a TsdlmError. */
  commit(ops: readonly StoreOp[]): Promise<void>;
  /** Bytes of the pages in use, free pages not counted. */
  usedBytes(): number;
  close(): Promise<void>;
}

const packr = new Packr({ useRecords: false, int64AsType: 'number', variableMapSize: true });
const PAGE_BYTES = 4096;
const CHECKSUM_BYTES = 4;

/** Checksum over key and bytes: a value that stands under the wrong key is damage too. */
function checksum(key: StoreKey, payload: Uint8Array): number {
  return crc32(payload, crc32(`${typeof key}:${key}`));
}

export function encodeValue(key: StoreKey, value: unknown): Buffer {
  const payload = packr.pack(value);
  const bytes = Buffer.allocUnsafe(CHECKSUM_BYTES + payload.length);
  bytes.writeUInt32LE(checksum(key, payload), 0);
  payload.copy(bytes, CHECKSUM_BYTES);
  return bytes;
}

/** The value, or a throw of TSDLM_JOURNAL_CORRUPT naming the record and the place. */
export function decodeValue(key: StoreKey, bytes: Buffer, path: string): unknown {
  const damaged = (why: string): TsdlmError =>
    new TsdlmError('TSDLM_JOURNAL_CORRUPT', `journal ${path} is damaged: record ${JSON.stringify(key)} ${why}. ${WAY_OUT}`);
  if (bytes.length <= CHECKSUM_BYTES) throw damaged(`has only ${bytes.length} bytes`);
  const payload = bytes.subarray(CHECKSUM_BYTES);
  if (bytes.readUInt32LE(0) !== checksum(key, payload)) throw damaged('does not match its checksum');
  try {
    return packr.unpack(payload);
  } catch {
    throw damaged('cannot be decoded');
  }
}

/** A commit without sync that took so long waited for a disk; a thread that had to wait for a processor seldom waits so long. */
const SLOW_COMMIT_MS = 200;
/** For so long after that, commits do not wait in the main thread. */
const SLOW_FOR_MS = 60_000;
/** A commit rewrites a handful of pages besides what it adds. */
const SMALL_CHANGE_BYTES = 64 * 1024;
/**
 * Without so much space a commit of so many bytes is not tried: lmdb 3.5 writes past a buffer of its own when the write of a page
 * fails (a text longer than the 100 bytes for it), which may end the process before it can say why.
 */
const spaceFor = (bytes: number): number => 2 * bytes + SMALL_CHANGE_BYTES;
/** So much space is not used up in so short a time: it is looked at again only after that. */
const PLENTY_BYTES = 64 * 1024 * 1024;
const PLENTY_FOR_MS = 5;

function noSpace(path: string, cause: unknown): TsdlmError {
  const text = `no space left to write ${path}: free space on its file system, then start again`;
  return new TsdlmError('TSDLM_JOURNAL_FULL', text, { cause });
}

/** Turns what lmdb rejects with into one of our errors. lmdb hides the cause in a second promise, which must be listened to. */
async function commitError(path: string, caught: unknown, bytes: number): Promise<TsdlmError> {
  let cause = caught;
  const second = (caught as { commitError?: Promise<never> }).commitError;
  if (second) {
    const timeout = new Promise((resolve) => setTimeout(resolve, 1000).unref());
    await Promise.race([second.catch((e: unknown) => (cause = e)), timeout]);
  }
  const { code, message } = cause as { code?: unknown; message?: string };
  const ENOSPC = 28;
  const EDQUOT = 122;
  const MAP_FULL = -30792;
  // A write that was cut short by the end of the space shows as an I/O error.
  if (code === ENOSPC || code === EDQUOT || code === MAP_FULL || spaceAt(path).free < spaceFor(bytes)) {
    return noSpace(path, cause);
  }
  return new TsdlmError(
    'TSDLM_JOURNAL_FAILED',
    `writing ${path} failed: ${message ?? String(cause)}. Check the disk and the kernel log; what was confirmed before is safe`,
    { cause },
  );
}

/** The record of control/ that says for which boot locks/ was made; in locks/ also whose it is. */
export const LOCKS_BOOT_KEY = 'locksBoot';

/** [number of this commit, digest]: an old tree that a damaged pointer leads to, or an old page in a new tree, shows by it. */
const COUNT_KEY = 'commits';
const isStamp = (v: unknown): v is [number, number] =>
  Array.isArray(v) && v.length === 2 && v.every((n) => Number.isSafeInteger(n));

interface Stats {
  treeBranchPageCount: number;
  treeLeafPageCount: number;
  overflowPages: number;
  entryCount: number;
  lastTxnId: number;
}

/** Called with each commit before it is confirmed. */
export type Noting = (stamp: Stamp) => Promise<void>;

class LmdbStore implements Store {
  readonly #env: RootDatabase<Buffer, StoreKey>;
  readonly #path: string;
  readonly #isSynced: boolean;
  readonly #note: Noting;
  /** Number of the last commit; -1 when it is to be asked for. */
  #count = -1;
  /** Until then there is space, on `performance.now()`. */
  #plentyUntil = 0;
  /** Until then no commit is made in this thread, on `performance.now()`. */
  #slowUntil = 0;
  /** Checksum of each record; null until they were read. Their sum is the digest. */
  #sums: Map<StoreKey, number> | null = null;
  #digest = 0;

  constructor(env: RootDatabase<Buffer, StoreKey>, path: string, isSynced: boolean, note: Noting) {
    this.#env = env;
    this.#path = path;
    this.#isSynced = isSynced;
    this.#note = note;
  }

  load(): Map<StoreKey, unknown> {
    try {
      return this.#load();
    } catch (cause) {
      if (cause instanceof TsdlmError) throw cause;
      // Keys are decoded outside of any checksum, and some bytes are no key at all.
      throw this.#damaged(`its records cannot be read: ${(cause as Error).message}`);
    }
  }

  #load(): Map<StoreKey, unknown> {
    const records = new Map<StoreKey, unknown>();
    const sums = new Map<StoreKey, number>();
    let digest = 0;
    for (const { key, value } of this.#env.getRange({ snapshot: true })) {
      if (typeof key !== 'number' && typeof key !== 'string') throw this.#damaged('a key of an unknown kind');
      // lmdb may reuse the buffer for the next record: copy first.
      const bytes = Buffer.from(value);
      records.set(key, decodeValue(key, bytes, this.#path));
      if (key === COUNT_KEY) continue;
      const sum = bytes.readUInt32LE(0);
      sums.set(key, sum);
      digest = (digest + sum) >>> 0;
    }
    const { entryCount, lastTxnId } = this.#stats();
    const [count, noted] = this.#counted(records.get(COUNT_KEY));
    if (records.size !== entryCount || count !== lastTxnId) {
      throw this.#damaged(`${records.size} records of ${entryCount}, commit ${count} of ${lastTxnId}`);
    }
    if (digest !== noted) throw this.#damaged(`its records are not those of commit ${count}`);
    records.delete(COUNT_KEY);
    this.#sums = sums;
    this.#digest = digest;
    this.#count = count;
    return records;
  }

  #counted(record: unknown): [number, number] {
    if (record === undefined) return [0, 0];
    if (!isStamp(record)) throw this.#damaged('its count of commits has another shape');
    return record;
  }

  #damaged(why: string): TsdlmError {
    return new TsdlmError('TSDLM_JOURNAL_CORRUPT', `journal ${this.#path} is damaged: ${why}. ${WAY_OUT}`);
  }

  #stats(): Stats {
    return this.#env.getStats() as Stats;
  }

  stamp(): Stamp {
    return { count: this.#stats().lastTxnId, digest: this.#digest };
  }

  async commit(ops: readonly StoreOp[]): Promise<void> {
    if (this.#sums === null) this.load();
    // One commit is under way at a time (group-commit.ts), so the number of the next one is known. lmdb is asked after a failure
    // only: its statistics walk the list of free pages.
    if (this.#count < 0) this.#count = this.#stats().lastTxnId;
    const count = this.#count + 1;
    // Encoded first: an error in the middle of a batch would leave half of it behind.
    const encoded = ops.map(({ key, value }) => ({ key, bytes: value === undefined ? null : encodeValue(key, value) }));
    const bytes = encoded.reduce((sum, op) => sum + (op.bytes?.length ?? 0), 0);
    if (!this.#hasSpaceFor(bytes)) throw noSpace(this.#path, undefined);
    const undo: [StoreKey, number | undefined][] = [];
    const digestBefore = this.#digest;
    for (const { key, bytes } of encoded) undo.push([key, this.#sum(key, bytes?.readUInt32LE(0))]);
    const change = (): void => {
      for (const { key, bytes } of encoded) {
        // Each of these returns the batch's own promise or a settled one.
        if (bytes === null) void this.#env.remove(key);
        else void this.#env.put(key, bytes);
      }
      void this.#env.put(COUNT_KEY, encodeValue(COUNT_KEY, [count, this.#digest]));
    };
    try {
      const began = performance.now();
      if (this.#isSynced || began < this.#slowUntil) await this.#env.batch(change);
      else this.#env.transactionSync(change);
      const ended = performance.now();
      if (ended - began > SLOW_COMMIT_MS) this.#slowUntil = ended + SLOW_FOR_MS;
      this.#count = count;
    } catch (caught) {
      this.#count = -1;
      for (const [key, sum] of undo.reverse()) this.#sum(key, sum);
      this.#digest = digestBefore;
      throw await commitError(this.#path, caught, bytes);
    }
    try {
      await this.#note({ count, digest: this.#digest });
    } catch (cause) {
      throw new TsdlmError(
        'TSDLM_JOURNAL_FAILED',
        `noting a commit of ${this.#path} failed: ${(cause as Error).message}. Check the disk and the kernel log; what was confirmed before is safe`,
        { cause },
      );
    }
  }

  #hasSpaceFor(bytes: number): boolean {
    const now = performance.now();
    if (now < this.#plentyUntil && spaceFor(bytes) <= PLENTY_BYTES / 2) return true;
    const { free } = spaceAt(this.#path);
    this.#plentyUntil = free >= PLENTY_BYTES ? now + PLENTY_FOR_MS : 0;
    return free >= spaceFor(bytes);
  }

  /** Sets the checksum of a record (undefined: it is gone) and lets the digest follow; gives the one before. */
  #sum(key: StoreKey, sum: number | undefined): number | undefined {
    const sums = this.#sums as Map<StoreKey, number>;
    const before = sums.get(key);
    if (sum === undefined) sums.delete(key);
    else sums.set(key, sum);
    this.#digest = (this.#digest - (before ?? 0) + (sum ?? 0)) >>> 0;
    return before;
  }

  usedBytes(): number {
    const stats = this.#stats();
    return (stats.treeBranchPageCount + stats.treeLeafPageCount + stats.overflowPages) * PAGE_BYTES;
  }

  async close(): Promise<void> {
    await this.#env.close();
  }
}

/**
 * Opens (or makes) the environment in the directory `path`. `synced` false: commits survive the end of this process, not
 * a power loss. `note` is told each commit before it is confirmed. Throws TSDLM_JOURNAL_CORRUPT when the files are not LMDB's.
 */
export function openStore(path: string, synced: boolean, note: Noting = () => Promise.resolve()): Store {
  try {
    const env = open<Buffer, StoreKey>({
      path,
      noSubdir: false,
      encoding: 'binary',
      overlappingSync: false,
      noSync: !synced,
      eventTurnBatching: false,
      cache: false,
      maxDbs: 1,
      maxReaders: 16,
    });
    return new LmdbStore(env, path, synced, note);
  } catch (cause) {
    throw new TsdlmError('TSDLM_JOURNAL_CORRUPT', `journal ${path} cannot be opened: ${(cause as Error).message}. ${WAY_OUT}`, {
      cause,
    });
  }
}
