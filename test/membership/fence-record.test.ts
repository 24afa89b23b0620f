/** What the log remembers of fencing, and what follows from it: confirmations, records, devices that lied (rule 12). */
import t from 'tap';
import { deriveTimeLimits } from '../../src/membership/time-limits.js';
import type { Command, FenceRecord, View } from '../../src/membership/types.js';
import { applyCommand, initialView } from '../../src/membership/view.js';
import { parseView } from '../../src/membership/view-check.js';
import { Cluster } from './harness.js';

const limits = deriveTimeLimits();

function ready(seed: number, options: ConstructorParameters<typeof Cluster>[0] = {}): Cluster {
  const c = new Cluster({ seed, ...options });
  c.startAll();
  if (!c.until(() => c.settled(), 15_000)) throw new Error('no cluster');
  return c;
}
const follower = (c: Cluster): number => (c.leaderId() === 2 ? 3 : 2);
const recordsOf = (view: View, node: number): FenceRecord[] => view.fencings.filter((r) => r.node === node);
function confirm(c: Cluster, at: number, node: number): { ok: boolean } {
  const host = c.host(at);
  return host.m?.confirmFence(c.local(host), node, 1, 'ann') ?? { ok: false };
}

t.test('the record of an operation is the same on all nodes and survives a restart of the whole cluster', async (t) => {
  const c = ready(1, { fence: [['a'], ['b']], logKeep: 5 });
  const id = follower(c);
  c.fenceScript = (r) => ({ ok: r.method === 'b', afterMs: 30, detail: r.method === 'b' ? 'off' : 'no \u20ac answer' });
  c.kill(id);
  t.ok(c.until(() => c.state(id) === 'evicted', 20_000));
  const leader = c.leaderId();
  const [record] = recordsOf(c.view(), id);
  t.match(record, {
    startCount: 1,
    bootId: `boot-${id}-1`,
    outcome: 'fenced',
    method: 'b',
    fencers: [leader],
    tried: 2,
    confirmed: null,
  });
  t.match(record?.reason, /^silent for \d+ ms$/);
  t.match(
    record?.tries.map((x) => [x.by, x.level, x.methods, x.ok, x.detail]),
    [
      [leader, 0, 'a', false, 'a: no ? answer'],
      [leader, 1, 'b', true, 'off'],
    ],
  );
  // What follows makes snapshots of it.
  for (let i = 0; i < 30; i++) {
    c.propose(c.leaderId(), { c: 'epoch', epoch: c.view().epoch });
    c.run(100);
  }
  for (const n of [1, 2, 3]) c.reboot(n);
  for (const n of [1, 2, 3]) c.start(n);
  t.ok(c.until(() => c.settled(), 30_000));
  for (const n of [1, 2, 3]) t.same(recordsOf(c.m(n).view, id)[0], record, `on n${n}`);
  t.same(c.checks.problems, []);
});

t.test('a confirmation that is in the log outlives the leader that took it', async (t) => {
  const c = ready(8, { voters: 5, fence: [['dev']] });
  const id = follower(c);
  c.fenceScript = () => ({ ok: false, afterMs: 60_000 });
  c.kill(id);
  t.ok(c.until(() => recordsOf(c.view(), id)[0]?.begunAt !== undefined && c.host(c.leaderId()).fences.length > 0, 20_000));
  const first = c.leaderId();
  t.same(confirm(c, first, id), { ok: true });
  t.ok(c.until(() => recordsOf(c.view(), id)[0]?.confirmed != null, 1000));
  c.kill(first);
  t.ok(c.until(() => c.state(id) === 'evicted', 20_000));
  t.match(recordsOf(c.view(), id)[0], { outcome: 'fenced', method: 'manual', confirmed: { who: 'ann', by: first } });
  t.equal(c.host(c.leaderId()).fences.filter((f) => f.node === id).length, 0, 'no device is asked any more');
});

t.test('F8: the next fencer repeats what the killed one began; it stays one operation', async (t) => {
  const c = ready(8, { voters: 5, fence: [['dev']] });
  const first = c.leaderId();
  const id = follower(c);
  c.fenceScript = () => null;
  c.kill(id);
  t.ok(c.until(() => c.host(first).fences.length > 0, 20_000));
  t.same(recordsOf(c.view(), id)[0]?.fencers, [first], 'who does it is in the log before the device is asked');
  c.fenceScript = () => ({ ok: true, afterMs: 20, detail: 'off' });
  c.kill(first);
  t.ok(c.until(() => c.state(id) === 'evicted', 30_000));
  const records = recordsOf(c.view(), id);
  t.equal(records.length, 1);
  t.same(records[0]?.fencers, [first, c.leaderId()]);
});

t.test('a victim that leaves cleanly before the first `off` is not fenced; after it, it is', async (t) => {
  const about = { node: 1, startCount: 1 };
  const steps: Command[] = [
    { c: 'join', node: 1, inc: { bootId: 'b', machineId: 'm', startCount: 1, journalId: 'j' }, keeps: false },
    { c: 'fencing', ...about, reason: 'x' },
  ];
  const nodes = [{ id: 1, name: 'n1', voter: true, fence: [['dev']] }];
  const view = steps.reduce(applyCommand, initialView(nodes, 'c'));
  const left = applyCommand(view, { c: 'nodeLeave', ...about });
  t.match([left.nodes[0]?.state, left.fencings[0]?.outcome], ['leaving', 'left']);
  t.equal(left.epoch, view.epoch + 1);
  const begun = applyCommand(view, { c: 'fenceBegin', ...about, by: 2, at: 5 });
  t.equal(applyCommand(begun, { c: 'nodeLeave', ...about }), begun);
  t.ok(parseView(JSON.parse(JSON.stringify(begun))));
});

t.test('rule 23: a machine is not armed while its daemon restarts', async (t) => {
  const join = (node: number): Command => ({
    c: 'join',
    node,
    keeps: false,
    inc: { bootId: `b${node}`, machineId: `m${node}`, startCount: 1, journalId: `j${node}` },
  });
  const nodes = [1, 2].map((id) => ({ id, name: `n${id}`, voter: true, fence: [['self']], witness: false }));
  const about = { node: 1, startCount: 1 };
  let view = [join(1), join(2), { c: 'armed', ...about, ms: 5000 } as Command].reduce(applyCommand, initialView(nodes, 'c'));
  t.equal(view.nodes[0]?.armedMs, 5000);
  t.equal(applyCommand(view, { c: 'armed', ...about, ms: 700_000 }), view, 'longer than anybody waits');
  view = applyCommand(view, { c: 'nodeRestart', ...about });
  view = applyCommand(view, { c: 'restarting', ...about, forMs: 60_000, epoch: view.epoch });
  t.match(view.nodes[0], { state: 'restarting', armedMs: 0 });
});

t.test('records are bounded; one that is under way is never dropped', async (t) => {
  const nodes = [1, 2].map((id) => ({ id, name: `n${id}`, voter: true, fence: [['dev']] }));
  let view = initialView(nodes, 'c');
  const join = (node: number, startCount: number): Command => ({
    c: 'join',
    node,
    inc: { bootId: `b${startCount}`, machineId: 'm', startCount, journalId: 'j' },
    keeps: false,
  });
  const open = { node: 2, startCount: 1 };
  for (const command of [join(2, 1), { c: 'fencing', ...open, reason: 'waits' }] as Command[]) view = applyCommand(view, command);
  for (let i = 1; i <= 120; i++) {
    const about = { node: 1, startCount: i };
    for (const command of [
      join(1, i),
      { c: 'fencing', ...about, reason: 'x' },
      ...Array.from({ length: 12 }, (_, k) => ({
        c: 'fenceTry',
        ...about,
        by: 2,
        at: k + 1,
        level: 0,
        methods: 'dev',
        attempt: k,
        ok: false,
        detail: '',
        tookMs: 1,
      })),
      { c: 'fenced', ...about, method: 'dev' },
      { c: 'evicted', ...about },
    ] as Command[]) {
      const next = applyCommand(view, command);
      t.not(next, view, command.c);
      t.equal(applyCommand(next, command), next, `${command.c} twice`);
      view = next;
    }
  }
  t.equal(view.fencings.length, 100);
  t.match(view.fencings.at(-1), { startCount: 120, tried: 12 });
  t.equal(view.fencings.at(-1)?.tries.length, 8);
  t.equal(recordsOf(view, 2)[0]?.outcome, '');
  t.ok(parseView(JSON.parse(JSON.stringify(view))));
});

t.test(
  'rule 12: who runs on the boot that a device has ended is refused; the device is not believed until an operator says so',
  async (t) => {
    const c = ready(3, { fence: [['dev']] });
    const id = follower(c);
    c.isolate(id);
    t.ok(c.until(() => c.state(id) === 'evicted', 20_000));
    c.heal();
    const leader = (): number => c.leaderId();
    t.ok(c.until(() => c.view().distrusted.length > 0, 10_000));
    t.match(c.view().distrusted, [{ node: id, method: 'dev', why: /was seen as start 2 on the boot that dev had ended/ }]);
    t.ok(c.host(leader()).notes.some((n) => n.level === 'error' && n.event === 'fence-device-lied' && n.data.node === id));
    c.run(10_000);
    t.equal(c.state(id), 'evicted', 'it is not admitted');
    t.ok(c.host(id).notes.some((n) => n.event === 'join-refused' && /still runs on the same boot/.test(String(n.data.text))));
    t.equal(recordsOf(c.view(), id)[0]?.doubted, true);
    // Rebooted by hand it comes back; its device is asked no more.
    c.reboot(id);
    c.start(id);
    t.ok(c.until(() => c.settled(), 20_000));
    const asked = (): number => c.host(leader()).fences.length;
    const before = asked();
    c.kill(id);
    c.run(40_000);
    t.equal(c.state(id), 'fencing');
    t.equal(asked(), before);
    t.match(recordsOf(c.view(), id).at(-1)?.tries.at(-1), { ok: false, detail: /tsdlm fence trust n\d dev/ });
    const host = c.host(leader());
    t.same(host.m?.trustFence(c.local(host), id, 'dev', 'ann'), { ok: true });
    t.ok(c.until(() => c.state(id) === 'evicted', 60_000));
    t.same(c.view().distrusted, []);
    t.same(c.checks.problems, []);
  },
);

t.test('rule 12: a device that was cleared while the liar still runs is not distrusted again for the same fence', async (t) => {
  const c = ready(3, { fence: [['dev']] });
  const id = follower(c);
  c.isolate(id);
  t.ok(c.until(() => c.state(id) === 'evicted', 20_000));
  c.heal();
  t.ok(c.until(() => c.view().distrusted.length > 0, 10_000));
  const host = c.host(c.leaderId());
  host.m?.trustFence(c.local(host), id, 'dev', 'ann');
  c.run(10_000);
  t.same([c.view().distrusted, c.state(id)], [[], 'evicted'], 'and it is refused all the same');
});

t.test(
  'rule 12: another machine with the same journal needs a fence; a start count that is not above the known one is refused',
  async (t) => {
    const c = ready(4, { fence: [['dev']] });
    const id = follower(c);
    c.fenceScript = () => ({ ok: false, afterMs: 50 });
    c.kill(id);
    c.host(id).machineId = 'another-machine';
    c.host(id).bootId = 'another-boot';
    c.start(id);
    c.run(15_000);
    t.equal(c.state(id), 'fencing', 'its asking proves nothing');
    t.ok(c.host(id).notes.some((n) => n.event === 'join-refused'));
    c.fenceScript = () => ({ ok: true, afterMs: 50 });
    t.ok(
      c.until(() => c.settled(), 60_000),
      'after the fence it is admitted',
    );
    t.equal(c.checks.commands('fenced', id).length, 1);
    // A rolled back or cloned journal.
    c.kill(id);
    c.until(() => c.state(id) === 'evicted', 20_000);
    c.host(id).startCount = 0;
    c.host(id).bootId = 'third-boot';
    c.start(id);
    c.run(limits.leaseMs * 3);
    t.equal(c.state(id), 'evicted');
    t.ok(c.host(id).notes.some((n) => n.event === 'join-refused' && n.data.code === 'TSDLM_STALE_INCARNATION'));
  },
);
