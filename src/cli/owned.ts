/** `tsdlm unlock` and `tsdlm convert`: the locks that belong to this node, by name. */
import type { Command } from 'commander';
import type { ConvertArgs, ConvertData, FilesFreeArgs, FilesFreeData, UnlockArgs, UnlockData } from '../protocol/admin.js';
import { TsdlmError } from '../protocol/errors.js';
import type { Context } from './context.js';
import { parseDuration } from './duration.js';
import { type ModeFlags, modeOption } from './mode-option.js';
import { plain } from './table.js';

interface UnlockFlags {
  domain: string;
  orphan?: boolean;
  mount?: string;
  all?: boolean;
}

export function unlockCommand(program: Command, context: () => Context): void {
  program
    .command('unlock')
    .description('give back a lock that this node owns (lock --node-owned), or that was left held by files (--orphan)')
    .argument('[name]', 'name of the lock')
    .option('--domain <domain>', 'domain of the lock', 'default')
    .option(
      '--orphan',
      'a file that was open when its mount lost the daemon: see tsdlm status. Only when nobody uses it any more',
    )
    .option('--mount <mount>', 'with --orphan: all files of this mount')
    .option('--all', 'with --orphan: all files of this node')
    .action(async (name: string | undefined, flags: UnlockFlags) => {
      const c = context();
      if (flags.orphan === true) return unlockOrphans(c, name, flags);
      if (flags.mount !== undefined || flags.all === true)
        throw new TsdlmError('TSDLM_USAGE', '--mount and --all go with --orphan');
      if (name === undefined) throw new TsdlmError('TSDLM_USAGE', 'which lock? tsdlm unlock NAME');
      const args: UnlockArgs = { domain: flags.domain, name };
      const data = (await c.withClient('tsdlm unlock', (client) => client.admin('unlock', args))) as UnlockData;
      c.print(data, (d) => `released ${plain(d.name)}\n`);
    });
}

async function unlockOrphans(c: Context, name: string | undefined, flags: UnlockFlags): Promise<void> {
  const given = [name, flags.mount, flags.all].filter((x) => x !== undefined).length;
  if (given !== 1) throw new TsdlmError('TSDLM_USAGE', '--orphan wants one of NAME, --mount and --all');
  const args: FilesFreeArgs =
    name !== undefined ? { domain: flags.domain, name } : flags.mount !== undefined ? { mount: flags.mount } : { all: true };
  const { freed } = (await c.withClient('tsdlm unlock', (client) => client.admin('files-free', args))) as FilesFreeData;
  if (freed.length === 0 && flags.all !== true) {
    throw new TsdlmError(
      'TSDLM_NOT_HELD',
      `there is no such orphan hold on this node (${name ?? flags.mount}): see tsdlm status`,
    );
  }
  c.print({ freed }, (d) =>
    d.freed.length === 0
      ? 'no orphan holds\n'
      : d.freed.map((o) => `released ${plain(o.domain)}/${plain(o.name)} ${o.mode}\n`).join(''),
  );
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
