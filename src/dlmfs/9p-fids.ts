/**
 * The fids of one 9P connection: numbers that the client gives to what it has walked to and opened.
 *
 * The problem: the client chooses the numbers, so they may be unknown, taken or far too many. The idea: each look-up answers
 * the request by itself when the number does not fit, and the caller only stops.
 */
import { NOFID } from './9p-messages.js';
import type { Pending, TagTable } from './9p-tags.js';
import type { AnyNode, DirNode, FileNode, OpenFile } from './tree.js';

const FIDS_MAX = 65_536;

export interface Fid {
  readonly number: number;
  node: AnyNode;
  /** Uid of what is created through it. */
  readonly uid: number;
  open: OpenFile | 'dir' | null;
  /** Opened with O_APPEND: its own file position, because dlmfs takes that flag away and the client's offset is the size. */
  appendAt: number;
  /** The request that is about to open it. */
  opening: Pending | null;
  /** Reading the directory goes on here, when it goes on at `offset`. */
  reading: { offset: number; children: Iterator<DirNode | FileNode> } | null;
}

export class FidTable {
  readonly #tags: TagTable;
  readonly #fids = new Map<number, Fid>();

  constructor(tags: TagTable) {
    this.#tags = tags;
  }

  get size(): number {
    return this.#fids.size;
  }
  /** As it is; null: no such fid. */
  get(number: number): Fid | null {
    return this.#fids.get(number) ?? null;
  }
  clear(): void {
    this.#fids.clear();
  }

  add(number: number, node: AnyNode, uid: number): Fid {
    const fid: Fid = { number, node, uid, open: null, appendAt: -1, opening: null, reading: null };
    this.#fids.set(number, fid);
    return fid;
  }

  /** Answers EBADF by itself when there is no such fid. */
  find(m: { tag: number }, number: number): Fid | null {
    const fid = this.#fids.get(number);
    if (fid === undefined) this.#tags.fail(m, 'EBADF');
    return fid ?? null;
  }

  /** A fid that may be opened. */
  unopened(m: { tag: number }, number: number): Fid | null {
    const fid = this.find(m, number);
    if (fid === null || (fid.open === null && fid.opening === null)) return fid;
    this.#tags.fail(m, 'EBADF');
    return null;
  }

  /** The number is free for a new fid. */
  isFree(m: { tag: number }, number: number): boolean {
    const error = number === NOFID || this.#fids.has(number) ? 'EINVAL' : this.#fids.size >= FIDS_MAX ? 'EMFILE' : null;
    if (error !== null) this.#tags.fail(m, error);
    return error === null;
  }

  clunk(fid: Fid): void {
    this.#fids.delete(fid.number);
    if (fid.opening !== null) {
      // A client that clunks what it waits for: its request has to be answered too.
      const pending = fid.opening;
      pending.withdraw?.();
      this.#tags.fail(pending.message, 'EINTR');
    }
    if (fid.open !== null && fid.open !== 'dir') fid.open.close();
  }
}
