/**
 * `tsdlm lvb get|set NAME`: the lock value block, 64 bytes that travel with the lock. Reading takes PR, writing EX, and both
 * give the lock back at once.
 */
import type { Command } from 'commander';
import { LVB_BYTES, TsdlmError } from '../client/index.js';
import type { Context } from './context.js';
import { type DlmfsLock, failure, openDlmfsLock } from './dlmfs.js';
import { parseDuration } from './duration.js';

interface LvbFlags {
  domain: string;
  hex?: boolean;
  wait?: string;
  dlmfs?: string | true;
}

const DLMFS_OPTION = ['--dlmfs [dir]', 'in the dlmfs that is mounted there (default /dlm), without a daemon'] as const;

export function lvbCommand(program: Command, context: () => Context): void {
  const lvb = program.command('lvb').description('read or write the value block of a lock');
  lvb
    .command('get')
    .description('print the value block')
    .argument('<name>', 'name of the lock')
    .option('--hex', 'print it as 128 hexadecimal digits')
    .option('-w, --wait <duration>', 'wait at most so long for the lock')
    .option('--domain <domain>', 'domain of the lock', 'default')
    .option(...DLMFS_OPTION)
    .action(async (name: string, flags: LvbFlags) => {
      const c = context();
      if (flags.dlmfs !== undefined) {
        // Zeros are what a lock has that nobody wrote to, or whose writer died: a dlmfs does not tell.
        const lvb = await withFile(name, 'PR', flags, (file) => readFile(file));
        if (lvb.some((byte) => byte !== 0)) printLvb(c, flags, name, lvb, 'valid');
        else printLvb(c, flags, name, null, 'none');
        return;
      }
      await c.withClient('tsdlm lvb get', async (client) => {
        await using handle = await client.lock(name, 'PR', { domain: flags.domain, lvb: true, ...waitOf(flags) });
        const { lvb, lvbState } = handle;
        printLvb(c, flags, name, lvb, lvbState);
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
    .option(...DLMFS_OPTION)
    .action(async (name: string, value: string, flags: LvbFlags) => {
      const c = context();
      const bytes = bytesOf(value, flags.hex === true);
      if (flags.dlmfs !== undefined) {
        await withFile(name, 'EX', flags, ({ helper, h }) =>
          helper.request({ op: 'write', h, data: bytes.toString('base64'), position: 0 }),
        );
        c.print({ domain: flags.domain, name, hex: bytes.toString('hex') }, () => '');
        return;
      }
      await c.withClient('tsdlm lvb set', async (client) => {
        await using handle = await client.lock(name, 'EX', { domain: flags.domain, lvb: true, ...waitOf(flags) });
        await handle.writeLvb(bytes);
        c.print({ domain: handle.domain, name, token: handle.token.toString(), hex: bytes.toString('hex') }, () => '');
      });
    });
}

function printLvb(c: Context, flags: LvbFlags, name: string, lvb: Buffer | null, state: string): void {
  if (c.json) {
    const { domain } = flags;
    c.print({ domain, name, state, hex: lvb?.toString('hex') ?? null, text: lvb === null ? null : textOf(lvb) }, () => '');
    return;
  }
  if (lvb === null || state !== 'valid') {
    const why = state === 'invalid' ? 'its last writer died holding it' : 'nobody has written one';
    throw new TsdlmError('TSDLM_LVB_INVALID', `'${name}' has no valid value block: ${why}`);
  }
  process.stdout.write(`${flags.hex === true ? lvb.toString('hex') : textOf(lvb)}\n`);
}

/** Works with the open file of a dlmfs lock, and gives the lock up. */
async function withFile<T>(name: string, mode: 'PR' | 'EX', flags: LvbFlags, work: (lock: DlmfsLock) => Promise<T>): Promise<T> {
  const lock = await openDlmfsLock({
    dir: flags.dlmfs ?? true,
    domain: flags.domain,
    name,
    mode,
    isTry: false,
    timeoutMs: waitOf(flags).timeout ?? null,
    signal: new AbortController().signal,
    inheritStdio: false,
  });
  try {
    return await work(lock);
  } catch (error) {
    throw failure(error, `'${name}' in ${lock.dir}/${flags.domain}`);
  } finally {
    await lock.helper.request({ op: 'close', h: lock.h }).catch(() => {});
    lock.helper.close();
  }
}

async function readFile({ helper, h }: DlmfsLock): Promise<Buffer> {
  const text = (await helper.request({ op: 'read', h, length: LVB_BYTES, position: 0 })) as string;
  return Buffer.from(text, 'base64');
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
