/** The guest's upper layer: init, agent, and tsdlm as it was built here, with the modules it needs at run time. */
import { readdirSync, readFileSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { GUEST, REPO, which } from './cache.js';
import { CpioWriter } from './cpio.js';

/** Where tsdlm lies in the guest. */
export const APP = '/app';

/** Of dist: the programs, the library, and what the tests in the guest run. */
const DIST = /^(bin|src|examples|test\/(vm|dlmfs|fixtures|host)|bench)\/.*\.js$/;

function addTree(cpio: CpioWriter, from: string, to: string, wanted: (path: string) => boolean): void {
  for (const entry of readdirSync(from, { recursive: true })) {
    const path = String(entry);
    if (!wanted(path)) continue;
    const file = join(from, path);
    const stat = statSync(file);
    if (stat.isFile()) cpio.copy(`${to}/${path}`, file, stat.mode & 0o777);
  }
}

/** The packages that package.json needs at run time, and theirs. */
function packages(): string[] {
  const found = new Set<string>();
  const visit = (name: string): void => {
    if (found.has(name)) return;
    let manifest: { dependencies?: Record<string, string>; optionalDependencies?: Record<string, string> };
    try {
      manifest = JSON.parse(readFileSync(join(REPO, 'node_modules', name, 'package.json'), 'utf8'));
    } catch {
      // An optional part for another platform.
      return;
    }
    found.add(name);
    for (const other of Object.keys({ ...manifest.dependencies, ...manifest.optionalDependencies })) visit(other);
  };
  const own = JSON.parse(readFileSync(join(REPO, 'package.json'), 'utf8')) as { dependencies: Record<string, string> };
  for (const name of Object.keys(own.dependencies)) visit(name);
  return [...found].sort();
}

/** The base with this layer behind it: the kernel unpacks both. */
export function appLayer(base: string): Buffer {
  const cpio = new CpioWriter();
  cpio.copy('init', join(GUEST, 'init'), 0o755);
  cpio.copy('agent.py', join(GUEST, 'agent.py'));
  // The shell's loop needs dd's oflag=nonblock, which busybox's has not, and busybox's shell runs its own dd.
  cpio.copy('usr/bin/dash', which('dash') ?? '/bin/dash', 0o755);
  cpio.copy('usr/bin/dd', which('dd') ?? '/bin/dd', 0o755);
  cpio.copy('app/turns.py', join(GUEST, 'turns.py'));
  cpio.copy('app/package.json', join(REPO, 'package.json'));
  addTree(cpio, join(REPO, 'dist'), 'app/dist', (path) => DIST.test(path));
  addTree(cpio, join(REPO, 'examples'), 'app/examples', () => true);
  for (const name of packages()) {
    addTree(cpio, join(REPO, 'node_modules', name), `app/node_modules/${name}`, (path) => /\.(js|cjs|mjs|json|node)$/.test(path));
  }
  for (const name of ['tsdlm', 'tsdlmd']) {
    cpio.file(`usr/bin/${name}`, `#!/bin/sh\nexec node ${APP}/dist/bin/${name}.js "$@"\n`, 0o755);
  }
  return Buffer.concat([readFileSync(base), cpio.end()]);
}
