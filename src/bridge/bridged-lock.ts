/** A lock of a bridged domain as its owner sees it: the core's lock, but with the kernel's value block (rule 5). */
import { type LocalLock, LVB_NONE, LVB_VALID, type LvbState } from '../master/types.js';
import type { ErrorCode } from '../protocol/errors.js';
import type { Millis } from '../protocol/ids.js';
import type { Mode } from '../protocol/modes.js';

/**
 * core      the core decides; nothing of it is in the kernel
 * taking    the core has granted it, the kernel has not yet
 * held      its owner was told `told`, and the kernel has at least that
 * dropping  its owner gives it up (or mode down): the kernel first, then the core
 * undoing   the kernel refused: taken back from the core, and then its owner hears `failed`
 * lost      the core has it no more and its owner was told so; the kernel keeps it until the owner's deadline
 */
export type Phase = 'core' | 'taking' | 'held' | 'dropping' | 'undoing' | 'lost';

export class BridgedLock implements LocalLock {
  real: LocalLock | null = null;
  ctx: unknown;
  phase: Phase = 'core';
  /** What the owner was told last; -1 = nothing yet. */
  told: Mode | -1 = -1;
  /** While it is being given up: what its owner keeps. */
  leavesTo: Mode | -1 = -1;
  /** The kernel must have this for it. */
  need: Mode | -1 = -1;
  /** Of the request under way. */
  isTry = false;
  deadline: Millis = 0;
  timer: NodeJS.Timeout | null = null;
  /** Why the request is being taken back. */
  failed: ErrorCode = 'TSDLM_CONFLICT';
  /** From the journal: it belongs to the node, whatever the kernel says. */
  isJournaled = false;
  /** Its owner held it before a restart of the daemon. */
  isClaim = false;
  /** Its owner was told that it is lost; only one of the two parts is left, until the deadline. */
  isLost = false;
  /** A blocking notice that came before the owner was told of its grant. */
  bast: Mode | -1 = -1;
  #domain: string;
  #name: string;
  #value: Uint8Array | null = null;
  readonly #fallback: { nodeOwned: boolean; door: string; who: string; why: string; mode: Mode };

  constructor(o: {
    domain: string;
    name: string;
    mode: Mode;
    nodeOwned: boolean;
    door?: string;
    who: string;
    why: string;
    ctx: unknown;
  }) {
    this.#domain = o.domain;
    this.#name = o.name;
    this.ctx = o.ctx;
    this.#fallback = { nodeOwned: o.nodeOwned, door: o.door ?? '', who: o.who, why: o.why, mode: o.mode };
  }

  /** Zeros mean that there is none. */
  setValue(value: Uint8Array | null): void {
    this.#value = value?.some((byte) => byte !== 0) === true ? value : null;
  }

  get id(): number {
    return this.real?.id ?? 0;
  }
  get domain(): string {
    return this.#domain;
  }
  get name(): string {
    return this.#name;
  }
  /** As its owner knows it: the core may be a step ahead. */
  get mode(): Mode | -1 {
    return this.phase === 'taking' || this.phase === 'undoing' ? this.told : (this.real?.mode ?? -1);
  }
  get want(): Mode | -1 {
    return this.real === null ? this.#fallback.mode : this.real.want;
  }
  get te(): number {
    return this.real?.te ?? 0;
  }
  get tc(): number {
    return this.real?.tc ?? 0;
  }
  get se(): number {
    return this.real?.se ?? 0;
  }
  get sc(): number {
    return this.real?.sc ?? 0;
  }
  get lvbState(): LvbState {
    return this.#value === null ? LVB_NONE : LVB_VALID;
  }
  get lvb(): Uint8Array | null {
    return this.#value;
  }
  get nodeOwned(): boolean {
    return this.#fallback.nodeOwned;
  }
  get door(): string {
    return this.#fallback.door;
  }
  get isInUse(): boolean {
    return this.real?.isInUse ?? false;
  }
  get who(): string {
    return this.#fallback.who;
  }
  get why(): string {
    return this.#fallback.why;
  }
}

/** What a lock is called and whose it is, of one that the core has from its journal. */
export function plainOf({ domain, name, mode, want, nodeOwned, door, who, why }: LocalLock): {
  domain: string;
  name: string;
  mode: Mode;
  nodeOwned: boolean;
  door: string;
  who: string;
  why: string;
} {
  return { domain, name, mode: (mode >= 0 ? mode : want) as Mode, nodeOwned, door, who, why };
}
