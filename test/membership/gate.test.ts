/** The fencing gate: suspect, fencing, fenced, evicted; levels and failures; half partitions; clean leaving. */
import t from 'tap';
import { deriveTimeLimits, selfEndWaitMs } from '../../src/membership/time-limits.js';
import type { Command, FenceVerdict } from '../../src/membership/types.js';
import { Cluster } from './harness.js';

const limits = deriveTimeLimits();
const { leaseMs, marginMs, suspectMs, deadMs, heartbeatMs } = limits;

function ready(seed: number, options: ConstructorParameters<typeof Cluster>[0] = {}): Cluster {
  const c = new Cluster({ seed, ...options });
  c.startAll();
  if (!c.until(() => c.settled(), 15_000)) throw new Error('no cluster');
  return c;
}

/** An operator's order, at node `at`. */
function order(
  c: Cluster,
  at: number,
  what: 'confirmFence' | 'fenceNode',
  node: number,
  startCount: number,
  text: string,
): FenceVerdict {
  const host = c.host(at);
  if (host.m === null) throw new Error(`node ${at} does not run`);
  return host.m[what](c.local(host), node, startCount, text);
}

const follower = (c: Cluster): number => (c.leaderId() === 2 ? 3 : 2);

t.test('a silent member goes in, suspect, fencing, fenced, evicted, each step in the log', async (t) => {
  const c = ready(1);
  const id = follower(c);
  const dead = c.t;
  const from = c.checks.history.length;
  c.kill(id);
  c.until(() => c.state(id) === 'evicted', 20_000);
  const steps = c.checks.history.slice(from).filter((h) => h.command !== null && 'node' in h.command && h.command.node === id);
  t.same(
    steps.map((s) => s.command?.c),
    ['suspect', 'fencing', 'fenceBegin', 'fenceTry', 'fenced', 'evicted'],
  );
  const [suspect, fencing, , , fenced] = steps.map((s) => s.at - dead) as [number, number, number, number, number];
  t.ok(suspect > suspectMs - heartbeatMs - 20 && suspect < suspectMs + 150, `suspect after ${Math.round(suspect)} ms`);
  t.ok(fencing > deadMs - heartbeatMs - 20 && fencing < deadMs + 150, `fencing after ${Math.round(fencing)} ms`);
  t.ok(fenced > leaseMs - heartbeatMs && fenced < leaseMs + marginMs + 150, `fenced after ${Math.round(fenced)} ms`);
  t.equal(c.view().nodes.find((n) => n.id === id)?.fencedBy, 'self');
});

t.test('rule 17: the entry that lets locks be dropped carries the new epoch, the eviction after it none', async (t) => {
  const c = ready(2);
  const id = follower(c);
  c.kill(id);
  c.until(() => c.state(id) === 'evicted', 20_000);
  const index = c.checks.history.findIndex((h) => h.command?.c === 'fenced');
  const [before, fenced, evicted] = c.checks.history.slice(index - 1, index + 2);
  t.equal(fenced?.view.epoch, (before?.view.epoch ?? 0) + 1);
  t.equal(fenced?.view.domains[0]?.epoch, fenced?.view.epoch);
  t.notOk(fenced?.view.domains[0]?.members.some((m) => m.node === id));
  t.equal(evicted?.command?.c, 'evicted');
  t.equal(evicted?.view.epoch, fenced?.view.epoch);
});

t.test('a short silence is forgiven', async (t) => {
  const c = ready(3);
  const id = follower(c);
  c.pause(id, suspectMs + 200);
  c.run(suspectMs + 1500);
  t.same([c.checks.commands('suspect').length, c.checks.commands('alive').length], [1, 1]);
  t.equal(c.state(id), 'in');
  t.equal(c.host(id).overs.length, 0);
});

t.test('trap 9: a leader that was paused itself does not take that for the silence of the others', async (t) => {
  const c = ready(3, { voters: 1, learners: 2 });
  const pause = leaseMs - 2 * heartbeatMs;
  t.ok(pause > deadMs);
  c.pause(1, pause);
  // What the others sent meanwhile is lost: the leader wakes to silence.
  c.loss = 1;
  c.run(pause - 5);
  c.loss = 0;
  c.run(5000);
  t.equal(c.checks.commands('fencing').length, 0);
});

t.test('rule 15: a device that says "off" at once is believed only after lease + margin', async (t) => {
  const c = ready(4, { fence: [['psu1', 'psu2']] });
  const id = follower(c);
  const leader = c.host(c.leaderId());
  const dead = c.t;
  c.kill(id);
  t.ok(c.until(() => c.state(id) === 'evicted', 20_000));
  t.same(
    leader.fences.map((f) => [f.node, f.method, f.step, f.attempt, f.together]),
    [
      [id, 'psu1', 'off', 1, 2],
      [id, 'psu2', 'off', 1, 2],
      [id, 'psu1', 'verify', 1, 2],
      [id, 'psu2', 'verify', 1, 2],
    ],
    'both are verified off after the last off',
  );
  t.ok((leader.fences[0]?.at ?? 0) - dead < deadMs + 150, 'it began at once');
  t.ok((c.checks.commands('fenced')[0]?.at ?? 0) - dead > leaseMs - heartbeatMs);
  t.equal(c.view().nodes.find((n) => n.id === id)?.fencedBy, 'psu1+psu2');
});

t.test('rule 15: levels follow each other, nothing is remembered, and the pause grows', async (t) => {
  const c = ready(5, { fence: [['a', 'b'], ['c']] });
  const id = follower(c);
  let calls = 0;
  c.fenceScript = (r) => ({ ok: r.method === 'a' || ++calls > 8, afterMs: 100, detail: 'plug is stuck' });
  c.kill(id);
  t.ok(c.until(() => c.state(id) === 'evicted', 120_000));
  const leader = c.host(c.leaderId());
  const levels = leader.fences.map((f) => `${f.attempt}${f.method}`);
  t.same(levels.slice(0, 9), ['1a', '1b', '1c', '2a', '2b', '2c', '3a', '3b', '3c']);
  t.equal(new Set(leader.fences.map((f) => f.op)).size, leader.fences.length, 'operation numbers never repeat');
  const starts = leader.fences.filter((f) => f.method === 'a' && f.step === 'off').map((f) => f.at);
  const pauses = starts.slice(1).map((at, i) => at - (starts[i] ?? 0));
  t.ok(
    pauses.every((p, i) => i === 0 || p > (pauses[i - 1] ?? 0) * 1.5),
    `pauses ${pauses.map(Math.round)}`,
  );
  const failed = leader.notes.filter((n) => n.event === 'fence-failed');
  t.equal(failed.length, 8);
  t.match(failed[0], { level: 'error', data: { node: id, detail: 'b: plug is stuck' } });
});

t.test('rule 15: a device that is on again when all others are off makes the whole level begin anew', async (t) => {
  const c = ready(5, { fence: [['psu1', 'psu2']] });
  const id = follower(c);
  const { startCount } = c.view().nodes.find((n) => n.id === id)?.incarnation ?? { startCount: 0 };
  let isCycled = true;
  // psu1 is one of those that switch on again by themselves: its off succeeds, its state a moment later is on.
  c.fenceScript = (r) => ({ ok: r.step === 'off' || r.method === 'psu2' || !isCycled, afterMs: 40, detail: 'it is on' });
  c.kill(id);
  c.run(30_000);
  t.equal(c.state(id), 'fencing', 'both have said off, never at one time');
  const { fences, notes } = c.host(c.leaderId());
  t.match(notes.find((n) => n.event === 'fence-failed')?.data, { detail: 'psu1: it is on' });
  const perAttempt = (attempt: number): string[] =>
    fences.filter((f) => f.attempt === attempt).map((f) => `${f.step} ${f.method}`);
  t.same(perAttempt(2), ['off psu1', 'off psu2', 'verify psu1', 'verify psu2'], 'the retry switches psu2 off again too');
  isCycled = false;
  t.ok(c.until(() => c.state(id) === 'evicted', 60_000));
  t.ok(fences.every((f) => f.node === id && f.startCount === startCount));
});

t.test('manual: a person vouches for exactly that incarnation, at the leader, and lease + margin still pass', async (t) => {
  const c = ready(5, { fence: [['manual']] });
  const id = follower(c);
  const leader = c.host(c.leaderId());
  t.match(order(c, leader.id, 'confirmFence', id, 1, 'ann'), { ok: false, text: /not being fenced/ });
  const dead = c.t;
  c.kill(id);
  t.ok(c.until(() => c.state(id) === 'fencing', 20_000));
  t.ok(c.t - dead < leaseMs, 'its lease may still run');
  t.match(order(c, leader.id, 'confirmFence', id, 2, 'ann'), { ok: false, text: /since start 1, not 2/ });
  const other = c.host([1, 2, 3].find((n) => n !== id && n !== leader.id) ?? 0);
  t.match(order(c, other.id, 'confirmFence', id, 1, 'ann'), { ok: false, text: /does not lead/ });
  t.same(order(c, leader.id, 'confirmFence', id, 1, 'ann'), { ok: true });
  t.ok(c.until(() => c.state(id) === 'evicted', 20_000));
  t.ok((c.checks.commands('fenced')[0]?.at ?? 0) - dead > leaseMs - heartbeatMs, 'rule 15');
  t.equal(c.view().nodes.find((n) => n.id === id)?.fencedBy, 'manual');
  t.equal(leader.fences.length, 0, 'no device was asked');
  t.ok(leader.notes.some((n) => n.event === 'fence-confirmed' && n.data.by === 'ann' && n.data.node === id));
});

t.test(
  'manual: without a word nothing happens, loudly; a word counts at any level and whatever a device says later',
  async (t) => {
    const c = ready(6, { fence: [['dev'], ['manual']] });
    const id = follower(c);
    c.fenceScript = () => ({ ok: false, afterMs: 3000, detail: 'stuck' });
    c.propose(id, { c: 'nodeOwned', node: id, startCount: 1, on: true });
    c.run(500);
    c.kill(id);
    c.run(200_000);
    t.equal(c.state(id), 'fencing');
    const leader = c.host(c.leaderId());
    t.ok(leader.notes.some((n) => n.event === 'fence-failed' && /tsdlm fence confirm/.test(String(n.data.detail))));
    const offs = leader.fences.length;
    t.ok(offs > 1, 'the device is tried again and again');
    t.ok(
      c.until(() => leader.fences.length > offs, 120_000),
      'a device is at it',
    );
    t.same(order(c, leader.id, 'confirmFence', id, 1, 'ann'), { ok: true });
    t.ok(
      c.until(() => c.state(id) === 'evicted', 2000),
      'at once, node-owned locks included',
    );
    c.run(5000);
    t.equal(c.checks.commands('fenced').length, 1);
  },
);

t.test('a confirmation does not outlive the leader that took it', async (t) => {
  const c = ready(8, { voters: 5, fence: [['manual']] });
  const id = follower(c);
  c.kill(id);
  t.ok(c.until(() => c.state(id) === 'fencing', 20_000));
  const first = c.leaderId();
  c.isolate(first);
  // Nobody hears of it: the cluster decides without this leader.
  order(c, first, 'confirmFence', id, 1, 'ann');
  c.run(20_000);
  t.equal(c.state(id), 'fencing', 'the next leader waits for a word of its own');
});

t.test('an operator may have a member fenced: it goes the way of all others', async (t) => {
  const c = ready(9, { fence: [['dev']] });
  const id = follower(c);
  const leader = c.host(c.leaderId());
  t.match(order(c, leader.id, 'fenceNode', id, 7, 'x'), { ok: false, text: /since start 1, not 7/ });
  t.match(order(c, leader.id, 'fenceNode', 99, 1, 'x'), { ok: false, text: /not known/ });
  t.same(order(c, leader.id, 'fenceNode', id, 1, 'by ann: it smokes'), { ok: true });
  t.ok(c.until(() => c.checks.commands('fenced').length === 1, 20_000));
  t.match(leader.fences[0], { node: id, method: 'dev', reason: 'by ann: it smokes', startCount: 1 });
});

t.test('an operator may have the leader fenced: another one leads and does it', async (t) => {
  const c = ready(9, { fence: [['dev']] });
  const first = c.leaderId();
  t.same(order(c, first, 'fenceNode', first, 1, 'by ann'), { ok: true });
  t.ok(c.until(() => c.checks.commands('fenced', first).length > 0, 20_000));
  t.equal(c.host(first).fences.length, 0);
});

t.test('if every method fails nothing of the node is given away, and it is said loudly', async (t) => {
  const c = ready(6, { fence: [['a']] });
  c.fenceScript = () => ({ ok: false, afterMs: 10, detail: 'no answer' });
  const id = follower(c);
  c.kill(id);
  c.run(300_000);
  t.equal(c.state(id), 'fencing');
  const errors = c.host(c.leaderId()).notes.filter((n) => n.event === 'fence-failed');
  t.ok(errors.length > 8 && errors.length < 25, `${errors.length} times in five minutes`);
});

t.test('rule 2: self does not fence a node with node-owned locks, a later self level neither', async (t) => {
  const c = ready(7, { fence: [['dev'], ['self']] });
  let works = false;
  c.fenceScript = () => ({ ok: works, afterMs: 10, detail: 'off is off' });
  const id = follower(c);
  c.propose(id, { c: 'nodeOwned', node: id, startCount: 1, on: true });
  c.run(500);
  c.kill(id);
  c.run(60_000);
  t.equal(c.state(id), 'fencing');
  works = true;
  t.ok(c.until(() => c.state(id) === 'evicted', 60_000));
  t.equal(c.view().nodes.find((n) => n.id === id)?.fencedBy, 'dev');
  t.equal(c.view().nodes.find((n) => n.id === id)?.nodeOwned, false);
});

t.test('rule 2: an armed machine that owns locks counts as ended by itself after lease + margin + twice its time', async (t) => {
  for (const [armedMs, isLiar] of [
    [2000, false],
    [2000, true],
    [0, false],
  ] as const) {
    const c = ready(7);
    const id = follower(c);
    if (armedMs > 0) c.propose(id, { c: 'armed', node: id, startCount: 1, ms: armedMs });
    c.propose(id, { c: 'nodeOwned', node: id, startCount: 1, on: true });
    c.run(500);
    const dead = c.t;
    if (isLiar) c.isolate(id);
    else c.kill(id);
    if (armedMs === 0) {
      c.run(60_000);
      t.equal(c.state(id), 'fencing', 'a plain self frees nothing');
      continue;
    }
    t.ok(c.until(() => c.state(id) === 'evicted', 60_000));
    const after = (c.checks.commands('fenced', id)[0]?.at ?? 0) - dead;
    const least = leaseMs - heartbeatMs + selfEndWaitMs(armedMs);
    t.ok(after > least && after < least + heartbeatMs + marginMs + 200, `after ${after} ms`);
    t.equal(c.view().nodes.find((n) => n.id === id)?.fencedBy, 'self-end');
    if (!isLiar) continue;
    // Its watchdog did not fire: it is seen on the same boot (rule 12).
    c.heal();
    t.ok(c.until(() => c.view().distrusted.some((d) => d.node === id && d.method === 'self-end'), 10_000));
    c.run(5000);
    t.equal(c.state(id), 'evicted');
  }
});

t.test('rule 2: without node-owned locks the self level is enough', async (t) => {
  const c = ready(7, { fence: [['dev'], ['self']] });
  c.fenceScript = () => ({ ok: false, afterMs: 10 });
  const id = follower(c);
  c.kill(id);
  t.ok(c.until(() => c.state(id) === 'evicted', 60_000));
  t.equal(c.view().nodes.find((n) => n.id === id)?.fencedBy, 'self');
});

t.test('a new leader repeats the whole operation for a node in fencing', async (t) => {
  const c = ready(8, { voters: 5, fence: [['dev']] });
  const leader = c.leaderId();
  const id = leader === 2 ? 3 : 2;
  // The first leader's device succeeds but its answer never arrives.
  c.fenceScript = () => null;
  c.kill(id);
  c.until(() => c.host(leader).fences.length > 0, 20_000);
  c.fenceScript = () => ({ ok: true, afterMs: 50 });
  c.kill(leader);
  t.ok(c.until(() => c.state(id) === 'evicted' && c.state(leader) === 'evicted', 30_000));
  const second = c
    .host(c.leaderId())
    .fences.filter((f) => f.step === 'off')
    .map((f) => f.node);
  t.same(second, [id, leader]);
  t.same(c.checks.problems, []);
});

t.test('a new leader only finishes what was fenced already', async (t) => {
  for (let seed = 1; seed <= 15; seed++) {
    const c = ready(seed, { voters: 5, fence: [['dev']], diskMs: [20, 60] });
    const leader = c.leaderId();
    const id = leader === 2 ? 3 : 2;
    c.kill(id);
    c.until(() => c.state(id) === 'fenced', 20_000);
    c.kill(leader);
    t.ok(c.until(() => c.state(id) === 'evicted', 20_000));
    t.equal(c.checks.commands('fenced', id).length, 1);
  }
});

t.test(
  'rule 2: a node that only its lease ends comes back on the same boot once that is over, without an eviction',
  async (t) => {
    const c = ready(9);
    const id = follower(c);
    c.isolate(id);
    c.until(() => c.state(id) === 'fencing', 20_000);
    c.heal();
    t.ok(c.until(() => c.settled(), 30_000));
    t.equal(c.checks.commands('evicted', id).length, 0);
    t.same(c.checks.problems, []);
  },
);

t.test('a node that is alive but being fenced gets no lease and comes back only after the eviction', async (t) => {
  const c = ready(9, { fence: [['dev']] });
  const id = follower(c);
  c.isolate(id);
  c.until(() => c.state(id) === 'fencing', 20_000);
  c.heal();
  t.ok(c.until(() => c.state(id) === 'evicted', 30_000));
  t.same(
    c.host(id).overs.map((o) => o.reason),
    ['evicted'],
    'its lease alone was not its end (rule 20)',
  );
  // The device has "ended" it: it is admitted on its next boot (rule 12).
  c.reboot(id);
  c.start(id);
  t.ok(c.until(() => c.settled(), 30_000));
  t.equal(c.checks.commands('evicted', id).length, 1);
  t.same(c.checks.problems, []);
});

t.test('a leader whose own node is to be fenced leaves that to another', async (t) => {
  const c = ready(10, { fence: [['dev']] });
  const old = c.leaderId();
  const other = old === 1 ? 2 : 1;
  c.fenceScript = () => null;
  c.isolate(other);
  c.until(() => c.state(other) === 'fencing', 20_000);
  c.heal();
  c.fenceScript = () => ({ ok: true, afterMs: 20 });
  // Only the condemned one may win now: the third is slow to campaign.
  const third = 6 - old - other;
  c.kill(old);
  c.pause(third, 1500);
  t.ok(c.until(() => c.state(other) === 'evicted' || c.state(other) === 'in', 60_000));
  t.equal(c.host(other).fences.filter((f) => f.node === other).length, 0, 'nobody fences himself');
  c.reboot(old);
  c.start(old);
  c.until(() => c.state(other) === 'evicted', 20_000);
  c.reboot(other);
  c.start(other);
  t.ok(c.until(() => c.settled(), 60_000));
  t.same(c.checks.problems, []);
});

t.test('trap 2: of two members without a link exactly one is evicted, after dead_after', async (t) => {
  for (let seed = 1; seed <= 15; seed++) {
    const c = ready(seed, { voters: 3, learners: 2 });
    const others = [...c.hosts.keys()].filter((id) => id !== c.leaderId());
    const [a, b] = others as [number, number];
    const from = c.t;
    c.cutBoth(a, b);
    c.run(deadMs + leaseMs + marginMs + 2000);
    const fencing = c.checks.commands('fencing');
    t.equal(fencing.length, 1, 'one');
    t.ok((fencing[0]?.at ?? 0) - from > deadMs);
    t.not(c.state(Math.max(a, b)), 'in', 'the higher number went: links are equal');
    t.equal(c.state(Math.min(a, b)), 'in');
    c.run(20_000);
    t.equal(c.m(Math.max(a, b)).isMember, false, 'it is not admitted without the link');
    c.heal();
    t.ok(c.until(() => c.settled(), 20_000));
    t.equal(c.checks.commands('fencing').length, 1);
  }
});

t.test('trap 2: the one with fewer working links goes, and a one-way link counts as none', async (t) => {
  const c = ready(3, { voters: 3, learners: 3 });
  const others = [...c.hosts.keys()].filter((id) => id !== c.leaderId());
  const low = others[0] as number;
  c.cut(low, others[2] as number);
  c.cut(others[3] as number, low);
  c.run(deadMs + 1000);
  t.same(
    c.checks.history.filter((h) => h.command?.c === 'fencing').map((h) => (h.command as { node: number }).node),
    [low],
  );
});

t.test('trap 2: a short break of a link costs nobody his place', async (t) => {
  const c = ready(4, { voters: 5 });
  const [a, b] = [...c.hosts.keys()].filter((id) => id !== c.leaderId()) as [number, number];
  c.cutBoth(a, b);
  c.run(deadMs - 400);
  c.heal();
  c.run(10_000);
  t.equal(c.checks.commands('fencing').length, 0);
});

t.test('a node that leaves cleanly is not fenced, and one that dies while leaving is let go without fencing', async (t) => {
  const c = ready(11, { learners: 1, fence: [['dev']] });
  const leave: Command = { c: 'nodeLeave', node: 4, startCount: 1 };
  c.m(4).stopJoining();
  c.propose(4, leave);
  t.ok(c.until(() => c.state(4) === 'leaving', 2000));
  t.ok(c.until(() => !c.m(4).isMember, 1000));
  t.match(c.view().domains[0]?.leaving, [{ node: 4, startCount: 1 }]);
  c.kill(4);
  t.ok(c.until(() => c.state(4) === 'left', 20_000));
  t.same(c.view().domains[0]?.leaving, []);
  t.equal(c.checks.commands('fencing').length, 0);
  c.start(4);
  t.ok(
    c.until(() => c.settled(), 20_000),
    'and may come back',
  );
});

t.test('a node that has left cleanly does not ask to join again, nor loses its incarnation', async (t) => {
  const c = ready(12, { learners: 1 });
  c.m(4).stopJoining();
  c.propose(4, { c: 'nodeLeave', node: 4, startCount: 1 });
  c.until(() => c.state(4) === 'leaving', 2000);
  c.run(leaseMs + 2000);
  t.equal(c.state(4), 'leaving', 'as long as it is heard it may hand over');
  c.propose(4, { c: 'nodeLeft', node: 4, startCount: 1 });
  c.run(20_000);
  t.equal(c.state(4), 'left');
  t.equal(c.host(4).overs.length, 0);
});

t.test('the loss of the leader during a join, a leave and a fencing at once is survived', async (t) => {
  for (let seed = 1; seed <= 30; seed++) {
    const c = ready(seed, { voters: 5, learners: 2, loss: 0.02 });
    const leader = c.leaderId();
    const victim = leader === 5 ? 4 : 5;
    c.kill(victim);
    c.propose(6, { c: 'nodeLeave', node: 6, startCount: 1 });
    c.reboot(7);
    c.run(200);
    c.start(7);
    c.run(c.between([0, leaseMs + marginMs]));
    c.kill(leader);
    c.run(6000);
    c.startAll();
    c.propose(6, { c: 'nodeLeft', node: 6, startCount: 1 });
    c.run(20_000);
    t.same(c.checks.problems, [], `seed ${seed}`);
    for (const id of [1, 2, 3, 4, 5, 7]) t.equal(c.state(id), 'in', `seed ${seed}: node ${id}`);
  }
});

t.test('one operation per victim: a second order joins the one that is under way', async (t) => {
  const c = ready(9, { fence: [['dev']] });
  const id = follower(c);
  const leader = c.host(c.leaderId());
  c.fenceScript = () => ({ ok: true, afterMs: 3000 });
  t.same(order(c, leader.id, 'fenceNode', id, 1, 'by ann'), { ok: true });
  t.ok(c.until(() => leader.fences.length === 1, 5000));
  t.same(order(c, leader.id, 'fenceNode', id, 1, 'by bob'), { ok: true });
  t.ok(c.until(() => c.state(id) === 'evicted', 30_000));
  t.equal(leader.fences.filter((f) => f.step === 'off').length, 1);
  t.match(c.view().fencings, [{ node: id, reason: 'by ann', tried: 1 }]);
  t.match(order(c, leader.id, 'fenceNode', id, 1, 'x'), { ok: false, text: /is evicted: only a member/ });
});

t.test('a victim that leaves cleanly while it waits for its turn is not fenced', async (t) => {
  const c = ready(8, { voters: 5, fence: [['dev']] });
  const leader = c.host(c.leaderId());
  const [first, second] = [1, 2, 3, 4, 5].filter((id) => id !== leader.id) as [number, number];
  c.fenceScript = () => ({ ok: true, afterMs: 2000 });
  order(c, leader.id, 'fenceNode', first, 1, 'by ann');
  c.until(() => leader.fences.length > 0, 5000);
  // Voters are ended one at a time.
  order(c, leader.id, 'fenceNode', second, 1, 'by ann');
  t.ok(c.until(() => c.state(second) === 'fencing', 1000));
  c.host(second).stopsJoining = true;
  c.host(second).m?.stopJoining();
  c.propose(second, { c: 'nodeLeave', node: second, startCount: 1 });
  t.ok(c.until(() => c.state(second) === 'leaving', 1000));
  c.propose(second, { c: 'nodeLeft', node: second, startCount: 1 });
  c.run(20_000);
  t.same([c.state(first), c.state(second)], ['evicted', 'left']);
  t.equal(leader.fences.filter((f) => f.node === second).length, 0);
  t.match(
    c.view().fencings.map((r) => [r.node, r.outcome]),
    [
      [first, 'fenced'],
      [second, 'left'],
    ],
  );
  // Its own off under way, the other has no way back.
  t.same(c.checks.problems, []);
});
