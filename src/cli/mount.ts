/**
 * `tsdlm mount` and `tsdlm umount`: the locks as files, mounted by the kernel's own 9P client from this node's daemon.
 *
 * Each mount gets a name of its own (aname), under which the daemon knows it. After a successful umount that was not lazy
 * nobody can have a file of it open any more, and only then are the orphan holds of that name freed (rule 6).
 */
import { spawnSync } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { lstatSync, mkdirSync, realpathSync } from 'node:fs';
import { resolve } from 'node:path';
import type { Command } from 'commander';
import type { FilesFreeArgs, FilesFreeData, StatusData } from '../protocol/admin.js';
import { TsdlmError } from '../protocol/errors.js';
import type { Context } from './context.js';
import { anameOf, kernelHas9p, mountedAt, othersWith } from './mount-table.js';
import { plain } from './table.js';

const DEFAULT_DIR = '/dlm';
/** What a directory may consist of to be a part of the mount's name: options are separated by commas. */
const SAFE_DIR = /^[A-Za-z0-9/._-]{1,60}$/;
/** Names that `tsdlm mount` gives: no two mounts ever have the same. */
const OWN_NAME = /^[0-9a-f]{16}(?::|$)/;

interface MountFlags {
  print?: boolean;
  options?: string;
}

export function mountCommand(program: Command, context: () => Context): void {
  program
    .command('mount')
    .description('mount the locks as files, in the way of ocfs2_dlmfs, from the daemon of this node')
    .argument('[dir]', 'where to mount', DEFAULT_DIR)
    .option('-o, --options <options>', 'more options for mount(8), such as access=user')
    .option('--print', 'print the command instead of running it')
    .action(async (dir: string, flags: MountFlags) => {
      const c = context();
      const { files } = (await c.withClient('tsdlm mount', (client) => client.admin('status'))) as StatusData;
      if (files.refusal !== null) throw new TsdlmError('TSDLM_NOT_ALLOWED', files.refusal);
      if (files.socket === null) {
        throw new TsdlmError(
          'TSDLM_NOT_ALLOWED',
          'this daemon serves no files: [files] in its configuration says enabled = false',
        );
      }
      const target = resolve(dir);
      const args = mountArguments(files.socket, target, flags.options);
      if (flags.print === true) {
        c.print({ command: ['mount', ...args] }, (d) => `${d.command.join(' ')}\n`);
        return;
      }
      requireKernel();
      requireDirectory(target);
      run('mount', args, target);
      c.print({ dir: target, socket: files.socket }, (d) => `mounted ${plain(d.dir)}\n`);
    });
}

/** Arguments for mount(8). */
export function mountArguments(socket: string, dir: string, more: string | undefined): string[] {
  const id = randomBytes(8).toString('hex');
  const aname = SAFE_DIR.test(dir) ? `${id}:${dir}` : id;
  const options = `trans=unix,version=9p2000.L,cache=none,access=any,msize=65536,aname=${aname}`;
  return ['-t', '9p', '-o', more === undefined ? options : `${options},${more}`, socket, dir];
}

function requireKernel(): void {
  if (kernelHas9p()) return;
  // Modules load by themselves at a mount, but then the kernel only says "unknown filesystem type".
  for (const module of ['9pnet_fd', '9p']) spawnSync('modprobe', ['-q', module], { stdio: 'ignore' });
  if (kernelHas9p()) return;
  throw new TsdlmError(
    'TSDLM_UNAVAILABLE',
    'this kernel cannot mount 9P: it has neither CONFIG_9P_FS built in nor the modules 9p and 9pnet_fd; ' +
      "install them (Debian: linux-image of the distribution), or use tsdlm lock, or the file API 'tsdlm/dlmfs' of Node.js",
  );
}

function requireDirectory(dir: string): void {
  const wrong = (why: string): never => {
    throw new TsdlmError('TSDLM_BAD_ARGUMENT', `${dir} ${why}`);
  };
  // First of all: a mount whose daemon is gone gives EIO even for a stat.
  const there = mountedAt(dir);
  if (there !== null && there.type === '9p') wrong(`is a mount of ${there.source} already: tsdlm umount ${dir}`);
  if (there !== null && there.type === 'ocfs2_dlmfs') wrong("is the kernel's own dlmfs: mount at another directory");
  try {
    if (!lstatSync(dir).isDirectory()) wrong('is no directory');
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error;
    try {
      mkdirSync(dir, { recursive: true, mode: 0o755 });
    } catch (cause) {
      wrong(`is not there and cannot be made: ${(cause as Error).message}`);
    }
  }
  if (realpathSync(dir) !== dir) wrong(`leads to ${realpathSync(dir)} by a symbolic link: name that directory`);
}

/** Runs mount(8) or umount(8); what they complain of becomes our error. */
function run(program: string, args: string[], dir: string): void {
  const result = spawnSync(program, args, { encoding: 'utf8', stdio: ['ignore', 'pipe', 'pipe'] });
  if (result.status === 0) return;
  const said = `${result.stderr ?? ''}${result.error?.message ?? ''}`.trim().replaceAll('\n', '; ');
  const hint = process.getuid?.() === 0 ? '' : ` (${program} needs root)`;
  throw new TsdlmError('TSDLM_NOT_ALLOWED', `${program} ${dir} failed: ${said === '' ? `exit ${result.status}` : said}${hint}`);
}

export function umountCommand(program: Command, context: () => Context): void {
  program
    .command('umount')
    .description('unmount the locks, and free what files of that mount left held when its daemon had gone away')
    .argument('[dir]', 'where it is mounted', DEFAULT_DIR)
    .action(async (dir: string) => {
      const c = context();
      const target = resolve(dir);
      const there = mountedAt(target);
      if (there?.type !== '9p') {
        const what = there === null ? 'nothing is mounted there' : `a ${there.type} is mounted there`;
        throw new TsdlmError('TSDLM_BAD_ARGUMENT', `${target}: ${what}, no mount of tsdlm`);
      }
      const aname = anameOf(there);
      // Never lazily: a lazy umount succeeds while programs have files open.
      run('umount', [target], target);
      const freed = aname !== null && OWN_NAME.test(aname) ? await freeOrphans(c, aname) : [];
      c.print({ dir: target, freed }, (d) => {
        const lines = d.freed.map((o) => `freed ${plain(o.domain)}/${plain(o.name)} ${o.mode}\n`);
        return `unmounted ${plain(d.dir)}\n${lines.join('')}`;
      });
    });
}

async function freeOrphans(c: Context, mount: string): Promise<FilesFreeData['freed']> {
  const others = othersWith(mount);
  if (others.length > 0) {
    process.stderr.write(
      `tsdlm: the same mount is still there in other mount namespaces (process ${others.slice(0, 3).join(', ')}): ` +
        'what its files hold stays held\n',
    );
    return [];
  }
  const args: FilesFreeArgs = { mount };
  try {
    return ((await c.withClient('tsdlm umount', (client) => client.admin('files-free', args))) as FilesFreeData).freed;
  } catch (error) {
    if (!(error instanceof TsdlmError)) throw error;
    process.stderr.write(
      `tsdlm: unmounted, but the daemon could not be told (${plain(error.message)}): if files of this mount were open when it went away, ` +
        `free them with tsdlm unlock --orphan --mount ${mount}\n`,
    );
    c.exitCode = 1;
    return [];
  }
}
