/**
 * Where the daemon's socket is when nobody says so. Daemon and clients must come to the same answer by themselves, so the rule
 * is written once: `TSDLM_SOCKET`, else the service manager's directory, else the system's, else the user's own.
 * Pure: environment and user id come in as arguments.
 */
export const SYSTEM_SOCKET = '/run/tsdlm/tsdlmd.sock';

type Env = Readonly<Record<string, string | undefined>>;

const given = (value: string | undefined): value is string => value !== undefined && value !== '';

/** Socket of a daemon that an ordinary user runs for himself. */
export function userSocketPath(env: Env, uid: number): string {
  return given(env.XDG_RUNTIME_DIR) ? `${env.XDG_RUNTIME_DIR}/tsdlm/tsdlmd.sock` : `/tmp/tsdlm-${uid}/tsdlmd.sock`;
}

/** Where a daemon without a configured path listens. `RUNTIME_DIRECTORY` is systemd's (the first of its list counts). */
export function defaultSocketPath(env: Env, uid: number): string {
  if (given(env.TSDLM_SOCKET)) return env.TSDLM_SOCKET;
  if (given(env.RUNTIME_DIRECTORY)) return `${env.RUNTIME_DIRECTORY.split(':')[0]}/tsdlmd.sock`;
  return uid === 0 ? SYSTEM_SOCKET : userSocketPath(env, uid);
}

/** Where a daemon without a configured path keeps its journal. `STATE_DIRECTORY` is systemd's. */
export function defaultStateDir(env: Env, uid: number): string {
  if (given(env.STATE_DIRECTORY)) return env.STATE_DIRECTORY.split(':')[0] ?? '';
  if (uid === 0) return '/var/lib/tsdlm';
  if (given(env.XDG_STATE_HOME)) return `${env.XDG_STATE_HOME}/tsdlm`;
  return given(env.HOME) ? `${env.HOME}/.local/state/tsdlm` : `/tmp/tsdlm-${uid}/state`;
}

/** Port on which the daemons talk to each other, where none is configured. */
export const PEER_PORT = 7719;
