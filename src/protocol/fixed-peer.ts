/**
 * Fixed layouts of the hot messages between daemons.
 *
 * The problem: every lock that crosses the network costs an encode and a decode on both sides; msgpack takes two to four times
 * what plain bytes take (bench/codec.ts). The idea: the few messages of the lock path have their fields at fixed offsets, in
 * the order of their table in peer-messages.ts, each field as docs/protocol.md says for its kind. Everything else stays msgpack.
 *
 * Left to others: sequence numbers and frames (frame.ts), which messages these are (codec.ts builds its tables from here).
 */
import { type BodyReader, putLvb, putText, putU32, putU53 } from './bytes.js';
import { NAME_BYTES_MAX, WHY_BYTES_MAX } from './limits.js';
import type { LockMessage } from './peer-messages.js';

type Msg<K extends LockMessage['k']> = Extract<LockMessage, { k: K }>;
type Head = { dom: number; dep: number; ce: number; cc: number };

/** Reads one body into a message; throws TSDLM_BAD_FRAME. */
export type FixedDecode<M> = (r: BodyReader) => M;
/** Writes one body at `p` and returns the offset behind it. The caller has made room (FIXED_BYTES_MAX). */
export type FixedEncode<M> = (b: Buffer, p: number, m: M) => number;

const WHO_BYTES_MAX = 120;

function putHead(b: Buffer, p: number, m: Head): number {
  putU32(b, p, m.dom);
  putU32(b, p + 4, m.dep);
  putU32(b, p + 8, m.ce);
  return putU53(b, p + 12, m.cc);
}
const nameOf = (r: BodyReader): string => r.text(NAME_BYTES_MAX, 1, true, false);
const modeOf = (r: BodyReader): 0 | 1 | 2 => r.upTo(2, 'mode') as 0 | 1 | 2;
const lvbStateOf = (r: BodyReader): 0 | 1 | 2 => r.upTo(2, 'lvbState') as 0 | 1 | 2;

export const FIXED_PEER_ENCODE: { [K in HotPeer]: FixedEncode<Msg<K>> } = {
  MasterRequest: (b, p, m) => putText(b, putHead(b, p, m), m.name, NAME_BYTES_MAX),
  MasterReply: (b, at, m) => {
    const p = putText(b, putHead(b, at, m), m.name, NAME_BYTES_MAX);
    b[p] = m.answer;
    b[p + 1] = m.owner;
    return putU32(b, p + 2, m.gen);
  },
  AssertMaster: (b, at, m) => {
    const p = putText(b, putHead(b, at, m), m.name, NAME_BYTES_MAX);
    b[p] = m.owner;
    return putU32(b, p + 1, m.gen);
  },
  LockRequest: (b, at, m) => {
    let p = putText(b, putHead(b, at, m), m.name, NAME_BYTES_MAX);
    p = putU53(b, p, m.id);
    b[p] = m.mode;
    b[p + 1] = m.flags;
    p = putU53(b, putU32(b, p + 2, m.se), m.sc);
    return putText(b, putText(b, p, m.who, WHO_BYTES_MAX), m.why, WHY_BYTES_MAX);
  },
  Grant: (b, at, m) => {
    let p = putU53(b, putHead(b, at, m), m.id);
    b[p] = m.mode;
    p = putU53(b, putU32(b, p + 1, m.te), m.tc);
    b[p] = m.lvbState;
    return putLvb(b, p + 1, m.lvb);
  },
  UnlockRequest: (b, at, m) => {
    const p = putU53(b, putText(b, putHead(b, at, m), m.name, NAME_BYTES_MAX), m.id);
    b[p] = m.lvbState;
    return putLvb(b, p + 1, m.lvb);
  },
  UnlockDone: (b, p, m) => putU53(b, putHead(b, p, m), m.id),
  Bast: (b, at, m) => {
    const p = putU53(b, putHead(b, at, m), m.id);
    b[p] = m.mode;
    return p + 1;
  },
  Deref: (b, p, m) => putText(b, putHead(b, p, m), m.name, NAME_BYTES_MAX),
  DerefDone: (b, p, m) => putText(b, putHead(b, p, m), m.name, NAME_BYTES_MAX),
};

type HotPeer =
  | 'MasterRequest'
  | 'MasterReply'
  | 'AssertMaster'
  | 'LockRequest'
  | 'Grant'
  | 'UnlockRequest'
  | 'UnlockDone'
  | 'Bast'
  | 'Deref'
  | 'DerefDone';

// The fields of an object literal are read in the order they are written, so the literals below are the layouts.
export const FIXED_PEER_DECODE: { [K in HotPeer]: FixedDecode<Msg<K>> } = {
  MasterRequest: (r) => ({ k: 'MasterRequest', dom: r.u32(), dep: r.u32(), ce: r.u32(), cc: r.u53(), name: nameOf(r) }),
  MasterReply: (r) => ({
    k: 'MasterReply',
    dom: r.u32(),
    dep: r.u32(),
    ce: r.u32(),
    cc: r.u53(),
    name: nameOf(r),
    answer: r.u8(),
    owner: r.upTo(254, 'node'),
    gen: r.u32(),
  }),
  AssertMaster: (r) => ({
    k: 'AssertMaster',
    dom: r.u32(),
    dep: r.u32(),
    ce: r.u32(),
    cc: r.u53(),
    name: nameOf(r),
    owner: r.upTo(254, 'node'),
    gen: r.u32(),
  }),
  LockRequest: (r) => ({
    k: 'LockRequest',
    dom: r.u32(),
    dep: r.u32(),
    ce: r.u32(),
    cc: r.u53(),
    name: nameOf(r),
    id: r.u53(),
    mode: modeOf(r),
    flags: r.u8(),
    se: r.u32(),
    sc: r.u53(),
    who: r.text(WHO_BYTES_MAX, 0, false, false),
    why: r.text(WHY_BYTES_MAX, 0, false, false),
  }),
  Grant: (r) => ({
    k: 'Grant',
    dom: r.u32(),
    dep: r.u32(),
    ce: r.u32(),
    cc: r.u53(),
    id: r.u53(),
    mode: modeOf(r),
    te: r.u32(),
    tc: r.u53(),
    lvbState: lvbStateOf(r),
    lvb: r.lvb(),
  }),
  UnlockRequest: (r) => ({
    k: 'UnlockRequest',
    dom: r.u32(),
    dep: r.u32(),
    ce: r.u32(),
    cc: r.u53(),
    name: nameOf(r),
    id: r.u53(),
    lvbState: lvbStateOf(r),
    lvb: r.lvb(),
  }),
  UnlockDone: (r) => ({ k: 'UnlockDone', dom: r.u32(), dep: r.u32(), ce: r.u32(), cc: r.u53(), id: r.u53() }),
  Bast: (r) => ({ k: 'Bast', dom: r.u32(), dep: r.u32(), ce: r.u32(), cc: r.u53(), id: r.u53(), mode: modeOf(r) }),
  Deref: (r) => ({ k: 'Deref', dom: r.u32(), dep: r.u32(), ce: r.u32(), cc: r.u53(), name: nameOf(r) }),
  DerefDone: (r) => ({ k: 'DerefDone', dom: r.u32(), dep: r.u32(), ce: r.u32(), cc: r.u53(), name: nameOf(r) }),
};
