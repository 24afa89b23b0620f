/** The whole cluster goes away and comes back: nobody is left who remembers but the journals. */
import t, { type Test } from 'tap';
import { QUICK, world } from '../fixtures/e2e.js';
import { within } from '../fixtures/until.js';

const w = await world(t, { limits: QUICK });
const { nodes } = w.cluster;
const NAME = 'across restarts';
let token = 0n;

/** Takes and gives back the lock on every node; tokens rise all the way. */
async function round(t: Test): Promise<void> {
  for (const node of nodes) {
    const held = await within(`a grant on ${node.name}`, (await w.owner(node.id)).lock(NAME), 30_000);
    t.ok(held.token > token, `token ${held.token} after ${token}`);
    token = held.token;
    await held.release();
  }
}

t.test('all daemons killed with SIGKILL while one holds the lock', async (t) => {
  await round(t);
  const held = await (await w.owner(2)).lock(NAME);
  token = held.token;
  await Promise.all(nodes.map((node) => node.kill()));
  const joined = nodes.map((node) => node.restart(30_000));
  // Back within the lease its owner claims it again; later it is lost.
  const resumed = new Promise<'kept'>((resolve) => held.handle.on('resumed', () => resolve('kept')));
  const fate = await within('the loss, or the lock again', Promise.race([held.lost.then(() => 'lost' as const), resumed]));
  await Promise.all(joined);
  if (fate === 'kept' && held.handle.valid()) {
    t.equal(held.token, token, 'the same grant');
    await held.release();
  } else {
    await within('the loss', held.lost);
  }
  await round(t);
  t.comment(`the lock was ${fate}`);
  t.ok(w.history.holds().some((h) => h.token === held.token && (fate === 'kept' || h.ending !== 'release')));
});

t.test('all daemons stopped cleanly at the same time', async (t) => {
  const ended = await Promise.all(nodes.map((node) => node.stop()));
  t.same(
    ended,
    nodes.map(() => ({ code: 0, signal: null })),
  );
  await Promise.all(nodes.map((node) => node.restart(30_000)));
  await round(t);
});

t.test('all daemons stopped cleanly one after the other', async (t) => {
  for (const node of nodes) t.same(await node.stop(), { code: 0, signal: null });
  await Promise.all([...nodes].reverse().map((node) => node.restart(30_000)));
  await round(t);
});

await w.judge();
