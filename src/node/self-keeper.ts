/**
 * Keeps this machine from ending itself as long as its daemon may count on its lease, and no longer (rules 2, 20).
 *
 * Where a fence level is `self`, the others free what is held here because they rely on the machine's end; so it is kept alive only
 * under a lease that is read in this very moment, and disarmed only when nobody counts on it.
 */
import type { NodeCore } from '../core/node-core.js';
import { Guard } from '../fence/guard.js';
import type { SelfEnd, SelfEndConfig, SelfEndLog } from '../fence/self-end.js';
import { Watchdog } from '../fence/watchdog.js';
import type { NodeView } from '../membership/types.js';
import type { Millis, NodeId } from '../protocol/ids.js';

export interface SelfKeeperOptions {
  config: SelfEndConfig;
  /** Socket of the guard process, where the method is carried out by one. */
  socket: string;
  self: NodeId;
  core(): NodeCore;
  now(): Millis;
  log: SelfEndLog;
}

export class SelfKeeper {
  readonly #o: SelfKeeperOptions;
  readonly #end: SelfEnd;

  constructor(options: SelfKeeperOptions) {
    const { config, socket, log } = options;
    this.#o = options;
    this.#end = config.method === 'watchdog' ? new Watchdog(config, log) : new Guard(config, socket, log);
  }

  #me(): NodeView | undefined {
    return this.#o.core().view.nodes.find((n) => n.id === this.#o.self);
  }

  /** Where no level is `self` nobody counts on the machine's end, and a node that is suspended has nothing to end for (rule 20). */
  keepAlive(): void {
    const core = this.#o.core();
    const isCounted = this.#me()?.fence.some((level) => level.includes('self')) ?? true;
    const mayLive = core.leaseUntil > this.#o.now() || (core.isSuspended && !isCounted);
    if (core.isMember && mayLive) this.#end.keepAlive();
    core.arm(isCounted ? this.#end.armedMs : 0);
  }

  /** What the others may count on is not taken back while the view says that this node owns locks. */
  async disarm(): Promise<void> {
    const me = this.#me();
    const isCounted = me?.nodeOwned === true && ['in', 'suspect', 'fencing'].includes(me.state);
    if (!isCounted) await this.#end.disarm();
    else
      this.#o.log('error', 'self-end-stays-armed', {
        why: 'this node owns locks and has not left the cluster: its machine will end',
      });
  }

  /** Ends the machine at once: something here outlived its lock. */
  endNow(why: string): void {
    this.#end.endNow(why);
  }

  warnings(): string[] {
    return this.#end.warnings();
  }
}
