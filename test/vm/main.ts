/**
 * `npm run test:vm [-- word...]`: what is proved only against the real thing, the kernel's ocfs2_dlmfs and its 9P client.
 *
 * One machine runs the suites one after the other (those whose name contains one of the words). TSDLM_VM_CONSOLE=1 shows
 * what the guest prints. Without qemu or the image (npm run setup:vm) it says so and skips.
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
import { type Count, checker, type Suite } from './suite.js';

const SUITES: Suite[] = [realSuite, o2dlmSuite, cliSuite, examplesSuite, mountSuite, floorSuite, bridgeSuite, kernelSuite];

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
  const count: Count = { passed: 0, failed: 0, skipped: 0 };
  const disk = makeDisk(workFile('disk'));
  const initrd = makeInitrd(workFile('initrd'));
  let machine: Machine | null = null;
  try {
    const started = performance.now();
    machine = await Machine.boot({ disk, initrd });
    console.log(`the machine is up after ${Math.round((performance.now() - started) / 1000)} s`);
    for (const suite of suites) {
      const reason = suite.skip?.() ?? null;
      if (reason !== null) {
        count.skipped++;
        console.log(`skip ${suite.name}: ${reason}`);
        continue;
      }
      const check = checker(suite.name, count);
      // What goes wrong outside of a case fails the suite, not the run.
      const failed = count.failed;
      try {
        await suite.run(machine, check, (text) => console.log(text));
      } catch (error) {
        await check('the suite itself', () => Promise.reject(error));
      }
      if (count.failed > failed)
        console.log(`     the guest's last words:\n${machine.console.slice(-1500).replace(/^/gm, '       ')}`);
    }
  } finally {
    await machine?.end();
  }
  console.log(`${count.passed} passed, ${count.failed} failed${count.skipped > 0 ? `, ${count.skipped} skipped` : ''}`);
  return count.failed === 0 && count.passed > 0 ? 0 : 1;
}

process.exitCode = await main(process.argv.slice(2));
