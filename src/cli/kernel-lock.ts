/**
 * `tsdlm lock NAME --dlmfs`: the same in a mounted dlmfs, the kernel's or tsdlm's own, with no daemon asked.
 *
 * A lock there has no lease: the cluster that serves it ends the whole node when it must. So nothing is ever lost here, the
 * command simply inherits the open file, and the lock ends when the last copy of it is closed. At the end the name is
 * unlinked, so that the node does not keep the lock and other nodes' tries succeed. A wait that is given up cannot be ended
 * in the kernel: a helper process stays behind, takes what it is granted, and gives it back at once.
 */
import { constants } from 'node:os';
import { type ModeName, TsdlmError } from '../client/index.js';
import { Forwarding } from './command.js';
import type { Context } from './context.js';
import { type DlmfsLock, openDlmfsLock } from './dlmfs.js';
import { parseDuration } from './duration.js';
import { EXIT_CONFLICT, EXIT_LOST, EXIT_NOT_EXECUTABLE, EXIT_NOT_FOUND } from './exit-codes.js';
import { type Interruption, interruption, within } from './interruption.js';
import { plain } from './table.js';

export interface KernelLockFlags {
  dlmfs?: string | true;
  domain: string;
  try?: boolean;
  wait?: string;
  why?: string;
  grace?: string;
  nodeOwned?: boolean;
}

/** The unlink at the end waits while other processes of this node do. */
const RELEASE_MS = 5000;

interface Held extends DlmfsLock {
  name: string;
  domain: string;
  mode: ModeName;
}

export async function kernelLock(
  context: Context,
  name: string,
  mode: ModeName,
  command: string[],
  conflictCode: number,
  flags: KernelLockFlags,
): Promise<number> {
  for (const [flag, isGiven] of [
    ['--node-owned', flags.nodeOwned === true],
    ['--why', flags.why !== undefined],
    ['--grace', flags.grace !== undefined],
  ] as const) {
    if (isGiven) throw new TsdlmError('TSDLM_USAGE', `${flag} and --dlmfs exclude each other: a dlmfs knows nothing of the kind`);
  }
  const interrupted = interruption();
  let held: Held;
  try {
    const lock = await openDlmfsLock({
      dir: flags.dlmfs ?? true,
      domain: flags.domain,
      name,
      mode,
      isTry: flags.try === true,
      timeoutMs: flags.wait === undefined ? null : parseDuration(flags.wait, '--wait'),
      signal: interrupted.signal,
      inheritStdio: command.length > 0,
    });
    held = { ...lock, name, domain: flags.domain, mode };
  } catch (error) {
    if (interrupted.by !== null) return 128 + constants.signals[interrupted.by];
    const code = context.fail(error);
    return code === EXIT_CONFLICT ? conflictCode : code;
  }
  try {
    if (interrupted.by !== null) return 128 + constants.signals[interrupted.by];
    return command.length > 0 ? await run(context, held, command, interrupted) : await hold(context, held, interrupted);
  } finally {
    await within(held.helper.request({ op: 'close', h: held.h }), RELEASE_MS);
    held.helper.close();
    interrupted.stop();
  }
}

/** Holds until a signal comes. */
async function hold(context: Context, held: Held, interrupted: Interruption): Promise<number> {
  say(context, 'granted', held, `granted ${plain(held.name)} ${held.mode} in ${held.dir} at ${new Date().toISOString()}`);
  held.helper.watch(held.h, (isBlocked) => {
    if (isBlocked) say(context, 'blocking', held, 'wanted by another node');
  });
  held.helper.keep();
  await Promise.race([
    held.helper.ended,
    new Promise<void>((resolve) => {
      interrupted.signal.addEventListener('abort', () => resolve());
      if (interrupted.signal.aborted) resolve();
    }),
  ]);
  if (held.helper.isOver) {
    say(context, 'lost', held, `lost ${plain(held.name)}: the process that held it has ended`);
    return EXIT_LOST;
  }
  say(context, 'released', held, `released ${plain(held.name)}`);
  return 0;
}

async function run(context: Context, held: Held, command: string[], interrupted: Interruption): Promise<number> {
  const env: Record<string, string> = {};
  for (const [key, value] of Object.entries(process.env)) if (value !== undefined) env[key] = value;
  Object.assign(env, { TSDLM_NAME: held.name, TSDLM_DOMAIN: held.domain, TSDLM_MODE: held.mode, TSDLM_DLMFS: held.dir });
  const forwarding = new Forwarding();
  interrupted.stop();
  try {
    const { pid, exited } = await held.helper.spawn(held.h, command, env);
    forwarding.to(pid);
    const { code, signal } = await exited;
    if (code === null && signal === null) throw new TsdlmError('TSDLM_LOST', `the process that held '${held.name}' has ended`);
    return code ?? 128 + (signal === null ? 0 : constants.signals[signal]);
  } catch (error) {
    const { code, message, syscall } = error as NodeJS.ErrnoException;
    if (syscall?.startsWith('spawn') !== true) return context.fail(error);
    const text = `cannot run ${command[0]}: ${code === 'ENOENT' ? 'no such command' : message}`;
    process.stderr.write(
      context.json ? `${JSON.stringify({ event: 'failed', text })}\n` : `tsdlm: ${plain(held.name)}: ${text}\n`,
    );
    return code === 'ENOENT' ? EXIT_NOT_FOUND : EXIT_NOT_EXECUTABLE;
  } finally {
    forwarding.stop();
  }
}

/** One line per event on stdout. */
function say(context: Context, event: string, held: Held, text: string): void {
  const { name, domain, mode, dir } = held;
  process.stdout.write(
    context.json ? `${JSON.stringify({ event, name, domain, mode, dlmfs: dir, at: new Date().toISOString() })}\n` : `${text}\n`,
  );
}
