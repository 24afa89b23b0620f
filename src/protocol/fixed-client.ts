/**
 * Fixed layouts of the four messages that make a lock cycle on the local socket. Same idea and rules as fixed-peer.ts.
 */
import { type BodyReader, putF64, putLvb, putText, putU32, putU53 } from './bytes.js';
import type { ClientMessage, DaemonMessage } from './client-messages.js';
import type { FixedDecode, FixedEncode } from './fixed-peer.js';
import { DOMAIN_BYTES_MAX, NAME_BYTES_MAX, WHY_BYTES_MAX } from './limits.js';

type Msg<K extends (ClientMessage | DaemonMessage)['k']> = Extract<ClientMessage | DaemonMessage, { k: K }>;
type HotClient = 'ClientLock' | 'ClientUnlock' | 'DaemonGranted' | 'DaemonDone';

const modeOf = (r: BodyReader): 0 | 1 | 2 => r.upTo(2, 'mode') as 0 | 1 | 2;

export const FIXED_CLIENT_ENCODE: { [K in HotClient]: FixedEncode<Msg<K>> } = {
  ClientLock: (b, at, m) => {
    let p = putU53(b, at, m.rid);
    p = putText(b, putText(b, p, m.domain, DOMAIN_BYTES_MAX), m.name, NAME_BYTES_MAX);
    b[p] = m.mode;
    b[p + 1] = m.flags;
    p = putF64(b, p + 2, m.timeoutMs);
    return putText(b, p, m.why, WHY_BYTES_MAX);
  },
  ClientUnlock: (b, p, m) => putLvb(b, putU53(b, putU53(b, p, m.rid), m.lock), m.lvb),
  DaemonGranted: (b, at, m) => {
    let p = putU53(b, at, m.rid);
    b[p] = m.mode;
    p = putU53(b, putU32(b, p + 1, m.te), m.tc);
    p = putF64(b, p, m.deadline);
    b[p] = m.lvbState;
    return putU53(b, putLvb(b, p + 1, m.lvb), m.id);
  },
  DaemonDone: (b, p, m) => putU53(b, p, m.rid),
};

export const FIXED_CLIENT_DECODE: { [K in HotClient]: FixedDecode<Msg<K>> } = {
  ClientLock: (r) => ({
    k: 'ClientLock',
    rid: r.u53(),
    domain: r.text(DOMAIN_BYTES_MAX, 1, true, true),
    name: r.text(NAME_BYTES_MAX, 1, true, false),
    mode: modeOf(r),
    flags: r.u8(),
    timeoutMs: r.num(),
    why: r.text(WHY_BYTES_MAX, 0, false, false),
  }),
  ClientUnlock: (r) => ({ k: 'ClientUnlock', rid: r.u53(), lock: r.u53(), lvb: r.lvb() }),
  DaemonGranted: (r) => ({
    k: 'DaemonGranted',
    rid: r.u53(),
    mode: modeOf(r),
    te: r.u32(),
    tc: r.u53(),
    deadline: r.num(),
    lvbState: r.upTo(2, 'lvbState') as 0 | 1 | 2,
    lvb: r.lvb(),
    id: r.u53(),
  }),
  DaemonDone: (r) => ({ k: 'DaemonDone', rid: r.u53() }),
};
