/** `tsdlm unlock` and `tsdlm convert`: the locks that belong to this node, by name. */
import type { Command } from 'commander';
import type { ConvertArgs, ConvertData, UnlockArgs, UnlockData } from '../protocol/admin.js';
import { TsdlmError } from '../protocol/errors.js';
import type { Context } from './context.js';
import { parseDuration } from './duration.js';
import { type ModeFlags, modeOption } from './mode-option.js';
import { plain } from './table.js';

export function unlockCommand(program: Command, context: () => Context): void {
  program
    .command('unlock')
    .description('give back a lock that this node owns (lock --node-owned)')
    .argument('<name>', 'name of the lock')
    .option('--domain <domain>', 'domain of the lock', 'default')
    .action(async (name: string, flags: { domain: string }) => {
      const c = context();
      const args: UnlockArgs = { domain: flags.domain, name };
      const data = (await c.withClient('tsdlm unlock', (client) => client.admin('unlock', args))) as UnlockData;
      c.print(data, (d) => `released ${plain(d.name)}\n`);
    });
}

interface ConvertFlags extends ModeFlags {
  domain: string;
  try?: boolean;
  wait?: string;
}

export function convertCommand(program: Command, context: () => Context): void {
  program
    .command('convert')
    .description('change the mode of a lock that this node owns')
    .argument('<name>', 'name of the lock')
    .option('-x, --ex', 'exclusive')
    .option('-s, --pr', 'protected read')
    .option('--nl', 'null: keeps the value block and nothing else')
    .option('-n, --try', 'fail instead of waiting')
    .option('-w, --wait <duration>', 'wait at most so long: 500ms, 5s, 2m')
    .option('--domain <domain>', 'domain of the lock', 'default')
    .action(async (name: string, flags: ConvertFlags) => {
      const c = context();
      const mode = modeOption(flags, null);
      if (flags.try === true && flags.wait !== undefined)
        throw new TsdlmError('TSDLM_USAGE', '--try and --wait exclude each other');
      const timeoutMs = flags.wait === undefined ? 0 : Math.max(1, parseDuration(flags.wait, '--wait'));
      const args: ConvertArgs = { domain: flags.domain, name, mode, try: flags.try === true, timeoutMs };
      const waitMs = args.try || timeoutMs > 0 ? timeoutMs : Number.POSITIVE_INFINITY;
      const data = (await c.withClient('tsdlm convert', (client) => client.admin('convert', args, waitMs))) as ConvertData;
      c.print(data, (d) => `granted ${plain(d.name)} ${d.mode} token ${d.token}\n`);
    });
}
