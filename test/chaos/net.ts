/**
 * A network of its own for each run: every machine a network namespace, joined by a bridge in one more, and ways to cut it.
 *
 * The problem: a partition has to be silent, as a broken switch is: packets vanish, nobody is told. The idea: a permanent
 * neighbour entry that points to an address nobody has makes what A sends to B vanish in the bridge, and leaves the way
 * back alone; a pulled cable is the bridge's end of the pair taken down. Nothing but `ip` is needed, and nothing outside of
 * the namespaces is touched.
 */
import { execFile, execFileSync } from 'node:child_process';
import { promisify } from 'node:util';

const run = promisify(execFile);
/** An address of no machine. */
const NOWHERE = '02:00:00:00:00:fe';
const PREFIX = 'tsdlm-chaos';

const ip = async (...args: string[]): Promise<string> => (await run('ip', args)).stdout;

/** Why there can be no network here, or null. */
export function whyNoNetwork(): string | null {
  if (process.getuid?.() !== 0) return 'network namespaces need root';
  try {
    execFileSync('flock', ['--version'], { stdio: 'ignore' });
  } catch {
    return 'there is no `flock` here (npm run setup:chaos installs it)';
  }
  const probe = `${PREFIX}-${process.pid}-probe`;
  try {
    execFileSync('ip', ['netns', 'add', probe], { stdio: 'pipe' });
  } catch (error) {
    const { code, stderr } = error as { code?: unknown; stderr?: Buffer };
    if (code === 'ENOENT') return 'there is no `ip` here (npm run setup:chaos installs it)';
    return `network namespaces cannot be made: ${String(stderr).trim()}`;
  }
  try {
    execFileSync('ip', ['-n', probe, 'link', 'add', 'name', 'br0', 'type', 'bridge'], { stdio: 'pipe' });
    return null;
  } catch (error) {
    return `bridges cannot be made: ${String((error as { stderr?: Buffer }).stderr).trim()}`;
  } finally {
    execFileSync('ip', ['netns', 'del', probe], { stdio: 'ignore' });
  }
}

/** Namespaces that runs which died left behind, with what still runs in them. Only those of processes that are gone. */
export function sweepLeftovers(): string[] {
  const swept: string[] = [];
  const names = execFileSync('ip', ['netns', 'list'], { encoding: 'utf8' })
    .split('\n')
    .map((line) => line.split(' ', 1)[0] ?? '');
  for (const name of names) {
    const pid = Number(new RegExp(`^${PREFIX}-(\\d+)-`).exec(name)?.[1]);
    if (!(pid > 0) || isAlive(pid)) continue;
    endAllIn(name);
    execFileSync('ip', ['netns', 'del', name], { stdio: 'ignore' });
    swept.push(name);
  }
  return swept;
}

function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch {
    return false;
  }
}

function pidsIn(namespace: string): number[] {
  const text = execFileSync('ip', ['netns', 'pids', namespace], { encoding: 'utf8', stdio: ['ignore', 'pipe', 'ignore'] });
  return text
    .split('\n')
    .map(Number)
    .filter((pid) => pid > 0);
}

function endAllIn(namespace: string): void {
  for (let tries = 0; tries < 50; tries++) {
    const pids = pidsIn(namespace);
    if (pids.length === 0) return;
    for (const pid of pids) {
      try {
        process.kill(pid, 'SIGKILL');
      } catch {
        // It was faster.
      }
    }
  }
}

export class Net {
  readonly size: number;
  readonly #id = `${PREFIX}-${process.pid}`;
  /** Who cuts what, as often as: faults overlap. */
  readonly #cuts = new Map<string, number>();

  private constructor(size: number) {
    this.size = size;
  }

  static async create(size: number): Promise<Net> {
    const net = new Net(size);
    await ip('netns', 'add', net.#switch);
    await ip('-n', net.#switch, 'link', 'add', 'name', 'br0', 'type', 'bridge');
    await ip('-n', net.#switch, 'link', 'set', 'br0', 'up');
    for (let id = 1; id <= size; id++) {
      const ns = net.namespace(id);
      await ip('netns', 'add', ns);
      await ip('-n', net.#switch, 'link', 'add', 'name', `v${id}`, 'type', 'veth', 'peer', 'name', 'eth0', 'netns', ns);
      await ip('-n', net.#switch, 'link', 'set', `v${id}`, 'master', 'br0', 'up');
      await ip('-n', ns, 'addr', 'add', `${net.address(id)}/24`, 'dev', 'eth0');
      await ip('-n', ns, 'link', 'set', 'eth0', 'up');
      await ip('-n', ns, 'link', 'set', 'lo', 'up');
    }
    return net;
  }

  get #switch(): string {
    return `${this.#id}-sw`;
  }

  namespace(id: number): string {
    return `${this.#id}-n${id}`;
  }

  address(id: number): string {
    return `10.66.0.${id}`;
  }

  /** What `from` sends to `to` vanishes until the function returned is called. */
  async cut(from: number, to: number): Promise<() => Promise<void>> {
    const neighbour = [this.address(to), 'dev', 'eth0'];
    return this.#counted(
      `${from}>${to}`,
      () => ip('-n', this.namespace(from), 'neigh', 'replace', ...neighbour, 'lladdr', NOWHERE, 'nud', 'permanent'),
      // A cable that was pulled meanwhile may have taken the entry along.
      () => ip('-n', this.namespace(from), 'neigh', 'del', ...neighbour).catch(() => ''),
    );
  }

  /** The machine's own kernel refuses what goes from `from` to `to`: an error at once instead of silence. */
  async refuse(from: number, to: number): Promise<() => Promise<void>> {
    const route = ['route', 'replace', 'unreachable', `${this.address(to)}/32`];
    return this.#counted(
      `${from}!${to}`,
      () => ip('-n', this.namespace(from), ...route),
      () => ip('-n', this.namespace(from), 'route', 'del', 'unreachable', `${this.address(to)}/32`),
    );
  }

  /** The cable of a machine is pulled. */
  async unplug(id: number): Promise<() => Promise<void>> {
    return this.#counted(
      `cable ${id}`,
      () => ip('-n', this.#switch, 'link', 'set', `v${id}`, 'down'),
      () => ip('-n', this.#switch, 'link', 'set', `v${id}`, 'up'),
    );
  }

  async #counted(key: string, on: () => Promise<unknown>, off: () => Promise<unknown>): Promise<() => Promise<void>> {
    const before = this.#cuts.get(key) ?? 0;
    this.#cuts.set(key, before + 1);
    if (before === 0) await on();
    return async () => {
      const left = (this.#cuts.get(key) ?? 1) - 1;
      this.#cuts.set(key, left);
      if (left === 0) await off();
    };
  }

  pids(id: number): number[] {
    return pidsIn(this.namespace(id));
  }

  /** Everything that runs in it is killed and the namespaces go. Synchronous: also when this process ends. */
  destroy(): void {
    const all = [...Array.from({ length: this.size }, (_, i) => this.namespace(i + 1)), this.#switch];
    for (const name of all) {
      try {
        endAllIn(name);
        execFileSync('ip', ['netns', 'del', name], { stdio: 'ignore' });
      } catch {
        // It was never made.
      }
    }
  }

  /** Namespaces of this run that are still there. */
  left(): string[] {
    const text = execFileSync('ip', ['netns', 'list'], { encoding: 'utf8' });
    return text.split('\n').filter((line) => line.startsWith(`${this.#id}-`));
  }
}
