/**
 * One run of somebody else's program: a fence script, a fence agent, ipmitool.
 *
 * The problem: such a program hangs, ignores SIGTERM, floods its output, leaves children behind, and prints the password it was
 * given. The idea: it runs without a shell in a process group of its own, under a wall-clock limit after which the whole group is
 * killed; both ends of its output are kept and the middle is dropped; what is shown of it is one printable line without secrets.
 * What its exit code and its text mean is the method's matter. What leaves the group by setsid is not covered.
 */
import { spawn } from 'node:child_process';

/** Kept of each output stream: this many characters of the beginning and of the end. */
const OUTPUT_EDGE_CHARS = 1000;
/** How long the pipes may stay open after the program itself has ended. */
const DRAIN_MS = 200;
const SECRET_OPTION = /pass|secret|key|token|community/i;

export interface ProgramRun {
  program: string;
  args: readonly string[];
  /** The whole environment. */
  env: NodeJS.ProcessEnv;
  /** For its standard input. */
  input: string;
  timeoutMs: number;
  /** The daemon stops, or the run is withdrawn: the group is killed. */
  signal: AbortSignal;
  /** Texts that must not be shown. */
  secrets: readonly string[];
  /** Kept of the beginning of standard output instead of 1000 characters, for a program whose output is data. */
  headChars?: number;
}

export interface ProgramEnd {
  /** Exit code; null = a signal, a limit, or it did not start. */
  code: number | null;
  /** It was killed for its time limit, or because it was given up: nothing is known about what it did. */
  wasKilled: boolean;
  /** How it ended, to follow the program's name: "failed with exit code 1 after 12 ms". */
  how: string;
  /** Standard output, cut, not cleaned: to be parsed, never to be shown. */
  stdout: string;
  /** Both outputs in one printable line without secrets; '' when it said nothing. */
  said: string;
  ms: number;
}

/** Keeps both ends of a stream of any length. */
class CutText {
  readonly #edge: number;
  #head = '';
  #tail = '';
  #dropped = 0;

  constructor(edge = OUTPUT_EDGE_CHARS) {
    this.#edge = edge;
  }

  add(chunk: string): void {
    let rest = chunk;
    if (this.#head.length < this.#edge) {
      const room = this.#edge - this.#head.length;
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
export function cleaned(text: string, secrets: readonly string[]): string {
  let line = text;
  for (const secret of secrets) if (secret !== '') line = line.replaceAll(secret, '[secret]');
  return line
    .replace(/[^\x20-\x7e\n\u00a0-\uffff]/g, '?')
    .trim()
    .replace(/\s*\n\s*/g, '; ');
}

/** The values of options whose names say that they are secret. */
export function secretsOf(options: Readonly<Record<string, string>>): string[] {
  return Object.entries(options)
    .filter(([key, value]) => SECRET_OPTION.test(key) && value.length > 0)
    .map(([, value]) => value);
}

/** `key=value` lines, the fence agents' convention. */
export function inputLines(pairs: Readonly<Record<string, string>>): string {
  return Object.entries(pairs)
    .map(([key, value]) => `${key}=${value}\n`)
    .join('');
}

function killGroup(pid: number | undefined): void {
  if (pid === undefined) return;
  try {
    process.kill(-pid, 'SIGKILL');
  } catch {
    // Nobody is left in it.
  }
}

/** Runs it to its end, or to its limit. Never rejects. */
export function runProgram(run: ProgramRun): Promise<ProgramEnd> {
  const { program, timeoutMs, signal } = run;
  if (signal.aborted || program === '') {
    const how = program === '' ? 'no program is configured' : 'was not started: the daemon stops, or it is not needed any more';
    return Promise.resolve({ code: null, wasKilled: true, how, stdout: '', said: '', ms: 0 });
  }
  return new Promise((resolve) => {
    const started = performance.now();
    const all = new CutText();
    const out = new CutText(run.headChars);
    let given = '';
    const child = spawn(program, run.args, { detached: true, stdio: ['pipe', 'pipe', 'pipe'], env: run.env, cwd: '/' });
    const giveUp = (why: string): void => {
      if (given === '') given = why;
      killGroup(child.pid);
    };
    const timer = setTimeout(() => giveUp(`did not end within ${timeoutMs} ms and was killed`), timeoutMs);
    const onAbort = (): void => giveUp('was killed: the daemon stops, or it is not needed any more');
    signal.addEventListener('abort', onAbort, { once: true });

    let finished = false;
    const finish = (code: number | null, how: string): void => {
      if (finished) return;
      finished = true;
      clearTimeout(timer);
      signal.removeEventListener('abort', onAbort);
      child.stdout.destroy();
      child.stderr.destroy();
      child.stdin.destroy();
      const ms = Math.round(performance.now() - started);
      resolve({
        code,
        wasKilled: given !== '',
        how: `${how} after ${ms} ms`,
        stdout: out.toString(),
        said: cleaned(all.toString(), run.secrets),
        ms,
      });
    };

    for (const stream of [child.stdout, child.stderr]) {
      stream.setEncoding('utf8');
      stream.on('data', (chunk: string) => {
        all.add(chunk);
        if (stream === child.stdout) out.add(chunk);
      });
      stream.on('error', () => undefined);
    }
    // A program that reads nothing closes the pipe: not our matter.
    child.stdin.on('error', () => undefined);
    child.stdin.end(run.input);

    child.once('error', (error) => finish(null, `could not be started (${error.message})`));
    child.once('exit', (code, by) => {
      // What it left running in its group ends with it, and lets go of the pipes.
      killGroup(child.pid);
      const end = (): void => {
        if (given !== '') finish(null, given);
        else finish(code, code === null ? `was ended by ${by}` : code === 0 ? 'ended' : `failed with exit code ${code}`);
      };
      child.once('close', end);
      setTimeout(end, DRAIN_MS);
    });
  });
}

/** What it said, as the end of a sentence. */
export function saying(end: Pick<ProgramEnd, 'said'>): string {
  return end.said === '' ? '' : `, saying: ${end.said}`;
}
