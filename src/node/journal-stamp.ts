/**
 * What the journal's environments last confirmed, noted a second time outside of them.
 *
 * The problem: an older copy of an environment is whole in itself. Whether somebody put a backup back or a disk lost the write
 * of a header page, LMDB opens it without complaint, and a vote that was answered is forgotten.
 * The idea: one small file `stamps` beside the environments holds the number of the last commit of each, and the digest of
 * what it then held. A commit of control/ is confirmed only when its stamp is synced too; that of locks/ is written without a
 * sync, as locks/ itself is. So an environment may be one commit ahead of its stamp (the daemon died in between), and never behind.
 * Both share the file: putting back any part of a state directory without the rest shows. A whole directory put back does
 * not; only the cluster can see that (rule 12).
 *
 * Each environment has two places, used in turns and 4096 bytes apart: a torn write leaves the one before.
 */
import { closeSync, fdatasync, openSync, readFileSync, renameSync, writeFileSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { crc32 } from 'node:zlib';
import { TsdlmError } from '../protocol/errors.js';
import { syncDirectory, syncFile, WAY_OUT } from './journal-disk.js';

export type EnvironmentName = 'control' | 'locks';

/** Number of the last commit, and the digest over all records after it. */
export interface Stamp {
  count: number;
  digest: number;
}

export const STAMPS_FILE = 'stamps';
const MAGIC = 0x74735374;
const PLACE_BYTES = 4096;
const FILE_BYTES = 4 * PLACE_BYTES;
/** magic (4), digest (4), count (8), journal id (36), checksum (4). */
const STAMP_BYTES = 56;
const DIGEST_AT = 4;
const COUNT_AT = 8;
const ID_AT = 16;
const ID_BYTES = 36;
const CRC_AT = 52;

const sync = promisify(fdatasync);

function damaged(dir: string, why: string): TsdlmError {
  return new TsdlmError('TSDLM_JOURNAL_CORRUPT', `journal ${dir} is damaged: ${why}. ${WAY_OUT}`);
}

function encode(journalId: string, { count, digest }: Stamp): Buffer {
  const bytes = Buffer.alloc(STAMP_BYTES);
  bytes.writeUInt32LE(MAGIC, 0);
  bytes.writeUInt32LE(digest, DIGEST_AT);
  bytes.writeBigUInt64LE(BigInt(count), COUNT_AT);
  bytes.write(journalId, ID_AT, ID_BYTES, 'latin1');
  bytes.writeUInt32LE(crc32(bytes.subarray(0, CRC_AT)), CRC_AT);
  return bytes;
}

/** The stamp at a place, or null for one that was never written or is damaged. */
function decode(bytes: Buffer): (Stamp & { journalId: string }) | null {
  if (bytes.readUInt32LE(0) !== MAGIC || bytes.readUInt32LE(CRC_AT) !== crc32(bytes.subarray(0, CRC_AT))) return null;
  return {
    digest: bytes.readUInt32LE(DIGEST_AT),
    count: Number(bytes.readBigUInt64LE(COUNT_AT)),
    journalId: bytes.toString('latin1', ID_AT, ID_AT + ID_BYTES),
  };
}

const placeOf = (name: EnvironmentName, count: number): number => ((name === 'control' ? 0 : 2) + (count % 2)) * PLACE_BYTES;

export class Stamps {
  readonly #dir: string;
  readonly #fd: number;
  readonly #journalId: string;
  readonly #last: Record<EnvironmentName, Stamp | null>;

  private constructor(dir: string, fd: number, journalId: string, last: Record<EnvironmentName, Stamp | null>) {
    this.#dir = dir;
    this.#fd = fd;
    this.#journalId = journalId;
    this.#last = last;
  }

  /** Makes the file of a journal that has confirmed nothing yet, whole or not at all. */
  static create(dir: string, journalId: string): void {
    const bytes = Buffer.alloc(FILE_BYTES);
    for (const name of ['control', 'locks'] as const) encode(journalId, { count: 0, digest: 0 }).copy(bytes, placeOf(name, 0));
    const building = join(dir, `${STAMPS_FILE}.new`);
    writeFileSync(building, bytes, { mode: 0o600 });
    syncFile(building);
    renameSync(building, join(dir, STAMPS_FILE));
    syncDirectory(dir);
  }

  /** Throws TSDLM_JOURNAL_CORRUPT when the file is missing, of another length, or has no good stamp of control/. */
  static open(dir: string): Stamps {
    const path = join(dir, STAMPS_FILE);
    let bytes: Buffer;
    let fd: number;
    try {
      bytes = readFileSync(path);
      fd = openSync(path, 'r+');
    } catch (cause) {
      if ((cause as NodeJS.ErrnoException).code !== 'ENOENT') throw cause;
      throw damaged(dir, `its file ${STAMPS_FILE} is missing`);
    }
    try {
      if (bytes.length !== FILE_BYTES) throw damaged(dir, `its file ${STAMPS_FILE} has ${bytes.length} bytes, not ${FILE_BYTES}`);
      const at = (place: number): ReturnType<typeof decode> => decode(bytes.subarray(place, place + STAMP_BYTES));
      const all = [0, 1, 2, 3].map((i) => at(i * PLACE_BYTES));
      const ids = new Set(all.flatMap((s) => (s === null ? [] : [s.journalId])));
      if (ids.size > 1) throw damaged(dir, `its file ${STAMPS_FILE} is of several journals`);
      const newest = (a: Stamp | null, b: Stamp | null): Stamp | null =>
        a === null || (b !== null && b.count > a.count) ? b : a;
      const last = { control: newest(all[0] ?? null, all[1] ?? null), locks: newest(all[2] ?? null, all[3] ?? null) };
      const [journalId] = ids;
      if (last.control === null || journalId === undefined) throw damaged(dir, `its file ${STAMPS_FILE} has no good stamp`);
      return new Stamps(dir, fd, journalId, last);
    } catch (error) {
      closeSync(fd);
      throw error;
    }
  }

  /** Id of the journal whose stamps these are. */
  get journalId(): string {
    return this.#journalId;
  }

  /** Commits of this environment that were confirmed. */
  countOf(name: EnvironmentName): number {
    return this.#last[name]?.count ?? 0;
  }

  /** Throws TSDLM_JOURNAL_CORRUPT unless an environment with this commit and content is what was confirmed, or one commit more. */
  check(name: EnvironmentName, found: Stamp): void {
    const last = this.#last[name];
    const path = join(this.#dir, name);
    if (last === null) throw damaged(this.#dir, `its file ${STAMPS_FILE} has no good stamp of ${name}/`);
    if (found.count < last.count) {
      throw damaged(
        path,
        `it ends at commit ${found.count}, commit ${last.count} was confirmed: an older copy was put back, or the disk lost writes`,
      );
    }
    if (found.count > last.count + 1) {
      throw damaged(path, `it ends at commit ${found.count}, its stamp at ${last.count}: an older ${STAMPS_FILE} was put back`);
    }
    if (found.count === last.count && found.digest !== last.digest) {
      throw damaged(path, `commit ${found.count} has other contents than were confirmed`);
    }
  }

  /** Notes a commit. `synced`: resolves when it is on the disk. */
  async put(name: EnvironmentName, stamp: Stamp, synced: boolean): Promise<void> {
    const bytes = encode(this.#journalId, stamp);
    const written = writeSync(this.#fd, bytes, 0, STAMP_BYTES, placeOf(name, stamp.count));
    if (written !== STAMP_BYTES) throw new Error(`only ${written} bytes of ${STAMPS_FILE} were written`);
    if (synced) await sync(this.#fd);
    this.#last[name] = stamp;
  }

  /** The environment is made anew: nothing of it was confirmed. */
  forget(name: EnvironmentName): void {
    const bytes = Buffer.alloc(2 * PLACE_BYTES);
    encode(this.#journalId, { count: 0, digest: 0 }).copy(bytes, 0);
    writeSync(this.#fd, bytes, 0, bytes.length, placeOf(name, 0));
    this.#last[name] = { count: 0, digest: 0 };
  }

  close(): void {
    closeSync(this.#fd);
  }
}
