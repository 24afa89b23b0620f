/** Hard limits, all checked before memory is spent on what exceeds them. Bytes and counts, never time (see time-limits.ts). */

/** Lock name: UTF-8 bytes. o2dlm has 32; longer names make a Redis-style key fit. No NUL. */
export const NAME_BYTES_MAX = 255;
/** Domain name: UTF-8 bytes, as in ocfs2 (GROUP_NAME_MAX 64 with its NUL). */
export const DOMAIN_BYTES_MAX = 63;
/** Lock value block, exactly this many bytes (DLM_LVB_LEN in fs/ocfs2/dlm/dlmapi.h). */
export const LVB_BYTES = 64;
/** `--why` text shown to those who wait. */
export const WHY_BYTES_MAX = 200;
/** One frame from a local client, length word excluded. */
export const CLIENT_FRAME_BYTES_MAX = 64 * 1024;
/** One frame between daemons (a snapshot or a batch of registrations is the largest). */
export const PEER_FRAME_BYTES_MAX = 4 * 1024 * 1024;
/** One frame before the handshake has succeeded. */
export const HANDSHAKE_FRAME_BYTES_MAX = 4 * 1024;
/** Locks and waiting requests of one client connection. */
export const SESSION_LOCKS_MAX = 1_000_000;
/** Client connections of one daemon. */
export const SESSIONS_MAX = 10_000;
/** Waiting requests on one lock resource. */
export const QUEUE_LENGTH_MAX = 100_000;
/** Bytes queued to one local client that does not read before it is cut off. */
export const CLIENT_BACKLOG_BYTES_MAX = 8 * 1024 * 1024;
/** Bytes kept for one peer (unsent and unacknowledged) before the pair is reset (rule 25). */
export const PEER_BACKLOG_BYTES_MAX = 64 * 1024 * 1024;
/** Lock-plane messages of a newer domain epoch kept per domain until our view has caught up. */
export const PARKED_MESSAGES_MAX = 100_000;
/** Locks in one Register message. */
export const REGISTER_BATCH_MAX = 500;
/** Domains of one cluster. */
export const DOMAINS_MAX = 256;
/** Voters of one cluster. */
export const VOTERS_MAX = 7;
