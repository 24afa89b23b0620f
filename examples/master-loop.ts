/**
 * Who is the master? The loop that is usually written on a dlmfs, in TypeScript: on the kernel's own where it is mounted at DIR,
 * else on tsdlm through this node's daemon, without any mount.
 *
 *   node dist/examples/master-loop.js [DIR [DOMAIN [LOCK [SECONDS]]]]     defaults: /dlm example master 1
 *
 * Joins the domain, tries to become master without ever waiting, works while it is, and leaves nothing behind.
 */
import { constants } from 'node:fs';
import { argv } from 'node:process';
import { setTimeout } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
// In a program of your own: from 'tsdlm/dlmfs'.
import { type Dlmfs, type DlmfsHandle, openDlmfs } from '../src/dlmfs/index.js';

const { O_CREAT, O_NONBLOCK, O_RDWR } = constants;

export interface LoopOptions {
  domain: string;
  lock: string;
  pauseMs: number;
  /** Ends the loop; what was taken is given back. */
  signal: AbortSignal;
  say: (line: 'master' | 'standby' | 'left') => void;
  /** What only the master does. */
  work: (handle: DlmfsHandle) => Promise<void>;
}

/** Runs until it is told to stop. Any other failure than "somebody else has it" ends it, after cleaning up. */
export async function masterLoop(fs: Dlmfs, o: LoopOptions): Promise<void> {
  const path = `${o.domain}/${o.lock}`;
  await fs.mkdir(o.domain, 0o755).catch((error: NodeJS.ErrnoException) => {
    if (error.code !== 'EEXIST') throw error;
  });
  let handle: DlmfsHandle | null = null;
  let role = '';
  try {
    while (!o.signal.aborted) {
      handle ??= await tryOpen(fs, path);
      const now = handle === null ? 'standby' : 'master';
      if (now !== role) o.say(now);
      role = now;
      if (handle !== null) await o.work(handle);
      await setTimeout(o.pauseMs, undefined, { signal: o.signal }).catch(() => {});
    }
  } finally {
    await handle?.close();
    // Closing alone would keep the lock for this mount.
    await fs.unlink(path).catch(() => {});
    await fs.rmdir(o.domain).catch(() => {});
    o.say('left');
  }
}

/** Null when somebody else has it, or when the cluster cannot say now. */
async function tryOpen(fs: Dlmfs, path: string): Promise<DlmfsHandle | null> {
  try {
    return await fs.open(path, O_RDWR | O_CREAT | O_NONBLOCK, 0o664);
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (code === 'ETXTBSY' || code === 'ENOTCONN') return null;
    throw error;
  }
}

if (argv[1] === fileURLToPath(import.meta.url)) {
  const [dir = '/dlm', domain = 'example', lock = 'master', seconds = '1'] = argv.slice(2);
  const stop = new AbortController();
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.on(signal, () => stop.abort());
  const fs = await openDlmfs(dir);
  try {
    await masterLoop(fs, {
      domain,
      lock,
      pauseMs: Number(seconds) * 1000,
      signal: stop.signal,
      say: (line) => console.log(line),
      work: async (handle) => {
        await handle.write(`${process.pid}`, 0, undefined, 0);
      },
    });
  } finally {
    await fs.close({ force: true });
  }
}
