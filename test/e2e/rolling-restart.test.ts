/**
 * An upgrade of the whole cluster: each daemon is restarted once, under load. No lock is lost, nobody is fenced (L3, rule 23).
 *
 * Counters in a plain file, each guarded by an EX lock, are read, raised and written by sessions on all nodes: every increment that
 * was done must be there in the end. Beside them some locks are held all the time, by programs and by the nodes themselves.
 */
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import t from 'tap';
import { monotonicMs, type TsdlmError } from '../../src/client/index.js';
import { TEST_LIMIT_MS, world } from '../fixtures/e2e.js';
import type { Held, Owner } from '../fixtures/owner.js';
import { until, within } from '../fixtures/until.js';

t.setTimeout(TEST_LIMIT_MS);
const COUNTERS = 4;

class Counters {
  readonly dir = mkdtempSync(join(tmpdir(), 'tsdlm-counters-'));
  done = 0;
  /** Longest time from asking to the grant, ms. */
  longestWaitMs = 0;
  readonly wrong: string[] = [];
  readonly #tokens = new Map<number, bigint>();
  #isOver = false;
  #workers: Promise<void>[] = [];

  constructor() {
    for (let i = 0; i < COUNTERS; i++) writeFileSync(this.#file(i), '0');
  }

  #file(i: number): string {
    return join(this.dir, `counter${i}`);
  }

  add(owner: Owner, first: number): void {
    this.#workers.push(this.#work(owner, first));
  }

  async #work(owner: Owner, first: number): Promise<void> {
    for (let round = first; !this.#isOver; round++) {
      const i = round % COUNTERS;
      const asked = monotonicMs();
      let held: Held;
      try {
        held = await owner.lock(`counter${i}`);
      } catch (error) {
        this.wrong.push(`${owner.node}: no counter${i}: ${(error as TsdlmError).message}`);
        continue;
      }
      this.longestWaitMs = Math.max(this.longestWaitMs, monotonicMs() - asked);
      const value = Number(readFileSync(this.#file(i), 'utf8'));
      if (held.token <= (this.#tokens.get(i) ?? 0n)) this.wrong.push(`counter${i}: token ${held.token} does not rise`);
      this.#tokens.set(i, held.token);
      await new Promise((resolve) => setTimeout(resolve, 2));
      if (held.handle.valid()) {
        writeFileSync(this.#file(i), String(value + 1));
        this.done++;
      } else {
        this.wrong.push(`${owner.node}: counter${i} was lost: ${held.handle.lostError?.message ?? 'its deadline passed'}`);
      }
      await held.release();
    }
  }

  async stop(): Promise<void> {
    this.#isOver = true;
    await Promise.all(this.#workers);
  }

  get sum(): number {
    let sum = 0;
    for (let i = 0; i < COUNTERS; i++) sum += Number(readFileSync(this.#file(i), 'utf8'));
    return sum;
  }
}

t.test('rule 23: a rolling restart of three nodes under load loses no lock and fences nobody', async (t) => {
  const w = await world(t, {
    limits: { heartbeat_ms: 100, lease_ms: 1500 },
    extra: 'sigterm = "restart"\nunsafe_node_owned = true\n',
  });
  const counters = new Counters();
  t.teardown(() => rmSync(counters.dir, { recursive: true, force: true }));
  const owners = [await w.owner(1), await w.owner(2), await w.owner(3)];
  const kept: Held[] = [];
  for (const owner of owners) kept.push(await owner.lock(`kept by ${owner.node}`));
  const tokens = kept.map((h) => h.token);
  const pauses = new Map<Held, { since: number; longest: number }>();
  for (const held of kept) {
    const pause = { since: 0, longest: 0 };
    pauses.set(held, pause);
    held.handle.on('reconnecting', () => {
      pause.since = monotonicMs();
    });
    held.handle.on('resumed', () => {
      if (pause.since !== 0) pause.longest = Math.max(pause.longest, monotonicMs() - pause.since);
      pause.since = 0;
    });
  }
  for (const id of [1, 2, 3]) {
    t.equal((await w.cluster.run(id, ['lock', `vip${id}`, '--ex', '--node-owned'])).code, 0);
  }
  const granted: string[] = [];
  const waiters: Promise<Held>[] = [];
  for (const [i, held] of kept.entries()) {
    const { name } = held.handle;
    waiters.push(
      (await w.owner(((i + 1) % 3) + 1)).lock(name).then((next) => {
        granted.push(name);
        return next;
      }),
    );
    await w.waiting(name, 1, 3);
  }
  owners.forEach((owner, i) => {
    counters.add(owner, i);
    counters.add(owner, i + 1);
  });
  const marks = w.cluster.nodes.map((n) => n.log.length);
  const tooks: number[] = [];
  for (const node of w.cluster.nodes) {
    const before = counters.done;
    await until('the work goes on', async () => counters.done > before + 20, 30_000);
    const began = monotonicMs();
    node.signal('SIGTERM');
    await node.ended();
    await node.restart(30_000);
    tooks.push(Math.round(monotonicMs() - began));
    await until('all are back', async () => kept.every((h) => h.handle.suspendReason === null), 15_000);
  }
  const before = counters.done;
  await until('the work goes on', async () => counters.done > before + 20, 30_000);
  await counters.stop();
  t.same(counters.wrong, []);
  t.equal(counters.sum, counters.done, `${counters.done} increments, all there`);
  t.same(
    kept.map((h) => [h.handle.valid(), h.token]),
    tokens.map((token) => [true, token]),
    'what was held all the time is held, by the same grant',
  );
  for (const id of [1, 2, 3]) {
    const shown = await w.cluster.show((id % 3) + 1, `vip${id}`);
    t.same(
      shown.holders.map((h) => [h.node.id, h.isNodeOwned]),
      [[id, true]],
    );
  }
  w.cluster.nodes.forEach((node, i) => {
    const bad = node.log.slice(marks[i]).filter((l) => ['fencing', 'incarnation-over', 'restarts-uncleanly'].includes(l.event));
    t.same(bad, [], `nothing bad in the log of ${node.name}`);
  });
  const holder = Math.round(Math.max(...[...pauses.values()].map((p) => p.longest)));
  t.comment(`daemons were away for ${tooks.join(', ')} ms; longest wait for a counter ${Math.round(counters.longestWaitMs)} ms;`);
  t.comment(`longest time that a holder was without a daemon ${holder} ms; ${counters.done} increments`);
  t.same(granted, [], 'who waited for those waits');
  for (const [i, held] of kept.entries()) {
    await held.release();
    await (await within('the waiter', waiters[i] as Promise<Held>, 10_000)).release();
  }
  await w.judge();
});
