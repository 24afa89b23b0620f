/** Levels, a person's word and orders by hand, with real daemons and a "device" that is a script of the test. */
import { spawn } from 'node:child_process';
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import t from 'tap';
import type { FenceHistoryData, FenceStepsData } from '../../src/protocol/admin.js';
import { TSDLM } from '../fixtures/cluster.js';
import { QUICK, world } from '../fixtures/e2e.js';
import { until, within } from '../fixtures/until.js';

/** A fence agent with two outlets for each node: the node is off when both are. Files: off.NODE.OUTLET, stuck.OUTLET, broken. */
const AGENT = `#!/bin/sh
dir=$(dirname "$0"); cat > "$dir/in.$$"
get() { sed -n "s/^$1=//p" "$dir/in.$$"; }
action=$(get action); plug=$(get plug); outlet=$(get outlet); password=$(get password); nodes=$(get nodes)
rm -f "$dir/in.$$"
[ "$action" = metadata ] && { cat "$dir/metadata.xml"; exit 0; }
[ "$password" = OutletPw ] || { echo "Unable to connect/login with $password" >&2; exit 1; }
echo "$action $plug $outlet" >> "$dir/calls"
[ -e "$dir/broken" ] && { echo "connection lost, password was $password" >&2; exit 1; }
case $action in
  off)
    [ -e "$dir/stuck.$outlet" ] && exit 0
    touch "$dir/off.$plug.$outlet"
    if [ -e "$dir/off.$plug.1" ] && [ -e "$dir/off.$plug.2" ]; then
      cat /proc/sys/kernel/random/uuid > "$nodes/$plug/boot-id"
      kill -KILL "$(cat "$nodes/$plug/pid")" 2>/dev/null
    fi
    exit 0 ;;
  on) rm -f "$dir/off.$plug.$outlet" ;;
  status) [ -e "$dir/off.$plug.$outlet" ] && exit 2; exit 0 ;;
  monitor) exit 0 ;;
  *) exit 1 ;;
esac
`;
const METADATA = `<resource-agent name="fence_outlet"><parameters>
<parameter name="action" required="1"><content type="string" default="reboot"/></parameter>
<parameter name="plug" required="1"><content type="string"/></parameter>
<parameter name="outlet" required="1"><content type="string"/></parameter>
<parameter name="password" required="0"><content type="string"/></parameter>
<parameter name="nodes" required="0"><content type="string"/></parameter>
</parameters><actions><action name="on"/><action name="off"/><action name="status"/><action name="monitor"/><action name="metadata"/></actions></resource-agent>
`;

t.setTimeout(180_000);
const dir = mkdtempSync(join(tmpdir(), 'tsdlm-agent-'));
t.teardown(() => rmSync(dir, { recursive: true, force: true }));
const agent = join(dir, 'fence_outlet');
writeFileSync(agent, AGENT, { mode: 0o755 });
writeFileSync(join(dir, 'metadata.xml'), METADATA);
const flag = (name: string): string => join(dir, name);
const calls = (): string[] => (existsSync(flag('calls')) ? readFileSync(flag('calls'), 'utf8').trim().split('\n') : []);
const acts = (from: number): string[] =>
  calls()
    .slice(from)
    .filter((line) => !line.startsWith('monitor'));

const table = (cluster: string, outlet: number): string =>
  `\n[fence.outlet${outlet}]\ntype = "agent"\nprogram = "${agent}"\ntimeout_ms = 5000\n[fence.outlet${outlet}.options]\noutlet = "${outlet}"\npassword = "OutletPw"\nnodes = "${cluster}"\n`;
const w = await world(t, {
  limits: QUICK,
  extra: 'fence_monitor_ms = 1000\n',
  nodeLines: () => 'fence = [["outlet1", "outlet2"], ["manual"]]\n',
  tables: (cluster) => table(cluster, 1) + table(cluster, 2),
});

async function roles(): Promise<[number, number, number]> {
  const leader = await w.cluster.leader();
  const [victim, other] = [1, 2, 3].filter((id) => id !== leader) as [number, number];
  return [leader, victim, other];
}

async function silentHolder(name: string, victim: number, other: number) {
  await (await w.owner(victim)).lock(name);
  let granted = false;
  const waiting = (await w.owner(other)).lock(name).then((next) => {
    granted = true;
    return next;
  });
  await w.waiting(name, 1, other);
  w.cluster.node(victim).signal('SIGSTOP');
  return { waiting, isGranted: () => granted };
}

t.test(
  'rule 15: both outlets are off and both are verified off before anybody is granted, then both are switched on',
  async (t) => {
    const [, victim, other] = await roles();
    const from = calls().length;
    const { waiting } = await silentHolder('two-outlets', victim, other);
    const next = await within('the grant', waiting, 30_000);
    t.notOk(w.cluster.node(victim).isRunning);
    const n = `n${victim}`;
    const done = acts(from).filter((line) => !line.startsWith('on '));
    const lastOff = done.findLastIndex((line) => line.startsWith('off '));
    const offs = done.slice(0, lastOff + 1).filter((line) => line.startsWith('off '));
    t.same([...new Set(offs)].sort(), [`off ${n} 1`, `off ${n} 2`]);
    t.same(done.slice(lastOff + 1).sort(), [`status ${n} 1`, `status ${n} 2`], 'after the last off each is asked once more');
    await until('both are switched on', () => [1, 2].every((outlet) => acts(from).includes(`on ${n} ${outlet}`)));
    await next.release();
    await w.cluster.node(victim).restart();
  },
);

t.test('rule 15: one outlet that stays on while it says "done" frees nothing; the retry begins anew', async (t) => {
  const [, victim, other] = await roles();
  const from = calls().length;
  writeFileSync(flag('stuck.2'), '');
  const { waiting, isGranted } = await silentHolder('stuck', victim, other);
  const failure = () =>
    w.cluster.nodes.flatMap((node) => node.log).find((l) => l.event === 'fence-failed' && l.step === 'verify');
  await until('the second look', () => failure() !== undefined, 20_000);
  const failed = failure();
  t.match(failed, { method: 'outlet2', detail: /it is on, says its own status/ });
  t.notOk(isGranted());
  t.notOk(
    acts(from).some((line) => line.startsWith('on ')),
    'nothing is switched on in between',
  );
  const { warnings } = await w.cluster.status(Number(failed?.node.slice(1)));
  t.match(warnings.join('\n'), new RegExp(`fencing n${victim} by outlet2 has failed .*it is on`));

  // Levels are at `manual` now: the operator looks, pulls the plug and says so, at a node that does not lead.
  await w.cluster.node(victim).kill();
  const wrong = await w.cluster.run(other, ['fence', 'confirm', `n${victim}`, '--yes-i-have-verified', 'n9']);
  t.match(wrong, { code: 64, stderr: /the second name "n9" is not n\d: nothing was done/ });
  t.notOk(isGranted());
  const child = spawn(process.execPath, [TSDLM, 'fence', 'confirm', `n${victim}`], {
    env: { ...process.env, TSDLM_SOCKET: w.cluster.node(other).socket },
    stdio: ['pipe', 'pipe', 'pipe'],
  });
  let asked = '';
  child.stderr.on('data', (chunk) => {
    asked += chunk;
    if (asked.endsWith('once more: ')) child.stdin.write(`n${victim}\n`);
  });
  const code = await within('the confirmation', new Promise((resolve) => child.once('exit', resolve)), 30_000);
  t.equal(code, 0);
  t.match(asked, /frees all its locks at once[\s\S]*The name of the node once more: /);
  await (await within('the grant', waiting)).release();
  for (const event of ['fence-confirm-asked', 'fence-confirm', 'fence-confirmed']) {
    const line = w.cluster.nodes.flatMap((node) => node.log).find((l) => l.event === event);
    t.match(String(line?.by), new RegExp(`^n${other}:${child.pid} tsdlm fence-confirm, uid \\d+ `), `${event}: audited with who`);
  }
  rmSync(flag('stuck.2'));
  const none = await w.cluster.run(other, ['fence', 'confirm', `n${victim}`, '--yes-i-have-verified', `n${victim}`]);
  t.match(none, { code: 77, stderr: /is evicted: there is nothing to confirm/ });
  await w.cluster.node(victim).restart();
});

t.test('tsdlm fence node: a healthy member is ended by order, through a node that does not lead', async (t) => {
  const [, victim, other] = await roles();
  const from = calls().length;
  const n = `n${victim}`;
  t.match(await w.cluster.run(other, ['fence', 'node', n, '--yes', 'n']), { code: 64 });
  t.ok(w.cluster.node(victim).isRunning);
  rmSync(flag(`off.${n}.1`), { force: true });
  const done = await w.cluster.run(other, ['fence', 'node', n, '--yes', n, '--reason', 'it smokes']);
  t.same([done.code, done.stdout], [0, `${n} counts as fenced by outlet1+outlet2\n`]);
  await w.cluster.node(victim).ended();
  t.ok(acts(from).includes(`off ${n} 1`));
  const history = JSON.parse((await w.cluster.run(other, ['--json', 'fence', 'history', '--steps'])).stdout) as FenceStepsData;
  const last = history.results.filter((r) => r.step === 'off').at(-1);
  t.match(last, { node: n, ok: true, reason: /^by n\d:\d+ tsdlm fence-node, uid \d+ .*: it smokes$|earlier leader/ });
  t.ok(history.results.some((r) => r.step === 'confirm' && r.method === 'manual'));
  t.match(await w.cluster.run(other, ['fence', 'node', 'n9', '--yes', 'n9']), { code: 64, stderr: /there is no node n9/ });
  const { operations } = JSON.parse((await w.cluster.run(other, ['--json', 'fence', 'history', n])).stdout) as FenceHistoryData;
  t.match(operations.at(-1), { node: n, outcome: 'fenced', method: 'outlet1+outlet2', reason: /^by n\d:\d+ .*: it smokes$/ });
  t.ok(
    operations.some((o) => o.confirmed !== null && /tsdlm fence-confirm, uid \d+/.test(o.confirmed.who) && o.method === 'manual'),
    'who confirmed is in the log of the cluster',
  );
  await w.cluster.node(victim).restart();
});

t.test('a device that breaks is a warning before it is needed, and tsdlm fence check exits 1', async (t) => {
  writeFileSync(flag('broken'), '');
  await until('the warning', async () =>
    (await w.cluster.status(1)).warnings.some((text) => text.startsWith('fence device outlet1')),
  );
  const check = await w.cluster.run(1, ['fence', 'check', 'n2']);
  t.equal(check.code, 1);
  t.match(check.stdout, /n2 +outlet1 +FAILS +.*connection lost/);
  rmSync(flag('broken'));
  await until('it is over', async () => !(await w.cluster.status(1)).warnings.some((text) => text.startsWith('fence device')));
  t.equal((await w.cluster.run(1, ['fence', 'check'])).code, 0);
});

t.test('S6: no password in any log, in status, history or check', async (t) => {
  const said = await Promise.all(
    [['status'], ['--json', 'fence', 'history'], ['fence', 'history']].map((args) => w.cluster.run(2, args)),
  );
  const logs = w.cluster.nodes.map((node) => JSON.stringify(node.log) + node.errors);
  t.ok(logs.join('').includes('[secret]'), 'there was one to hide');
  for (const text of [...said.map((s) => s.stdout + s.stderr), ...logs]) t.notMatch(text, /OutletPw/);
});

await w.judge();
