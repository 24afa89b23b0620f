/**
 * `tsdlm lvb get|set NAME`: the lock value block, 64 bytes that travel with the lock. Reading takes PR, writing EX, and both
 * give the lock back at once.
 */
import type { Command } from 'commander';
import { LVB_BYTES, TsdlmError } from '../client/index.js';
import type { Context } from './context.js';
import { parseDuration } from './duration.js';

interface LvbFlags {
  domain: string;
  hex?: boolean;
  wait?: string;
}

export function lvbCommand(program: Command, context: () => Context): void {
  const lvb = program.command('lvb').description('read or write the value block of a lock');
  lvb
    .command('get')
    .description('print the value block')
    .argument('<name>', 'name of the lock')
    .option('--hex', 'print it as 128 hexadecimal digits')
    .option('-w, --wait <duration>', 'wait at most so long for the lock')
    .option('--domain <domain>', 'domain of the lock', 'default')
    .action(async (name: string, flags: LvbFlags) => {
      const c = context();
      await c.withClient('tsdlm lvb get', async (client) => {
        await using handle = await client.lock(name, 'PR', { domain: flags.domain, lvb: true, ...waitOf(flags) });
        const { lvb, lvbState } = handle;
        if (c.json) {
          const { domain } = handle;
          c.print(
            { domain, name, state: lvbState, hex: lvb?.toString('hex') ?? null, text: lvb === null ? null : textOf(lvb) },
            () => '',
          );
          return;
        }
        if (lvb === null || lvbState !== 'valid') {
          const why = lvbState === 'invalid' ? 'its last writer died holding it' : 'nobody has written one';
          throw new TsdlmError('TSDLM_LVB_INVALID', `'${name}' has no valid value block: ${why}`);
        }
        process.stdout.write(`${flags.hex === true ? lvb.toString('hex') : textOf(lvb)}\n`);
      });
    });
  lvb
    .command('set')
    .description('write the value block: a text of at most 64 bytes, filled up with zeros')
    .argument('<name>', 'name of the lock')
    .argument('<value>', 'the text, or hexadecimal digits with --hex')
    .option('--hex', 'the value is given as hexadecimal digits')
    .option('-w, --wait <duration>', 'wait at most so long for the lock')
    .option('--domain <domain>', 'domain of the lock', 'default')
    .action(async (name: string, value: string, flags: LvbFlags) => {
      const c = context();
      const bytes = bytesOf(value, flags.hex === true);
      await c.withClient('tsdlm lvb set', async (client) => {
        await using handle = await client.lock(name, 'EX', { domain: flags.domain, lvb: true, ...waitOf(flags) });
        await handle.writeLvb(bytes);
        c.print({ domain: handle.domain, name, token: handle.token.toString(), hex: bytes.toString('hex') }, () => '');
      });
    });
}

function waitOf(flags: LvbFlags): { timeout?: number } {
  return flags.wait === undefined ? {} : { timeout: parseDuration(flags.wait, '--wait') };
}

function bytesOf(value: string, isHex: boolean): Buffer {
  if (isHex && !/^([0-9a-fA-F]{2})*$/.test(value)) {
    throw new TsdlmError('TSDLM_USAGE', `'${value}' is no even number of hexadecimal digits`);
  }
  const bytes = Buffer.from(value, isHex ? 'hex' : 'utf8');
  if (bytes.length > LVB_BYTES)
    throw new TsdlmError('TSDLM_USAGE', `a value of ${bytes.length} bytes is too long: at most ${LVB_BYTES}`);
  return Buffer.concat([bytes, Buffer.alloc(LVB_BYTES - bytes.length)]);
}

/** Without the zeros that fill it up. */
function textOf(lvb: Buffer): string {
  let end = lvb.length;
  while (end > 0 && lvb[end - 1] === 0) end--;
  return lvb.toString('utf8', 0, end);
}
