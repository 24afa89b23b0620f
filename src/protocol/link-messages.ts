/**
 * The messages of the link itself: the handshake of a connection between two daemons, and what keeps it alive. They never
 * leave src/node/peer-*: everything above sees only the messages of peer-messages.ts.
 *
 * Order on a new connection, D = who dialled, A = who accepted (docs/protocol.md has the reasons):
 *
 *   D -> A  Challenge
 *   A -> D  Challenge, Proof
 *   D -> A  Hello, Proof
 *   A -> D  Hello, Proof
 *   D -> A  Ready, and everything else from now on
 *
 * Either side may send Refusal in place of its next message and closes.
 */
import { type Field, list, type MessageOf, message, node, num, record, text, u8, u32, u53 } from './schema.js';

const bytes = (n: number): Field<Uint8Array> => ({
  kind: `bytes(${n})`,
  is: (v: unknown): v is Uint8Array => v instanceof Uint8Array && v.length === n,
});

export const PEER_MAGIC = 'tsdlm peer';
export const NONCE_BYTES = 32;
export const PROOF_BYTES = 32;

/** Who am I, whom do I mean, which versions do I speak; nothing of the configuration. `nonce`: 32 fresh random bytes. */
export const LinkChallenge = message('LinkChallenge', 0x20, {
  magic: text(16),
  versionMin: u8,
  versionMax: u8,
  minor: u8,
  from: node,
  to: node,
  nonce: bytes(NONCE_BYTES),
});
/** HMAC-SHA256 over everything that was said so far, in both directions: possession of the cluster key. */
export const LinkProof = message('LinkProof', 0x21, { mac: bytes(PROOF_BYTES) });

const limits = record('limits', {
  heartbeatMs: num,
  leaseMs: num,
  marginMs: num,
  suspectMs: num,
  deadMs: num,
  electionMs: num,
  tickMs: num,
});
const incarnation = record('incarnation', { bootId: text(64), machineId: text(64), startCount: u53, journalId: text(64) });
/** The sender's half of the message stream; see src/link/link-state.ts. */
const linkOpen = record('linkOpen', {
  startCount: u53,
  peerStartCount: u53,
  generation: u53,
  received: u53,
  keptFrom: u53,
  sentLast: u53,
});

export const LinkHello = message('LinkHello', 0x22, {
  cluster: text(64),
  /** As its journal names the cluster; '' before it does. */
  clusterId: text(64),
  /** The sender's own name. */
  name: text(255),
  configSum: text(128),
  limits,
  features: list(text(32), 64),
  incarnation,
  open: linkOpen,
});
/** The dialler has accepted the other's Hello as well: the link is up. */
export const LinkReady = message('LinkReady', 0x23, {});
/** Why the connection ends: a number of ERROR_CODES and a sentence. */
export const LinkRefusal = message('LinkRefusal', 0x24, { code: u8, text: text(500) });
/** The sender has all lock messages up to `seq`. */
export const LinkAck = message('LinkAck', 0x25, { seq: u53 });
/** Sent by a side that had nothing else to say for a heartbeat; answered by a LinkPong with the same number. */
export const LinkPing = message('LinkPing', 0x26, { id: u32 });
export const LinkPong = message('LinkPong', 0x27, { id: u32 });

export const LINK_MESSAGES = [LinkChallenge, LinkProof, LinkHello, LinkReady, LinkRefusal, LinkAck, LinkPing, LinkPong] as const;
export type LinkMessage = MessageOf<(typeof LINK_MESSAGES)[number]>;
export type Challenge = MessageOf<typeof LinkChallenge>;
export type Hello = MessageOf<typeof LinkHello>;
