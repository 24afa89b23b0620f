/**
 * Real daemons on disks that fail: the daemon grants nothing more and ends with a named reason, the others go on, and what was
 * acknowledged before is there when the disk is well again.
 */
import { execFileSync } from 'node:child_process';
import { once } from 'node:events';
import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import { DiskFault, type FailingCall, type FailureName } from '../fixtures/disk-fault.js';
import { QUICK, world } from '../fixtures/e2e.js';
import { until, within } from '../fixtures/until.js';

const w = await world(t, { limits: { ...QUICK, dead_ms: 6000 }, extra: 'unsafe_node_owned = true\n', start: false });
const disk = DiskFault.create(w.cluster.dir);
const sick = w.cluster.node(3);
/** The last node is on a small file system of its own where this process may mount one. */
const state = join(sick.dir, 'state');
mkdirSync(state, { mode: 0o700 });
const isMounted = mount(['-t', 'tmpfs', '-o', 'size=8m', 'tmpfs', state]);
if (isMounted) t.teardown(() => execFileSync('umount', ['-l', state]));
if (disk !== null) sick.env = disk.env;
await w.cluster.start();

function mount(args: string[]): boolean {
  try {
    execFileSync('mount', args, { stdio: 'ignore' });
    return true;
  } catch {
    return false;
  }
}

let domains = 0;
/** Something that goes into every node's log: a domain that nobody had. */
async function writeControl(): Promise<void> {
  const client = await w.cluster.client(1);
  const handle = await client.lock('x', 'EX', { domain: `d${++domains}`, timeout: 10_000 }).catch(() => null);
  await handle?.release();
}

type Exit = [number | null, NodeJS.Signals | null];

/** The end of the sick node's daemon; to be asked for before it is made to end. */
const exitOf = (): Promise<Exit> => once(sick, 'exit') as Promise<Exit>;

/** It ends with exit code 74, and its last words name the reason. */
async function ends(t: Test, exited: Promise<Exit>, code: RegExp, cause: RegExp): Promise<void> {
  const [exit, signal] = await within('the daemon ends', exited);
  if (signal === 'SIGABRT' || signal === 'SIGSEGV') {
    // lmdb writes past a buffer of its own when the write of a page fails; it has said why before.
    t.match(sick.errors, /^Write error: .* position \d+, size/m, `the library ended the daemon with ${signal}`);
    return;
  }
  t.equal(exit, 74);
  const last = sick.log.at(-1);
  t.match(last, { event: 'fatal', code }, 'the last line of the log');
  t.match(String(last?.error), cause);
  t.match(sick.errors.trim().split('\n').at(-1), code, 'and on standard error, for people');
}

async function takeOwned(name: string): Promise<string> {
  const taken = await w.cluster.run(3, ['--json', 'lock', name, '--ex', '--node-owned', '--wait', '10s']);
  if (taken.code !== 0) throw new Error(taken.stderr);
  return (JSON.parse(taken.stdout) as { token: string }).token;
}

/** A failing control/ ends the daemon; its session keeps its lock (L3) or had to give it up, its own lock comes back with it. */
async function failsAndRecovers(
  t: Test,
  name: string,
  breakIt: () => unknown,
  heal: () => unknown,
  code: RegExp,
  cause: RegExp,
): Promise<void> {
  const token = await takeOwned(`own ${name}`);
  const held = await (await w.owner(3)).lock(name);
  const waiting = (await w.owner(2)).lock(name);
  await w.waiting(name, 1);
  sick.errors = '';
  const exited = exitOf();
  await breakIt();
  void writeControl();
  await ends(t, exited, code, cause);
  heal();
  await sick.restart(30_000);
  if (held.lostAt === null) t.ok(held.handle.valid(), 'its session holds on');
  await held.release().catch((error: unknown) => t.match(error, { code: /TSDLM_(LOST|NOT_HELD)/ }));
  const next = await within('the lock of its session is granted elsewhere', waiting, 30_000);
  t.ok(next.token > held.token);
  await next.release();
  const [holder] = (await w.cluster.show(3, `own ${name}`)).holders;
  t.same(
    [holder?.node.id, holder?.isNodeOwned, holder?.token],
    [3, true, token],
    'its own lock is the one that was acknowledged',
  );
  t.equal((await w.cluster.run(3, ['unlock', `own ${name}`])).code, 0);
}

const CASES: { call: FailingCall; how: FailureName; word: string; code: RegExp; cause: RegExp }[] = [
  { call: 'sync', how: 'EIO', word: 'state/control', code: /TSDLM_JOURNAL_FAILED/, cause: /Input\/output error/ },
  { call: 'sync', how: 'EIO', word: 'state/stamps', code: /TSDLM_JOURNAL_FAILED/, cause: /EIO/ },
  { call: 'sync', how: 'ENOSPC', word: 'state/control', code: /TSDLM_JOURNAL_FULL/, cause: /no space left/ },
  { call: 'write', how: 'EIO', word: 'state/control', code: /TSDLM_JOURNAL_FAILED/, cause: /Input\/output error/ },
  { call: 'write', how: 'EROFS', word: 'state/control', code: /TSDLM_JOURNAL_FAILED/, cause: /Read-only file system/ },
  { call: 'write', how: 'ENOSPC', word: 'state/control', code: /TSDLM_JOURNAL_FULL/, cause: /no space left/ },
];

for (const { call, how, word, code, cause } of CASES) {
  const title = `S5: a ${call} of ${word} that returns ${how} ends the daemon with ${code.source}; nothing acknowledged is lost`;
  t.test(title, { skip: disk === null ? 'there is no gcc here' : false }, async (t) => {
    await failsAndRecovers(
      t,
      `${call} ${how} ${word}`,
      () => disk?.fail(call, how, word),
      () => disk?.heal(),
      code,
      cause,
    );
  });
}

t.test(
  'a write of node-owned locks that fails ends the daemon too',
  { skip: disk === null ? 'there is no gcc here' : false },
  async (t) => {
    sick.errors = '';
    const exited = exitOf();
    disk?.fail('write', 'EIO', 'state/locks');
    await takeOwned('not written').catch(() => '');
    await ends(t, exited, /TSDLM_JOURNAL_FAILED/, /Input\/output error/);
    disk?.heal();
    await sick.restart(30_000);
    const shown = await w.cluster.show(3, 'not written').catch(() => null);
    t.same(shown?.holders ?? [], [], "the lock that was not written is nobody's");
  },
);

const noMount = isMounted ? false : 'not allowed to mount';

t.test('a full disk refuses node-owned locks and nothing else; with space they are taken again', { skip: noMount }, async (t) => {
  const kept = await takeOwned('kept');
  const ballast = join(state, 'lost+found');
  execFileSync('sh', ['-c', `head -c 100m /dev/zero > "${ballast}" 2>/dev/null; truncate -s -300k "${ballast}"`]);
  const refused = await w.cluster.run(3, ['lock', 'one more', '--ex', '--node-owned', '--wait', '10s']);
  t.match(refused, { code: 1, stderr: /TSDLM_JOURNAL_FULL/ });
  const held = await (await w.owner(3)).lock('of a session');
  await held.release();
  t.ok(sick.isRunning);
  t.equal((await w.cluster.run(3, ['unlock', 'kept'])).code, 0, 'giving one back needs no room');
  execFileSync('rm', [ballast]);
  t.ok(BigInt(await takeOwned('kept')) > BigInt(kept));
  t.equal((await w.cluster.run(3, ['unlock', 'kept'])).code, 0);
});

t.test('S5: a disk that is full to its end ends the daemon when consensus has to be written', { skip: noMount }, async (t) => {
  const ballast = join(state, 'lost+found');
  const fill = (): unknown => execFileSync('sh', ['-c', `head -c 100m /dev/zero > "${ballast}" 2>/dev/null; true`]);
  // It takes what its free pages allow before.
  const breakIt = async (): Promise<void> => {
    fill();
    for (let i = 0; i < 60 && sick.isRunning; i++) await writeControl();
  };
  await failsAndRecovers(t, 'full', breakIt, () => execFileSync('rm', [ballast]), /TSDLM_JOURNAL_FULL/, /no space left/);
});

t.test('S5: a file system that turns read-only ends the daemon; while it is, no daemon starts', { skip: noMount }, async (t) => {
  const token = await takeOwned('before');
  sick.errors = '';
  // An open file keeps it from being remounted, as it does when the kernel does it by itself: so the writes are made to fail.
  await sick.kill();
  execFileSync('mount', ['-o', 'remount,ro', state]);
  const since = sick.log.length;
  sick.start();
  const { code } = await sick.ended();
  t.equal(code, 74);
  t.match(sick.errors, /read-only.*TSDLM_JOURNAL_FAILED/);
  t.notOk(sick.log.slice(since).some((l) => l.event === 'daemon-started'));
  execFileSync('mount', ['-o', 'remount,rw', state]);
  await sick.restart(30_000);
  // Its restarted daemon may still be claiming it.
  const holderOf = async () => (await w.cluster.show(3, 'before').catch(() => null))?.holders[0];
  await until('its own lock is claimed', async () => (await holderOf()) !== undefined);
  t.equal((await holderOf())?.token, token);
});

await w.judge();
