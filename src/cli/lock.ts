/**
 * `tsdlm lock NAME`: as flock(1), but cluster-wide. With a command the lock lasts as long as the command, without one until
 * this process is interrupted; a node-owned lock stays until `tsdlm unlock`.
 */
import { constants } from 'node:os';
import type { Command } from 'commander';
import { type Client, type LockHandle, type LockOptions, monotonicMs, type SuspendReason, TsdlmError } from '../client/index.js';
import { checkGrace, KILL_MARGIN_MS, PUSH_SLACK_MS } from '../membership/time-limits.js';
import { runCommand } from './command.js';
import type { Context } from './context.js';
import { formatDuration, parseDuration } from './duration.js';
import { EXIT_CONFLICT, EXIT_LOST } from './exit-codes.js';
import { type Interruption, interruption, within } from './interruption.js';
import { kernelLock } from './kernel-lock.js';
import { modeOption } from './mode-option.js';
import { plain } from './table.js';

interface LockFlags {
  ex?: boolean;
  pr?: boolean;
  try?: boolean;
  wait?: string;
  domain: string;
  why?: string;
  conflictExitCode?: string;
  grace?: string;
  nodeOwned?: boolean;
  dlmfs?: string | true;
}

/** Tried in this order when no --grace is given and the lease is short. */
const GRACES_MS = [1000, 500, 250, 100, 0];
/** The release of a lock that we would give up anyway may take so long. */
const RELEASE_MS = 2000;

export function lockCommand(program: Command, context: () => Context): void {
  program
    .command('lock')
    .description('take a lock, and run a command under it')
    .argument('<name>', 'name of the lock')
    .argument('[command...]', 'command to run under the lock, after --')
    .option('-x, --ex', 'exclusive (default)')
    .option('-s, --pr', 'protected read: shared with other readers')
    .option('-n, --try', 'fail instead of waiting')
    .option('-w, --wait <duration>', 'wait at most so long: 500ms, 5s, 2m')
    .option('--domain <domain>', 'domain of the lock', 'default')
    .option('--why <text>', 'shown to those who wait')
    .option('-E, --conflict-exit-code <code>', `exit code for a conflict or time-out (default ${EXIT_CONFLICT})`)
    .option(
      '--grace <duration>',
      'time between SIGTERM and SIGKILL when the lock is being lost (default: 1s, or what the lease allows)',
    )
    .option('--node-owned', 'the lock belongs to this node and stays until tsdlm unlock')
    .option('--dlmfs [dir]', 'take it in the dlmfs that is mounted there (default /dlm), without a daemon')
    .action(async (name: string, command: string[], flags: LockFlags) => {
      const c = context();
      c.exitCode = await lock(c, name, command, flags);
    });
}

async function lock(context: Context, name: string, command: string[], flags: LockFlags): Promise<number> {
  const mode = modeOption(flags);
  const conflictCode = conflictCodeOf(flags.conflictExitCode);
  if (command.length > 0 && !process.argv.includes('--')) {
    throw new TsdlmError('TSDLM_USAGE', `put -- before the command: tsdlm lock ${name} -- ${command.join(' ')}`);
  }
  if (flags.try === true && flags.wait !== undefined) throw new TsdlmError('TSDLM_USAGE', '--try and --wait exclude each other');
  if (flags.nodeOwned === true && command.length > 0) {
    const way = 'take it without a command, and give it back with tsdlm unlock';
    throw new TsdlmError('TSDLM_USAGE', `a node-owned lock would outlive its command: ${way}`);
  }
  if (flags.dlmfs !== undefined) return kernelLock(context, name, mode, command, conflictCode, flags);
  const graceMs = flags.grace === undefined ? undefined : parseDuration(flags.grace, '--grace');
  const options: LockOptions = { domain: flags.domain };
  if (flags.wait !== undefined) options.timeout = parseDuration(flags.wait, '--wait');
  if (flags.try === true) options.try = true;
  if (flags.why !== undefined) options.why = flags.why;
  if (flags.nodeOwned === true) options.nodeOwned = true;
  const label = command.length > 0 ? `tsdlm lock: ${command[0]}` : 'tsdlm lock';
  return context.withClient(
    label,
    async (client) => {
      const grace = graceOf(client, graceMs, command.length > 0);
      options.abortBefore = grace + KILL_MARGIN_MS + PUSH_SLACK_MS;
      const interrupted = interruption();
      let handle: LockHandle;
      try {
        handle = await client.lock(name, mode, { ...options, signal: interrupted.signal });
      } catch (error) {
        if (interrupted.by !== null) return 128 + constants.signals[interrupted.by];
        if (!(error instanceof TsdlmError)) throw error;
        const code = context.fail(error);
        return code === EXIT_CONFLICT ? conflictCode : code;
      }
      if (interrupted.by !== null) {
        await within(handle.release(), RELEASE_MS);
        return 128 + constants.signals[interrupted.by];
      }
      if (flags.nodeOwned === true) {
        say(
          context,
          'granted',
          handle,
          `granted ${plain(name)} ${handle.mode} token ${handle.token} to this node; tsdlm unlock gives it back`,
        );
        return 0;
      }
      if (command.length === 0) return hold(context, handle, interrupted);
      const note = (event: string, text: string): void => {
        const line = context.json
          ? JSON.stringify({ event, name, domain: handle.domain, text })
          : `tsdlm: ${plain(name)}: ${text}`;
        process.stderr.write(`${line}\n`);
      };
      const code = await runCommand(handle, {
        command,
        graceMs: grace,
        connection: client.connection,
        note,
        started: interrupted.stop,
      });
      await within(handle.release(), RELEASE_MS);
      return code;
    },
    true,
  );
}

const SUSPENDED_TEXT: Record<SuspendReason, string> = {
  silence: 'suspended: no renewal comes, the lock is ours until its deadline',
  quorum: 'suspended: this node has no quorum; nobody is granted our lock before this machine was fenced, we keep it until then',
};

/** Holds until a signal comes or the lock is lost. */
async function hold(context: Context, handle: LockHandle, interrupted: Interruption): Promise<number> {
  const lost = new Promise<TsdlmError>((resolve) => {
    handle.on('lost', resolve);
    // A daemon that stops waits for its holders: there is nothing here that would have to end first.
    handle.signal.addEventListener('abort', () => {
      const reason: unknown = handle.signal.reason;
      if (reason instanceof TsdlmError && reason.code === 'TSDLM_STOPPING') resolve(reason);
    });
  });
  const stopped = new Promise<null>((resolve) => {
    interrupted.signal.addEventListener('abort', () => resolve(null));
    if (interrupted.signal.aborted) resolve(null);
  });
  const left = formatDuration(handle.deadline - monotonicMs());
  say(
    context,
    'granted',
    handle,
    `granted ${plain(handle.name)} ${handle.mode} token ${handle.token} at ${new Date().toISOString()}, lease ${left}`,
  );
  handle.on('blocking', (mode) => say(context, 'blocking', handle, `wanted by another in ${mode}`));
  handle.on('reconnecting', () =>
    say(context, 'reconnecting', handle, 'the daemon is gone; the lock is claimed from the next one'),
  );
  handle.on('suspended', (why) => say(context, 'suspended', handle, SUSPENDED_TEXT[why], { why }));
  handle.on('resumed', () => say(context, 'resumed', handle, 'resumed'));
  try {
    const error = await Promise.race([lost, stopped]);
    if (error !== null) {
      say(context, 'lost', handle, `lost ${plain(handle.name)}: ${error.message}`);
      await within(handle.release(), RELEASE_MS);
      return EXIT_LOST;
    }
    await within(handle.release(), RELEASE_MS);
    say(context, 'released', handle, `released ${plain(handle.name)}`);
    return 0;
  } finally {
    interrupted.stop();
  }
}

/** One line per event on stdout. */
function say(context: Context, event: string, handle: LockHandle, text: string, more: Record<string, string> = {}): void {
  const { name, domain, mode } = handle;
  const token = handle.token.toString();
  process.stdout.write(
    context.json
      ? `${JSON.stringify({ event, name, domain, mode, token, ...more, at: new Date().toISOString() })}\n`
      : `${text}\n`,
  );
}

/** The grace of the command: what was asked for if it fits the lease (rule 24), else the longest usual one that does. */
function graceOf(client: Client, asked: number | undefined, hasCommand: boolean): number {
  const { leaseMs, heartbeatMs } = client.daemon;
  if (asked !== undefined) {
    checkGrace({ leaseMs, heartbeatMs }, asked);
    return asked;
  }
  for (const grace of GRACES_MS) {
    try {
      checkGrace({ leaseMs, heartbeatMs }, grace);
      return grace;
    } catch {
      // The next shorter one.
    }
  }
  if (!hasCommand) return 0;
  checkGrace({ leaseMs, heartbeatMs }, 0);
  return 0;
}

function conflictCodeOf(text: string | undefined): number {
  if (text === undefined) return EXIT_CONFLICT;
  const code = Number(text);
  if (!/^\d+$/.test(text) || code > 255) throw new TsdlmError('TSDLM_USAGE', `-E '${text}' must be an exit code from 0 to 255`);
  return code;
}
