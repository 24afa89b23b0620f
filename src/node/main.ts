/**
 * The `tsdlmd` command: reads options and configuration, starts the daemon, turns signals into a clean stop, and ends with
 * an exit code that says what happened.
 *
 *   0   stopped cleanly                64  usage
 *   75  restarts because `tsdlm restart` asked for it: start it again
 *   70  a broken invariant (state dump written)
 *   74  the journal failed             78  bad configuration, journal or socket
 */
import { readFileSync } from 'node:fs';
import { Command, CommanderError } from 'commander';
import { type ErrorCode, TsdlmError } from '../protocol/errors.js';
import { type Config, configChecksum, loadConfig, RESTART_LIMIT_MS_MAX, SIGTERM_VERBS, type SigtermVerb } from './config.js';
import { Daemon } from './daemon.js';
import { createLog, LOG_LEVELS, type LogLevel } from './log.js';

interface Options {
  config?: string;
  node?: string;
  stateDir?: string;
  socket?: string;
  logLevel?: string;
  sigterm?: string;
  restartLimit?: string;
  checkConfig?: boolean;
}

const EXIT_USAGE = 64;
const EXIT_INVARIANT = 70;
/** To be started again (RestartForceExitStatus= of a systemd unit). */
const EXIT_RESTART = 75;
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
    .option('--sigterm <verb>', 'what SIGTERM means: stop (leave the cluster) or restart (be back soon, locks stay)')
    .option('--restart-limit <ms>', 'how long a restart may take at most, milliseconds')
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
    if (options.sigterm !== undefined && !SIGTERM_VERBS.includes(options.sigterm as SigtermVerb)) {
      throw new TsdlmError('TSDLM_USAGE', `--sigterm ${options.sigterm} is none of ${SIGTERM_VERBS.join(', ')}`);
    }
    const restartLimitMs = options.restartLimit === undefined ? undefined : restartLimit(options.restartLimit);
    config = loadConfig({
      ...(options.config === undefined ? {} : { file: options.config }),
      overrides: {
        ...(options.node === undefined ? {} : { node: options.node }),
        ...(options.stateDir === undefined ? {} : { stateDir: options.stateDir }),
        ...(options.socket === undefined ? {} : { socket: options.socket }),
        ...(options.logLevel === undefined ? {} : { logLevel: options.logLevel as LogLevel }),
        ...(options.sigterm === undefined ? {} : { sigterm: options.sigterm as SigtermVerb }),
        ...(restartLimitMs === undefined ? {} : { restartLimitMs }),
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

function restartLimit(text: string): number {
  const ms = Number(text);
  if (/^\d+$/.test(text) && ms >= 1000 && ms <= RESTART_LIMIT_MS_MAX) return ms;
  throw new TsdlmError('TSDLM_USAGE', `--restart-limit ${text} must be 1000 to ${RESTART_LIMIT_MS_MAX} milliseconds`);
}

async function run(config: Config, version: string): Promise<void> {
  const log = createLog(config.logLevel);
  for (const warning of config.warnings) log.warn('configuration', { warning });
  let daemon: Daemon;
  let isEnding = false;
  const end = (verb: SigtermVerb, by: string, code: number): void => {
    if (isEnding) return;
    isEnding = true;
    log.info(verb === 'stop' ? 'stopping' : 'restart-begins', { why: by });
    (verb === 'stop' ? daemon.stop() : daemon.restart()).then(
      () => process.exit(code),
      (error: unknown) => {
        log.error(`${verb}-failed`, { error: String(error) });
        process.exit(EXIT_INVARIANT);
      },
    );
  };
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
      onShutdown: (by) => end('stop', `asked by ${by}`, 0),
      onRestart: (by) => end('restart', `asked by ${by}`, EXIT_RESTART),
    });
  } catch (error) {
    if (!(error instanceof TsdlmError)) throw error;
    complain(error);
    process.exitCode = exitCodeOf(error.code);
    return;
  }
  process.on('SIGTERM', (signal) => end(config.sigterm, signal, 0));
  process.on('SIGINT', (signal) => end('stop', signal, 0));
  // A hang-up of the terminal is not a reason to give up locks.
  process.on('SIGHUP', () => log.info('ignored', { signal: 'SIGHUP' }));
}
