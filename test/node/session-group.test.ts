import { spawn } from 'node:child_process';
import { once } from 'node:events';
import t from 'tap';
import { processStat } from '../../src/client/process-table.js';
import { acceptGroup, endGroup, isGroupAlive, isInert, type ProcessGroup, signalGroup } from '../../src/node/session-group.js';
import { isAlive } from '../fixtures/cli.js';
import { until } from '../fixtures/fake-daemon.js';

const PROOF = 'proof-of-this-test';

async function startGroup(script: string): Promise<{ pid: number; group: ProcessGroup; kill: () => void }> {
  const env = { ...process.env, TSDLM_SESSION: PROOF };
  const child = spawn('sh', ['-c', script], { detached: true, stdio: ['ignore', 'pipe', 'inherit'], env });
  await once(child.stdout, 'data');
  const pid = child.pid ?? 0;
  const kill = (): void => {
    try {
      process.kill(-pid, 'SIGKILL');
    } catch {
      // It has ended already.
    }
  };
  return { pid, group: acceptGroup(pid, 100, PROOF), kill };
}

t.test('rule 7: only a group that belongs to the client is accepted', async (t) => {
  const own = processStat(process.pid);
  const { pid, kill } = await startGroup('echo up; exec sleep 60');
  t.teardown(kill);
  // A group of the same user that was not started for this session.
  const foreign = spawn('sleep', ['60'], { detached: true });
  t.teardown(() => foreign.kill('SIGKILL'));
  const member = spawn('sleep', ['60']);
  t.teardown(() => member.kill('SIGKILL'));
  const refused: [number, number, string, RegExp][] = [
    [0, 100, PROOF, /must be a process group of the client/],
    [1, 100, PROOF, /must be a process group of the client/],
    [own?.pgrp ?? 0, 100, PROOF, /daemon's own/],
    [process.pid, 100, PROOF, /daemon's own/],
    [4_194_303, 100, PROOF, /no leader that is alive/],
    [member.pid ?? 0, 100, PROOF, /leads no group/],
    [foreign.pid ?? 0, 100, PROOF, /not started by this client/],
    [pid, 100, 'another-proof-than-this', /not started by this client/],
    [pid, 100, 'short', /at least 16/],
    [pid, -1, PROOF, /grace/],
    [pid, Number.POSITIVE_INFINITY, PROOF, /grace/],
  ];
  for (const [pgid, grace, proof, message] of refused) {
    t.throws(() => acceptGroup(pgid, grace, proof), { code: 'TSDLM_NOT_ALLOWED', message });
  }
});

t.test('a group ends as a whole: SIGTERM, grace, SIGKILL', async (t) => {
  const polite = await startGroup('sleep 60 & echo up; wait');
  t.teardown(polite.kill);
  t.ok(await endGroup(polite.group, 5000));
  t.notOk(isGroupAlive(polite.group));

  const stubborn = await startGroup("trap '' TERM; (while :; do sleep 0.05; done) & echo up; while :; do sleep 0.05; done");
  t.teardown(stubborn.kill);
  const began = performance.now();
  t.ok(await endGroup(stubborn.group, 5000));
  t.ok(performance.now() - began >= 100, 'after its grace');
  t.notOk(isAlive(stubborn.pid));
  t.notOk(signalGroup(stubborn.group, 'SIGTERM'), 'and is not signalled any more');
  t.ok(await endGroup(stubborn.group, 5000), 'what has ended is ended');
});

t.test('a stopped group is ended as well', async (t) => {
  const { pid, group, kill } = await startGroup('echo up; exec sleep 60');
  t.teardown(kill);
  process.kill(-pid, 'SIGSTOP');
  await until(() => processStat(pid)?.state === 'T', 'it is stopped');
  t.ok(isInert(pid, group.leaderStart), 'a stopped process can do nothing');
  t.ok(await endGroup(group, 5000));
});

t.test('a number that means another process now is left alone', async (t) => {
  const { pid, group, kill } = await startGroup('echo up; exec sleep 60');
  t.teardown(kill);
  const former: ProcessGroup = { ...group, leaderStart: '1' };
  t.notOk(isGroupAlive(former));
  t.notOk(signalGroup(former, 'SIGKILL'));
  t.ok(isAlive(pid));
  t.ok(isInert(pid, '1'));
  t.notOk(isInert(pid, group.leaderStart));
});
