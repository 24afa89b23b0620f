/**
 * The catalogue of messages between a local client and its daemon (Unix socket).
 *
 * A client numbers its own requests: `rid` is unique in its session, and the rid of a Lock request names that lock from then on.
 * Every Lock, Convert, Unlock, Cancel and LvbWrite gets exactly one answer with its rid: Granted, Denied or Done.
 * Times are absolute milliseconds on CLOCK_MONOTONIC, which both sides share (rule 10).
 */
import { WHY_BYTES_MAX } from './limits.js';
import { bool, domain, lvb, lvbState, type MessageOf, message, mode, name, num, plain, text, u8, u32, u53 } from './schema.js';

/** Versions of this catalogue that this build speaks. */
export const CLIENT_VERSION_MIN = 1;
export const CLIENT_VERSION_MAX = 1;

/**
 * First message of a client. `pid` is shown in `ls`/`show`; `label` says what the client is. `session` and `secret` of an earlier
 * DaemonWelcome, with the same pid and label, ask to go on with that session after a restart of the daemon; '' = a new one.
 */
export const ClientHello = message('ClientHello', 0x80, {
  versionMin: u8,
  versionMax: u8,
  pid: u32,
  label: text(60),
  session: text(40),
  secret: text(64),
});
/** flags: LOCK_TRY 1, LOCK_NODE_OWNED 2, LOCK_LVB 8. timeoutMs 0 = wait for ever. */
export const ClientLock = message('ClientLock', 0x81, {
  rid: u53,
  domain,
  name,
  mode,
  flags: u8,
  timeoutMs: num,
  why: text(WHY_BYTES_MAX),
});
/** New mode for lock `lock` (the rid of its Lock). lvb: written before a down-convert from EX. */
export const ClientConvert = message('ClientConvert', 0x82, { rid: u53, lock: u53, mode, flags: u8, timeoutMs: num, lvb });
export const ClientUnlock = message('ClientUnlock', 0x83, { rid: u53, lock: u53, lvb });
/** Withdraws the waiting request `target` (a Lock's or Convert's rid). The target's own answer tells the outcome. */
export const ClientCancel = message('ClientCancel', 0x84, { rid: u53, target: u53 });
/** Stores the value block under a held EX: the daemon knows it from the answer on (rule 18). */
export const ClientLvbWrite = message('ClientLvbWrite', 0x85, { rid: u53, lock: u53, lvb });
/**
 * The process group of the command this session runs; the daemon ends it when the wrapper is gone (rule 7). 0 = none any more.
 * `proof`: the group's leader was started with TSDLM_SESSION=proof in its environment, which nobody else can arrange.
 */
export const ClientGroup = message('ClientGroup', 0x86, { rid: u53, pgid: u32, graceMs: num, proof: text(64) });
/** Administration: status, nodes, ls, show, unlock and the like; answered by AdminReply. */
export const ClientAdmin = message('ClientAdmin', 0x87, { rid: u53, verb: text(32), args: plain(4) });

/**
 * After a resumed greeting: what the client held (`mode`, with the rest as it was told) or waited for (`mode` 255, then `want`) under the
 * number `rid` before its daemon was restarted. `id`, `se`, `sc` are those of DaemonGranted and DaemonQueued; `convert` is the number of
 * a conversion to `want` that waits beside a held lock. Answered by Granted (also when the request is granted later) or Denied.
 */
export const ClientReclaim = message('ClientReclaim', 0x88, {
  rid: u53,
  id: u53,
  domain,
  name,
  mode: u8,
  want: u8,
  convert: u53,
  flags: u8,
  te: u32,
  tc: u53,
  se: u32,
  sc: u53,
  lvbState,
  lvb,
  dirty: bool,
  timeoutMs: num,
  why: text(WHY_BYTES_MAX),
});
/** All that this session had has been claimed; Done when all of it is decided. What the daemon knows beyond it is released. */
export const ClientResumed = message('ClientResumed', 0x89, { rid: u53 });
/** From here on the client counts on the deadlines that this daemon told, not on that of the restart (DaemonBye). No answer. */
export const ClientSettled = message('ClientSettled', 0x8a, { rid: u53 });

/** `key` and `secret` prove, to the next daemon on this boot, that a client is the one of this session. `resumed`: it goes on. */
export const DaemonWelcome = message('DaemonWelcome', 0xa0, {
  version: u8,
  session: u53,
  key: text(40),
  secret: text(64),
  resumed: bool,
  node: u8,
  nodeName: text(64),
  cluster: text(64),
  leaseMs: num,
  heartbeatMs: num,
  daemonVersion: text(40),
});
/** Also the answer to a Convert. `id`: the lock's number on this node. token = te << 40 | tc (0 for NL). `deadline`: the hold ends then unless extended. */
export const DaemonGranted = message('DaemonGranted', 0xa1, {
  rid: u53,
  mode,
  te: u32,
  tc: u53,
  deadline: num,
  lvbState,
  lvb,
  id: u53,
});
export const DaemonDenied = message('DaemonDenied', 0xa2, { rid: u53, code: u8, text: text(500) });
export const DaemonDone = message('DaemonDone', 0xa3, { rid: u53 });
/** BAST: somebody waits for `mode` on the lock `lock`. */
export const DaemonBast = message('DaemonBast', 0xa4, { lock: u53, mode });
/**
 * All holds of this session now end at `deadline`. `suspended`: the node has no lease, grants nothing, and moves the deadline by
 * itself, for nobody frees its locks before its machine is off (rule 20).
 */
export const DaemonLease = message('DaemonLease', 0xa5, { deadline: num, suspended: bool });
/** The lock is gone; lock 0 = all locks of the session. */
export const DaemonLost = message('DaemonLost', 0xa6, { lock: u53, code: u8, text: text(500) });
export const DaemonAdminReply = message('DaemonAdminReply', 0xa7, {
  rid: u53,
  ok: bool,
  code: u8,
  text: text(2000),
  data: plain(8),
});
/**
 * The connection ends: what the client did wrong, or that the daemon stops. `deadline` > 0 (TSDLM_RESTARTING): all holds of this
 * session end then at the latest; the next daemon takes them over from a client that greets with its session before.
 */
export const DaemonBye = message('DaemonBye', 0xa8, { code: u8, text: text(500), deadline: num });
/** The request `rid` has to wait. What a client needs to claim its place after a restart of the daemon. */
export const DaemonQueued = message('DaemonQueued', 0xa9, { rid: u53, id: u53, se: u32, sc: u53 });

export const CLIENT_TO_DAEMON = [
  ClientHello,
  ClientLock,
  ClientConvert,
  ClientUnlock,
  ClientCancel,
  ClientLvbWrite,
  ClientGroup,
  ClientAdmin,
  ClientReclaim,
  ClientResumed,
  ClientSettled,
] as const;
export const DAEMON_TO_CLIENT = [
  DaemonWelcome,
  DaemonGranted,
  DaemonDenied,
  DaemonDone,
  DaemonBast,
  DaemonLease,
  DaemonLost,
  DaemonAdminReply,
  DaemonBye,
  DaemonQueued,
] as const;

export type ClientMessage = MessageOf<(typeof CLIENT_TO_DAEMON)[number]>;
export type DaemonMessage = MessageOf<(typeof DAEMON_TO_CLIENT)[number]>;
