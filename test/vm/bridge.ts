/**
 * A bridged domain on the real thing: two daemons (each with a mount of its own) and programs on /dlm exclude each other.
 */
import { equal, match, ok } from 'node:assert/strict';
import type { GuestProcess, Machine, Output } from './machine.js';
import { holder, tryOpen } from './real.js';
import type { Check, Suite } from './suite.js';

const CLUSTER = `cluster = "vm"
key = "0123456789abcdef0123456789abcdef"
unsafe_node_owned = true
restart_limit_ms = 180000
never_paused = true
limits = { heartbeat_ms = 1000, lease_ms = 10000, suspect_ms = 5000, dead_ms = 10000, election_ms = 2000 }
[domains.web]
bridge = "/dlm"
[[nodes]]
id = 1
name = "a"
host = "127.0.0.1"
port = 7801
[[nodes]]
id = 2
name = "b"
host = "127.0.0.1"
port = 7802
[[nodes]]
id = 3
name = "c"
host = "127.0.0.1"
port = 7803
voter = false
`;
/** Two daemons take two minutes to come up while others use the processors as well. */
const PATIENCE_MS = 300_000;

class Node {
  readonly #m: Machine;
  readonly name: string;
  process: GuestProcess | null = null;

  constructor(m: Machine, name: string) {
    this.#m = m;
    this.name = name;
  }

  get socket(): string {
    return `/run/${this.name}/tsdlm.sock`;
  }

  start(): void {
    this.process = this.#m.start([
      'tsdlmd',
      '--config',
      '/root/tsdlm.conf',
      '--node',
      this.name,
      '--state-dir',
      `/var/lib/tsdlm-${this.name}`,
      '--socket',
      this.socket,
    ]);
  }

  args(...args: string[]): string[] {
    return ['tsdlm', '--socket', this.socket, ...args];
  }

  lock(name: string, ...more: string[]): GuestProcess {
    return this.#m.start(this.args('lock', name, '--domain', 'web', ...more));
  }

  /** Runs a command to its end. A busy machine may keep a daemon from answering for seconds: what was not decided is asked again. */
  async decided(...args: string[]): Promise<Output> {
    const end = Date.now() + PATIENCE_MS;
    for (;;) {
      const result = await this.#m.run(this.args(...args), PATIENCE_MS);
      if (!isUndecided(result) || Date.now() > end) return result;
    }
  }

  /** An owner that has the lock; `waits`: one that asked for it already. */
  async holds(name: string, more: readonly string[] = [], waits: GuestProcess | null = null): Promise<GuestProcess> {
    let p = waits ?? this.lock(name, ...more);
    const end = Date.now() + PATIENCE_MS;
    for (;;) {
      await p.until(() => p.out.includes(`granted ${name} `), PATIENCE_MS);
      if (!p.isOver || !isUndecided(await p.result()) || Date.now() > end) break;
      p.close();
      p = this.lock(name, ...more);
    }
    await p.expect(new RegExp(`granted ${name} `), 1);
    return p;
  }

  async status(): Promise<{ isMember: boolean; leaseLeftMs: number; bridge: { state: string; why: string; held: number } }> {
    const { out } = await this.#m.run(this.args('--json', 'status'));
    return out === '' ? { isMember: false, leaseLeftMs: 0, bridge: { state: '', why: '', held: 0 } } : JSON.parse(out);
  }

  async until(what: string, isTrue: (s: Awaited<ReturnType<Node['status']>>) => boolean): Promise<void> {
    const end = Date.now() + PATIENCE_MS;
    let last: unknown = null;
    while (Date.now() < end) {
      const status = await this.status();
      if (isTrue(status)) return;
      last = status;
    }
    throw new Error(
      `${this.name}: not ${what}: ${JSON.stringify(last)}\n${this.process?.out.slice(-3000)}${this.process?.err.slice(-2000)}`,
    );
  }

  async up(): Promise<void> {
    await this.until('up', (s) => s.isMember && s.leaseLeftMs > 0 && s.bridge.state === 'up');
  }
}

function isUndecided({ code, err }: Output): boolean {
  return code === 69 && /TSDLM_(UNAVAILABLE|DAEMON_UNREACHABLE)/.test(err);
}

async function release(m: Machine, p: GuestProcess): Promise<void> {
  await m.sh(`kill -INT ${p.pid}`);
  await p.result(PATIENCE_MS);
  p.close();
}

/** Closes what a holder holds, and takes the name off this mount so that no level stays. */
async function letGo(m: Machine, h: GuestProcess, path: string): Promise<void> {
  h.write('close\n');
  await h.expect(/closed/);
  h.close();
  await m.sh(`rm ${path}`);
}

/** Process numbers of bridge helpers with this in their arguments. */
async function helpers(m: Machine, what: string): Promise<string[]> {
  const { out } = await m.run(['sh', '-c', `ps -o pid,args | grep 'bridge/helper[.]js ${what}'`]);
  return [...out.matchAll(/^ *(\d+) /gm)].map((match) => match[1] ?? '');
}

/** Ignores what asks it to end; leaves the time of its last turn (CLOCK_MONOTONIC, seconds) in a file, whole at any moment. */
const STUBBORN = `
import os, signal, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
print("running", flush=True)
while True:
    with open(sys.argv[1] + ".new", "w") as f:
        f.write(repr(time.monotonic()))
    os.rename(sys.argv[1] + ".new", sys.argv[1])
    time.sleep(0.01)
`;

/** Seconds against the deadline, in words. */
function ago(time: number, deadline: number): string {
  const ms = Math.round((time - deadline) * 1000);
  return ms < 0 ? `${-ms} ms before the deadline` : `${ms} ms after it`;
}

export const bridgeSuite: Suite = {
  name: 'bridge',
  limitMs: 2_400_000,
  run: async (m, checkAlone, report) => {
    // What a case that failed still holds would fail those behind it.
    const check: Check = (name, run) =>
      checkAlone(name, async () => {
        try {
          await run();
        } catch (error) {
          m.closeAllBut([a.process, b.process]);
          await m.run(['sh', '-c', 'rm -f /dlm/web/*'], 30_000);
          throw error;
        }
      });
    await m.sh(`cat >/root/tsdlm.conf <<'END'\n${CLUSTER}END\nchmod 600 /root/tsdlm.conf; mkdir -p /dlm/web /run/a /run/b`);
    const a = new Node(m, 'a');
    const b = new Node(m, 'b');
    a.start();
    b.start();
    await check('two nodes, each with its own private mount', async () => {
      await a.up();
      await b.up();
      const mounts = await m.sh('cat /proc/mounts');
      for (const name of ['a', 'b']) ok(mounts.includes(`/var/lib/tsdlm-${name}/bridge-dlm ocfs2_dlmfs`), mounts);
      match((await m.run(a.args('status'))).out, /^bridge +up, 0 held in the kernel$/m);
    });
    if ((await a.status()).bridge.state !== 'up' || (await b.status()).bridge.state !== 'up') return;
    await check('rule 4: who holds in tsdlm holds in the kernel, and nothing is kept afterwards', async () => {
      const p = await a.holds('r');
      equal(await tryOpen(m, '/dlm/web/r', 'pr'), 'failed ETXTBSY');
      equal((await b.decided('lock', 'r', '--domain', 'web', '--try', '--', 'true')).code, 75);
      await release(m, p);
      equal(await tryOpen(m, '/dlm/web/r', 'ex'), 'held');
      await m.sh('rm /dlm/web/r');
    });
    await check('who holds in the kernel keeps both nodes of tsdlm out', async () => {
      const h = holder(m, '/dlm/web/k', 'ex');
      await h.expect(/held/);
      for (const node of [a, b]) {
        const tried = await node.decided('lock', 'k', '--domain', 'web', '--try', '--', 'true');
        equal(tried.code, 75, tried.err);
      }
      const timed = await a.decided('lock', 'k', '--domain', 'web', '--wait', '500ms', '--', 'true');
      equal(timed.code, 75, timed.err);
      match(timed.err, /TSDLM_TIMEOUT/);
      const w = b.lock('k');
      const readable = await h.until(() => /done/.test(h.out), 500);
      equal(readable, false);
      ok(!w.out.includes('granted'));
      await letGo(m, h, '/dlm/web/k');
      await release(m, await b.holds('k', [], w));
    });
    await check('a kernel user that waits is a blocking notice, and gets it', async () => {
      const p = await a.holds('w');
      const h = holder(m, '/dlm/web/w', 'ex');
      await p.expect(/wanted by another/);
      await release(m, p);
      await h.expect(/held/, PATIENCE_MS);
      const n = b.lock('w');
      await letGo(m, h, '/dlm/web/w');
      await release(m, await b.holds('w', [], n));
    });
    await check('readers of both kinds share', async () => {
      const p = await a.holds('s', ['--pr']);
      match(p.out, /granted s PR/);
      const q = await b.holds('s', ['--pr']);
      match(q.out, /granted s PR/);
      equal(await tryOpen(m, '/dlm/web/s', 'pr'), 'held');
      equal(await tryOpen(m, '/dlm/web/s', 'ex'), 'failed ETXTBSY');
      await m.sh('rm /dlm/web/s');
      await release(m, p);
      await release(m, q);
    });
    await check("rule 5: the value block is the kernel's", async () => {
      equal((await a.decided('lvb', 'set', 'v', 'from-tsdlm', '--domain', 'web')).code, 0);
      const h = holder(m, '/dlm/web/v', 'ex');
      await h.expect(/held/);
      h.write('read\n');
      equal((await h.expect(/value (.*)/))[1], 'from-tsdlm');
      h.write('write from-kernel\n');
      await h.expect(/done write/);
      h.write('close\n');
      await h.expect(/closed/);
      h.close();
      equal((await b.decided('lvb', 'get', 'v', '--domain', 'web')).out, 'from-kernel\n');
      await m.sh('rm /dlm/web/v');
    });
    await check('/dlm vanishes: nothing is granted there, and status says why; it comes back', async () => {
      await m.sh('rm -f /dlm/web/*; rmdir /dlm/web; umount /dlm');
      await a.until('down', (s) => s.bridge.state === 'down');
      match((await a.status()).bridge.why, /\/dlm is not the kernel's ocfs2_dlmfs: nothing is mounted there/);
      const r = await m.run(a.args('lock', 'x', '--domain', 'web', '--', 'true'));
      equal(r.code, 69);
      match(r.err, /TSDLM_BRIDGE_DOWN/);
      equal((await a.decided('lock', 'x', '--', 'true')).code, 0, 'other domains go on');
      await m.sh('mount -t ocfs2_dlmfs none /dlm; mkdir /dlm/web');
      await a.up();
      equal((await a.decided('lock', 'x', '--domain', 'web', '--', 'true')).code, 0);
    });
    await check('L3: a clean restart: the owner keeps its lock, in the kernel too, and the next daemon has it', async () => {
      await a.up();
      const p = await a.holds('u');
      const began = Number(await m.sh("cut -d' ' -f1 /proc/uptime"));
      equal((await m.run(a.args('restart'), PATIENCE_MS)).code, 0);
      equal((await a.process?.result(PATIENCE_MS))?.code, 75);
      equal(await tryOpen(m, '/dlm/web/u', 'pr'), 'failed ETXTBSY', 'with no daemon there');
      a.process?.close();
      a.start();
      const end = Date.now() + PATIENCE_MS;
      // The kernel's user asks all the time; it would get the lock if it were free for a moment.
      while (!/"name":"u"/.test((await m.run(a.args('--json', 'ls', '--domain', 'web'))).out)) {
        equal(await tryOpen(m, '/dlm/web/u', 'pr'), 'failed ETXTBSY');
        ok(!p.out.includes('lost') && Date.now() < end, p.out + p.err + (a.process?.out ?? ''));
      }
      await a.up();
      const back = Number(await m.sh("cut -d' ' -f1 /proc/uptime"));
      report(
        `     the next daemon has the lock ${Math.round(back - began)} s after the restart was asked for; the owner was told 180 s`,
      );
      ok(!p.out.includes('lost'), p.out);
      equal(await tryOpen(m, '/dlm/web/u', 'pr'), 'failed ETXTBSY');
      await release(m, p);
      match(p.out, /released u/);
      equal(await tryOpen(m, '/dlm/web/u', 'ex'), 'held');
      await m.sh('rm /dlm/web/u');
    });
    await check(
      'rule 5: tsdlmd is killed: the kernel lock stays until the deadline its owner was told, and goes then',
      async () => {
        await a.up();
        // Its command cannot be asked to end, so it lives as long as any can: until the wrapper's SIGKILL.
        const p = a.lock('d', '--', 'python3', '-c', STUBBORN, '/tmp/alive');
        await p.expect(/running/, PATIENCE_MS);
        await m.sh(`kill -KILL ${a.process?.pid}`);
        equal(await tryOpen(m, '/dlm/web/d', 'ex'), 'failed ETXTBSY');
        // Waits in the kernel until the helper lets go.
        const h = holder(m, '/dlm/web/d', 'ex');
        const held = Number((await h.expect(/held \d+ at ([\d.]+)/, PATIENCE_MS))[1]);
        const lastAlive = Number(await m.sh('cat /tmp/alive'));
        await letGo(m, h, '/dlm/web/d');
        const letGoAt = /let-go (\d+) names at ([\d.]+), deadline ([\d.]+)/.exec(
          await m.sh('cat /var/lib/tsdlm-a/bridge.sock.log'),
        );
        ok(letGoAt !== null, 'the helper says when it let go');
        const [deadline, gone] = [Number(letGoAt[3]) / 1000, Number(letGoAt[2]) / 1000];
        report(
          `     on one clock: the command's last sign of life ${ago(lastAlive, deadline)}, the helper lets go ${ago(gone, deadline)}, the kernel's user is granted ${ago(held, deadline)}`,
        );
        ok(lastAlive < deadline, 'the command ended before the deadline');
        ok(deadline <= gone && gone <= held, 'the kernel lock was kept to the deadline');
        // SIGKILL comes from the wrapper alone.
        const { code } = await p.result(PATIENCE_MS);
        equal(code, 76, p.err);
        match(p.err, /SIGKILL to the command/);
        p.close();
      },
    );
    await check('a daemon that comes back re-attaches or starts anew, and locks work', async () => {
      a.process?.close();
      a.start();
      await a.up();
      equal((await a.decided('lock', 'd', '--domain', 'web', '--', 'true')).code, 0);
    });
    await check('rule 5: the helper is killed: owners are told, a new one sweeps what stayed cached', async () => {
      const p = await a.holds('h');
      await m.sh(`kill -KILL ${(await helpers(m, '/var/lib/tsdlm-a')).join(' ')}`);
      await p.expect(/lost h/, PATIENCE_MS);
      equal((await p.result()).code, 76);
      await a.up();
      equal((await m.sh('ls /var/lib/tsdlm-a/bridge-dlm/web')).trim(), '');
      equal(await tryOpen(m, '/dlm/web/h', 'ex'), 'held');
      await m.sh('rm /dlm/web/h');
    });
    await check(
      'the helper is killed while a call of it waits in the kernel: owners are told, and it goes on after that call',
      async () => {
        const h = holder(m, '/dlm/web/stuck', 'ex');
        await h.expect(/held/);
        const waits = a.lock('stuck');
        const p = await a.holds('t');
        const [helper = ''] = await helpers(m, '/var/lib/tsdlm-a');
        // One of its threads is in the kernel, where no signal reaches it: so it keeps its files, and its socket.
        while (!/ D /.test(await m.sh(`cat /proc/${helper}/task/*/stat`)));
        await m.sh(`kill -KILL ${helper}`);
        await p.expect(/lost t/, PATIENCE_MS);
        equal((await p.result()).code, 76);
        equal(await tryOpen(m, '/dlm/web/t', 'pr'), 'failed ETXTBSY', 'what it held it still holds');
        match((await a.status()).bridge.why, /does not answer/);
        equal((await waits.result(PATIENCE_MS)).code, 69, waits.err);
        await letGo(m, h, '/dlm/web/stuck');
        await a.up();
        equal(await tryOpen(m, '/dlm/web/t', 'ex'), 'held');
        await m.sh('rm /dlm/web/t');
      },
    );
    await check('after a clean stop nothing is left running', async () => {
      for (const node of [a, b]) await m.sh(`kill -TERM ${node.process?.pid}`);
      for (const node of [a, b]) await node.process?.result(PATIENCE_MS);
      const end = Date.now() + PATIENCE_MS;
      while ((await helpers(m, '/var/lib')).length > 0) ok(Date.now() < end, 'the helpers end');
    });
  },
};
