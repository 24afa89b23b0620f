/**
 * Builds the test machine: `npm run setup:vm`.
 *
 * The problem: the real ocfs2_dlmfs and the kernel's 9P client exist only in a kernel that has these modules, and the
 * machine that runs the tests usually has not. The idea: Debian's own kernel and a handful of its packages, downloaded with
 * apt-get and *unpacked, not installed* (but for qemu), become an initramfs that boots under plain emulation in seconds.
 * Everything lies in a cache directory (cache.ts); what is there already is not made again.
 */
import { execFileSync } from 'node:child_process';
import { existsSync, mkdirSync, readdirSync, readFileSync, realpathSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { basename, join } from 'node:path';
import { BASE_VERSION, GUEST, missing, parts, QEMU, type Stamp, which } from './cache.js';
import { CpioWriter } from './cpio.js';

/** Unpacked into one tree. The kernel image is looked up through its meta package. */
const PACKAGES = [
  'busybox-static',
  'python3.11-minimal',
  'libpython3.11-minimal',
  'libpython3.11-stdlib',
  'ocfs2-tools-dev',
  'comerr-dev',
];

/** In this order, each after what it depends on. */
export const MODULES = [
  'virtio_pci',
  'virtio_blk',
  'virtio_net',
  'configfs',
  'ocfs2_nodemanager',
  'ocfs2_dlm',
  'ocfs2_stackglue',
  'ocfs2_stack_o2cb',
  'ocfs2_dlmfs',
  '9pnet',
  '9pnet_fd',
  '9p',
];

/** Parts of Python's library that the guest never needs. */
const PYTHON_LEFT_OUT =
  /\/(__pycache__|test|tests|lib2to3|pydoc_data|distutils|ensurepip|idlelib|tkinter|unittest|xml|wsgiref|sqlite3)\//;

function say(text: string): void {
  process.stdout.write(`${text}\n`);
}

function run(file: string, args: readonly string[], cwd?: string): string {
  return execFileSync(file, args, {
    encoding: 'utf8',
    stdio: ['ignore', 'pipe', 'inherit'],
    ...(cwd === undefined ? {} : { cwd }),
  });
}

function asRoot(args: readonly string[]): void {
  const [file = '', ...rest] = process.getuid?.() === 0 ? args : ['sudo', ...args];
  execFileSync(file, rest, { stdio: 'inherit', env: { ...process.env, DEBIAN_FRONTEND: 'noninteractive' } });
}

/** The package that linux-image-amd64 stands for today. */
function kernelPackage(): string {
  const found = /Depends: (linux-image-[^\s,]+)/.exec(run('apt-cache', ['depends', 'linux-image-amd64']));
  if (found?.[1] === undefined) throw new Error('apt-cache knows no linux-image-amd64: run apt-get update');
  return found[1];
}

function files(root: string, under = ''): string[] {
  const all: string[] = [];
  for (const entry of readdirSync(join(root, under), { withFileTypes: true })) {
    const path = under === '' ? entry.name : `${under}/${entry.name}`;
    if (entry.isDirectory()) all.push(...files(root, path));
    else all.push(path);
  }
  return all.sort();
}

/** The modules and what they depend on, each after its dependencies; paths below `root`. */
function moduleOrder(root: string): string[] {
  const byName = new Map<string, string>();
  for (const path of files(root, 'lib/modules')) {
    if (path.endsWith('.ko')) byName.set(basename(path, '.ko').replaceAll('-', '_'), path);
  }
  const order: string[] = [];
  const visit = (name: string): void => {
    const path = byName.get(name);
    // Built into the kernel, or no module at all: insmod would say so.
    if (path === undefined || order.includes(path)) return;
    const info = /\0?depends=([^\0]*)\0/.exec(readFileSync(join(root, path), 'latin1'));
    for (const other of (info?.[1] ?? '').split(',')) if (other !== '') visit(other.replaceAll('-', '_'));
    order.push(path);
  };
  for (const name of MODULES) visit(name);
  return order;
}

/** The shared libraries of a program, as this machine resolves them. */
function libraries(program: string): string[] {
  return run('ldd', [program])
    .split('\n')
    .map((line) => /(\/\S+) \(0x/.exec(line)?.[1])
    .filter((path) => path !== undefined);
}

/** A program on the original library: static, so that the guest needs none. False without a compiler. */
function buildO2dlm(root: string, out: string): boolean {
  const cc = which('cc') ?? which('gcc');
  if (cc === null) return false;
  try {
    const lib = join(root, 'usr/lib');
    const found = files(root, 'usr')
      .filter((f) => /\/lib(o2dlm|com_err)\.a$/.test(f))
      .map((f) => join(root, f));
    if (found.length < 2) return false;
    found.sort((a) => (a.includes('o2dlm') ? -1 : 1));
    run(cc, [
      '-static',
      '-O1',
      '-w',
      '-o',
      out,
      join(GUEST, 'o2dlm.c'),
      `-I${join(root, 'usr/include')}`,
      `-L${lib}`,
      ...found,
      '-ldl',
      '-lpthread',
    ]);
    return true;
  } catch {
    say('libo2dlm could not be linked; its cases will be skipped');
    return false;
  }
}

function buildBase(root: string, kernel: string): Stamp {
  const p = parts();
  const cpio = new CpioWriter();
  for (const dir of ['proc', 'sys', 'dev', 'tmp', 'run', 'root', 'etc', 'mnt', 'dlm', 'dlm2', 'var/lib']) cpio.dir(dir);
  cpio.char('dev/console', 5, 1);
  cpio.file('etc/passwd', 'root:x:0:0:root:/root:/bin/sh\nuser:x:1000:1000:user:/tmp:/bin/sh\n');
  cpio.file('etc/group', 'root:x:0:\nuser:x:1000:\n');
  cpio.file('etc/machine-id', '0123456789abcdef0123456789abcdef\n');
  const busybox = ['bin/busybox', 'usr/bin/busybox'].find((f) => existsSync(join(root, f))) ?? 'bin/busybox';
  cpio.copy('bin/busybox', join(root, busybox), 0o755);
  for (const name of run(join(root, busybox), ['--list']).trim().split('\n')) {
    if (name !== 'busybox') cpio.link(`bin/${name}`, 'busybox');
  }
  const order = moduleOrder(root);
  for (const path of order) cpio.copy(`modules/${basename(path)}`, join(root, path));
  cpio.file('modules/order', `${order.map((path) => basename(path)).join('\n')}\n`);

  // Python from the packages; Node as it runs here. Both with the libraries that this machine gives them.
  const python = join(root, 'usr/bin/python3.11');
  cpio.copy('usr/bin/python3', python, 0o755);
  for (const path of files(root, 'usr/lib/python3.11')) {
    if (PYTHON_LEFT_OUT.test(path) || !statSync(join(root, path)).isFile()) continue;
    cpio.copy(path, join(root, path));
  }
  cpio.copy('usr/bin/node', realpathSync(process.execPath), 0o755);
  const libs = new Set([...libraries(process.execPath), ...libraries(python)]);
  for (const lib of libs) cpio.copy(lib, realpathSync(lib), 0o755);
  const o2dlm = join(p.dir, 'o2dlm');
  const hasO2dlm = buildO2dlm(root, o2dlm);
  if (hasO2dlm) cpio.copy('usr/bin/o2dlm', o2dlm, 0o755);
  writeFileSync(p.base, cpio.end());
  const image = readdirSync(join(root, 'boot')).find((f) => f.startsWith('vmlinuz-'));
  if (image === undefined) throw new Error(`${kernel} has no /boot/vmlinuz-*`);
  writeFileSync(p.kernel, readFileSync(join(root, 'boot', image)));
  return { version: BASE_VERSION, kernel, hasO2dlm };
}

function setup(): void {
  if (missing() === null) {
    say(`the test machine is there already: ${parts().dir} (remove it to build it anew)`);
    return;
  }
  for (const tool of ['apt-get', 'apt-cache', 'dpkg-deb', 'ldd']) {
    if (which(tool) === null)
      throw new Error(`${tool} is not here: the test machine is built from Debian packages (Debian, Ubuntu)`);
  }
  const p = parts();
  if (which(QEMU) === null) {
    asRoot(['apt-get', 'update', '-qq']);
    asRoot(['apt-get', 'install', '-y', '-qq', '--no-install-recommends', 'qemu-system-x86']);
  }
  const debs = join(p.dir, 'debs');
  const root = join(p.dir, 'root');
  rmSync(root, { recursive: true, force: true });
  mkdirSync(debs, { recursive: true });
  mkdirSync(root, { recursive: true });
  const kernel = kernelPackage();
  const wanted = [kernel, ...PACKAGES].filter((name) => !readdirSync(debs).some((f) => f.startsWith(`${name}_`)));
  if (wanted.length > 0) {
    say(`downloading ${wanted.join(' ')}`);
    run('apt-get', ['download', '-qq', ...wanted], debs);
  }
  for (const deb of readdirSync(debs)) {
    if ([kernel, ...PACKAGES].some((name) => deb.startsWith(`${name}_`))) run('dpkg-deb', ['-x', join(debs, deb), root]);
  }
  const stamp = buildBase(root, kernel);
  rmSync(root, { recursive: true, force: true });
  writeFileSync(p.stamp, `${JSON.stringify(stamp)}\n`);
  say(`built in ${p.dir}: ${kernel}, ${Math.round(statSync(p.base).size / 1e6)} MB${stamp.hasO2dlm ? ', with libo2dlm' : ''}`);
}

try {
  setup();
} catch (error) {
  process.stderr.write(`setup:vm: ${(error as Error).message}\n`);
  process.exitCode = 1;
}
