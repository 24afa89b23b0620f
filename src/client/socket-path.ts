/**
 * Where the daemon's socket is when nobody says so. The daemon and its clients must come to the same answer by
 * themselves, so the rule is written once: `TSDLM_SOCKET`, else the system's daemon, else the user's own.
 */
import { existsSync } from 'node:fs';
import { join } from 'node:path';

export const SYSTEM_SOCKET = '/run/tsdlm/tsdlmd.sock';

/** Socket of a daemon that an ordinary user runs for himself. */
export function userSocket(env: NodeJS.ProcessEnv = process.env, uid: number = process.getuid?.() ?? 0): string {
  const runtime = env.XDG_RUNTIME_DIR;
  return runtime !== undefined && runtime !== '' ? join(runtime, 'tsdlm', 'tsdlmd.sock') : `/tmp/tsdlm-${uid}/tsdlmd.sock`;
}

/** Where a daemon started without a configured path listens. */
export function daemonSocketPath(env: NodeJS.ProcessEnv = process.env, uid: number = process.getuid?.() ?? 0): string {
  if (env.TSDLM_SOCKET !== undefined && env.TSDLM_SOCKET !== '') return env.TSDLM_SOCKET;
  return uid === 0 ? SYSTEM_SOCKET : userSocket(env, uid);
}

/** Where a client without a given path looks: an ordinary user's own daemon first, if one has been there. */
export function clientSocketPath(env: NodeJS.ProcessEnv = process.env, uid: number = process.getuid?.() ?? 0): string {
  if (env.TSDLM_SOCKET !== undefined && env.TSDLM_SOCKET !== '') return env.TSDLM_SOCKET;
  if (uid !== 0) {
    const own = userSocket(env, uid);
    if (existsSync(own)) return own;
  }
  return SYSTEM_SOCKET;
}
