/** Where the parts of the test machine lie, and whether they are all there. Nothing of it is ever in the repository. */
import { existsSync, mkdirSync, readFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { delimiter, dirname, isAbsolute, join } from 'node:path';
import { fileURLToPath } from 'node:url';

export const QEMU = 'qemu-system-x86_64';

/** The repository: what holds dist/, node_modules/ and test/vm/guest/. */
export const REPO = join(dirname(fileURLToPath(import.meta.url)), '../../..');
export const GUEST = join(REPO, 'test/vm/guest');

/** TSDLM_VM_DIR, else tsdlm-vm in $XDG_CACHE_HOME, else in the directory for temporary files. */
export function cacheDir(env: Readonly<Record<string, string | undefined>> = process.env): string {
  const own = env.TSDLM_VM_DIR;
  if (own !== undefined && own !== '') return own;
  const xdg = env.XDG_CACHE_HOME;
  if (xdg !== undefined && isAbsolute(xdg)) return join(xdg, 'tsdlm-vm');
  return join(tmpdir(), `tsdlm-vm-${process.getuid?.() ?? 0}`);
}

export interface Parts {
  dir: string;
  kernel: string;
  /** Everything of the guest that is not ours. */
  base: string;
  /** Says what the base was made of; see BASE_VERSION. */
  stamp: string;
}

/** Raised whenever setup.ts makes another base. */
export const BASE_VERSION = 3;

export function parts(): Parts {
  const dir = cacheDir();
  mkdirSync(dir, { recursive: true, mode: 0o700 });
  return { dir, kernel: join(dir, 'vmlinuz'), base: join(dir, 'base.cpio'), stamp: join(dir, 'stamp.json') };
}

export interface Stamp {
  version: number;
  kernel: string;
  /** The C compiler built a program on libo2dlm. */
  hasO2dlm: boolean;
}

export function readStamp(): Stamp | null {
  try {
    const stamp = JSON.parse(readFileSync(parts().stamp, 'utf8')) as Stamp;
    return stamp.version === BASE_VERSION ? stamp : null;
  } catch {
    return null;
  }
}

/** Finds a program as a shell does. */
export function which(name: string): string | null {
  for (const dir of (process.env.PATH ?? '').split(delimiter)) {
    if (dir !== '' && existsSync(join(dir, name))) return join(dir, name);
  }
  return null;
}

/** Why there can be no machine here, or null. */
export function missing(): string | null {
  if (process.platform !== 'linux' || process.arch !== 'x64')
    return `the test machine is x64 Linux; this is ${process.arch} ${process.platform}`;
  if (which(QEMU) === null) return `${QEMU} is not installed: npm run setup:vm`;
  const p = parts();
  if (readStamp() === null || !existsSync(p.kernel) || !existsSync(p.base))
    return `the test machine is not built in ${p.dir}: npm run setup:vm`;
  return null;
}
