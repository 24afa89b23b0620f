/** A daemon that is stopped cleanly (SIGTERM) hands over at once, and those who only relied on it as master notice nothing. */
import t from 'tap';
import { monotonicMs } from '../../src/client/index.js';
import { DEFAULT_LIMITS, world } from '../fixtures/e2e.js';
import { within } from '../fixtures/until.js';
import { Workload } from '../fixtures/workload.js';
import { Prng } from '../sim/prng.js';

/** From SIGTERM to the grant elsewhere: no lease is waited for. */
const AT_ONCE_MS = DEFAULT_LIMITS.leaseMs * 0.75;

const w = await world(t);
const value = (text: string): Buffer => Buffer.alloc(64, text);

async function stopMaster(master: number, waiterNode: number, third: number): Promise<void> {
  await t.test(`SIGTERM of node ${master}, which masters three locks`, async (t) => {
    const name = (what: string): string => `${what} of n${master}`;
    const leaving = await w.owner(master);
    const stays = await w.owner(third);
    const waiter = await w.owner(waiterNode);
    // Asked first there, so mastered there. The first is held by the leaving node itself, the other two by a third one.
    const held = await leaving.lock(name('own'));
    for (const what of ['kept', 'value']) {
      const first = await leaving.lock(name(what), 'EX', { lvb: true });
      await first.release({ lvb: value('1') });
    }
    const kept = await stays.lock(name('kept'));
    const reader = await stays.lock(name('value'), 'PR', { lvb: true });
    for (const what of ['own', 'kept', 'value']) t.equal((await w.cluster.show(third, name(what))).master?.id, master, what);
    const next = waiter.lock(name('own'));
    const behind = waiter.lock(name('kept'));
    await w.waiting(name('own'), 1, third);
    await w.waiting(name('kept'), 1, third);

    const stopping = new Promise<number>((resolve) => held.handle.signal.addEventListener('abort', () => resolve(monotonicMs())));
    const stoppedAt = monotonicMs();
    const ended = w.cluster.node(master).stop();
    // A well-behaved owner: it ends its work when it is told to.
    const toldAt = await within('the owner is told to end its work', stopping);
    await held.release();
    const granted = await within('the waiter is granted', next);
    const tookMs = granted.grantedAt - stoppedAt;
    t.ok(tookMs < AT_ONCE_MS, `granted after ${tookMs.toFixed(0)} ms (told after ${(toldAt - stoppedAt).toFixed(0)} ms)`);
    t.same(await ended, { code: 0, signal: null });

    t.ok(kept.handle.valid(), 'the third node still holds its lock');
    t.equal(kept.lostAt, null);
    await reader.convert('EX');
    t.same([reader.handle.lvbState, reader.handle.lvb], ['valid', value('1')], 'the value block moved along');
    await reader.release({ lvb: value('2') });
    const after = await waiter.lock(name('value'), 'PR', { lvb: true });
    t.same([after.handle.lvbState, after.handle.lvb], ['valid', value('2')], 'and can be written at its new place');
    await after.release();
    t.same((await w.cluster.show(waiterNode, name('kept'))).waiting.length, 1, 'the queue moved along');
    await kept.release();
    const last = await within('and its release lets the waiter in', behind);
    t.ok(last.token > kept.token);
    await last.release();
    await granted.release();
    await w.cluster.node(master).restart();
    await (await within('it is back', (await w.owner(master)).lock(name('own')))).release();
  });
}

/** Requests, releases and new values are under way all the time while masters leave. */
async function stopUnderLoad(): Promise<void> {
  await t.test('masters leave one after the other under load: no value is lost, nobody is disturbed', async (t) => {
    const load = new Workload(Array.from({ length: 12 }, (_, i) => `busy ${i}`));
    for (const node of w.cluster.nodes) {
      for (let i = 0; i < 3; i++) load.add(await w.owner(node.id), new Prng(node.id * 10 + i));
    }
    for (const node of w.cluster.nodes) {
      t.same(await node.stop(), { code: 0, signal: null });
      await node.restart();
    }
    await within('the last requests end', load.stop(), 30_000);
    t.same(load.wrong, []);
    t.equal(load.outcomes.get('TSDLM_LOST') ?? 0, 0, `no lock was lost: ${JSON.stringify(Object.fromEntries(load.outcomes))}`);
    for (const node of w.cluster.nodes) {
      t.notOk(
        node.log.some((l) => l.event === 'left-uncleanly'),
        `${node.name} left cleanly`,
      );
    }
  });
}

const leader = await w.cluster.leader();
const [a, b] = [1, 2, 3].filter((id) => id !== leader) as [number, number];
await stopMaster(a, b, leader);
await stopMaster(leader, a, b);
await stopUnderLoad();
await w.judge();
