/**
 * F6: the link between two nodes is cut, both reach both controllers: exactly one survives, in every round.
 * A few rounds in the test run; TSDLM_DUEL_ROUNDS=50 for more (`npm run duels`).
 */
import { mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import t from 'tap';
import { duelGapMs } from '../../src/membership/duel.js';
import { Bmc, bmcMissing } from '../fixtures/bmc.js';
import { QUICK, QUICK_LIMITS, world } from '../fixtures/e2e.js';
import { LinkProxy } from '../fixtures/link-proxy.js';
import { until, within } from '../fixtures/until.js';

const ROUNDS = Number(process.env.TSDLM_DUEL_ROUNDS ?? 3);
const ROUND_MS = 60_000;
const missing = bmcMissing();
t.setTimeout(60_000 + ROUNDS * ROUND_MS);
t.test('F6', { skip: missing === '' ? false : missing, timeout: 50_000 + ROUNDS * ROUND_MS }, async (t) => {
  const dir = mkdtempSync(join(tmpdir(), 'tsdlm-duel-'));
  const bmcs = await Promise.all([1, 2].map((id) => Bmc.create(join(dir, `bmc${id}`), join(dir, `pid${id}`))));
  // Steps of 2.5 s: longer than a controller takes here under load.
  const maxMs = 7500;
  const w = await world(t, {
    start: false,
    nodes: 2,
    limits: QUICK,
    extra: 'fence_monitor_ms = 0\n',
    nodeLines: (id) => `fence = [["bmc${id}"]]\nfence_delay_max_ms = ${maxMs}\n`,
    tables: () => bmcs.map((bmc, i) => bmc.table(`bmc${i + 1}`, 'timeout_ms = 30000\npower_on = false\n')).join(''),
  });
  t.setTimeout(50_000 + ROUNDS * ROUND_MS);
  // The higher number dials: n2 reaches n1 through the proxy.
  const real = w.cluster.ports[0] as number;
  const link = await LinkProxy.to(real);
  t.teardown(() => {
    link.close();
    for (const bmc of bmcs) bmc.stop();
    rmSync(dir, { recursive: true, force: true });
  });
  for (const node of w.cluster.nodes) {
    const text = readFileSync(node.config, 'utf8').replace(`port = ${real}`, `port = ${link.port}`);
    writeFileSync(node.config, node.id === 1 ? `listen = "127.0.0.1:${real}"\n${text}` : text, { mode: 0o600 });
    symlinkSync(join(node.dir, 'pid'), join(dir, `pid${node.id}`));
  }
  await Promise.all(bmcs.map((bmc) => bmc.start()));
  await w.cluster.start();

  const wins = [0, 0];
  const took: number[] = [];
  for (let round = 1; round <= ROUNDS; round++) {
    await until(
      `round ${round}: both vote`,
      async () => {
        for (const id of [1, 2]) {
          const s = await w.cluster.status(id);
          if (s.alone !== null || s.isSuspended || !s.members.every((m) => m.voter && m.state === 'in')) return false;
        }
        return true;
      },
      ROUND_MS,
    );
    const held = await Promise.all([1, 2].map(async (id) => (await w.owner(id)).lock(`own${id}`)));
    // A client whose daemon died asks again when it is back: what a round left waiting ends with it.
    const over = new AbortController();
    const waiting = [1, 2].map(async (id) =>
      (await w.owner(id)).lock(`own${3 - id}`, 'EX', { signal: over.signal }).catch(() => null),
    );
    await w.waiting('own1', 1);
    await w.waiting('own2', 1);
    for (const [i, node] of w.cluster.nodes.entries()) node.once('exit', () => held[i]?.machineOff());
    const cutAt = performance.now();
    link.cut();
    await until('one is off', () => w.cluster.nodes.some((node) => !node.isRunning), ROUND_MS);
    const victim = w.cluster.node(1).isRunning ? 2 : 1;
    const survivor = 3 - victim;
    const next = await within(`round ${round}: the survivor is granted`, waiting[survivor - 1] as (typeof waiting)[0], 30_000);
    took.push(performance.now() - cutAt);
    t.ok(next?.handle.valid(), `round ${round}: n${survivor} survives, granted ${Math.round(took.at(-1) ?? 0)} ms after the cut`);
    // As long as a shot of the other's could have been under way.
    const end = performance.now() + duelGapMs(QUICK_LIMITS);
    await until('nobody shoots back', () => performance.now() > end);
    t.same([w.cluster.node(survivor).isRunning, w.cluster.node(victim).isRunning], [true, false], 'exactly one');
    t.equal(held[survivor - 1]?.lostAt, null, 'and it never lost its own');
    wins[survivor - 1] = (wins[survivor - 1] ?? 0) + 1;
    await held[survivor - 1]?.release();
    await next?.release();
    over.abort();
    link.heal();
    w.cluster.node(victim).newBoot();
    await w.cluster.node(victim).restart(40_000);
  }
  took.sort((a, b) => a - b);
  t.comment(
    `${ROUNDS} rounds, one survivor in each: n1 ${wins[0]}, n2 ${wins[1]}; cut to grant ${Math.round(took[0] ?? 0)} to ${Math.round(took.at(-1) ?? 0)} ms, median ${Math.round(took[took.length >> 1] ?? 0)}`,
  );
  await w.judge();
});
