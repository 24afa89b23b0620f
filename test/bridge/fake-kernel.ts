/**
 * A dlmfs in memory, for the bridge helper: owners are mounts, levels are kept after close until somebody waits for them or the
 * name is unlinked, a try recalls nothing, waiters queue, the value block goes with the lock. It checks the bridge's manners:
 * one operation per name and mount at a time (rule 4).
 */
import { setImmediate } from 'node:timers/promises';
import type { KernelFiles, KernelHold } from '../../src/bridge/kernel-files.js';
import { EX, isCompatible, type Mode, NL, PR } from '../../src/protocol/modes.js';

interface FakeHold extends KernelHold {
  isOpen: boolean;
  blocked: (() => void) | null;
}

/** One mount's view of one name. */
interface Node {
  level: Mode;
  holds: Set<FakeHold>;
  isNamed: boolean;
}

interface Waiter {
  mount: string;
  mode: Mode;
  grant: () => void;
}

interface Lock {
  nodes: Map<string, Node>;
  waiters: Waiter[];
  value: Uint8Array;
}

function errno(code: string): Error {
  return Object.assign(new Error(`${code}: fake`), { code });
}

export class FakeKernel {
  readonly #locks = new Map<string, Lock>();
  /** Broken manners, which no test may find. */
  readonly faults: string[] = [];
  /** '' = the mounts are there. */
  gone = '';
  ops: string[] = [];

  mount(name: string): FakeMount {
    return new FakeMount(this, name);
  }

  lock(key: string): Lock {
    let lock = this.#locks.get(key);
    if (lock === undefined) {
      lock = { nodes: new Map(), waiters: [], value: new Uint8Array(64) };
      this.#locks.set(key, lock);
    }
    return lock;
  }

  node(key: string, mount: string): Node {
    const { nodes } = this.lock(key);
    let node = nodes.get(mount);
    if (node === undefined) {
      node = { level: NL, holds: new Set(), isNamed: false };
      nodes.set(mount, node);
    }
    return node;
  }

  /** The level that a mount has of a name, held or kept. */
  level(mount: string, domain: string, name: string): Mode {
    return this.node(`${domain}/${name}`, mount).level;
  }

  isGrantable(key: string, mount: string, mode: Mode): boolean {
    return [...this.lock(key).nodes].every(([other, node]) => other === mount || isCompatible(node.level, mode));
  }

  /** Recalls what is only kept, tells holders, grants from the head. */
  serve(key: string): void {
    const lock = this.lock(key);
    const head = lock.waiters[0];
    if (head === undefined) return;
    for (const [mount, node] of lock.nodes) {
      if (mount === head.mount || isCompatible(node.level, head.mode)) continue;
      const held = [...node.holds].reduce<Mode>((most, h) => (h.mode > most ? h.mode : most), NL);
      if (isCompatible(held, head.mode)) node.level = head.mode === EX ? NL : held > PR ? held : PR;
      else for (const hold of node.holds) if (hold.blocked !== null) setTimeout(hold.blocked, 0);
    }
    if (!this.isGrantable(key, head.mount, head.mode)) return;
    lock.waiters.shift();
    head.grant();
    this.serve(key);
  }
}

export class FakeMount implements KernelFiles {
  readonly #kernel: FakeKernel;
  readonly #name: string;
  readonly #busy = new Set<string>();
  readonly #domains = new Set<string>();

  constructor(kernel: FakeKernel, name: string) {
    this.#kernel = kernel;
    this.#name = name;
  }

  async check(): Promise<void> {
    if (this.#kernel.gone !== '') throw new Error(this.#kernel.gone);
  }
  async join(domain: string): Promise<void> {
    this.#domains.add(domain);
  }
  async names(domain: string): Promise<string[]> {
    const names: string[] = [];
    for (const [key, node] of this.#nodes())
      if (key.startsWith(`${domain}/`) && node.isNamed) names.push(key.slice(domain.length + 1));
    return names;
  }
  *#nodes(): Iterable<[string, Node]> {
    // Only names of this kernel's tests: few.
    for (const key of this.#seen) yield [key, this.#kernel.node(key, this.#name)];
  }
  readonly #seen = new Set<string>();

  #begin(key: string, what: string): void {
    this.#kernel.ops.push(`${this.#name} ${what} ${key}`);
    if (this.#busy.has(key)) this.#kernel.faults.push(`${what} of ${key} on ${this.#name} while another call is under way`);
    this.#busy.add(key);
    this.#seen.add(key);
  }

  async open(domain: string, name: string, mode: Mode, isTry: boolean): Promise<FakeHold> {
    const key = `${domain}/${name}`;
    this.#begin(key, `open ${mode}${isTry ? ' try' : ''}`);
    try {
      await setImmediate();
      if (!this.#domains.has(domain)) throw errno('ENOENT');
      const node = this.#kernel.node(key, this.#name);
      node.isNamed = true;
      // Level and holder change in one go: nothing may be recalled in between.
      const take = (): FakeHold => {
        if (node.level < mode) node.level = mode;
        const hold = this.#hold(key, node, mode);
        node.holds.add(hold);
        return hold;
      };
      if (node.level >= mode || this.#kernel.isGrantable(key, this.#name, mode)) return take();
      if (isTry) throw errno('ETXTBSY');
      return await new Promise<FakeHold>((resolve) => {
        this.#kernel.lock(key).waiters.push({ mount: this.#name, mode, grant: () => resolve(take()) });
        this.#kernel.serve(key);
      });
    } finally {
      this.#busy.delete(key);
    }
  }

  #hold(key: string, node: Node, mode: Mode): FakeHold {
    const lock = this.#kernel.lock(key);
    const hold: FakeHold = {
      mode,
      isOpen: true,
      blocked: null,
      read: async () => Uint8Array.from(lock.value),
      write: async (value) => {
        await setImmediate();
        if (!hold.isOpen || mode !== EX) this.#kernel.faults.push(`write of ${key} without EX`);
        lock.value.set(value);
      },
      onBlocked: (blocked) => {
        hold.blocked = blocked;
      },
      close: () => {
        if (!hold.isOpen) this.#kernel.faults.push(`${key} closed twice`);
        this.#kernel.ops.push(`${this.#name} close ${mode} ${key}`);
        hold.isOpen = false;
        node.holds.delete(hold);
        setTimeout(() => this.#kernel.serve(key), 0);
      },
    };
    return hold;
  }

  async unlink(domain: string, name: string): Promise<void> {
    const key = `${domain}/${name}`;
    this.#begin(key, 'unlink');
    try {
      await setImmediate();
      const node = this.#kernel.node(key, this.#name);
      if (!node.isNamed) throw errno('ENOENT');
      if (node.holds.size > 0) throw errno('EBUSY');
      node.level = NL;
      node.isNamed = false;
      this.#kernel.serve(key);
    } finally {
      this.#busy.delete(key);
    }
  }
}
