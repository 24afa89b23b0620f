/**
 * `openDlmfs`: the file API for a program, over whatever is there: the kernel's own ocfs2_dlmfs where it is mounted, else
 * this node's tsdlmd.
 */
import { connect } from '../client/client.js';
import type { ConnectOptions } from '../client/options.js';
import { ClientLocks } from './client-locks.js';
import { DlmfsError } from './errno.js';
import { openKernelDlmfs } from './kernel.js';
import { detectDlmfs } from './kernel-detect.js';
import { Mount } from './mount.js';
import type { Dlmfs, DlmfsBackend } from './types.js';

/** Tries that cannot be decided end, and what could not be served is asked for again, at this pace. */
const SWEEP_MS = 1000;

export interface OpenDlmfsOptions extends ConnectOptions {
  /** Only this one; default: the kernel's where it is mounted, else tsdlm. */
  backend?: DlmfsBackend;
  umask?: number;
}

/**
 * One mount of its own: an owner that excludes all others, also those of this node (as a second mount does in the kernel;
 * with the kernel's backend the owner is the mount at `path`, shared with all programs that use it). `backend` of what it
 * resolves with says which it is. Rejects with TSDLM_DAEMON_UNREACHABLE when no daemon answers.
 */
export async function openDlmfs(path = '/dlm', options: OpenDlmfsOptions = {}): Promise<Dlmfs> {
  const { backend, umask, ...connectOptions } = options;
  if (backend !== 'tsdlm') {
    if ((await detectDlmfs(path)).kind === 'kernel') return openKernelDlmfs(path);
    if (backend === 'kernel') throw new DlmfsError('ENODEV', 'open', path, 'no ocfs2_dlmfs is mounted there');
  }
  const client = await connect({ label: 'dlmfs', ...connectOptions });
  const sweeper = setInterval(() => mount.tree.sweep(), SWEEP_MS);
  sweeper.unref();
  const mount = new Mount({
    service: new ClientLocks(client),
    uid: process.getuid?.() ?? 0,
    gid: process.getgid?.() ?? 0,
    umask: umask ?? process.umask(),
    onClose: () => {
      clearInterval(sweeper);
      return client.close();
    },
  });
  return mount;
}
