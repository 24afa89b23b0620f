/** Where a client looks for the daemon's socket when nobody says where it is. The daemon's half is protocol/paths.ts. */
import { existsSync } from 'node:fs';
import { SYSTEM_SOCKET, userSocketPath } from '../protocol/paths.js';

/** `TSDLM_SOCKET`, else the user's own daemon if one has been there, else the system's. */
export function clientSocketPath(env: NodeJS.ProcessEnv = process.env, uid: number = process.getuid?.() ?? 0): string {
  if (env.TSDLM_SOCKET !== undefined && env.TSDLM_SOCKET !== '') return env.TSDLM_SOCKET;
  if (uid !== 0) {
    const own = userSocketPath(env, uid);
    if (existsSync(own)) return own;
  }
  return SYSTEM_SOCKET;
}
