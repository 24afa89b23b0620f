/**
 * The helper's door: daemons come one after the other, and each is heard to its end.
 *
 * The problem: a daemon that was killed leaves its last words unread in its connection, the deadline that owners were told among them,
 * and the next daemon may knock before they were read. The idea: the next one waits until the connection before it has ended; its
 * end comes after all that was sent over it (rule 5).
 */
import type { HelperCore } from './helper-core.js';
import { type FromHelper, MessageLines, type ToHelper } from './protocol.js';

/** What is needed of a net.Socket. It comes paused. */
export interface DaemonSocket {
  setEncoding(encoding: 'utf8'): unknown;
  on(event: 'data', listener: (chunk: string) => void): unknown;
  on(event: 'end' | 'error' | 'close', listener: () => void): unknown;
  write(text: string): unknown;
  resume(): unknown;
  destroy(): unknown;
}

export class HelperDoor {
  readonly #core: HelperCore;
  readonly #say: (text: string) => void;
  #current: DaemonSocket | null = null;
  readonly #next: DaemonSocket[] = [];

  constructor(core: HelperCore, say: (text: string) => void) {
    this.#core = core;
    this.#say = say;
  }

  /** A daemon has connected. */
  accept(socket: DaemonSocket): void {
    if (this.#current === null) this.#serve(socket);
    else this.#next.push(socket);
  }

  #serve(socket: DaemonSocket): void {
    this.#current = socket;
    const lines = new MessageLines<ToHelper>((message) => {
      if (this.#current === socket) this.#core.receive(message);
    });
    socket.setEncoding('utf8');
    socket.on('data', (chunk) => {
      try {
        lines.push(chunk);
      } catch (error) {
        this.#say((error as Error).message);
        socket.destroy();
      }
    });
    const gone = (): void => {
      if (this.#current !== socket) return;
      this.#current = null;
      const next = this.#next.shift();
      this.#core.disconnect(next === undefined);
      if (next !== undefined) this.#serve(next);
    };
    socket.on('end', gone);
    socket.on('error', gone);
    socket.on('close', gone);
    this.#core.connect((message: FromHelper) => socket.write(`${JSON.stringify(message)}\n`));
    socket.resume();
  }
}
