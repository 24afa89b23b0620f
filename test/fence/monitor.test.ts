import t from 'tap';
import { FenceMonitor } from '../../src/fence/monitor.js';
import type { FenceOutcome } from '../../src/fence/types.js';
import { nowMs } from '../../src/node/facts.js';
import { until } from '../fixtures/until.js';

function setup(t: { teardown(fn: () => void): unknown }, answer: (method: string) => FenceOutcome, intervalMs = 60) {
  const looks: { method: string; node: string; thorough: boolean; at: number }[] = [];
  const events: string[] = [];
  const monitor = new FenceMonitor({
    runner: {
      hasDevice: (method) => method !== 'self',
      check: (method, node, thorough) => {
        looks.push({ method, node, thorough, at: nowMs() });
        return Promise.resolve(answer(method));
      },
    },
    devices: [
      { node: 'n2', method: 'bmc2' },
      { node: 'n3', method: 'bmc3' },
      { node: 'n3', method: 'self' },
    ],
    intervalMs,
    log: (level, event) => events.push(`${level} ${event}`),
  });
  t.teardown(() => monitor.close());
  return { monitor, looks, events };
}

t.test('each device is looked at again and again, thoroughly at first', async (t) => {
  const { monitor, looks } = setup(t, () => ({ ok: true, detail: 'on' }));
  monitor.start();
  await until('several looks', () => looks.length >= 8);
  t.same([...new Set(looks.map((l) => l.method))].sort(), ['bmc2', 'bmc3']);
  for (const method of ['bmc2', 'bmc3']) {
    const own = looks.filter((l) => l.method === method);
    t.same(
      own.slice(0, 3).map((l) => l.thorough),
      [true, false, false],
    );
    const waits = own.slice(1).map((l, i) => l.at - (own[i]?.at ?? 0));
    t.ok(
      waits.every((w) => w >= 0.75 * 60 - 2),
      `${waits.map(Math.round)}`,
    );
  }
  t.same(monitor.warnings(), []);
});

t.test('what fails is a warning once in the log and in status until it works again', async (t) => {
  let works = false;
  const { monitor, events } = setup(t, (method) => ({ ok: works || method === 'bmc2', detail: 'wrong password' }), 20);
  monitor.start();
  await until('the warning', () => monitor.warnings().length > 0);
  t.same(monitor.warnings(), ['fence device bmc3 of node n3 would not work now: wrong password']);
  await new Promise((resolve) => setTimeout(resolve, 100));
  t.same(events, ['warn fence-device-fault']);
  works = true;
  await until('it works again', () => monitor.warnings().length === 0);
  t.same(events, ['warn fence-device-fault', 'info fence-device-works-again']);
});

t.test('interval 0: it looks only when it is asked', async (t) => {
  const { monitor, looks } = setup(t, () => ({ ok: false, detail: 'x' }), 0);
  monitor.start();
  await new Promise((resolve) => setTimeout(resolve, 50));
  t.equal(looks.length, 0);
  t.match(await monitor.look({ node: 'n2', method: 'bmc2' }), { ok: false });
  t.equal(monitor.warnings().length, 1);
});
