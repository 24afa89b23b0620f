/**
 * The administration verbs about a node as a whole: `tsdlm stats`, `tsdlm node shutdown`, `tsdlm domain join`.
 *
 * What a shutdown costs only the node itself knows (its locks), so it judges and stops itself; another node's daemon only passes the
 * question on. It refuses when it would cost the quorum, or when locks would be lost, unless it is forced.
 */
import type { NodeCore } from '../core/node-core.js';
import { countMastered, countOwned } from '../master/dump.js';
import { MASTERY_POLICIES, type MasteryPolicy } from '../membership/types.js';
import { majority, votersOf } from '../membership/voter-set.js';
import type { DomainEntry, NodeRef, ShutdownData, StatsData } from '../protocol/admin.js';
import { TsdlmError } from '../protocol/errors.js';
import type { Millis, NodeId } from '../protocol/ids.js';
import { DOMAIN_BYTES_MAX } from '../protocol/limits.js';
import { domain as domainField } from '../protocol/schema.js';
import { domainsOf, quorumOf, roleOf } from './roles.js';

/** How long a domain may take until this node is in it, and how often that is looked at. */
const JOIN_MS = 10_000;
const JOIN_POLL_MS = 50;
/** Locks that a refusal names. */
const NAMED_MAX = 5;
const TEXT_CHARS = 1000;

export interface NodeAdminHost {
  core: NodeCore;
  self: NodeId;
  cluster: string;
  version: string;
  configSum: string;
  startedAt: Millis;
  now(): Millis;
  ref(id: NodeId): NodeRef;
  links(): { node: number; state: string; backlogBytes: number }[];
  journal(): { state: string; sizeBytes: number };
  sessions(): number;
  /** Asks another node; null when it does not answer in time. */
  ask(node: NodeId, verb: string, args: Record<string, unknown>): Promise<unknown>;
  /** Begins a clean stop of this daemon. `by`: who asked. */
  shutdown(by: string): void;
  log(level: 'info' | 'warn' | 'error', event: string, data: Record<string, unknown>): void;
}

export const NODE_VERBS: readonly string[] = ['stats', 'node-shutdown', 'domain-join'];

export class NodeAdmin {
  readonly #host: NodeAdminHost;

  constructor(host: NodeAdminHost) {
    this.#host = host;
  }

  /** One verb of a local client. `by`: who asks. Throws TsdlmError. */
  async run(verb: string, args: Record<string, unknown>, by: string): Promise<unknown> {
    if (verb === 'domain-join') return this.#join(args.domain, args.mastery);
    const target = args.node === undefined ? this.#host.self : this.#find(args.node);
    const order = { force: args.force === true, by };
    const answer = target === this.#host.self ? this.#answer(verb, order) : await this.#host.ask(target, verb, order);
    if (typeof answer !== 'object' || answer === null) {
      const { name } = this.#host.ref(target);
      throw verb === 'stats'
        ? new TsdlmError('TSDLM_UNAVAILABLE', `node ${name} does not answer`)
        : new TsdlmError('TSDLM_OUTCOME_UNKNOWN', `node ${name} does not answer: look at tsdlm nodes`);
    }
    const { refused } = answer as { refused?: unknown };
    if (typeof refused === 'string') throw new TsdlmError('TSDLM_NOT_ALLOWED', refused.slice(0, TEXT_CHARS));
    return answer;
  }

  /** A question of another daemon. */
  onQuery(verb: string, args: Record<string, unknown>): unknown {
    const by = typeof args.by === 'string' ? args.by.slice(0, 100) : '';
    return NODE_VERBS.includes(verb) && verb !== 'domain-join' ? this.#answer(verb, { force: args.force === true, by }) : null;
  }

  #answer(verb: string, order: { force: boolean; by: string }): StatsData | ShutdownData | { refused: string } {
    return verb === 'stats' ? this.#stats() : this.#shutdown(order.force, order.by);
  }

  #find(name: unknown): NodeId {
    const { nodes } = this.#host.core.view;
    const found = nodes.find((n) => n.name === name);
    if (found) return found.id;
    const shown = JSON.stringify(String(name).slice(0, 80));
    throw new TsdlmError('TSDLM_BAD_ARGUMENT', `there is no node ${shown}; there are ${nodes.map((n) => n.name).join(', ')}`);
  }

  #stats(): StatsData {
    const h = this.#host;
    const { view, leader, membership } = h.core;
    const { rss, heapUsed, external } = process.memoryUsage();
    const { state, sizeBytes } = h.journal();
    return {
      node: h.ref(h.self),
      cluster: h.cluster,
      version: h.version,
      pid: process.pid,
      uptimeMs: Math.round(h.now() - h.startedAt),
      role: roleOf(h),
      state: view.nodes.find((n) => n.id === h.self)?.state ?? 'out',
      epoch: view.epoch,
      term: membership.term,
      rank: votersOf(view).indexOf(h.self) + 1,
      leader: leader === 0 ? null : h.ref(leader),
      quorum: quorumOf(h),
      leaseLeftMs: Math.max(0, Math.round(h.core.leaseUntil - h.now())),
      configSum: h.configSum,
      domains: domainsOf(h, h.ref),
      mastered: countMastered(h.core.engine),
      owned: countOwned(h.core.engine),
      counters: { ...h.core.engine.state.counters },
      links: h.links().map((l) => ({ name: h.ref(l.node).name, state: l.state, backlogBytes: l.backlogBytes })),
      sessions: h.sessions(),
      journal: { state, sizeBytes },
      memory: { rssBytes: rss, heapBytes: heapUsed, externalBytes: external },
    };
  }

  #shutdown(force: boolean, by: string): ShutdownData | { refused: string } {
    const h = this.#host;
    const me = h.ref(h.self);
    const costs = this.#costs();
    h.log('warn', 'node-shutdown-asked', { by, force, costs });
    if (costs.length > 0 && !force) {
      return { refused: `a shutdown of ${me.name} is refused: ${costs.join('; ')}; --force does it all the same` };
    }
    const startCount = h.core.view.nodes.find((n) => n.id === h.self)?.incarnation?.startCount ?? 0;
    // The answer leaves first.
    setImmediate(() => h.shutdown(by));
    return { node: me, startCount, costs };
  }

  /** What the cluster and the owners here would lose, in sentences. */
  #costs(): string[] {
    const { core, self } = this.#host;
    const costs: string[] = [];
    const voters = votersOf(core.view);
    const others = core.view.nodes.filter((n) => n.id !== self && ['in', 'suspect', 'leaving'].includes(n.state));
    const left = others.filter((n) => n.voter && n.state === 'in').length;
    if (voters.includes(self) && others.length > 0 && left < majority(voters)) {
      costs.push(
        `${left} of ${voters.length} voters would be left, and ${majority(voters)} are needed: nobody would be granted anything`,
      );
    }
    const held = [...core.engine.state.own.values()].filter((l) => l.mode !== -1);
    const nodeOwned = held.filter((l) => l.nodeOwned);
    const inUse = held.filter((l) => !l.nodeOwned && l.mode > 0);
    const name = (locks: typeof held): string => {
      const names = locks.slice(0, NAMED_MAX).map((l) => `${l.domain}/${l.name}`);
      return `${names.join(', ')}${locks.length > NAMED_MAX ? ', ...' : ''}`;
    };
    if (nodeOwned.length > 0) costs.push(`${nodeOwned.length} locks that the node owns would be released (${name(nodeOwned)})`);
    if (inUse.length > 0) costs.push(`${inUse.length} locks that programs here hold would be lost (${name(inUse)})`);
    return costs;
  }

  async #join(domain: unknown, mastery: unknown): Promise<DomainEntry> {
    const { core, now, ref } = this.#host;
    if (!domainField.is(domain)) {
      throw new TsdlmError('TSDLM_BAD_ARGUMENT', `a domain is named by 1 to ${DOMAIN_BYTES_MAX} bytes without "/"`);
    }
    if (mastery !== undefined && !MASTERY_POLICIES.includes(mastery as MasteryPolicy)) {
      throw new TsdlmError('TSDLM_BAD_ARGUMENT', `mastery must be one of ${MASTERY_POLICIES.join(', ')}`);
    }
    const end = now() + JOIN_MS;
    for (;;) {
      const text = core.joinDomain(now(), domain, (mastery as MasteryPolicy | undefined) ?? null);
      if (text !== null) throw new TsdlmError('TSDLM_NOT_ALLOWED', text);
      const entry = domainsOf(this.#host, ref).find((d) => d.name === domain);
      if (entry) return entry;
      if (now() >= end) {
        throw new TsdlmError(
          'TSDLM_UNAVAILABLE',
          `this node is not in domain ${domain} after ${JOIN_MS / 1000} s: tsdlm status says whether there is a quorum`,
        );
      }
      await new Promise((resolve) => setTimeout(resolve, JOIN_POLL_MS));
    }
  }
}
