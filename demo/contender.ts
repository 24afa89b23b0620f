/**
 * The classic loop: try to become the master of the multiverse, say so while it lasts, start over.
 *
 * It runs `tsdlm lock master --ex -- sh -c ...` again and again; the command prints a line every 100 ms with the token it
 * was given, so whoever reads along sees exactly who is master when.
 */
import type { ChildProcess } from 'node:child_process';
import type { TestCluster } from '../test/fixtures/cluster.js';
import { elapsedMs } from './timeline.js';

/** One reign: from the first line of a command to its last. */
export interface Reign {
  node: string;
  token: bigint;
  from: number;
  /** Last time it said that it is master. */
  until: number;
}

export interface ContenderEvents {
  began(reign: Reign): void;
  ended(reign: Reign, code: number | null): void;
}

export class Contender {
  readonly #cluster: TestCluster;
  readonly #id: number;
  readonly #events: ContenderEvents;
  #child: ChildProcess | null = null;
  #isOver = false;
  reign: Reign | null = null;

  constructor(cluster: TestCluster, id: number, events: ContenderEvents) {
    this.#cluster = cluster;
    this.#id = id;
    this.#events = events;
  }

  /** `seconds`: how long one reign lasts; 0 = until it is ended. */
  run(seconds: number): void {
    this.#isOver = false;
    const loop = seconds === 0 ? 'while :' : `for i in $(seq ${seconds * 10})`;
    const script = `${loop}; do echo "$TSDLM_TOKEN i am master of the multiverse"; sleep 0.1; done`;
    const child = this.#cluster.spawn(
      this.#id,
      ['lock', 'master', '--ex', '--why', `contender ${this.#id}`, '--', 'sh', '-c', script],
      { detached: true },
    );
    this.#child = child;
    let rest = '';
    child.stdout?.on('data', (chunk: Buffer) => {
      const lines = (rest + chunk.toString()).split('\n');
      rest = lines.pop() ?? '';
      for (const line of lines) this.#line(line);
    });
    child.once('close', (code) => {
      if (this.#child === child) this.#child = null;
      if (this.reign) this.#events.ended(this.reign, code);
      this.reign = null;
      if (!this.#isOver) this.run(seconds);
    });
  }

  #line(line: string): void {
    const token = BigInt(/^\d+/.exec(line)?.[0] ?? 0);
    const now = elapsedMs();
    if (this.reign) {
      this.reign.until = now;
      return;
    }
    this.reign = { node: `n${this.#id}`, token, from: now, until: now };
    this.#events.began(this.reign);
  }

  /** No further reign after the present one. */
  stop(): void {
    this.#isOver = true;
  }

  /** Ends the present wrapper as an operator would: SIGTERM. */
  interrupt(): void {
    this.stop();
    this.#child?.kill('SIGTERM');
  }

  /** SIGKILL to the wrapper and to the command it runs: everything of this contender is gone at once. */
  async kill(): Promise<void> {
    this.stop();
    const child = this.#child;
    if (!child?.pid) return;
    const { execFileSync } = await import('node:child_process');
    let commands: number[] = [];
    try {
      commands = execFileSync('ps', ['-o', 'pid=', '--ppid', String(child.pid)], { encoding: 'utf8' })
        .trim()
        .split(/\s+/)
        .map(Number);
    } catch {
      // No command runs.
    }
    child.kill('SIGKILL');
    for (const pid of commands) {
      try {
        process.kill(-pid, 'SIGKILL');
      } catch {
        // Gone already.
      }
    }
  }
}
