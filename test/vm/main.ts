/**
 * `npm run test:vm [-- word...]`: what is proved only against the real thing, the kernel's ocfs2_dlmfs and its 9P client.
 *
 * One machine runs the suites one after the other (those whose name contains one of the words); after a suite that failed the
 * next one gets a fresh machine, so that one fault is told once. Each suite has a time limit, so the whole run ends in a known time
 * with its summary line. TSDLM_VM_CONSOLE=1 shows what the guest prints. Without qemu or the image (npm run setup:vm) it says so
 * and skips.
 */
import { bridgeSuite } from './bridge.js';
import { missing } from './cache.js';
import { cliSuite } from './cli.js';
import { kernelSuite } from './conformance.js';
import { examplesSuite } from './examples.js';
import { floorSuite } from './floor.js';
import { Machine, makeDisk, makeInitrd, workFile } from './machine.js';
import { mountSuite } from './mount.js';
import { o2dlmSuite, realSuite } from './real.js';
import { type Machines, runSuite, secondsSince } from './run.js';
import type { Count, Suite } from './suite.js';

const SUITES: Suite[] = [realSuite, o2dlmSuite, cliSuite, examplesSuite, mountSuite, floorSuite, bridgeSuite, kernelSuite];

/** The machine that suites share. */
class SharedMachine implements Machines {
  #machine: Machine | null = null;
  readonly #disk = makeDisk(workFile('disk'));
  readonly #initrd = makeInitrd(workFile('initrd'));

  async get(): Promise<Machine> {
    if (this.#machine !== null) return this.#machine;
    const started = performance.now();
    this.#machine = await Machine.boot({ disk: this.#disk, initrd: this.#initrd });
    console.log(`the machine is up after ${secondsSince(started)} s`);
    return this.#machine;
  }

  /** The next suite gets another one. */
  async end(): Promise<void> {
    await this.#machine?.end();
    this.#machine = null;
  }
}

async function main(words: readonly string[]): Promise<number> {
  const suites = SUITES.filter((s) => words.length === 0 || words.some((word) => s.name.includes(word)));
  if (suites.length === 0) {
    console.log(
      `no suite is named ${words.join(' or ')}: ${SUITES.map((s) => s.name).join(', ')} (two machines: npm run test:vm:two)`,
    );
    return 1;
  }
  const why = missing();
  if (why !== null) {
    console.log(`skipped: ${why}\n0 passed, 0 failed, ${suites.length} skipped`);
    return 0;
  }
  const started = performance.now();
  const count: Count = { passed: 0, failed: 0, skipped: 0 };
  const machines = new SharedMachine();
  try {
    for (const suite of suites) {
      const reason = suite.skip?.() ?? null;
      if (reason === null) await runSuite(suite, machines, count);
      else {
        count.skipped++;
        console.log(`skip ${suite.name}: ${reason}`);
      }
    }
  } finally {
    await machines.end();
  }
  const { passed, failed, skipped } = count;
  const more = skipped > 0 ? `, ${skipped} skipped` : '';
  console.log(`${passed} passed, ${failed} failed${more}; ${suites.length} suites in ${secondsSince(started)} s`);
  return failed === 0 && passed > 0 ? 0 : 1;
}

const code = await main(process.argv.slice(2));
// What a suite that ran out of time still waits for is not waited for here.
process.exit(code);
