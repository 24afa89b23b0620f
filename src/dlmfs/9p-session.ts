/**
 * One 9P2000.L connection: fids, tags, and what each message means for the file tree. No socket in it: frames in, frames out.
 *
 * The problem: opens wait for locks while the same connection goes on; a waiting one may be flushed at any moment, and an
 * answer after its Rflush would be taken for the answer to another request (that broke real mounts). The idea: every
 * request is in the table of tags until it is answered, the table is the only way to answer, and Tflush removes the entry,
 * withdraws what it was for and answers at once.
 *
 * A Tlcreate must not wait: the client's kernel holds the directory meanwhile, and nothing else in that domain would go on.
 * So a create whose lock is not free leaves the file behind and answers ESTALE; the kernel walks again and sends Tlopen,
 * which may wait. Only O_CREAT|O_EXCL without O_NONBLOCK has to wait here: its second try would end with EEXIST.
 *
 * Only Tclunk ends a hold (rule 6): whatever else ends the session leaves its open files to the host as orphans.
 */
import { decode, encode, encodeEntry, type Malformed } from './9p-codec.js';
import {
  AT_REMOVEDIR,
  type Body,
  GETATTR_BASIC,
  HEADER_BYTES,
  MESSAGES,
  type Message,
  NOFID,
  QID_DIR,
  QID_FILE,
  type Qid,
  type ReplyName,
  type ReplyTo,
  type Request,
  type RequestName,
  SET_ATIME,
  SET_ATIME_TO,
  SET_GID,
  SET_MODE,
  SET_MTIME,
  SET_MTIME_TO,
  SET_UID,
  VERSION,
} from './9p-messages.js';
import { type Errno, errnoNumber } from './errno.js';
import { type AnyNode, type DirNode, type FileNode, linksOf, modeOf, type OpenFile, sizeOf, type Tree } from './tree.js';
import {
  BLOCK_SIZE,
  DLMFS_MAGIC,
  LOCK_FILE_SIZE,
  NAME_MAX,
  O_ACCMODE,
  O_APPEND,
  O_EXCL,
  O_NONBLOCK,
  O_RDONLY,
  S_IFMT,
  S_IFREG,
} from './types.js';

/** Largest message; a client may want less. */
export const MSIZE_MAX = 64 * 1024;
/** Less than this carries no directory entry; new kernels insist on 4096 themselves. */
const MSIZE_MIN = 4096;
/** Before Tversion has said how large a message may be. */
export const FIRST_FRAME_MAX = 8192;
const FIDS_MAX = 65_536;
/** Requests of one connection that wait at a time. */
const TAGS_MAX = 8192;
/** Header and count of an Rread. */
const IO_HEADER = HEADER_BYTES + 4;
const DT_DIR = 4;
const DT_REG = 8;
/** Tgetlock: nothing is locked there. */
const LOCK_UNLOCKED = 2;

/** What a session asks of the server. */
export interface SessionHost {
  /** Bytes for the client; written at the end of the turn. */
  send(bytes: Buffer): void;
  /** The file tree for this mount, at its first attach. Null: the server takes no more mounts. */
  mount(aname: string): Tree | null;
  /** The tree has lost its client: what is open in it is nobody's now. */
  unmounted(tree: Tree): void;
  /** The client broke the protocol in a way that ends the connection. */
  fault(why: string): void;
  /** It sent something that makes no sense, and was told so. */
  refused(why: string): void;
  now(): number;
}

interface Fid {
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

/** A request that is not answered yet. A tag may be used again after a flush: the message itself tells whose answer it is. */
interface Pending {
  message: { tag: number };
  withdraw: (() => void) | null;
}

type Handlers = { [N in RequestName]: (m: Message<N>) => void };

export class NinepSession {
  readonly #host: SessionHost;
  readonly #fids = new Map<number, Fid>();
  readonly #tags = new Map<number, Pending>();
  readonly #handlers: Handlers;
  #tree: Tree | null = null;
  #msize = 0;
  #isOver = false;

  constructor(host: SessionHost) {
    this.#host = host;
    this.#handlers = this.#makeHandlers();
  }

  /** Largest frame that may come now. */
  get frameMax(): number {
    return this.#msize === 0 ? FIRST_FRAME_MAX : this.#msize;
  }
  get tree(): Tree | null {
    return this.#tree;
  }
  /** Requests that wait, and fids in use: nothing else grows with what a client does. */
  get counts(): { tags: number; fids: number } {
    return { tags: this.#tags.size, fids: this.#fids.size };
  }

  receive(frame: Buffer): void {
    if (this.#isOver) return;
    const m = decode(frame);
    if (m.k === 'malformed') return this.#malformed(m);
    if (m.k === 'Tversion') return this.#version(m);
    if (m.k === 'Tflush') return this.#flush(m.tag, m.oldtag);
    if (this.#msize === 0) return this.#host.fault(`${m.k} before Tversion`);
    if (this.#tags.has(m.tag)) return this.#host.fault(`tag ${m.tag} is in use`);
    if (!isRequest(m)) return this.#refuse(m.tag, 'EOPNOTSUPP', `${m.k} is no request`);
    if (this.#tags.size >= TAGS_MAX) return this.#refuse(m.tag, 'ENOMEM', `${TAGS_MAX} requests wait already`);
    this.#tags.set(m.tag, { message: m, withdraw: null });
    (this.#handlers[m.k] as (m: Request) => void)(m);
  }

  /** The connection is gone: waiters are withdrawn, open files stay held (rule 6). */
  end(): void {
    if (this.#isOver) return;
    this.#isOver = true;
    this.#reset();
  }

  // --- Tags ---------------------------------------------------------------------------------------------------------

  /** The only way to answer. Nothing happens when the request was flushed. */
  #reply<N extends RequestName>(request: { k: N; tag: number }, body: Body<ReplyTo<N>>): void {
    if (!this.#isAnswered(request)) return;
    const k = `R${request.k.slice(1)}` as ReplyName;
    this.#host.send(encode({ k, tag: request.tag, ...body } as Message));
  }

  #fail(request: { tag: number }, error: Errno): void {
    if (this.#isAnswered(request)) this.#error(request.tag, error);
  }

  /** Takes the request out of the table; false when it was flushed. */
  #isAnswered(request: { tag: number }): boolean {
    return this.#tags.get(request.tag)?.message === request && this.#tags.delete(request.tag);
  }

  #error(tag: number, error: Errno): void {
    this.#host.send(encode({ k: 'Rlerror', tag, ecode: errnoNumber(error) }));
  }

  /** An answer to what never became a request. */
  #refuse(tag: number, error: Errno, why: string): void {
    this.#host.refused(why);
    this.#error(tag, error);
  }

  #malformed(m: Malformed): void {
    if (this.#msize === 0) return this.#host.fault(m.why);
    if (this.#tags.has(m.tag)) return this.#host.fault(`tag ${m.tag} is in use`);
    this.#refuse(m.tag, m.isUnknown ? 'EOPNOTSUPP' : 'EPROTO', m.why);
  }

  /** What can be withdrawn is; the old request is never answered from here on. Unknown tags are answered all the same. */
  #flush(tag: number, oldtag: number): void {
    if (this.#msize === 0) return this.#host.fault('Tflush before Tversion');
    if (this.#tags.has(tag)) return this.#host.fault(`tag ${tag} is in use`);
    const pending = this.#tags.get(oldtag);
    if (pending !== undefined) {
      this.#tags.delete(oldtag);
      pending.withdraw?.();
    }
    this.#host.send(encode({ k: 'Rflush', tag }));
  }

  #version(m: Message<'Tversion'>): void {
    this.#reset();
    const isKnown = m.version === VERSION;
    if (m.msize < MSIZE_MIN) {
      this.#msize = 0;
      return this.#refuse(m.tag, 'EINVAL', `msize ${m.msize} is below ${MSIZE_MIN}`);
    }
    const msize = Math.min(m.msize, MSIZE_MAX);
    this.#msize = isKnown ? msize : 0;
    if (!isKnown) this.#host.refused(`version ${JSON.stringify(m.version.slice(0, 20))}`);
    this.#host.send(encode({ k: 'Rversion', tag: m.tag, msize, version: isKnown ? VERSION : 'unknown' }));
  }

  #reset(): void {
    const tags = [...this.#tags.values()];
    this.#tags.clear();
    for (const pending of tags) pending.withdraw?.();
    this.#fids.clear();
    const tree = this.#tree;
    this.#tree = null;
    if (tree !== null) this.#host.unmounted(tree);
  }

  // --- Fids ---------------------------------------------------------------------------------------------------------

  #newFid(number: number, node: AnyNode, uid: number): Fid {
    const fid: Fid = { number, node, uid, open: null, appendAt: -1, opening: null, reading: null };
    this.#fids.set(number, fid);
    return fid;
  }

  /** Answers EBADF by itself when there is no such fid. */
  #fid(m: { tag: number }, number: number): Fid | null {
    const fid = this.#fids.get(number);
    if (fid === undefined) this.#fail(m, 'EBADF');
    return fid ?? null;
  }

  /** A fid that may be opened. */
  #unopened(m: { tag: number }, number: number): Fid | null {
    const fid = this.#fid(m, number);
    if (fid === null || (fid.open === null && fid.opening === null)) return fid;
    this.#fail(m, 'EBADF');
    return null;
  }

  /** The number is free for a new fid. */
  #isFree(m: { tag: number }, number: number): boolean {
    const error = number === NOFID || this.#fids.has(number) ? 'EINVAL' : this.#fids.size >= FIDS_MAX ? 'EMFILE' : null;
    if (error !== null) this.#fail(m, error);
    return error === null;
  }

  #clunk(fid: Fid): void {
    this.#fids.delete(fid.number);
    if (fid.opening !== null) {
      // A client that clunks what it waits for: its request has to be answered too.
      const pending = fid.opening;
      pending.withdraw?.();
      this.#fail(pending.message, 'EINTR');
    }
    if (fid.open !== null && fid.open !== 'dir') fid.open.close();
  }

  /** A name for a new entry, or the errno. */
  #nameError(name: string): Errno | null {
    if (name === '' || name === '.' || name === '..' || name.includes('/') || name.includes('\0')) return 'EINVAL';
    return null;
  }

  // --- Messages -----------------------------------------------------------------------------------------------------

  #makeHandlers(): Handlers {
    const absent =
      (error: Errno) =>
      (m: { tag: number }): void =>
        this.#fail(m, error);
    return {
      Tversion: () => {},
      Tflush: () => {},
      Tauth: absent('EOPNOTSUPP'),
      Tattach: (m) => this.#attach(m),
      Twalk: (m) => this.#walk(m),
      Tlopen: (m) => this.#lopen(m),
      Tlcreate: (m) => this.#lcreate(m),
      Tgetattr: (m) => this.#getattr(m),
      Tsetattr: (m) => this.#setattr(m),
      Tstatfs: (m) => this.#statfs(m),
      Treaddir: (m) => this.#readdir(m),
      Tread: (m) => this.#read(m),
      Twrite: (m) => this.#write(m),
      Tclunk: (m) => {
        const fid = this.#fid(m, m.fid);
        if (fid === null) return;
        this.#clunk(fid);
        this.#reply(m, {});
      },
      Tremove: (m) => this.#remove(m),
      Tmkdir: (m) => this.#mkdir(m),
      Tmknod: (m) => this.#mknod(m),
      Tunlinkat: (m) => this.#unlinkat(m),
      Tfsync: (m) => {
        if (this.#fid(m, m.fid) !== null) this.#reply(m, {});
      },
      Tsymlink: (m) => this.#noEntry(m, m.fid, m.name),
      Tlink: (m) => this.#noEntry(m, m.dfid, m.name),
      Trename: absent('EPERM'),
      Trenameat: absent('EPERM'),
      Treadlink: absent('EINVAL'),
      Txattrwalk: absent('EOPNOTSUPP'),
      Txattrcreate: absent('EOPNOTSUPP'),
      // Locks of fcntl and flock are local to a kernel, and one connection is one kernel: nothing to keep apart here.
      Tlock: (m) => {
        if (this.#fid(m, m.fid) !== null) this.#reply(m, { status: 0 });
      },
      Tgetlock: (m) => {
        if (this.#fid(m, m.fid) === null) return;
        const { start, length, procId, clientId } = m;
        this.#reply(m, { type: LOCK_UNLOCKED, start, length, procId, clientId });
      },
    };
  }

  #attach(m: Message<'Tattach'>): void {
    if (m.afid !== NOFID) return this.#fail(m, 'EINVAL');
    if (!this.#isFree(m, m.fid)) return;
    this.#tree ??= this.#host.mount(m.aname);
    if (this.#tree === null) return this.#fail(m, 'ENOMEM');
    this.#newFid(m.fid, this.#tree.root, m.nUname === NOFID ? 0 : m.nUname);
    this.#reply(m, { qid: qidOf(this.#tree.root) });
  }

  #walk(m: Message<'Twalk'>): void {
    const fid = this.#fid(m, m.fid);
    if (fid === null) return;
    if (fid.open !== null) return this.#fail(m, 'EBADF');
    if (m.newfid !== m.fid && !this.#isFree(m, m.newfid)) return;
    const tree = this.#tree as Tree;
    const qids: Qid[] = [];
    let node = fid.node;
    for (const name of m.names) {
      let next: AnyNode | Errno;
      if (name === '..') next = node.kind === 'file' ? node.dir : tree.root;
      else next = this.#nameError(name) ?? tree.lookup(node, name);
      if (typeof next === 'string') {
        if (qids.length === 0) return this.#fail(m, next);
        break;
      }
      node = next;
      qids.push(qidOf(node));
    }
    // Only a whole walk makes the new fid.
    if (qids.length === m.names.length) {
      if (m.newfid === m.fid) fid.node = node;
      else this.#newFid(m.newfid, node, fid.uid);
    }
    this.#reply(m, { qids });
  }

  #lopen(m: Message<'Tlopen'>): void {
    const fid = this.#unopened(m, m.fid);
    if (fid === null) return;
    if (fid.node.kind !== 'file') {
      if ((m.flags & O_ACCMODE) !== O_RDONLY) return this.#fail(m, 'EISDIR');
      fid.open = 'dir';
      return this.#reply(m, { qid: qidOf(fid.node), iounit: 0 });
    }
    this.#open(m, fid, fid.node, m.flags, m.flags, null);
  }

  /** Takes the lock for a fid; `onBusy` is answered when it is not to be had now. */
  #open(
    m: Message<'Tlopen'> | Message<'Tlcreate'>,
    fid: Fid,
    file: FileNode,
    flags: number,
    flagsForLock: number,
    onBusy: Errno | null,
  ): void {
    const pending = this.#tags.get(m.tag) as Pending;
    fid.opening = pending;
    const withdraw = (this.#tree as Tree).open(file, flagsForLock, (error, open) => {
      fid.opening = null;
      if (error !== null || open === undefined) {
        const isBusy = onBusy !== null && (error === 'ETXTBSY' || error === 'ENOTCONN');
        return this.#fail(m, isBusy ? onBusy : (error ?? 'EIO'));
      }
      fid.node = file;
      fid.open = open;
      fid.appendAt = (flags & O_APPEND) !== 0 ? 0 : -1;
      this.#reply(m, { qid: qidOf(file), iounit: this.#msize - IO_HEADER - 12 });
    });
    if (fid.opening === null) return;
    pending.withdraw = () => {
      fid.opening = null;
      withdraw();
    };
  }

  #lcreate(m: Message<'Tlcreate'>): void {
    const fid = this.#unopened(m, m.fid);
    if (fid === null) return;
    const wrong = this.#nameError(m.name);
    if (wrong !== null) return this.#fail(m, wrong);
    const tree = this.#tree as Tree;
    let node = tree.lookup(fid.node, m.name);
    const isThere = typeof node !== 'string';
    if (isThere && (m.flags & O_EXCL) !== 0) return this.#fail(m, 'EEXIST');
    if (node === 'ENOENT') node = tree.create(fid.node, m.name, { mode: m.mode, uid: fid.uid, gid: m.gid });
    if (typeof node === 'string') return this.#fail(m, node);
    if (node.kind !== 'file') return this.#fail(m, 'EISDIR');
    const mayWait = (m.flags & (O_EXCL | O_NONBLOCK)) !== 0;
    this.#open(m, fid, node, m.flags, mayWait ? m.flags : m.flags | O_NONBLOCK, mayWait ? null : 'ESTALE');
  }

  #getattr(m: Message<'Tgetattr'>): void {
    const fid = this.#fid(m, m.fid);
    if (fid === null) return;
    const { node } = fid;
    this.#reply(m, {
      valid: GETATTR_BASIC,
      qid: qidOf(node),
      mode: modeOf(node),
      uid: node.uid,
      gid: node.gid,
      nlink: linksOf(node),
      rdev: 0,
      size: sizeOf(node),
      blksize: BLOCK_SIZE,
      blocks: 0,
      ...time('atime', node.atimeMs),
      ...time('mtime', node.mtimeMs),
      ...time('ctime', node.ctimeMs),
      btimeSec: 0,
      btimeNsec: 0,
      gen: 0,
      dataVersion: 0,
    });
  }

  /** The size is not for setting: accepted, and nothing changes. */
  #setattr(m: Message<'Tsetattr'>): void {
    const fid = this.#fid(m, m.fid);
    if (fid === null) return;
    const { node } = fid;
    const now = this.#host.now();
    if (m.valid & SET_MODE) node.mode = m.mode & 0o7777;
    if (m.valid & SET_UID) node.uid = m.uid;
    if (m.valid & SET_GID) node.gid = m.gid;
    if (m.valid & SET_ATIME) node.atimeMs = m.valid & SET_ATIME_TO ? m.atimeSec * 1000 + Math.floor(m.atimeNsec / 1e6) : now;
    if (m.valid & SET_MTIME) node.mtimeMs = m.valid & SET_MTIME_TO ? m.mtimeSec * 1000 + Math.floor(m.mtimeNsec / 1e6) : now;
    if (m.valid & (SET_MODE | SET_UID | SET_GID)) node.ctimeMs = now;
    this.#reply(m, {});
  }

  #statfs(m: Message<'Tstatfs'>): void {
    if (this.#fid(m, m.fid) === null) return;
    const none = { blocks: 0, bfree: 0, bavail: 0, files: 0, ffree: 0, fsid: 0 };
    this.#reply(m, { type: DLMFS_MAGIC, bsize: BLOCK_SIZE, namelen: NAME_MAX, ...none });
  }

  /** Entries keep their offset while others come and go: it is made of the number of the file. */
  #readdir(m: Message<'Treaddir'>): void {
    const fid = this.#fid(m, m.fid);
    if (fid === null) return;
    const { node } = fid;
    if (fid.open !== 'dir' || node.kind === 'file') return this.#fail(m, fid.open === null ? 'EBADF' : 'ENOTDIR');
    const room = Math.min(m.count, this.#msize - IO_HEADER);
    const parts: Buffer[] = [];
    let bytes = 0;
    let isFull = false;
    const add = (entry: { qid: Qid; offset: number; type: number; name: string }): boolean => {
      const part = encodeEntry(entry);
      isFull = bytes + part.length > room;
      if (!isFull) {
        parts.push(part);
        bytes += part.length;
      }
      return !isFull;
    };
    if (m.offset < 1) add({ qid: qidOf(node), offset: 1, type: DT_DIR, name: '.' });
    if (m.offset < 2 && !isFull) add({ qid: qidOf((this.#tree as Tree).root), offset: 2, type: DT_DIR, name: '..' });
    let last = Math.max(2, m.offset);
    const goesOn = fid.reading !== null && fid.reading.offset === m.offset;
    const children = goesOn && fid.reading !== null ? fid.reading.children : node.children.values();
    fid.reading = null;
    while (!isFull) {
      const next = children.next();
      if (next.done === true) break;
      const child = next.value;
      // Numbers only grow, and so does the order of the table.
      if (child.ino + 2 <= last && !goesOn) continue;
      if (!add({ qid: qidOf(child), offset: child.ino + 2, type: child.kind === 'file' ? DT_REG : DT_DIR, name: child.name }))
        break;
      last = child.ino + 2;
    }
    if (isFull && parts.length === 0) return this.#fail(m, 'EINVAL');
    // The one that did not fit was taken from the iterator: only an exhausted one can go on.
    if (!isFull) fid.reading = { offset: last, children };
    this.#reply(m, { data: Buffer.concat(parts, bytes) });
  }

  #read(m: Message<'Tread'>): void {
    const open = this.#fid(m, m.fid)?.open;
    if (open === undefined) return;
    if (open === null || open === 'dir') return this.#fail(m, open === null ? 'EBADF' : 'EISDIR');
    const data = open.read(m.offset, Math.min(m.count, LOCK_FILE_SIZE, this.#msize - IO_HEADER));
    if (typeof data === 'string') this.#fail(m, data);
    else this.#reply(m, { data });
  }

  #write(m: Message<'Twrite'>): void {
    const fid = this.#fid(m, m.fid);
    if (fid === null) return;
    const { open } = fid;
    if (open === null || open === 'dir') return this.#fail(m, open === null ? 'EBADF' : 'EISDIR');
    const count = open.write(fid.appendAt >= 0 ? fid.appendAt : m.offset, m.data);
    if (typeof count === 'string') return this.#fail(m, count);
    if (fid.appendAt >= 0) fid.appendAt += count;
    this.#reply(m, { count });
  }

  #mkdir(m: Message<'Tmkdir'>): void {
    const fid = this.#fid(m, m.dfid);
    if (fid === null) return;
    const wrong = this.#nameError(m.name);
    if (wrong !== null) return this.#fail(m, wrong);
    const pending = this.#tags.get(m.tag) as Pending;
    pending.withdraw = (this.#tree as Tree).mkdir(fid.node, m.name, { mode: m.mode, uid: fid.uid, gid: m.gid }, (error, dir) => {
      if (error !== null || dir === undefined) this.#fail(m, error ?? 'EIO');
      else this.#reply(m, { qid: qidOf(dir) });
    });
  }

  /** A regular file without opening it; no other kind of node. */
  #mknod(m: Message<'Tmknod'>): void {
    const fid = this.#fid(m, m.fid);
    if (fid === null) return;
    if ((m.mode & S_IFMT) !== S_IFREG || fid.node.kind === 'root') return this.#noEntry(m, m.fid, m.name);
    const wrong = this.#nameError(m.name);
    const node = wrong ?? (this.#tree as Tree).create(fid.node, m.name, { mode: m.mode, uid: fid.uid, gid: m.gid });
    if (typeof node === 'string') this.#fail(m, node);
    else this.#reply(m, { qid: qidOf(node) });
  }

  /** What cannot be made: EEXIST where something is, else EPERM. */
  #noEntry(m: { tag: number }, number: number, name: string): void {
    const fid = this.#fid(m, number);
    if (fid === null) return;
    const found = this.#nameError(name) ?? (this.#tree as Tree).lookup(fid.node, name);
    this.#fail(m, typeof found !== 'string' ? 'EEXIST' : found === 'ENOENT' ? 'EPERM' : found);
  }

  #unlinkat(m: Message<'Tunlinkat'>): void {
    const fid = this.#fid(m, m.dirfid);
    if (fid === null) return;
    const wrong = this.#nameError(m.name) ?? ((m.flags & ~AT_REMOVEDIR) !== 0 ? 'EINVAL' : null);
    if (wrong !== null) return this.#fail(m, wrong);
    this.#take(fid.node, m.name, (m.flags & AT_REMOVEDIR) !== 0, (error) => {
      if (error === null) this.#reply(m, {});
      else this.#fail(m, error);
    });
  }

  /** Removes what the fid is, and the fid in any case. */
  #remove(m: Message<'Tremove'>): void {
    const fid = this.#fid(m, m.fid);
    if (fid === null) return;
    const { node } = fid;
    const done = (error: Errno | null): void => {
      if (error === null) this.#reply(m, {});
      else this.#fail(m, error);
    };
    if (node.kind === 'root') done('EBUSY');
    else if (node.isGone) done('ENOENT');
    else if (node.kind === 'dir') this.#take((this.#tree as Tree).root, node.name, true, done);
    else this.#take(node.dir, node.name, false, done);
    if (this.#fids.get(m.fid) === fid) this.#clunk(fid);
  }

  #take(parent: AnyNode, name: string, isDirectory: boolean, done: (error: Errno | null) => void): void {
    const tree = this.#tree as Tree;
    if (isDirectory) done(tree.rmdir(parent, name));
    else tree.unlink(parent, name, done);
  }
}

function isRequest(m: Message): m is Request {
  return MESSAGES[m.k].type % 2 === 0;
}

export function qidOf(node: AnyNode): Qid {
  return { type: node.kind === 'file' ? QID_FILE : QID_DIR, version: 0, path: node.ino };
}

function time<P extends 'atime' | 'mtime' | 'ctime'>(prefix: P, ms: number): Record<`${P}Sec` | `${P}Nsec`, number> {
  const sec = Math.floor(ms / 1000);
  return { [`${prefix}Sec`]: sec, [`${prefix}Nsec`]: Math.round((ms - sec * 1000) * 1e6) } as Record<
    `${P}Sec` | `${P}Nsec`,
    number
  >;
}
