/** Two machines: tsdlmd is killed on one, then a machine loses its power. Who is granted when, on one clock. */
import { match, ok } from 'node:assert/strict';
import type { Check, Report } from './suite.js';
import { between, type Instant } from './two-clock.js';
import { type Node, PATIENCE_MS, type Pair, SOCKET, type User } from './two-pair.js';

/** A command of `tsdlm lock` that says every 20 ms that it lives, and does not end when it is asked to. */
export const STUBBORN = `
import signal, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
while True:
    print("alive", time.monotonic() * 1000, flush=True)
    time.sleep(0.02)
`;

/** A kernel with these times has found a dead node long before. */
const DEATH_MS_MAX = 400_000;

function isAfter(what: string, then: Instant, before: Instant): void {
  const late = then.at - before.at + then.error + before.error;
  ok(late >= 0, `${what}: ${Math.round(-late)} ms too early`);
}

export const s = (from: number, to: number): string => `${((to - from) / 1000).toFixed(1)} s`;

/** What a machine whose daemon, or power, is gone held: users of both kinds wait for it on B. */
export async function daemonKilled(pair: Pair, check: Check, report: Report): Promise<void> {
  const { a, b } = pair;
  await check(
    'tsdlmd is killed on A: its locks are kept from all until the deadline that its owners were told, and no longer',
    async () => {
      const owner = await a.user();
      const kernels = [await a.kernelUser(), await b.kernelUser()];
      const other = await b.user();
      const names = ['d-kernel-a', 'd-kernel-b', 'd-tsdlm-b'];
      for (const name of names) await owner.open(name);
      const command = a.machine.start([
        ...['tsdlm', '--socket', SOCKET, 'lock', 'd-command', '--domain', 'web', '--', 'python3', '-c', STUBBORN],
      ]);
      await command.expect(/alive/, PATIENCE_MS);
      const commandWaiter = await b.kernelUser();
      const killed = performance.now();
      await a.machine.sh(`kill -KILL ${a.daemon?.pid}`);
      const waiters: [User, string][] = [
        [kernels[0] as User, 'd-kernel-a'],
        [kernels[1] as User, 'd-kernel-b'],
        [other, 'd-tsdlm-b'],
        [commandWaiter, 'd-command'],
      ];
      for (const [user, name] of waiters) user.ask(name);
      owner.send('deadline d-kernel-a');
      const told = await owner.says(/^deadline /);
      const deadline = a.clock.here(Number(told.words[2]));
      report(`     the deadline that owners were told last is ${s(killed, deadline.at)} after the kill`);
      for (const [user, name] of waiters) {
        const granted = await user.granted(name, DEATH_MS_MAX);
        report(`     ${name}: granted ${s(killed, granted.at)} after the kill, ${between(deadline, granted)} after the deadline`);
        isAfter(name, granted, deadline);
        if (name !== 'd-command') continue;
        const ticks = command.out.trim().split('\n');
        const last = a.clock.here(Number(ticks.findLast((line) => /^alive [\d.]+$/.test(line))?.split(' ')[1]));
        report(`     the command of its owner ended ${between(last, granted)} before that`);
        isAfter('the command lives', granted, last);
      }
      const lost = await owner.says(/^lost d-kernel-b /);
      report(`     the owner itself says lost ${between(deadline, lost.time)} after the deadline`);
      for (const [user, name] of waiters) await (user === other ? user.close(name) : user.drop(name));
      for (const user of [owner, other, commandWaiter, ...kernels]) user.end();
      command.close();
    },
  );
  await check('a new tsdlmd on A: both have locks again', async () => {
    a.daemon?.close();
    await a.start();
    await a.up();
    await exchange(pair);
  });
}

/** Each of the four kinds of users has the same lock in turn. */
async function exchange(pair: Pair): Promise<void> {
  const { a, b } = pair;
  const users = [await a.user(), await b.kernelUser(), await b.user(), await a.kernelUser()];
  for (const user of users) {
    await user.open('e');
    await user.close('e');
  }
  for (const user of [users[1], users[3]]) await user?.drop('e');
  for (const user of users) user.end();
}

interface Waiting {
  name: string;
  what: string;
  user: User;
  isTsdlm: boolean;
  isBridged: boolean;
}

export async function powerOff(pair: Pair, check: Check, report: Report): Promise<void> {
  const { a, b } = pair;
  await check('A loses its power: nobody on B is granted before those who must have declared it dead', async () => {
    const owner = await a.user();
    const plain = await a.user('default');
    const kernel = await a.kernelUser();
    for (const name of ['p-ok', 'p-ot', 'p-try']) await owner.open(name);
    for (const name of ['p-kk', 'p-kt']) await kernel.open(name);
    await plain.open('p-plain');
    const waiting: Waiting[] = [
      {
        name: 'p-ok',
        what: "a kernel user, for an owner's in tsdlm",
        user: await b.kernelUser(),
        isTsdlm: false,
        isBridged: true,
      },
      { name: 'p-kk', what: "a kernel user, for a kernel user's", user: await b.kernelUser(), isTsdlm: false, isBridged: true },
      { name: 'p-ot', what: "an owner in tsdlm, for an owner's", user: await b.user(), isTsdlm: true, isBridged: true },
      { name: 'p-kt', what: "an owner in tsdlm, for a kernel user's", user: await b.user(), isTsdlm: true, isBridged: true },
      {
        name: 'p-plain',
        what: 'an owner in a domain that is not bridged',
        user: await b.user('default'),
        isTsdlm: true,
        isBridged: false,
      },
    ];
    const trier = await b.user();
    await trier.open('p-free');
    await trier.close('p-free');
    for (const { user, name } of waiting) {
      user.ask(name);
      await user.says(/^asking /);
    }
    // What was told last before the power went.
    owner.send('deadline p-ok');
    const deadline = a.clock.here(Number((await owner.says(/^deadline /)).words[2]));
    const off = performance.now();
    await a.machine.end();
    const tried = await trier.tries('p-try');
    report(`     a try in tsdlm at once: ${tried}`);
    match(tried, /TSDLM_CONFLICT|TSDLM_UNAVAILABLE/);
    const granted = new Map<string, Instant>();
    await Promise.all(waiting.map(async ({ user, name }) => granted.set(name, await user.granted(name, DEATH_MS_MAX))));
    const fenced = b.viewWith('a', /:(fenced|evicted)/, off);
    ok(fenced !== null, 'B has logged no view in which a is fenced');
    const kernelLog = await b.kernelLog(/o2|dlm/i, off);
    for (const { at, text } of kernelLog) report(`     B's kernel ${s(off, at)} after: ${text}`);
    const evicted = kernelLog.find(({ text }) => /evicted node 1|Node 1 .*(down|dead|died)|recovery/i.test(text));
    report(`     tsdlm counts A as fenced ${s(off, fenced.at)} after the power went (lease ${pair.times.leaseMs} ms)`);
    report(
      `     o2cb ${evicted === undefined ? 'has said nothing' : `counts it as dead after ${s(off, evicted.at)}`} (threshold ${pair.times.dead}: ${(pair.times.dead - 1) * 2} s)`,
    );
    for (const { name, what } of waiting) report(`     granted after ${s(off, granted.get(name)?.at ?? Number.NaN)}: ${what}`);
    for (const { name, isTsdlm, isBridged } of waiting) {
      const at = granted.get(name) as Instant;
      if (isTsdlm) isAfter(`${name}: tsdlm has not declared A dead`, at, fenced);
      // Samples are two seconds apart, and A may have written its last just before.
      if (isBridged) ok(at.at - off >= (pair.times.dead - 1) * 2000 - 2000, `${name}: o2cb cannot have declared A dead`);
      if (isBridged && evicted !== undefined)
        isAfter(`${name}: o2cb has not declared A dead`, at, { at: evicted.at, error: b.clock.error + 1 });
      isAfter(`${name}: before the deadline that owners on A were told`, at, deadline);
    }
    trier.end();
    for (const { user } of waiting) user.end();
  });
}

/** The node that was off comes back. Its file system is in memory, so it has lost its journal, and must be let in again by hand. */
export async function back(pair: Pair, node: Node, by: Node, check: Check, report: Report): Promise<void> {
  await check(`${node.name.toUpperCase()} is switched on again: both clusters take it in, and locks go around`, async () => {
    const started = performance.now();
    await node.boot();
    report(`     up, with the kernel's lock manager, after ${s(started, performance.now())}`);
    await node.start();
    await node.until('reached', (status) => status !== null);
    await by.machine.sh(`tsdlm --socket ${SOCKET} node readmit ${node.name} --wait 2m`, PATIENCE_MS);
    await node.up();
    report(`     a member of tsdlm after ${s(started, performance.now())}`);
    await exchange(pair);
  });
}
