/**
 * The administration verbs of fencing: `tsdlm fence node | confirm | history | check | trust`.
 *
 * Who is fenced and what counts is decided by the leader, so the two orders go there, over the link between the daemons where
 * this node does not lead. Each names the incarnation that the operator saw: an order that arrives late never hits the next one.
 * Every order is in the log of the node that took it and of the leader, with who gave it.
 */
import type { NodeCore } from '../core/node-core.js';
import type { FenceDevice, FenceMonitor } from '../fence/monitor.js';
import type { FenceRunner } from '../fence/runner.js';
import { isDistrusted, openFence } from '../membership/fence-record.js';
import { LOST_HISTORY_EPOCHS } from '../membership/sole-voter.js';
import type { FenceRecord, FenceVerdict } from '../membership/types.js';
import type {
  FenceCheckData,
  FenceHistoryData,
  FenceOperation,
  FenceOrderData,
  FenceStepEntry,
  FenceStepsData,
  FenceTrustData,
  LostHistoryData,
  NodeRef,
} from '../protocol/admin.js';
import { type ErrorCode, TsdlmError } from '../protocol/errors.js';
import type { NodeId } from '../protocol/ids.js';

/** Entries that one node gives of its history, and how much of each text. */
const HISTORY_PER_NODE = 50;
const DETAIL_CHARS = 500;
/** The reason is part of a log entry of at most 200 bytes. */
const REASON_CHARS = 80;
const BY_CHARS = 100;
const METHOD_CHARS = 64;

/** A node with its fence levels. */
export interface FencedNode {
  id: NodeId;
  name: string;
  fence: readonly (readonly string[])[];
}

export interface FenceAdminHost {
  core: NodeCore;
  self: NodeId;
  runner: FenceRunner;
  monitor: FenceMonitor;
  /** Nodes of the table with their fence levels. */
  nodes(): readonly FencedNode[];
  now(): number;
  ref(id: NodeId): NodeRef;
  /** Asks another node; null when it does not answer in time. */
  ask(node: NodeId, verb: string, args: Record<string, unknown>): Promise<unknown>;
  askAll(verb: string, args: Record<string, unknown>): Promise<{ node: NodeId; data: unknown }[]>;
  log(level: 'info' | 'warn' | 'error', event: string, data: Record<string, unknown>): void;
}

type Order = { verb: 'fence-node' | 'fence-confirm'; node: NodeId; startCount: number; reason: string; by: string };
const ORDERS: readonly string[] = ['fence-node', 'fence-confirm'];

/** Devices of these nodes, each once per node; what needs no device is left out. */
export function devicesOf(nodes: readonly FencedNode[], runner: Pick<FenceRunner, 'hasDevice'>): FenceDevice[] {
  return nodes.flatMap(({ name, fence }) =>
    [...new Set(fence.flat())].filter((method) => runner.hasDevice(method)).map((method) => ({ node: name, method })),
  );
}

export class FenceAdmin {
  readonly #host: FenceAdminHost;

  constructor(host: FenceAdminHost) {
    this.#host = host;
  }

  /** One verb of a local client. `by`: who asks. Throws TsdlmError. */
  async run(verb: string, args: Record<string, unknown>, by: string): Promise<unknown> {
    switch (verb) {
      case 'fence-history':
        return this.#history(args.node);
      case 'fence-steps':
        return this.#steps();
      case 'fence-trust':
        return this.#trust(args.node, args.method, by);
      case 'fence-check':
        return this.#check(args.node);
      case 'fence-node':
      case 'fence-confirm':
        return this.#order(verb, args, by);
      case 'fence-lost-history':
        return this.#lostHistory(args.node, by);
      default:
        throw new TsdlmError('TSDLM_USAGE', `unknown administration verb ${JSON.stringify(verb.slice(0, 40))}`);
    }
  }

  /** By this node itself, for there is no leader: it goes on without the other of two voters (rule 13). */
  #lostHistory(name: unknown, by: string): LostHistoryData {
    const { core, now, log } = this.#host;
    const node = core.view.nodes.find((n) => n.name === name);
    if (node === undefined) throw unknownNode(name);
    const before = core.view.epoch;
    log('warn', 'lost-history-asked', { node: node.name, by, epoch: before });
    const verdict = core.acceptLostHistory(now(), node.id, short(by, BY_CHARS));
    log('warn', 'lost-history', { node: node.name, by, ...verdict });
    if (!verdict.ok) throw new TsdlmError('TSDLM_NOT_ALLOWED', verdict.text);
    return { node: node.name, epoch: before + LOST_HISTORY_EPOCHS };
  }

  /** A question of another daemon. */
  onQuery(verb: string, args: Record<string, unknown>): unknown {
    if (verb === 'fence-steps') return this.#own();
    const { node, startCount, reason, by, method } = args;
    if (typeof node !== 'number') return null;
    if (verb === 'fence-trust') return this.#obeyTrust(node, short(method, METHOD_CHARS), short(by, BY_CHARS));
    if (!ORDERS.includes(verb) || typeof startCount !== 'number') return null;
    return this.#obey({
      verb: verb as Order['verb'],
      node,
      startCount,
      reason: short(reason, REASON_CHARS),
      by: short(by, BY_CHARS),
    });
  }

  /** For status: who is being fenced, and what a person can do about it. */
  warnings(): string[] {
    const { view } = this.#host.core;
    const fencing = view.nodes
      .filter((n) => n.state === 'fencing')
      .map(({ id, name, incarnation }) => {
        const record = openFence(view, id, incarnation?.startCount ?? 0);
        const last = record?.tries.at(-1);
        const failed =
          record === undefined || last === undefined ? '' : `; ${record.tried} tries have failed, the last: ${last.detail}`;
        return `node ${name} is being fenced and its locks wait${failed}; if no method succeeds, verify that it is off and run: tsdlm fence confirm ${name}`;
      });
    const distrusted = view.distrusted.map(({ node, method, why }) => {
      const { name } = this.#host.ref(node);
      return `fence method ${method} is not believed any more about node ${name}: ${why}; look which machine it switches, reboot ${name}, then run: tsdlm fence trust ${name} ${method}`;
    });
    return [...fencing, ...distrusted];
  }

  /** From the view, so every node answers the same. */
  #history(name: unknown): FenceHistoryData {
    const { view } = this.#host.core;
    const wanted = name === undefined ? undefined : view.nodes.find((n) => n.name === name);
    if (name !== undefined && wanted === undefined) throw unknownNode(name);
    const records = view.fencings.filter((r) => wanted === undefined || r.node === wanted.id);
    return { operations: records.map((r) => this.#operation(r)) };
  }

  #operation(r: FenceRecord): FenceOperation {
    const nameOf = (id: NodeId): string => this.#host.ref(id).name;
    const { confirmed } = r;
    return {
      node: nameOf(r.node),
      startCount: r.startCount,
      reason: r.reason,
      began: iso(r.begunAt),
      fencers: r.fencers.map(nameOf),
      tries: r.tries.map(({ by, at, level, ...rest }) => ({ by: nameOf(by), at: iso(at), level: level + 1, ...rest })),
      tried: r.tried,
      confirmed: confirmed && { who: confirmed.who, through: nameOf(confirmed.by), at: iso(confirmed.at) },
      outcome: r.outcome === '' ? 'running' : r.outcome,
      method: r.method,
      isDisproved: r.doubted,
    };
  }

  /** A device is believed again, because a person says so. */
  async #trust(name: unknown, method: unknown, by: string): Promise<FenceTrustData> {
    const { core, self, log } = this.#host;
    const node = core.view.nodes.find((n) => n.name === name);
    if (node === undefined) throw unknownNode(name);
    if (typeof method !== 'string' || !isDistrusted(core.view, node.id, method)) {
      const text = `fence method ${JSON.stringify(String(method).slice(0, METHOD_CHARS))} is not distrusted about node ${node.name}: nothing was done`;
      throw new TsdlmError('TSDLM_NOT_ALLOWED', text);
    }
    const leader = this.#leader();
    const order = { node: node.id, method, by: short(by, BY_CHARS) };
    log('warn', 'fence-trust-asked', { node: node.name, method, by });
    const answer =
      leader === self ? this.#obeyTrust(node.id, method, order.by) : await this.#host.ask(leader, 'fence-trust', order);
    if (typeof answer !== 'object' || answer === null) {
      throw new TsdlmError('TSDLM_OUTCOME_UNKNOWN', 'the leader did not answer: look at tsdlm status and ask again');
    }
    return { node: node.name, method, leader: this.#host.ref(leader) };
  }

  #obeyTrust(node: NodeId, method: string, by: string): FenceVerdict {
    const { core, now, log } = this.#host;
    const verdict = core.trustFence(now(), node, method, by);
    log('warn', 'fence-trust', { node: this.#host.ref(node).name, method, by, ...verdict });
    return verdict;
  }

  #leader(): NodeId {
    const { leader } = this.#host.core;
    if (leader !== 0) return leader;
    throw new TsdlmError(
      'TSDLM_UNAVAILABLE',
      'the cluster has no leader now, and only a leader fences: ask again, or another node',
    );
  }

  async #steps(): Promise<FenceStepsData> {
    const entries = this.#own();
    const silent: NodeRef[] = [];
    for (const { node, data } of await this.#host.askAll('fence-steps', {})) {
      if (Array.isArray(data)) entries.push(...(data as FenceStepEntry[]));
      else silent.push(this.#host.ref(node));
    }
    return { results: entries.sort((a, b) => b.agoMs - a.agoMs), silent };
  }

  #own(): FenceStepEntry[] {
    const by = this.#host.ref(this.#host.self);
    const now = Date.now();
    return this.#host.runner
      .history()
      .slice(-HISTORY_PER_NODE)
      .map((r) => ({
        agoMs: Math.max(0, now - r.at),
        by,
        node: r.nodeName,
        startCount: r.startCount,
        method: r.method,
        step: r.step,
        attempt: r.attempt,
        reason: r.reason,
        ok: r.ok,
        detail: r.detail.slice(0, DETAIL_CHARS),
        tookMs: r.ms,
      }));
  }

  async #check(name: unknown): Promise<FenceCheckData> {
    const { runner, monitor, self } = this.#host;
    const nodes = this.#host.nodes();
    const wanted = name === undefined ? nodes : nodes.filter((n) => n.name === name);
    if (wanted.length === 0) throw unknownNode(name);
    const devices = await Promise.all(
      devicesOf(wanted, runner).map(async (device) => {
        const { ok, detail } = await monitor.look(device);
        return { ...device, ok, detail: detail.slice(0, DETAIL_CHARS) };
      }),
    );
    return { at: this.#host.ref(self), devices };
  }

  async #order(verb: Order['verb'], args: Record<string, unknown>, by: string): Promise<FenceOrderData> {
    const { self, log } = this.#host;
    const nodes = this.#host.nodes();
    const victim = nodes.find((n) => n.name === args.node);
    if (victim === undefined) throw unknownNode(args.node);
    const { startCount } = args;
    if (typeof startCount !== 'number') throw new TsdlmError('TSDLM_BAD_ARGUMENT', 'startCount must be given as a number');
    const leader = this.#leader();
    const reason = typeof args.reason === 'string' ? args.reason : '';
    const order: Order = { verb, node: victim.id, startCount, reason: short(reason, REASON_CHARS), by: short(by, BY_CHARS) };
    log('warn', `${verb}-asked`, { node: victim.name, startCount, by, reason: order.reason, leader });
    const answer = leader === self ? this.#obey(order) : await this.#host.ask(leader, verb, { ...order });
    if (typeof answer !== 'object' || answer === null) {
      const text = `node ${this.#host.ref(leader).name}, which leads, did not answer: look at the state of ${victim.name} and ask again`;
      throw new TsdlmError('TSDLM_OUTCOME_UNKNOWN', text);
    }
    const verdict = answer as { ok?: unknown; text?: unknown };
    if (verdict.ok !== true) {
      const code: ErrorCode = 'TSDLM_NOT_ALLOWED';
      throw new TsdlmError(code, short(verdict.text, DETAIL_CHARS) || `the leader refused to fence ${victim.name}`);
    }
    return { node: { id: victim.id, name: victim.name }, startCount, leader: this.#host.ref(leader) };
  }

  /** At the leader. */
  #obey({ verb, node, startCount, reason, by }: Order): FenceVerdict {
    const { core, runner, now, log } = this.#host;
    const { name: nodeName } = this.#host.ref(node);
    if (verb === 'fence-node') {
      const why = `by ${by}${reason === '' ? '' : `: ${reason}`}`;
      const verdict = core.fenceNode(now(), node, startCount, why);
      log('warn', 'fence-node', { node: nodeName, startCount, by, reason, ...verdict });
      return verdict;
    }
    const verdict = core.confirmFence(now(), node, startCount, by);
    log('warn', 'fence-confirm', { node: nodeName, startCount, by, ...verdict });
    if (verdict.ok) {
      const run = { op: 0, node, nodeName, startCount, method: 'manual', reason: `by ${by}`, attempt: 1, together: 1 };
      runner.note({ ...run, step: 'confirm', ok: true, detail: `confirmed by ${by}`, at: Date.now(), ms: 0 });
    }
    return verdict;
  }
}

/** '' for no point in time. */
function iso(wallMs: number): string {
  return wallMs > 0 && wallMs < 8e15 ? new Date(wallMs).toISOString() : '';
}

function unknownNode(name: unknown): TsdlmError {
  const shown = JSON.stringify(String(name).slice(0, 80));
  return new TsdlmError('TSDLM_UNKNOWN_NODE', `node ${shown} is not in the node table: tsdlm nodes lists them`);
}

/** Printable and bounded: it came from a client, and goes into logs and other daemons. */
function short(value: unknown, chars: number): string {
  const text = typeof value === 'string' ? value : '';
  return text.replace(/[^\x20-\x7e]/g, '?').slice(0, chars);
}
