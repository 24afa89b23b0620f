/**
 * One node being fenced: its levels, one after the other, until one has worked as a whole.
 *
 * The problem: "fenced" must mean that the node cannot act any more. A level counts only when all its methods succeeded in
 * this same attempt and all of them said so again after the last of them had (rule 15: with two power supplies both must be off
 * at one time; no success is remembered), and never before the node's lease is over, for a device may say "off" while the node
 * still works. `self` is that wait alone; it proves nothing about node-owned locks, which no lease frees (rule 2), unless the
 * machine is armed to end itself: then its end is waited for too, and it counts as `self-end`. `manual` waits for
 * a person; a confirmation counts at whatever level the run stands, for this incarnation, in this time of leading.
 * Who is fenced, and what follows, is gate.ts; the methods themselves are the host's.
 */
import type { Millis, NodeId, StartCount } from '../protocol/ids.js';
import { selfEndWaitMs } from './time-limits.js';
import type { FenceRequest, FenceTry, NodeView } from './types.js';

const FIRST_PAUSE_MS = 1000;
const LONGEST_PAUSE_MS = 30_000;
/** How long a level `manual` waits before the levels before it are tried again. */
const MANUAL_WAIT_MS = 60_000;
/** Decided here and not by the host. */
const NO_DEVICE: readonly string[] = ['self', 'manual'];
/** How a node counts as fenced whose machine has ended itself. */
export const SELF_END = 'self-end';

export interface FenceRunHost {
  fence(request: FenceRequest): void;
  note(level: 'info' | 'warn' | 'error', event: string, data: Record<string, unknown>): void;
  /** A number that no other operation of this leader has. */
  nextOp(): number;
  /** A level has worked, or failed. */
  tried(node: NodeId, startCount: StartCount, one: Omit<FenceTry, 'by' | 'at'>): void;
}

/** What the view says that matters to one run. */
export interface FenceFacts {
  node: NodeView;
  levels: readonly (readonly string[])[];
  /** Its lease is certainly over from then on. */
  overAt: Millis;
  /** Methods that are not believed any more where this node is concerned (rule 12). */
  distrusted: readonly string[];
}

export class FenceRun {
  readonly node: NodeId;
  readonly startCount: StartCount;
  private readonly reason: string;
  private readonly host: FenceRunHost;
  private level = 0;
  private attempt = 1;
  private running = false;
  private pauseMs = FIRST_PAUSE_MS;
  private resumeAt: Millis = Number.NEGATIVE_INFINITY;
  /** Methods of the present level that have not answered, by operation. */
  private readonly waiting = new Map<number, string>();
  private failure = '';
  /** What the methods of the present level said when they had worked. */
  private proof = '';
  private step: FenceRequest['step'] = 'off';
  private startedAt: Millis = 0;
  private confirmedBy = '';
  /** The present level waits for a person. */
  private isManual = false;

  constructor(node: NodeId, startCount: StartCount, reason: string, host: FenceRunHost) {
    this.node = node;
    this.startCount = startCount;
    this.reason = reason;
    this.host = host;
  }

  /** Its devices have not all been tried in vain yet: not all levels have failed, and it does not wait for a person. */
  get isFirstAttempt(): boolean {
    return this.attempt === 1 && !this.isManual;
  }

  /** Goes on; gives the methods that ended the node, joined with '+', once that is proven. */
  tick(now: Millis, facts: FenceFacts): string | null {
    const { node, levels, overAt } = facts;
    if (this.confirmedBy !== '') return now >= overAt ? this.succeed(now, ['manual'], `confirmed by ${this.confirmedBy}`) : null;
    if (now < this.resumeAt) return null;
    const methods = levels[this.level % Math.max(1, levels.length)] ?? ['self'];
    if (!this.running) this.start(now, methods, facts);
    if (this.waiting.size > 0) return null;
    const isEnding = endsItself(methods, facts);
    if (this.failure === '') this.judge(now, methods, node, isEnding);
    if (this.failure !== '') {
      this.nextLevel(now, methods, levels.length);
      return null;
    }
    if (methods.includes('manual')) return null;
    if (this.step === 'off' && !methods.includes('self')) {
      this.ask('verify', methods);
      return null;
    }
    if (!isEnding) return now >= overAt ? this.succeed(now, methods, this.proof) : null;
    if (now < overAt + selfEndWaitMs(node.armedMs)) return null;
    const shown = methods.map((method) => (method === 'self' ? SELF_END : method));
    return this.succeed(now, shown, this.proof === '' ? `its machine ends itself within ${node.armedMs} ms` : this.proof);
  }

  /** A person vouches for it: what devices are still at does not matter any more. */
  confirm(by: string): void {
    if (this.confirmedBy !== '') return;
    this.confirmedBy = by;
    this.waiting.clear();
    const { node, startCount } = this;
    this.host.note('warn', 'fence-confirmed', { node, startCount, by });
  }

  /** An operation of this run ended; false when it is none of ours. */
  done(op: number, ok: boolean, detail: string): boolean {
    const method = this.waiting.get(op);
    if (method === undefined) return false;
    this.waiting.delete(op);
    if (ok && this.step === 'off') this.proof = this.proof === '' ? detail : `${this.proof}; ${detail}`;
    if (!ok) this.failure = this.failure === '' ? `${method}: ${detail}` : `${this.failure}; ${method}: ${detail}`;
    return true;
  }

  /** A method was started and has not answered. */
  get isUnderWay(): boolean {
    return this.waiting.size > 0;
  }

  dump(): Record<string, unknown> {
    return {
      node: this.node,
      level: this.level,
      attempt: this.attempt,
      waiting: [...this.waiting.values()],
      step: this.step,
      confirmedBy: this.confirmedBy,
      reason: this.reason,
    };
  }

  private start(now: Millis, methods: readonly string[], { node, distrusted }: FenceFacts): void {
    this.running = true;
    this.failure = '';
    this.proof = '';
    this.startedAt = now;
    this.isManual = methods.includes('manual');
    const liar = methods.find((method) => distrusted.includes(method));
    if (liar === undefined) this.ask('off', methods);
    else
      this.failure = `${liar}: has called ${node.name} off while it ran, and is not believed before: tsdlm fence trust ${node.name} ${liar}`;
  }

  private succeed(now: Millis, methods: readonly string[], detail: string): string {
    this.tried(now, methods, true, detail === '' ? 'its lease is over' : detail);
    return methods.join('+');
  }

  private tried(now: Millis, methods: readonly string[], ok: boolean, detail: string): void {
    const { level, attempt } = this;
    const tookMs = Math.round(now - this.startedAt);
    this.host.tried(this.node, this.startCount, { level, attempt, methods: methods.join('+'), ok, detail, tookMs });
  }

  private ask(step: FenceRequest['step'], methods: readonly string[]): void {
    this.step = step;
    for (const method of methods) {
      if (NO_DEVICE.includes(method)) continue;
      const op = this.host.nextOp();
      this.waiting.set(op, method);
      const { node, startCount, reason, attempt } = this;
      this.host.fence({ op, node, startCount, method, reason, attempt, step, together: methods.length });
    }
  }

  /** What stands against the levels that no device decides. */
  private judge(now: Millis, methods: readonly string[], node: NodeView, isEnding: boolean): void {
    if (methods.includes('self') && node.nodeOwned && !isEnding) {
      this.failure = 'self: the node holds node-owned locks, which only a method that ends the machine frees';
    } else if (methods.includes('manual') && now - this.startedAt >= MANUAL_WAIT_MS) {
      this.failure = `manual: nobody has verified that it is off and said so with: tsdlm fence confirm ${node.name}`;
    }
  }

  private nextLevel(now: Millis, methods: readonly string[], levels: number): void {
    this.tried(now, methods, false, this.failure);
    this.host.note('error', 'fence-failed', {
      node: this.node,
      level: this.level,
      methods: methods.join('+'),
      attempt: this.attempt,
      detail: this.failure.slice(0, 500),
    });
    this.running = false;
    this.level++;
    if (this.level < levels) return;
    this.level = 0;
    this.attempt++;
    this.resumeAt = now + this.pauseMs;
    this.pauseMs = Math.min(2 * this.pauseMs, LONGEST_PAUSE_MS);
  }
}

/** `self` frees what the node owns: its machine is armed to end itself, and has not been seen to survive that (rule 12). */
function endsItself(methods: readonly string[], { node, distrusted }: FenceFacts): boolean {
  return methods.includes('self') && node.nodeOwned && node.armedMs > 0 && !distrusted.includes(SELF_END);
}
