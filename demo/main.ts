/**
 * The demo: three real daemons, one lock, a failover.
 *
 *   1. three `tsdlmd` on loopback, each with its own journal in a temporary directory, find each other;
 *   2. a contender per node wants to be master; the lock goes round;
 *   3. the master's daemon and its contender are killed with SIGKILL: nobody else may be master before the dead node's
 *      lease is provably over, then another takes over;
 *   4. the killed node comes back and is readmitted.
 *
 * Ends by itself in under 40 s; exit code 0 only if every expectation held.
 */
import { TestCluster } from '../test/fixtures/cluster.js';
import { Contender, type Reign } from './contender.js';
import { elapsedMs, expect, say, verdict } from './timeline.js';

const LEASE_MS = 3000;
const MARGIN_MS = 600;

async function until(what: string, isTrue: () => boolean, ms: number): Promise<boolean> {
  const end = elapsedMs() + ms;
  while (!isTrue()) {
    if (elapsedMs() > end) {
      say(`waited ${ms} ms in vain: ${what}`);
      return false;
    }
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
  return true;
}

async function main(): Promise<boolean> {
  const cluster = await TestCluster.create({ nodes: 3, limits: { lease_ms: LEASE_MS } });
  const limit = setTimeout(() => {
    say('the demo takes too long');
    void cluster.close().finally(() => process.exit(1));
  }, 38_000);
  try {
    return await play(cluster);
  } finally {
    clearTimeout(limit);
    await cluster.close();
  }
}

async function play(cluster: TestCluster): Promise<boolean> {
  const reigns: Reign[] = [];
  const events = {
    began: (reign: Reign): void => {
      reigns.push(reign);
      say(`${reign.node} is granted "master" EX, token ${reign.token}: i am master of the multiverse`);
    },
    ended: (reign: Reign, code: number | null): void => {
      say(code === 0 ? `${reign.node} is done and releases` : `${reign.node}'s reign ended (exit ${code})`);
    },
  };
  const contenders = [1, 2, 3].map((id) => new Contender(cluster, id, events));
  for (const node of cluster.nodes) {
    node.on('log', (line) => {
      if (line.event === 'joined') say(`${node.name} has joined the cluster (epoch ${line.epoch})`);
      if (line.event === 'leader') say(`${node.name} leads (term ${line.term})`);
    });
  }

  say('starting three daemons');
  await cluster.start();

  for (const contender of contenders) contender.run(1);
  const wentRound = await until('three reigns', () => reigns.length >= 3, 12_000);
  expect('the lock went round', wentRound && new Set(reigns.map((r) => r.node)).size >= 2, `${reigns.length} reigns`);

  // The next master is the victim.
  await until('a master', () => contenders.some((c) => c.reign !== null), 5000);
  const at = contenders.findIndex((c) => c.reign !== null);
  const victim = contenders[at] as Contender;
  const victimNode = cluster.nodes[at] as (typeof cluster.nodes)[number];
  const before = reigns.length;
  const others = cluster.nodes.filter((n) => n !== victimNode);
  say(`SIGKILL to ${victimNode.name}: its daemon and its contender`);
  const killedAt = elapsedMs();
  await Promise.all([victimNode.kill(), victim.kill()]);

  const fencedLines = others.map((node) =>
    node.waitLog(
      'the fencing',
      (l) => l.event === 'view' && new RegExp(`${victimNode.name}:(fenced|evicted)`).test(String(l.nodes)),
      12_000,
      node.log.length,
    ),
  );
  const fenced = await Promise.any(fencedLines).catch(() => null);
  for (const line of fencedLines) line.catch(() => {});
  const how = /\((\w[\w+]*)\)/.exec(
    String(fenced?.nodes)
      .split(' ')
      .find((t) => t.startsWith(victimNode.name)) ?? '',
  )?.[1];
  say(`${victimNode.name} is fenced by "${how}": its lease is provably over (epoch ${fenced?.epoch})`);
  expect('the dead node was fenced before anything else was granted', fenced !== null, `by ${how}`);

  const tookOver = await until('a new master', () => reigns.length > before, 8000);
  const next = reigns[before];
  const gap = next ? next.from - killedAt : Number.NaN;
  const most = LEASE_MS + MARGIN_MS + 1000;
  expect(
    'another node took over',
    tookOver && next?.node !== victimNode.name,
    next ? `${next.node} after ${gap.toFixed(0)} ms` : 'none',
  );
  expect(`within lease + margin + 1 s (${most} ms)`, gap <= most, `${gap.toFixed(0)} ms`);

  say(`starting ${victimNode.name} again`);
  const mark = victimNode.log.length;
  victimNode.start();
  const back = await victimNode.waitLog('the return', (l) => l.event === 'joined', 12_000, mark).catch(() => null);
  expect('the killed node was readmitted', back !== null, back ? `epoch ${back.epoch}` : '');
  contenders[at]?.run(1);
  const again = await until(
    'the returned node to be master again',
    () => reigns.slice(before).some((r) => r.node === victimNode.name),
    8000,
  );
  expect('and is master again in its turn', again);

  for (const contender of contenders) contender.interrupt();
  await until('the last reign to end', () => contenders.every((c) => c.reign === null), 5000);

  const tokens = reigns.map((r) => r.token);
  expect(
    'tokens always rose',
    tokens.every((t, i) => i === 0 || t > (tokens[i - 1] as bigint)),
    `${tokens[0]} .. ${tokens.at(-1)}`,
  );
  const overlaps = reigns.filter((r, i) => i > 0 && r.from < (reigns[i - 1] as Reign).until);
  expect('there were never two masters', overlaps.length === 0, `${reigns.length} reigns`);
  return verdict();
}

process.exitCode = (await main()) ? 0 : 1;
