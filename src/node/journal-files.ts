/**
 * The files of an environment, looked at before LMDB maps them.
 *
 * The problem: LMDB trusts its file. A truncated one kills the process that reads it (SIGBUS), a flipped bit in a page may do
 * the same, and a damaged newest header makes it fall back silently by one commit: a lost vote.
 * The idea: check the two headers and the size by reading the file plainly, then let a child process read every record
 * (journal-check.ts); what kills the child is damage.
 */
import { spawn } from 'node:child_process';
import { closeSync, existsSync, fstatSync, fsyncSync, openSync, readSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { type ErrorCode, TsdlmError } from '../protocol/errors.js';
import { WAY_OUT } from './journal-store.js';

/** Layout of the header page of the LMDB that lmdb 3.5 brings, little endian. */
const MAGIC = 0xbeefc0de;
const MAGIC_AT = 24;
const PAGE_SIZE_AT = 48;
const LAST_PAGE_AT = 144;
const TXN_AT = 152;
const HEADER_BYTES = 160;

/** Longest time a whole journal may take to be read once. */
const CHECK_LIMIT_MS = 120_000;
const REPORT_BYTES_MAX = 64 * 1024;

function damaged(path: string, why: string): TsdlmError {
  return new TsdlmError('TSDLM_JOURNAL_CORRUPT', `journal ${path} is damaged: ${why}. ${WAY_OUT}`);
}

/** Throws TSDLM_JOURNAL_CORRUPT unless `path` holds a data file with two fitting headers and its full length. */
export function checkFiles(path: string): void {
  const file = join(path, 'data.mdb');
  if (!existsSync(file)) throw damaged(path, 'its data.mdb is missing');
  const fd = openSync(file, 'r');
  try {
    const { size } = fstatSync(fd);
    const head = (at: number): { txn: number; lastPage: number; pageSize: number } => {
      const bytes = Buffer.alloc(HEADER_BYTES);
      if (readSync(fd, bytes, 0, HEADER_BYTES, at) < HEADER_BYTES) throw damaged(path, `data.mdb has only ${size} bytes`);
      if (bytes.readUInt32LE(MAGIC_AT) !== MAGIC)
        throw damaged(path, `the header of data.mdb at byte ${at} is not one of LMDB's`);
      return {
        txn: Number(bytes.readBigUInt64LE(TXN_AT)),
        lastPage: Number(bytes.readBigUInt64LE(LAST_PAGE_AT)),
        pageSize: bytes.readUInt32LE(PAGE_SIZE_AT),
      };
    };
    const even = head(0);
    if (even.pageSize < 512 || even.pageSize > 65536)
      throw damaged(path, `data.mdb says that its pages have ${even.pageSize} bytes`);
    const odd = head(even.pageSize);
    const untouched = even.txn === 0 && odd.txn === 0;
    if (!untouched && (Math.abs(even.txn - odd.txn) !== 1 || even.txn % 2 !== 0)) {
      throw damaged(path, `its two headers are of the commits ${even.txn} and ${odd.txn}, which do not follow each other`);
    }
    const newest = odd.txn > even.txn ? odd : even;
    const needed = (newest.lastPage + 1) * even.pageSize;
    if (size < needed) throw damaged(path, `data.mdb has ${size} bytes of ${needed}, it was cut off`);
  } finally {
    closeSync(fd);
  }
}

/**
 * Reads every record of the journal in a process of its own. Rejects with TSDLM_JOURNAL_CORRUPT, or whatever the
 * check found, and with TSDLM_JOURNAL_FAILED when the check itself cannot be run.
 */
export function checkContents(control: string, locks: string, bootId: string): Promise<void> {
  const script = fileURLToPath(new URL('./journal-check.js', import.meta.url));
  return new Promise((resolve, reject) => {
    const child = spawn(process.execPath, [script, control, locks, bootId], {
      stdio: ['ignore', 'pipe', 'ignore'],
      timeout: CHECK_LIMIT_MS,
    });
    let report = '';
    child.stdout.setEncoding('utf8');
    child.stdout.on('data', (chunk: string) => {
      if (report.length < REPORT_BYTES_MAX) report += chunk;
    });
    child.once('error', (cause) => {
      reject(new TsdlmError('TSDLM_JOURNAL_FAILED', `the journal cannot be checked: ${cause.message}`, { cause }));
    });
    child.once('close', (code, signal) => {
      if (code === 0) return resolve();
      if (signal === 'SIGTERM') {
        return reject(
          new TsdlmError(
            'TSDLM_JOURNAL_FAILED',
            `reading the journal ${control} took more than ${CHECK_LIMIT_MS} ms: check the disk`,
          ),
        );
      }
      try {
        const found = JSON.parse(report) as { code: ErrorCode; message: string };
        reject(new TsdlmError(found.code, found.message));
      } catch {
        reject(damaged(`${control} (or its neighbour locks/)`, `reading it ended with ${signal ?? `exit code ${code}`}`));
      }
    });
  });
}

/** Makes names in a directory durable. */
export function syncDirectory(path: string): void {
  const fd = openSync(path, 'r');
  try {
    fsyncSync(fd);
  } finally {
    closeSync(fd);
  }
}
