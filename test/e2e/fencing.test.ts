/** Fencing by a script of the operator's: nobody is granted on its behalf before it has really ended the node. */
import { chmodSync, existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import t from 'tap';
import { monotonicMs } from '../../src/client/index.js';
import { QUICK, QUICK_LIMITS, world } from '../fixtures/e2e.js';
import { until, within } from '../fixtures/until.js';

/** Ends the daemon by its process id, when it is let to: `fail` makes it fail, without `go` it takes its time. */
const SCRIPT = `#!/bin/sh
echo "$TSDLM_FENCE_NODE" >> "$2/asked"
[ -e "$2/fail" ] && { echo "the power switch does not answer"; exit 1; }
while [ ! -e "$2/go" ]; do sleep 0.02; done
pid=$(cat "$1/$TSDLM_FENCE_NODE/pid")
kill -9 "$pid" || exit 1
cat /proc/sys/kernel/random/uuid > "$1/$TSDLM_FENCE_NODE/boot-id"
while kill -0 "$pid" 2>/dev/null && ! grep -q '^State:.*Z' "/proc/$pid/status"; do sleep 0.02; done
echo "$TSDLM_FENCE_NODE" >> "$2/ended"
`;

const dir = mkdtempSync(join(tmpdir(), 'tsdlm-fence-'));
t.teardown(() => rmSync(dir, { recursive: true, force: true }));
const script = join(dir, 'kill.sh');
writeFileSync(script, SCRIPT);
chmodSync(script, 0o755);
const flag = (name: string): string => join(dir, name);
const lines = (name: string): string[] => (existsSync(flag(name)) ? readFileSync(flag(name), 'utf8').trim().split('\n') : []);

const w = await world(t, {
  limits: QUICK,
  nodeLines: () => 'fence = [["kill-script"]]\n',
  tables: (cluster) =>
    `\n[fence.kill-script]\ntype = "script"\ncommand = ["${script}", "${cluster}", "${dir}"]\ntimeout_ms = 60000\n`,
});
const leader = await w.cluster.leader();
const [victim, other] = [1, 2, 3].filter((id) => id !== leader) as [number, number];

/** A lock held on the victim, which is then stopped, and a request for it elsewhere; returns when `self` would long count. */
async function silentHolder(
  name: string,
): Promise<{ waiting: Promise<import('../fixtures/owner.js').Held>; isGranted: () => boolean }> {
  const held = await (await w.owner(victim)).lock(name);
  let granted = false;
  const waiting = (await w.owner(other)).lock(name).then((next) => {
    granted = true;
    return next;
  });
  await w.waiting(name, 1, leader);
  w.cluster.node(victim).signal('SIGSTOP');
  await within('the client of the stopped daemon loses its lock', held.lost);
  await until(
    'its lease and the margin are over',
    () => monotonicMs() > held.handle.deadline + QUICK_LIMITS.marginMs + QUICK_LIMITS.heartbeatMs * 5,
  );
  return { waiting, isGranted: () => granted };
}

t.test('the lock of a stopped daemon is granted only when the script has ended it, however long that takes', async (t) => {
  const { waiting, isGranted } = await silentHolder('slow');
  const started = await w.cluster.node(leader).waitLog('the script to start', (l) => l.event === 'fence-started');
  t.equal(started.about, `n${victim}`);
  t.same([lines('asked'), lines('ended')], [[`n${victim}`], []], 'it runs and is not done');
  t.notOk(isGranted(), 'the lease is over, and nobody was granted');

  writeFileSync(flag('go'), '');
  const next = await within('the grant', waiting);
  t.same(lines('ended'), [`n${victim}`], 'after the script had ended the daemon');
  t.notOk(w.cluster.node(victim).isRunning);
  t.ok(
    w.cluster.node(leader).log.some((l) => l.event === 'view' && String(l.nodes).includes(`n${victim}:fenced(kill-script)`)),
    'the view says how it was fenced',
  );
  await next.release();
  await w.cluster.node(victim).restart();
  await (await within('it takes part again', (await w.owner(victim)).lock('slow'))).release();
});

t.test(
  'while the script fails nobody is granted, the log and the status say why; when it works again, all goes on',
  async (t) => {
    writeFileSync(flag('fail'), '');
    const since = w.cluster.node(leader).log.length;
    const { waiting, isGranted } = await silentHolder('failing');
    const failed = await w.cluster.node(leader).waitLog('the failure', (l) => l.event === 'fence-failed', 15_000, since);
    t.match(JSON.stringify(failed), /the power switch does not answer/);
    await until('it is tried again', () => lines('asked').length >= 3);
    t.notOk(isGranted());
    const { warnings, members } = await w.cluster.status(leader);
    t.match(
      (await w.cluster.status(other)).warnings.join('\n'),
      /being fenced .*tries have failed.*power switch does not answer/,
    );
    t.match(warnings.join('\n'), new RegExp(`n${victim}.*kill-script.*fail.*the power switch does not answer`));
    t.equal(members.find((m) => m.id === victim)?.state, 'fencing');
    t.match((await w.cluster.run(leader, ['status'])).stdout, /power switch does not answer/, 'and so does tsdlm status');

    rmSync(flag('fail'));
    const next = await within('the grant after a later try', waiting, 30_000);
    t.same(lines('ended').length, 2);
    await next.release();
    t.notOk(w.cluster.node(victim).isRunning);
  },
);

await w.judge();
