/** `tsdlm mount` and `umount`: what they would do, and what they say where the kernel cannot. */
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import t from 'tap';
import { mountArguments } from '../../src/cli/mount.js';
import { anameOf, kernelHas9p, mountedAt, othersWith, parseMountInfo } from '../../src/cli/mount-table.js';
import { runCli } from '../fixtures/cli.js';
import { startFakeDaemon } from '../fixtures/fake-daemon.js';

const INFO = `22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw
40 22 0:50 / /dlm rw,relatime shared:9 - 9p /run/tsdlm/9p.sock rw,sync,dirsync,access=any,aname=0011223344556677:/dlm,trans=unix
41 22 0:51 / /mnt/a\\040b rw - ocfs2_dlmfs none rw
42 22 0:52 / /dlm rw,relatime - tmpfs none rw
`;

t.test('mountinfo: the last mount at a place counts, blanks are octal', (t) => {
  t.equal(parseMountInfo(INFO).length, 4);
  t.equal(mountedAt('/dlm', INFO)?.type, 'tmpfs');
  t.equal(mountedAt('/mnt/a b', INFO)?.type, 'ocfs2_dlmfs');
  t.equal(mountedAt('/none', INFO), null);
  const [, dlm] = parseMountInfo(INFO);
  t.equal(dlm && anameOf(dlm), '0011223344556677:/dlm');
  t.end();
});

t.test('the same mount in other namespaces is found', (t) => {
  const proc = mkdtempSync(join(tmpdir(), 'tsdlm-proc-'));
  t.teardown(() => rmSync(proc, { recursive: true }));
  for (const [pid, text] of [
    ['17', INFO],
    ['18', ''],
    ['self', INFO],
  ] as const) {
    mkdirSync(join(proc, pid));
    writeFileSync(join(proc, pid, 'mountinfo'), text);
  }
  t.same(othersWith('0011223344556677:/dlm', proc), [17]);
  t.same(othersWith('0011223344556677', proc), []);
  t.end();
});

t.test('the command', (t) => {
  const [, , , options, socket, dir] = mountArguments('/run/s', '/dlm', 'access=user');
  t.match(options, /^trans=unix,version=9p2000\.L,cache=none,access=any,msize=65536,aname=[0-9a-f]{16}:\/dlm,access=user$/);
  t.same([socket, dir], ['/run/s', '/dlm']);
  t.notMatch(mountArguments('/run/s', '/a,b', undefined).join(' '), /aname=\S*a,b\S*,/, 'no comma gets into the name');
  t.equal(kernelHas9p('nodev\tsysfs\nnodev\t9p\n\text4\n'), true);
  t.equal(kernelHas9p('nodev\tsysfs\n'), false);
  t.end();
});

t.test('where it cannot be: exit codes and words', async (t) => {
  const daemon = await startFakeDaemon({
    admin: async (verb) => {
      t.equal(verb, 'status');
      return { ok: true, data: { files: { socket: '/run/x/9p.sock', refusal: null } } };
    },
  });
  t.teardown(() => daemon.stop());
  const dir = mkdtempSync(join(tmpdir(), 'tsdlm-mount-'));
  t.teardown(() => rmSync(dir, { recursive: true }));
  if (!kernelHas9p()) {
    const result = await runCli(daemon.path, ['mount', dir]);
    t.equal(result.code, 69);
    t.match(result.stderr, /this kernel cannot mount 9P.*modules 9p and 9pnet_fd/);
  }
  const nothing = await runCli(daemon.path, ['umount', dir]);
  t.equal(nothing.code, 64);
  t.match(nothing.stderr, /nothing is mounted there/);
  const usage = await runCli(daemon.path, ['unlock', '--orphan']);
  t.equal(usage.code, 64);
  t.match(usage.stderr, /one of NAME, --mount and --all/);
  t.equal((await runCli(daemon.path, ['unlock', 'x', '--all'])).code, 64);
});
