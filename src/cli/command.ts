/**
 * Runs a command under a lock and ends it before the lock is lost (rules 7 and 24).
 *
 * The problem: the command must be over before anybody else is granted, whatever happens to it, to this wrapper or to the
 * daemon. So it runs in a session of its own (its process group can be ended as a whole), it inherits the connection (the
 * daemon sees end of file only when the last of us is gone), and the daemon knows the group (it ends it when this wrapper
 * cannot). SIGTERM goes out at deadline-(G+K+P), SIGKILL at deadline-K.
 *
 * A command that moves parts of itself into other sessions (setsid, a daemon) takes them out of reach; the lock ends when
 * the command itself does.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { constants } from 'node:os';
import type { Connection } from '../client/connection.js';
import { type LockHandle, monotonicMs, type SuspendReason, TsdlmError } from '../client/index.js';
import { hasLivingMembers, isOver, processStat } from '../client/process-table.js';
import { KILL_MARGIN_MS } from '../membership/time-limits.js';
import { EXIT_LOST, EXIT_NOT_EXECUTABLE, EXIT_NOT_FOUND } from './exit-codes.js';

/**
 * Where the command finds the inherited connection. Scripts use the low numbers for themselves (`exec 3>file`), and shells
 * take 10 and up; the numbers in between stay closed.
 */
export const SESSION_FD = 63;
const FORWARDED = ['SIGINT', 'SIGTERM', 'SIGHUP', 'SIGQUIT', 'SIGUSR1', 'SIGUSR2', 'SIGWINCH'] as const;
/** How often a group that was told to end is looked at. */
const POLL_MS = 10;

export interface CommandOptions {
  command: string[];
  graceMs: number;
  connection: Connection;
  /** Signals are handled here from now on. */
  started: () => void;
  /** Says something on stderr. */
  note: (event: string, text: string) => void;
}

/** Runs the command; resolves with the exit code of `tsdlm`: the command's own, 128+signal, 126/127, or 76 when lost. */
export async function runCommand(handle: LockHandle, o: CommandOptions): Promise<number> {
  const [file = '', ...args] = o.command;
  const proof = randomBytes(16).toString('hex');
  const env = {
    ...process.env,
    TSDLM_SESSION: proof,
    TSDLM_TOKEN: handle.token.toString(),
    TSDLM_NAME: handle.name,
    TSDLM_DOMAIN: handle.domain,
    TSDLM_MODE: handle.mode,
  };
  if (!handle.valid())
    throw handle.lostError ?? new TsdlmError('TSDLM_LOST', `'${handle.name}' was lost before the command began`);
  const stdio: (number | 'inherit' | 'ignore')[] = ['inherit', 'inherit', 'inherit'];
  while (stdio.length < SESSION_FD) stdio.push('ignore');
  stdio.push(o.connection.fd);
  const forwarding = new Forwarding();
  o.started();
  try {
    const child = spawn(file, args, { detached: true, stdio, env });
    await new Promise<void>((resolve, reject) => {
      child.once('spawn', resolve);
      child.once('error', reject);
    });
    forwarding.to(child.pid ?? 0);
    return await new RunningCommand(child, handle, o, proof).result();
  } catch (error) {
    const { code, message, syscall } = error as NodeJS.ErrnoException;
    if (syscall?.startsWith('spawn') !== true) throw error;
    o.note('failed', `cannot run ${file}: ${code === 'ENOENT' ? 'no such command' : message}`);
    return code === 'ENOENT' ? EXIT_NOT_FOUND : EXIT_NOT_EXECUTABLE;
  } finally {
    forwarding.stop();
  }
}

class RunningCommand {
  #child: ChildProcess;
  #pgid: number;
  #handle: LockHandle;
  #o: CommandOptions;
  #isEnding = false;
  #wasSuspended = false;
  #killTimer: NodeJS.Timeout | null = null;
  #proof: string;

  constructor(child: ChildProcess, handle: LockHandle, options: CommandOptions, proof: string) {
    this.#child = child;
    this.#pgid = child.pid ?? 0;
    this.#handle = handle;
    this.#o = options;
    this.#proof = proof;
  }

  async result(): Promise<number> {
    const exited = new Promise<{ code: number | null; signal: NodeJS.Signals | null }>((resolve) => {
      this.#child.once('exit', (code, signal) => resolve({ code, signal }));
      if (this.#child.exitCode !== null || this.#child.signalCode !== null) {
        resolve({ code: this.#child.exitCode, signal: this.#child.signalCode });
      }
    });
    const onAbort = (): void => this.#end(String((this.#handle.signal.reason as Error).message));
    this.#handle.signal.addEventListener('abort', onAbort, { once: true });
    this.#handle.on('lost', this.#onLost);
    if (this.#handle.signal.aborted) onAbort();
    this.#handle.on('suspended', this.#onSuspended);
    this.#handle.on('resumed', this.#onResumed);
    this.#o.connection.group(this.#pgid, this.#o.graceMs, this.#proof).catch((error: unknown) => {
      // A short command may be over before the daemon has looked at it, and before we have heard of its end.
      const leader = processStat(this.#pgid);
      if (this.#isEnding || !this.#o.connection.isUp || leader === null || isOver(leader)) return;
      this.#o.note('unguarded', `the daemon cannot end the command should this process be killed: ${(error as Error).message}`);
    });
    try {
      const { code, signal } = await exited;
      // What lies unread in the connection is read before we judge: this process may have been stopped.
      await new Promise((resolve) => setImmediate(resolve));
      // What the command left behind in its group had no longer to live than the command itself.
      if (this.#isEnding) await this.#groupGone();
      // The daemon may have ended the command while this process was stopped.
      const isLate = monotonicMs() >= this.#handle.deadline - this.#handle.abortBefore;
      if (this.#isEnding || this.#handle.lostError !== null || isLate) return EXIT_LOST;
      return code ?? 128 + (signal === null ? 0 : constants.signals[signal]);
    } finally {
      if (this.#killTimer !== null) clearTimeout(this.#killTimer);
      this.#handle.signal.removeEventListener('abort', onAbort);
      this.#handle.off('lost', this.#onLost);
      this.#handle.off('suspended', this.#onSuspended);
      this.#handle.off('resumed', this.#onResumed);
      if (this.#o.connection.isUp) this.#o.connection.group(0, 0, '').catch(() => {});
    }
  }

  /** The command may go on: nobody is granted its lock before this machine was fenced (rule 20). */
  #onSuspended = (why: SuspendReason): void => {
    if (why === 'quorum')
      this.#o.note('suspended', 'this node has no quorum; the lock is kept, for nobody gets it before a fence');
    this.#wasSuspended ||= why === 'quorum';
  };

  #onResumed = (): void => {
    if (this.#wasSuspended) this.#o.note('resumed', 'this node has a quorum again');
    this.#wasSuspended = false;
  };

  #onLost = (error: TsdlmError): void => {
    if (!this.#isEnding) this.#o.note('lost', error.message);
    this.#isEnding = true;
    this.#signal('SIGKILL');
  };

  #end(why: string): void {
    if (this.#isEnding) return;
    this.#isEnding = true;
    const left = Math.round(this.#handle.deadline - monotonicMs());
    this.#o.note('ending', `${why}; SIGTERM to the command ${left} ms before the lock's deadline`);
    this.#signal('SIGTERM');
    // A stopped process acts on SIGTERM only when it is continued.
    this.#signal('SIGCONT');
    this.#armKill(monotonicMs() + this.#o.graceMs);
  }

  /** SIGKILL at the end of the grace, but never later than deadline-K. */
  #armKill(graceEnd: number): void {
    const at = Math.min(graceEnd, this.#handle.deadline - KILL_MARGIN_MS);
    this.#killTimer = setTimeout(
      () => {
        if (monotonicMs() < at) {
          this.#armKill(graceEnd);
          return;
        }
        if (this.#signal('SIGKILL')) this.#o.note('killed', 'SIGKILL to the command, whose grace is over');
      },
      Math.max(0, at - monotonicMs()),
    );
  }

  #signal(signal: NodeJS.Signals): boolean {
    return signalGroup(this.#pgid, signal);
  }

  /** Resolves when nothing of the group is left, or its lock's deadline has passed and it cannot be ended. */
  async #groupGone(): Promise<void> {
    while (hasLivingMembers(this.#pgid)) {
      if (monotonicMs() >= this.#handle.deadline + KILL_MARGIN_MS) {
        this.#o.note('survives', `the process group ${this.#pgid} could not be ended`);
        return;
      }
      await new Promise((resolve) => setTimeout(resolve, POLL_MS));
    }
  }
}

/**
 * The command has its own session, so what the terminal sends reaches only us: passed on. Ctrl-Z stops both; the lock is kept
 * meanwhile, and the daemon ends the command should the lease be lost. Begins before the command does, so that no signal
 * falls between.
 */
export class Forwarding {
  #pgid = 0;
  #early: NodeJS.Signals[] = [];
  #handlers = new Map<NodeJS.Signals, () => void>();

  constructor() {
    for (const signal of FORWARDED) this.#handlers.set(signal, () => this.#pass(signal));
    this.#handlers.set('SIGTSTP', () => {
      this.#pass('SIGSTOP');
      process.kill(process.pid, 'SIGSTOP');
    });
    this.#handlers.set('SIGCONT', () => this.#pass('SIGCONT'));
    for (const [signal, handler] of this.#handlers) process.on(signal, handler);
  }

  to(pgid: number): void {
    this.#pgid = pgid;
    for (const signal of this.#early) this.#pass(signal);
    this.#early = [];
  }

  stop(): void {
    for (const [signal, handler] of this.#handlers) process.off(signal, handler);
  }

  #pass(signal: NodeJS.Signals): void {
    if (this.#pgid === 0) this.#early.push(signal);
    else signalGroup(this.#pgid, signal);
  }
}

/** False when the group is gone. */
function signalGroup(pgid: number, signal: NodeJS.Signals): boolean {
  try {
    process.kill(-pgid, signal);
    return true;
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === 'EPERM';
  }
}
