/**
 * The kernel backend without a kernel dlmfs: an ordinary directory stands for the mount, and a FIFO without a writer for
 * a lock that others hold, because opening it waits in the kernel too. The real thing is in test/vm.
 */
import { execFileSync } from 'node:child_process';
import { existsSync, mkdtempSync, openSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { stat } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import t from 'tap';
import { openKernelDlmfs } from '../../src/dlmfs/kernel.js';
import { HELPER_THREADS, KernelHelper } from '../../src/dlmfs/kernel-client.js';
import { detectDlmfs, mountAt, parseMounts } from '../../src/dlmfs/kernel-detect.js';
import { until } from '../fixtures/until.js';

function tempDir(t: { teardown: (f: () => void) => void }): string {
  const dir = mkdtempSync(join(tmpdir(), 'tsdlm-kernel-'));
  t.teardown(() => rmSync(dir, { recursive: true, force: true }));
  return dir;
}

/** Lets whoever waits for this FIFO's reading end go on. */
function feed(path: string): void {
  openSync(path, 'r+');
}

function isAlive(pid: number): boolean {
  try {
    return !/^State:\tZ/m.test(readFileSync(`/proc/${pid}/status`, 'utf8'));
  } catch {
    return false;
  }
}

t.test('calls and errors are those of node:fs', async (t) => {
  const dir = tempDir(t);
  const fs = openKernelDlmfs(`${dir}/`, { canPoll: false });
  t.teardown(() => fs.close({ force: true }));
  t.equal(fs.root, dir);
  await fs.mkdir('/d', 0o755);
  await t.rejects(fs.mkdir('d'), { code: 'EEXIST', errno: -17, syscall: 'mkdir', path: `${dir}/d` });
  await t.rejects(fs.open('/d/l', 'r+'), { code: 'ENOENT', syscall: 'open' });
  await t.rejects(fs.open('/d/a\0b', 'w'), { code: 'EINVAL' });
  const h = await fs.open('/d/l', 'w+', 0o640);
  t.same((await h.write('hello')).bytesWritten, 5);
  t.same((await h.write(Buffer.from('xyzXYZ'), 3, 3, 1)).bytesWritten, 3);
  const { bytesRead, buffer } = await h.read(new Uint8Array(64), 0, 64, 0);
  t.equal(Buffer.from(buffer.subarray(0, bytesRead)).toString(), 'hXYZo');
  t.equal((await h.read(new Uint8Array(64))).bytesRead, 0, 'the position is behind what was written');
  t.equal((await h.stat()).isFile(), true);
  t.equal((await fs.stat('/d')).isDirectory(), true);
  t.same(await fs.readdir('/d'), ['l']);
  await t.rejects(fs.close(), { code: 'EBUSY' });
  await h.close();
  await t.rejects(h.close(), { code: 'EBADF' });
  await t.rejects(h.read(new Uint8Array(1)), { code: 'EBADF' });
  await fs.unlink('/d/l');
  await fs.rmdir('/d');
});

t.test('opens that wait hold up neither the event loop nor the pool of this process', async (t) => {
  const dir = tempDir(t);
  const fs = openKernelDlmfs(dir, { canPoll: false });
  t.teardown(() => fs.close({ force: true }));
  const names = Array.from({ length: 20 }, (_, i) => `fifo${i}`);
  execFileSync(
    'mkfifo',
    names.map((name) => join(dir, name)),
  );
  const opens = names.map((name) => fs.open(name, 'r'));
  // Both this process's pool and the helper still answer.
  await stat(dir);
  t.equal((await fs.readdir('/')).length, 20);
  for (const name of names) feed(join(dir, name));
  for (const handle of await Promise.all(opens)) await handle.close();
});

t.test('an open that was withdrawn rejects at once, and is closed when the kernel grants it', async (t) => {
  const dir = tempDir(t);
  const helper = new KernelHelper();
  t.teardown(() => helper.close());
  const fifo = join(dir, 'fifo');
  execFileSync('mkfifo', [fifo]);
  const abort = new AbortController();
  const opening = helper.request({ op: 'open', path: fifo, flags: 'r', release: true }, { signal: abort.signal });
  await helper.request({ op: 'stat', path: dir });
  abort.abort(new Error('enough'));
  await t.rejects(opening, { message: 'enough' });
  feed(fifo);
  await until('closed and unlinked', () => !existsSync(fifo));
  const open = readdirSync(`/proc/${helper.pid}/fd`).map((fd) =>
    execFileSync('readlink', [`/proc/${helper.pid}/fd/${fd}`]).toString(),
  );
  t.notOk(open.some((target) => target.startsWith(fifo)));
});

t.test('too many opens that wait are refused, not queued', async (t) => {
  const dir = tempDir(t);
  const helper = new KernelHelper();
  const fifo = join(dir, 'fifo');
  execFileSync('mkfifo', [fifo]);
  const opens = Promise.allSettled(
    Array.from({ length: HELPER_THREADS }, () => helper.request({ op: 'open', path: fifo, flags: 'r' })),
  );
  const last = helper.request({ op: 'open', path: fifo, flags: 'r' });
  await t.rejects(last, { code: 'EMFILE' });
  feed(fifo);
  const results = await opens;
  t.equal(results.filter((r) => r.status === 'fulfilled').length, HELPER_THREADS - 4);
  helper.close();
});

t.test('the helper is left behind while an open waits, and ends with it', async (t) => {
  const dir = tempDir(t);
  const helper = new KernelHelper();
  const fifo = join(dir, 'fifo');
  const other = join(dir, 'other');
  execFileSync('mkfifo', [fifo]);
  writeFileSync(other, '');
  const opening = helper.request({ op: 'open', path: fifo, flags: 'r', release: true });
  await helper.request({ op: 'open', path: other, flags: 'r', release: true });
  const failed = t.rejects(opening, { code: 'EIO' });
  helper.close();
  await failed;
  await until('what it held is given up at once', () => !existsSync(other));
  t.ok(isAlive(helper.pid), 'it waits for what it asked for');
  feed(fifo);
  await until('it ends', () => !isAlive(helper.pid));
  t.notOk(existsSync(fifo), 'and gives that up too');
});

t.test('a command runs under an open file and keeps it', async (t) => {
  const dir = tempDir(t);
  const helper = new KernelHelper();
  t.teardown(() => helper.close());
  const file = join(dir, 'l');
  const { h } = (await helper.request({ op: 'open', path: file, flags: 'w' })) as { h: number };
  const { exited } = await helper.spawn(h, ['sh', '-c', 'test "$(readlink /proc/self/fd/63)" = "$0" && exit 7', file], {
    PATH: process.env.PATH ?? '',
  });
  t.same(await exited, { code: 7, signal: null });
  await t.rejects(helper.spawn(h, ['/no/such'], {}), { code: 'ENOENT' });
});

t.test('what is mounted at a directory', async (t) => {
  const text =
    'proc /proc proc rw 0 0\nnone /dlm ext4 rw 0 0\nnone /dlm ocfs2_dlmfs rw 0 0\n/run/a\\040b.sock /mnt/x 9p rw 0 0\n';
  t.match(mountAt('/dlm/', text), { type: 'ocfs2_dlmfs' }, 'the last one covers the others');
  t.match(parseMounts(text)[3], { source: '/run/a b.sock', dir: '/mnt/x', type: '9p' });
  t.equal(mountAt('/nothing', text), null);
  t.match(await detectDlmfs('/proc'), { kind: 'other', type: 'proc' });
  t.match(await detectDlmfs('/no/such/dir'), { kind: 'none' });
});
