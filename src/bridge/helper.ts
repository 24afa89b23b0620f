/**
 * The process that holds kernel locks for a bridged domain; it outlives the daemon that started it (helper-core.ts).
 *
 *   node helper.js SOCKET USERS-MOUNT OWN-MOUNT
 *
 * Prints one line when it listens. Ends when no daemon is connected and nothing is held.
 */
import { unlinkSync } from 'node:fs';
import { createServer, type Socket } from 'node:net';
import { HelperCore } from './helper-core.js';
import { type FromHelper, MessageLines, type ToHelper } from './protocol.js';
import { RealFiles } from './real-files.js';

const [path = '', users = '', own = ''] = process.argv.slice(2);

/** A helper that no daemon ever connects to. */
const LONELY_MS = 30_000;

function end(): void {
  try {
    unlinkSync(path);
  } catch {
    // A later helper may listen there.
  }
  // A thread that is still in the kernel would keep a normal exit waiting.
  process.kill(process.pid, 'SIGKILL');
}

const core = new HelperCore({
  files: new RealFiles(users, own),
  now: () => Number(process.hrtime.bigint() / 1000n) / 1000,
  onIdle: end,
});
let current: Socket | null = null;
let lonely: NodeJS.Timeout | null = setTimeout(end, LONELY_MS);

const server = createServer((socket) => {
  if (lonely !== null) clearTimeout(lonely);
  lonely = null;
  current?.destroy();
  current = socket;
  const lines = new MessageLines<ToHelper>((message) => {
    if (current === socket) core.receive(message);
  });
  socket.setEncoding('utf8');
  socket.on('data', (chunk: string) => {
    try {
      lines.push(chunk);
    } catch (error) {
      process.stderr.write(`tsdlm bridge: ${(error as Error).message}\n`);
      socket.destroy();
    }
  });
  const gone = (): void => {
    if (current !== socket) return;
    current = null;
    core.disconnect();
  };
  socket.on('end', gone);
  socket.on('error', gone);
  socket.on('close', gone);
  core.connect((message: FromHelper) => socket.write(`${JSON.stringify(message)}\n`));
});

// Only the daemon, or the deadline, ends this process.
for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP', 'SIGQUIT'] as const) process.on(signal, () => {});
process.stdout.on('error', () => {});
process.stderr.on('error', () => {});
process.umask(0o177);
server.on('error', (error) => {
  process.stderr.write(`tsdlm bridge: ${error.message}\n`);
  process.exit(1);
});
server.listen(path, () => process.stdout.write('listening\n'));
