/** Machines that end themselves: the watchdog and sysrq behind `self`, with real daemons and "devices" of the test (rules 2, 11). */
import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import type { FenceHistoryData } from '../../src/protocol/admin.js';
import { QUICK, QUICK_LIMITS, type World, world } from '../fixtures/e2e.js';
import { until, within } from '../fixtures/until.js';
import { TestWatchdog } from '../fixtures/watchdog.js';

const TIMEOUT_MS = 3000;
t.setTimeout(180_000);

async function owned(w: World, id: number, name: string): Promise<void> {
  const taken = await w.cluster.run(id, ['lock', name, '--ex', '--node-owned']);
  if (taken.code !== 0) throw new Error(taken.stderr);
}

const armed = (w: World, id: number) => w.cluster.node(id).waitLog('the machine is armed', (l) => l.event === 'self-end-armed');

t.test('watchdog', { timeout: 120_000 }, async (t) => {
  const dogs: TestWatchdog[] = [];
  t.teardown(() => {
    for (const dog of dogs) dog.close();
  });
  const w = await world(t, {
    start: false,
    limits: QUICK,
    nodeTables: (dir) =>
      `\n[self_end]\nmethod = "watchdog"\ndevice = "${join(dir, 'watchdog')}"\ntimeout_file = "${join(dir, 'timeout')}"\ntimeout_ms = ${TIMEOUT_MS}\n`,
  });
  for (const node of w.cluster.nodes) {
    writeFileSync(join(node.dir, 'timeout'), `${TIMEOUT_MS / 1000}\n`);
    const fire = (): void => {
      node.newBoot();
      node.signal('SIGKILL');
    };
    dogs.push(new TestWatchdog(join(node.dir, 'watchdog'), TIMEOUT_MS, fire));
  }
  const dog = (id: number): TestWatchdog => dogs[id - 1] as TestWatchdog;
  await w.cluster.start();
  await Promise.all([1, 2, 3].map((id) => armed(w, id)));

  await t.test('it is kept alive under the lease, and disarmed by a clean stop', async (t) => {
    const before = dog(3).keepAlives;
    await until('it is kept alive', () => dog(3).keepAlives > before + 2);
    await w.cluster.node(3).stop();
    t.notOk(dog(3).isArmed);
    await w.cluster.node(3).restart();
    await armed(w, 3);
    t.equal(dogs.filter((d) => d.firedAt > 0).length, 0);
  });

  await t.test('a killed daemon that is back in time keeps its machine and what its node owns', async (t) => {
    await owned(w, 3, 'vip');
    await w.cluster.node(3).kill();
    await w.cluster.node(3).restart();
    const end = performance.now() + TIMEOUT_MS + 500;
    await until('longer than its watchdog waits', () => performance.now() > end, 10_000);
    t.equal(dog(3).firedAt, 0);
    const { holders } = await w.cluster.show(1, 'vip');
    t.match(holders, [{ node: { id: 3 }, isNodeOwned: true }]);
  });

  await t.test(
    'rule 2: a stopped daemon takes its machine along; only then, and later, its node-owned lock is free',
    async (t) => {
      const waiting = (await w.owner(1)).lock('vip');
      await w.waiting('vip', 1, 1);
      const silentAt = performance.now();
      w.cluster.node(3).signal('SIGSTOP');
      let granted = 0;
      void waiting.then(() => {
        granted = performance.now();
      });
      await until('the watchdog fires', () => dog(3).firedAt > 0, 20_000);
      t.equal(granted, 0);
      const next = await within('the grant', waiting, 40_000);
      const waited = performance.now() - silentAt;
      t.ok(
        waited > QUICK_LIMITS.leaseMs - QUICK_LIMITS.heartbeatMs * 2 + 2 * TIMEOUT_MS,
        `granted after ${Math.round(waited)} ms`,
      );
      t.comment(
        `silent to grant by self-end: ${Math.round(waited)} ms, watchdog ${TIMEOUT_MS} ms, lease ${QUICK_LIMITS.leaseMs} ms`,
      );
      const said = await w.cluster.run(1, ['--json', 'fence', 'history', 'n3']);
      const { operations } = JSON.parse(said.stdout) as FenceHistoryData;
      t.match(operations.at(-1), { outcome: 'fenced', method: 'self-end' });
      await next.release();
      await w.cluster.node(3).restart();
    },
  );
  await t.test('rule 23: a restart disarms it, and keeps what the node owns', async (t) => {
    await owned(w, 3, 'vip');
    const { firedAt } = dog(3);
    const since = w.cluster.node(3).log.length;
    const asked = await w.cluster.run(3, ['restart']);
    t.equal(asked.code, 0, asked.stderr);
    await w.cluster.node(3).ended();
    t.notOk(dog(3).isArmed);
    await w.cluster.node(3).restart();
    await w.cluster.node(3).waitLog('it is armed again', (l) => l.event === 'self-end-armed', 15_000, since);
    t.equal(dog(3).firedAt, firedAt);
    t.match((await w.cluster.show(1, 'vip')).holders, [{ node: { id: 3 }, isNodeOwned: true }]);
  });
  await w.judge();
});

t.test('sysrq', { timeout: 120_000 }, async (t) => {
  const w = await world(t, {
    limits: QUICK,
    nodeTables: (dir) => {
      mkdirSync(dir, { recursive: true });
      writeFileSync(join(dir, 'sysrq'), '');
      return `\n[self_end]\nmethod = "sysrq"\ntrigger = "${join(dir, 'sysrq')}"\ntimeout_ms = ${TIMEOUT_MS}\n`;
    },
  });
  const trigger = (id: number): string => readFileSync(join(w.cluster.node(id).dir, 'sysrq'), 'utf8');
  await Promise.all([1, 2, 3].map((id) => armed(w, id)));

  await t.test('rule 2: the machine of a killed daemon is rebooted by a helper that outlives it', async (t) => {
    await owned(w, 2, 'vip');
    const waiting = (await w.owner(1)).lock('vip');
    await w.waiting('vip', 1, 1);
    let isGranted = false;
    void waiting.then(() => {
      isGranted = true;
    });
    const silentAt = performance.now();
    await w.cluster.node(2).kill();
    await until('sysrq is triggered', () => trigger(2) === 'b', 20_000);
    t.notOk(isGranted);
    w.cluster.node(2).newBoot();
    w.cluster.node(2).killGuards();
    const next = await within('the grant', waiting, 40_000);
    t.comment(`silent to grant by self-end: ${Math.round(performance.now() - silentAt)} ms`);
    await next.release();
    writeFileSync(join(w.cluster.node(2).dir, 'sysrq'), '');
    await w.cluster.node(2).restart();
    await armed(w, 2);
  });

  await t.test('a clean stop ends the helper; a daemon that is back in time finds it and goes on', async (t) => {
    const pid = w.cluster.node(3).log.find((l) => l.event === 'guard-started')?.pid;
    await w.cluster.node(3).kill();
    await w.cluster.node(3).restart();
    t.equal(w.cluster.node(3).log.filter((l) => l.event === 'guard-started').length, 1, 'the same helper');
    await w.cluster.node(3).stop();
    await until('it has ended', () => !existsSync(`/proc/${pid}`) || / Z /.test(readFileSync(`/proc/${pid}/stat`, 'utf8')));
    t.equal(trigger(3), '');
    await w.cluster.node(3).restart();
  });
  await w.judge();
});
