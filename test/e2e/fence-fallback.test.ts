/** The next level when a controller is dead (F4) or refuses the password (F5), and the warning before either is needed. */
import { mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import { Bmc, bmcMissing } from '../fixtures/bmc.js';
import { QUICK, world } from '../fixtures/e2e.js';
import { until, within } from '../fixtures/until.js';

/** Ends the daemon and notes when it was asked. */
const SCRIPT = `#!/bin/sh
date +%s.%N >> "$2"
pid=$(cat "$1/$TSDLM_FENCE_NODE/pid"); kill -9 "$pid"
cat /proc/sys/kernel/random/uuid > "$1/$TSDLM_FENCE_NODE/boot-id"
while [ -e "/proc/$pid" ] && ! grep -q '^State:.*Z' "/proc/$pid/status"; do sleep 0.02; done
`;
const LIMIT_MS = 4000;

const missing = bmcMissing();
t.setTimeout(180_000);
t.test('levels behind a controller', { skip: missing === '' ? false : missing, timeout: 170_000 }, async (t) => {
  const dir = mkdtempSync(join(tmpdir(), 'tsdlm-levels-'));
  const bmc = await Bmc.create(join(dir, 'bmc'), join(dir, 'pid'));
  t.teardown(() => {
    bmc.stop();
    rmSync(dir, { recursive: true, force: true });
  });
  const script = join(dir, 'kill.sh');
  writeFileSync(script, SCRIPT, { mode: 0o755 });
  const w = await world(t, {
    start: false,
    limits: QUICK,
    extra: 'fence_monitor_ms = 1000\n',
    nodeLines: () => 'fence = [["bmc"], ["kill-script"]]\n',
    tables: (cluster) =>
      bmc.table('bmc', `timeout_ms = ${LIMIT_MS}\n`) +
      `\n[fence.kill-script]\ntype = "script"\ncommand = ["${script}", "${cluster}", "${join(dir, 'asked')}"]\n`,
  });
  for (const node of w.cluster.nodes.slice(0, 1)) symlinkSync(join(node.dir, 'pid'), join(dir, 'pid'));
  await bmc.start();
  await w.cluster.start();

  async function fallsBack(t: Test, name: string, why: RegExp, mostMs: number): Promise<void> {
    const leader = await w.cluster.leader();
    const [victim, other] = [1, 2, 3].filter((id) => id !== leader) as [number, number];
    await (await w.owner(victim)).lock(name);
    const waiting = (await w.owner(other)).lock(name);
    await w.waiting(name, 1, other);
    const since = w.cluster.nodes.map((node) => node.log.length);
    w.cluster.node(victim).signal('SIGSTOP');
    const next = await within('the grant', waiting, 40_000);
    t.notOk(w.cluster.node(victim).isRunning, 'the script has ended it');
    const lines = w.cluster.nodes.flatMap((node, i) => node.log.slice(since[i]));
    const failed = lines.find((l) => l.event === 'fence-failed' && l.method === 'bmc');
    t.match(String(failed?.detail), why);
    const begun = lines.find((l) => l.event === 'fence-started' && l.method === 'bmc');
    const asked = Number(readFileSync(join(dir, 'asked'), 'utf8').trim().split('\n').at(-1)) * 1000;
    const took = asked - Date.parse(String(begun?.time));
    t.ok(took < mostMs, `level 2 after ${Math.round(took)} ms`);
    t.ok(lines.some((l) => l.event === 'view' && String(l.nodes).includes(`n${victim}:fenced(kill-script)`)));
    await next.release();
    await w.cluster.node(victim).restart();
  }

  await t.test('F5: a wrong password is a warning before anything failed, and level 2 follows at once', async (t) => {
    t.same(
      (await w.cluster.status(1)).warnings.filter((text) => text.startsWith('fence device')),
      [],
    );
    writeFileSync(bmc.passwordFile, 'Wr0ngPw\n');
    await until('the warning', async () =>
      (await w.cluster.status(1)).warnings.some((text) =>
        /^fence device bmc of node n\d would not work now: .*RMCP\+ session/.test(text),
      ),
    );
    t.equal((await w.cluster.run(1, ['fence', 'check'])).code, 1);
    await fallsBack(t, 'f5', /refuses: .*Unable to establish IPMI v2/, 3000);
  });

  await t.test('F4: a dead controller: level 2 within the limit of level 1 and a second', async (t) => {
    bmc.stop();
    await fallsBack(t, 'f4', new RegExp(`within ${LIMIT_MS} ms|refuses`), LIMIT_MS + 1000);
  });

  await t.test('S6: the password that was tried is in no log', async (t) => {
    for (const node of w.cluster.nodes) t.notMatch(JSON.stringify(node.log) + node.errors, /Wr0ngPw/);
  });
  await w.judge();
});
