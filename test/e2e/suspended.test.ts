/** Rule 20 with real daemons: two of three die, and the third, which only its fence script could end, keeps its owners' locks. */
import { chmodSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import t from 'tap';
import { monotonicMs } from '../../src/client/index.js';
import { QUICK, QUICK_LIMITS, world } from '../fixtures/e2e.js';
import { until, within } from '../fixtures/until.js';

const dir = mkdtempSync(join(tmpdir(), 'tsdlm-suspended-'));
t.teardown(() => rmSync(dir, { recursive: true, force: true }));
const script = join(dir, 'fails.sh');
writeFileSync(script, '#!/bin/sh\necho "no power switch"\nexit 1\n');
chmodSync(script, 0o755);

const w = await world(t, {
  limits: QUICK,
  nodeLines: () => 'fence = [["script"]]\n',
  tables: () => `\n[fence.script]\ntype = "script"\ncommand = ["${script}"]\ntimeout_ms = 60000\n`,
});

t.test('rule 20: owners of the one that is left are told `suspended`, and go on when there is a quorum again', async (t) => {
  const owner = await w.owner(1);
  const held = await owner.lock('service');
  const command = w.cluster.spawn(1, ['lock', 'command', '--', 'sleep', '600']);
  await until('the command has its lock', async () => (await w.cluster.show(1, 'command').catch(() => null)) !== null);
  const suspended = new Promise<string>((resolve) => held.handle.on('suspended', resolve));
  const resumed = new Promise<void>((resolve) => held.handle.on('resumed', resolve));
  await Promise.all([w.cluster.node(2).kill(), w.cluster.node(3).kill()]);

  t.equal(await within('suspended', suspended), 'quorum');
  const start = (await w.cluster.status(1)).startCount;
  const end = monotonicMs() + 3 * QUICK_LIMITS.leaseMs;
  await until('three leases have passed', () => monotonicMs() > end);
  t.ok(held.handle.valid(), 'still held');
  t.notOk(held.handle.signal.aborted);
  t.equal(command.exitCode, null, 'the command runs');
  t.ok((await w.cluster.status(1)).isSuspended);
  t.match((await w.cluster.run(1, ['status'])).stdout, /warning: this node is suspended/);
  await t.rejects(owner.lock('new', 'EX', { timeout: 300 }), { code: 'TSDLM_TIMEOUT' }, 'nothing is granted');

  await Promise.all([w.cluster.node(2).restart(), w.cluster.node(3).restart()]);
  await within('resumed', resumed);
  t.ok(held.handle.valid());
  t.notOk((await w.cluster.status(1)).isSuspended);
  t.equal((await w.cluster.status(1)).startCount, start, 'the same incarnation');
  t.equal(command.exitCode, null, 'the command runs');
  const waiting = (await w.owner(2)).lock('service');
  await w.waiting('service', 1);
  await held.release();
  await (await within('the next owner', waiting)).release();
  command.kill('SIGTERM');
});

await w.judge();
