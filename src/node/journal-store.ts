/**
 * One LMDB environment as a checked key-value store; this is all that touches LMDB.
 *
 * The problem: a flipped bit in a file must be found when it is read, not believed; a commit that failed must be told once
 * and honestly.
 * The idea: each value carries a checksum over its key and bytes. A group of changes is one `batch`, whose promise is
 * the only one lmdb makes for it. `overlappingSync` is off: then a commit of a synced environment resolves after its sync and a
 * failed sync rejects the commit (with it on, `flushed` was seen to hang for ever after a failed sync).
 * It leaves the meaning of keys and values, and what follows from a failure, to journal.ts.
 */
import { statfsSync } from 'node:fs';
import { crc32 } from 'node:zlib';
import { open, type RootDatabase } from 'lmdb';
import { Packr } from 'msgpackr';
import { TsdlmError } from '../protocol/errors.js';

/** Numbers for sequences, names for single records. */
export type StoreKey = number | string;
/** One change; `value` undefined removes the key. */
export interface StoreOp {
  key: StoreKey;
  value?: unknown;
}

/** What journal.ts needs of an environment. Tests put a failing one in between. */
export interface Store {
  /** All records. Throws TSDLM_JOURNAL_CORRUPT at the first one whose checksum does not fit. */
  load(): Map<StoreKey, unknown>;
  /** All of it or nothing. Resolves once committed; in a synced store also synced. Rejects with a TsdlmError. */
  commit(ops: readonly StoreOp[]): Promise<void>;
  /** Bytes of the pages in use, free pages not counted. */
  usedBytes(): number;
  close(): Promise<void>;
}

/** What to do about a damaged journal. */
export const WAY_OUT = 'Move the state directory away, check the disk, and start this node again: it joins as a new one';

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

/** A commit rewrites a handful of pages besides what it adds. */
const SMALL_CHANGE_BYTES = 64 * 1024;

function freeBytes(path: string): number {
  try {
    const { bavail, bsize } = statfsSync(path);
    return bavail * bsize;
  } catch {
    return Number.POSITIVE_INFINITY;
  }
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
  if (code === ENOSPC || code === EDQUOT || code === MAP_FULL || freeBytes(path) < 2 * bytes + SMALL_CHANGE_BYTES) {
    return new TsdlmError(
      'TSDLM_JOURNAL_FULL',
      `no space left to write ${path}: free space on its file system, then start again`,
      {
        cause,
      },
    );
  }
  return new TsdlmError(
    'TSDLM_JOURNAL_FAILED',
    `writing ${path} failed: ${message ?? String(cause)}. Check the disk and the kernel log; what was confirmed before is safe`,
    { cause },
  );
}

/** The record of control/ that says for which boot locks/ was made. */
export const LOCKS_BOOT_KEY = 'locksBoot';

/** Counts the commits next to what they wrote: an old tree that a damaged pointer leads to shows by its count. */
const COUNT_KEY = 'commits';

interface Stats {
  treeBranchPageCount: number;
  treeLeafPageCount: number;
  overflowPages: number;
  entryCount: number;
  lastTxnId: number;
}

class LmdbStore implements Store {
  readonly #env: RootDatabase<Buffer, StoreKey>;
  readonly #path: string;

  constructor(env: RootDatabase<Buffer, StoreKey>, path: string) {
    this.#env = env;
    this.#path = path;
  }

  load(): Map<StoreKey, unknown> {
    const records = new Map<StoreKey, unknown>();
    for (const { key, value } of this.#env.getRange({ snapshot: true })) {
      if (typeof key !== 'number' && typeof key !== 'string') {
        throw new TsdlmError('TSDLM_JOURNAL_CORRUPT', `journal ${this.#path} is damaged: a key of an unknown kind. ${WAY_OUT}`);
      }
      // lmdb may reuse the buffer for the next record: copy first.
      records.set(key, decodeValue(key, Buffer.from(value), this.#path));
    }
    const { entryCount, lastTxnId } = this.#stats();
    const commits = records.get(COUNT_KEY) ?? 0;
    if (records.size !== entryCount || commits !== lastTxnId) {
      throw new TsdlmError(
        'TSDLM_JOURNAL_CORRUPT',
        `journal ${this.#path} is damaged: ${records.size} records of ${entryCount}, commit ${commits} of ${lastTxnId}. ${WAY_OUT}`,
      );
    }
    records.delete(COUNT_KEY);
    return records;
  }

  #stats(): Stats {
    return this.#env.getStats() as Stats;
  }

  async commit(ops: readonly StoreOp[]): Promise<void> {
    // One commit is under way at a time (group-commit.ts), so the number of the next one is known.
    const count = this.#stats().lastTxnId + 1;
    // Encoded first: an error in the middle of a batch would leave half of it behind.
    const encoded = ops.map(({ key, value }) => ({ key, bytes: value === undefined ? null : encodeValue(key, value) }));
    try {
      await this.#env.batch(() => {
        for (const { key, bytes } of encoded) {
          // Each of these returns the batch's own promise or a settled one.
          if (bytes === null) void this.#env.remove(key);
          else void this.#env.put(key, bytes);
        }
        void this.#env.put(COUNT_KEY, encodeValue(COUNT_KEY, count));
      });
    } catch (caught) {
      const bytes = encoded.reduce((sum, op) => sum + (op.bytes?.length ?? 0), 0);
      throw await commitError(this.#path, caught, bytes);
    }
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
 * a power loss. Throws TSDLM_JOURNAL_CORRUPT when the files are not LMDB's.
 */
export function openStore(path: string, synced: boolean): Store {
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
    return new LmdbStore(env, path);
  } catch (cause) {
    throw new TsdlmError('TSDLM_JOURNAL_CORRUPT', `journal ${path} cannot be opened: ${(cause as Error).message}`, { cause });
  }
}
