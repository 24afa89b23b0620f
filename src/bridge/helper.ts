/**
 * The process that holds kernel locks for a bridged domain; it outlives the daemon that started it (helper-core.ts).
 *
 *   node helper.js SOCKET USERS-MOUNT OWN-MOUNT
 *
 * Prints one line when it listens. Ends when no daemon is connected and nothing is held.
 */
import { unlinkSync } from 'node:fs';
import { createServer } from 'node:net';
import { HelperCore } from './helper-core.js';
import { HelperDoor } from './helper-door.js';
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

function say(text: string): void {
  process.stderr.write(`tsdlm bridge: ${text}\n`);
}

const core = new HelperCore({
  files: new RealFiles(users, own),
  now: () => Number(process.hrtime.bigint() / 1000n) / 1000,
  onIdle: end,
  log: say,
});
let lonely: NodeJS.Timeout | null = setTimeout(end, LONELY_MS);
const door = new HelperDoor(core, say);

const server = createServer({ pauseOnConnect: true }, (socket) => {
  if (lonely !== null) clearTimeout(lonely);
  lonely = null;
  door.accept(socket);
});

// Only the daemon, or the deadline, ends this process.
for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP', 'SIGQUIT'] as const) process.on(signal, () => {});
process.stdout.on('error', () => {});
process.stderr.on('error', () => {});
process.umask(0o177);
server.on('error', (error) => {
  say(error.message);
  process.exit(1);
});
server.listen(path, () => process.stdout.write('listening\n'));
