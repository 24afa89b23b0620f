/**
 * The bridge's side towards its helper: whether there is one, what it says, and which deadline it knows.
 *
 * The problem: a daemon that starts does not know what the helper of the one before still holds, and a helper may end, or stop
 * answering, at any time. The idea: no owner is let in before it is known which helper there is (`ready`); what owners of before claim is
 * compared with what the helper says it holds; and when it is gone, owners are told before they are told any later deadline.
 */
import { EX, PR } from '../protocol/modes.js';
import type { BridgedName, BridgedNames } from './bridged-names.js';
import type { HelperState, KernelPart } from './kernel-part.js';
import type { BridgeLink, LinkEvents } from './link.js';
import type { BridgeOptions, Timers } from './options.js';
import type { FromHelper } from './protocol.js';
import type { ToldDeadline } from './told-deadline.js';

/** A node's own lock that the kernel refuses is asked for again. */
const RETRY_MS = 1000;
/** Until a helper is attached requests wait; then they are refused. */
const START_MS_MAX = 10_000;
/** A helper that has not read what was sent to it for so long is given up. */
const FULL_MS_MAX = 1000;

export interface HelperSideOptions {
  bridge: BridgeOptions;
  names: BridgedNames;
  part: KernelPart;
  state: HelperState;
  told: ToldDeadline;
  timers: Timers;
  /** Names of node-owned locks that are still to be claimed from the journal. */
  journaled: Set<string>;
}

export class HelperSide implements LinkEvents {
  readonly #o: HelperSideOptions;
  readonly #link: BridgeLink;
  /** null = not known yet, '' = usable. */
  why: string | null = null;
  #fullSince = 0;
  #wasAttached = false;
  /** Of attaching: the timer of an earlier time has nothing more to say. */
  #turn = 0;
  /** Settles when it is known which helper there is, if any: before that no owner may hear of this daemon. */
  readonly ready: Promise<void>;
  #isReady: () => void = () => {};

  constructor(options: HelperSideOptions) {
    this.#o = options;
    this.ready = new Promise((resolve) => {
      this.#isReady = resolve;
    });
    const { step } = options.bridge;
    this.#link = options.bridge.link({
      attached: (names) => step(() => this.attached(names)),
      message: (message) => step(() => this.message(message)),
      detached: (why) => step(() => this.detached(why)),
      absent: () => step(() => this.absent()),
      drained: () => step(() => this.drained()),
    });
    options.timers.later(START_MS_MAX, () => {
      if (this.why !== null) return;
      this.#setState('the bridge helper does not answer');
      this.absent();
    });
  }

  get isDown(): boolean {
    return this.why !== null && this.why !== '';
  }

  send(message: Parameters<BridgeLink['send']>[0]): void {
    this.#link.send(message);
  }

  close(): void {
    this.#link.close();
  }

  /** Holds of this node end at `until`: told to the helper first; what owners may be told of it (rule 5). */
  lease(until: number): number {
    const { told, state, timers, bridge } = this.#o;
    if (state.isAttached && told.isNews(until)) {
      const isOut = this.#link.send({ k: 'until', until: bridge.toMonotonic(until), isAll: false });
      told.sent(until, isOut);
      if (isOut) this.#fullSince = 0;
      else if (this.#fullSince === 0) this.#fullSince = bridge.now();
      else if (bridge.now() - this.#fullSince > FULL_MS_MAX) {
        this.#fullSince = 0;
        // Not in the middle of the core's call.
        timers.later(0, () => this.#link.drop('the bridge helper does not read'));
      }
    }
    return told.limit(until, state.isAttached);
  }

  drained(): void {
    this.#fullSince = 0;
    if (this.#o.told.drained()) this.#o.bridge.leaseMoved();
  }

  attached(names: Extract<FromHelper, { k: 'hello' }>['names']): void {
    const { bridge, state, told, timers, part } = this.#o;
    const over = told.known;
    state.isAttached = true;
    state.isAwaited = false;
    bridge.log('info', 'bridge-attached', { names: names.length });
    told.attached();
    this.lease(bridge.core.holdUntil);
    const isFirst = !this.#wasAttached;
    this.#wasAttached = true;
    this.#o.names.attached(names, !(isFirst && bridge.hasRecord));
    for (const name of this.#o.names.all()) {
      for (const lock of [...name.locks]) part.checkClaim(lock);
      part.settle(name);
      if (name.locks.size > 0) this.#o.names.sync(name);
    }
    // Who has not come by then had a last deadline that is over; the journal's locks come by themselves.
    const turn = ++this.#turn;
    timers.later(Math.max(0, over - bridge.now()) + bridge.claimMs, () => {
      if (turn === this.#turn) this.#settled();
    });
    this.#isReady();
  }

  /** All owners of before a restart have come back, or count on nothing any more. A later death is waited for by the lease only. */
  settled(): void {
    const { told, bridge, state } = this.#o;
    if (!state.isAttached || !told.settled()) return;
    this.#turn++;
    this.#link.send({ k: 'until', until: bridge.toMonotonic(told.known), isAll: true });
    this.#settled();
  }

  /** What else the helper has nobody needs. */
  #settled(): void {
    for (const name of this.#o.names.all()) {
      const isExpected = name.isForever && this.#o.journaled.has(`${name.domain}/${name.name}`);
      if (isExpected) continue;
      name.reserved = -1;
      this.#o.names.sync(name);
    }
  }

  /** There is no helper, so nothing of before was kept. One will be started. */
  absent(): void {
    if (this.#o.state.isAttached) return;
    this.#o.state.isAwaited = false;
    this.#loseClaims();
    this.#isReady();
  }

  #loseClaims(): void {
    for (const name of this.#o.names.all()) for (const lock of [...name.locks]) this.#o.part.checkClaim(lock);
  }

  message(m: FromHelper): void {
    switch (m.k) {
      case 'have':
        this.#o.names.have(m);
        return;
      case 'refused':
        this.#refused(m);
        return;
      case 'blocked':
        for (const lock of [...(this.#o.names.find(m.domain, m.name)?.locks ?? [])]) {
          if (lock.phase === 'held' && lock.need >= PR) this.#o.bridge.events.bast(lock, EX);
        }
        return;
      case 'state':
        this.#setState(m.why);
        return;
      case 'hello':
      case 'pong':
        return;
    }
  }

  #refused(m: Extract<FromHelper, { k: 'refused' }>): void {
    const name = this.#o.names.refused(m);
    if (name === null) return;
    if (!m.isBusy) this.#o.bridge.log('warn', 'bridge-refused', { domain: m.domain, name: m.name, why: m.why });
    for (const lock of [...name.locks]) {
      if (lock.phase !== 'taking' || lock.isClaim || name.covers(lock.need)) continue;
      // An upgrade is a try in the kernel, whatever its owner asked for: two that wait for each other would never notice.
      if (!m.isBusy) this.#o.part.fail(lock, 'TSDLM_BRIDGE_DOWN');
      else if (lock.isTry || lock.told >= PR) this.#o.part.fail(lock, 'TSDLM_CONFLICT');
    }
    this.#retry(name);
  }

  /** Somebody still wants more than the kernel has: asks again, at once for owners that wait, with a pause for the node's own. */
  #retry(name: BridgedName): void {
    const locks = [...name.locks].filter((lock) => !name.covers(lock.need));
    if (locks.some((lock) => lock.phase === 'taking')) this.#o.names.sync(name);
    else if (locks.length > 0) this.#o.timers.later(RETRY_MS, () => this.#o.names.sync(name));
  }

  #setState(why: string): void {
    if (this.why === why) return;
    this.why = why;
    if (why === '') {
      this.#o.bridge.log('info', 'bridge-up', {});
      return;
    }
    this.#o.bridge.log('error', 'bridge-down', { why });
    for (const name of this.#o.names.all()) {
      for (const lock of [...name.locks]) this.#o.part.failIfTaking(lock, 'TSDLM_BRIDGE_DOWN');
    }
  }

  /** What the helper held is gone with it: the kernel may give it to others at any time. */
  detached(why: string): void {
    const { state, part, bridge } = this.#o;
    this.#setState(why);
    if (!state.isAttached) {
      this.absent();
      return;
    }
    state.isAttached = false;
    for (const name of this.#o.names.detached()) {
      for (const lock of [...name.locks]) {
        if (lock.phase === 'lost') part.forget(lock);
        if (lock.need < PR || lock.told < PR || lock.phase === 'dropping') continue;
        // Nobody can be told that a node's own lock is lost: it is taken again as soon as that is possible.
        if (lock.nodeOwned) bridge.log('error', 'bridge-broken', { domain: lock.domain, name: lock.name, why });
        else part.lose(lock, why);
      }
    }
  }
}
