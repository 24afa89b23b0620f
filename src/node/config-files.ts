/** The [files] table: where file systems are mounted from. */
import { dirname, isAbsolute } from 'node:path';
import type { Complaints, TableReader } from './config-reader.js';

export interface FilesConfig {
  /** Path of the 9P socket; null = none. */
  socket: string | null;
  /** Octal; null = as the daemon's socket. */
  mode: number | null;
  group: string | null;
  /** Loopback address; null = none. */
  listen: { host: string; port: number } | null;
  /** The table asks for it: what cannot be had is a mistake, not only a warning. */
  isAsked: boolean;
}

const LOOPBACK = /^(?:127(?:\.[0-9]{1,3}){3}|localhost|::1)$/;

/** The socket stands beside the daemon's, unless the table says otherwise. */
export function defaultFilesSocket(socket: string): string {
  return `${dirname(socket)}/9p.sock`;
}

export function readFiles(top: TableReader, complaints: Complaints): FilesConfig & { usesDefault: boolean } {
  const table = top.table('files');
  const none = { socket: null, mode: null, group: null, listen: null, isAsked: false, usesDefault: true };
  if (table === undefined) return none;
  const isEnabled = table.boolean('enabled') ?? true;
  const socket = table.text('socket', { max: 107, wanted: 'a path of at most 107 characters' });
  const mode = table.text('socket_mode', { pattern: /^0?[0-7]{3}$/, wanted: 'permissions in octal, such as "0660"' });
  const group = table.text('socket_group', { max: 32 });
  const listen = table.text('listen', {
    pattern: /^(?:\[[0-9a-fA-F:.]+\]|[^:[\]]+):[0-9]{1,5}$/,
    wanted: 'HOST:PORT with a loopback address, such as "127.0.0.1:5640"',
  });
  if (socket !== undefined && !isAbsolute(socket)) {
    complaints.at(table.lineOf('socket'), `files.socket = "${socket}" must be an absolute path`);
  }
  let address: FilesConfig['listen'] = null;
  if (listen !== undefined) {
    const colon = listen.lastIndexOf(':');
    const host = listen.slice(0, colon).replace(/^\[|\]$/g, '');
    const port = Number(listen.slice(colon + 1));
    if (!LOOPBACK.test(host) || port < 1 || port > 65_535) {
      complaints.at(
        table.lineOf('listen'),
        `files.listen = "${listen}" must be a loopback address with a port: whoever connects has all files without a password`,
      );
    }
    address = { host, port };
  }
  table.finish();
  if (!isEnabled) return { ...none, usesDefault: false };
  return {
    socket: socket ?? null,
    mode: mode === undefined ? null : Number.parseInt(mode, 8),
    group: group ?? null,
    listen: address,
    isAsked: true,
    usesDefault: socket === undefined,
  };
}
