/** The runner of the virtual machine's suites, without a machine: time limits, failures, and what is heard of a suite that is over. */
import t from 'tap';
import type { Machine } from './machine.js';
import { runSuite } from './run.js';
import type { Count, Suite } from './suite.js';

class Bench {
  readonly lines: string[] = [];
  readonly count: Count = { passed: 0, failed: 0, skipped: 0 };
  boots = 0;
  ends = 0;
  #machine: Machine | null = null;

  run(suite: Partial<Suite> & Pick<Suite, 'run'>): Promise<void> {
    const machines = {
      get: async () => {
        if (this.#machine === null) this.boots++;
        this.#machine ??= { console: 'last words' } as Machine;
        return this.#machine;
      },
      end: async () => {
        this.ends++;
        this.#machine = null;
      },
    };
    return runSuite({ name: 's', limitMs: 5000, ...suite }, machines, this.count, (line) => this.lines.push(line));
  }
}

t.test('a suite that exceeds its limit fails with the case under way, and is not heard any more', async (t) => {
  const b = new Bench();
  let goOn: () => void = () => {};
  const stuck = new Promise<void>((resolve) => {
    goOn = resolve;
  });
  let isBegun = false;
  let after: unknown = null;
  await b.run({
    limitMs: 50,
    run: async (_m, check, report) => {
      await check('good', async () => {});
      await check('waits for ever', () => stuck);
      report('late');
      await check('never begun', async () => {
        isBegun = true;
      }).catch((error: unknown) => {
        after = error;
      });
    },
  });
  t.same(b.count, { passed: 1, failed: 1, skipped: 0 });
  t.match(b.lines.join(), /FAIL s: the suite itself.*not done within 0.05 s; under way: waits for ever/s);
  t.equal(b.ends, 1, 'the next suite gets a fresh machine');
  const said = b.lines.length;
  goOn();
  await new Promise((resolve) => setTimeout(resolve, 20));
  t.equal(b.lines.length, said);
  t.notOk(isBegun);
  t.match(after, Error);
  await b.run({ run: async (_m, check) => check('the others still run', async () => {}) });
  t.same(b.count, { passed: 2, failed: 1, skipped: 0 });
  t.equal(b.boots, 2);
});

t.test('a case that fails is one, the rest goes on, and the machine is replaced afterwards', async (t) => {
  const b = new Bench();
  await b.run({
    run: async (_m, check) => {
      await check('bad', () => Promise.reject(new Error('no')));
      await check('good', async () => {});
      throw new Error('outside of a case');
    },
  });
  t.same(b.count, { passed: 1, failed: 2, skipped: 0 });
  t.match(b.lines.join(), /last words/);
  t.equal(b.ends, 1);
});
