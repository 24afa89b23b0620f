/**
 * `tsdlm lock NAME -- COMMAND` against real daemons: the command runs only while the lock is held, is over before anybody else
 * is granted whatever died meanwhile, and says by its exit code what happened.
 */
import type { ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import t, { type Test } from 'tap';
import { QUICK, QUICK_LIMITS, world } from '../fixtures/e2e.js';
import { until, within } from '../fixtures/until.js';

const TICKER = fileURLToPath(new URL('../fixtures/ticker.js', import.meta.url));

const w = await world(t, { limits: QUICK });

/** A command under the lock that notes its life in a file. */
class Ticking {
  readonly wrapper: ChildProcess;
  readonly file: string;
  readonly ended: Promise<number | null>;
  constructor(t: Test, id: number, name: string, options: string[] = []) {
    this.file = join(w.cluster.dir, `ticks-${name.replaceAll(' ', '-')}`);
    const command = [process.execPath, TICKER, this.file, ...options];
    this.wrapper = w.cluster.spawn(id, ['lock', name, '--ex', '--', ...command], { detached: true });
    this.wrapper.stderr?.resume();
    this.ended = once(this.wrapper, 'exit').then(([code]) => code as number | null);
    t.teardown(() => {
      // Stopped wrappers and commands that outlived a failed test.
      this.wrapper.kill('SIGKILL');
      try {
        process.kill(-this.pid, 'SIGKILL');
      } catch {
        // Gone, or never there.
      }
    });
  }
  get lines(): string[][] {
    if (!existsSync(this.file)) return [];
    return readFileSync(this.file, 'utf8')
      .split('\n')
      .filter((l) => l !== '')
      .map((l) => l.split(' '));
  }
  get pid(): number {
    return Number(this.lines[0]?.[1] ?? Number.NaN);
  }
  get lastAt(): number {
    return Number(this.lines.at(-1)?.[2] ?? Number.NaN);
  }
  async running(): Promise<void> {
    await until('the command runs', () => this.lines.length > 0);
  }
}

t.test('exit codes', async (t) => {
  const run = async (args: string[]): Promise<number | null> => (await w.cluster.run(1, args)).code;
  t.equal(await run(['lock', 'codes', '--', 'sh', '-c', 'exit 7']), 7, "the command's own");
  const token = await w.cluster.run(2, ['lock', 'codes', '--', 'sh', '-c', 'echo $TSDLM_NAME $TSDLM_MODE $TSDLM_TOKEN']);
  t.match(token.stdout, /^codes EX \d+\n$/);
  const held = await (await w.owner(3)).lock('codes', 'PR');
  t.equal(await run(['lock', 'codes', '--try', '--', 'true']), 75, 'a conflict');
  t.equal(await run(['lock', 'codes', '--wait', '100ms', '-E', '33', '--', 'true']), 33, 'a time-out, with -E');
  t.equal(await run(['lock', 'codes', '--pr', '--try', '--', 'true']), 0);
  await held.release();
  t.equal(await run(['lock', 'codes', '--banana', '--', 'true']), 64, 'usage');
  t.equal(await run(['--socket', '/nonexistent/socket', 'lock', 'codes', '--', 'true']), 69, 'no daemon');
});

for (const deaf of [false, true]) {
  t.test(
    `the daemon is killed: the command is ended before anybody else is granted${deaf ? ', even if it ignores SIGTERM' : ''}`,
    async (t) => {
      const name = deaf ? 'deaf command' : 'polite command';
      const ticking = new Ticking(t, 1, name, deaf ? ['--deaf'] : []);
      await ticking.running();
      const waiting = (await w.owner(2)).lock(name);
      await w.waiting(name, 1, 3);
      await w.cluster.node(1).kill();
      const held = await within('the grant elsewhere', waiting);
      t.equal(await within('the wrapper ends', ticking.ended), 76, 'lock lost');
      t.ok(
        ticking.lastAt < held.grantedAt,
        `last sign of life ${(held.grantedAt - ticking.lastAt).toFixed(0)} ms before the grant`,
      );
      t.equal(
        ticking.lines.some(([word]) => word === 'sigterm'),
        deaf,
        'it was told first',
      );
      t.ok(held.token > BigInt(ticking.lines[0]?.[0] ?? 0), 'with a higher token');
      await held.release();
      await w.cluster.node(1).restart();
    },
  );
}

t.test('the wrapper is stopped and the node cut off: the daemon ends the command itself (rule 7)', async (t) => {
  const ticking = new Ticking(t, 1, 'stopped wrapper');
  await ticking.running();
  ticking.wrapper.kill('SIGSTOP');
  await Promise.all([w.cluster.node(2).kill(), w.cluster.node(3).kill()]);
  const line = await w.cluster.node(1).waitLog('the end of the command', (l) => /^command-(killed|terminated)$/.test(l.event));
  t.ok(line);
  const isOver = (): boolean => {
    try {
      process.kill(ticking.pid, 0);
      // A zombie: its parent is stopped.
      return /^State:\s+Z/m.test(readFileSync(`/proc/${ticking.pid}/status`, 'utf8'));
    } catch {
      return true;
    }
  };
  await until('it is over', isOver, QUICK_LIMITS.leaseMs);
  ticking.wrapper.kill('SIGCONT');
  t.equal(await within('the wrapper ends', ticking.ended), 76);
  await Promise.all([w.cluster.node(2).restart(), w.cluster.node(3).restart()]);
  await (await within('all goes on', (await w.owner(1)).lock('stopped wrapper'))).release();
});

t.test('the daemon is stopped cleanly: the command is ended, then the next one runs at once', async (t) => {
  const first = new Ticking(t, 1, 'clean stop');
  await first.running();
  const waiting = (await w.owner(2)).lock('clean stop');
  await w.waiting('clean stop', 1, 3);
  const stopped = w.cluster.node(1).stop();
  const held = await within('the grant elsewhere', waiting, 5000);
  t.ok(first.lastAt < held.grantedAt);
  t.equal(await within('the wrapper ends', first.ended), 76);
  t.same(await stopped, { code: 0, signal: null });
  await held.release();
});

await w.judge();
