/**
 * The handshake of one connection as a state machine: messages in, messages out, no socket.
 *
 * The problem: until the key is proven the other side may be anybody, and each side must learn nothing about this cluster
 * that it could not know. The idea: a fixed order of messages (see src/protocol/link-messages.ts), each side's Hello goes out
 * only after the other side's proof was right, and each proof covers everything said before it.
 *
 * Left to others: bytes, time limits and closing (peer-connection.ts), what a Hello must say (src/protocol/handshake.ts).
 */
import { randomBytes } from 'node:crypto';
import { errorCodeOf, TsdlmError } from '../protocol/errors.js';
import { checkChallenge, PEER_MINOR, PEER_VERSIONS, type Versions } from '../protocol/handshake.js';
import type { NodeId } from '../protocol/ids.js';
import { type Challenge, type Hello, type LinkMessage, NONCE_BYTES, PEER_MAGIC } from '../protocol/link-messages.js';
import { type PeerKeys, proofIsRight, proofOf } from './peer-keys.js';

export interface HandshakeOptions {
  role: 'dial' | 'accept';
  self: NodeId;
  /** Dial: whom; accept: 0, the other side will say. */
  peer: NodeId;
  keys: PeerKeys;
  versions?: Versions;
  /** Our Hello for this peer, made when it is sent. */
  hello(peer: NodeId): Hello;
  /** Judges the other side's Hello; null = fine. */
  judge(challenge: Challenge, hello: Hello): TsdlmError | null;
  /** Appends a message and returns the bytes of its frame. */
  send(m: LinkMessage): Buffer;
}

export interface HandshakeResult {
  peer: NodeId;
  own: Hello;
  theirs: Hello;
  /** The other side may append fields that we do not know. */
  lenient: boolean;
}

type Step = 'challenge' | 'proof' | 'hello' | 'helloProof' | 'ready' | 'over';

export class Handshake {
  readonly #o: HandshakeOptions;
  #step: Step = 'challenge';
  #transcript: Buffer[] = [];
  #challenge: Challenge | null = null;
  #hello: Hello | null = null;
  #own: Hello | null = null;
  /** The other side has proven that it has the key. */
  #proven = false;
  #refused = false;

  constructor(options: HandshakeOptions) {
    this.#o = options;
    if (options.role === 'dial') this.#say(this.#makeChallenge(options.peer));
  }

  /** The number the other side claims, as soon as it has; not proven before the end. */
  get claimedPeer(): NodeId {
    return this.#challenge?.from ?? this.#o.peer;
  }
  get isProven(): boolean {
    return this.#proven;
  }
  /** Start count in our Hello; 0 before it was sent. */
  get ownStartCount(): number {
    return this.#own?.incarnation.startCount ?? 0;
  }
  /** The other side has sent a Refusal. */
  get isRefused(): boolean {
    return this.#refused;
  }

  /**
   * Takes the next message of the other side; `frame` are its bytes, length word included. Returns the result when the link
   * is up. Throws TsdlmError: the connection must be closed, after a Refusal unless the other side sent one.
   */
  take(m: LinkMessage, frame: Buffer): HandshakeResult | null {
    if (m.k === 'LinkRefusal') {
      this.#refused = true;
      throw refusedBy(this.claimedPeer, m.code, m.text);
    }
    const step = this.#step;
    const before = this.#transcript.length;
    this.#transcript.push(Buffer.from(frame));
    if (step === 'challenge' && m.k === 'LinkChallenge') return this.#onChallenge(m);
    if (step === 'proof' && m.k === 'LinkProof') {
      this.#verify(m.mac, before);
      this.#proven = true;
      this.#sayHello();
      this.#step = 'hello';
      return null;
    }
    if (step === 'hello' && m.k === 'LinkHello') {
      this.#hello = m;
      this.#step = 'helloProof';
      return null;
    }
    if (step === 'helloProof' && m.k === 'LinkProof') {
      this.#verify(m.mac, before);
      this.#proven = true;
      return this.#onHello();
    }
    if (step === 'ready' && m.k === 'LinkReady') return this.#done();
    throw new TsdlmError('TSDLM_PROTOCOL', `${m.k} arrived where the handshake expects ${step}`);
  }

  #onChallenge(m: Challenge): null {
    this.#challenge = m;
    const error = checkChallenge(m, this.#o.versions);
    if (error) throw error;
    if (this.#o.role === 'dial') {
      this.#step = 'proof';
    } else {
      this.#say(this.#makeChallenge(m.from));
      this.#sayProof();
      this.#step = 'hello';
    }
    return null;
  }

  #onHello(): HandshakeResult | null {
    const error = this.#o.judge(this.#challenge as Challenge, this.#hello as Hello);
    if (error) throw error;
    if (this.#o.role === 'accept') {
      this.#sayHello();
      this.#step = 'ready';
      return null;
    }
    this.#o.send({ k: 'LinkReady' });
    return this.#done();
  }

  #done(): HandshakeResult {
    this.#step = 'over';
    this.#transcript = [];
    const challenge = this.#challenge as Challenge;
    const newer = challenge.versionMax > (this.#o.versions ?? PEER_VERSIONS).versionMax;
    return {
      peer: challenge.from,
      own: this.#own as Hello,
      theirs: this.#hello as Hello,
      lenient: newer || challenge.minor > PEER_MINOR,
    };
  }

  #makeChallenge(to: NodeId): Challenge {
    return {
      k: 'LinkChallenge',
      magic: PEER_MAGIC,
      ...(this.#o.versions ?? PEER_VERSIONS),
      minor: PEER_MINOR,
      from: this.#o.self,
      to,
      nonce: randomBytes(NONCE_BYTES),
    };
  }

  #sayHello(): void {
    this.#own = this.#o.hello((this.#challenge as Challenge).from);
    this.#say(this.#own);
    this.#sayProof();
  }

  #sayProof(): void {
    this.#say({ k: 'LinkProof', mac: proofOf(this.#o.keys.proof, this.#o.role, this.#transcript) });
  }

  #say(m: LinkMessage): void {
    this.#transcript.push(Buffer.from(this.#o.send(m)));
  }

  #verify(mac: Uint8Array, before: number): void {
    const role = this.#o.role === 'dial' ? 'accept' : 'dial';
    const expected = proofOf(this.#o.keys.proof, role, this.#transcript.slice(0, before));
    if (!proofIsRight(expected, mac)) {
      throw new TsdlmError(
        'TSDLM_AUTH_FAILED',
        `the side that says it is node ${this.claimedPeer} does not have our cluster key: the key file must be equal on all nodes`,
      );
    }
  }
}

/** The error that a Refusal of the other side stands for. */
export function refusedBy(peer: NodeId, code: number, text: string): TsdlmError {
  return new TsdlmError(errorCodeOf(code) ?? 'TSDLM_PROTOCOL', `node ${peer} refused the connection: ${text}`);
}
