/** Records of node-owned locks are committed in the main thread, which also keeps the leases: a disk that is slow must not stop it. */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import t from 'tap';
import { DiskFault } from '../fixtures/disk-fault.js';
import { BOOT, tempDir } from '../fixtures/journal.js';

const WRITER = fileURLToPath(new URL('../fixtures/journal-slow.js', import.meta.url));
/** Of each of the several writes of a commit. */
const SLOW_MS = 400;
const LOCKS = 3;

t.test('the first commit that waits for a disk stops the event loop, the next ones do not', async (t) => {
  t.setTimeout(60_000);
  const dir = tempDir(t);
  const disk = DiskFault.create(dir);
  if (disk === null) {
    t.comment('there is no gcc here: left out');
    return;
  }
  const child = spawn(process.execPath, [WRITER, join(dir, 'state'), BOOT, String(LOCKS)], {
    stdio: ['pipe', 'pipe', 'inherit'],
    env: { ...process.env, ...disk.env },
  });
  t.teardown(() => child.kill('SIGKILL'));
  const ended = once(child, 'exit') as Promise<[number | null]>;
  const stood: number[] = [];
  for await (const line of createInterface({ input: child.stdout })) {
    if (line === 'open') {
      disk.slow('write', SLOW_MS, 'locks/data.mdb');
      child.stdin.write('go\n');
    } else stood.push(Number(line));
  }
  t.equal((await ended)[0], 0);
  t.equal(stood.length, LOCKS);
  const [first = 0, ...rest] = stood;
  t.ok(first >= SLOW_MS, `the disk was slow: ${first} ms`);
  for (const ms of rest) t.ok(ms < SLOW_MS, `${ms} ms`);
});
