/**
 * 9P2000.L as a table: every message with its number and fields, requests and replies, from which the codec and the types
 * follow. A reply's number is its request's plus one; a failure is always Rlerror.
 */

/** How a field travels. All numbers are little endian; `str` and `names` are counted with 16 bits, `data` with 32. */
export type Kind = 'u8' | 'u16' | 'u32' | 'u64' | 'str' | 'names' | 'qid' | 'qids' | 'data';

/** A file as the protocol names it. */
export interface Qid {
  /** QID_DIR or QID_FILE. */
  type: number;
  version: number;
  path: number;
}

interface KindTypes {
  u8: number;
  u16: number;
  u32: number;
  /** Above 2^53 not exact: such offsets are beyond every file here. */
  u64: number;
  /** Bytes that are no UTF-8 become a string that is no UTF-8 either (a lone surrogate in front), so that it matches no name. */
  str: string;
  names: string[];
  qid: Qid;
  qids: Qid[];
  data: Uint8Array;
}

const ATTR = {
  valid: 'u64',
  qid: 'qid',
  mode: 'u32',
  uid: 'u32',
  gid: 'u32',
  nlink: 'u64',
  rdev: 'u64',
  size: 'u64',
  blksize: 'u64',
  blocks: 'u64',
  atimeSec: 'u64',
  atimeNsec: 'u64',
  mtimeSec: 'u64',
  mtimeNsec: 'u64',
  ctimeSec: 'u64',
  ctimeNsec: 'u64',
  btimeSec: 'u64',
  btimeNsec: 'u64',
  gen: 'u64',
  dataVersion: 'u64',
} as const;

const LOCK = { fid: 'u32', type: 'u8', start: 'u64', length: 'u64', procId: 'u32', clientId: 'str' } as const;
const REPLY_LOCK = { type: 'u8', start: 'u64', length: 'u64', procId: 'u32', clientId: 'str' } as const;

export const MESSAGES = {
  Rlerror: { type: 7, fields: { ecode: 'u32' } },
  Tstatfs: { type: 8, fields: { fid: 'u32' } },
  Rstatfs: {
    type: 9,
    fields: {
      type: 'u32',
      bsize: 'u32',
      blocks: 'u64',
      bfree: 'u64',
      bavail: 'u64',
      files: 'u64',
      ffree: 'u64',
      fsid: 'u64',
      namelen: 'u32',
    },
  },
  Tlopen: { type: 12, fields: { fid: 'u32', flags: 'u32' } },
  Rlopen: { type: 13, fields: { qid: 'qid', iounit: 'u32' } },
  Tlcreate: { type: 14, fields: { fid: 'u32', name: 'str', flags: 'u32', mode: 'u32', gid: 'u32' } },
  Rlcreate: { type: 15, fields: { qid: 'qid', iounit: 'u32' } },
  Tsymlink: { type: 16, fields: { fid: 'u32', name: 'str', target: 'str', gid: 'u32' } },
  Rsymlink: { type: 17, fields: { qid: 'qid' } },
  Tmknod: { type: 18, fields: { fid: 'u32', name: 'str', mode: 'u32', major: 'u32', minor: 'u32', gid: 'u32' } },
  Rmknod: { type: 19, fields: { qid: 'qid' } },
  Trename: { type: 20, fields: { fid: 'u32', dfid: 'u32', name: 'str' } },
  Rrename: { type: 21, fields: {} },
  Treadlink: { type: 22, fields: { fid: 'u32' } },
  Rreadlink: { type: 23, fields: { target: 'str' } },
  Tgetattr: { type: 24, fields: { fid: 'u32', mask: 'u64' } },
  Rgetattr: { type: 25, fields: ATTR },
  Tsetattr: {
    type: 26,
    fields: {
      fid: 'u32',
      valid: 'u32',
      mode: 'u32',
      uid: 'u32',
      gid: 'u32',
      size: 'u64',
      atimeSec: 'u64',
      atimeNsec: 'u64',
      mtimeSec: 'u64',
      mtimeNsec: 'u64',
    },
  },
  Rsetattr: { type: 27, fields: {} },
  Txattrwalk: { type: 30, fields: { fid: 'u32', newfid: 'u32', name: 'str' } },
  Rxattrwalk: { type: 31, fields: { size: 'u64' } },
  Txattrcreate: { type: 32, fields: { fid: 'u32', name: 'str', size: 'u64', flags: 'u32' } },
  Rxattrcreate: { type: 33, fields: {} },
  Treaddir: { type: 40, fields: { fid: 'u32', offset: 'u64', count: 'u32' } },
  Rreaddir: { type: 41, fields: { data: 'data' } },
  Tfsync: { type: 50, fields: { fid: 'u32', datasync: 'u32' } },
  Rfsync: { type: 51, fields: {} },
  Tlock: {
    type: 52,
    fields: { fid: 'u32', type: 'u8', flags: 'u32', start: 'u64', length: 'u64', procId: 'u32', clientId: 'str' },
  },
  Rlock: { type: 53, fields: { status: 'u8' } },
  Tgetlock: { type: 54, fields: LOCK },
  Rgetlock: { type: 55, fields: REPLY_LOCK },
  Tlink: { type: 70, fields: { dfid: 'u32', fid: 'u32', name: 'str' } },
  Rlink: { type: 71, fields: {} },
  Tmkdir: { type: 72, fields: { dfid: 'u32', name: 'str', mode: 'u32', gid: 'u32' } },
  Rmkdir: { type: 73, fields: { qid: 'qid' } },
  Trenameat: { type: 74, fields: { olddirfid: 'u32', oldname: 'str', newdirfid: 'u32', newname: 'str' } },
  Rrenameat: { type: 75, fields: {} },
  Tunlinkat: { type: 76, fields: { dirfid: 'u32', name: 'str', flags: 'u32' } },
  Runlinkat: { type: 77, fields: {} },
  Tversion: { type: 100, fields: { msize: 'u32', version: 'str' } },
  Rversion: { type: 101, fields: { msize: 'u32', version: 'str' } },
  Tauth: { type: 102, fields: { afid: 'u32', uname: 'str', aname: 'str', nUname: 'u32' } },
  Rauth: { type: 103, fields: { qid: 'qid' } },
  Tattach: { type: 104, fields: { fid: 'u32', afid: 'u32', uname: 'str', aname: 'str', nUname: 'u32' } },
  Rattach: { type: 105, fields: { qid: 'qid' } },
  Tflush: { type: 108, fields: { oldtag: 'u16' } },
  Rflush: { type: 109, fields: {} },
  Twalk: { type: 110, fields: { fid: 'u32', newfid: 'u32', names: 'names' } },
  Rwalk: { type: 111, fields: { qids: 'qids' } },
  Tread: { type: 116, fields: { fid: 'u32', offset: 'u64', count: 'u32' } },
  Rread: { type: 117, fields: { data: 'data' } },
  Twrite: { type: 118, fields: { fid: 'u32', offset: 'u64', data: 'data' } },
  Rwrite: { type: 119, fields: { count: 'u32' } },
  Tclunk: { type: 120, fields: { fid: 'u32' } },
  Rclunk: { type: 121, fields: {} },
  Tremove: { type: 122, fields: { fid: 'u32' } },
  Rremove: { type: 123, fields: {} },
} as const satisfies Record<string, { type: number; fields: Readonly<Record<string, Kind>> }>;

export type MessageName = keyof typeof MESSAGES;
type FieldsOf<N extends MessageName> = (typeof MESSAGES)[N]['fields'];
/** One message: its name as `k`, its tag, its fields. */
export type Message<N extends MessageName = MessageName> = N extends MessageName
  ? { k: N; tag: number } & {
      -readonly [F in keyof FieldsOf<N>]: FieldsOf<N>[F] extends Kind ? KindTypes[FieldsOf<N>[F]] : never;
    }
  : never;
/** Its fields alone. */
export type Body<N extends MessageName> = Omit<Message<N>, 'k' | 'tag'>;
export type RequestName = Extract<MessageName, `T${string}`>;
export type ReplyName = Extract<MessageName, `R${string}`>;
export type Request = Message<RequestName>;
/** The reply to a request, when it is not Rlerror. */
export type ReplyTo<N extends RequestName> = N extends `T${infer Rest}` ? Extract<ReplyName, `R${Rest}`> : never;

export const NOTAG = 0xffff;
export const NOFID = 0xffffffff;
export const VERSION = '9P2000.L';
/** Elements of one walk. */
export const WALK_MAX = 16;
/** size[4] type[1] tag[2]. */
export const HEADER_BYTES = 7;
export const QID_BYTES = 13;
export const QID_DIR = 0x80;
export const QID_FILE = 0;
/** Tunlinkat: the name is a directory. */
export const AT_REMOVEDIR = 0x200;
/** All of Rgetattr that is meant by stat. */
export const GETATTR_BASIC = 0x7ff;

/** Tsetattr valid bits. */
export const SET_MODE = 1;
export const SET_UID = 2;
export const SET_GID = 4;
export const SET_ATIME = 0x10;
export const SET_MTIME = 0x20;
export const SET_ATIME_TO = 0x80;
export const SET_MTIME_TO = 0x100;
