/** `tsdlm lock --dlmfs` and `lvb --dlmfs` on the real one, with no daemon anywhere; openDlmfs finds it. */
import { equal, match } from 'node:assert/strict';
import { APP } from './image.js';
import { holder, tryOpen } from './real.js';
import type { Suite } from './suite.js';

export const cliSuite: Suite = {
  name: 'cli',
  limitMs: 400_000,
  run: async (m, check) => {
    await m.sh('mkdir -p /dlm2/cli');
    await check('a lock in the kernel is held while it is held, and nothing of it is kept', async () => {
      const p = m.start(['tsdlm', 'lock', 'a', '--domain', 'cli', '--dlmfs']);
      await p.expect(/granted a EX in \/dlm/);
      equal(await tryOpen(m, '/dlm2/cli/a', 'pr'), 'failed ETXTBSY');
      await m.sh(`kill -TERM ${p.pid}`);
      equal((await p.result()).code, 0);
      match(p.out, /released a/);
      equal(await tryOpen(m, '/dlm2/cli/a', 'ex'), 'held');
      await m.sh('rm /dlm2/cli/a');
    });
    await check('a try, and a wait with a time-out, end with 75', async () => {
      const h = holder(m, '/dlm2/cli/b', 'ex');
      await h.expect(/held/);
      const tried = await m.run(['tsdlm', 'lock', 'b', '--domain', 'cli', '--dlmfs', '--try', '--', 'true']);
      equal(tried.code, 75, tried.err);
      match(tried.err, /TSDLM_CONFLICT/);
      const waited = await m.run([
        'tsdlm',
        'lock',
        'b',
        '--domain',
        'cli',
        '--dlmfs',
        '/dlm',
        '--wait',
        '500ms',
        '-E',
        '9',
        '--',
        'true',
      ]);
      equal(waited.code, 9, waited.err);
      match(waited.err, /TSDLM_TIMEOUT/);
      match(await m.sh('ps -o args'), /kernel-helper/, 'what waits in the kernel is left behind');
      h.write('close\n');
      await h.expect(/closed/);
      // It takes the lock, gives it back, and ends.
      while (/kernel-helper/.test(await m.sh('ps -o args')));
      equal(await tryOpen(m, '/dlm2/cli/b', 'ex'), 'held');
      await m.sh('rm /dlm2/cli/b');
    });
    await check('a command inherits the lock: a killed wrapper frees nothing', async () => {
      const p = m.start([
        'tsdlm',
        'lock',
        'c',
        '--domain',
        'cli',
        '--dlmfs',
        '--',
        'sh',
        '-c',
        'echo pid $$ $TSDLM_NAME; exec sleep 100',
      ]);
      const pid = (await p.expect(/pid (\d+) c/))[1];
      await m.sh(`kill -KILL ${p.pid}`);
      equal(await tryOpen(m, '/dlm2/cli/c', 'ex'), 'failed ETXTBSY');
      await m.sh(`kill ${pid}`);
      while (/kernel-helper/.test(await m.sh('ps -o args')));
      equal(await tryOpen(m, '/dlm2/cli/c', 'ex'), 'held');
      p.close();
      await m.sh('rm /dlm2/cli/c');
    });
    await check("the exit code is the command's, and the value block goes around", async () => {
      equal((await m.run(['tsdlm', 'lock', 'd', '--domain', 'cli', '--dlmfs', '--', 'sh', '-c', 'exit 7'])).code, 7);
      await m.sh('tsdlm lvb set v hello --domain cli --dlmfs');
      const h = holder(m, '/dlm2/cli/v', 'pr');
      await h.expect(/held/);
      h.write('read\n');
      equal((await h.expect(/value (.*)/))[1], 'hello');
      equal(await m.sh('tsdlm lvb get v --domain cli --dlmfs'), 'hello\n');
      h.write('close\n');
      await h.result();
      await m.sh('rm /dlm2/cli/v');
      match((await m.run(['tsdlm', 'lvb', 'get', 'new', '--domain', 'cli', '--dlmfs'])).err, /TSDLM_LVB_INVALID/);
    });
    await check('it is told when somebody waits', async () => {
      const p = m.start(['tsdlm', '--json', 'lock', 'e', '--domain', 'cli', '--dlmfs']);
      await p.expect(/"granted"/);
      const h = holder(m, '/dlm2/cli/e', 'pr');
      await p.expect(/"blocking"/);
      await m.sh(`kill -INT ${p.pid}`);
      equal((await p.result()).code, 0);
      await h.expect(/held/);
      h.write('close\n');
      await h.result();
      await m.sh('rm /dlm2/cli/e');
    });
    await check("openDlmfs finds the kernel's", async () => {
      const js = `import { openDlmfs } from '${APP}/dist/src/dlmfs/index.js'; const fs = await openDlmfs('/dlm'); console.log(fs.backend, await fs.readdir('/')); await fs.close();`;
      const { out, err } = await m.run(['node', '--input-type=module', '-e', js]);
      match(out, /kernel \[ 'cli' \]/, err);
    });
    await check('no dlmfs there: said so', async () => {
      const { code, err } = await m.run(['tsdlm', 'lock', 'x', '--dlmfs', '/tmp', '--', 'true']);
      equal(code, 69);
      match(err, /no dlmfs at \/tmp: tmpfs is mounted there/);
    });
    await check('of all this only the name is left that somebody waited for', async () => {
      for (const [dir, names] of [
        ['/dlm/cli', 'e\n'],
        ['/dlm2/cli', ''],
      ])
        equal(await m.sh(`ls -a ${dir} | grep -v '^[.]*$'; true`), names, dir);
      await m.sh('rm /dlm/cli/e; rmdir /dlm/cli /dlm2/cli');
    });
  },
};
