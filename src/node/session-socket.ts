/**
 * The file of the local socket.
 *
 * The problem: a killed daemon leaves its socket file behind, and a second daemon must neither fail because of it nor take
 * the place of one that lives. So a file that is there is first connected to: only when nobody answers is it removed. Who
 * may connect is decided by the file's mode and group, which are set before anybody can learn of the socket by other means
 * than its name.
 */
import { execFileSync } from 'node:child_process';
import { chmodSync, chownSync, lstatSync, mkdirSync, readFileSync, unlinkSync } from 'node:fs';
import { createConnection, type Server } from 'node:net';
import { dirname } from 'node:path';
import { TsdlmError } from '../protocol/errors.js';

/** sun_path holds 108 bytes with the final NUL. */
const PATH_BYTES_MAX = 107;
const PROBE_MS = 1000;

export interface SocketFile {
  path: string;
  /** Octal, such as 0o660. */
  mode: number;
  group?: string | undefined;
}

/** Makes `server` listen on the path. Throws TSDLM_BAD_CONFIG with what is in the way. */
export async function listenOn(server: Server, file: SocketFile): Promise<void> {
  const refuse = (why: string, cause?: unknown): never => {
    throw new TsdlmError('TSDLM_BAD_CONFIG', `cannot listen on socket ${file.path}: ${why}`, { cause });
  };
  if (Buffer.byteLength(file.path) > PATH_BYTES_MAX) refuse(`the path is longer than ${PATH_BYTES_MAX} bytes`);
  const gid =
    file.group === undefined || file.group === '' ? -1 : (groupId(file.group) ?? refuse(`there is no group '${file.group}'`));
  try {
    mkdirSync(dirname(file.path), { recursive: true, mode: 0o755 });
  } catch (error) {
    refuse(`its directory cannot be made: ${(error as Error).message}`, error);
  }
  await removeStale(file.path, refuse);
  await new Promise<void>((resolve, reject) => {
    const onError = (error: NodeJS.ErrnoException): void =>
      reject(new TsdlmError('TSDLM_BAD_CONFIG', `cannot listen on socket ${file.path}: ${error.message}`, { cause: error }));
    server.once('error', onError);
    // Made with no rights for others; the wanted ones follow when the group is set.
    const mask = process.umask(0o177);
    try {
      server.listen({ path: file.path, backlog: 511 }, () => {
        server.removeListener('error', onError);
        resolve();
      });
    } finally {
      process.umask(mask);
    }
  });
  try {
    if (gid >= 0) chownSync(file.path, -1, gid);
    chmodSync(file.path, file.mode);
  } catch (error) {
    server.close();
    refuse(`its mode or group cannot be set: ${(error as Error).message}`, error);
  }
}

async function removeStale(path: string, refuse: (why: string, cause?: unknown) => never): Promise<void> {
  let stat: ReturnType<typeof lstatSync>;
  try {
    stat = lstatSync(path);
  } catch {
    return;
  }
  if (!stat.isSocket()) refuse('there is a file of that name that is no socket; remove it or configure another path');
  if (await answers(path)) refuse('another daemon answers there; stop it or configure another path');
  try {
    unlinkSync(path);
  } catch (error) {
    refuse(`the socket a former daemon left cannot be removed: ${(error as Error).message}`, error);
  }
}

/** True when somebody accepts connections there; a daemon that hangs counts as there. */
function answers(path: string): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = createConnection({ path });
    const end = (is: boolean): void => {
      clearTimeout(timer);
      socket.destroy();
      resolve(is);
    };
    const timer = setTimeout(() => end(true), PROBE_MS);
    socket.on('connect', () => end(true));
    socket.on('error', (error: NodeJS.ErrnoException) => end(error.code !== 'ECONNREFUSED' && error.code !== 'ENOENT'));
  });
}

/** Number of a group by name or number; undefined when there is none. */
export function groupId(group: string): number | undefined {
  if (/^\d+$/.test(group)) return Number(group);
  const find = (text: string): number | undefined => {
    for (const line of text.split('\n')) {
      const [name, , gid] = line.split(':');
      if (name === group && gid !== undefined) return Number(gid);
    }
    return undefined;
  };
  try {
    const local = find(readFileSync('/etc/group', 'utf8'));
    if (local !== undefined) return local;
    // Directory services (sssd, LDAP) are known to getent only.
    return find(
      execFileSync('getent', ['group', group], { encoding: 'utf8', timeout: 5000, stdio: ['ignore', 'pipe', 'ignore'] }),
    );
  } catch {
    return undefined;
  }
}
