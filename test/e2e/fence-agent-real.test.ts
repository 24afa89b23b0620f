/** F12: F1 to F5 once more with a fence agent of the distribution, `fence_ipmilan`, before the same simulated controllers. */
import { existsSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import { BMC_PASSWORD, Bmc, bmcMissing } from '../fixtures/bmc.js';
import { QUICK, type World, world } from '../fixtures/e2e.js';
import {
  isGone,
  noSecrets,
  operations,
  ROUNDS,
  rebooted,
  roles,
  silentHolder,
  spread,
  withdrawn,
} from '../fixtures/fence-world.js';
import { until, within } from '../fixtures/until.js';

const AGENT = ['/usr/sbin/fence_ipmilan', '/usr/bin/fence_ipmilan'].find((path) => existsSync(path));
const missing = AGENT === undefined ? 'fence_ipmilan is not installed: run npm run setup:fence -- --agents' : bmcMissing();
const skip = missing === '' ? false : missing;
const LIMIT_MS = 4000;
t.setTimeout(400_000 + ROUNDS * 12_000);

/** The lines of a [fence.NAME] table that reaches the controller through the agent. */
const table = (name: string, bmc: Bmc, password: string, timeoutMs: number): string => `
[fence.${name}]
type = "agent"
program = "${AGENT}"
timeout_ms = ${timeoutMs}
[fence.${name}.options]
ip = "127.0.0.1"
ipport = "${bmc.port}"
username = "fence"
password = "${password}"
lanplus = "1"
cipher = "3"
power_wait = "0"
power_timeout = "6"
`;

async function controllers(t: Test, count: number): Promise<{ dir: string; bmcs: Bmc[] }> {
  const dir = mkdtempSync(join(tmpdir(), 'tsdlm-agent-real-'));
  const ids = Array.from({ length: count }, (_, i) => i + 1);
  const bmcs = await Promise.all(ids.map((id) => Bmc.create(join(dir, `bmc${id}`), join(dir, `pid${id}`))));
  t.teardown(() => {
    for (const bmc of bmcs) bmc.stop();
    rmSync(dir, { recursive: true, force: true });
  });
  return { dir, bmcs };
}

t.test('F12: fence_ipmilan', { skip, timeout: 200_000 + ROUNDS * 12_000 }, async (t) => {
  const { dir, bmcs } = await controllers(t, 3);
  const bmcOf = (id: number): Bmc => bmcs[id - 1] as Bmc;
  const w = await world(t, {
    start: false,
    limits: QUICK,
    extra: 'fence_monitor_ms = 2000\n',
    nodeLines: (id) => `fence = [["bmc${id}"]]\n`,
    tables: () => bmcs.map((bmc, i) => table(`bmc${i + 1}`, bmc, BMC_PASSWORD, 15_000)).join(''),
  });
  t.setTimeout(200_000 + ROUNDS * 12_000);
  for (const node of w.cluster.nodes) symlinkSync(join(node.dir, 'pid'), join(dir, `pid${node.id}`));
  await Promise.all(bmcs.map((bmc) => bmc.start()));
  await w.cluster.start();

  await t.test('its description fits our options', async (t) => {
    const said = await w.cluster.run(1, ['fence', 'check'], 60_000);
    t.equal(said.code, 0, said.stdout);
    t.match(said.stdout, /n2 +bmc2 +ok/);
  });

  await t.test('F12/F1: granted only when the power is off and the daemon gone', async (t) => {
    const times: number[] = [];
    for (let round = 1; round <= Math.min(ROUNDS, 10); round++) {
      const who = await roles(w);
      const { pid } = w.cluster.node(who.victim);
      const before = bmcOf(who.victim).sets().length;
      const silent = await silentHolder(w, `f1-${round}`, who, () => [bmcOf(who.victim).sets()[before], isGone(pid)]);
      const next = await within('the grant', silent.waiting, 40_000);
      t.same(await silent.atGrant, ['power 0', true]);
      times.push(await silent.took);
      await next.release();
      await until('it is switched on again', () => bmcOf(who.victim).sets().slice(before).includes('power 1'));
      await rebooted(w, who.victim);
    }
    t.comment(`silent to grant by fence_ipmilan: ${spread(times)}`);
  });

  await t.test('F12/F3: a controller that stalls past the limit: unknown, then verified, one victim', async (t) => {
    const who = await roles(w);
    const { victim } = who;
    const before = bmcOf(victim).sets().length;
    const silent = await silentHolder(w, 'f3', who, () => [bmcOf(victim).sets()[before], isGone(w.cluster.node(victim).pid)]);
    bmcOf(victim).fault('slow');
    const since = w.cluster.nodes.map((node) => node.log.length);
    await until(
      'the first try fails',
      () => w.cluster.nodes.some((node, i) => node.log.slice(since[i]).some((l) => l.event === 'fence-failed')),
      40_000,
    );
    t.notOk(silent.isGranted());
    bmcOf(victim).fault(null);
    const next = await within('the grant', silent.waiting, 60_000);
    t.same(await silent.atGrant, ['power 0', true]);
    t.equal((await operations(w, who.other, `n${victim}`)).at(-1)?.outcome, 'fenced');
    t.ok(w.cluster.node(who.other).isRunning && w.cluster.node(who.leader).isRunning);
    await next.release();
    await rebooted(w, victim);
  });

  await t.test('F12/F2: a lying controller frees nothing; fence confirm does', async (t) => {
    const who = await roles(w);
    const { victim, other } = who;
    bmcOf(victim).fault('lie');
    const silent = await silentHolder(w, 'f2', who, () => undefined);
    await until(
      'the status of a node that does not lead names the device',
      async () =>
        (await w.cluster.status(other)).warnings.some((text) =>
          new RegExp(`n${victim} is being fenced .* tries have failed, the last: bmc${victim}: `).test(text),
        ),
      40_000,
    );
    t.notOk(silent.isGranted());
    await w.cluster.node(victim).kill();
    const said = await w.cluster.run(other, ['fence', 'confirm', `n${victim}`, '--yes-i-have-verified', `n${victim}`]);
    t.equal(said.code, 0, said.stderr);
    await (await within('the grant', silent.waiting)).release();
    t.match((await operations(w, other, `n${victim}`)).at(-1), { method: 'manual', confirmed: { who: /tsdlm fence-confirm/ } });
    await withdrawn(w, victim).catch(() => undefined);
    bmcOf(victim).fault(null);
    w.cluster.node(victim).newBoot();
    await w.cluster.node(victim).restart();
  });

  await t.test('S6: no password in any log, status, history or check', async (t) => noSecrets(t, w, [BMC_PASSWORD]));
  await w.judge();
});

/** Ends the daemon, and notes when it was asked. */
const SCRIPT = `#!/bin/sh
date +%s.%N >> "$2"
cat /proc/sys/kernel/random/uuid > "$1/$TSDLM_FENCE_NODE/boot-id"
pid=$(cat "$1/$TSDLM_FENCE_NODE/pid"); kill -9 "$pid"
while [ -e "/proc/$pid" ] && ! grep -q '^State:.*Z' "/proc/$pid/status"; do sleep 0.02; done
`;

t.test('F12: levels behind fence_ipmilan', { skip, timeout: 150_000 }, async (t) => {
  const { dir, bmcs } = await controllers(t, 1);
  const bmc = bmcs[0] as Bmc;
  const script = join(dir, 'kill.sh');
  writeFileSync(script, SCRIPT, { mode: 0o755 });
  const build = (password: string): Promise<World> =>
    world(t, {
      start: false,
      limits: QUICK,
      extra: 'fence_monitor_ms = 1000\n',
      nodeLines: () => 'fence = [["bmc"], ["kill-script"]]\n',
      tables: (cluster) =>
        table('bmc', bmc, password, LIMIT_MS) +
        `\n[fence.kill-script]\ntype = "script"\ncommand = ["${script}", "${cluster}", "${join(dir, 'asked')}"]\n`,
    });
  async function fallsBack(t: Test, w: World, name: string, mostMs: number): Promise<void> {
    const who = await roles(w);
    const since = w.cluster.nodes.map((node) => node.log.length);
    const silent = await silentHolder(w, name, who, () => isGone(w.cluster.node(who.victim).pid));
    const next = await within('the grant', silent.waiting, 40_000);
    t.equal(await silent.atGrant, true, 'the script has ended it');
    const begun = w.cluster.nodes
      .flatMap((node, i) => node.log.slice(since[i]))
      .find((l) => l.event === 'fence-started' && l.method === 'bmc');
    const asked = Number(readFileSync(join(dir, 'asked'), 'utf8').trim().split('\n').at(-1)) * 1000;
    const took = asked - Date.parse(String(begun?.time));
    t.ok(took < mostMs, `level 2 after ${Math.round(took)} ms`);
    t.match((await operations(w, who.other)).at(-1), { method: 'kill-script', tried: 2 });
    await next.release();
    await rebooted(w, who.victim);
  }

  await bmc.start();
  await t.test('F12/F5: a wrong password is a warning before it is needed, and level 2 follows at once', async (t) => {
    const w = await build('Wr0ngPw');
    await w.cluster.start();
    await until('the warning', async () =>
      (await w.cluster.status(1)).warnings.some((text) => /^fence device bmc of node n\d would not work now/.test(text)),
    );
    await fallsBack(t, w, 'f5', 3000);
    await noSecrets(t, w, ['Wr0ngPw']);
    await w.cluster.close();
  });
  await t.test('F12/F4: a dead controller: level 2 within the limit of level 1 and a second', async (t) => {
    const w = await build(BMC_PASSWORD);
    await w.cluster.start();
    bmc.stop();
    await fallsBack(t, w, 'f4', LIMIT_MS + 1000);
    await noSecrets(t, w, [BMC_PASSWORD]);
    await w.cluster.close();
  });
});
