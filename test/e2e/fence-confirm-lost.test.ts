/** A person's word that the leader took and that died with it: it is given again, and that is said. */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import t from 'tap';
import { TSDLM } from '../fixtures/cluster.js';
import { world } from '../fixtures/e2e.js';
import { operations } from '../fixtures/fence-world.js';
import { until, within } from '../fixtures/until.js';

t.test('a confirmation that dies with the leader before it is in the log is given again', { timeout: 150_000 }, async (t) => {
  const w = await world(t, { nodes: 5, nodeLines: () => 'fence = [["manual"]]\n' });
  const leader = await w.cluster.leader();
  const [victim, at, ...rest] = [1, 2, 3, 4, 5].filter((id) => id !== leader) as [number, number, number, number];
  await (await w.owner(victim)).lock('a');
  const waiting = (await w.owner(at)).lock('a');
  await w.waiting('a', 1, at);
  await w.cluster.node(victim).kill();
  await until('it is being fenced', async () => (await operations(w, at)).some((o) => o.outcome === 'running' && o.began !== ''));
  const child = spawn(process.execPath, [TSDLM, 'fence', 'confirm', `n${victim}`], {
    env: { ...process.env, TSDLM_SOCKET: w.cluster.node(at).socket },
    stdio: ['pipe', 'ignore', 'pipe'],
  });
  t.teardown(() => child.kill('SIGKILL'));
  const ended = once(child, 'exit');
  let said = '';
  child.stderr.on('data', (chunk) => {
    said += chunk;
  });
  await until('it asks for the name', () => said.endsWith('once more: '), 30_000);
  // Two of five are left to write into the log: too few.
  for (const id of rest) w.cluster.node(id).signal('SIGSTOP');
  const since = w.cluster.node(leader).log.length;
  child.stdin.end(`n${victim}\n`);
  await w.cluster.node(leader).waitLog('the leader takes the word', (l) => l.event === 'fence-confirm', 10_000, since);
  await w.cluster.node(leader).kill();
  for (const id of rest) w.cluster.node(id).signal('SIGCONT');
  const [code] = await within('the command ends', ended, 60_000);
  t.equal(code, 0, said);
  // The old leader may have mastered the lock, and is to be fenced itself.
  const old = await w.cluster.run(at, ['fence', 'confirm', `n${leader}`, '--yes-i-have-verified', `n${leader}`]);
  t.equal(old.code, 0, old.stderr);
  await (await within('the grant', waiting, 30_000)).release();
  const [operation] = await operations(w, at, `n${victim}`);
  t.match(operation, { outcome: 'fenced', method: 'manual', confirmed: { who: /tsdlm fence-confirm, uid/ } });
  // What the stopped ones had in their sockets may have made a majority all the same: then it counts as it was given.
  if (operation?.confirmed?.through !== `n${leader}`) {
    t.match(
      said,
      /took the order, but it is not in the cluster's log: giving it again|no leader has said that it took the order/,
    );
  }
});
