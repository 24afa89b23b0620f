/**
 * The method `script`: a program of the operator's, or one of the usual fence agents.
 *
 * The problem: such a program hangs, floods its output, leaves children behind, fails in every way; and only its exit code
 * says whether the victim is really off.
 * The idea: it runs in a process group of its own, without a shell, under a wall-clock limit that kills the whole group. It reads
 * `key=value` lines on standard input (the fence agent convention) and finds the same in TSDLM_FENCE_* variables. Exit 0 means
 * "I have verified that the node can no longer act"; everything else, a limit passed included, means "not known to be off". Its
 * output is cut and cleaned before anybody sees it. What leaves the group by setsid is not covered.
 */
import { spawn } from 'node:child_process';
import { nowMs } from '../node/facts.js';
import type { FenceMethod, FenceOutcome, FenceTarget, ScriptFenceConfig } from './types.js';

/** Kept of the output: this many characters of the beginning and of the end. */
const OUTPUT_EDGE_CHARS = 1000;
/** How long the pipes may stay open after the program itself has ended. */
const DRAIN_MS = 200;
const SECRET_OPTION = /pass|secret|key|token|community/i;

/** Keeps both ends of a stream of any length. */
class CutText {
  #head = '';
  #tail = '';
  #dropped = 0;

  add(chunk: string): void {
    let rest = chunk;
    if (this.#head.length < OUTPUT_EDGE_CHARS) {
      const room = OUTPUT_EDGE_CHARS - this.#head.length;
      this.#head += rest.slice(0, room);
      rest = rest.slice(room);
    }
    if (rest === '') return;
    const tail = this.#tail + rest;
    this.#tail = tail.slice(-OUTPUT_EDGE_CHARS);
    this.#dropped += tail.length - this.#tail.length;
  }

  toString(): string {
    return this.#dropped > 0 ? `${this.#head} ... ${this.#dropped} characters ... ${this.#tail}` : this.#head + this.#tail;
  }
}

/** One printable line without the secrets. */
function cleaned(text: string, secrets: readonly string[]): string {
  let line = text;
  for (const secret of secrets) line = line.replaceAll(secret, '[secret]');
  return line
    .replace(/[^\x20-\x7e\n\u00a0-\uffff]/g, '?')
    .trim()
    .replace(/\s*\n\s*/g, '; ');
}

function inputLines(config: ScriptFenceConfig, target: FenceTarget): string {
  const pairs: Record<string, string> = { action: 'off', plug: target.nodeName, ...config.options, nodename: target.nodeName };
  return Object.entries(pairs)
    .map(([key, value]) => `${key}=${value}\n`)
    .join('');
}

function environment(target: FenceTarget): NodeJS.ProcessEnv {
  return {
    ...process.env,
    LC_ALL: 'C',
    TSDLM_FENCE_ACTION: 'off',
    TSDLM_FENCE_NODE: target.nodeName,
    TSDLM_FENCE_NODEID: String(target.node),
    TSDLM_FENCE_REASON: target.reason.replace(/[\0\n\r]/g, ' ').slice(0, 500),
    TSDLM_FENCE_ATTEMPT: String(target.attempt),
  };
}

function killGroup(pid: number | undefined): void {
  if (pid === undefined) return;
  try {
    process.kill(-pid, 'SIGKILL');
  } catch {
    // Nobody is left in it.
  }
}

export class ScriptMethod implements FenceMethod {
  readonly name: string;
  readonly endsMachine = true;
  readonly #config: ScriptFenceConfig;
  readonly #secrets: string[];

  constructor(config: ScriptFenceConfig) {
    this.name = config.name;
    this.#config = config;
    this.#secrets = Object.entries(config.options)
      .filter(([key, value]) => SECRET_OPTION.test(key) && value.length > 0)
      .map(([, value]) => value);
  }

  fence(target: FenceTarget, signal: AbortSignal): Promise<FenceOutcome> {
    const { command, timeoutMs } = this.#config;
    const program = command[0] ?? '';
    if (signal.aborted) return Promise.resolve({ ok: false, detail: `${program} was not started: the daemon stops` });
    return new Promise((resolve) => {
      const started = nowMs();
      const output = new CutText();
      let given = '';
      const child = spawn(program, command.slice(1), {
        detached: true,
        stdio: ['pipe', 'pipe', 'pipe'],
        env: environment(target),
        cwd: '/',
      });
      const giveUp = (why: string): void => {
        if (given === '') given = why;
        killGroup(child.pid);
      };
      const timer = setTimeout(() => giveUp(`did not end within ${timeoutMs} ms and was killed`), timeoutMs);
      const onAbort = (): void => giveUp('was killed: the daemon stops');
      signal.addEventListener('abort', onAbort, { once: true });

      let finished = false;
      const finish = (ok: boolean, how: string): void => {
        if (finished) return;
        finished = true;
        clearTimeout(timer);
        signal.removeEventListener('abort', onAbort);
        child.stdout.destroy();
        child.stderr.destroy();
        child.stdin.destroy();
        const said = cleaned(output.toString(), this.#secrets);
        const took = Math.round(nowMs() - started);
        resolve({ ok, detail: `${program} ${how} after ${took} ms${said === '' ? '' : `, saying: ${said}`}` });
      };

      for (const stream of [child.stdout, child.stderr]) {
        stream.setEncoding('utf8');
        stream.on('data', (chunk: string) => output.add(chunk));
        stream.on('error', () => undefined);
      }
      // A program that reads nothing closes the pipe: not our matter.
      child.stdin.on('error', () => undefined);
      child.stdin.end(inputLines(this.#config, target));

      child.once('error', (error) => finish(false, `could not be started (${error.message})`));
      child.once('exit', (code, by) => {
        // What it left running in its group ends with it, and lets go of the pipes.
        killGroup(child.pid);
        const end = (): void => {
          if (given !== '') finish(false, given);
          else if (code === 0) finish(true, 'verified (exit code 0)');
          else finish(false, code === null ? `was ended by ${by}` : `failed with exit code ${code}`);
        };
        child.once('close', end);
        setTimeout(end, DRAIN_MS);
      });
    });
  }
}
