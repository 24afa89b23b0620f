/**
 * The files of an environment, read plainly before LMDB maps them.
 *
 * The problem: LMDB trusts its file. A page that was cut off or damaged kills the process that follows it (SIGBUS, SIGSEGV), and
 * a damaged newest header makes it fall back silently by one commit: a lost vote.
 * The idea: read both headers and walk both trees page by page with every offset checked, as LMDB would follow them, and see
 * that no page is used twice or both used and free. After that LMDB cannot leave the file, and what a value holds is the checksums' matter (journal-store.ts).
 * The layout is that of the LMDB which lmdb 3.5 brings (data version 2, little endian); another one is refused.
 */
import { closeSync, existsSync, fstatSync, openSync, readSync } from 'node:fs';
import { join } from 'node:path';
import { TsdlmError } from '../protocol/errors.js';
import { WAY_OUT } from './journal-disk.js';

const MAGIC = 0xbeefc0de;
const DATA_VERSION = 2;
/** Offsets in a header page: page header, then the header record with its two tree records. */
const MAGIC_AT = 24;
const VERSION_AT = 28;
const FREE_TREE_AT = 48;
const MAIN_TREE_AT = 96;
const LAST_PAGE_AT = 144;
const TXN_AT = 152;
const HEADER_BYTES = 160;
/** Of the two trees, the first is that of the free pages. */
const FREE_TREE = 0;
/** Offsets in a tree record. */
const TREE_FLAGS_AT = 4;
const TREE_DEPTH_AT = 6;
/** Numbers of branch pages, of leaf pages and of overflow pages. */
const TREE_PAGES_AT = 8;
const TREE_ROOT_AT = 40;
const NO_PAGE = 0xffff_ffff_ffff_ffffn;

/** Page header: number (8), transaction (8), padding (2), flags (2), lower (2), upper (2); then node offsets of 2 bytes. */
const PAGE_HEADER_BYTES = 24;
const TXN_OF_PAGE_AT = 8;
const FLAGS_AT = 18;
const LOWER_AT = 20;
const UPPER_AT = 22;
const BRANCH = 1;
const LEAF = 2;
const OVERFLOW = 4;
const META = 8;
/** Node header: low (2), high (2), flags (2), key size (2). */
const NODE_HEADER_BYTES = 8;
const NODE_BIG_DATA = 1;
const DEPTH_MAX = 32;
const TAIL_BYTES_MAX = 256 * 1024 * 1024;

interface Header {
  txn: number;
  lastPage: number;
  pageSize: number;
  trees: Tree[];
}

interface Tree {
  root: bigint;
  depth: number;
  flags: number;
  pages: PageCounts;
}

interface PageCounts {
  branch: number;
  leaf: number;
  overflow: number;
}

/** One file, with the complaint that names it. */
class Pages {
  readonly #fd: number;
  readonly #path: string;
  readonly #size: number;
  readonly #seen = new Set<number>();
  /** Commit of the last list of free pages; they rise. */
  #freedBy = 0;
  /** Pages of the tree that is walked. */
  #counts: PageCounts = { branch: 0, leaf: 0, overflow: 0 };

  constructor(fd: number, path: string) {
    this.#fd = fd;
    this.#path = path;
    this.#size = fstatSync(fd).size;
  }

  damaged(why: string): TsdlmError {
    return new TsdlmError('TSDLM_JOURNAL_CORRUPT', `journal ${this.#path} is damaged: ${why}. ${WAY_OUT}`);
  }

  #read(at: number, bytes: number): Buffer {
    if (at + bytes > this.#size)
      throw this.damaged(`data.mdb has ${this.#size} bytes, at least ${at + bytes} are needed: it was cut off`);
    const buffer = Buffer.allocUnsafe(bytes);
    if (readSync(this.#fd, buffer, 0, bytes, at) !== bytes) throw this.damaged(`data.mdb cannot be read at byte ${at}`);
    return buffer;
  }

  header(at: number): Header {
    const bytes = this.#read(at, HEADER_BYTES);
    if (bytes.readUInt32LE(MAGIC_AT) !== MAGIC || bytes.readUInt16LE(FLAGS_AT) !== META)
      throw this.damaged(`the header of data.mdb at byte ${at} is not one of LMDB's`);
    const version = bytes.readUInt32LE(VERSION_AT) & 0xffff;
    if (version !== DATA_VERSION) throw this.damaged(`data.mdb has LMDB's data version ${version}, not ${DATA_VERSION}`);
    return {
      txn: Number(bytes.readBigUInt64LE(TXN_AT)),
      lastPage: Number(bytes.readBigUInt64LE(LAST_PAGE_AT)),
      pageSize: bytes.readUInt32LE(FREE_TREE_AT),
      trees: [FREE_TREE_AT, MAIN_TREE_AT].map((tree) => ({
        root: bytes.readBigUInt64LE(tree + TREE_ROOT_AT),
        depth: bytes.readUInt16LE(tree + TREE_DEPTH_AT),
        flags: bytes.readUInt16LE(tree + TREE_FLAGS_AT),
        pages: {
          branch: Number(bytes.readBigUInt64LE(tree + TREE_PAGES_AT)),
          leaf: Number(bytes.readBigUInt64LE(tree + TREE_PAGES_AT + 8)),
          overflow: Number(bytes.readBigUInt64LE(tree + TREE_PAGES_AT + 16)),
        },
      })),
    };
  }

  /** The file may end before the last page, when that one is free, but not far: LMDB maps as much as the header says. */
  checkEnd({ lastPage, pageSize }: Header): void {
    if (!(lastPage >= 1) || lastPage * pageSize > this.#size + TAIL_BYTES_MAX) {
      throw this.damaged(`data.mdb has ${this.#size} bytes and says that its last page is ${lastPage}`);
    }
  }

  /** Takes a page into use; each is reached once. */
  #claim(page: number, header: Header): void {
    if (page < 2 || page > header.lastPage) throw this.damaged(`it refers to page ${page} of ${header.lastPage}`);
    if (this.#seen.has(page)) throw this.damaged(`page ${page} is used twice`);
    this.#seen.add(page);
  }

  #overflow(page: number, dataBytes: number, header: Header): Buffer {
    this.#claim(page, header);
    const bytes = this.#read(page * header.pageSize, PAGE_HEADER_BYTES);
    const pages = bytes.readUInt32LE(LOWER_AT);
    const fits = pages >= 1 && page + pages - 1 <= header.lastPage && dataBytes <= pages * header.pageSize - PAGE_HEADER_BYTES;
    if (Number(bytes.readBigUInt64LE(0)) !== page || bytes.readUInt16LE(FLAGS_AT) !== OVERFLOW || !fits) {
      throw this.damaged(`page ${page} is not the large value that it should be`);
    }
    for (let i = 1; i < pages; i++) this.#claim(page + i, header);
    this.#counts.overflow += pages;
    return this.#read(page * header.pageSize, PAGE_HEADER_BYTES + dataBytes).subarray(PAGE_HEADER_BYTES);
  }

  /**
   * A record of the tree of free pages: under the number of the commit that freed them a count, then page numbers; a negative
   * number before one is the length of a run of pages that begins there, 0 is an empty place. A page that is free and used
   * would be overwritten one day; a commit that is still to come kills the process that looks for free pages.
   */
  free(data: Buffer, key: Buffer, header: Header): void {
    const commit = key.length === 8 ? Number(key.readBigUInt64LE(0)) : 0;
    if (commit <= this.#freedBy || commit > header.txn) throw this.damaged(`a list of free pages is of commit ${commit}`);
    this.#freedBy = commit;
    const places = data.length >= 8 ? Number(data.readBigInt64LE(0)) : -1;
    if (data.length % 8 !== 0 || places < 0 || places > data.length / 8 - 1)
      throw this.damaged('a list of free pages has a wrong length');
    let run = 1;
    for (let i = 1; i <= places; i++) {
      const place = Number(data.readBigInt64LE(8 * i));
      if (place < 0) {
        run = -place;
        if (run > header.lastPage) throw this.damaged(`${run} pages in a row are free, of ${header.lastPage}`);
      } else if (place > 0) {
        for (let j = 0; j < run; j++) this.#claim(place + j, header);
        run = 1;
      }
    }
  }

  /** Follows a whole tree; `value` gets each value in it. The header's counts are what the limit of a journal's size rests on. */
  walkTree({ root, depth, pages }: Tree, header: Header, value: (data: Buffer, key: Buffer) => void): void {
    this.#counts = { branch: 0, leaf: 0, overflow: 0 };
    if (root !== NO_PAGE || depth !== 0) {
      if (depth < 1 || depth > DEPTH_MAX) throw this.damaged(`a tree says that it is ${depth} levels deep`);
      this.#walk(Number(root), depth, header, value);
    }
    const { branch, leaf, overflow } = this.#counts;
    if (branch !== pages.branch || leaf !== pages.leaf || overflow !== pages.overflow) {
      throw this.damaged(
        `a tree has ${branch}, ${leaf} and ${overflow} pages of the three kinds and says ${pages.branch}, ${pages.leaf} and ${pages.overflow}`,
      );
    }
  }

  /** Follows a tree down from `page`, which is `depth` levels above nothing. */
  #walk(page: number, depth: number, header: Header, value: (data: Buffer, key: Buffer) => void): void {
    this.#claim(page, header);
    const { pageSize } = header;
    const bytes = this.#read(page * pageSize, pageSize);
    const flags = bytes.readUInt16LE(FLAGS_AT);
    const isLeaf = depth === 1;
    const lower = bytes.readUInt16LE(LOWER_AT) + PAGE_HEADER_BYTES;
    const upper = bytes.readUInt16LE(UPPER_AT) + PAGE_HEADER_BYTES;
    if (Number(bytes.readBigUInt64LE(0)) !== page || flags !== (isLeaf ? LEAF : BRANCH)) {
      throw this.damaged(`page ${page} is not the ${isLeaf ? 'leaf' : 'branch'} that it should be`);
    }
    if (Number(bytes.readBigUInt64LE(TXN_OF_PAGE_AT)) > header.txn) throw this.damaged(`page ${page} is newer than the file`);
    this.#counts[isLeaf ? 'leaf' : 'branch']++;
    const count = (lower - PAGE_HEADER_BYTES) >> 1;
    if (lower % 2 !== 0 || lower > upper || upper > pageSize || (count < 1 && !isLeaf))
      throw this.damaged(`page ${page} has a wrong table`);
    for (let i = 0; i < count; i++) {
      const node = bytes.readUInt16LE(PAGE_HEADER_BYTES + 2 * i) + PAGE_HEADER_BYTES;
      if (node < upper || node % 2 !== 0 || node + NODE_HEADER_BYTES > pageSize)
        throw this.damaged(`page ${page} has a wrong offset`);
      const low = bytes.readUInt16LE(node) + bytes.readUInt16LE(node + 2) * 0x10000;
      const nodeFlags = bytes.readUInt16LE(node + 4);
      const dataAt = node + NODE_HEADER_BYTES + bytes.readUInt16LE(node + 6);
      if (dataAt > pageSize) throw this.damaged(`page ${page} has a key that is too long`);
      const key = bytes.subarray(node + NODE_HEADER_BYTES, dataAt);
      if (!isLeaf) {
        this.#walk(low + nodeFlags * 0x1_0000_0000, depth - 1, header, value);
      } else if ((nodeFlags & ~NODE_BIG_DATA) !== 0) {
        throw this.damaged(`page ${page} has a value of an unknown kind`);
      } else if (nodeFlags === NODE_BIG_DATA) {
        if (dataAt + 8 > pageSize) throw this.damaged(`page ${page} has a value that is too long`);
        value(this.#overflow(Number(bytes.readBigUInt64LE(dataAt)), low, header), key);
      } else if (dataAt + low > pageSize) {
        throw this.damaged(`page ${page} has a value that is too long`);
      } else {
        value(bytes.subarray(dataAt, dataAt + low), key);
      }
    }
  }
}

/** Throws TSDLM_JOURNAL_CORRUPT unless LMDB can read the environment at `path` without leaving its file. */
export function checkFiles(path: string): void {
  const file = join(path, 'data.mdb');
  if (!existsSync(file)) {
    throw new TsdlmError('TSDLM_JOURNAL_CORRUPT', `journal ${path} is damaged: its data.mdb is missing. ${WAY_OUT}`);
  }
  const fd = openSync(file, 'r');
  try {
    const pages = new Pages(fd, path);
    const even = pages.header(0);
    const { pageSize } = even;
    if (pageSize < 512 || pageSize > 65536 || (pageSize & (pageSize - 1)) !== 0) {
      throw pages.damaged(`data.mdb says that its pages have ${pageSize} bytes`);
    }
    const odd = pages.header(pageSize);
    if (odd.pageSize !== pageSize) throw pages.damaged('its two headers name different page sizes');
    // They never change, and say how keys are compared.
    if (even.trees.some((tree, i) => tree.flags !== odd.trees[i]?.flags))
      throw pages.damaged('its two headers name different flags');
    // Commits write the two headers in turn, so the numbers follow each other; only the first commit leaves an untouched one.
    const untouched = even.txn === 0 && odd.txn === 0;
    if (!untouched && (Math.abs(even.txn - odd.txn) !== 1 || even.txn % 2 !== 0)) {
      throw pages.damaged(`its two headers are of the commits ${even.txn} and ${odd.txn}, which do not follow each other`);
    }
    const newest = odd.txn > even.txn ? odd : even;
    pages.checkEnd(newest);
    for (const [index, tree] of newest.trees.entries()) {
      pages.walkTree(tree, newest, (data, key) => {
        if (index === FREE_TREE) pages.free(data, key, newest);
      });
    }
  } finally {
    closeSync(fd);
  }
}
