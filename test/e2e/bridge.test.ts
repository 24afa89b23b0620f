/** A real daemon and its bridge helper where the kernel's dlmfs is missing: what is said, what goes on, and that no helper is left. */
import { readdirSync, readFileSync } from 'node:fs';
import t from 'tap';
import { TEST_LIMIT_MS, world } from '../fixtures/e2e.js';
import { until } from '../fixtures/until.js';

t.setTimeout(TEST_LIMIT_MS);

/** Process numbers of bridge helpers of daemons under `dir`. */
function helpers(dir: string): number[] {
  return readdirSync('/proc')
    .filter((entry) => /^\d+$/.test(entry))
    .filter((entry) => {
      try {
        const args = readFileSync(`/proc/${entry}/cmdline`, 'utf8');
        return args.includes('bridge/helper.js') && args.includes(dir);
      } catch {
        return false;
      }
    })
    .map(Number);
}

t.test(
  'rule 5: a bridged domain without the kernel dlmfs is refused and says why; others go on, over deaths of both processes',
  async (t) => {
    const w = await world(t, {
      nodes: 1,
      limits: { heartbeat_ms: 250, lease_ms: 10_000 },
      tables: () => '\n[domains.web]\nbridge = "/nowhere-dlmfs"\n',
    });
    const { cluster } = w;
    const node = cluster.node(1);
    const isDown = async (): Promise<boolean> => (await cluster.status(1)).bridge?.why.includes('/nowhere-dlmfs is not') === true;
    await until('the reason is known', isDown);
    const refused = await cluster.run(1, ['lock', 'r', '--domain', 'web', '--', 'true']);
    t.equal(refused.code, 69);
    t.match(refused.stderr, /TSDLM_BRIDGE_DOWN/);
    t.equal((await cluster.run(1, ['lock', 'r', '--', 'true'])).code, 0);
    t.equal(helpers(node.dir).length, 1);

    // An owner in another domain never notices what becomes of the helper.
    const owner = await w.owner(1);
    const held = await owner.client.lock('other', 'EX');
    for (const pid of helpers(node.dir)) process.kill(pid, 'SIGKILL');
    await node.waitLog('the end of the helper', (l) => l.event === 'bridge-down' && String(l.why).includes('has ended'));
    await until('another helper', async () => helpers(node.dir).length === 1 && (await isDown()));

    await node.kill();
    await until('the helper holds nothing, so it ends with its daemon', () => helpers(node.dir).length === 0);
    await node.restart(30_000);
    await until('the lock is confirmed', async () => (await cluster.show(1, 'other').catch(() => null))?.holders.length === 1);
    t.ok(held.valid());
    await held.release();
    await until('the reason is known again', isDown);
    t.equal((await node.stop()).code, 0);
    await until('nothing is left', () => helpers(node.dir).length === 0);
  },
);
