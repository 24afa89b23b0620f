/** The master-lock loop of examples/ in each language, on the real dlmfs and on tsdlm's mount. */
import { equal } from 'node:assert/strict';
import { APP } from './image.js';
import type { GuestProcess, Machine } from './machine.js';
import { mountAll, startAlone } from './mount.js';
import type { Suite } from './suite.js';

const LOOPS: readonly (readonly [string, readonly string[]])[] = [
  ['shell', ['dash', `${APP}/examples/master-loop.sh`]],
  ['Python', ['python3', `${APP}/examples/master-loop.py`]],
  ['TypeScript', ['node', `${APP}/dist/examples/master-loop.js`]],
];
const PATIENCE_MS = 90_000;

async function stop(m: Machine, p: GuestProcess): Promise<void> {
  await m.sh(`kill -TERM ${p.pid}`);
  await p.expect(/left/, PATIENCE_MS);
  await p.result(PATIENCE_MS);
}

/** One is master, the other stands by and takes over; nothing is left behind. */
async function twoLoops(m: Machine, argv: readonly string[], dirs: readonly [string, string]): Promise<void> {
  const one = m.start([...argv, dirs[0], 'example', 'master', '0.2']);
  await one.expect(/^master$/m, PATIENCE_MS);
  const two = m.start([...argv, dirs[1], 'example', 'master', '0.2']);
  await two.expect(/^standby$/m, PATIENCE_MS);
  await stop(m, one);
  await two.expect(/^master$/m, PATIENCE_MS);
  await stop(m, two);
  for (const dir of dirs) equal(await m.sh(`ls ${dir}`), '');
}

export const examplesSuite: Suite = {
  name: 'examples',
  limitMs: 400_000,
  run: async (m, check) => {
    for (const [language, argv] of LOOPS) {
      await check(`${language} on the kernel's`, () => twoLoops(m, argv, ['/dlm', '/dlm2']));
    }
    const daemon = await startAlone(m);
    await mountAll(m);
    // TypeScript needs no mount: it runs on the daemon itself, in test/dlmfs.
    for (const [language, argv] of LOOPS.slice(0, 2)) {
      await check(`${language} on tsdlm's mount`, () => twoLoops(m, argv, ['/mnt/a', '/mnt/b']));
    }
    for (const dir of ['/mnt/a', '/mnt/b', '/mnt/c'])
      await m.run(['tsdlm', '--socket', '/run/p/tsdlm.sock', 'umount', dir], PATIENCE_MS);
    await m.sh(`kill -TERM ${daemon.pid}`);
    await daemon.result(PATIENCE_MS);
  },
};
