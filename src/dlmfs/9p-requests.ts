/**
 * What each 9P request means for the file tree.
 *
 * The problem: 9P speaks of fids and walks, the tree of files and locks, and some requests wait for a lock. The idea: one method
 * for each request, which looks its fids up, asks the tree and answers through the table of tags.
 *
 * A Tlcreate must not wait: the client's kernel holds the directory meanwhile, and nothing else in that domain would go on.
 * So a create whose lock is not free leaves the file behind and answers ESTALE; the kernel walks again and sends Tlopen,
 * which may wait. Only O_CREAT|O_EXCL without O_NONBLOCK has to wait here: its second try would end with EEXIST.
 */
import { attributesOf, qidOf, setAttributes } from './9p-attributes.js';
import { type Fid, FidTable } from './9p-fids.js';
import { AT_REMOVEDIR, HEADER_BYTES, type Message, NOFID, type Qid, type Request, type RequestName } from './9p-messages.js';
import { readDirectory } from './9p-readdir.js';
import type { Pending, TagTable } from './9p-tags.js';
import type { Errno } from './errno.js';
import type { AnyNode, FileNode, Tree } from './tree.js';
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

/** Header and count of an Rread. */
const IO_HEADER = HEADER_BYTES + 4;
/** Tgetlock: nothing is locked there. */
const LOCK_UNLOCKED = 2;

/** What the requests ask of the server. */
export interface RequestsHost {
  /** The file tree for this mount, at its first attach. Null: the server takes no more mounts. */
  mount(aname: string): Tree | null;
  now(): number;
}

type Handlers = { [N in RequestName]: (m: Message<N>) => void };

export class FileRequests {
  /** Largest message that was agreed on; 0 before that. */
  msize = 0;
  readonly #host: RequestsHost;
  readonly #tags: TagTable;
  readonly #fids: FidTable;
  readonly #handlers: Handlers;
  #tree: Tree | null = null;

  constructor(host: RequestsHost, tags: TagTable) {
    this.#host = host;
    this.#tags = tags;
    this.#fids = new FidTable(tags);
    this.#handlers = this.#makeHandlers();
  }

  get tree(): Tree | null {
    return this.#tree;
  }
  get fidCount(): number {
    return this.#fids.size;
  }

  /** A request that is in the table of tags. */
  handle(m: Request): void {
    (this.#handlers[m.k] as (m: Request) => void)(m);
  }

  /** Forgets the fids and the tree, and gives the tree that has lost its client. */
  reset(): Tree | null {
    this.#fids.clear();
    const tree = this.#tree;
    this.#tree = null;
    return tree;
  }

  #makeHandlers(): Handlers {
    const absent =
      (error: Errno) =>
      (m: { tag: number }): void =>
        this.#tags.fail(m, error);
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
        const fid = this.#fids.find(m, m.fid);
        if (fid === null) return;
        this.#fids.clunk(fid);
        this.#tags.reply(m, {});
      },
      Tremove: (m) => this.#remove(m),
      Tmkdir: (m) => this.#mkdir(m),
      Tmknod: (m) => this.#mknod(m),
      Tunlinkat: (m) => this.#unlinkat(m),
      Tfsync: (m) => {
        if (this.#fids.find(m, m.fid) !== null) this.#tags.reply(m, {});
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
        if (this.#fids.find(m, m.fid) !== null) this.#tags.reply(m, { status: 0 });
      },
      Tgetlock: (m) => {
        if (this.#fids.find(m, m.fid) === null) return;
        const { start, length, procId, clientId } = m;
        this.#tags.reply(m, { type: LOCK_UNLOCKED, start, length, procId, clientId });
      },
    };
  }

  #attach(m: Message<'Tattach'>): void {
    if (m.afid !== NOFID) return this.#tags.fail(m, 'EINVAL');
    if (!this.#fids.isFree(m, m.fid)) return;
    this.#tree ??= this.#host.mount(m.aname);
    if (this.#tree === null) return this.#tags.fail(m, 'ENOMEM');
    this.#fids.add(m.fid, this.#tree.root, m.nUname === NOFID ? 0 : m.nUname);
    this.#tags.reply(m, { qid: qidOf(this.#tree.root) });
  }

  #walk(m: Message<'Twalk'>): void {
    const fid = this.#fids.find(m, m.fid);
    if (fid === null) return;
    if (fid.open !== null) return this.#tags.fail(m, 'EBADF');
    if (m.newfid !== m.fid && !this.#fids.isFree(m, m.newfid)) return;
    const tree = this.#tree as Tree;
    const qids: Qid[] = [];
    let node = fid.node;
    for (const name of m.names) {
      let next: AnyNode | Errno;
      if (name === '..') next = node.kind === 'file' ? node.dir : tree.root;
      else next = nameError(name) ?? tree.lookup(node, name);
      if (typeof next === 'string') {
        if (qids.length === 0) return this.#tags.fail(m, next);
        break;
      }
      node = next;
      qids.push(qidOf(node));
    }
    // Only a whole walk makes the new fid.
    if (qids.length === m.names.length) {
      if (m.newfid === m.fid) fid.node = node;
      else this.#fids.add(m.newfid, node, fid.uid);
    }
    this.#tags.reply(m, { qids });
  }

  #lopen(m: Message<'Tlopen'>): void {
    const fid = this.#fids.unopened(m, m.fid);
    if (fid === null) return;
    if (fid.node.kind !== 'file') {
      if ((m.flags & O_ACCMODE) !== O_RDONLY) return this.#tags.fail(m, 'EISDIR');
      fid.open = 'dir';
      return this.#tags.reply(m, { qid: qidOf(fid.node), iounit: 0 });
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
        return this.#tags.fail(m, isBusy ? onBusy : (error ?? 'EIO'));
      }
      fid.node = file;
      fid.open = open;
      fid.appendAt = (flags & O_APPEND) !== 0 ? 0 : -1;
      this.#tags.reply(m, { qid: qidOf(file), iounit: this.msize - IO_HEADER - 12 });
    });
    if (fid.opening === null) return;
    pending.withdraw = () => {
      fid.opening = null;
      withdraw();
    };
  }

  #lcreate(m: Message<'Tlcreate'>): void {
    const fid = this.#fids.unopened(m, m.fid);
    if (fid === null) return;
    const wrong = nameError(m.name);
    if (wrong !== null) return this.#tags.fail(m, wrong);
    const tree = this.#tree as Tree;
    let node = tree.lookup(fid.node, m.name);
    const isThere = typeof node !== 'string';
    if (isThere && (m.flags & O_EXCL) !== 0) return this.#tags.fail(m, 'EEXIST');
    if (node === 'ENOENT') node = tree.create(fid.node, m.name, { mode: m.mode, uid: fid.uid, gid: m.gid });
    if (typeof node === 'string') return this.#tags.fail(m, node);
    if (node.kind !== 'file') return this.#tags.fail(m, 'EISDIR');
    const mayWait = (m.flags & (O_EXCL | O_NONBLOCK)) !== 0;
    this.#open(m, fid, node, m.flags, mayWait ? m.flags : m.flags | O_NONBLOCK, mayWait ? null : 'ESTALE');
  }

  #getattr(m: Message<'Tgetattr'>): void {
    const fid = this.#fids.find(m, m.fid);
    if (fid !== null) this.#tags.reply(m, attributesOf(fid.node));
  }

  #setattr(m: Message<'Tsetattr'>): void {
    const fid = this.#fids.find(m, m.fid);
    if (fid === null) return;
    setAttributes(fid.node, m, this.#host.now());
    this.#tags.reply(m, {});
  }

  #statfs(m: Message<'Tstatfs'>): void {
    if (this.#fids.find(m, m.fid) === null) return;
    const none = { blocks: 0, bfree: 0, bavail: 0, files: 0, ffree: 0, fsid: 0 };
    this.#tags.reply(m, { type: DLMFS_MAGIC, bsize: BLOCK_SIZE, namelen: NAME_MAX, ...none });
  }

  #readdir(m: Message<'Treaddir'>): void {
    const fid = this.#fids.find(m, m.fid);
    if (fid === null) return;
    const { node } = fid;
    if (fid.open !== 'dir' || node.kind === 'file') return this.#tags.fail(m, fid.open === null ? 'EBADF' : 'ENOTDIR');
    const room = Math.min(m.count, this.msize - IO_HEADER);
    const data = readDirectory(fid, node, (this.#tree as Tree).root, m.offset, room);
    if (typeof data === 'string') this.#tags.fail(m, data);
    else this.#tags.reply(m, { data });
  }

  #read(m: Message<'Tread'>): void {
    const open = this.#fids.find(m, m.fid)?.open;
    if (open === undefined) return;
    if (open === null || open === 'dir') return this.#tags.fail(m, open === null ? 'EBADF' : 'EISDIR');
    const data = open.read(m.offset, Math.min(m.count, LOCK_FILE_SIZE, this.msize - IO_HEADER));
    if (typeof data === 'string') this.#tags.fail(m, data);
    else this.#tags.reply(m, { data });
  }

  #write(m: Message<'Twrite'>): void {
    const fid = this.#fids.find(m, m.fid);
    if (fid === null) return;
    const { open } = fid;
    if (open === null || open === 'dir') return this.#tags.fail(m, open === null ? 'EBADF' : 'EISDIR');
    const count = open.write(fid.appendAt >= 0 ? fid.appendAt : m.offset, m.data);
    if (typeof count === 'string') return this.#tags.fail(m, count);
    if (fid.appendAt >= 0) fid.appendAt += count;
    this.#tags.reply(m, { count });
  }

  #mkdir(m: Message<'Tmkdir'>): void {
    const fid = this.#fids.find(m, m.dfid);
    if (fid === null) return;
    const wrong = nameError(m.name);
    if (wrong !== null) return this.#tags.fail(m, wrong);
    const pending = this.#tags.get(m.tag) as Pending;
    pending.withdraw = (this.#tree as Tree).mkdir(fid.node, m.name, { mode: m.mode, uid: fid.uid, gid: m.gid }, (error, dir) => {
      if (error !== null || dir === undefined) this.#tags.fail(m, error ?? 'EIO');
      else this.#tags.reply(m, { qid: qidOf(dir) });
    });
  }

  /** A regular file without opening it; no other kind of node. */
  #mknod(m: Message<'Tmknod'>): void {
    const fid = this.#fids.find(m, m.fid);
    if (fid === null) return;
    if ((m.mode & S_IFMT) !== S_IFREG || fid.node.kind === 'root') return this.#noEntry(m, m.fid, m.name);
    const wrong = nameError(m.name);
    const node = wrong ?? (this.#tree as Tree).create(fid.node, m.name, { mode: m.mode, uid: fid.uid, gid: m.gid });
    if (typeof node === 'string') this.#tags.fail(m, node);
    else this.#tags.reply(m, { qid: qidOf(node) });
  }

  /** What cannot be made: EEXIST where something is, else EPERM. */
  #noEntry(m: { tag: number }, number: number, name: string): void {
    const fid = this.#fids.find(m, number);
    if (fid === null) return;
    const found = nameError(name) ?? (this.#tree as Tree).lookup(fid.node, name);
    this.#tags.fail(m, typeof found !== 'string' ? 'EEXIST' : found === 'ENOENT' ? 'EPERM' : found);
  }

  #unlinkat(m: Message<'Tunlinkat'>): void {
    const fid = this.#fids.find(m, m.dirfid);
    if (fid === null) return;
    const wrong = nameError(m.name) ?? ((m.flags & ~AT_REMOVEDIR) !== 0 ? 'EINVAL' : null);
    if (wrong !== null) return this.#tags.fail(m, wrong);
    this.#take(fid.node, m.name, (m.flags & AT_REMOVEDIR) !== 0, (error) => {
      if (error === null) this.#tags.reply(m, {});
      else this.#tags.fail(m, error);
    });
  }

  /** Removes what the fid is, and the fid in any case. */
  #remove(m: Message<'Tremove'>): void {
    const fid = this.#fids.find(m, m.fid);
    if (fid === null) return;
    const { node } = fid;
    const done = (error: Errno | null): void => {
      if (error === null) this.#tags.reply(m, {});
      else this.#tags.fail(m, error);
    };
    if (node.kind === 'root') done('EBUSY');
    else if (node.isGone) done('ENOENT');
    else if (node.kind === 'dir') this.#take((this.#tree as Tree).root, node.name, true, done);
    else this.#take(node.dir, node.name, false, done);
    if (this.#fids.get(m.fid) === fid) this.#fids.clunk(fid);
  }

  #take(parent: AnyNode, name: string, isDirectory: boolean, done: (error: Errno | null) => void): void {
    const tree = this.#tree as Tree;
    if (isDirectory) done(tree.rmdir(parent, name));
    else tree.unlink(parent, name, done);
  }
}

/** A name for a new entry, or the errno. */
function nameError(name: string): Errno | null {
  if (name === '' || name === '.' || name === '..' || name.includes('/') || name.includes('\0')) return 'EINVAL';
  return null;
}
