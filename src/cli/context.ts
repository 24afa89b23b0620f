/** What every command needs: the global options, a connection, and one way each to print a result and an error. */
import { type Client, connect, TsdlmError } from '../client/index.js';
import { EXIT_FAILED, exitCodeOf } from './exit-codes.js';
import { plain } from './table.js';

export interface GlobalOptions {
  socket?: string;
  json?: boolean;
}

export class Context {
  readonly json: boolean;
  /** What the process will exit with. */
  exitCode = 0;
  #socket: string | undefined;

  constructor(options: GlobalOptions) {
    this.json = options.json === true;
    this.#socket = options.socket;
  }

  /** Runs `work` with a connection that is closed afterwards. `reconnect`: it goes on with the next daemon when this one restarts. */
  async withClient<T>(label: string, work: (client: Client) => Promise<T>, reconnect = false): Promise<T> {
    const socket = this.#socket === undefined ? {} : { socket: this.#socket };
    const client = await connect({ ...socket, label, reconnect });
    try {
      return await work(client);
    } finally {
      await client.close();
    }
  }

  /** One result: the data as JSON, or the text made of it. */
  print<T>(data: T, text: (data: T) => string): void {
    process.stdout.write(this.json ? `${JSON.stringify(data)}\n` : text(data));
  }

  /** Says on stderr what went wrong and returns the exit code of it. */
  fail(error: unknown): number {
    const known = error instanceof TsdlmError;
    const code = known ? error.code : 'TSDLM_INVARIANT';
    const message = error instanceof Error ? error.message : String(error);
    process.stderr.write(
      this.json ? `${JSON.stringify({ error: { code, message } })}\n` : `tsdlm: ${plain(message)} (${code})\n`,
    );
    if (!known && error instanceof Error && error.stack !== undefined) process.stderr.write(`${error.stack}\n`);
    return known ? exitCodeOf(error.code) : EXIT_FAILED;
  }
}
