/** Two machines, nobody dies: owners in tsdlm and in the kernel of both exclude each other. */
import { equal, match, ok } from 'node:assert/strict';
import type { Check, Report } from './suite.js';
import { between } from './two-clock.js';
import { PATIENCE_MS, type Pair, type User } from './two-pair.js';

const HAMMER_MS = 40_000;
const FREE_MS = 5_000;
const ALONE_MS = 15_000;
/** Far longer than a hand-over in the kernel, some ten ms. */
const STALL_MS = 15_000;

/** How long somebody who waits has surely not been granted: long against a hand-over, which takes some ten ms. */
const STILL_MS = 1500;

export async function locksSuite(pair: Pair, check: Check, report: Report): Promise<void> {
  const { a, b } = pair;
  const users: User[] = [];
  const kept = async (user: Promise<User>): Promise<User> => {
    const u = await user;
    users.push(u);
    return u;
  };
  const kernelA = await kept(a.kernelUser());
  const kernelB = await kept(b.kernelUser());
  await check("o2cb: one node's kernel lock excludes the other's", async () => {
    await kernelA.open('o');
    equal(await kernelB.tries('o', 'pr'), 'ETXTBSY');
    kernelB.ask('o');
    equal(await kernelB.isSaying(/^granted o/, STILL_MS), false);
    const closed = await kernelA.close('o');
    const granted = await kernelB.granted('o');
    report(`     kernel to kernel: granted ${between(closed, granted)} after the other's close`);
    await kernelB.drop('o');
    await kernelA.drop('o');
  });
  await check('kernel users alone', () => kernelAlone(pair, report));
  await check('tsdlmd on both, with a witness on the host: the bridge is up', async () => {
    await a.start();
    await b.start();
    await a.up();
    await b.up();
  });
  const ownerA = await kept(a.user());
  const ownerB = await kept(b.user());
  // The first lock of a node makes it join the domain; a try does not wait for that (TSDLM_UNAVAILABLE).
  for (const user of [ownerA, ownerB]) {
    await user.open('first');
    await user.close('first');
  }
  await check('an owner in tsdlm on A keeps out the kernel users of A and B, and the users of tsdlm on B', async () => {
    await ownerA.open('x');
    equal(await kernelA.tries('x', 'pr'), 'ETXTBSY');
    equal(await kernelB.tries('x', 'pr'), 'ETXTBSY');
    equal(await ownerB.tries('x', 'pr'), 'TSDLM_CONFLICT');
    kernelB.ask('x');
    const blocking = await ownerA.says(/^blocking x /);
    const asked = await kernelB.says(/^asking x /);
    equal(await kernelB.isSaying(/^granted x/, STILL_MS), false);
    const closed = await ownerA.close('x');
    const granted = await kernelB.granted('x');
    report(
      `     the owner on A hears of B's kernel user ${between(asked.time, blocking.time)} after it asked; it has the lock ${between(closed, granted)} after the owner's release is confirmed`,
    );
    await kernelB.drop('x');
    await kernelA.drop('x');
  });
  await check('a kernel user on B keeps out the owners in tsdlm of both; who waits gets it when it lets go', async () => {
    await kernelB.open('k');
    equal(await ownerA.tries('k'), 'TSDLM_CONFLICT');
    equal(await ownerB.tries('k', 'pr'), 'TSDLM_CONFLICT');
    ownerA.ask('k');
    equal(await ownerA.isSaying(/^granted k/, STILL_MS), false);
    // Closed only: the level stays with B's node until somebody waits for it.
    const closed = await kernelB.close('k');
    const granted = await ownerA.granted('k');
    report(`     the waiting owner on A has it ${between(closed, granted)} after the close of B's kernel user`);
    await ownerA.close('k');
    await kernelB.drop('k');
  });
  await check('readers of both kinds on both nodes share, and keep writers out', async () => {
    await Promise.all([ownerA, ownerB, kernelA, kernelB].map((user) => user.open('s', 'pr')));
    const other = await kept(b.user());
    equal(await other.tries('s'), 'TSDLM_CONFLICT');
    other.ask('s');
    equal(await other.isSaying(/^granted s/, STILL_MS), false);
    await Promise.all([ownerA, ownerB, kernelA, kernelB].map((user) => user.close('s')));
    await other.granted('s');
    await other.close('s');
    await kernelA.drop('s');
    await kernelB.drop('s');
  });
  await check('a value block written by any is read by all: tsdlm on A, kernel on B, tsdlm on B, kernel on A', async () => {
    const writers = [ownerA, kernelB, ownerB, kernelA];
    for (const [i, user] of writers.entries()) {
      await user.open('v');
      user.send('read v');
      equal((await user.says(/^value v /)).words[2], i === 0 ? '-' : `value-${i - 1}`);
      user.send(`write v value-${i}`);
      await user.says(/^written v /);
      await user.close('v');
    }
    for (const user of writers) {
      await user.open('v', 'pr');
      user.send('read v');
      equal((await user.says(/^value v /)).words[2], 'value-3');
      await user.close('v');
    }
    await kernelA.drop('v');
    await kernelB.drop('v');
  });
  await hammers(check, report, [kernelA, kernelB, ownerA, ownerB]);
  await check('the status of both says that nothing is held in the kernel any more', async () => {
    for (const node of [a, b]) equal((await node.status())?.bridge?.held, 0);
    match((await a.machine.run(['sh', '-c', 'ls /var/lib/tsdlm/bridge-dlm/web | wc -l'])).out, /^0$/m);
  });
  for (const user of users) user.end();
}

/**
 * No tsdlmd runs yet, and nobody holds two locks or converts what he holds. Said, not judged: it is the kernel's own, and why the
 * kernel's users below do not keep a level where readers come as well.
 */
async function kernelAlone(pair: Pair, report: Report): Promise<void> {
  for (const [i, [how, what]] of [
    ['', 'EX and keep it'],
    ['mixed drop', 'EX or PR and unlink the name'],
    ['mixed', 'EX or PR and keep it'],
  ].entries()) {
    const users = [await pair.a.kernelUser(), await pair.b.kernelUser()];
    for (const [j, user] of users.entries()) user.send(`hammer alone${i} ${ALONE_MS} ${j + 1} ${how}`.trim());
    const ended = await Promise.all(users.map((user) => user.isSaying(/^hammered /, ALONE_MS + STALL_MS)));
    report(
      `     kernel users alone, that in turn take ${what}: ${ended.every(Boolean) ? 'both go on' : `they wait for each other for more than ${STALL_MS / 1000} s`}`,
    );
    for (const user of users) user.end();
  }
}

async function hammers(check: Check, report: Report, users: User[]): Promise<void> {
  const counter = async (): Promise<{ count: number; inside: number }> => {
    const [user] = users;
    user?.send('counter -');
    const words = (await user?.says(/^counter /))?.words ?? [];
    return { count: Number(words[1]), inside: Number(words[2]) };
  };
  const names = ['kernel A', 'kernel B', 'tsdlm A', 'tsdlm B'];
  const hammer = async (
    who: User[],
    ms: number,
    more: string,
  ): Promise<{ done: number; seen: number; grew: number; invalid: number }> => {
    const before = await counter();
    for (const [i, user] of who.entries()) user.send(`hammer c ${ms} ${i + 1} ${more}`.trim());
    let [done, seen, invalid] = [0, 0, 0];
    for (const [i, user] of who.entries()) {
      const { words } = await user.says(/^(hammered|failed) /, ms + PATIENCE_MS);
      equal(words[0], 'hammered', words.join(' '));
      report(
        `     ${names[i]}: ${words[1]} increments, ${words[2]} reads, the longest wait ${words[4]} ms, ${words[3]} times somebody else was seen`,
      );
      done += Number(words[1]);
      seen += Number(words[3]);
      if (/^invalid/m.test(user.process.out)) invalid++;
    }
    const after = await counter();
    return { done, seen, grew: after.count - before.count, invalid };
  };
  for (const [how, what] of [
    ['', 'writers'],
    ['mixed drop', 'writers and readers'],
  ]) {
    await check(
      `a counter on the shared disk, ${what}, ${HAMMER_MS / 1000} s: two kernels and two tsdlmd lose nothing`,
      async () => {
        const { done, seen, grew, invalid } = await hammer(users, HAMMER_MS, how ?? '');
        report(`     ${done} increments, the counter grew by ${grew}`);
        equal(invalid, 0, 'a lock was lost while it was hammered: the machine is too busy for this case');
        equal(seen, 0, 'somebody else was inside');
        equal(grew, done);
        equal((await counter()).inside, 0);
      },
    );
  }
  await check('and the same without locks is seen to lose', async () => {
    const { done, seen, grew } = await hammer(users.slice(0, 2), FREE_MS, 'free');
    report(`     ${done} increments without locks, the counter grew by ${grew}`);
    ok(seen > 0 && grew < done);
  });
}
