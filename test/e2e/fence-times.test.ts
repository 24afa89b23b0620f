/** How long it takes from a silent death to the grant, by method, with the default time limits. Figures, for npm run fence:long. */
import { existsSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import { BMC_PASSWORD, Bmc, bmcMissing } from '../fixtures/bmc.js';
import type { ClusterOptions } from '../fixtures/cluster.js';
import { DEFAULT_LIMITS, world } from '../fixtures/e2e.js';
import { IS_LONG, rebooted, roles, silentHolder, spread } from '../fixtures/fence-world.js';
import { until, within } from '../fixtures/until.js';

const RUNS = 7;
const AGENT = '/usr/sbin/fence_ipmilan';
const SCRIPT = `#!/bin/sh
cat /proc/sys/kernel/random/uuid > "$1/$TSDLM_FENCE_NODE/boot-id"
pid=$(cat "$1/$TSDLM_FENCE_NODE/pid"); kill -9 "$pid"
while [ -e "/proc/$pid" ] && ! grep -q '^State:.*Z' "/proc/$pid/status"; do sleep 0.02; done
`;
t.setTimeout(900_000);

async function measure(
  t: Test,
  method: string,
  options: ClusterOptions & { prepare?: (dir: string) => void; confirms?: boolean },
) {
  const w = await world(t, { ...options, start: false });
  t.setTimeout(170_000);
  options.prepare?.(w.cluster.dir);
  await w.cluster.start();
  const times: number[] = [];
  for (let run = 0; run < RUNS; run++) {
    const who = await roles(w);
    const n = `n${who.victim}`;
    const silent = await silentHolder(w, `${method}${run}`, who, () => undefined);
    if (options.confirms) {
      await until('it is being fenced', async () => {
        const { members } = await w.cluster.status(who.other);
        return members.some((m) => m.name === n && m.state === 'fencing');
      });
      w.cluster.node(who.victim).signal('SIGKILL');
      w.cluster.node(who.victim).newBoot();
      await w.cluster.run(who.other, ['fence', 'confirm', n, '--yes-i-have-verified', n]);
    }
    const next = await within('the grant', silent.waiting, 40_000);
    times.push(await silent.took);
    await next.release();
    w.cluster.node(who.victim).signal('SIGCONT');
    if (method === 'self') await until('it is back', async () => (await w.cluster.status(who.victim)).isMember);
    else await rebooted(w, who.victim);
  }
  const { leaseMs, marginMs, deadMs } = DEFAULT_LIMITS;
  t.comment(`silent to grant by ${method}: ${spread(times)} (dead_after ${deadMs}, lease + margin ${leaseMs + marginMs})`);
  t.ok(Math.max(...times) < leaseMs + marginMs + 5000);
  await w.cluster.close();
}

const skip = IS_LONG ? false : 'figures only: npm run fence:long';
t.test('times', { skip, timeout: 880_000 }, async (t) => {
  const dir = mkdtempSync(join(tmpdir(), 'tsdlm-times-'));
  const script = join(dir, 'kill.sh');
  writeFileSync(script, SCRIPT, { mode: 0o755 });
  const bmcs: Bmc[] = [];
  t.teardown(() => {
    for (const bmc of bmcs) bmc.stop();
    rmSync(dir, { recursive: true, force: true });
  });
  await t.test('self', async (t) => measure(t, 'self', {}));
  await t.test('script', async (t) =>
    measure(t, 'script', {
      nodeLines: () => 'fence = [["s"]]\n',
      tables: (cluster) => `\n[fence.s]\ntype = "script"\ncommand = ["${script}", "${cluster}"]\n`,
    }),
  );
  await t.test('manual', async (t) => measure(t, 'manual', { nodeLines: () => 'fence = [["manual"]]\n', confirms: true }));
  const missing = bmcMissing();
  if (missing !== '') {
    t.comment(missing);
    return;
  }
  for (const id of [1, 2, 3]) bmcs.push(await Bmc.create(join(dir, `bmc${id}`), join(dir, `pid${id}`)));
  await Promise.all(bmcs.map((bmc) => bmc.start()));
  const link = (cluster: string): void => {
    for (const id of [1, 2, 3]) {
      rmSync(join(dir, `pid${id}`), { force: true });
      symlinkSync(join(cluster, `n${id}`, 'pid'), join(dir, `pid${id}`));
    }
  };
  const nodeLines = (id: number): string => `fence = [["b${id}"]]\n`;
  await t.test('ipmi', async (t) =>
    measure(t, 'ipmi', { nodeLines, tables: () => bmcs.map((bmc, i) => bmc.table(`b${i + 1}`)).join(''), prepare: link }),
  );
  if (!existsSync(AGENT)) return;
  const options = (bmc: Bmc): string =>
    `ip = "127.0.0.1"\nipport = "${bmc.port}"\nusername = "fence"\npassword = "${BMC_PASSWORD}"\nlanplus = "1"\ncipher = "3"\n`;
  await t.test('agent', async (t) =>
    measure(t, 'agent', {
      nodeLines,
      tables: () =>
        bmcs
          .map(
            (bmc, i) => `\n[fence.b${i + 1}]\ntype = "agent"\nprogram = "${AGENT}"\n[fence.b${i + 1}.options]\n${options(bmc)}`,
          )
          .join(''),
      prepare: link,
    }),
  );
});
