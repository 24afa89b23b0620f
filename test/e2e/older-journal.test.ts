/**
 * Rule 12, the part of it that no single machine can see: a whole state directory put back as it once was. It is whole, so it opens;
 * the others know more of it than it holds, refuse it, and it refuses itself from then on.
 */
import { cpSync, renameSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import type { TestNode } from '../fixtures/cluster.js';
import { QUICK, world } from '../fixtures/e2e.js';
import { within } from '../fixtures/until.js';

const w = await world(t, { limits: QUICK });
const [one, , three] = [w.cluster.node(1), w.cluster.node(2), w.cluster.node(3)];
const state = (node: TestNode): string => join(node.dir, 'state');

function copyOf(node: TestNode, name: string): string {
  const copy = join(node.dir, name);
  cpSync(state(node), copy, { recursive: true, filter: (path) => !path.includes('/lock.') });
  return copy;
}

function putBack(node: TestNode, copy: string): void {
  rmSync(state(node), { recursive: true });
  cpSync(copy, state(node), { recursive: true });
}

/** It ends by itself, says why, and never became a member. */
async function refuses(t: Test, node: TestNode): Promise<void> {
  const since = node.log.length;
  node.errors = '';
  node.start();
  const { code } = await node.ended();
  t.equal(code, 78);
  t.match(
    node.errors,
    /is older than what the cluster knows of it.*Put the newest state directory back.*TSDLM_JOURNAL_ROLLED_BACK/s,
  );
  const wrong = node.log.slice(since).filter((l) => l.event === 'joined' || l.event === 'leader');
  t.same(wrong, [], 'it neither joined nor led');
}

t.test('an older copy is refused at the hello, and from then on by its own daemon', async (t) => {
  await three.kill();
  const old = copyOf(three, 'old');
  await three.restart(30_000);
  await three.kill();
  await three.restart(30_000);
  await three.kill();
  const newest = copyOf(three, 'newest');

  putBack(three, old);
  await refuses(t, three);
  const since = three.log.length;
  // By counting up at each start it would pass for new in the end, if it did not know better.
  for (let i = 0; i < 3; i++) await refuses(t, three);
  t.notOk(
    three.log.slice(since).some((l) => l.event === 'daemon-started'),
    'not even started, and nobody was asked',
  );
  await (await within('the others go on', (await w.owner(1)).lock('a'))).release();

  putBack(three, newest);
  await three.restart(30_000);
  await (await within('the newest one is welcome', (await w.owner(3)).lock('a'))).release();
});

t.test('so it is when all others were restarted too, and know it from the view only', async (t) => {
  await three.stop();
  const old = copyOf(three, 'old-2');
  // Twice: after one start the old copy would come with the same start count on the same boot.
  for (let i = 0; i < 2; i++) {
    await three.restart(30_000);
    await three.stop();
  }
  const newest = copyOf(three, 'newest-2');
  await one.kill();
  await one.restart(30_000);
  await w.cluster.node(2).kill();
  await w.cluster.node(2).restart(30_000);
  putBack(three, old);
  await refuses(t, three);
  putBack(three, newest);
  await three.restart(30_000);
});

t.test('a copy from the middle of the last life has the right start count and not what it acknowledged since', async (t) => {
  const leader = await w.cluster.leader();
  const [victim, other] = [1, 2, 3].filter((id) => id !== leader) as [number, number];
  const node = w.cluster.node(victim);
  // As a snapshot of the disk takes it: the daemon goes on.
  const old = copyOf(node, 'old-3');
  await w.cluster.node(other).kill();
  await w.cluster.node(other).restart(30_000);
  await node.kill();
  renameSync(state(node), join(node.dir, 'newest-3'));
  cpSync(old, state(node), { recursive: true });
  await refuses(t, node);
  rmSync(state(node), { recursive: true });
  renameSync(join(node.dir, 'newest-3'), state(node));
  await node.restart(30_000);
});

await w.judge();
