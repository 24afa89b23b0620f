/**
 * The catalogue of messages between daemons.
 *
 * Two classes. *Control* messages (type < 0x40) may be lost and repeated; consensus and leases stand that by themselves.
 * *Lock* messages (type >= 0x40) are sequenced by the link: between two incarnations, inside one link generation, each
 * arrives exactly once and in order. All lock messages begin with the domain's number, the domain epoch they were sent in,
 * and the sender's token clock (rules 16, 17): the receiver judges the epoch once, at the top, before any handler.
 */
import { LVB_BYTES, NAME_BYTES_MAX, REGISTER_BATCH_MAX, WHY_BYTES_MAX } from './limits.js';
import {
  bool,
  list,
  lvb,
  lvbState,
  type MessageOf,
  message,
  mode,
  name,
  node,
  nullable,
  num,
  plain,
  record,
  text,
  u8,
  u32,
  u53,
} from './schema.js';

export const LOCK_CLASS_MIN = 0x40;

const id = text(64);

// --- Control class: consensus (Raft), heartbeat, lease, bootstrap -------------------------------------------------

/** A log entry; `cmd` is a membership command, checked by membership/commands.ts before it is used. */
export const logEntry = record('entry', { index: u53, term: u53, cmd: plain(8) });

export const RaftVote = message('RaftVote', 0x01, { term: u53, pre: bool, lastIndex: u53, lastTerm: u53 });
/**
 * `ackAgeMs`: how long ago the voter last acknowledged a heartbeat of an earlier leader, or started (rule 24). `journal`, here and
 * below: of the journal that keeps this promise; whoever has another one than the log says does not count.
 */
export const RaftVoteReply = message('RaftVoteReply', 0x02, {
  term: u53,
  pre: bool,
  granted: bool,
  ackAgeMs: num,
  journal: id,
});
export const RaftAppend = message('RaftAppend', 0x03, {
  term: u53,
  prevIndex: u53,
  prevTerm: u53,
  commit: u53,
  entries: list(logEntry, 1000),
});
/** On success `match` is the last index known equal; on refusal a hint: the last index worth trying. */
export const RaftAppendReply = message('RaftAppendReply', 0x04, { term: u53, success: bool, match: u53, journal: id });
export const RaftSnapshot = message('RaftSnapshot', 0x05, { term: u53, index: u53, lastTerm: u53, state: plain(8) });
/** Heartbeat of the leader; `sentAt` is on the leader's clock and only ever compared there. */
export const Heartbeat = message('Heartbeat', 0x06, { term: u53, commit: u53, sentAt: num });
/**
 * `echo` = the heartbeat's sentAt; `sentAt` = on the member's clock, asks for a lease from then on. `down` = peers without a link.
 * `limits` = version of the time limits that the member goes by (rule 14).
 */
export const HeartbeatAck = message('HeartbeatAck', 0x07, {
  term: u53,
  echo: num,
  sentAt: num,
  startCount: u53,
  match: u53,
  down: list(node, 254),
  limits: u32,
  journal: id,
});
/** The member's lease runs until `echo + remainingMs` on the member's clock; for the incarnation `startCount` only. */
export const Lease = message('Lease', 0x08, { term: u53, echo: num, remainingMs: num, startCount: u53 });
/** A command for the log, forwarded to the leader. Fire and forget: repeated until a view shows its effect. */
export const Propose = message('Propose', 0x09, { cmd: plain(8) });
/** First start of a cluster: who are you, and whose journals were there when yours was taken into use? */
export const BootProbe = message('BootProbe', 0x0a, {
  journalId: id,
  reply: bool,
  blank: bool,
  known: plain(5),
});
/** A leader's refusal to admit a node, so that the node can say why. */
export const Refuse = message('Refuse', 0x0b, { code: u8, startCount: u53, text: text(500) });
/** Administration across nodes (show, ls, status): a question and its answer, plain data. */
export const Query = message('Query', 0x0c, { id: u53, verb: text(32), args: plain(4) });
export const QueryReply = message('QueryReply', 0x0d, { id: u53, ok: bool, data: plain(8) });

// --- Lock class: mastery, locks, recovery ---------------------------------------------------------------------------

/** dom = domain number, dep = domain epoch, ce/cc = sender's token clock (epoch, counter). */
const head = { dom: u32, dep: u32, ce: u32, cc: u53 };

/** Who masters `name`? Asked of all domain members in parallel (o2dlm DLM_MASTER_REQUEST). */
export const MasterRequest = message('MasterRequest', 0x40, { ...head, name });
/** Answers to a MasterRequest. */
export const ANSWER_NO = 0;
export const ANSWER_YES = 1;
export const ANSWER_MAYBE = 2;
export const ANSWER_OWNER = 3;
export const ANSWER_RETRY = 4;
/** `owner` is the master for YES and OWNER, else 0; `gen` the epoch in which that mastership began. */
export const MasterReply = message('MasterReply', 0x41, { ...head, name, answer: u8, owner: node, gen: u32 });
/** Ends the sender's mastery round: owner = sender (asserts), another node (found), or 0 (withdrawn). */
export const AssertMaster = message('AssertMaster', 0x42, { ...head, name, owner: node, gen: u32 });

export const LOCK_TRY = 1;
/** The owner is the node itself, not a session. */
export const LOCK_NODE_OWNED = 2;
/** A lock of before the node's restart, which it claims from its master. */
export const LOCK_RECLAIM = 4;
/** The owner reads or writes the value block. */
export const LOCK_LVB = 8;
/** se/sc: request stamp on the requester's token clock, orders waiters after a recovery (rule 21). */
export const LockRequest = message('LockRequest', 0x43, {
  ...head,
  name,
  id: u53,
  mode,
  flags: u8,
  se: u32,
  sc: u53,
  who: text(120),
  why: text(WHY_BYTES_MAX),
});
/** AST: the lock is granted at `mode`. te/tc = token. */
export const Grant = message('Grant', 0x44, { ...head, id: u53, mode, te: u32, tc: u53, lvbState, lvb });
/** The request ended without a grant: code is a number of ERROR_CODES. A conversion leaves the old mode in force. */
export const Deny = message('Deny', 0x45, { ...head, id: u53, code: u8 });
export const ConvertRequest = message('ConvertRequest', 0x46, {
  ...head,
  name,
  id: u53,
  mode,
  flags: u8,
  se: u32,
  sc: u53,
  lvbState,
  lvb,
});
/** Releases the lock; lvbState 1 = `lvb` was written under EX, 2 = its writer died: invalid, 0 = nothing to say. */
export const UnlockRequest = message('UnlockRequest', 0x47, { ...head, name, id: u53, lvbState, lvb });
export const UnlockDone = message('UnlockDone', 0x48, { ...head, id: u53 });
/** Withdraws a waiting request or conversion; answered by Deny(CANCELLED), or by nothing when the Grant was faster. */
export const CancelRequest = message('CancelRequest', 0x49, { ...head, name, id: u53 });
/** BAST: somebody waits for `mode`, which the lock `id` is in the way of. */
export const Bast = message('Bast', 0x4a, { ...head, id: u53, mode });
/** The receiver does not master `name` (any more): the sender starts a new mastery round for request `id`. */
export const NotMaster = message('NotMaster', 0x4b, { ...head, name, id: u53 });
/** The sender forgets who masters `name` (o2dlm DLM_DEREF_LOCKRES); it waits for DerefDone before it asks anew. */
export const Deref = message('Deref', 0x4c, { ...head, name });
export const DerefDone = message('DerefDone', 0x4d, { ...head, name });

/** One lock as its holder knows it, sent to the resource's new master. want = 255: no request pending. flags 0x80: nothing held yet, 0x10: being released. ageMs: since the grant, or the request. */
export const registeredLock = record('lock', {
  name: text(NAME_BYTES_MAX),
  id: u53,
  mode,
  want: u8,
  flags: u8,
  te: u32,
  tc: u53,
  se: u32,
  sc: u53,
  lvbState,
  lvb: nullable(lvb),
  who: text(120),
  why: text(WHY_BYTES_MAX),
  ageMs: num,
});
export const Register = message('Register', 0x4e, { ...head, locks: list(registeredLock, REGISTER_BATCH_MAX) });
/**
 * A resource handed over by a master that leaves: value block and queue order, as [node, lock id] pairs. Where it knows an
 * EX holder (exNode, exId; else 0), the value block is what that one's registration says.
 */
export const handedResource = record('handed', {
  name: text(NAME_BYTES_MAX),
  lvbState,
  lvb: nullable(lvb),
  exNode: node,
  exId: u53,
  converting: list(list(u53, 2), 100_000),
  blocked: list(list(u53, 2), 100_000),
});
export const HandOver = message('HandOver', 0x4f, { ...head, resources: list(handedResource, REGISTER_BATCH_MAX) });
/** One Register or HandOver of this epoch has been handled: the sender may send another. */
export const RegisterDone = message('RegisterDone', 0x53, { ...head });
/** Barrier 1: the sender has registered and handed over everything that concerns epoch `dep`. */
export const RecoveryDone = message('RecoveryDone', 0x50, { ...head });
/** Barrier 2: the sender has all that is to be known of what it became master of in epoch `dep`: what was registered there is confirmed. */
export const RecoveryActive = message('RecoveryActive', 0x51, { ...head });

/**
 * A restarted node claims from the master what an owner of its held or waited for before (rules 1, 3). The master confirms a
 * held lock with Grant, a place in the queue by keeping it; it denies (TSDLM_NOT_HELD) a held lock that it does not know.
 */
export const Reclaim = message('Reclaim', 0x52, { ...head, lock: registeredLock });

export const CONTROL_MESSAGES = [
  RaftVote,
  RaftVoteReply,
  RaftAppend,
  RaftAppendReply,
  RaftSnapshot,
  Heartbeat,
  HeartbeatAck,
  Lease,
  Propose,
  BootProbe,
  Refuse,
  Query,
  QueryReply,
] as const;
export const LOCK_MESSAGES = [
  MasterRequest,
  MasterReply,
  AssertMaster,
  LockRequest,
  Grant,
  Deny,
  ConvertRequest,
  UnlockRequest,
  UnlockDone,
  CancelRequest,
  Bast,
  NotMaster,
  Deref,
  DerefDone,
  Register,
  HandOver,
  RecoveryDone,
  RecoveryActive,
  Reclaim,
  RegisterDone,
] as const;

export type ControlMessage = MessageOf<(typeof CONTROL_MESSAGES)[number]>;
export type LockMessage = MessageOf<(typeof LOCK_MESSAGES)[number]>;
export type PeerMessage = ControlMessage | LockMessage;
export type RegisteredLock = Extract<LockMessage, { k: 'Register' }>['locks'][number];
export type HandedResource = Extract<LockMessage, { k: 'HandOver' }>['resources'][number];
export type LogEntry = Extract<ControlMessage, { k: 'RaftAppend' }>['entries'][number];
export type { MessageOf };
export { LVB_BYTES };
