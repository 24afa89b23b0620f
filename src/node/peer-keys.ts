/**
 * Keys of the links between daemons, all derived from the one cluster key.
 *
 * The problem: one secret must serve TLS and the proofs of the handshake, and neither use may help to break the other. The
 * idea: HKDF-SHA256 with a label for each use. Proofs are HMACs over the whole transcript and the prover's role, so that a
 * proof fits one place of one handshake only: nothing can be replayed, reflected or moved to another pair of nodes.
 */
import { createHmac, hkdfSync, timingSafeEqual } from 'node:crypto';
import type { TlsOptions } from 'node:tls';

const SALT = 'tsdlm 1';
/** Fixed: the PSK identity is sent in the clear, so it says nothing. */
export const PSK_IDENTITY = 'tsdlm';
/** The cipher whose hash is SHA-256, as an external PSK of TLS 1.3 wants in Node. */
export const PEER_CIPHER = 'TLS_AES_128_GCM_SHA256';

export interface PeerKeys {
  readonly psk: Buffer;
  readonly proof: Buffer;
}

export function derivePeerKeys(clusterKey: Buffer): PeerKeys {
  const derive = (info: string): Buffer => Buffer.from(hkdfSync('sha256', clusterKey, SALT, info, 32));
  return { psk: derive('peer tls psk'), proof: derive('peer proof') };
}

/** The proof of one role over everything that was said so far (whole frames, both directions, in the order sent). */
export function proofOf(key: Buffer, role: 'dial' | 'accept', transcript: readonly Buffer[]): Buffer {
  const mac = createHmac('sha256', key);
  mac.update(role === 'dial' ? 'tsdlm dial\0' : 'tsdlm accept\0');
  for (const part of transcript) mac.update(part);
  return mac.digest();
}

export function proofIsRight(expected: Buffer, given: Uint8Array): boolean {
  return expected.length === given.length && timingSafeEqual(expected, given);
}

/** What both ends of TLS have in common: version 1.3 and nothing else, the one cipher, no session tickets. */
export const TLS_COMMON: Pick<TlsOptions, 'minVersion' | 'maxVersion' | 'ciphers' | 'secureOptions'> = {
  minVersion: 'TLSv1.3',
  maxVersion: 'TLSv1.3',
  ciphers: PEER_CIPHER,
  // SSL_OP_NO_TICKET: a resumed session saves nothing here, a ticket is one more secret to lose.
  secureOptions: 0x4000,
};
