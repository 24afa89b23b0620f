/**
 * One suite from its beginning to its end, whatever it does.
 *
 * The problem: what waits for the kernel may wait for ever, and one fault in a machine that suites share is then told by each of
 * them. The idea: a suite has a time limit, and what it still does after that is not heard; after a failure the machine is ended, and the
 * next suite gets another one.
 */
import type { Machine } from './machine.js';
import { Checker, type Count, type Suite } from './suite.js';

export interface Machines {
  /** The one that is running, or a fresh one. */
  get(): Promise<Machine>;
  /** The next suite gets another one. */
  end(): Promise<void>;
}

export const secondsSince = (started: number): number => Math.round((performance.now() - started) / 1000);

export async function runSuite(
  suite: Suite,
  machines: Machines,
  count: Count,
  say: (line: string) => void = console.log,
): Promise<void> {
  const failed = count.failed;
  const checker = new Checker(suite.name, count, say);
  let started = performance.now();
  let machine: Machine | null = null;
  let timer: NodeJS.Timeout | undefined;
  // What goes wrong outside of a case fails the suite, not the run.
  try {
    // Booting has a limit of its own.
    machine = await machines.get();
    started = performance.now();
    const limit = new Promise<never>((_, reject) => {
      timer = setTimeout(
        () => reject(new Error(`not done within ${suite.limitMs / 1000} s; under way: ${checker.current || 'nothing'}`)),
        suite.limitMs,
      );
    });
    await Promise.race([suite.run(machine, checker.check, (text) => checker.report(text)), limit]);
  } catch (error) {
    checker.fail('the suite itself', error);
  }
  clearTimeout(timer);
  // What of it still goes on has nothing more to say.
  checker.close();
  const isBad = count.failed > failed;
  say(`     ${suite.name}: ${secondsSince(started)} s of at most ${suite.limitMs / 1000} s${isBad ? ', FAILED' : ''}`);
  if (!isBad) return;
  say(`     the guest's last words:\n${(machine?.console ?? '').slice(-1500).replace(/^/gm, '       ')}`);
  await machines.end();
}
