import { connect, createServer, type Socket } from 'node:net';
import t from 'tap';
import type { PeerMessage } from '../../src/protocol/peer-messages.js';
import { Cluster, ids, incarnation, numbered, type Recorded, until } from './peer-helpers.js';

const beat = (sentAt: number): PeerMessage => ({ k: 'Heartbeat', term: 1, commit: 1, sentAt });
const isUp = (a: Recorded, peer: number) => a.net.isUp(peer);

for (const tls of [true, false]) {
  const over = { tls };
  t.test(`two nodes meet and talk, both classes, both directions (${tls ? 'TLS' : 'plain'})`, async (t) => {
    const c = new Cluster(t, 2);
    const a = await c.add(1, over);
    const b = await c.add(2, over);
    await until('both up', () => isUp(a, 2) && isUp(b, 1));
    t.same(a.ups, [{ peer: 2, startCount: 1, reset: true }]);
    t.same(b.ups, [{ peer: 1, startCount: 1, reset: true }]);
    for (let i = 1; i <= 100; i++) {
      a.net.send(2, numbered(i));
      b.net.send(1, numbered(i));
    }
    a.net.send(2, beat(5));
    await until('all there', () => b.got.length === 101 && a.got.length === 100);
    t.same(
      ids(b),
      Array.from({ length: 100 }, (_, i) => i + 1),
    );
    t.same(b.got.at(-1), { from: 1, m: beat(5) });
    t.equal(b.order[0], 'up 1', 'onUp comes before any message');
    await until('acknowledged', () => a.net.status().every((s) => s.bytesQueued === 0));
    await until('round trip measured', () => a.net.status().every((s) => s.rttMs !== null));
  });

  t.test(
    `the TCP connection is cut again and again in mid-stream: exactly once, in order (${tls ? 'TLS' : 'plain'})`,
    async (t) => {
      const c = new Cluster(t, 2);
      const a = await c.add(1, over);
      // A relay in between, whose connections are cut at random moments and places.
      const pairs = new Set<Socket>();
      const port = c.nodes[0]?.port ?? 0;
      const relay = createServer((left) => {
        const right = connect({ host: '127.0.0.1', port });
        for (const [s, other] of [
          [left, right],
          [right, left],
        ] as const) {
          pairs.add(s);
          s.on('error', () => {});
          s.on('close', () => {
            pairs.delete(s);
            other.destroy();
          });
          s.pipe(other);
        }
      });
      await new Promise<void>((resolve) => relay.listen(0, '127.0.0.1', resolve));
      t.teardown(() => {
        relay.close();
        for (const s of pairs) s.destroy();
      });
      const address = relay.address();
      const b = await c.add(2, over, false);
      (c.nodes[0] as { port: number }).port = typeof address === 'object' && address ? address.port : 0;
      b.net.start();
      await until('both up', () => isUp(a, 2) && isUp(b, 1));
      const total = 20_000;
      let sent = 0;
      let cuts = 0;
      while (sent < total) {
        for (let i = 0; i < 250; i++) {
          sent++;
          a.net.send(2, numbered(sent));
          b.net.send(1, numbered(sent));
        }
        await new Promise((resolve) => setImmediate(resolve));
        if (sent % 1000 === 0) {
          const got = b.got.length;
          if (isUp(b, 1)) await until('something arrived', () => b.got.length > got || !isUp(b, 1));
          for (const s of pairs) s.destroy();
          cuts++;
          if (cuts % 5 === 0) await until('up again', () => isUp(a, 2) && isUp(b, 1));
        }
      }
      await until('all there', () => ids(a).length >= total && ids(b).length >= total, 60_000);
      for (const r of [a, b]) {
        const got = ids(r);
        t.equal(got.length, total);
        t.ok(
          got.every((id, i) => id === i + 1),
          'in order',
        );
        t.ok(r.downs.length >= 3, `${r.downs.length} times down`);
        t.equal(r.ups.filter((u) => u.reset).length, 1, 'never reset after the first contact');
      }
    },
  );
}

for (const tls of [true, false]) {
  t.test(`what was sent right before close() arrives (${tls ? 'TLS' : 'plain'})`, async (t) => {
    const c = new Cluster(t, 2);
    const a = await c.add(1, { tls });
    const b = await c.add(2, { tls });
    await until('both up', () => isUp(a, 2) && isUp(b, 1));
    for (let i = 1; i <= 5000; i++) {
      a.net.send(2, numbered(i));
      b.net.send(1, numbered(i));
    }
    await b.net.close();
    t.same(b.downs, [1]);
    await until('all there', () => ids(a).length === 5000 && a.downs.length === 1);
    const before = performance.now();
    await a.net.close();
    t.ok(performance.now() - before < 2000);
  });
}

t.test('lock messages queued before the first contact arrive; control messages do not', async (t) => {
  const c = new Cluster(t, 2);
  const a = await c.add(1);
  a.net.send(2, beat(1));
  for (let i = 1; i <= 10; i++) a.net.send(2, numbered(i));
  const b = await c.add(2);
  await until('all there', () => ids(b).length === 10);
  t.same(b.order.slice(0, 2), ['up 1', 'UnlockDone']);
  t.equal(
    b.got.some(({ m }) => m.k === 'Heartbeat'),
    false,
  );
});

t.test('a restarted peer resets the pair: nothing of before arrives afterwards', async (t) => {
  const c = new Cluster(t, 2);
  const a = await c.add(1);
  const b = await c.add(2);
  await until('both up', () => isUp(a, 2) && isUp(b, 1));
  await b.net.close();
  await until('a has noticed', () => !isUp(a, 2));
  for (let i = 1; i <= 10; i++) a.net.send(2, numbered(i));
  const b2 = await c.add(2, { incarnation: incarnation(2, 2) });
  await until('up again', () => isUp(a, 2) && isUp(b2, 1));
  a.net.send(2, numbered(99));
  await until('the new one is there', () => ids(b2).length > 0);
  t.same(ids(b2), [99]);
  t.same(a.ups.at(-1), { peer: 2, startCount: 2, reset: true });
  t.equal(a.net.incarnationOf(2)?.startCount, 2);
});

t.test('setIncarnation ends all links and begins them anew with a reset', async (t) => {
  const c = new Cluster(t, 3);
  const a = await c.add(1);
  const b = await c.add(2);
  const d = await c.add(3);
  const all = () => isUp(a, 2) && isUp(b, 1) && isUp(b, 3) && isUp(d, 2) && isUp(a, 3) && isUp(d, 1);
  await until('all up', all);
  b.net.setIncarnation(incarnation(2, 7));
  t.same(b.downs.sort(), [1, 3]);
  await until(
    'all up again',
    () => all() && a.net.incarnationOf(2)?.startCount === 7 && d.net.incarnationOf(2)?.startCount === 7,
  );
  t.same(a.ups.at(-1), { peer: 2, startCount: 7, reset: true });
  t.same(d.ups.at(-1), { peer: 2, startCount: 7, reset: true });
  t.equal(
    b.ups.slice(-2).every((u) => u.reset),
    true,
  );
});

t.test('a cut cable is noticed after three heartbeats and mended without a reset', async (t) => {
  const c = new Cluster(t, 2);
  const a = await c.add(1);
  const b = await c.add(2);
  await until('both up', () => isUp(a, 2) && isUp(b, 1));
  a.net.block(2, true);
  for (let i = 1; i <= 5; i++) b.net.send(1, numbered(i));
  await until('both down', () => !isUp(a, 2) && !isUp(b, 1));
  t.same(ids(a), []);
  a.net.block(2, false);
  await until('both up again', () => isUp(a, 2) && isUp(b, 1));
  await until('kept messages arrive', () => ids(a).length === 5);
  t.same(a.ups.at(-1), { peer: 2, startCount: 1, reset: false });
});

t.test('an idle link stays up', async (t) => {
  const c = new Cluster(t, 2);
  const a = await c.add(1);
  const b = await c.add(2);
  await until('both up', () => isUp(a, 2) && isUp(b, 1));
  const until10 = performance.now() + 500;
  await until('ten heartbeats', () => performance.now() > until10);
  t.same(a.downs, []);
  t.same(b.downs, []);
});

t.test('rule 25: a peer that never reads costs bounded memory, then the pair is reset', async (t) => {
  const c = new Cluster(t, 2);
  const max = 2 * 1024 * 1024;
  const a = await c.add(1, { backlogBytesMax: max, tls: false });
  const b = await c.add(2, { tls: false });
  await until('both up', () => isUp(a, 2) && isUp(b, 1));
  b.net.block(1, true);
  let most = 0;
  for (let i = 1; a.downs.length === 0; i++) {
    for (let j = 0; j < 1000; j++) a.net.send(2, numbered(i * 1000 + j));
    most = Math.max(most, ...a.net.status().map((s) => s.bytesQueued));
    await new Promise((resolve) => setImmediate(resolve));
  }
  t.ok(most < 2 * max + 4 * 1024 * 1024, `at most ${most} bytes were queued`);
  b.net.block(1, false);
  await until('both up again', () => isUp(a, 2) && isUp(b, 1));
  const before = ids(b).length;
  a.net.send(2, numbered(5));
  await until('the link works', () => ids(b).length > before);
  t.ok(a.ups.length >= 2);
});

t.test('a burst far above the pause limit arrives whole and in order', async (t) => {
  const c = new Cluster(t, 2);
  const a = await c.add(1);
  const b = await c.add(2);
  await until('both up', () => isUp(a, 2) && isUp(b, 1));
  const total = 300_000;
  for (let i = 1; i <= total; i++) a.net.send(2, numbered(i));
  a.net.send(2, beat(1));
  await until('all there', () => b.got.length === total + 1, 60_000);
  const got = ids(b);
  t.ok(got.every((id, i) => id === i + 1));
  t.same(a.downs, []);
  await until('all acknowledged', () => a.net.status().every((s) => s.bytesQueued === 0));
});

t.test('a lock message above the frame limit is reported and resets the pair; a control message is dropped', async (t) => {
  const c = new Cluster(t, 2);
  const a = await c.add(1);
  const b = await c.add(2);
  await until('both up', () => isUp(a, 2) && isUp(b, 1));
  a.net.send(2, { k: 'QueryReply', id: 1, ok: true, data: 'x'.repeat(5_000_000) });
  t.equal(a.log.at(-1)?.event, 'message_too_large');
  a.net.send(2, numbered(1));
  await until('the link goes on', () => ids(b).length === 1);
  const name = 'x'.repeat(255);
  const queue = Array.from({ length: 100_000 }, (_, i) => [1, 2 ** 40 + i]);
  const resource = { name, lvbState: 0 as const, lvb: null, exNode: 0, exId: 0, converting: [], blocked: queue };
  a.net.send(2, { k: 'HandOver', dom: 1, dep: 1, ce: 1, cc: 1, resources: Array.from({ length: 10 }, () => resource) });
  await until('reset', () => a.ups.length === 2);
  t.equal(a.ups[1]?.reset, true);
});

t.test('host names are resolved', async (t) => {
  const c = new Cluster(t, 2);
  for (const n of c.nodes) n.host = 'localhost';
  const a = await c.add(1, { listen: { host: 'localhost', port: 0 } });
  const b = await c.add(2);
  await until('both up', () => isUp(a, 2) && isUp(b, 1));
  t.pass();
});

t.test('a port in use is a clear error', async (t) => {
  const c = new Cluster(t, 2);
  await c.add(1, {}, false);
  const port = c.nodes[0]?.port ?? 0;
  await t.rejects(c.add(2, { listen: { host: '127.0.0.1', port } }), { code: 'TSDLM_BAD_CONFIG', message: /in use/ });
});
