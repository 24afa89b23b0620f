/**
 * One running node: journal, pure core, links to the other daemons, the local door and fencing, put together.
 *
 * Everything that touches the world is here or below; what is decided is decided in src/core. The daemon feeds the core
 * one input at a time with the time of its clock and carries out what comes back. A broken invariant of the core, or a
 * journal that fails, ends the process: with a state dump, a named reason, and nothing granted any more.
 */
import { statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { Bridge } from '../bridge/bridge.js';
import { HelperLink } from '../bridge/link.js';
import { NodeCore } from '../core/node-core.js';
import type { CoreOutput } from '../core/types.js';
import { FenceMonitor } from '../fence/monitor.js';
import { FenceRunner } from '../fence/runner.js';
import type { LocalEvents } from '../master/types.js';
import type { NodePlace } from '../membership/bootstrap.js';
import { longestLeaseMs } from '../membership/limits-in-force.js';
import type { NodeView, View } from '../membership/types.js';
import type { EndData } from '../protocol/admin.js';
import { InvariantError, TsdlmError } from '../protocol/errors.js';
import type { Incarnation, NodeId } from '../protocol/ids.js';
import type { PeerMessage } from '../protocol/peer-messages.js';
import { Admin } from './admin.js';
import { CoreClock, MonotonicCore } from './clock-core.js';
import { type Config, configChecksum, FILES_REFUSED } from './config.js';
import { Departure } from './departure.js';
import { bootId, machineId } from './facts.js';
import { devicesOf } from './fence-admin.js';
import { FileDoor } from './file-door.js';
import { type Journal, openJournal } from './journal.js';
import { asJournalError } from './journal-failure.js';
import type { Log } from './log.js';
import { PeerNet } from './peer-net.js';
import { SelfKeeper } from './self-keeper.js';
import { type AdminResult, type SessionInfo, SessionServer } from './session-server.js';
import { acceptConfig, checkClocks } from './start-checks.js';

export interface DaemonOptions {
  config: Config;
  log: Log;
  version: string;
  /** The daemon can not go on: the journal failed or an invariant broke. The process must end. */
  onFatal: (error: TsdlmError) => void;
  /** An operator wants this daemon restarted (`tsdlm restart`). */
  onRestart?: (by: string) => void;
  /** An operator wants this daemon stopped cleanly (`tsdlm node shutdown`). */
  onShutdown?: (by: string) => void;
}

export class Daemon {
  readonly #o: DaemonOptions;
  readonly #clock = new CoreClock();
  readonly #journal: Journal;
  readonly #core: NodeCore;
  readonly #peers: PeerNet | null;
  readonly #sessions: SessionServer;
  readonly #files: FileDoor;
  readonly #bridge: Bridge | null;
  readonly #admin: Admin;
  readonly #fencing: FenceRunner;
  readonly #monitor: FenceMonitor;
  readonly #keeper: SelfKeeper | null;
  #incarnation: Incarnation;
  #ticker: NodeJS.Timeout | null = null;
  #tickMs: number;
  /** Parts of the table that were last carried out here. */
  #places: readonly NodePlace[] = [];
  #fenceNodes: readonly NodeView[] = [];
  #isOver = false;
  #isDistrusted = false;
  readonly #departure: Departure;

  /** Opens the journal, joins the cluster in the background, serves local clients from the moment this resolves. */
  static async start(options: DaemonOptions): Promise<Daemon> {
    const { config, log } = options;
    checkClocks(config);
    const boot = config.bootIdFile === null ? bootId() : bootId(config.bootIdFile);
    let daemon: Daemon | null = null;
    const journal = await openJournal({
      dir: config.stateDir,
      nodeId: config.self.id,
      clusterName: config.cluster,
      bootId: boot,
      log,
      onFailure: (error) => {
        if (daemon) daemon.#fatal(error);
        else options.onFatal(error);
      },
    });
    try {
      const ahead = await acceptConfig(config, journal, log);
      const incarnation: Incarnation = {
        bootId: boot,
        machineId: config.machineId || machineId(),
        startCount: await journal.raiseStartCount(),
        journalId: journal.journalId,
      };
      daemon = new Daemon(options, journal, incarnation, ahead);
      await daemon.#open();
      return daemon;
    } catch (error) {
      await journal.close().catch(() => {});
      throw error;
    }
  }

  private constructor(options: DaemonOptions, journal: Journal, incarnation: Incarnation, ahead: View) {
    const { config } = options;
    this.#o = options;
    this.#journal = journal;
    this.#incarnation = incarnation;
    this.#tickMs = config.limits.tickMs;
    const log = (level: 'info' | 'warn' | 'error', event: string, data: Record<string, unknown>): void => {
      options.log[level](event, data);
    };
    this.#fencing = new FenceRunner({ methods: config.fenceMethods, log });
    this.#monitor = new FenceMonitor({
      runner: this.#fencing,
      devices: [],
      intervalMs: config.fenceMonitorMs,
      log,
    });
    this.#keeper =
      config.selfEnd === null
        ? null
        : new SelfKeeper({
            config: config.selfEnd,
            socket: join(config.stateDir, 'guard.sock'),
            self: config.self.id,
            core: () => this.#core,
            now: this.#now,
            log,
          });
    this.#departure = new Departure({
      self: config.self.id,
      restartLimitMs: config.restartLimitMs,
      journal,
      log: options.log,
      core: () => this.#core,
      sessions: () => this.#sessions,
      startCount: () => this.#incarnation.startCount,
      now: this.#now,
      toldUntil: () => (journal.toldUntil === 0 ? 0 : journal.toldUntil + this.#clock.ahead),
      toMonotonic: this.#toMonotonic,
      step: (input) => this.#step(input),
      fatal: (error) => this.#fatal(error),
    });
    this.#peers =
      config.listen === null || config.key === null
        ? null
        : new PeerNet({
            self: config.self.id,
            incarnation,
            nodes: config.nodes.map(({ id, name, host, port }) => ({ id, name, host, port })),
            listen: config.listen,
            clusterName: config.cluster,
            clusterKey: config.key,
            configSum: configChecksum(config),
            clusterId: () => this.#core.membership.ahead.clusterId,
            removed: (id) => this.#core.membership.ahead.retired.find((r) => r.id === id)?.name,
            limits: config.limits,
            tls: config.tls,
            log,
            onMessage: (from, msg) => this.#onPeerMessage(from, msg),
            beforeFlush: () => this.#sessions.turn(),
            knownIncarnation: (peer) => this.#core.view.nodes.find((n) => n.id === peer)?.incarnation ?? null,
            onDistrusted: (why) => this.#distrusted(why),
            onUp: (peer, startCount, reset) => this.#step(() => this.#core.peerUp(this.#now(), peer, startCount, reset)),
            onDown: (peer) => this.#step(() => this.#core.peerDown(this.#now(), peer)),
          });
    // What a daemon before this one may have told owners on this boot: a lease, or the deadline of a restart.
    const toldUntil = Math.max(this.#now() + longestLeaseMs(config.limits, ahead), journal.toldUntil);
    this.#core = new NodeCore(
      {
        self: config.self.id,
        incarnation,
        nodes: config.nodes.map(({ id, name, voter, witness, fence, fenceDelay, host, port }) => ({
          id,
          name,
          voter,
          witness: witness ?? false,
          fence,
          fenceDelay,
          host,
          port,
        })),
        limits: config.limits,
        persisted: journal.loadControl(),
        seed: seedOf(incarnation),
        now: this.#now(),
        mastery: {
          standard: config.mastery,
          domains: new Map([...config.domains].map(([name, d]) => [name, d.mastery])),
        },
        nodeOwned: journal.loadNodeOwned(),
        toldUntil,
        hasRecord: journal.restart !== null,
        isNodeOwnedUnsafe: config.unsafeNodeOwned,
        endsItself: config.endsItself,
      },
      this.#output(log),
    );
    this.#bridge = this.#makeBridge(log, toldUntil);
    this.#sessions = new SessionServer({
      path: config.socket,
      mode: config.socketMode,
      ...(config.socketGroup === '' ? {} : { group: config.socketGroup }),
      core: new MonotonicCore(this.#bridge ?? this.#core, this.#clock),
      node: { id: config.self.id, name: config.self.name },
      cluster: config.cluster,
      limits: this.#core.membership.limits,
      version: options.version,
      nodeOwnedAllowed: () => this.#nodeOwnedAllowed(),
      startCount: incarnation.startCount,
      sessionKey: journal.sessionKey,
      graceUntil: toldUntil,
      settled: () => this.#settled(),
      onSurvivor: (why) => this.#keeper?.endNow(why),
      now: () => this.#toMonotonic(this.#now()),
      log,
      admin: (verb, args, session) => this.#runAdmin(verb, args, session),
    });
    this.#files = this.#makeFiles(log);
    this.#admin = this.#makeAdmin();
    const { restart } = journal;
    if (restart !== null) this.#step(() => this.#sessions.restore(restart));
  }

  #now = (): number => this.#clock.now();

  #toMonotonic = (time: number): number => time - this.#clock.ahead;

  /** Owners are told when their holds end. */
  #tellLease(until: number, isSuspended: boolean): void {
    this.#sessions.lease(until <= 0 ? 0 : this.#toMonotonic(until), isSuspended);
  }

  async #open(): Promise<void> {
    // No owner hears of this daemon before it is known what the bridge's helper has kept (rule 5).
    await this.#bridge?.ready;
    await this.#sessions.listen();
    await this.#files.listen();
    if (this.#peers) {
      await this.#peers.listen();
      this.#peers.start();
    }
    this.#tick();
    this.#monitor.start();
    this.#ticker = setInterval(this.#tick, this.#tickMs);
    this.#o.log.info('daemon-started', {
      node: this.#o.config.self.name,
      cluster: this.#o.config.cluster,
      startCount: this.#incarnation.startCount,
      socket: this.#o.config.socket,
      journal: this.#o.config.stateDir,
    });
  }

  #tick = (): void => {
    const gap = this.#clock.look();
    if (gap > 0) this.#o.log.warn('machine-was-suspended', { forMs: Math.round(gap) });
    if (!this.#isOver) this.#keeper?.keepAlive();
    this.#step(() => this.#core.tick(this.#now(), Date.now()));
    this.#sessions.tick();
    this.#fencing.withdraw((node, startCount) => this.#isFencing(node, startCount));
    this.#departure.tick();
    this.#followTable();
  };

  /** The node table and the time limits are the log's: links, devices and timers follow it. */
  #followTable(): void {
    const { membership } = this.#core;
    const { places, limits, ahead } = membership;
    if (places !== this.#places) {
      this.#places = places;
      this.#peers?.setNodes(places);
    }
    if (limits.tickMs !== this.#tickMs && this.#ticker !== null) {
      this.#tickMs = limits.tickMs;
      clearInterval(this.#ticker);
      this.#ticker = setInterval(this.#tick, this.#tickMs);
      this.#peers?.setLimits(limits);
    }
    if (ahead.nodes !== this.#fenceNodes) {
      this.#fenceNodes = ahead.nodes;
      // Only voters ever lead and fence, and nobody fences the machine it runs on.
      const { id } = this.#o.config.self;
      const isVoter = ahead.nodes.some((n) => n.id === id && n.voter);
      const others = ahead.nodes.filter((n) => n.id !== id);
      this.#monitor.setDevices(isVoter ? devicesOf(others, this.#fencing) : []);
    }
  }

  /** A method that ends this machine stands in one of its fence levels, or the operator takes the risk (rule 2). */
  #nodeOwnedAllowed(): boolean {
    const { config } = this.#o;
    const fence = this.#core.membership.ahead.nodes.find((n) => n.id === config.self.id)?.fence ?? config.self.fence;
    const isEndedByOthers = fence.some((level) => level.every((name) => name !== 'self'));
    return config.unsafeNodeOwned || config.endsItself || isEndedByOthers;
  }

  /** It is for us to fence this incarnation: we lead, and the view still says so. */
  #isFencing(node: NodeId, startCount: number): boolean {
    const { isLeader, view, fencesAlone } = this.#core.membership;
    if (fencesAlone?.node === node && fencesAlone.startCount === startCount) return true;
    return isLeader && view.nodes.some((n) => n.id === node && n.state === 'fencing' && n.incarnation?.startCount === startCount);
  }

  /** Runs one input of the core; a broken invariant ends the daemon. */
  #step(input: () => void): void {
    if (this.#isOver) return;
    try {
      input();
    } catch (error) {
      this.#fatal(
        error instanceof TsdlmError
          ? error
          : new InvariantError(error instanceof Error ? (error.stack ?? error.message) : String(error)),
      );
    }
  }

  #output(log: (level: 'info' | 'warn' | 'error', event: string, data: Record<string, unknown>) => void): CoreOutput {
    return {
      moreToDo: () => setImmediate(() => this.#step(() => this.#core.advance(this.#now()))),
      send: (to, msg) => this.#peers?.send(to, msg),
      persist: (batch) => {
        this.#journal.persist(batch).then(
          () => this.#step(() => this.#core.persisted(this.#now(), batch.ticket)),
          (error: unknown) => this.#fatal(asJournalError(error)),
        );
      },
      journal: (ticket, op) => {
        this.#journal.writeNodeOwned(op).then(
          () => this.#step(() => this.#core.journaled(this.#now(), ticket)),
          (cause: unknown) => {
            const error = asJournalError(cause);
            let isSettled = false;
            if (error.code === 'TSDLM_JOURNAL_FULL') {
              this.#step(() => {
                isSettled = this.#core.journalFailed(this.#now(), ticket, error.code);
              });
            }
            if (!isSettled) this.#fatal(error);
          },
        );
      },
      restartRecord: (claims) => this.#departure.record(this.#bridge?.claims(claims) ?? claims),
      fence: (request) => {
        const victim = this.#core.membership.ahead.nodes.find((n) => n.id === request.node);
        void this.#fencing
          .run({ ...request, nodeName: victim?.name ?? String(request.node) })
          .then((result) => this.#step(() => this.#core.fenceDone(this.#now(), request.op, result.ok, result.detail)));
      },
      incarnationOver: (_reason, atLeast) => {
        this.#journal.raiseStartCount(atLeast).then(
          (startCount) => {
            if (this.#isOver) return;
            this.#departure.incarnationOver();
            this.#incarnation = { ...this.#incarnation, startCount };
            this.#peers?.setIncarnation(this.#incarnation);
            this.#step(() => this.#core.reincarnate(this.#now(), this.#incarnation));
          },
          (error: unknown) => this.#fatal(asJournalError(error)),
        );
      },
      distrusted: (why) => this.#distrusted(why),
      lease: (until, isSuspended) => {
        this.#tellLease(this.#bridge?.lease(until) ?? until, isSuspended);
      },
      viewChanged: (view) => {
        log('info', 'view', {
          epoch: view.epoch,
          nodes: view.nodes.map((n) => `${n.name}:${n.state}${n.fencedBy ? `(${n.fencedBy})` : ''}`).join(' '),
        });
        this.#fencing.seen(view.nodes, this.#core?.membership.isLeader ?? false);
        this.#departure.seen(view);
      },
      memberChanged: (isMember) => {
        log('info', isMember ? 'joined' : 'not-a-member', { epoch: this.#core?.view.epoch ?? 0 });
      },
      granted: (lock) => (this.#bridge ?? this.#doors).granted(lock),
      denied: (lock, code) => (this.#bridge ?? this.#doors).denied(lock, code),
      released: (lock) => (this.#bridge ?? this.#doors).released(lock),
      bast: (lock, mode) => (this.#bridge ?? this.#doors).bast(lock, mode),
      lost: (lock, code) => (this.#bridge ?? this.#doors).lost(lock, code),
      note: log,
    };
  }

  async #runAdmin(verb: string, args: unknown, session: SessionInfo): Promise<AdminResult> {
    if (verb !== 'restart') return this.#admin.run(verb, args, session);
    const { onRestart, config } = this.#o;
    if (onRestart === undefined) throw new TsdlmError('TSDLM_NOT_ALLOWED', 'this daemon cannot be restarted from here');
    // After the answer has left.
    setTimeout(() => onRestart(`${config.self.name}:${session.pid} ${session.label}`), 10);
    const data: EndData = { node: { id: config.self.id, name: config.self.name }, pid: process.pid };
    return { ok: true, data };
  }

  /** Events of the core go to the door that the lock's owner came by. */
  readonly #doors: LocalEvents = {
    granted: (lock) => {
      if (this.#files.granted(lock)) return;
      if (lock.ctx === null && lock.nodeOwned) this.#sessions.adoptNodeOwned(lock);
      else this.#sessions.granted(lock);
    },
    denied: (lock, code) => {
      if (!this.#files.denied(lock, code)) this.#sessions.denied(lock, code);
    },
    released: (lock) => {
      if (!this.#files.released(lock)) this.#sessions.released(lock);
    },
    bast: (lock, mode) => {
      if (!this.#files.bast(lock, mode)) this.#sessions.bast(lock, mode);
    },
    lost: (lock, code) => {
      if (!this.#files.lost(lock, code)) this.#sessions.lost(lock, code);
    },
  };

  #makeBridge(
    log: (level: 'info' | 'warn' | 'error', event: string, data: Record<string, unknown>) => void,
    toldUntil: number,
  ): Bridge | null {
    const { config } = this.#o;
    const bridged = [...config.domains].filter(([, d]) => d.bridge !== '');
    const [first] = bridged;
    if (first === undefined) return null;
    const domains = bridged.map(([name]) => name);
    return new Bridge({
      core: this.#core,
      events: this.#doors,
      now: this.#now,
      toMonotonic: this.#toMonotonic,
      domains: new Set(domains),
      link: (events) =>
        new HelperLink({
          socket: join(config.stateDir, 'bridge.sock'),
          users: first[1].bridge,
          own: join(config.stateDir, 'bridge-dlm'),
          domains,
          events,
        }),
      toldUntil,
      claimMs: config.limits.marginMs,
      hasRecord: this.#journal.restart !== null,
      leaseMoved: () => this.#tellLease(this.#bridge?.holdUntil ?? 0, this.#core.isSuspended),
      journaled: new Set(this.#journal.loadNodeOwned().map((r) => `${r.domain}/${r.name}`)),
      step: (work) => this.#step(work),
      log,
    });
  }

  #onPeerMessage(from: NodeId, msg: PeerMessage): void {
    if (msg.k === 'Query') this.#admin.onQuery(from, msg);
    else if (msg.k === 'QueryReply') this.#admin.onQueryReply(msg);
    else this.#step(() => this.#core.receive(this.#now(), from, msg));
  }

  #makeFiles(log: (level: 'info' | 'warn' | 'error', event: string, data: Record<string, unknown>) => void): FileDoor {
    const { config } = this.#o;
    const { socket, mode, group, listen } = config.files;
    return new FileDoor({
      core: this.#bridge ?? this.#core,
      now: this.#now,
      isLeased: () => this.#core.leaseUntil > this.#now(),
      node: config.self.name,
      startCount: this.#incarnation.startCount,
      socket: socket === null ? null : { path: socket, mode: mode ?? config.socketMode, group: group ?? config.socketGroup },
      tcp: listen,
      refusal: config.filesAllowed ? null : FILES_REFUSED,
      log,
      guard: (work) => this.#step(work),
    });
  }

  #makeAdmin(): Admin {
    const { config, version } = this.#o;
    return new Admin({
      core: this.#core,
      self: config.self.id,
      cluster: config.cluster,
      version,
      limits: this.#core.membership.limits,
      now: this.#now,
      send: (to, msg) => this.#peers?.send(to, msg),
      addressOf: (node) => {
        const found = this.#core.membership.places.find((n) => n.id === node);
        return found && config.listen !== null ? `${found.host}:${found.port}` : '';
      },
      links: () => (this.#peers?.status() ?? []).map((p) => ({ node: p.peer, state: p.state, backlogBytes: p.bytesQueued })),
      journal: () => ({ path: config.stateDir, state: this.#isOver ? 'failed' : 'ok', sizeBytes: bytesIn(config.stateDir) }),
      sessions: () => this.#sessions.sessions().length,
      nodeOwnedAllowed: () => this.#nodeOwnedAllowed(),
      fenceMethods: [...config.fenceMethods.keys()],
      configSum: configChecksum(config),
      shutdown: (by) => this.#o.onShutdown?.(by),
      files: this.#files,
      bridge: () => this.#bridge?.status ?? null,
      warnings: () => [
        ...config.warnings,
        ...this.#fencing.warnings(),
        ...this.#monitor.warnings(),
        ...(this.#keeper?.warnings() ?? []),
      ],
      fencing: {
        runner: this.#fencing,
        monitor: this.#monitor,
        nodes: () => this.#core.view.nodes,
        log: (level, event, data) => this.#o.log[level](event, data),
      },
    });
  }

  /** Our journal is an older copy: it says so from now on, and this process ends (rule 12). */
  #distrusted(why: string): void {
    if (this.#isOver || this.#isDistrusted) return;
    this.#isDistrusted = true;
    const error = new TsdlmError(
      'TSDLM_JOURNAL_ROLLED_BACK',
      `journal ${this.#o.config.stateDir} is older than what the cluster knows of it: ${why}. Put the newest state directory back, or move it away: this node then joins as a new one`,
    );
    this.#journal.distrust(why).then(
      () => this.#fatal(error),
      (cause: unknown) => this.#fatal(asJournalError(cause)),
    );
  }

  /** The daemon can not go on: state dump, then the process ends. */
  #fatal(error: TsdlmError): void {
    if (this.#isOver) return;
    this.#isOver = true;
    if (this.#ticker) clearInterval(this.#ticker);
    if (error.code === 'TSDLM_INVARIANT') {
      const file = join(this.#o.config.stateDir, `dump-${Date.now()}.json`);
      try {
        writeFileSync(file, JSON.stringify({ error: error.message, stack: error.stack, state: this.#core.dump() }, null, 1), {
          mode: 0o600,
        });
        this.#o.log.error('state-dumped', { file });
      } catch (cause) {
        this.#o.log.error('state-dump-failed', { file, error: String(cause) });
      }
    }
    this.#o.onFatal(error);
  }

  /** The whole state of the node, as plain data. */
  dump(): Record<string, unknown> {
    return this.#core.dump();
  }

  /** No client counts on the deadline of a restart any more: a later crash is waited for no longer than a lease. */
  #settled(): void {
    if (this.#isOver) return;
    setImmediate(() => this.#step(() => this.#core.settled(this.#now())));
    this.#bridge?.settled();
    if (this.#journal.toldUntil > 0) this.#journal.clearTold().catch(() => {});
  }

  /**
   * Restart (rule 23): masterships are handed over, what owners have is kept for the next daemon, and nobody fences this node or
   * frees its locks until then or the deadline that owners are told. The caller ends the process.
   */
  async restart(): Promise<void> {
    if (this.#isOver) return;
    const why = await this.#departure.restart();
    if (why === null) {
      const { until } = this.#departure;
      this.#o.log.info('restarting', { forMs: Math.round(until - this.#now()) });
      const told = (await this.#bridge?.restarting(until)) ?? until;
      await this.#sessions.restarting(this.#toMonotonic(told));
    } else {
      // Owners count on their leases only: whoever finds the next daemon in time keeps what it has, as after a crash.
      this.#o.log.warn('restarts-uncleanly', { why });
    }
    this.#files.restarting();
    await this.#end();
  }

  /** Clean stop: owners are told, locks released, masterships handed over, the node leaves. */
  async stop(): Promise<void> {
    if (this.#isOver) return;
    await this.#sessions.close();
    await this.#files.close();
    // A node that leaves owns nothing, but programs may still act under the files that they have open (rule 6).
    const open = this.#files.openCount;
    if (open > 0) {
      this.#o.log.error('stopped-with-open-files', {
        files: this.#files
          .orphans()
          .map((o) => `${o.domain}/${o.name}`)
          .slice(0, 20),
        open,
        why: 'the node cannot leave: it is fenced unless this daemon is started again in time; end the programs and tsdlm umount first',
      });
    } else if (this.#core.isMember) {
      await this.#departure.leave();
    }
    await this.#end();
  }

  async #end(): Promise<void> {
    this.#isOver = true;
    if (this.#ticker) clearInterval(this.#ticker);
    await this.#keeper?.disarm();
    this.#monitor.close();
    this.#fencing.close();
    this.#bridge?.close();
    await this.#peers?.close();
    await this.#journal.close();
    this.#o.log.info('daemon-stopped', { node: this.#o.config.self.name });
  }
}

/** Election time-outs must differ between nodes and lives; the incarnation is as good as random for that. */
function seedOf(inc: Incarnation): number {
  let h = 0x811c9dc5;
  for (const c of `${inc.journalId}/${inc.startCount}`) h = Math.imul(h ^ c.charCodeAt(0), 0x01000193);
  return h >>> 0;
}

/** Size of the journal's two environments; 0 for what cannot be read. */
function bytesIn(dir: string): number {
  let bytes = 0;
  for (const name of ['control', 'locks']) {
    try {
      bytes += statSync(join(dir, name, 'data.mdb')).size;
    } catch {
      // Not there (yet): nothing to count.
    }
  }
  return bytes;
}
