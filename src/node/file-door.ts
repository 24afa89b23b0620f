/**
 * The files of this node: where 9P clients connect, which mounts there are, and what is left of mounts that are gone.
 *
 * Each connection is a mount and a lock owner of its own. Its locks are node-owned (rule 2): this door is open only on a
 * node that is ended by more than its own lease. Who may connect is decided by the socket's mode and group; permission bits
 * of files are for the client's kernel to enforce.
 */
import { createServer, type Server, type Socket } from 'node:net';
import { DoorLock, EngineLocks, type EngineLocksOptions, type FilesCore } from '../dlmfs/engine-locks.js';
import { Tree } from '../dlmfs/tree.js';
import type { LocalLock } from '../master/types.js';
import type { FilesData, FilesMount, FilesOrphan } from '../protocol/admin.js';
import type { ErrorCode } from '../protocol/errors.js';
import { TsdlmError } from '../protocol/errors.js';
import type { Mode } from '../protocol/modes.js';
import { cutText } from '../protocol/text.js';
import { FileConnection, type FileConnectionHost } from './file-connection.js';
import { FileOrphans, type OrphanFilter } from './file-orphans.js';
import { LineBudget } from './line-budget.js';
import { listenOn } from './session-socket.js';

/** Connections at one time. */
const CONNECTIONS_MAX = 256;
/** With so many orphan holds no new mount is taken: somebody makes them faster than they are cleared. */
const ORPHANS_MAX = 100_000;
const GREETING_MS = 10_000;
const SWEEP_MS = 1000;
const LINES = 5;
const WHO_BYTES_MAX = 120;
const MOUNT_ID_BYTES_MAX = 80;

export interface FileDoorOptions {
  core: FilesCore;
  /** Milliseconds on the core's clock. */
  now: () => number;
  isLeased: () => boolean;
  node: string;
  startCount: number;
  /** Where mounts connect; null = nowhere. */
  socket: { path: string; mode: number; group: string } | null;
  /** Loopback only. */
  tcp: { host: string; port: number } | null;
  /** Why this door is shut (rule 2), or null. */
  refusal: string | null;
  log: (level: 'info' | 'warn' | 'error', event: string, data: Record<string, unknown>) => void;
  /** Runs `work` as an input of the core: what it throws ends the daemon. */
  guard: (work: () => void) => void;
  greetingMs?: number;
}

export class FileDoor implements FileConnectionHost {
  readonly #o: FileDoorOptions;
  readonly #connections = new Set<FileConnection>();
  readonly #orphans: FileOrphans;
  readonly #lines = new LineBudget(LINES);
  readonly #servers: Server[] = [];
  #later: (() => void)[] = [];
  #sweeper: NodeJS.Timeout | null = null;
  #nextMount = 1;
  #refused = 0;
  #faults = 0;

  constructor(options: FileDoorOptions) {
    this.#o = options;
    this.#orphans = new FileOrphans(options.now);
  }

  /** Opens the door. Rejects with TSDLM_BAD_CONFIG when a socket cannot be had. */
  async listen(): Promise<void> {
    const { socket, tcp, refusal } = this.#o;
    this.#sweeper = setInterval(() => this.#o.guard(() => this.#sweep()), SWEEP_MS);
    this.#sweeper.unref();
    if (refusal !== null) return;
    if (socket !== null) {
      const server = this.#server();
      await listenOn(server, socket);
    }
    if (tcp !== null) {
      const server = this.#server();
      await new Promise<void>((resolve, reject) => {
        const refuse = (error: Error): void =>
          reject(
            new TsdlmError('TSDLM_BAD_CONFIG', `files.listen = ${tcp.host}:${tcp.port}: ${error.message}`, { cause: error }),
          );
        server.once('error', refuse);
        server.listen({ host: tcp.host, port: tcp.port }, () => {
          server.removeListener('error', refuse);
          resolve();
        });
      });
    }
  }

  #server(): Server {
    const server = createServer((socket) => this.#accept(socket));
    server.on('error', (error) => this.#o.log('error', 'file-door', { error: error.message }));
    this.#servers.push(server);
    return server;
  }

  #accept(socket: Socket): void {
    if (this.#connections.size >= CONNECTIONS_MAX) {
      this.#faults++;
      socket.destroy();
      return;
    }
    this.#connections.add(new FileConnection(this, socket, this.#o.now(), this.#o.greetingMs ?? GREETING_MS));
  }

  /** Closes the door and ends all mounts. What was open stays held: `openAtStop` says what. */
  async close(): Promise<void> {
    if (this.#sweeper !== null) clearInterval(this.#sweeper);
    const closed = this.#servers.map((server) => new Promise<void>((resolve) => server.close(() => resolve())));
    for (const connection of [...this.#connections]) connection.end();
    await Promise.all(closed);
  }

  /**
   * The daemon restarts: the door closes and nothing is given up, because what is open stays held (rule 6). What is only
   * kept goes on record as that, so that the next daemon lets it go.
   */
  restarting(): void {
    if (this.#sweeper !== null) clearInterval(this.#sweeper);
    for (const server of this.#servers) server.close();
    for (const connection of this.#connections) {
      for (const file of connection.session.tree?.files() ?? []) file.lock.sweep();
      connection.cut();
    }
    this.#connections.clear();
  }

  /** Files that are open, or were when their mount went: the node cannot leave while it holds these. */
  get openCount(): number {
    let count = this.#orphans.size;
    for (const { session } of this.#connections) count += session.tree?.openCount ?? 0;
    return count;
  }

  // --- Mounts -----------------------------------------------------------------------------------------------------------

  mount(connection: FileConnection, aname: string): Tree | null {
    if (this.#orphans.size >= ORPHANS_MAX) return null;
    const number = this.#nextMount++;
    const given = cutText(aname, MOUNT_ID_BYTES_MAX);
    const isTaken = [...this.#connections].some((c) => c.mountId === given) || this.#orphans.has(given);
    // Two of one name could be freed by the other's umount: only the first may be called by it.
    connection.mountId = given === '' || isTaken ? `${this.#o.startCount}.${number}` : given;
    this.#o.log('info', 'mounted', { mount: connection.mountId, ...(isTaken && given !== '' ? { nameInUse: given } : {}) });
    const service = new EngineLocks(this.#lockOptions(connection.mountId));
    return new Tree(service, { mode: 0o755, uid: 0, gid: 0 }, Date.now);
  }

  #lockOptions(mount: string): EngineLocksOptions {
    const { core, now, isLeased, node } = this.#o;
    const who = cutText(`${node}:files ${mount}`, WHO_BYTES_MAX);
    return { core, now, isLeased, defer: this.#defer, door: mount, who, why: '' };
  }

  #defer = (work: () => void): void => {
    this.#later.push(work);
    if (this.#later.length === 1) queueMicrotask(this.#runLater);
  };

  #runLater = (): void => {
    this.#o.guard(() => {
      while (this.#later.length > 0) {
        const works = this.#later;
        this.#later = [];
        for (const work of works) work();
        if (this.#later.length === 0) return;
      }
    });
  };

  unmounted(connection: FileConnection, tree: Tree): void {
    const open = tree.held().length;
    const { mountId } = connection;
    connection.mountId = '';
    if (open > 0) {
      this.#o.log('warn', 'orphan-holds', {
        mount: mountId,
        files: open,
        why: 'the connection ended with files open; their locks stay until the mount is gone (tsdlm umount, tsdlm unlock --orphan)',
      });
    } else {
      this.#o.log('info', 'unmounted', { mount: mountId });
    }
    this.#orphans.addTree(tree, mountId);
  }

  guard(work: () => void): void {
    this.#o.guard(work);
  }

  refused(): void {
    this.#refused++;
  }

  fault(connection: FileConnection, why: string): void {
    this.#faults++;
    const line = this.#lines.take(this.#o.now());
    if (!line.ok) return;
    const notLogged = line.dropped > 0 ? { notLogged: line.dropped } : {};
    this.#o.log('warn', 'file-client-dismissed', { mount: connection.mountId, why, ...notLogged });
  }

  closed(connection: FileConnection): void {
    this.#connections.delete(connection);
  }

  #sweep(): void {
    for (const { session } of this.#connections) session.tree?.sweep();
    this.#orphans.sweep();
  }

  // --- What the core says -------------------------------------------------------------------------------------------------

  /** True when the lock is one of a file; then it has been told. */
  granted(lock: LocalLock): boolean {
    if (lock.ctx instanceof DoorLock) lock.ctx.granted(lock);
    else if (lock.ctx === null && lock.door !== '') this.#adopt(lock);
    else return false;
    return true;
  }
  denied(lock: LocalLock, code: ErrorCode): boolean {
    if (!(lock.ctx instanceof DoorLock)) return false;
    lock.ctx.denied(lock, code);
    return true;
  }
  released(lock: LocalLock): boolean {
    if (!(lock.ctx instanceof DoorLock)) return false;
    lock.ctx.released();
    return true;
  }
  bast(lock: LocalLock, mode: Mode): boolean {
    if (!(lock.ctx instanceof DoorLock)) return false;
    lock.ctx.bast(mode);
    return true;
  }
  lost(lock: LocalLock, code: ErrorCode): boolean {
    if (!(lock.ctx instanceof DoorLock)) return false;
    lock.ctx.lost(code);
    return true;
  }

  /** A lock of a mount of before this daemon's start: what was open then is an orphan hold, the rest is given up. */
  #adopt(lock: LocalLock): void {
    const door = new DoorLock(this.#lockOptions(lock.door), NOBODY, lock);
    lock.ctx = door;
    if (!lock.isInUse) return this.#defer(() => door.unlock());
    this.#orphans.addLock(lock, door);
    this.#o.log('warn', 'orphan-hold', {
      mount: lock.door,
      domain: lock.domain,
      name: lock.name,
      why: 'open when the daemon ended',
    });
  }

  // --- Administration -----------------------------------------------------------------------------------------------------

  data(): FilesData {
    const { socket, tcp, refusal } = this.#o;
    const now = this.#o.now();
    const mounts: FilesMount[] = [];
    for (const { session, mountId, openedAt } of this.#connections) {
      const { tree } = session;
      if (tree === null) continue;
      let files = 0;
      let waiting = 0;
      for (const file of tree.files()) {
        files++;
        waiting += file.lock.waiting;
      }
      mounts.push({
        mount: mountId,
        sinceMs: now - openedAt,
        domains: tree.root.children.size,
        files,
        open: tree.openCount,
        waiting,
      });
    }
    return {
      socket: refusal === null ? (socket?.path ?? null) : null,
      listen: refusal === null && tcp !== null ? `${tcp.host}:${tcp.port}` : null,
      refusal,
      mounts,
      orphans: this.#orphans.list(),
      refusedMessages: this.#refused,
      endedConnections: this.#faults,
    };
  }

  orphans(): FilesOrphan[] {
    return this.#orphans.list();
  }

  /** Frees orphan holds; `by` goes into the log. */
  freeOrphans(filter: OrphanFilter, by: string): FilesOrphan[] {
    const freed = this.#orphans.free(filter);
    for (const { mount, domain, name, mode } of freed) this.#o.log('warn', 'orphan-freed', { mount, domain, name, mode, by });
    return freed;
  }
}

const NOBODY = { granted() {}, denied() {}, released() {}, bast() {}, lost() {}, recorded() {} };
