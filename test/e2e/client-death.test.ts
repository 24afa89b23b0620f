/** A program that dies with its locks: nobody waits for a lease. */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { fileURLToPath } from 'node:url';
import t from 'tap';
import { monotonicMs } from '../../src/client/index.js';
import { DEFAULT_LIMITS, world } from '../fixtures/e2e.js';
import { within } from '../fixtures/until.js';

const HOLDER = fileURLToPath(new URL('../fixtures/holder.js', import.meta.url));
/** From the SIGKILL to the grant elsewhere; takes milliseconds, the rest is for a busy machine. */
const AT_ONCE_MS = DEFAULT_LIMITS.leaseMs / 2;

const w = await world(t);

/** A process of its own that holds `name`. */
async function holder(id: number, name: string, ...options: string[]): Promise<ChildProcess> {
  const args = [HOLDER, w.cluster.node(id).socket, name, ...options];
  const child = spawn(process.execPath, args, { stdio: ['ignore', 'pipe', 'inherit'] });
  t.teardown(() => child.kill('SIGKILL'));
  if (child.stdout === null) throw new Error('no output');
  const [line] = await within('the holder has the lock', once(child.stdout, 'data'));
  if (!String(line).startsWith('granted')) throw new Error(`holder said ${line}`);
  return child;
}

for (const [holderNode, waiterNode] of [
  [1, 2],
  [3, 1],
  [2, 2],
] as const) {
  t.test(`kill -9 of a holder on node ${holderNode}: the waiter on node ${waiterNode} is granted at once`, async (t) => {
    const name = `killed-${holderNode}-${waiterNode}`;
    const child = await holder(holderNode, name);
    const waiter = (await w.owner(waiterNode)).lock(name);
    await w.waiting(name, 1, waiterNode);
    const killedAt = monotonicMs();
    child.kill('SIGKILL');
    const held = await within('the grant', waiter);
    const tookMs = held.grantedAt - killedAt;
    t.ok(tookMs < AT_ONCE_MS, `granted after ${tookMs.toFixed(1)} ms, the lease is ${DEFAULT_LIMITS.leaseMs} ms`);
    await held.release();
  });
}

t.test('rule 18: the value block of a writer that was killed under EX is invalid, until somebody writes it anew', async (t) => {
  const name = 'half written';
  const [one, two] = await Promise.all([w.owner(1), w.owner(2)]);
  await (await one.lock(name, 'EX', { lvb: true })).release({ lvb: Buffer.alloc(64, 'a') });
  const reference = await two.lock(name, 'NL');
  const child = await holder(1, name, '--lvb');
  child.kill('SIGKILL');
  const next = await within('the next writer', two.lock(name, 'EX', { lvb: true }));
  t.same([next.handle.lvbState, next.handle.lvb], ['invalid', null]);
  await next.release({ lvb: Buffer.alloc(64, 'b') });
  const reader = await one.lock(name, 'PR', { lvb: true });
  t.same([reader.handle.lvbState, reader.handle.lvb], ['valid', Buffer.alloc(64, 'b')]);
  await reader.release();
  await reference.release();
});

t.test('kill -9 of `tsdlm lock -- COMMAND` frees nothing while its command lives (rule 7)', async (t) => {
  const name = 'wrapped';
  const child = w.cluster.spawn(1, ['lock', name, '--ex', '--', 'sh', '-c', 'echo $$; exec sleep 60'], { detached: true });
  if (child.stdout === null) throw new Error('no output');
  const [line] = await within('the command runs', once(child.stdout, 'data'));
  const command = Number(String(line).trim());
  t.teardown(() => {
    try {
      process.kill(command, 'SIGKILL');
    } catch {
      // Gone already, as it should be.
    }
  });
  const waiter = (await w.owner(2)).lock(name);
  await w.waiting(name, 1, 2);
  const gone = once(child, 'exit');
  child.kill('SIGKILL');
  await within('the wrapper is gone', gone);
  const shown = await w.cluster.show(2, name);
  t.same([shown.holders.length, shown.waiting.length], [1, 1], 'the command inherited the session, so the lock is still held');
  const killedAt = monotonicMs();
  process.kill(command, 'SIGKILL');
  const held = await within('the grant', waiter);
  const tookMs = held.grantedAt - killedAt;
  t.ok(tookMs < AT_ONCE_MS, `granted ${tookMs.toFixed(1)} ms after the end of the command`);
  await held.release();
});

await w.judge();
