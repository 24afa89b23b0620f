/**
 * Two machines, and one stands still for longer than either cluster waits, then goes on: what a paused virtual machine does, and
 * what `never_paused` in tsdlm's configuration promises not to happen.
 *
 * The kernel resets a machine that has missed its heartbeats as soon as it notices. Said, how much it did before.
 */
import { equal, ok } from 'node:assert/strict';
import type { Check, Report } from './suite.js';
import { STUBBORN, s } from './two-deaths.js';
import { PATIENCE_MS, type Pair, SOCKET, type User } from './two-pair.js';

const GRANT_MS_MAX = 200_000;
/** From going on to the reset; the kernel looks at its heartbeat every two seconds. */
const RESET_MS_MAX = 15_000;

export async function machineFrozen(pair: Pair, check: Check, report: Report): Promise<void> {
  const { a, b } = pair;
  await check('A stands still until others were granted, and goes on: its kernel resets it', async () => {
    const owner = await a.user();
    const kernel = await a.kernelUser();
    const lock = ['tsdlm', '--socket', SOCKET, 'lock', 'f-command', '--domain', 'web', '--'];
    const command = a.machine.start([...lock, 'python3', '-c', STUBBORN]);
    await command.expect(/alive/, PATIENCE_MS);
    await owner.open('f-owner');
    await kernel.open('f-kernel');
    for (const [user, name] of [
      [owner, 'f-owner'],
      [kernel, 'f-kernel'],
    ] as const) {
      user.send(`write ${name} of-A`);
      await user.says(/^written /);
    }
    const waiters: [User, string][] = [
      [await b.kernelUser(), 'f-command'],
      [await b.kernelUser(), 'f-kernel'],
      [await b.user(), 'f-owner'],
    ];
    a.machine.signal('SIGSTOP');
    const stopped = performance.now();
    const seen = command.out.length;
    for (const [user, name] of waiters) user.ask(name);
    for (const [user, name] of waiters) {
      const { at } = await user.granted(name, GRANT_MS_MAX);
      report(`     B ${user.kind} is granted ${name} ${s(stopped, at)} after A stands still`);
      // Its holder died in EX, for the kernel: what it had written is gone.
      user.send(`read ${name}`);
      equal((await user.says(/^value /)).words[2], '-');
    }
    const goesOn = performance.now();
    a.machine.signal('SIGCONT');
    let limit: NodeJS.Timeout | undefined;
    const isOver = await Promise.race([
      a.machine.ended.then(() => true),
      new Promise<boolean>((resolve) => {
        limit = setTimeout(() => resolve(false), RESET_MS_MAX);
      }),
    ]);
    clearTimeout(limit);
    ok(isOver, `A was not reset within ${RESET_MS_MAX} ms`);
    const late = [...command.out.slice(seen).matchAll(/^alive ([\d.]+)$/gm)]
      .map((match) => a.clock.here(Number(match[1])).at)
      .filter((at) => at > goesOn);
    const last = Math.max(...late, goesOn);
    report(
      `     A's kernel resets it ${Math.round(performance.now() - goesOn)} ms after it goes on; until then the command of its owner was seen to live ${late.length} times, for ${Math.round(last - goesOn)} ms`,
    );
    for (const [user] of waiters) user.end();
    for (const user of [owner, kernel]) user.end();
    command.close();
  });
}
