/**
 * The process that is killed: `victim.js lock SOCKET NAME` holds a lock, `victim.js plain SOCKET` only a connection. Both
 * have loaded the same code, so that the kernel has as much to clean up. Prints "ready".
 */
import { connect as connectSocket } from 'node:net';
import { connect } from '../src/client/index.js';

const [kind = '', socket = '', name = ''] = process.argv.slice(2);
if (kind === 'lock') {
  const client = await connect({ socket, label: 'victim' });
  await client.lock(name, 'EX');
  process.stdout.write('ready\n');
} else {
  const plain = connectSocket({ path: socket });
  plain.once('connect', () => plain.write('h'));
  plain.once('data', () => process.stdout.write('ready\n'));
}
