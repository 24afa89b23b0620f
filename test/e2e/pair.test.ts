/** Two real daemons and a fence script (rules 13, 20): one dies, the other goes on, and its own holder never hears of it. */
import { chmodSync, existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import t from 'tap';
import { monotonicMs } from '../../src/client/index.js';
import { QUICK, QUICK_LIMITS, world } from '../fixtures/e2e.js';
import { until, within } from '../fixtures/until.js';

/** Ends the daemon if it runs, and only if it is that daemon, and gives its machine a new boot. */
const SCRIPT = `#!/bin/sh
echo "$TSDLM_FENCE_NODE" >> "$2/asked"
cat /proc/sys/kernel/random/uuid > "$1/$TSDLM_FENCE_NODE/boot-id"
pid=$(cat "$1/$TSDLM_FENCE_NODE/pid")
runs() { grep -q "$1/$TSDLM_FENCE_NODE/" "/proc/$pid/cmdline" 2>/dev/null && ! grep -q '^State:.*Z' "/proc/$pid/status"; }
runs "$1" && kill -9 "$pid"
while runs "$1"; do sleep 0.02; done
exit 0
`;

const dir = mkdtempSync(join(tmpdir(), 'tsdlm-pair-'));
t.teardown(() => rmSync(dir, { recursive: true, force: true }));
const script = join(dir, 'off.sh');
writeFileSync(script, SCRIPT);
chmodSync(script, 0o755);
const asked = (): string[] => (existsSync(join(dir, 'asked')) ? readFileSync(join(dir, 'asked'), 'utf8').trim().split('\n') : []);

const w = await world(t, {
  nodes: 2,
  limits: QUICK,
  nodeLines: (id) => `fence = [["off"]]\nfence_delay_base_ms = ${id === 1 ? 1500 : 0}\n`,
  tables: (cluster) => `\n[fence.off]\ntype = "script"\ncommand = ["${script}", "${cluster}", "${dir}"]\ntimeout_ms = 60000\n`,
});
const node = (id: number) => w.cluster.node(id);

/** Both vote, neither is alone or suspended. */
async function whole(): Promise<void> {
  await until(
    'both are whole',
    async () => {
      for (const id of [1, 2]) {
        const s = await w.cluster.status(id);
        if (s.alone !== null || s.waitsFor !== null || s.isSuspended || !s.members.every((m) => m.voter && m.state === 'in'))
          return false;
      }
      return true;
    },
    40_000,
  );
}

await whole();

t.test(
  'SIGKILL of one: the other goes on alone, its holder never lost anything; the dead one comes back and votes',
  async (t) => {
    const own = await (await w.owner(1)).lock('own');
    const events: string[] = [];
    own.handle.on('suspended', (why) => events.push(why));
    own.handle.on('resumed', () => events.push('resumed'));
    own.handle.on('lost', () => events.push('lost'));
    await (await w.owner(2)).lock('theirs');
    const waiting = (await w.owner(1)).lock('theirs');
    await w.waiting('theirs', 1);
    const killedAt = monotonicMs();
    await node(2).kill();
    const next = await within('the grant', waiting, 30_000);
    t.comment(
      `SIGKILL to grant: ${Math.round(next.grantedAt - killedAt)} ms (lease ${QUICK_LIMITS.leaseMs}, dead after ${QUICK_LIMITS.deadMs})`,
    );
    t.same(asked(), ['n2']);
    t.ok(own.handle.valid());
    t.notOk(events.includes('lost'), events.join());
    const status = await w.cluster.status(1);
    t.match(status.alone, { survivor: { name: 'n1' }, peer: { name: 'n2' }, method: 'off' });
    t.match((await w.cluster.run(1, ['status'])).stdout, /alone +n1 went on without n2 \(off\)/);
    t.match((await w.cluster.run(1, ['fence', 'history'])).stdout, /n2/);

    const since = node(2).log.length;
    await node(2).restart(30_000);
    await whole();
    t.ok(
      node(2)
        .log.slice(since)
        .some((l) => l.event === 'full-voter'),
      'it was given its vote again',
    );
    await next.release();
    await (await within('it takes part', (await w.owner(2)).lock('theirs'))).release();
    t.ok(own.handle.valid());
    await own.release();
  },
);

t.test('rule 23: a clean stop of one is no reason to fence it, and the other goes on', async (t) => {
  const before = asked().length;
  const own = await (await w.owner(1)).lock('own');
  await node(2).stop();
  await (await within('a grant', (await w.owner(1)).lock('more'))).release();
  t.match((await w.cluster.status(1)).alone, { peer: { name: 'n2' }, method: 'left' });
  t.equal(asked().length, before);
  t.ok(own.handle.valid());
  await own.release();
  await node(2).restart(30_000);
  await whole();
});

t.test('wait_for_all: after a cold start one waits for the other, and says so; an operator may give that up', async (t) => {
  const before = asked().length;
  const { epoch } = await w.cluster.status(1);
  await Promise.all([node(1).kill(), node(2).kill()]);
  for (const id of [1, 2]) node(id).newBoot();
  node(1).start();
  await until('it says whom it waits for', async () => {
    const status = await w.cluster.status(1).catch(() => null);
    return status?.waitsFor?.node.name === 'n2' && /not yet seen/.test(status.waitsFor.why);
  });
  t.match((await w.cluster.run(1, ['status'])).stdout, /waits for +n2: since its start/);
  const end = monotonicMs() + 4 * QUICK_LIMITS.leaseMs;
  await until('four leases have passed', () => monotonicMs() > end);
  t.notOk((await w.cluster.status(1)).isMember);
  t.equal(asked().length, before, 'it fences nobody');

  const wrong = await w.cluster.run(1, ['fence', 'alone', 'n2', '--accept-lost-history', 'n3']);
  t.match([wrong.code !== 0, wrong.stderr], [true, /"n3" is not n2: nothing was done/]);
  const done = await w.cluster.run(1, ['fence', 'alone', 'n2', '--accept-lost-history', 'n2']);
  t.match([done.code, done.stdout], [0, /n1 goes on without n2, epoch \d+/]);
  t.ok((await w.cluster.status(1)).epoch >= epoch + 65_536);
  t.ok(
    node(1).log.some((l) => l.event === 'lost-history-asked' && String(l.by).includes('tsdlm fence alone')),
    'audited',
  );
  await (await within('it grants', (await w.owner(1)).lock('own'))).release();
  node(2).start();
  await whole();
});

await w.judge();
