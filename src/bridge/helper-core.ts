/**
 * The bridge helper without its process: all names, the daemon that talks to it, and the deadline (rule 5).
 *
 * The problem: when the daemon is killed, the kernel locks that stand for its owners must stay until the last deadline that
 * an owner was told, and must go then, also when no daemon comes back. So they are held here. What belongs to the node itself
 * stays until a daemon says otherwise. A daemon that comes back is told what is held, before it wants anything.
 */

import type { KernelFiles } from './kernel-files.js';
import { NameState } from './name-state.js';
import { BRIDGE_VERSION, type FromHelper, type ToHelper } from './protocol.js';

/** How often the mounts are looked at. */
const CHECK_MS = 1000;
/** Locks are kept so much past the deadline: owners read the same clock, but none reads it at the same instant. */
const SLACK_MS = 10;

export interface HelperCoreOptions {
  files: KernelFiles;
  /** CLOCK_MONOTONIC in milliseconds. */
  now: () => number;
  /** Nothing is held and no daemon is connected: the process may end. */
  onIdle: () => void;
  log?: (line: string) => void;
}

export class HelperCore {
  readonly #o: HelperCoreOptions;
  readonly #names = new Map<string, NameState>();
  #send: ((message: FromHelper) => void) | null = null;
  #domains: string[] = [];
  #joined = new Set<string>();
  #until = 0;
  #why: string | null = null;
  #timer: NodeJS.Timeout | null = null;
  #checker: NodeJS.Timeout | null = null;
  #isChecking = false;

  constructor(options: HelperCoreOptions) {
    this.#o = options;
  }

  /** A daemon is there. One at a time: the one before hears nothing more. */
  connect(send: (message: FromHelper) => void): void {
    this.#send = send;
    this.#stopTimer();
  }

  /**
   * The daemon is gone, and all that it sent was received. What sessions hold is theirs until the deadline. `isAlone`: no other one is
   * there already.
   */
  disconnect(isAlone = true): void {
    this.#send = null;
    for (const state of [...this.#names.values()]) state.withdraw();
    if (isAlone) this.#wait();
  }

  receive(m: ToHelper): void {
    switch (m.k) {
      case 'hello':
        this.#hello(m.version, m.domains);
        return;
      case 'want': {
        const state = this.#name(m.domain, m.name);
        state.isForever = m.isForever;
        state.want(m.level, m.isTry, m.seq);
        return;
      }
      case 'value':
        this.#names.get(keyOf(m.domain, m.name))?.value(Buffer.from(m.value, 'base64'));
        return;
      case 'until':
        this.#until = m.isAll ? m.until : Math.max(this.#until, m.until);
        return;
      case 'ping':
        this.#send?.({ k: 'pong' });
        return;
    }
  }

  /** Looks at the mounts now. */
  async check(): Promise<void> {
    if (this.#isChecking) return;
    this.#isChecking = true;
    let why = '';
    try {
      await this.#o.files.check();
      for (const domain of this.#domains) await this.#join(domain);
    } catch (error) {
      why = (error as Error).message;
    }
    this.#isChecking = false;
    if (why === this.#why) return;
    this.#why = why;
    this.#send?.({ k: 'state', why });
  }

  #hello(version: number, domains: string[]): void {
    const names = [...this.#names.values()].map(({ domain, name, kept, isForever }) => ({
      domain,
      name,
      level: kept,
      isForever,
    }));
    this.#send?.({ k: 'hello', version: BRIDGE_VERSION, names });
    if (version !== BRIDGE_VERSION) return;
    this.#domains = domains;
    this.#why = null;
    void this.check();
    // What keeps the process alive is its socket.
    this.#checker ??= setInterval(() => void this.check(), CHECK_MS).unref();
  }

  /** Joins, and unlinks what an earlier helper left behind. */
  async #join(domain: string): Promise<void> {
    await this.#o.files.join(domain);
    if (this.#joined.has(domain)) return;
    const names = await this.#o.files.names(domain);
    this.#joined.add(domain);
    // In their turn: a wish may come for the very same name (rule 4). What is wanted already is unlinked when it is given up.
    for (const name of names) if (!this.#names.has(keyOf(domain, name))) this.#name(domain, name).sweep();
  }

  #name(domain: string, name: string): NameState {
    const key = keyOf(domain, name);
    let state = this.#names.get(key);
    if (state !== undefined) return state;
    state = new NameState(domain, name, this.#o.files, {
      have: (level, seq, value) =>
        this.#send?.({
          k: 'have',
          domain,
          name,
          level,
          seq,
          value: value === null ? null : Buffer.from(value).toString('base64'),
        }),
      refused: (seq, isBusy, why) => this.#send?.({ k: 'refused', domain, name, seq, isBusy, why }),
      blocked: () => this.#send?.({ k: 'blocked', domain, name }),
      idle: () => {
        this.#names.delete(key);
        if (this.#send === null) this.#endIfIdle();
      },
    });
    this.#names.set(key, state);
    return state;
  }

  #wait(): void {
    if (this.#endIfIdle()) return;
    const end = this.#until + SLACK_MS;
    const left = end - this.#o.now();
    this.#timer = setTimeout(
      () => {
        if (this.#o.now() < end) this.#wait();
        else this.#letGo();
      },
      Math.max(1, Math.min(left, 60_000)),
    ).unref();
  }

  #letGo(): void {
    const over = [...this.#names.values()].filter((state) => !state.isForever);
    this.#o.log?.(`let-go ${over.length} names at ${this.#o.now()}, deadline ${this.#until}`);
    for (const state of over) state.want(-1, false, 0);
  }

  #endIfIdle(): boolean {
    if (this.#names.size > 0) return false;
    this.#stopTimer();
    if (this.#checker !== null) clearInterval(this.#checker);
    this.#checker = null;
    this.#o.onIdle();
    return true;
  }

  #stopTimer(): void {
    if (this.#timer !== null) clearTimeout(this.#timer);
    this.#timer = null;
  }
}

/** A domain name contains no '/'. */
export function keyOf(domain: string, name: string): string {
  return `${domain}/${name}`;
}
