/** Fencing by a management controller, with real daemons: nobody is granted before the power is off. */
import { mkdtempSync, rmSync, symlinkSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import t from 'tap';
import type { FenceHistoryData, FenceStepsData, StatusData } from '../../src/protocol/admin.js';
import { BMC_PASSWORD, Bmc, bmcMissing } from '../fixtures/bmc.js';
import { QUICK, world } from '../fixtures/e2e.js';
import {
  IS_LONG,
  isGone,
  noSecrets,
  operations as operationsOf,
  ROUNDS,
  silentHolder as silent3,
  spread,
  roles as threeRoles,
} from '../fixtures/fence-world.js';
import { until, within } from '../fixtures/until.js';

const missing = bmcMissing();
t.setTimeout(180_000 + ROUNDS * 12_000);
t.test('fencing by ipmi', { skip: missing === '' ? false : missing, timeout: 170_000 + ROUNDS * 12_000 }, async (t) => {
  const dir = mkdtempSync(join(tmpdir(), 'tsdlm-bmc-'));
  const bmcs = await Promise.all([1, 2, 3].map((id) => Bmc.create(join(dir, `bmc${id}`), join(dir, `pid${id}`))));
  t.teardown(() => {
    for (const bmc of bmcs) bmc.stop();
    rmSync(dir, { recursive: true, force: true });
  });
  const bmcOf = (id: number): Bmc => bmcs[id - 1] as Bmc;
  const w = await world(t, {
    start: false,
    limits: QUICK,
    extra: 'fence_monitor_ms = 1000\n',
    nodeLines: (id) => `fence = [["bmc${id}"]]\n`,
    tables: () => bmcs.map((bmc, i) => bmc.table(`bmc${i + 1}`, 'timeout_ms = 30000\n')).join(''),
  });
  t.setTimeout(170_000 + ROUNDS * 12_000);
  for (const node of w.cluster.nodes) symlinkSync(join(node.dir, 'pid'), join(dir, `pid${node.id}`));
  await Promise.all(bmcs.map((bmc) => bmc.start()));
  await w.cluster.start();

  /** Leader, and two that are not. */
  async function roles(): Promise<[number, number, number]> {
    const leader = await w.cluster.leader();
    const [victim, other] = [1, 2, 3].filter((id) => id !== leader) as [number, number];
    return [leader, victim, other];
  }
  /** A lock held on a node that is then stopped, and a request for it elsewhere. */
  async function silentHolder(name: string, victim: number, other: number) {
    const held = await (await w.owner(victim)).lock(name);
    let granted = false;
    const waiting = (await w.owner(other)).lock(name).then((next) => {
      granted = true;
      return next;
    });
    await w.waiting(name, 1, other);
    w.cluster.node(victim).signal('SIGSTOP');
    return { waiting, held, isGranted: () => granted };
  }

  await t.test('tsdlm fence check: all controllers answer', async (t) => {
    const all = await w.cluster.run(1, ['fence', 'check']);
    t.equal(all.code, 0);
    t.match(all.stdout, /n1 +bmc1 +ok .*\nn2 +bmc2 +ok .*Chassis Power is on\nn3 +bmc3 +ok/);
    t.match((await w.cluster.run(1, ['fence', 'check', 'nobody'])).stderr, /"nobody" is not in the node table/);
  });

  await t.test(
    'F1: the lock of a stopped daemon is granted only when its power is off, and it is switched on again',
    async (t) => {
      const times: number[] = [];
      let early = 0;
      for (let round = 1; round <= ROUNDS; round++) {
        const who = await threeRoles(w);
        const { victim } = who;
        const { pid } = w.cluster.node(victim);
        const before = bmcOf(victim).sets().length;
        const silent = await silent3(w, `f1-${round}`, who, () => bmcOf(victim).sets()[before] === 'power 0' && isGone(pid));
        const next = await within('the grant', silent.waiting, 30_000);
        if (!(await silent.atGrant)) early++;
        times.push(await silent.took);
        t.equal(bmcOf(victim).sets()[before], 'power 0');
        await w.cluster.node(victim).ended();
        await next.release();
        await until('it is switched on again', () => bmcOf(victim).sets().slice(before).includes('power 1'));
        await w.cluster.node(victim).restart();
      }
      t.equal(early, 0, `${ROUNDS} rounds, ${early} early grants`);
      t.comment(`silent to grant by ipmi: ${spread(times)}`);
      const shown = JSON.parse((await w.cluster.run(2, ['--json', 'fence', 'history', '--steps'])).stdout) as FenceStepsData;
      const done = (step: string): number => shown.results.filter((r) => r.step === step && r.ok).length;
      if (!IS_LONG)
        t.ok(
          done('off') >= 3 && done('verify') >= 3 && done('on') >= 3,
          shown.results.map((r) => `${r.step} ${r.ok}`).join(', '),
        );
      // Each daemon remembers its last steps only.
      if (!IS_LONG) {
        t.match(shown.results[0], { step: 'off', reason: /silent for|earlier leader/, detail: /Chassis Power is off/ });
        t.match((await w.cluster.run(3, ['fence', 'history', '--steps'])).stdout, /WHEN +NODE .*\n.*bmc\d +off +ok/);
      }
      const asked = await Promise.all([1, 2, 3].map((id) => w.cluster.run(id, ['--json', 'fence', 'history'])));
      t.equal(new Set(asked.map((said) => said.stdout)).size, 1, 'the history is the same on every node');
      const { operations } = JSON.parse(asked[0]?.stdout ?? '') as FenceHistoryData;
      t.equal(operations.length, Math.min(100, ROUNDS), `${ROUNDS} rounds, as many operations`);
      t.match(operations[0], { outcome: 'fenced', method: /^bmc\d$/, reason: /silent for \d+ ms/, tried: 1, confirmed: null });
      t.match(operations[0]?.tries[0], { ok: true, level: 1, attempt: 1, detail: /Chassis Power is off/ });
    },
  );

  await t.test('F9: a node that leaves cleanly is not fenced', async (t) => {
    const [, victim] = await roles();
    const before = bmcOf(victim).sets().length;
    await w.cluster.node(victim).stop();
    const end = Date.now() + 2500;
    await until('longer than a dead node would have been fenced', () => Date.now() > end);
    t.equal(bmcOf(victim).sets().length, before);
    await w.cluster.node(victim).restart();
  });

  await t.test('F2, F8: a lying controller frees nothing; the next fencer repeats what the killed one began', async (t) => {
    const [leader, victim, other] = await roles();
    bmcOf(victim).fault('lie');
    const before = bmcOf(victim).sets().length;
    const { waiting, isGranted } = await silentHolder('f8', victim, other);
    await until('off was sent', () => bmcOf(victim).sets().length > before);
    await w.cluster.node(leader).kill();
    t.notOk(isGranted());
    bmcOf(victim).fault(null);
    await w.cluster.node(leader).restart();
    const next = await within('the grant', waiting, 40_000);
    t.equal(await bmcOf(victim).power(), 'off');
    await next.release();
    const views = w.cluster
      .node(other)
      .log.filter((l) => l.event === 'view' && String(l.nodes).includes(`n${victim}:fenced(bmc${victim})`));
    t.ok(views.length >= 1, 'it is said how it was fenced');
    const records = (await operationsOf(w, other, `n${victim}`)).filter((o) => o.fencers.includes(`n${leader}`));
    const last = records.at(-1);
    t.match(last, { outcome: 'fenced', method: `bmc${victim}` });
    // With the leader of three dead and the victim stopped nobody can go on before the leader is back: it may be the next one too.
    t.equal(records.filter((o) => o.startCount === last?.startCount).length, 1, `one operation, by ${last?.fencers.join(', ')}`);
    await w.cluster.node(victim).ended();
    await w.cluster.node(victim).restart();
  });

  await t.test('F7: a victim that is back while it is being fenced is not admitted before that has ended', async (t) => {
    const [, victim, other] = await roles();
    bmcOf(victim).fault('lie');
    const before = bmcOf(victim).sets().length;
    const { waiting } = await silentHolder('f7', victim, other);
    await until('off was sent', () => bmcOf(victim).sets().length > before);
    await w.cluster.node(victim).kill();
    const since = w.cluster.node(victim).log.length;
    w.cluster.node(victim).start();
    await w.cluster
      .node(victim)
      .waitLog('the refusal', (l) => l.event === 'join-refused' && /being fenced/.test(String(l.text)), 15_000, since);
    t.notOk(
      w.cluster
        .node(victim)
        .log.slice(since)
        .some((l) => l.event === 'joined'),
    );
    bmcOf(victim).fault(null);
    const next = await within('the grant', waiting, 40_000);
    await next.release();
    await w.cluster.node(victim).ended();
    await w.cluster.node(victim).restart();
  });

  await t.test('F2: a lying controller is in the status; tsdlm fence confirm releases', async (t) => {
    const [, victim, other] = await roles();
    bmcOf(victim).fault('lie');
    const before = bmcOf(victim).sets().length;
    const { waiting, isGranted } = await silentHolder('f2', victim, other);
    await until('off was sent', () => bmcOf(victim).sets().length > before);
    await until('the status says so', async () => {
      const { warnings } = (await w.cluster.status(other)) as StatusData;
      return warnings.some((text) => text.includes(`tsdlm fence confirm n${victim}`));
    });
    t.notOk(isGranted());
    const said = await w.cluster.run(other, ['fence', 'confirm', `n${victim}`, '--yes-i-have-verified', `n${victim}`]);
    t.same([said.code, said.stdout, said.stderr], [0, `n${victim} counts as fenced by manual\n`, '']);
    await (await within('the grant', waiting)).release();
    await until('the device is not needed any more', () =>
      w.cluster.nodes.some((node) => node.log.some((l) => l.event === 'fence-withdrawn' && l.about === `n${victim}`)),
    );
    await w.cluster.node(victim).kill();
    const sent = bmcOf(victim).sets().length;
    bmcOf(victim).fault(null);
    await w.cluster.node(victim).restart();
    const end = Date.now() + 2500;
    await until('a late off would have come by now', () => Date.now() > end);
    t.equal(bmcOf(victim).sets().length, sent, 'and none hits the node that is back');
    t.ok(w.cluster.node(victim).isRunning);
  });

  await t.test('S6: no password in any log, status, history or check', async (t) => noSecrets(t, w, [BMC_PASSWORD]));
  await w.judge();
});
