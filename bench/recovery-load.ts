/**
 * Programs that go on all the time, in a process of their own, so that what they wait for is the daemons: `recovery-load.js SOCKETS
 * NAMES`, both separated by commas. Each name is locked and released again and again on each socket. On SIGTERM it prints every
 * turn's start and length as JSON, milliseconds on CLOCK_MONOTONIC, and ends.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { type Client, connect, monotonicMs } from '../src/client/index.js';

const [sockets = '', names = ''] = process.argv.slice(2);
const turns: [at: number, ms: number][] = [];
let isOver = false;

async function loop(client: Client, name: string): Promise<void> {
  while (!isOver) {
    const at = monotonicMs();
    const handle = await client.lock(name, 'PR');
    await handle.release();
    turns.push([at, monotonicMs() - at]);
    await sleep(1);
  }
}

const clients = await Promise.all(sockets.split(',').map((socket) => connect({ socket, label: 'load' })));
const loops = clients.flatMap((client) => names.split(',').map((name) => loop(client, name)));
process.on('SIGTERM', () => {
  isOver = true;
  void Promise.all(loops).then(() => process.stdout.write(JSON.stringify(turns), () => process.exit(0)));
});
process.stdout.write('\n');
