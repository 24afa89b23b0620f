/** The machine itself: is this the real ocfs2_dlmfs, do two of its mounts exclude each other, does libo2dlm run on it? */
import { equal, match, ok } from 'node:assert/strict';
import { readStamp } from './cache.js';
import type { GuestProcess, Machine } from './machine.js';
import type { Suite } from './suite.js';

/**
 * A small program in the guest that opens a lock and holds it until its input ends: "held MS at TIME" (CLOCK_MONOTONIC in
 * seconds) or "failed ERRNO". What goes wrong later is an answer, "error ERRNO", and ends nothing.
 */
const HOLD = `
import os, sys, time, errno
flags = {"pr": os.O_RDONLY, "ex": os.O_RDWR}[sys.argv[2]] | os.O_CREAT | (os.O_NONBLOCK if "try" in sys.argv[3:] else 0)
t = time.monotonic()
print("opening", flush=True)
try:
    fd = os.open(sys.argv[1], flags, 0o664)
except OSError as e:
    print("failed", errno.errorcode.get(e.errno, e.errno), flush=True)
    sys.exit(1)
now = time.monotonic()
print("held", int((now - t) * 1000), "at", repr(now), flush=True)
for line in sys.stdin:
    verb, _, rest = line.strip().partition(" ")
    if verb == "close":
        break
    try:
        if verb == "write":
            os.pwrite(fd, rest.encode(), 0)
        if verb == "read":
            print("value", os.pread(fd, 64, 0).rstrip(bytes(1)).decode(), flush=True)
        else:
            print("done", verb, flush=True)
    except OSError as e:
        print("error", errno.errorcode.get(e.errno, e.errno), flush=True)
os.close(fd)
print("closed", flush=True)
`;

/** Opens `path` in another process of the guest; its first line of output says how it went. */
export function holder(machine: Machine, path: string, mode: 'pr' | 'ex', isTry = false): GuestProcess {
  return machine.start(['python3', '-c', HOLD, path, mode, ...(isTry ? ['try'] : [])]);
}

/** Tries to open and gives it back at once: 'held' or the name of the error. */
export async function tryOpen(machine: Machine, path: string, mode: 'pr' | 'ex'): Promise<string> {
  const p = holder(machine, path, mode, true);
  p.endInput();
  const { out } = await p.result(60_000);
  p.close();
  return /(held|failed \w+)/.exec(out)?.[1] ?? `nothing: ${out}`;
}

export const realSuite: Suite = {
  name: 'real',
  limitMs: 120_000,
  run: async (m, check) => {
    await check('/dlm is the real ocfs2_dlmfs', async () => {
      match(await m.sh('cat /proc/mounts'), /ocfs2_dlmfs/);
      equal((await m.sh('stat -f -c %t /dlm')).trim(), '76a9f425');
    });
    await check('two mounts are two owners; a try recalls nothing, an open that waits does', async () => {
      await m.sh('mkdir /dlm/real /dlm2/real');
      const a = holder(m, '/dlm/real/r', 'ex');
      await a.expect(/held/);
      a.write('write from a\n');
      await a.expect(/done write/);
      equal(await tryOpen(m, '/dlm2/real/r', 'ex'), 'failed ETXTBSY');
      const b = holder(m, '/dlm2/real/r', 'ex');
      await b.expect(/opening/);
      a.write('close\n');
      await a.expect(/closed/);
      await b.expect(/held/);
      b.write('read\n');
      equal((await b.expect(/value (.*)/))[1], 'from a');
      b.close();
      equal(await tryOpen(m, '/dlm/real/r', 'pr'), 'failed ETXTBSY');
      a.close();
    });
    await check('a process that waits cannot be killed and dies when it is granted', async () => {
      const a = holder(m, '/dlm/real/k', 'ex');
      await a.expect(/held/);
      const b = holder(m, '/dlm2/real/k', 'ex');
      await b.expect(/opening/);
      const waiting = (): Promise<string> => m.sh(`cat /proc/${b.pid}/stat | cut -d' ' -f3`);
      while ((await waiting()).trim() !== 'D');
      await m.sh(`kill -9 ${b.pid}`);
      equal((await waiting()).trim(), 'D');
      a.write('close\n');
      ok(await b.until(() => b.isOver, 30_000), 'dead once granted');
    });
    await m.sh('rm -f /dlm/real/* /dlm2/real/*; rmdir /dlm/real /dlm2/real');
  },
};

export const o2dlmSuite: Suite = {
  name: 'o2dlm',
  limitMs: 120_000,
  skip: () => (readStamp()?.hasO2dlm === true ? null : 'libo2dlm could not be linked here'),
  run: async (m, check) => {
    await check('libo2dlm works on the real one', async () => {
      const one = await o2dlm(m, '/dlm', 'lib');
      const two = await o2dlm(m, '/dlm2', 'lib');
      equal(await one('lock r ex'), 'lock ok');
      equal(await one('set r hello'), 'set ok');
      match(await two('lock r ex try'), /Trylock failed/);
      equal(await one('unlock r'), 'unlock ok');
      equal(await two('lock r pr'), 'lock ok');
      equal(await two('get r'), 'value hello');
      equal(await two('unlock r'), 'unlock ok');
      await one('quit');
      await two('quit');
    });
  },
};

/** Starts the program on libo2dlm; the function sends a command and returns the next line of the answer. */
export async function o2dlm(machine: Machine, dir: string, domain: string): Promise<(line: string) => Promise<string>> {
  const p = machine.start(['o2dlm', dir, domain]);
  await p.expect(/initialize ok\n/);
  let seen = p.out.length;
  return async (line) => {
    p.write(`${line}\n`);
    if (!(await p.until(() => p.out.indexOf('\n', seen) >= 0, 60_000))) throw new Error(`no answer to ${line}: ${p.out}${p.err}`);
    const end = p.out.indexOf('\n', seen);
    const answer = p.out.slice(seen, end);
    seen = end + 1;
    return answer;
  };
}
