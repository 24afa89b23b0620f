/** tsdlm's files through the stock kernel's 9P client: the conformance table, libo2dlm, signals, a daemon that dies. Figures: floor.ts. */
import { equal, match, ok } from 'node:assert/strict';
import { readStamp } from './cache.js';
import { runTable } from './conformance.js';
import type { GuestProcess, Machine, Output } from './machine.js';
import { holder, o2dlm, tryOpen } from './real.js';
import type { Suite } from './suite.js';

const SOCKET = '/run/p/tsdlm.sock';
const PATIENCE_MS = 120_000;

/** Cases that a 9P mount cannot give as the other doors do. */
const OVER_9P: Readonly<Record<string, string>> = {
  wait: 'there is no poll over 9P: nobody sees that others wait',
  'three-order': 'there is no poll over 9P',
  'waiter-abort': 'an open over 9P is given up by a fatal signal only',
};

export async function startAlone(m: Machine): Promise<GuestProcess> {
  // Directories for mounts are made by `tsdlm mount`: after a daemon's death even a stat of them gives EIO.
  await m.sh('mkdir -p /run/p');
  const daemon = m.start(['tsdlmd', '--socket', SOCKET, '--state-dir', '/var/lib/tsdlm-p']);
  const end = Date.now() + PATIENCE_MS;
  while ((await m.run(['tsdlm', '--socket', SOCKET, 'lock', 'up', '--wait', '5s', '--', 'true'])).code !== 0) {
    if (Date.now() > end) throw new Error(`the daemon does not come up: ${daemon.out.slice(-2000)}${daemon.err.slice(-2000)}`);
  }
  return daemon;
}

export async function mountAll(m: Machine): Promise<void> {
  for (const dir of ['/mnt/a', '/mnt/b', '/mnt/c']) await m.sh(`tsdlm --socket ${SOCKET} mount ${dir}`, PATIENCE_MS);
}

export const mountSuite: Suite = {
  name: '9p',
  limitMs: 900_000,
  run: async (m, check, report) => {
    let daemon = await startAlone(m);
    await check('the stock kernel mounts it, and it says that it is a dlmfs', async () => {
      await mountAll(m);
      match(await m.sh('cat /proc/mounts'), /\/mnt\/a 9p /);
      equal((await m.sh('stat -f -c %t /mnt/a')).trim(), '76a9f425');
    });
    if (readStamp()?.hasO2dlm === true) {
      await check('libo2dlm runs on the mount', async () => {
        const one = await o2dlm(m, '/mnt/a', 'lib');
        const two = await o2dlm(m, '/mnt/b', 'lib');
        equal(await one('lock r ex'), 'lock ok');
        equal(await one('set r hello'), 'set ok');
        match(await two('lock r ex try'), /Trylock failed/);
        equal(await one('unlock r'), 'unlock ok');
        equal(await two('lock r pr'), 'lock ok');
        equal(await two('get r'), 'value hello');
        equal(await two('unlock r'), 'unlock ok');
        await one('quit');
        await two('quit');
      });
    }
    await check('an open that waits is ended by SIGKILL, and its request is withdrawn', async () => {
      await m.sh('mkdir /mnt/a/sig /mnt/b/sig');
      const a = holder(m, '/mnt/a/sig/l', 'ex');
      await a.expect(/held/);
      const b = holder(m, '/mnt/b/sig/l', 'ex');
      await b.expect(/opening/);
      equal(await b.until(() => /held/.test(b.out), 1000), false);
      await m.sh(`kill -9 ${b.pid}`);
      ok(await b.until(() => b.isOver, 10_000), 'gone at once');
      a.write('close\n');
      await a.expect(/closed/);
      await m.sh('rm /mnt/a/sig/l');
      equal(await tryOpen(m, '/mnt/b/sig/l', 'ex'), 'held');
      await m.sh('rm /mnt/b/sig/l; rmdir /mnt/a/sig /mnt/b/sig');
    });
    await runTable(m, check, report, 'tsdlm', ['/mnt/a', '/mnt/b', '/mnt/c'], { differs: OVER_9P });
    const mounts = ['/mnt/a', '/mnt/b', '/mnt/c'];
    const cli = (...args: string[]): Promise<Output> => m.run(['tsdlm', '--socket', SOCKET, ...args], PATIENCE_MS);
    await check('rule 6: a daemon that dies under an open file: an error for its user, the lock stays held', async () => {
      await m.sh('mkdir /mnt/a/die');
      const a = holder(m, '/mnt/a/die/l', 'ex');
      await a.expect(/held/);
      await m.sh(`kill -9 ${daemon.pid}`);
      a.write('write x\n');
      match((await a.expect(/error (.*)/, PATIENCE_MS))[1] ?? '', /^(EIO|ECONNRESET)$/);
      match((await m.run(['ls', '/mnt/a'])).err, /Input\/output error|reset/);
      daemon.close();
      daemon = await startAlone(m);
      const { files } = JSON.parse((await cli('--json', 'status')).out) as { files: { orphans: Record<string, unknown>[] } };
      const orphans = files.orphans.map((o) => `${o.domain}/${o.name} ${o.mode} ${String(o.mount).replace(/^.*:/, '')}`);
      equal(orphans.join(', '), 'die/l EX /mnt/a');
      match((await cli('status')).out, /^orphan hold: die\/l EX of mount \S+:\/mnt\/a for /m);
      match((await cli('ls', '--domain', 'die')).out, /l .*orphan hold of a file/);
      equal((await cli('lock', 'l', '--domain', 'die', '--try', '--', 'true')).code, 75, 'another owner of this daemon');
      await m.sh(`tsdlm --socket ${SOCKET} mount /mnt/d; mkdir /mnt/d/die`, PATIENCE_MS);
      equal(await tryOpen(m, '/mnt/d/die/l', 'pr'), 'failed ETXTBSY');
      const over = await cli('mount', '/mnt/a');
      match(over.err, /already: tsdlm umount \/mnt\/a/, 'a dead mount in the way is named');
      const busy = await cli('umount', '/mnt/a');
      ok(busy.code !== 0, 'busy while the file is open');
      match(busy.err, /busy/i);
      equal(await tryOpen(m, '/mnt/d/die/l', 'pr'), 'failed ETXTBSY');
      a.write('close\n');
      await a.result(PATIENCE_MS);
      a.close();
    });
    await check('rule 6: umount, once nobody has the file open, frees it, and a new mount works', async () => {
      const freed = await cli('umount', '/mnt/a');
      equal(freed.code, 0, freed.err);
      match(freed.out, /freed die\/l EX/);
      equal(await tryOpen(m, '/mnt/d/die/l', 'ex'), 'held');
      for (const dir of mounts.slice(1)) equal((await cli('umount', dir)).code, 0, dir);
      await mountAll(m);
      await m.sh('mkdir -p /mnt/a/die');
      equal(await tryOpen(m, '/mnt/a/die/l', 'pr'), 'failed ETXTBSY', 'the mount at /mnt/d has it');
      await m.sh('rm /mnt/d/die/l');
      equal(await tryOpen(m, '/mnt/a/die/l', 'ex'), 'held');
      match((await cli('status')).out, /, 0 orphan holds$/m);
    });
    for (const dir of [...mounts, '/mnt/d']) await cli('umount', dir);
    await m.run(['kill', '-TERM', String(daemon.pid)]);
    await daemon.result(PATIENCE_MS);
  },
};
