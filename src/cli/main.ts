/** The command line `tsdlm`: its commands, and how their ends become exit codes. */
import { readFileSync } from 'node:fs';
import { Command, CommanderError } from 'commander';
import { configCommand } from './config.js';
import { Context, type GlobalOptions } from './context.js';
import { domainCommand } from './domain.js';
import { EXIT_OK, EXIT_USAGE } from './exit-codes.js';
import { fenceCommand } from './fence.js';
import { lockCommand } from './lock.js';
import { lvbCommand } from './lvb.js';
import { mountCommand, umountCommand } from './mount.js';
import { nodeCommand } from './node.js';
import { nodeTableCommand } from './node-table.js';
import { convertCommand, unlockCommand } from './owned.js';
import { restartCommand } from './restart.js';
import { statsCommand } from './stats.js';
import { lsCommand, nodesCommand, showCommand, statusCommand } from './views.js';

/** All commands, and the context that they share once one of them runs. */
export function makeProgram(): { program: Command; contextOf: () => Context } {
  const program = new Command('tsdlm');
  let context: Context | null = null;
  const contextOf = (): Context => {
    context ??= new Context(program.opts<GlobalOptions>());
    return context;
  };
  program
    .description('cluster-wide locks')
    .version(version())
    .option('--socket <path>', "the daemon's socket (default: TSDLM_SOCKET, or the usual places)")
    .option('--json', 'print results as JSON')
    .showHelpAfterError('(tsdlm --help lists the commands)')
    .exitOverride();
  for (const add of [
    lockCommand,
    unlockCommand,
    convertCommand,
    lvbCommand,
    lsCommand,
    showCommand,
    statusCommand,
    nodesCommand,
    mountCommand,
    umountCommand,
    statsCommand,
    domainCommand,
    nodeCommand,
    fenceCommand,
    restartCommand,
    configCommand,
    nodeTableCommand,
  ]) {
    add(program, contextOf);
  }
  for (const command of program.commands) {
    command.exitOverride();
    for (const inner of command.commands) inner.exitOverride();
  }
  return { program, contextOf };
}

/** Runs one command line (as process.argv); resolves with the exit code. Writes to stdout and stderr, never throws. */
export async function main(argv: readonly string[]): Promise<number> {
  // A reader that went away (`tsdlm ls | head -1`) is no fault.
  process.stdout.on('error', (error: NodeJS.ErrnoException) => {
    if (error.code !== 'EPIPE') throw error;
  });
  const { program, contextOf } = makeProgram();
  try {
    await program.parseAsync(argv);
    return contextOf().exitCode;
  } catch (error) {
    if (error instanceof CommanderError) {
      const isHelp = error.code === 'commander.helpDisplayed' || error.code === 'commander.version';
      return isHelp ? EXIT_OK : EXIT_USAGE;
    }
    return contextOf().fail(error);
  }
}

function version(): string {
  for (const up of ['../../../package.json', '../../package.json']) {
    try {
      return String((JSON.parse(readFileSync(new URL(up, import.meta.url), 'utf8')) as { version: unknown }).version);
    } catch {
      // From the source tree the path is one step shorter.
    }
  }
  return 'unknown';
}
