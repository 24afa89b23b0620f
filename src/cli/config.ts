/**
 * `tsdlm config import`: the configuration of an ocfs2 or GFS cluster, as ours (src/import). Needs no daemon.
 *
 * The configuration goes to stdout or -o, what could not be carried over to stderr and, as comments, into it. Passwords go into files
 * of their own, and only when told to (--write-secrets): 0600, never over a file that exists.
 */
import { randomBytes } from 'node:crypto';
import { closeSync, mkdirSync, openSync, readdirSync, readSync, statSync, writeSync } from 'node:fs';
import { isAbsolute, join, resolve } from 'node:path';
import { type Command, Option } from 'commander';
import { FORMATS, type Format, importTexts, type SourceText } from '../import/import.js';
import type { Imported } from '../import/result.js';
import { notCarriedText, tomlOf } from '../import/toml-text.js';
import { FILE_CHARS_MAX } from '../import/tree.js';
import { TsdlmError } from '../protocol/errors.js';
import type { Context } from './context.js';
import { plain } from './table.js';

/** Files of one directory or command line. */
const FILES_MAX = 16;

interface Flags {
  output?: string;
  format?: Format;
  cluster?: string;
  keepPorts?: boolean;
  secretsDir: string;
  writeSecrets?: boolean;
}

export function configCommand(program: Command, context: () => Context): void {
  const config = program.command('config').description('configurations');
  config
    .command('import')
    .description(
      "make a configuration from ocfs2's cluster.conf, GFS 6.0's .ccs files or cluster.xml; names what it could not carry over",
    )
    .argument('<paths...>', 'the file, the three .ccs files, or their directory')
    .option('-o, --output <file>', 'where to write the configuration (default: standard output); never over a file that exists')
    .addOption(new Option('--format <format>', 'what it is, instead of looking').choices([...FORMATS]))
    .option('--cluster <name>', 'which cluster, where an ocfs2 file has several')
    .option('--keep-ports', "take o2net's ports over instead of 7719")
    .option('--secrets-dir <dir>', 'where the cluster key and passwords of fence devices are', '/etc/tsdlm')
    .option('--write-secrets', 'write them there (0600), with a new cluster key')
    .action((paths: string[], flags: Flags) => run(context(), paths, flags));
}

function run(c: Context, paths: string[], flags: Flags): void {
  const dir = resolve(flags.secretsDir);
  if (!isAbsolute(flags.secretsDir))
    throw new TsdlmError('TSDLM_USAGE', `--secrets-dir ${flags.secretsDir} must be an absolute path`);
  const sources = paths.flatMap(readPath);
  if (sources.length > FILES_MAX) throw new TsdlmError('TSDLM_USAGE', `${sources.length} files are more than ${FILES_MAX}`);
  const imported = importTexts(sources, {
    keepPorts: flags.keepPorts === true,
    secretsDir: dir,
    ...(flags.format === undefined ? {} : { format: flags.format }),
    ...(flags.cluster === undefined ? {} : { cluster: flags.cluster }),
  });
  const toml = tomlOf(imported, sources.map((s) => s.file).join(', '), dir);
  const secrets = secretsOf(imported);
  if (flags.writeSecrets) writeSecrets(dir, secrets);
  if (flags.output !== undefined) writeNew(flags.output, toml, 0o644);
  const files = secrets.map((s) => ({
    path: join(dir, s.name),
    mode: `0${s.mode.toString(8)}`,
    what: s.what,
    written: flags.writeSecrets === true,
  }));
  if (c.json) {
    c.print({ format: imported.format, toml, notCarried: imported.notCarried, files }, () => '');
    return;
  }
  if (flags.output === undefined) process.stdout.write(toml);
  const todo = files.map((f) => (f.written ? `written: ${f.path} (${f.mode})` : `to be made: ${f.path} (${f.mode}): ${f.what}`));
  const hint = files.length > 0 && !flags.writeSecrets ? ['--write-secrets makes these files'] : [];
  process.stderr.write(plainLines(`${notCarriedText(imported)}${[...todo, ...hint].map((line) => `${line}\n`).join('')}`));
}

function plainLines(text: string): string {
  return text.split('\n').map(plain).join('\n');
}

function readPath(path: string): SourceText[] {
  let isDirectory: boolean;
  try {
    isDirectory = statSync(path).isDirectory();
  } catch (cause) {
    throw new TsdlmError('TSDLM_BAD_CONFIG', `${path} cannot be read: ${(cause as Error).message}`, { cause });
  }
  if (!isDirectory) return [readText(path)];
  const names = readdirSync(path).sort();
  const ccs = names.filter((n) => n.endsWith('.ccs'));
  const wanted = ccs.length > 0 ? ccs : names.filter((n) => n === 'cluster.conf' || n === 'cluster.xml');
  if (wanted.length === 0)
    throw new TsdlmError('TSDLM_BAD_CONFIG', `${path} has no .ccs files, no cluster.conf and no cluster.xml`);
  return wanted.slice(0, FILES_MAX + 1).map((n) => readText(join(path, n)));
}

/** Reads no more than a configuration may have, whatever the file says of its size. */
function readText(path: string): SourceText {
  const max = FILE_CHARS_MAX * 4;
  let bytes: Buffer;
  try {
    const fd = openSync(path, 'r');
    try {
      const buffer = Buffer.allocUnsafe(max + 1);
      let length = 0;
      for (let n = -1; n !== 0 && length <= max; length += n) n = readSync(fd, buffer, length, buffer.length - length, null);
      bytes = buffer.subarray(0, length);
    } finally {
      closeSync(fd);
    }
  } catch (cause) {
    throw new TsdlmError('TSDLM_BAD_CONFIG', `${path} cannot be read: ${(cause as Error).message}`, { cause });
  }
  if (bytes.length > max) throw new TsdlmError('TSDLM_BAD_CONFIG', `${path}:1: more than ${max} bytes: this is no configuration`);
  try {
    return { file: path, text: new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(bytes) };
  } catch (cause) {
    throw new TsdlmError('TSDLM_BAD_CONFIG', `${path}:1: not UTF-8 text`, { cause });
  }
}

interface Secret {
  name: string;
  mode: number;
  content: string | null;
  what: string;
}

function secretsOf(imported: Imported): Secret[] {
  const key: Secret = {
    name: 'cluster.key',
    mode: 0o600,
    content: `${randomBytes(32).toString('hex')}\n`,
    what: 'openssl rand -hex 32, the same on every node',
  };
  return [...(imported.nodes.length > 1 ? [key] : []), ...imported.secrets];
}

function writeSecrets(dir: string, secrets: readonly Secret[]): void {
  mkdirSync(dir, { recursive: true, mode: 0o700 });
  for (const s of secrets) {
    if (s.content === null)
      throw new TsdlmError(
        'TSDLM_BAD_CONFIG',
        `the configuration has no password for ${s.name}: write ${join(dir, s.name)} by hand (0600)`,
      );
  }
  for (const s of secrets) writeNew(join(dir, s.name), s.content ?? '', s.mode);
}

function writeNew(path: string, text: string, mode: number): void {
  try {
    const fd = openSync(path, 'wx', mode);
    try {
      writeSync(fd, text);
    } finally {
      closeSync(fd);
    }
  } catch (cause) {
    throw new TsdlmError('TSDLM_USAGE', `${path} cannot be written: ${(cause as Error).message}`, { cause });
  }
}
