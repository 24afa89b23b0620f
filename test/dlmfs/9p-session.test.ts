/** Every message of 9P2000.L, one by one: what it is answered, and what a client that breaks the rules is answered. */
import t from 'tap';
import { decode, encode } from '../../src/dlmfs/9p-codec.js';
import {
  type Body,
  MESSAGES,
  type Message,
  type MessageName,
  NOFID,
  NOTAG,
  type RequestName,
} from '../../src/dlmfs/9p-messages.js';
import { Wire } from './9p-bed.js';
import { Bed } from './bed.js';

const RW = 2;
const NB = 0o4000;

async function attached(): Promise<{ bed: Bed; wire: Wire; root: number }> {
  const bed = new Bed([1], []);
  const wire = new Wire(bed, 'A', 1);
  await wire.rpc.version();
  return { bed, wire, root: await wire.rpc.attach() };
}

/** A domain 'd' with an open lock 'l'. */
async function withFile(): Promise<{ bed: Bed; wire: Wire; root: number; dir: number; file: number }> {
  const { bed, wire, root } = await attached();
  const made = wire.rpc.call('Tmkdir', { dfid: root, name: 'd', mode: 0o755, gid: 7 });
  await bed.settle();
  await made;
  const dir = await wire.rpc.walk(root, ['d']);
  const file = await wire.rpc.walk(root, ['d']);
  const created = wire.rpc.call('Tlcreate', { fid: file, name: 'l', flags: RW, mode: 0o640, gid: 8 });
  await bed.settle();
  await created;
  return { bed, wire, root, dir, file };
}

async function errnoOf(work: Promise<unknown>): Promise<string> {
  return work.then(
    () => 'ok',
    (error: { code?: string; message: string }) => error.code ?? error.message,
  );
}

t.test('the codec: every message survives encoding and decoding', (t) => {
  const values: Record<string, unknown> = {
    u8: 200,
    u16: 60_000,
    u32: 4_000_000_000,
    u64: 2 ** 53 - 1,
    str: 'näme',
    names: ['a', 'ü', ''],
    qid: { type: 0x80, version: 1, path: 2 ** 40 + 5 },
    qids: [{ type: 0, version: 0, path: 9 }],
    data: Buffer.from([1, 2, 3]),
  };
  for (const [k, { fields }] of Object.entries(MESSAGES)) {
    const body = Object.fromEntries(Object.entries(fields).map(([name, kind]) => [name, values[kind]]));
    const message = { k: k as MessageName, tag: 77, ...body } as unknown as Message;
    const bytes = encode(message);
    t.equal(bytes.readUInt32LE(0), bytes.length, k);
    const back = decode(bytes) as unknown as Record<string, unknown>;
    for (const [name, kind] of Object.entries(fields)) {
      if (kind === 'data') t.same(Buffer.from(back[name] as Uint8Array), values.data, `${k}.${name}`);
      else t.same(back[name], values[kind], `${k}.${name}`);
    }
    // One byte less or more is malformed, whatever the message.
    const more = Buffer.concat([bytes, Buffer.alloc(1)]);
    more.writeUInt32LE(more.length, 0);
    t.equal(decode(more).k, 'malformed');
    if (bytes.length > 7) {
      const less = Buffer.from(bytes.subarray(0, -1));
      less.writeUInt32LE(less.length, 0);
      t.equal(decode(less).k, 'malformed');
    }
  }
  t.end();
});

t.test('Tversion: agrees on a size, knows one version, resets the session', async (t) => {
  const bed = new Bed([1], []);
  const wire = new Wire(bed, 'A', 1);
  t.equal(await wire.rpc.version(8192), 8192);
  t.equal(await wire.rpc.version(2 ** 31), 65536, 'never more than the server takes');
  t.same((await wire.rpc.call('Tversion', { msize: 8192, version: '9P2000.u' })).version, 'unknown');
  t.equal(await errnoOf(wire.rpc.call('Tversion', { msize: 100, version: '9P2000.L' })), 'EINVAL');
  await wire.rpc.version();
  await wire.rpc.attach();
  await wire.rpc.version();
  t.equal(wire.session.counts.fids, 0);
  t.equal(wire.orphaned.length, 1, 'the mount of before has ended');
  t.same(wire.faults, []);
});

t.test('attach, walk, clunk', async (t) => {
  const { wire, root, dir, file } = await withFile();
  const { rpc } = wire;
  t.equal(
    await errnoOf(rpc.call('Tattach', { fid: root, afid: NOFID, uname: '', aname: '', nUname: NOFID })),
    'EINVAL',
    'a fid in use',
  );
  t.equal(
    await errnoOf(rpc.call('Tattach', { fid: 900, afid: 5, uname: '', aname: '', nUname: NOFID })),
    'EINVAL',
    'no authentication',
  );
  t.equal(await errnoOf(rpc.call('Tauth', { afid: 900, uname: '', aname: '', nUname: NOFID })), 'EOPNOTSUPP');
  t.equal((await rpc.call('Twalk', { fid: root, newfid: 901, names: ['d', 'l', '..', '..', 'd'] })).qids.length, 5);
  t.equal((await rpc.call('Twalk', { fid: root, newfid: 902, names: ['d', 'no'] })).qids.length, 1, 'half a walk makes no fid');
  t.equal(await errnoOf(rpc.clunk(902)), 'EBADF');
  t.equal(await errnoOf(rpc.call('Twalk', { fid: root, newfid: 902, names: ['no', 'l'] })), 'ENOENT');
  t.equal(await errnoOf(rpc.call('Twalk', { fid: root, newfid: 902, names: ['d', 'l', 'x'] })), 'ok', 'stops behind the file');
  t.equal(await errnoOf(rpc.call('Twalk', { fid: 999, newfid: 903, names: [] })), 'EBADF');
  t.equal(await errnoOf(rpc.call('Twalk', { fid: root, newfid: dir, names: [] })), 'EINVAL', 'newfid in use');
  t.equal(await errnoOf(rpc.call('Twalk', { fid: root, newfid: NOFID, names: [] })), 'EINVAL');
  t.equal(await errnoOf(rpc.call('Twalk', { fid: file, newfid: 903, names: [] })), 'EBADF', 'an open fid does not walk');
  t.equal(await errnoOf(rpc.call('Twalk', { fid: 901, newfid: 901, names: [] })), 'ok', 'onto itself');
  t.equal(await errnoOf(rpc.clunk(901)), 'ok');
  t.equal(await errnoOf(rpc.clunk(901)), 'EBADF');
});

t.test('open, read, write, and what they refuse', async (t) => {
  const { bed, wire, root, dir, file } = await withFile();
  const { rpc } = wire;
  t.equal(await errnoOf(rpc.call('Tlopen', { fid: file, flags: 0 })), 'EBADF', 'open already');
  const again = await rpc.walk(root, ['d', 'l']);
  t.equal(await errnoOf(rpc.call('Tread', { fid: again, offset: 0, count: 64 })), 'EBADF', 'not open');
  t.equal(await errnoOf(rpc.call('Twrite', { fid: again, offset: 0, data: Buffer.from('x') })), 'EBADF');
  // CREATE and EXCL come along when the file was there.
  const opened = rpc.call('Tlopen', { fid: again, flags: 0o300 });
  await bed.settle();
  t.equal((await opened).qid.type, 0);
  t.equal((await rpc.call('Twrite', { fid: file, offset: 0, data: Buffer.from('hello') })).count, 5);
  t.equal(Buffer.from((await rpc.call('Tread', { fid: again, offset: 1, count: 3 })).data).toString(), 'ell');
  t.equal((await rpc.call('Tread', { fid: again, offset: 64, count: 64 })).data.length, 0);
  t.equal((await rpc.call('Tread', { fid: again, offset: 2 ** 60, count: 2 ** 32 - 1 })).data.length, 0);
  t.equal((await rpc.call('Tread', { fid: again, offset: 0, count: 2 ** 32 - 1 })).data.length, 64);
  t.equal(await errnoOf(rpc.call('Twrite', { fid: file, offset: 64, data: Buffer.from('x') })), 'ENOSPC');
  t.equal(await errnoOf(rpc.call('Twrite', { fid: again, offset: 0, data: Buffer.from('x') })), 'EBADF', 'opened to read');
  t.equal(await errnoOf(rpc.call('Tlopen', { fid: dir, flags: RW })), 'EISDIR');
  t.equal(await errnoOf(rpc.call('Tlopen', { fid: dir, flags: NB })), 'ok', 'a directory is no lock');
  t.equal(await errnoOf(rpc.call('Tread', { fid: dir, offset: 0, count: 9 })), 'EISDIR');
  t.equal(await errnoOf(rpc.call('Treaddir', { fid: again, offset: 0, count: 99 })), 'ENOTDIR');
});

t.test('O_APPEND: dlmfs takes it away, so writes follow a position of their own', async (t) => {
  const { bed, wire, root } = await withFile();
  const fid = await wire.rpc.walk(root, ['d', 'l']);
  const opened = wire.rpc.call('Tlopen', { fid, flags: RW | 0o2000 });
  await bed.settle();
  await opened;
  await wire.rpc.call('Twrite', { fid, offset: 64, data: Buffer.from('ab') });
  await wire.rpc.call('Twrite', { fid, offset: 64, data: Buffer.from('cd') });
  t.equal(Buffer.from((await wire.rpc.call('Tread', { fid, offset: 0, count: 4 })).data).toString(), 'abcd');
});

t.test('attributes and statfs', async (t) => {
  const { wire, root, file } = await withFile();
  const { rpc } = wire;
  const none = { mode: 0, uid: 0, gid: 0, size: 0, atimeSec: 0, atimeNsec: 0, mtimeSec: 0, mtimeNsec: 0 };
  t.match(await rpc.call('Tgetattr', { fid: file, mask: 0x3fff }), { valid: 0x7ff, mode: 0o100640, gid: 8, size: 64, nlink: 1 });
  await rpc.call('Tsetattr', {
    ...none,
    fid: file,
    valid: 0x1bf,
    mode: 0o100600,
    uid: 1,
    gid: 2,
    size: 5,
    atimeSec: 3,
    mtimeSec: 4,
    mtimeNsec: 5e8,
  });
  t.match(await rpc.call('Tgetattr', { fid: file, mask: 0x7ff }), {
    mode: 0o100600,
    uid: 1,
    gid: 2,
    size: 64,
    atimeSec: 3,
    mtimeSec: 4,
    mtimeNsec: 5e8,
  });
  t.match(await rpc.call('Tgetattr', { fid: root, mask: 0x7ff }), { mode: 0o40755, nlink: 3 });
  t.match(await rpc.call('Tstatfs', { fid: file }), { type: 0x76a9f425, bsize: 4096, namelen: 255, blocks: 0 });
  t.equal(await errnoOf(rpc.call('Tgetattr', { fid: 99, mask: 0 })), 'EBADF');
});

t.test('what dlmfs has not got', async (t) => {
  const { wire, root, dir, file } = await withFile();
  const { rpc } = wire;
  const name = 'x';
  const lock = { fid: file, type: 1, start: 0, length: 0, procId: 3, clientId: 'c' };
  t.equal(await errnoOf(rpc.call('Tsymlink', { fid: dir, name, target: 'y', gid: 0 })), 'EPERM');
  t.equal(await errnoOf(rpc.call('Tlink', { dfid: dir, fid: file, name })), 'EPERM');
  t.equal(await errnoOf(rpc.call('Tlink', { dfid: dir, fid: file, name: 'l' })), 'EEXIST');
  t.equal(await errnoOf(rpc.call('Trename', { fid: file, dfid: dir, name })), 'EPERM');
  t.equal(await errnoOf(rpc.call('Trenameat', { olddirfid: dir, oldname: 'l', newdirfid: dir, newname: name })), 'EPERM');
  t.equal(await errnoOf(rpc.call('Tmknod', { fid: dir, name, mode: 0o010644, major: 0, minor: 0, gid: 0 })), 'EPERM');
  t.equal(await errnoOf(rpc.call('Tmknod', { fid: root, name, mode: 0o100644, major: 0, minor: 0, gid: 0 })), 'EPERM');
  t.equal(
    await errnoOf(rpc.call('Tmknod', { fid: dir, name, mode: 0o100644, major: 0, minor: 0, gid: 0 })),
    'ok',
    'but a file without a lock',
  );
  t.equal(await errnoOf(rpc.call('Treadlink', { fid: file })), 'EINVAL');
  t.equal(await errnoOf(rpc.call('Txattrwalk', { fid: file, newfid: 90, name })), 'EOPNOTSUPP');
  t.equal(await errnoOf(rpc.call('Txattrcreate', { fid: file, name, size: 3, flags: 0 })), 'EOPNOTSUPP');
  t.match(await rpc.call('Tlock', { ...lock, flags: 1 }), { status: 0 });
  t.match(await rpc.call('Tgetlock', lock), { type: 2, procId: 3, clientId: 'c' });
  t.equal(await errnoOf(rpc.call('Tfsync', { fid: file, datasync: 0 })), 'ok');
});

t.test('Tremove removes the fid, whatever becomes of the file', async (t) => {
  const { bed, wire, root, file } = await withFile();
  const { rpc } = wire;
  const open = errnoOf(rpc.call('Tremove', { fid: file }));
  await bed.settle();
  t.equal(await open, 'EBUSY', 'it is open, by this very fid');
  t.equal(await errnoOf(rpc.clunk(file)), 'EBADF');
  const again = await rpc.walk(root, ['d', 'l']);
  const removed = errnoOf(rpc.call('Tremove', { fid: again }));
  await bed.settle();
  t.equal(await removed, 'ok');
  t.equal(await errnoOf(rpc.walk(root, ['d', 'l'])), 'ENOENT');
  const dir = await rpc.walk(root, ['d']);
  t.equal(await errnoOf(rpc.call('Tremove', { fid: dir })), 'ok');
  t.equal(await errnoOf(rpc.call('Tremove', { fid: root })), 'EBUSY');
});

t.test('reading a large directory while it changes gives every entry that stays exactly once', async (t) => {
  const { wire, dir } = await withFile();
  const { rpc } = wire;
  const names = Array.from({ length: 500 }, (_, i) => `f${i}`);
  const mknod = (name: string): Promise<unknown> =>
    rpc.call('Tmknod', { fid: dir, name, mode: 0o100644, major: 0, minor: 0, gid: 0 });
  for (const name of names) await mknod(name);
  const reader = await rpc.walk(dir, []);
  await rpc.call('Tlopen', { fid: reader, flags: 0 });
  const { decodeEntries } = await import('../../src/dlmfs/9p-codec.js');
  const seen: string[] = [];
  for (let offset = 0, round = 0; ; round++) {
    const entries = decodeEntries((await rpc.call('Treaddir', { fid: reader, offset, count: 300 })).data);
    const last = entries.at(-1);
    if (last === undefined) break;
    seen.push(...entries.map((e) => e.name));
    offset = last.offset;
    const gone = names[round * 3];
    if (gone !== undefined && round % 2 === 0) await rpc.call('Tunlinkat', { dirfid: dir, name: gone, flags: 0 });
    await mknod(`new${round}`);
    if (round === 5) await rpc.call('Treaddir', { fid: reader, offset: 0, count: 300 });
  }
  t.equal(new Set(seen).size, seen.length, 'nothing twice');
  const gone = new Set(names.filter((_, i) => i % 6 === 0));
  t.ok(
    names.filter((n) => !gone.has(n)).every((n) => seen.includes(n)),
    'all that stayed',
  );
  t.equal(await errnoOf(rpc.call('Treaddir', { fid: reader, offset: 0, count: 5 })), 'EINVAL', 'no room for one entry');
});

// --- Clients that break the rules -----------------------------------------------------------------------------------------

/** Sends bytes as they are, and gives what is answered to that tag: an errno number, a name, or 'closed'. */
async function raw(wire: Wire, bytes: Buffer): Promise<string> {
  const strays = wire.rpc.strays.length;
  wire.raw(bytes);
  await Promise.resolve();
  if (wire.isClosed) return 'closed';
  const answer = wire.rpc.strays[strays];
  return answer === undefined ? 'nothing' : answer.k === 'Rlerror' ? String(answer.ecode) : answer.k;
}
function frame(type: number, tag: number, body: Buffer, size = 7 + body.length): Buffer {
  const head = Buffer.alloc(7);
  head.writeUInt32LE(size, 0);
  head.writeUInt8(type, 4);
  head.writeUInt16LE(tag, 5);
  return Buffer.concat([head, body]);
}
function request<N extends RequestName>(k: N, tag: number, body: Body<N>): Buffer {
  return encode({ k, tag, ...body } as unknown as Message);
}

t.test('hostile: sizes, types, tags, fids, names', async (t) => {
  const closed = async (what: string, bytes: Buffer): Promise<void> => {
    const { wire } = await attached();
    t.equal(await raw(wire, bytes), 'closed', what);
    t.equal(wire.faults.length, 1, `${what}: counted`);
  };
  await closed('a size of 3', Buffer.from([3, 0, 0, 0, 100, 0, 0]));
  await closed('a size of 4 GB', Buffer.from([255, 255, 255, 255, 100, 0, 0]));
  await closed('a size above msize', frame(110, 1, Buffer.alloc(0), 65_537));

  const { bed, wire, root, file } = await withFile();
  for (const type of [0, 6, 7, 10, 99, 106, 107, 126, 255]) {
    t.equal(await raw(wire, frame(type, 500, Buffer.alloc(4))), '95', `unknown type ${type}: EOPNOTSUPP`);
  }
  t.equal(await raw(wire, frame(121, 500, Buffer.alloc(0))), '95', 'a reply as a request');
  t.equal(await raw(wire, frame(110, 500, Buffer.alloc(3))), '71', 'a body that is too short: EPROTO');
  const names17 = Array.from({ length: 17 }, () => 'd');
  t.equal(await raw(wire, request('Twalk', 500, { fid: root, newfid: 800, names: names17 })), '71', 'a walk of 17 names');
  t.equal(await raw(wire, frame(110, 500, Buffer.from([1, 0, 0, 0, 9, 0, 0, 0, 255, 255]))), '71', 'a count without names');
  for (const [name, errno] of [
    ['a/b', '22'],
    ['nul\0', '22'],
    ['', '22'],
    ['.', '22'],
    ['..', '22'],
    ['n'.repeat(300), '36'],
  ] as const) {
    const shown = JSON.stringify(name.slice(0, 9));
    if (name !== '..')
      t.equal(await raw(wire, request('Twalk', 500, { fid: root, newfid: 800, names: [name] })), errno, `walk ${shown}`);
    t.equal(await raw(wire, request('Tmkdir', 500, { dfid: root, name, mode: 0, gid: 0 })), errno, `mkdir ${shown}`);
    const dir = await wire.rpc.walk(root, ['d']);
    t.equal(await raw(wire, request('Tlcreate', 500, { fid: dir, name, flags: 0, mode: 0, gid: 0 })), errno, `create ${shown}`);
    t.equal(await raw(wire, request('Tunlinkat', 500, { dirfid: dir, name, flags: 0 })), errno, `unlink ${shown}`);
    await wire.rpc.clunk(dir);
  }
  // Names that are no UTF-8: nobody has one, nobody can make one.
  const badName = Buffer.from([2, 0, 0xc3, 0x28]);
  const fid = Buffer.alloc(4);
  fid.writeUInt32LE(root);
  t.equal(await raw(wire, frame(72, 500, Buffer.concat([fid, badName, Buffer.alloc(8)]))), '22', 'mkdir');
  t.equal(await raw(wire, request('Tunlinkat', 500, { dirfid: root, name: 'd', flags: 0x400 })), '22', 'unknown flags');

  // A second request under a tag that waits: nobody could tell the answers apart.
  const other = new Wire(bed, 'B', 1);
  await other.rpc.version();
  const otherRoot = await other.rpc.attach();
  const made = other.rpc.call('Tmkdir', { dfid: otherRoot, name: 'd', mode: 0, gid: 0 });
  await bed.settle();
  await made;
  const waiting = await other.rpc.walk(otherRoot, ['d']);
  other.raw(request('Tlcreate', 600, { fid: waiting, name: 'l', flags: RW | 0o200, mode: 0, gid: 0 }));
  await bed.settle();
  t.equal(await raw(other, request('Tstatfs', 600, { fid: otherRoot })), 'closed', 'a tag in use');
  t.equal(await errnoOf(wire.rpc.call('Tgetattr', { fid: file, mask: 0 })), 'ok', 'the other connection has noticed nothing');
  t.same(wire.faults, []);
  t.ok(wire.refused.length > 10, 'what made no sense was counted');

  const early = new Wire(bed, 'C', 1);
  t.equal(
    await raw(early, request('Tattach', 1, { fid: 0, afid: NOFID, uname: '', aname: '', nUname: 0 })),
    'closed',
    'before Tversion',
  );
  const earlyFlush = new Wire(bed, 'C', 1);
  t.equal(await raw(earlyFlush, request('Tflush', 1, { oldtag: 5 })), 'closed');
});

t.test('hostile: a fid that is clunked or opened again while it waits', async (t) => {
  const { bed, wire } = await withFile();
  const other = new Wire(bed, 'B', 1);
  await other.rpc.version();
  const root = await other.rpc.attach();
  const made = other.rpc.call('Tmkdir', { dfid: root, name: 'd', mode: 0, gid: 0 });
  await bed.settle();
  await made;
  const dir = await other.rpc.walk(root, ['d']);
  await other.rpc.call('Tmknod', { fid: dir, name: 'l', mode: 0o100644, major: 0, minor: 0, gid: 0 });
  const fid = await other.rpc.walk(root, ['d', 'l']);
  const waiting = errnoOf(other.rpc.call('Tlopen', { fid, flags: RW }));
  await bed.settle();
  t.equal(await errnoOf(other.rpc.call('Tlopen', { fid, flags: 0 })), 'EBADF', 'one open at a time');
  t.equal(await errnoOf(other.rpc.clunk(fid)), 'ok');
  t.equal(await waiting, 'EINTR', 'and the one that waited is answered');
  await bed.settle();
  t.same(other.faults, []);
  t.same(wire.faults, []);
});

t.test('bounds: fids and waiting requests', async (t) => {
  const { wire, root } = await attached();
  let last = 'ok';
  for (let i = 0; i < 65_537 && last === 'ok'; i++) {
    last = await raw(wire, request('Twalk', 1, { fid: root, newfid: 1000 + i, names: [] }));
    if (last === 'Rwalk') last = 'ok';
    wire.rpc.strays.length = 0;
  }
  t.equal(last, '24', 'EMFILE');
  t.equal(wire.session.counts.fids, 65_536);
});

t.test('Tflush: answered at once, no late answer, and the tag may be used again at once', async (t) => {
  const { bed, wire: holder } = await withFile();
  const wire = new Wire(bed, 'B', 1);
  await wire.rpc.version();
  const root = await wire.rpc.attach();
  const made = wire.rpc.call('Tmkdir', { dfid: root, name: 'd', mode: 0, gid: 0 });
  await bed.settle();
  await made;
  t.match(await wire.rpc.call('Tflush', { oldtag: 12_345 }), { k: 'Rflush' }, 'a tag that nobody knows');
  const dir = await wire.rpc.walk(root, ['d']);
  await wire.rpc.call('Tmknod', { fid: dir, name: 'l', mode: 0o100644, major: 0, minor: 0, gid: 0 });
  const fid = await wire.rpc.walk(root, ['d', 'l']);
  const tag = wire.rpc.tag();
  const opened = wire.rpc.call('Tlopen', { fid, flags: RW }, tag);
  opened.catch(() => {});
  await bed.settle();
  t.equal(await wire.rpc.flush(tag), false, 'Rflush and no Rlopen');
  t.match(await wire.rpc.call('Tstatfs', { fid: root }, tag), { k: 'Rstatfs' }, 'the same tag again');
  await bed.settle();
  t.same(wire.rpc.strays, []);
  t.equal(await errnoOf(wire.rpc.call('Tread', { fid, offset: 0, count: 1 })), 'EBADF', 'the fid is valid, and not open');
  await wire.rpc.clunk(fid);
  t.equal(holder.faults.length + wire.faults.length, 0);
});

t.test('Tflush of an unlink that is under way: its answer never reaches a new request of the same tag', async (t) => {
  const { bed, wire, dir, file } = await withFile();
  await wire.rpc.clunk(file);
  const tag = wire.rpc.tag();
  wire.rpc.call('Tunlinkat', { dirfid: dir, name: 'l', flags: 0 }, tag).catch(() => {});
  t.equal(await wire.rpc.flush(tag), false);
  const reused = wire.rpc.call('Tmkdir', { dfid: 1, name: 'later', mode: 0, gid: 0 }, tag);
  await bed.settle();
  t.match(await reused, { k: 'Rmkdir' });
  t.same(wire.rpc.strays, []);
});

t.test('a create that would wait is answered ESTALE, one with O_EXCL waits, a try is refused', async (t) => {
  const { bed } = await withFile();
  const wire = new Wire(bed, 'B', 1);
  await wire.rpc.version();
  const root = await wire.rpc.attach();
  const made = wire.rpc.call('Tmkdir', { dfid: root, name: 'd', mode: 0, gid: 0 });
  await bed.settle();
  await made;
  const create = async (name: string, flags: number): Promise<string> => {
    const fid = await wire.rpc.walk(root, ['d']);
    let result = 'waits';
    void errnoOf(wire.rpc.call('Tlcreate', { fid, name, flags, mode: 0, gid: 0 })).then((r) => {
      result = r;
    });
    await bed.settle();
    return result;
  };
  t.equal(await create('l', RW | NB), 'ETXTBSY');
  t.equal(await create('l', RW), 'ESTALE');
  t.equal(await create('l', RW | 0o200), 'EEXIST', 'the file is there by now');
  t.equal(await create('free', RW), 'ok');
  const dir = await wire.rpc.walk(root, ['d']);
  const gone = wire.rpc.call('Tunlinkat', { dirfid: dir, name: 'l', flags: 0 });
  await bed.settle();
  await gone;
  t.equal(await create('l', RW | 0o200), 'waits');
  t.equal(wire.rpc.waiting, 1);
});

t.test('only Tclunk ends a hold: at the end of a connection waiters go and holds stay (rule 6)', async (t) => {
  const { bed, wire } = await withFile();
  wire.end();
  await bed.settle();
  t.equal(wire.orphaned.length, 1);
  t.same(
    wire.orphaned[0]?.held().map((h) => [h.domain, h.name, h.mode]),
    [['d', 'l', 2]],
  );
  t.match(
    [...bed.world.engine(1).state.own.values()].map((l) => [l.name, l.mode]),
    [['l', 2]],
  );
});

t.equal(NOTAG, 0xffff);
