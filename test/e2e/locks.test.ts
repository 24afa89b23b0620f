/** What programs on different nodes see of each other, in quiet times. */
import t from 'tap';
import { QUICK, QUICK_LIMITS, world } from '../fixtures/e2e.js';
import { until, within } from '../fixtures/until.js';

const w = await world(t, { limits: QUICK });
const [one, two, three] = await Promise.all([w.owner(1), w.owner(2), w.owner(3)]);

const value = (text: string): Buffer => Buffer.alloc(64, text);

t.test('EX goes from node to node in the order of asking, with rising tokens', async (t) => {
  const first = await one.lock('order');
  const order: string[] = [];
  const ask = (owner: typeof one): Promise<void> =>
    owner.lock('order').then(async (held) => {
      order.push(held.handle.token > first.token ? owner.node : 'token fell');
      await held.release();
    });
  const asked: Promise<void>[] = [];
  for (const owner of [two, three, one]) {
    asked.push(ask(owner));
    await w.waiting('order', asked.length);
  }
  await first.release();
  await within('all are granted', Promise.all(asked));
  t.same(order, ['n2', 'n3', 'n1']);
});

t.test('PR is shared by all nodes; a new PR does not overtake a waiting EX', async (t) => {
  const readers = await Promise.all([one, two].map((o) => o.lock('shared', 'PR')));
  const writer = three.lock('shared', 'EX');
  await w.waiting('shared', 1, 1);
  let isLateGranted = false;
  const late = one.lock('shared', 'PR').then((held) => {
    isLateGranted = true;
    return held;
  });
  await w.waiting('shared', 2, 1);
  for (const reader of readers) await reader.release();
  const held = await within('EX after the readers', writer);
  t.notOk(isLateGranted);
  await held.release();
  await (await within('PR after EX', late)).release();
});

t.test('a try that conflicts is refused at once, on the same node and on another', async (t) => {
  const held = await one.lock('busy');
  for (const owner of [one, two, three]) {
    await t.rejects(within('the refusal', owner.lock('busy', 'PR', { try: true }), 5000), { code: 'TSDLM_CONFLICT' });
  }
  await held.release();
  await (await two.lock('busy', 'EX', { try: true })).release();
});

t.test('a request with a time limit ends with TSDLM_TIMEOUT and leaves the queue', async (t) => {
  const held = await one.lock('late');
  await t.rejects(two.lock('late', 'EX', { timeout: 100 }), { code: 'TSDLM_TIMEOUT' });
  t.same((await w.cluster.show(3, 'late')).waiting, []);
  await held.release();
  await (await three.lock('late')).release();
});

t.test('a cancelled request ends with TSDLM_CANCELLED and blocks nobody', async (t) => {
  const held = await one.lock('cancelled', 'PR');
  const stop = new AbortController();
  const asked = two.lock('cancelled', 'EX', { signal: stop.signal });
  await w.waiting('cancelled', 1, 1);
  const behind = three.lock('cancelled', 'PR');
  stop.abort();
  await t.rejects(asked, { code: 'TSDLM_CANCELLED' });
  await (await within('PR that stood behind it', behind)).release();
  await held.release();
});

t.test('a value block written on one node is read on another; with release, write, and conversion', async (t) => {
  const first = await one.lock('value', 'EX', { lvb: true });
  t.equal(first.handle.lvbState, 'none');
  await first.release({ lvb: value('a') });
  const second = await two.lock('value', 'EX', { lvb: true });
  t.same([second.handle.lvbState, second.handle.lvb], ['valid', value('a')]);
  await second.handle.writeLvb(value('b'));
  await second.convert('PR', { lvb: value('c') });
  const third = await three.lock('value', 'PR', { lvb: true });
  t.same([third.handle.lvbState, third.handle.lvb], ['valid', value('c')]);
  await third.release();
  await second.release();
});

t.test('a conversion to the mode already held keeps the token and what was written', async (t) => {
  for (const master of [one, two]) {
    const name = `same mode, mastered by ${master.node}`;
    const reference = await master.lock(name, 'NL');
    const held = await one.lock(name, 'EX', { lvb: true });
    const { token } = held;
    await held.handle.writeLvb(value('x'));
    await held.convert('EX');
    t.equal(held.token, token);
    t.same([held.handle.lvbState, held.handle.lvb], ['valid', value('x')], name);
    await held.release();
    const reader = await three.lock(name, 'PR', { lvb: true });
    t.same([reader.handle.lvbState, reader.handle.lvb], ['valid', value('x')], name);
    await reader.release();
    await reference.release();
  }
});

t.test('BAST: a holder hears from another node that it is in the way, and for what mode', async (t) => {
  const held = await one.lock('wanted');
  const heard: string[] = [];
  const blocking = new Promise<void>((resolve) =>
    held.handle.on('blocking', (mode) => {
      heard.push(mode);
      resolve();
    }),
  );
  const reader = two.lock('wanted', 'PR');
  await within('the notice', blocking);
  t.same(heard, ['PR']);
  await held.convert('PR');
  await (await within('PR beside PR', reader)).release();
  await held.release();
});

t.test('a conversion up waits for the other reader; the stronger mode brings a new token', async (t) => {
  const first = await one.lock('up', 'EX');
  const before = first.token;
  await first.convert('PR');
  const reader = await two.lock('up', 'PR');
  let isUp = false;
  const up = first.convert('EX').then(() => {
    isUp = true;
  });
  await w.waiting('up', 1, 3);
  t.notOk(isUp);
  await reader.release();
  await within('the conversion', up);
  t.ok(first.token > before, 'a new grant of EX has a new token');
  await first.release();
});

t.test('two readers on two nodes that both convert to EX: one gets TSDLM_DEADLOCK at once and keeps PR', async (t) => {
  const [a, b] = await Promise.all([one.lock('dead', 'PR'), two.lock('dead', 'PR')]);
  const results = await within(
    'one of them is refused',
    Promise.race(
      [a, b].map((held, i) =>
        held.convert('EX').then(
          () => ({ i, code: '' }),
          (error) => ({ i, code: error.code }),
        ),
      ),
    ),
    QUICK_LIMITS.leaseMs,
  );
  t.equal(results.code, 'TSDLM_DEADLOCK');
  const loser = results.i === 0 ? a : b;
  t.equal(loser.handle.mode, 'PR');
  t.ok(loser.handle.valid());
  await loser.release();
  const winner = loser === a ? b : a;
  await until('the other one has EX', () => winner.handle.mode === 'EX');
  await winner.release();
});

t.test('the same name in two domains is two locks; a domain begins with its first user and is shared by all nodes', async (t) => {
  // Not through the history: it knows names only.
  const [a, b, c] = [one, two, three].map((owner) => owner.client);
  if (!a || !b || !c) throw new Error('three clients');
  const first = await within('a new domain', a.lock('same', 'EX', { domain: 'blue' }));
  const inOther = await within('another one', b.lock('same', 'EX', { domain: 'green' }));
  t.ok(first.valid() && inOther.valid(), 'both are held');
  await t.rejects(within('joins and asks', c.lock('same', 'EX', { domain: 'blue', timeout: 500 })), { code: 'TSDLM_TIMEOUT' });
  await t.rejects(b.lock('same', 'PR', { domain: 'blue', try: true }), { code: /CONFLICT|UNAVAILABLE/ });
  const waiting = c.lock('same', 'EX', { domain: 'blue' });
  await first.release();
  const next = await within('the waiter in the domain', waiting);
  t.ok(next.token > first.token);
  await next.release();
  await inOther.release();
});

await w.judge();
