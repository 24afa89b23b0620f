/**
 * The administration verbs: what `tsdlm status`, `nodes`, `ls` and `show` are answered; those of fencing are in fence-admin.ts.
 *
 * Who holds a lock only its master knows, so `ls` and `show` ask every member of the view (Query / QueryReply, control
 * messages) and put the answers together; a member that does not answer in time is named in the result, not waited for.
 */
import { hostname } from 'node:os';
import type { NodeCore } from '../core/node-core.js';
import { countLocal, type LockDump, masteredResource, masteredResources, type ResourceDump } from '../master/dump.js';
import { openFence } from '../membership/fence-record.js';
import type { TimeLimits } from '../membership/time-limits.js';
import {
  type FilesFreeArgs,
  type FilesFreeData,
  LIST_PAGE_MAX,
  type ListData,
  type ListEntry,
  type NodeRef,
  type NodesData,
  SHOW_WAITERS_MAX,
  type ShowData,
  type StatusData,
} from '../protocol/admin.js';
import { type ErrorCode, TsdlmError } from '../protocol/errors.js';
import type { NodeId } from '../protocol/ids.js';
import { type Mode, modeName } from '../protocol/modes.js';
import type { ControlMessage } from '../protocol/peer-messages.js';
import { FenceAdmin, type FenceAdminHost } from './fence-admin.js';
import type { FileDoor } from './file-door.js';
import { NODE_VERBS, NodeAdmin } from './node-admin.js';
import { domainsOf, policyWarnings, quorumOf, roleOf } from './roles.js';
import type { SessionInfo } from './session-info.js';
import { TableAdmin } from './table-admin.js';

/** How long another node may take to answer a question. */
const QUERY_MS = 1000;
/** Questions under way at one time. */
const QUERIES_MAX = 1000;

export interface AdminHost {
  core: NodeCore;
  self: NodeId;
  cluster: string;
  version: string;
  limits: TimeLimits;
  now(): number;
  send(to: NodeId, msg: ControlMessage): void;
  addressOf(node: NodeId): string;
  links(): { node: number; state: string; backlogBytes: number }[];
  journal(): { path: string; state: string; sizeBytes: number };
  sessions(): number;
  nodeOwnedAllowed(): boolean;
  /** Names that this node's configuration defines. */
  fenceMethods: readonly string[];
  bridge(): StatusData['bridge'];
  files: Pick<FileDoor, 'data' | 'orphans' | 'freeOrphans'>;
  warnings(): string[];
  configSum: string;
  /** Begins a clean stop of this daemon. */
  shutdown(by: string): void;
  fencing: Pick<FenceAdminHost, 'runner' | 'monitor' | 'nodes' | 'log'>;
}

type Answer = { ok: boolean; code?: ErrorCode; text?: string; data?: unknown };

export class Admin {
  readonly #host: AdminHost;
  readonly #startedAt: number;
  readonly #pending = new Map<number, (data: unknown) => void>();
  readonly #fence: FenceAdmin;
  readonly #node: NodeAdmin;
  readonly #table: TableAdmin;
  #nextQuery = 1;

  constructor(host: AdminHost) {
    this.#host = host;
    this.#startedAt = host.now();
    this.#fence = new FenceAdmin({
      ...host.fencing,
      core: host.core,
      self: host.self,
      now: host.now,
      ref: (id) => this.#ref(id),
      ask: (node, verb, args) => this.#ask(node, verb, args),
      askAll: (verb, args) => this.#askAll(verb, args),
    });
    this.#table = new TableAdmin({
      core: host.core,
      self: host.self,
      methods: host.fenceMethods,
      now: host.now,
      ref: (id) => this.#ref(id),
      ask: (node, verb, args) => this.#ask(node, verb, args),
      log: host.fencing.log,
    });
    this.#node = new NodeAdmin({
      ...host,
      startedAt: this.#startedAt,
      ref: (id) => this.#ref(id),
      ask: (node, verb, args) => this.#ask(node, verb, args),
      log: host.fencing.log,
    });
  }

  async run(verb: string, args: unknown, session?: Pick<SessionInfo, 'pid' | 'label'>): Promise<Answer> {
    const by = `${this.#ref(this.#host.self).name}:${session?.pid ?? 0} ${session?.label ?? ''}`;
    if (NODE_VERBS.includes(verb)) return { ok: true, data: await this.#node.run(verb, asRecord(args), by) };
    if (verb === 'table-step') return { ok: true, data: await this.#table.step(asRecord(args), by) };
    if (verb.startsWith('fence-')) {
      return { ok: true, data: await this.#fence.run(verb, asRecord(args), by) };
    }
    switch (verb) {
      case 'status':
        return { ok: true, data: this.#status() };
      case 'files-free':
        return { ok: true, data: this.#freeFiles(asRecord(args), `${session?.pid ?? 0} ${session?.label ?? ''}`) };
      case 'nodes':
        return { ok: true, data: this.#nodes() };
      case 'ls':
        return { ok: true, data: await this.#list(args as { domain?: string; after?: string }) };
      case 'show':
        return { ok: true, data: await this.#show(args as { domain: string; name: string }) };
      default:
        return { ok: false, code: 'TSDLM_USAGE', text: `unknown administration verb ${JSON.stringify(verb)}` };
    }
  }

  /** A question of another node: answered from what this node masters. */
  onQuery(from: NodeId, m: Extract<ControlMessage, { k: 'Query' }>): void {
    const { core } = this.#host;
    const args = (m.args ?? {}) as { domain?: unknown; name?: unknown; after?: unknown };
    const text = (v: unknown): string => (typeof v === 'string' ? v : '');
    let data: unknown = null;
    if (m.verb.startsWith('table-')) data = this.#table.onQuery(m.verb, asRecord(m.args));
    else if (m.verb.startsWith('fence-')) data = this.#fence.onQuery(m.verb, asRecord(m.args));
    else if (NODE_VERBS.includes(m.verb)) data = this.#node.onQuery(m.verb, asRecord(m.args));
    else if (m.verb === 'show') data = masteredResource(core.engine, text(args.domain), text(args.name));
    else if (m.verb === 'ls') {
      const domain = text(args.domain);
      data = masteredResources(core.engine, domain === '' ? null : domain, text(args.after), LIST_PAGE_MAX).map((r) =>
        this.#entry(r),
      );
    }
    this.#host.send(from, { k: 'QueryReply', id: m.id, ok: true, data });
  }

  onQueryReply(m: Extract<ControlMessage, { k: 'QueryReply' }>): void {
    const resolve = this.#pending.get(m.id);
    this.#pending.delete(m.id);
    resolve?.(m.data);
  }

  /** Asks all other members; null for those that do not answer in time. */
  async #askAll(verb: string, args: Record<string, unknown>): Promise<{ node: NodeId; data: unknown }[]> {
    const { core, self } = this.#host;
    const members = core.view.nodes.filter((n) => n.id !== self && ['in', 'suspect', 'leaving'].includes(n.state));
    return Promise.all(members.map(async ({ id: node }) => ({ node, data: await this.#ask(node, verb, args) })));
  }

  /** Asks one node; null when it does not answer in time. */
  async #ask(node: NodeId, verb: string, args: Record<string, unknown>): Promise<unknown> {
    if (this.#pending.size >= QUERIES_MAX)
      throw new TsdlmError('TSDLM_OVERLOADED', 'too many administration questions at once: ask again');
    const id = this.#nextQuery++;
    return new Promise<unknown>((resolve) => {
      const timer = setTimeout(() => {
        this.#pending.delete(id);
        resolve(null);
      }, QUERY_MS);
      this.#pending.set(id, (value) => {
        clearTimeout(timer);
        resolve(value);
      });
      this.#host.send(node, { k: 'Query', id, verb, args });
    });
  }

  #ref(id: NodeId): NodeRef {
    return { id, name: this.#host.core.view.nodes.find((n) => n.id === id)?.name ?? (id === 0 ? '' : `node-${id}`) };
  }

  #status(): StatusData {
    const h = this.#host;
    const view = h.core.view;
    const { alone } = view;
    const me = view.nodes.find((n) => n.id === h.self);
    const now = h.now();
    return {
      node: { id: h.self, name: me?.name ?? hostname() },
      role: roleOf(h),
      quorum: quorumOf(h),
      domains: domainsOf(h, (id) => this.#ref(id)),
      cluster: h.cluster,
      version: h.version,
      pid: process.pid,
      uptimeMs: Math.round(now - this.#startedAt),
      isMember: h.core.isMember,
      state: me?.state ?? 'out',
      startCount: me?.incarnation?.startCount ?? 0,
      epoch: view.epoch,
      leader: h.core.leader === 0 ? null : this.#ref(h.core.leader),
      leaseLeftMs: Math.max(0, Math.round(h.core.leaseUntil - now)),
      isSuspended: h.core.isSuspended,
      waitsFor: this.#waitsFor(),
      alone: alone && { survivor: this.#ref(alone.survivor), peer: this.#ref(alone.peer), method: alone.method },
      members: view.nodes.map((n) => ({ id: n.id, name: n.name, state: n.state, voter: n.voter, witness: n.witness })),
      limits: {
        heartbeatMs: h.limits.heartbeatMs,
        leaseMs: h.limits.leaseMs,
        marginMs: h.limits.marginMs,
        suspectMs: h.limits.suspectMs,
        deadMs: h.limits.deadMs,
        electionMs: h.limits.electionMs,
        isSettling: view.limits?.former != null,
      },
      journal: h.journal(),
      links: h.links().map((l) => ({ ...l, name: this.#ref(l.node).name, address: h.addressOf(l.node) })),
      sessions: h.sessions(),
      locks: countLocal(h.core.engine),
      nodeOwnedAllowed: h.nodeOwnedAllowed(),
      armedMs: me?.armedMs ?? 0,
      bridge: h.bridge(),
      files: h.files.data(),
      warnings: [...this.#suspended(), ...this.#arbitrating(), ...policyWarnings(h), ...this.#fence.warnings(), ...h.warnings()],
    };
  }

  /** Domains in which nothing is granted because no server lives. */
  #arbitrating(): string[] {
    return domainsOf(this.#host, (id) => this.#ref(id))
      .filter((d) => d.masters.length === 0)
      .map(
        (d) => `no server of domain ${d.name} lives: nothing is granted there, and what is held stays held, until one comes back`,
      );
  }

  #waitsFor(): { node: NodeRef; why: string } | null {
    const waiting = this.#host.core.waitingFor;
    return waiting && { node: this.#ref(waiting.node), why: waiting.why };
  }

  #suspended(): string[] {
    const waits = this.#waitsFor();
    const text = waits === null ? [] : [`this node needs node ${waits.node.name}: ${waits.why}`];
    if (!this.#host.core.isSuspended) return text;
    return [
      ...text,
      'this node is suspended: it has no quorum and grants nothing; its owners keep what they hold, for nobody is granted it before this machine was fenced',
    ];
  }

  #freeFiles(args: Record<string, unknown>, by: string): FilesFreeData {
    const filter: FilesFreeArgs = { all: args.all === true };
    for (const key of ['mount', 'domain', 'name'] as const) {
      const value = args[key];
      if (typeof value === 'string') filter[key] = value;
    }
    return { freed: this.#host.files.freeOrphans(filter, by) };
  }

  #nodes(): NodesData {
    const h = this.#host;
    const links = new Map(h.links().map((l) => [l.node, l.state]));
    return {
      epoch: h.core.view.epoch,
      nodes: h.core.view.nodes.map((n) => ({
        id: n.id,
        name: n.name,
        state: n.state,
        voter: n.voter,
        witness: n.witness,
        wantsVote: n.wantsVote,
        fence: n.fence,
        journal: n.journal,
        isLeader: h.core.leader === n.id,
        isSelf: n.id === h.self,
        address: h.addressOf(n.id),
        incarnation: n.incarnation ? { startCount: n.incarnation.startCount, bootId: n.incarnation.bootId } : null,
        link: n.id === h.self ? 'self' : (links.get(n.id) ?? 'down'),
        fencedBy: n.fencedBy,
        isConfirmed: openFence(h.core.view, n.id, n.incarnation?.startCount ?? 0)?.confirmed != null,
      })),
    };
  }

  async #list(args: { domain?: string; after?: string }): Promise<ListData> {
    const h = this.#host;
    const after = args.after ?? '';
    const domain = args.domain ?? '';
    const mine = masteredResources(h.core.engine, domain === '' ? null : domain, after, LIST_PAGE_MAX).map((r) => this.#entry(r));
    const others = await this.#askAll('ls', { domain, after });
    const all = [...mine];
    for (const { data } of others) if (Array.isArray(data)) all.push(...(data as ListEntry[]));
    const keyOf = (e: ListEntry): string => `${e.domain}\0${e.name}`;
    all.sort((a, b) => (keyOf(a) < keyOf(b) ? -1 : 1));
    const orphans = new Set(h.files.orphans().map((o) => `${o.domain}\0${o.name}`));
    const locks = all.slice(0, LIST_PAGE_MAX).map((e) => (orphans.has(keyOf(e)) ? { ...e, isOrphan: true } : e));
    const last = locks.at(-1);
    return { locks, next: all.length > LIST_PAGE_MAX && last ? keyOf(last) : null };
  }

  #entry(r: ResourceDump): ListEntry {
    const holders = [...r.granted, ...r.converting, ...r.blocked].filter((l) => l.mode !== -1);
    const first = holders[0];
    return {
      domain: r.domain,
      name: r.name,
      mode: modeName(Math.max(0, ...holders.map((l) => l.mode)) as Mode),
      owner: first?.who ?? '',
      node: first ? this.#ref(first.node) : null,
      holders: r.holders,
      waiting: r.waiting,
      isNodeOwned: holders.some((l) => l.isNodeOwned),
      isOrphan: false,
    };
  }

  async #show(args: { domain: string; name: string }): Promise<ShowData> {
    const h = this.#host;
    let found = masteredResource(h.core.engine, args.domain, args.name);
    let master = h.self;
    if (!found) {
      for (const { node, data } of await this.#askAll('show', { domain: args.domain, name: args.name })) {
        if (data === null || typeof data !== 'object') continue;
        found = data as ResourceDump;
        master = node;
      }
    }
    if (!found || found.granted.length + found.converting.length + found.blocked.length === 0) {
      throw new TsdlmError('TSDLM_NOT_HELD', `nobody holds or waits for ${args.domain}/${args.name}`);
    }
    const waiting = [...found.converting, ...found.blocked];
    const states = ['none', 'valid', 'invalid'] as const;
    return {
      domain: found.domain,
      name: found.name,
      master: this.#ref(master),
      lvbState: states[found.lvbState] ?? 'none',
      holders: [...found.granted, ...waiting]
        .filter((l) => l.mode !== -1)
        .slice(0, SHOW_WAITERS_MAX)
        .map((l) => ({
          mode: modeName(l.mode as Mode),
          node: this.#ref(l.node),
          who: l.who,
          why: l.why,
          token: l.token,
          sinceMs: l.sinceMs,
          isNodeOwned: l.isNodeOwned,
        })),
      waiting: waiting.slice(0, SHOW_WAITERS_MAX).map((l) => this.#waiter(l)),
      moreWaiting: Math.max(0, found.waiting - Math.min(waiting.length, SHOW_WAITERS_MAX)),
    };
  }

  #waiter(l: LockDump): ShowData['waiting'][number] {
    return {
      from: l.mode === -1 ? null : modeName(l.mode),
      mode: modeName(l.want as Mode),
      node: this.#ref(l.node),
      who: l.who,
      why: l.why,
      sinceMs: l.sinceMs,
    };
  }
}

function asRecord(value: unknown): Record<string, unknown> {
  return typeof value === 'object' && value !== null ? (value as Record<string, unknown>) : {};
}
