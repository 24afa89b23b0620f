import t from 'tap';
import { connect } from '../../src/client/index.js';
import { codeOf, startFakeDaemon, until } from '../fixtures/fake-daemon.js';

for (const isLate of [false, true]) {
  t.test(`a lock cycle over a real socket, events ${isLate ? 'after' : 'inside'} the core's call`, async (t) => {
    const daemon = await startFakeDaemon({ isLate });
    t.teardown(() => daemon.stop());
    const a = await connect({ socket: daemon.path, label: 'a' });
    const b = await connect({ socket: daemon.path, label: 'b' });
    t.teardown(() => a.close());
    t.teardown(() => b.close());
    t.equal(a.daemon.nodeName, 'n1');
    t.equal(a.daemon.cluster, 'test');

    const held = await a.lock('master', 'EX', { why: 'test' });
    t.equal(held.mode, 'EX');
    t.ok(held.valid());
    t.equal(held.token >> 40n, 7n, 'the epoch is in the high bits of the token');
    t.equal(await codeOf(b.lock('master', 'EX', { try: true })), 'TSDLM_CONFLICT');
    t.equal(await codeOf(b.lock('master', 'PR', { timeout: 30 })), 'TSDLM_TIMEOUT');

    const blocking = new Promise((resolve) => held.on('blocking', (mode) => mode === 'EX' && resolve(mode)));
    const waiting = b.lock('master', 'EX');
    t.equal(await blocking, 'EX', 'the holder hears that somebody waits');
    await held.release();
    t.notOk(held.valid());
    const next = await waiting;
    t.ok(next.token > held.token, 'S2: tokens rise');

    await next.convert('PR');
    t.equal(next.mode, 'PR');
    const reader = await a.lock('master', 'PR');
    t.equal(await codeOf(reader.convert('EX', { try: true })), 'TSDLM_CONFLICT');
    t.equal(reader.mode, 'PR', 'a refused conversion keeps the mode');
    const up = next.convert('EX');
    await until(() => daemon.core.locksOf('master').includes('1/2'), 'the conversion waits');
    t.equal(await codeOf(reader.convert('EX')), 'TSDLM_DEADLOCK');
    await reader.release();
    await up;
    t.equal(next.mode, 'EX');
    await next.release();
    await next.release();
    t.equal(daemon.core.lockCount, 0);
  });
}

t.test('the value block travels with the lock', async (t) => {
  const daemon = await startFakeDaemon();
  t.teardown(() => daemon.stop());
  const client = await connect({ socket: daemon.path });
  t.teardown(() => client.close());
  const first = await client.lock('value', 'EX', { lvb: true });
  t.equal(first.lvbState, 'none');
  t.equal(first.lvb, null);
  t.equal(await codeOf(first.writeLvb(Buffer.alloc(63))), 'TSDLM_BAD_ARGUMENT');
  const value = Buffer.alloc(64, 'v');
  await first.writeLvb(value);
  t.equal(first.lvbState, 'valid');
  t.same(first.lvb, value);
  await first.release();
  const second = await client.lock('value', 'PR', { lvb: true });
  t.same(second.lvb, value);
  t.equal(await codeOf(second.writeLvb(value)), 'TSDLM_BAD_ARGUMENT', 'writing needs EX');
  await second.convert('EX');
  await second.release({ lvb: Buffer.alloc(64, 'w') });
  const third = await client.lock('value', 'EX', { lvb: true });
  t.equal(third.lvb?.toString(), 'w'.repeat(64));
  await third.convert('NL', { lvb: Buffer.alloc(64, 'x') });
  await third.convert('PR');
  t.equal(third.lvb?.toString(), 'x'.repeat(64), 'stored by the conversion down');
});

t.test('rule 18: a client that dies under EX with use of the value block makes it invalid', async (t) => {
  const daemon = await startFakeDaemon();
  t.teardown(() => daemon.stop());
  const dying = await connect({ socket: daemon.path });
  const other = await connect({ socket: daemon.path });
  t.teardown(() => other.close());
  await (await dying.lock('value', 'EX', { lvb: true })).writeLvb(Buffer.alloc(64, 'v'));
  const next = other.lock('value', 'PR', { lvb: true });
  dying.connection.destroy();
  const handle = await next;
  t.equal(handle.lvbState, 'invalid');
  t.equal(handle.lvb, null);
});

t.test('bad arguments are refused before anything is sent', async (t) => {
  const daemon = await startFakeDaemon();
  t.teardown(() => daemon.stop());
  const client = await connect({ socket: daemon.path });
  t.teardown(() => client.close());
  const bad = 'XX' as 'EX';
  t.equal(await codeOf(client.lock('', 'EX')), 'TSDLM_BAD_ARGUMENT');
  t.equal(await codeOf(client.lock('a\0b', 'EX')), 'TSDLM_BAD_ARGUMENT');
  t.equal(await codeOf(client.lock('n'.repeat(256), 'EX')), 'TSDLM_NAME_TOO_LONG');
  t.equal(await codeOf(client.lock('ä'.repeat(128), 'EX')), 'TSDLM_NAME_TOO_LONG', 'bytes count, not characters');
  t.equal(await codeOf(client.lock('n', bad)), 'TSDLM_BAD_ARGUMENT');
  t.equal(await codeOf(client.lock('n', 'EX', { domain: 'a/b' })), 'TSDLM_BAD_ARGUMENT');
  t.equal(await codeOf(client.lock('n', 'EX', { domain: 'd'.repeat(64) })), 'TSDLM_NAME_TOO_LONG');
  t.equal(await codeOf(client.lock('n', 'EX', { why: 'w'.repeat(201) })), 'TSDLM_BAD_ARGUMENT');
  t.equal(await codeOf(client.lock('n', 'EX', { timeout: -1 })), 'TSDLM_BAD_ARGUMENT');
  t.equal(await codeOf(client.lock('n', 'EX', { timeout: Number.NaN })), 'TSDLM_BAD_ARGUMENT');
  t.same(daemon.core.calls, []);
  t.equal(await codeOf(client.lock('n'.repeat(255), 'EX')), 'ok');
});

t.test('an AbortSignal withdraws a waiting request', async (t) => {
  const daemon = await startFakeDaemon();
  t.teardown(() => daemon.stop());
  const client = await connect({ socket: daemon.path });
  t.teardown(() => client.close());
  const held = await client.lock('n', 'EX');
  const abort = new AbortController();
  const waiting = client.lock('n', 'EX', { signal: abort.signal });
  await until(() => daemon.core.locksOf('n').length === 2, 'the request waits');
  abort.abort();
  t.equal(await codeOf(waiting), 'TSDLM_CANCELLED');
  t.same(daemon.core.locksOf('n'), ['2/-1']);
  t.equal(await codeOf(client.lock('n', 'EX', { signal: abort.signal })), 'TSDLM_CANCELLED', 'a signal that has fired before');

  const late = new AbortController();
  const shared = await client.lock('m', 'PR');
  const convert = shared.convert('EX', { signal: late.signal });
  await convert;
  late.abort();
  t.equal(shared.mode, 'EX', 'cancelling what is done does nothing');
  await held.release();
});

t.test('a grant that wins against its cancellation is given back', async (t) => {
  const daemon = await startFakeDaemon();
  t.teardown(() => daemon.stop());
  const client = await connect({ socket: daemon.path });
  t.teardown(() => client.close());
  const abort = new AbortController();
  const racing = client.lock('n', 'EX', { signal: abort.signal });
  // The request is granted when the daemon reads it; the cancellation follows in the same write.
  abort.abort();
  t.equal(await codeOf(racing), 'TSDLM_CANCELLED');
  await until(() => daemon.core.lockCount === 0, 'the grant is given back');

  const shared = await client.lock('m', 'PR');
  const again = new AbortController();
  const converting = shared.convert('EX', { signal: again.signal });
  again.abort();
  t.equal(await codeOf(converting), 'TSDLM_CANCELLED');
  await until(() => daemon.core.locksOf('m')[0] === '1/-1', 'the mode is what it was');
  await until(() => shared.mode === 'PR', 'and the handle says so');
});

t.test('a release while a conversion waits ends both', async (t) => {
  const daemon = await startFakeDaemon();
  t.teardown(() => daemon.stop());
  const client = await connect({ socket: daemon.path });
  t.teardown(() => client.close());
  const one = await client.lock('n', 'PR');
  const two = await client.lock('n', 'PR');
  const converting = codeOf(two.convert('EX'));
  await until(() => daemon.core.locksOf('n').includes('1/2'), 'the conversion waits');
  await two.release();
  t.match(await converting, /TSDLM_(CANCELLED|NOT_HELD)/);
  t.same(daemon.core.locksOf('n'), ['1/-1']);
  t.equal(await codeOf(two.convert('PR')), 'TSDLM_NOT_HELD');
  await one.release();
});

t.test('withLock and await using give the lock back', async (t) => {
  const daemon = await startFakeDaemon();
  t.teardown(() => daemon.stop());
  const client = await connect({ socket: daemon.path });
  t.teardown(() => client.close());
  t.equal(await client.withLock('n', 'EX', {}, async (handle) => `${handle.mode} ${handle.valid()}`), 'EX true');
  t.equal(daemon.core.lockCount, 0);
  const failing = client.withLock('n', 'EX', {}, () => {
    throw new Error('inner');
  });
  await t.rejects(failing, { message: 'inner' });
  t.equal(daemon.core.lockCount, 0);
  {
    await using handle = await client.lock('n', 'EX');
    t.ok(handle.valid());
  }
  t.equal(daemon.core.lockCount, 0);
});

t.test('many requests in flight are answered, each once and in order', async (t) => {
  const daemon = await startFakeDaemon();
  t.teardown(() => daemon.stop());
  const client = await connect({ socket: daemon.path });
  t.teardown(() => client.close());
  const order: number[] = [];
  await Promise.all(
    Array.from({ length: 500 }, async (_, i) => {
      const handle = await client.lock('n', 'EX');
      order.push(i);
      await handle.release();
    }),
  );
  t.same(
    order,
    Array.from({ length: 500 }, (_, i) => i),
  );
  t.equal(daemon.core.lockCount, 0);
});
