import t from 'tap';
import { type FenceRun, FenceRunner } from '../../src/fence/runner.js';
import type { FenceMethod, FenceOutcome } from '../../src/fence/types.js';

/** A method whose runs the test ends by hand. */
function handMade(name: string): FenceMethod & { runs: ((outcome: FenceOutcome) => void)[] } {
  const runs: ((outcome: FenceOutcome) => void)[] = [];
  return { name, endsMachine: true, runs, fence: () => new Promise((resolve) => runs.push(resolve)) };
}

function setup(...extra: FenceMethod[]) {
  const events: string[] = [];
  const runner = new FenceRunner({ methods: new Map(), extra, log: (_level, event) => events.push(event) });
  return { runner, events };
}

const run = (more: Partial<FenceRun> = {}): FenceRun => ({
  op: 1,
  node: 2,
  nodeName: 'n2',
  startCount: 5,
  method: 'power',
  reason: 'silent',
  attempt: 1,
  step: 'off',
  together: 1,
  ...more,
});

t.test('requests for the same victim share one run; another victim, life or method has its own', async (t) => {
  const power = handMade('power');
  const second = handMade('second');
  const { runner, events } = setup(power, second);
  const both = [runner.run(run()), runner.run(run({ op: 2, attempt: 2 }))];
  t.equal(power.runs.length, 1);
  void runner.run(run({ node: 3 }));
  void runner.run(run({ startCount: 6 }));
  void runner.run(run({ method: 'second' }));
  t.equal(power.runs.length, 3);
  t.equal(second.runs.length, 1);
  power.runs[0]?.({ ok: true, detail: 'off' });
  t.same(await Promise.all(both), [
    { ok: true, detail: 'off' },
    { ok: true, detail: 'off' },
  ]);
  t.ok(events.includes('fence-joined'));
});

t.test('rule 15: a success is not remembered, a retry runs again', async (t) => {
  const power = handMade('power');
  const { runner } = setup(power);
  const first = runner.run(run());
  power.runs[0]?.({ ok: true, detail: 'off' });
  t.equal((await first).ok, true);
  const again = runner.run(run({ attempt: 2 }));
  t.equal(power.runs.length, 2);
  power.runs[1]?.({ ok: false, detail: 'on' });
  t.equal((await again).ok, false);
});

t.test('the last results are kept, and status names what keeps failing', async (t) => {
  const power = handMade('power');
  const { runner } = setup(power);
  for (let i = 1; i <= 130; i++) {
    const one = runner.run(run({ attempt: i }));
    power.runs[i - 1]?.({ ok: false, detail: `try ${i}` });
    await one;
  }
  t.equal(runner.history().length, 100);
  t.match(runner.history().at(-1), { attempt: 130, ok: false, nodeName: 'n2' });
  t.same(runner.warnings(), ['fencing n2 by power has failed 130 times: try 130']);
  const good = runner.run(run({ attempt: 131 }));
  power.runs[130]?.({ ok: true, detail: 'off' });
  await good;
  t.same(runner.warnings(), []);
});

t.test('a method that is not configured, or that breaks, has failed', async (t) => {
  const broken: FenceMethod = { name: 'broken', endsMachine: true, fence: () => Promise.reject(new Error('bug')) };
  const { runner } = setup(broken);
  t.match(await runner.run(run({ method: 'ipmi' })), { ok: false, detail: /no fence method "ipmi": add \[fence.ipmi\]/ });
  t.match(await runner.run(run({ method: 'broken' })), { ok: false, detail: 'broken broke: bug' });
  t.equal(runner.endsMachine('broken'), true);
  t.equal(runner.endsMachine('ipmi'), false);
});

t.test('rule 2: self ends no machine and is never run', async (t) => {
  const { runner } = setup();
  t.equal(runner.endsMachine('self'), false);
  t.match(await runner.run(run({ method: 'self' })), { ok: false, detail: /decided by the lease/ });
});

t.test('a configured script is run, and stopped with the daemon', async (t) => {
  const runner = new FenceRunner({
    methods: new Map([
      ['power', { name: 'power', type: 'script', command: ['/bin/sleep', '600'], timeoutMs: 60_000, options: {} }],
    ]),
    log: () => undefined,
  });
  const under = runner.run(run());
  runner.close();
  t.match(await under, { ok: false, detail: /daemon stops/ });
});

/** A device whose answers the test sets. */
function device(name: string) {
  const calls: string[] = [];
  const said = { off: true, verify: true };
  const method: FenceMethod = {
    name,
    endsMachine: true,
    fence: async () => {
      calls.push('off');
      return { ok: said.off, detail: 'off' };
    },
    verify: async () => {
      calls.push('verify');
      return { ok: said.verify, detail: 'it is on' };
    },
    powerOn: async () => {
      calls.push('on');
      return { ok: true, detail: 'on' };
    },
    check: async () => ({ ok: true, detail: 'on' }),
  };
  return { method, calls, said };
}

const inState = (state: string, fencedBy: string, startCount = 5) => [{ id: 2, state, fencedBy, incarnation: { startCount } }];

t.test('it is switched on again only when it counts as fenced by that device, once, and by who leads', async (t) => {
  const psu = device('psu');
  const { runner } = setup(psu.method);
  await runner.run(run({ method: 'psu' }));
  await runner.run(run({ method: 'psu', step: 'verify' }));
  runner.seen(inState('fencing', ''), true);
  t.same(psu.calls, ['off', 'verify'], 'not before that');
  runner.seen(inState('fenced', 'psu'), true);
  runner.seen(inState('evicted', 'psu'), true);
  t.same(psu.calls, ['off', 'verify', 'on']);
  t.same(
    runner.history().map((r) => r.step),
    ['off', 'verify'],
  );
  for (const [state, fencedBy, startCount, leads] of [
    ['fenced', 'manual', 5, true],
    ['in', 'psu', 6, true],
    ['fenced', 'psu', 5, false],
  ] as const) {
    await runner.run(run({ method: 'psu' }));
    const before = psu.calls.length;
    runner.seen(inState(state, fencedBy, startCount), leads);
    t.equal(psu.calls.length, before, `${state} by ${fencedBy}, start ${startCount}, leads ${leads}`);
  }
});

t.test('trap 10: a run that nobody wants any more is killed and is no failure of the device', async (t) => {
  let aborted = false;
  const slow: FenceMethod = {
    name: 'slow',
    endsMachine: true,
    fence: (_target, signal) =>
      new Promise((resolve) => {
        signal.addEventListener('abort', () => {
          aborted = true;
          resolve({ ok: false, detail: 'killed' });
        });
      }),
  };
  const { runner, events } = setup(slow);
  const under = runner.run(run({ method: 'slow' }));
  runner.withdraw(() => true);
  t.notOk(aborted);
  runner.withdraw((node, startCount) => node !== 2 || startCount !== 5);
  t.match(await under, { ok: false });
  t.ok(aborted);
  t.same(runner.warnings(), []);
  t.ok(events.includes('fence-withdrawn'));
  t.match(runner.history().at(-1), { ok: false, detail: /withdrawn/ });
});

t.test('a second look that fails is a failure of the device; one that is not needed is none of the history', async (t) => {
  const psu = device('psu');
  const script = handMade('script');
  const { runner } = setup(psu.method, script);
  psu.said.verify = false;
  t.match(await runner.run(run({ method: 'psu', step: 'verify' })), { ok: false });
  t.same(runner.warnings(), ['fencing n2 by psu has failed once: it is on']);
  t.same(await runner.run(run({ method: 'script', step: 'verify' })), { ok: true, detail: 'verified before' });
  t.equal(runner.history().length, 1);
  t.equal(runner.hasDevice('psu'), true);
  t.equal(runner.hasDevice('manual'), false);
  t.match(await runner.check('nothing', 'n2', true), { ok: false, detail: /no fence method "nothing"/ });
});
