/**
 * Two machines, and the network between them is cut while the disk and the witness are reached by both.
 *
 * o2cb ends the higher number, whatever tsdlm thinks of it. So the kernel decides who stays, and tsdlm must be seen to
 * grant nothing twice on the way, whoever leads there.
 */
import { equal, ok } from 'node:assert/strict';
import type { Check, Report } from './suite.js';
import type { Instant } from './two-clock.js';
import type { Pair, User } from './two-pair.js';

const END_MS_MAX = 300_000;

export async function networkCut(pair: Pair, check: Check, report: Report): Promise<void> {
  const { a, b } = pair;
  await check('the network between A and B is cut: the kernel ends B, and A is granted nothing of it before', async () => {
    const holders: [User, string][] = [
      [await a.user(), 'n-oa'],
      [await b.user(), 'n-ob'],
      [await a.kernelUser(), 'n-ka'],
      [await b.kernelUser(), 'n-kb'],
    ];
    for (const [user, name] of holders) await user.open(name);
    const onA: [User, string][] = [
      [await a.user(), 'n-ob'],
      [await a.user(), 'n-kb'],
      [await a.kernelUser(), 'n-kb'],
    ];
    const onB: [User, string][] = [
      [await b.user(), 'n-oa'],
      [await b.user(), 'n-ka'],
      [await b.kernelUser(), 'n-ka'],
    ];
    const cut = performance.now();
    let ended = 0;
    void b.machine.ended.then(() => {
      ended = performance.now();
    });
    pair.hub.isCut = true;
    for (const [user, name] of [...onA, ...onB]) user.ask(name);
    const after = (at: number): string => `${((at - cut) / 1000).toFixed(1)} s`;
    let first: Instant | null = null;
    // The two that wait for the kernel's lock get it one after the other.
    const grants = onA.map(async ([user, name]) => {
      const at = await user.granted(name, END_MS_MAX);
      first = first === null || at.at < first.at ? at : first;
      report(`     A ${user.kind} is granted ${name} ${after(at.at)} after the cut`);
      await user.close(name);
    });
    await b.machine.ended;
    report(`     B's machine ends itself ${after(ended)} after the cut`);
    for (const [user, name] of onB) ok(!user.process.out.includes(`granted ${name}`), `B was granted ${name}, which A holds`);
    await Promise.all(grants);
    ok(ended > 0 && first !== null);
    const { at, error } = first as Instant;
    ok(at + error >= ended - 1000, `A was granted ${Math.round(ended - at)} ms before B had ended`);
    for (const [user, name] of holders.filter(([{ node }]) => node === a)) {
      const lost = new RegExp(`^lost ${name} (\\S+) ([\\d.]+)`, 'm').exec(user.process.out);
      report(
        lost === null
          ? `     A ${user.kind} has kept ${name}`
          : `     A ${user.kind} has lost ${name} (${lost[1]}) ${after(a.clock.here(Number(lost[2])).at)} after the cut`,
      );
    }
    for (const [user] of [...holders, ...onA, ...onB]) user.end();
  });
  await check('A goes on alone', async () => {
    pair.hub.isCut = false;
    await a.up();
    const user = await a.user();
    await user.open('alone');
    equal((await a.status())?.bridge?.held, 1);
    await user.close('alone');
    user.end();
  });
}
