/**
 * One daemon per state directory.
 *
 * The problem: two daemons on one journal would vote twice. A lock file with a process id outlives a SIGKILL and means
 * nothing in another container; Node offers no flock.
 * The idea: a daemon listens on a Unix socket of its own name in the directory. The kernel says who lives: a connect to a dead
 * one is refused, also after SIGKILL and from another container. Everybody first listens, then looks at all others: of two
 * that start at once at least one sees the other and gives way.
 */
import { randomBytes } from 'node:crypto';
import { closeSync, existsSync, openSync, readdirSync, readFileSync, unlinkSync, writeFileSync } from 'node:fs';
import { connect, createServer, type Server } from 'node:net';
import { join } from 'node:path';
import { TsdlmError } from '../protocol/errors.js';

/** Files of this module in the directory. */
const PREFIX = 'lock.';
const OWNER_FILE = 'owner';
/** An answer that takes longer comes from a living but stopped process. */
const CONNECT_LIMIT_MS = 1000;
const ATTEMPTS = 4;

/** True for names that this module puts into the directory. */
export function isLockFile(name: string): boolean {
  return name === OWNER_FILE || /^lock\.[0-9a-f]{12}$/.test(name);
}

export interface DirLock {
  release(): Promise<void>;
}

function listen(path: string): Promise<Server> {
  return new Promise((resolve, reject) => {
    const server = createServer((socket) => socket.destroy());
    server.once('error', reject);
    server.listen(path, () => {
      server.unref();
      resolve(server);
    });
  });
}

function isAlive(path: string): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect(path);
    const timer = setTimeout(() => done(true), CONNECT_LIMIT_MS);
    const done = (alive: boolean): void => {
      clearTimeout(timer);
      socket.destroy();
      resolve(alive);
    };
    socket.once('connect', () => done(true));
    // EAGAIN: its queue is full, so it lives. Only a refusal or a missing file is proof of the opposite.
    socket.once('error', (error: NodeJS.ErrnoException) => done(error.code !== 'ECONNREFUSED' && error.code !== 'ENOENT'));
  });
}

function close(server: Server): Promise<void> {
  return new Promise((resolve) => {
    server.close(() => resolve());
  });
}

function unlinkIfThere(path: string): void {
  try {
    unlinkSync(path);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error;
  }
}

function ownerText(dir: string): string {
  try {
    return readFileSync(join(dir, OWNER_FILE), 'utf8').trim().slice(0, 100);
  } catch {
    return 'another process';
  }
}

/**
 * Takes the directory for this process until `release` or its end. Throws TSDLM_JOURNAL_IN_USE naming the owner while
 * another process (or another journal of this one) lives there.
 */
export async function lockDirectory(dir: string): Promise<DirLock> {
  // A socket address has room for 107 bytes; through the open directory it is always short enough.
  const fd = openSync(dir, 'r');
  const address = (name: string): string => `/proc/self/fd/${fd}/${name}`;
  try {
    for (let attempt = 0; attempt < ATTEMPTS; attempt++) {
      const own = `${PREFIX}${randomBytes(6).toString('hex')}`;
      const server = await listen(address(own));
      const others = readdirSync(dir).filter((name) => name.startsWith(PREFIX) && isLockFile(name) && name !== own);
      const alive = await Promise.all(others.map((name) => isAlive(address(name))));
      const dead = others.filter((_, i) => !alive[i]);
      if (dead.length === others.length) {
        for (const name of dead) unlinkIfThere(join(dir, name));
        // Somebody who looked at us between our bind and our listen took us for dead: then we are not visible any more.
        if (existsSync(join(dir, own))) {
          writeFileSync(join(dir, OWNER_FILE), `process ${process.pid} (started ${new Date().toISOString()})\n`);
          return {
            release: async () => {
              unlinkIfThere(join(dir, OWNER_FILE));
              await close(server);
              closeSync(fd);
            },
          };
        }
      }
      await close(server);
      // Two that started at once may both have given way: try again at another moment.
      if (attempt < ATTEMPTS - 1) await new Promise((resolve) => setTimeout(resolve, 10 + Math.random() * 40));
    }
  } catch (cause) {
    closeSync(fd);
    if (cause instanceof TsdlmError) throw cause;
    const { code, message } = cause as NodeJS.ErrnoException;
    if (code === 'ENOSPC' || code === 'EDQUOT') {
      throw new TsdlmError('TSDLM_JOURNAL_FULL', `no space left in the state directory ${dir}: free space, then start again`, {
        cause,
      });
    }
    throw new TsdlmError('TSDLM_JOURNAL_FAILED', `the state directory ${dir} cannot be locked: ${message}`, { cause });
  }
  const owner = ownerText(dir);
  closeSync(fd);
  throw new TsdlmError(
    'TSDLM_JOURNAL_IN_USE',
    `the state directory ${dir} is in use by ${owner}: stop that daemon, or give this one another state_dir`,
  );
}
