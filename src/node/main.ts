/**
 * The `tsdlmd` command: reads options and configuration, starts the daemon, turns signals into a clean stop, and ends with
 * an exit code that says what happened.
 *
 *   0   stopped cleanly                64  usage
 *   70  a broken invariant (state dump written)
 *   74  the journal failed             78  bad configuration, journal or socket
 */
import { readFileSync } from 'node:fs';
import { Command, CommanderError } from 'commander';
import { type ErrorCode, TsdlmError } from '../protocol/errors.js';
import { type Config, configChecksum, loadConfig } from './config.js';
import { Daemon } from './daemon.js';
import { createLog, LOG_LEVELS, type LogLevel } from './log.js';

interface Options {
  config?: string;
  node?: string;
  stateDir?: string;
  socket?: string;
  logLevel?: string;
  checkConfig?: boolean;
}

const EXIT_USAGE = 64;
const EXIT_INVARIANT = 70;
const EXIT_JOURNAL = 74;
const EXIT_CONFIG = 78;

function exitCodeOf(code: ErrorCode): number {
  if (code === 'TSDLM_INVARIANT') return EXIT_INVARIANT;
  if (code === 'TSDLM_JOURNAL_FAILED' || code === 'TSDLM_JOURNAL_FULL') return EXIT_JOURNAL;
  return EXIT_CONFIG;
}

export function packageVersion(): string {
  // dist/src/node/main.js: the package is three levels up.
  const text = readFileSync(new URL('../../../package.json', import.meta.url), 'utf8');
  return (JSON.parse(text) as { version: string }).version;
}

function complain(error: TsdlmError): void {
  process.stderr.write(`tsdlmd: ${error.message} (${error.code})\n`);
}

function parse(argv: string[], version: string): Options {
  const program = new Command('tsdlmd')
    .description('the tsdlm daemon: one node of a lock cluster')
    .version(version)
    .option('-c, --config <file>', 'configuration (TOML); without one this is a cluster of one node')
    .option('--node <name>', 'which of the configured nodes this is (default: the configuration, then the host name)')
    .option('--state-dir <dir>', 'where the journal lies')
    .option('--socket <path>', 'the socket of local clients')
    .option('--log-level <level>', `one of ${LOG_LEVELS.join(', ')}`)
    .option('--check-config', 'check the configuration, print its checksum, and exit')
    .exitOverride();
  program.parse(argv);
  return program.opts<Options>();
}

export async function main(argv: string[]): Promise<void> {
  const version = packageVersion();
  let options: Options;
  try {
    options = parse(argv, version);
  } catch (error) {
    process.exitCode = error instanceof CommanderError && error.exitCode === 0 ? 0 : EXIT_USAGE;
    return;
  }
  let config: Config;
  try {
    if (options.logLevel !== undefined && !LOG_LEVELS.includes(options.logLevel as LogLevel)) {
      throw new TsdlmError('TSDLM_USAGE', `--log-level ${options.logLevel} is none of ${LOG_LEVELS.join(', ')}`);
    }
    config = loadConfig({
      ...(options.config === undefined ? {} : { file: options.config }),
      overrides: {
        ...(options.node === undefined ? {} : { node: options.node }),
        ...(options.stateDir === undefined ? {} : { stateDir: options.stateDir }),
        ...(options.socket === undefined ? {} : { socket: options.socket }),
        ...(options.logLevel === undefined ? {} : { logLevel: options.logLevel as LogLevel }),
      },
    });
  } catch (error) {
    if (!(error instanceof TsdlmError)) throw error;
    complain(error);
    process.exitCode = error.code === 'TSDLM_USAGE' ? EXIT_USAGE : EXIT_CONFIG;
    return;
  }
  if (options.checkConfig) {
    for (const warning of config.warnings) process.stderr.write(`tsdlmd: warning: ${warning}\n`);
    process.stdout.write(`configuration is good, checksum ${configChecksum(config)}\n`);
    return;
  }
  await run(config, version);
}

async function run(config: Config, version: string): Promise<void> {
  const log = createLog(config.logLevel);
  for (const warning of config.warnings) log.warn('configuration', { warning });
  let daemon: Daemon;
  let stop = (_why: string): void => {};
  try {
    daemon = await Daemon.start({
      config,
      log,
      version,
      onFatal: (error) => {
        log.error('fatal', { code: error.code, error: error.message });
        complain(error);
        // At once: nothing may be granted, written or told any more. Clients keep to their deadlines.
        process.exit(exitCodeOf(error.code));
      },
      onShutdown: (by) => stop(`asked by ${by}`),
    });
  } catch (error) {
    if (!(error instanceof TsdlmError)) throw error;
    complain(error);
    process.exitCode = exitCodeOf(error.code);
    return;
  }
  let isStopping = false;
  stop = (why: string): void => {
    if (isStopping) return;
    isStopping = true;
    log.info('stopping', { why });
    daemon.stop().then(
      () => process.exit(0),
      (error: unknown) => {
        log.error('stop-failed', { error: String(error) });
        process.exit(EXIT_INVARIANT);
      },
    );
  };
  process.on('SIGTERM', () => stop('SIGTERM'));
  process.on('SIGINT', () => stop('SIGINT'));
  // A hang-up of the terminal is not a reason to give up locks.
  process.on('SIGHUP', () => log.info('ignored', { signal: 'SIGHUP' }));
}
