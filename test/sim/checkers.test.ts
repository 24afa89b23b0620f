/**
 * The checkers themselves: a checker that never complains proves nothing, so each is shown a broken promise, and a sound
 * history beside it.
 */
import t from 'tap';
import type { View } from '../../src/membership/types.js';
import { EX, type Mode, NL, PR } from '../../src/protocol/modes.js';
import { type Hold, HoldChecker, type ToldLease } from './check-holds.js';
import { LogChecker } from './check-log.js';
import { MasterChecker } from './check-master.js';
import { EventQueue } from './event-queue.js';
import { Prng } from './prng.js';
import { Trace } from './trace.js';
import { decodeLvb, encodeLvb } from './value.js';

function setup() {
  const failures: string[] = [];
  return { failures, check: new HoldChecker((text) => failures.push(text)) };
}

let ids = 0;
function hold(mode: Mode, lease: ToldLease, more: Partial<Hold> = {}): Hold {
  return {
    key: 'default/a',
    node: 1,
    id: 2 ** 32 + ++ids,
    nodeOwned: false,
    usesLvb: true,
    lease,
    floor: 0,
    mode,
    dirty: false,
    from: 0,
    end: Number.POSITIVE_INFINITY,
    ...more,
  };
}
const lease = (until: number): ToldLease => ({ until, alive: true });

t.test('S1: EX beside EX and EX beside PR are found, PR beside PR and NL beside EX are not', async (t) => {
  for (const [a, b, bad] of [
    [EX, EX, true],
    [EX, PR, true],
    [PR, EX, true],
    [PR, PR, false],
    [NL, EX, false],
    [EX, NL, false],
  ] as [Mode, Mode, boolean][]) {
    const { check, failures } = setup();
    check.granted(hold(a, lease(1000)), 10);
    check.granted(hold(b, lease(1000), { node: 2 }), 20);
    t.equal(failures.length > 0, bad, `${a} then ${b}`);
  }
});

t.test('S1: a hold ends at its release, and at its deadline even when nobody released it', async (t) => {
  const { check, failures } = setup();
  const first = hold(EX, lease(1000));
  check.granted(first, 10);
  check.released(first, 20);
  check.granted(hold(EX, lease(100)), 20);
  check.granted(hold(EX, lease(1000)), 100);
  t.same(failures, []);
  check.granted(hold(PR, lease(1000)), 101);
  t.match(failures, [/^S1: /]);
});

t.test('S1: a node-owned hold outlives every lease and ends with its machine', async (t) => {
  const { check, failures } = setup();
  check.granted(hold(EX, lease(100), { nodeOwned: true }), 10);
  check.machineGone(1, 400);
  check.granted(hold(EX, lease(1000), { nodeOwned: true, node: 2 }), 500);
  t.same(failures, []);
  check.granted(hold(EX, lease(9000)), 5000);
  t.match(failures, [/^S1: /]);
});

t.test('S1: a conversion up is checked, one down makes room at once', async (t) => {
  const { check, failures } = setup();
  const a = hold(EX, lease(1000));
  check.granted(a, 10);
  check.converted(a, PR, 20);
  const b = hold(PR, lease(1000), { node: 2 });
  check.granted(b, 30);
  t.same(failures, []);
  check.converted(b, EX, 40);
  t.match(failures, [/^S1: /]);
});

t.test('S2: an equal or lower token is found, across epochs too', async (t) => {
  const { check, failures } = setup();
  const a = hold(EX, lease(1000));
  check.token(a, 3, 10);
  check.token(a, 3, 11);
  check.token(a, 4, 1);
  t.same(failures, []);
  check.token(a, 4, 1);
  check.token(a, 3, 99);
  t.equal(failures.length, 2);
});

t.test('S3: a stale value, a value from nowhere and an unfounded invalid are found', async (t) => {
  const { check, failures } = setup();
  const keeper = hold(NL, lease(10_000));
  check.granted(keeper, 1);
  const writer = hold(EX, lease(10_000));
  check.granted(writer, 2);
  const lvb = check.lvbOf('default/a');
  lvb.answered(writer, 0);
  writer.dirty = true;
  lvb.publishing(writer, 7);
  check.released(writer, 3);
  lvb.published(writer);
  const reader = hold(PR, lease(10_000), { node: 2 });
  check.granted(reader, 4);
  lvb.answered(reader, 7);
  t.same(failures, []);
  for (const wrong of [0, -1, 6]) {
    const { check, failures } = setup();
    check.granted(hold(NL, lease(10_000)), 1);
    const w = hold(EX, lease(10_000));
    check.granted(w, 2);
    check.lvbOf('default/a').answered(w, 0);
    check.lvbOf('default/a').publishing(w, 7);
    check.released(w, 3);
    const r = hold(PR, lease(10_000), { node: 2 });
    check.granted(r, 4);
    check.lvbOf('default/a').answered(r, wrong);
    t.match(failures, [/^S3: /], `answer ${wrong}`);
  }
});

t.test('S3: a writer that dies leaves invalid, never the older value', async (t) => {
  const { check, failures } = setup();
  check.granted(hold(NL, lease(10_000)), 1);
  const writer = hold(EX, lease(100));
  check.granted(writer, 2);
  const lvb = check.lvbOf('default/a');
  lvb.answered(writer, 0);
  writer.dirty = true;
  const next = hold(EX, lease(10_000), { node: 2 });
  check.granted(next, 200);
  lvb.answered(next, 0);
  t.match(failures, [/^S3: /]);
});

t.test('S3: without any lock in between everything may be forgotten', async (t) => {
  for (const answer of [0, -1, 7]) {
    const { check, failures } = setup();
    const writer = hold(EX, lease(10_000));
    check.granted(writer, 2);
    const lvb = check.lvbOf('default/a');
    lvb.answered(writer, 0);
    lvb.publishing(writer, 7);
    check.released(writer, 3);
    lvb.published(writer);
    const next = hold(EX, lease(10_000));
    check.granted(next, 50);
    lvb.answered(next, answer);
    t.same(failures, [], `answer ${answer}`);
  }
});

t.test('S5: two votes of one node in one term and two leaders of one term are found', async (t) => {
  const failures: string[] = [];
  const check = new LogChecker((text) => failures.push(text));
  check.sent(1, 1, 2, { k: 'RaftVoteReply', term: 5, pre: true, granted: true, ackAgeMs: 0, journal: 'j2' });
  check.sent(1, 1, 3, { k: 'RaftVoteReply', term: 5, pre: false, granted: true, ackAgeMs: 0, journal: 'j2' });
  check.sent(1, 2, 3, { k: 'RaftVoteReply', term: 5, pre: false, granted: true, ackAgeMs: 0, journal: 'j2' });
  t.same(failures, []);
  check.sent(1, 2, 2, { k: 'RaftVoteReply', term: 5, pre: false, granted: true, ackAgeMs: 0, journal: 'j2' });
  t.match(failures, [/voted for n2 in term 5/]);
  check.sent(2, 1, 3, { k: 'Heartbeat', term: 5, commit: 0, sentAt: 1 });
  check.sent(3, 1, 2, { k: 'Heartbeat', term: 5, commit: 0, sentAt: 1 });
  t.match(failures[1], /both lead term 5/);
});

t.test('S5: a committed entry that is contradicted, and an epoch with two meanings, are found', async (t) => {
  const failures: string[] = [];
  const check = new LogChecker((text) => failures.push(text));
  check.persist(1, { ticket: 1, entries: [{ index: 1, term: 2, cmd: { c: 'noop' } }] });
  check.sent(1, 1, 2, { k: 'Heartbeat', term: 2, commit: 1, sentAt: 0 });
  check.persist(2, { ticket: 1, entries: [{ index: 1, term: 2, cmd: { c: 'noop' } }] });
  t.same(failures, []);
  check.persist(3, { ticket: 1, entries: [{ index: 1, term: 3, cmd: { c: 'noop' } }] });
  t.match(failures, [/entry 1/]);
  const rest = { limits: null, retired: [], nodes: [], domains: [], nextDom: 1, fencings: [], distrusted: [], alone: null };
  const view = { epoch: 4, table: 1, clusterId: 'c', ...rest } as View;
  t.equal(check.applied(1, view), true);
  t.equal(check.applied(2, view), false);
  check.applied(3, { ...view, clusterId: 'd' });
  t.match(failures[1], /epoch 4/);
});

t.test('two nodes that believe to master one name in one epoch are found', async (t) => {
  const failures: string[] = [];
  const check = new MasterChecker((text) => failures.push(text));
  check.sample([
    { node: 1, masters: ['1@4/a', '1@4/b'] },
    { node: 2, masters: ['1@3/a', '1@4/c'] },
  ]);
  t.same(failures, []);
  check.sample([
    { node: 1, masters: ['1@4/a'] },
    { node: 2, masters: ['1@4/a'] },
  ]);
  t.equal(failures.length, 1);
});

t.test('the tools: events run in order of time, chance repeats, traces compare, values survive', async (t) => {
  const q = new EventQueue();
  const order: number[] = [];
  for (const at of [5, 1, 3, 1, 4, 2]) q.at(at, () => order.push(at));
  while (q.step(4));
  t.same(order, [1, 1, 2, 3, 4]);
  t.equal(q.now, 4);
  const [a, b, c] = [new Prng(1, 1), new Prng(1, 1), new Prng(1, 2)];
  const drawn = Array.from({ length: 50 }, () => a.u32());
  t.same(
    drawn,
    Array.from({ length: 50 }, () => b.u32()),
  );
  t.notSame(
    drawn,
    Array.from({ length: 50 }, () => c.u32()),
  );
  const [x, y] = [new Trace(), new Trace()];
  x.add(1, 2, 'what', 'a', true, null);
  y.add(1, 2, 'what', 'a', true, null);
  t.equal(x.hash, y.hash);
  y.add(1, 2, 'what', 'b');
  t.not(x.hash, y.hash);
  t.equal(decodeLvb(encodeLvb(77)), 77);
  t.equal(decodeLvb(new Uint8Array(64)), null);
});
