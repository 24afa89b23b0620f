/**
 * A 9P2000.L server that is a floor: a tree in memory that the kernel's client can mount, and nothing else.
 *
 * No locks, no waiting, no checks of what a client may do, fixed attributes; replies are written by hand. One tree per connection.
 */
const QID_BYTES = 13;
const HEADER_BYTES = 7;
const RLERROR = 7;
const ENOENT = 2;
const ENOTEMPTY = 39;
const EOPNOTSUPP = 95;

const T = {
  statfs: 8,
  lopen: 12,
  lcreate: 14,
  getattr: 24,
  setattr: 26,
  readdir: 40,
  fsync: 50,
  mkdir: 72,
  unlinkat: 76,
  version: 100,
  attach: 104,
  flush: 108,
  walk: 110,
  read: 116,
  write: 118,
  clunk: 120,
} as const;

interface Node {
  id: number;
  children: Map<string, Node> | null;
}

const NOTHING = Buffer.alloc(0);

/** Returns what makes the reply to one whole frame. */
export function bareFiles(): (frame: Buffer) => Buffer {
  let ids = 1;
  const root: Node = { id: ids++, children: new Map() };
  const fids = new Map<number, Node>();

  const putQid = (b: Buffer, at: number, node: Node): void => {
    b.fill(0, at, at + QID_BYTES);
    b[at] = node.children === null ? 0 : 0x80;
    b.writeUInt32LE(node.id, at + 5);
  };
  const qid = (node: Node, more: number): Buffer => {
    const body = Buffer.alloc(QID_BYTES + more);
    putQid(body, 0, node);
    return body;
  };
  const text = (f: Buffer, at: number): string => f.toString('latin1', at + 2, at + 2 + f.readUInt16LE(at));

  const walk = (f: Buffer): Buffer | number => {
    let node = fids.get(f.readUInt32LE(7));
    const count = f.readUInt16LE(15);
    const body = Buffer.alloc(2 + count * QID_BYTES);
    let at = 17;
    for (let i = 0; i < count; i++) {
      node = node?.children?.get(text(f, at));
      if (node === undefined) return ENOENT;
      at += 2 + f.readUInt16LE(at);
      putQid(body, 2 + i * QID_BYTES, node);
    }
    if (node === undefined) return ENOENT;
    body.writeUInt16LE(count, 0);
    fids.set(f.readUInt32LE(11), node);
    return body;
  };
  const make = (f: Buffer, children: Node['children']): Node | null => {
    const node = { id: ids++, children };
    const parent = fids.get(f.readUInt32LE(7));
    if (parent === undefined || parent.children === null) return null;
    parent.children.set(text(f, 11), node);
    return node;
  };
  const unlink = (f: Buffer): Buffer | number => {
    const children = fids.get(f.readUInt32LE(7))?.children;
    const name = text(f, 11);
    const size = children?.get(name)?.children?.size ?? 0;
    if (size > 0) return ENOTEMPTY;
    return children?.delete(name) ? NOTHING : ENOENT;
  };
  const attributes = (node: Node): Buffer => {
    const body = Buffer.alloc(153);
    body.writeUInt32LE(0x7ff, 0);
    putQid(body, 8, node);
    body.writeUInt32LE(node.children === null ? 0o100644 : 0o40755, 21);
    body.writeUInt32LE(1, 33);
    body.writeUInt32LE(64, 49);
    body.writeUInt32LE(4096, 57);
    return body;
  };

  const answer = (type: number, f: Buffer): Buffer | number => {
    switch (type) {
      case T.walk:
        return walk(f);
      case T.getattr: {
        const node = fids.get(f.readUInt32LE(7));
        return node === undefined ? ENOENT : attributes(node);
      }
      case T.lopen: {
        const node = fids.get(f.readUInt32LE(7));
        return node === undefined ? ENOENT : qid(node, 4);
      }
      case T.lcreate: {
        const node = make(f, null);
        if (node === null) return ENOENT;
        fids.set(f.readUInt32LE(7), node);
        return qid(node, 4);
      }
      case T.mkdir: {
        const node = make(f, new Map());
        return node === null ? ENOENT : qid(node, 0);
      }
      case T.unlinkat:
        return unlink(f);
      case T.clunk:
        fids.delete(f.readUInt32LE(7));
        return NOTHING;
      case T.version:
        return f.subarray(HEADER_BYTES);
      case T.attach:
        fids.set(f.readUInt32LE(7), root);
        return qid(root, 0);
      case T.setattr:
      case T.fsync:
      case T.flush:
        return NOTHING;
      case T.statfs:
        return Buffer.alloc(60);
      case T.read:
      case T.readdir:
      case T.write: {
        const body = Buffer.alloc(4);
        if (type === T.write) body.writeUInt32LE(f.readUInt32LE(19), 0);
        return body;
      }
      default:
        return EOPNOTSUPP;
    }
  };

  return (frame) => {
    const type = frame[4] as number;
    const found = answer(type, frame);
    const isError = typeof found === 'number';
    const reply = Buffer.allocUnsafe(HEADER_BYTES + (isError ? 4 : found.length));
    reply.writeUInt32LE(reply.length, 0);
    reply[4] = isError ? RLERROR : type + 1;
    reply.writeUInt16LE(frame.readUInt16LE(5), 5);
    if (isError) reply.writeUInt32LE(found, HEADER_BYTES);
    else found.copy(reply, HEADER_BYTES);
    return reply;
  };
}
