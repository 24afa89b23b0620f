/** How a connection begins: connect, greet, be welcomed. Every refusal names the socket and what to do. */
import { createConnection } from 'node:net';
import { CLIENT_VERSION_MAX, CLIENT_VERSION_MIN, type DaemonMessage } from '../protocol/client-messages.js';
import { errorCodeOf, TsdlmError } from '../protocol/errors.js';
import { FrameWriter, MessageReader } from '../protocol/frame.js';
import { PEER_FRAME_BYTES_MAX } from '../protocol/limits.js';
import { Connection } from './connection.js';

export interface OpenOptions {
  path: string;
  label: string;
  timeoutMs: number;
  /** Look for the next daemon when this one is restarted. */
  resume: boolean;
}

/**
 * Connects, greets, and resolves when the daemon has welcomed us. Rejects with TSDLM_DAEMON_UNREACHABLE or what it says. `old`: goes
 * on with the session of that connection, which is given the new socket; rejects with TSDLM_LOST when the daemon does not know it.
 */
export function openConnection(o: OpenOptions, old: Connection | null = null): Promise<Connection> {
  return new Promise((resolve, reject) => {
    const socket = createConnection({ path: o.path, allowHalfOpen: true });
    const reader = new MessageReader<DaemonMessage>({ frameBytesMax: PEER_FRAME_BYTES_MAX, from: 'daemon' });
    const fail = (error: TsdlmError): void => {
      clearTimeout(timer);
      socket.removeAllListeners();
      socket.on('error', () => {});
      socket.destroy();
      reject(error);
    };
    const unreachable = (why: string, cause?: unknown): void =>
      fail(new TsdlmError('TSDLM_DAEMON_UNREACHABLE', `no daemon answers on ${o.path}: ${why}`, { cause }));
    const timer = setTimeout(() => unreachable(`nothing came within ${o.timeoutMs} ms`), o.timeoutMs);
    socket.on('error', (error: NodeJS.ErrnoException) => unreachable(explain(error), error));
    socket.on('end', () => unreachable('it closed the connection'));
    socket.on('close', () => unreachable('it closed the connection'));
    socket.on('connect', () => {
      const writer = new FrameWriter();
      writer.push({
        k: 'ClientHello',
        versionMin: CLIENT_VERSION_MIN,
        versionMax: CLIENT_VERSION_MAX,
        pid: process.pid,
        label: o.label,
        session: old?.welcome.key ?? '',
        secret: old?.welcome.secret ?? '',
      });
      socket.write(writer.take());
    });
    let connection: Connection | null = null;
    // Messages may follow the welcome in the same chunk: they belong to the connection already.
    const onMessage = (message: DaemonMessage): void => {
      if (connection !== null) return connection._message(message);
      if (message.k === 'DaemonBye') {
        fail(new TsdlmError(errorCodeOf(message.code) ?? 'TSDLM_DAEMON_UNREACHABLE', message.text));
      } else if (message.k !== 'DaemonWelcome') {
        fail(new TsdlmError('TSDLM_PROTOCOL', `${o.path} is no tsdlm daemon's socket: it began with ${message.k}`));
      } else {
        clearTimeout(timer);
        socket.removeAllListeners();
        if (old === null) {
          connection = new Connection(socket, reader, message, {
            isWanted: o.resume,
            patienceMs: o.timeoutMs,
            open: (c, timeoutMs) => openConnection({ ...o, timeoutMs }, c),
          });
        } else if (message.resumed) {
          connection = old;
          old._resume(socket, reader, message);
        } else {
          fail(new TsdlmError('TSDLM_LOST', `the daemon on ${o.path} does not know this session any more`));
          return;
        }
        resolve(connection);
      }
    };
    socket.on('data', (chunk) => {
      const error = reader.push(chunk, onMessage);
      if (error !== null) fail(error);
    });
  });
}

function explain(error: NodeJS.ErrnoException): string {
  if (error.code === 'ENOENT') return 'there is no such socket; is tsdlmd running?';
  if (error.code === 'ECONNREFUSED') return 'nobody listens there; is tsdlmd running?';
  if (error.code === 'EACCES') return "permission denied; this user must be in the socket's group";
  return error.message;
}
