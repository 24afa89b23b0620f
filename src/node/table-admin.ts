/**
 * The administration verb `table-step`: one step towards a goal of the node table or the time limits.
 *
 * Any node takes the goal from its client and hands it to the leader, which compares it with its view, judges the next command and
 * puts it into the log; what it answers (done, waits for what, refused why) goes back. Who asked stands in both logs.
 * A fence level may name only methods that the voters have definitions for, because one of them will have to use it: those that
 * answer are asked before, the others are named in the answer.
 */
import type { NodeCore } from '../core/node-core.js';
import type { NodeRef } from '../protocol/admin.js';
import { type ErrorCode, TsdlmError } from '../protocol/errors.js';
import type { NodeId } from '../protocol/ids.js';
import type { TableGoal, TableStepData } from '../protocol/table-goal.js';
import { BUILT_IN_METHODS } from './config-fence.js';
import { codeFrom, nextStep, parseGoal } from './table-goal.js';

export interface TableAdminHost {
  core: NodeCore;
  self: NodeId;
  /** Fence methods that this node's configuration defines. */
  methods: readonly string[];
  now(): number;
  ref(id: NodeId): NodeRef;
  /** Asks another node; null when it does not answer in time. */
  ask(node: NodeId, verb: string, args: Record<string, unknown>): Promise<unknown>;
  log(level: 'info' | 'warn' | 'error', event: string, data: Record<string, unknown>): void;
}

/** Between daemons. */
type Answer = { state: 'done' | 'wait'; why: string } | { state: 'error'; code: ErrorCode; text: string };

export class TableAdmin {
  readonly #host: TableAdminHost;

  constructor(host: TableAdminHost) {
    this.#host = host;
  }

  /** One step for a local client. `by`: who asks. Throws TsdlmError. */
  async step(args: Record<string, unknown>, by: string): Promise<TableStepData> {
    const { core, self, ref } = this.#host;
    const goal = parseGoal(args);
    const { leader } = core;
    if (leader === 0) {
      throw new TsdlmError(
        'TSDLM_UNAVAILABLE',
        'the cluster has no leader now, and only a leader changes its node table: ask again',
      );
    }
    const unasked = goal.what === 'add' || goal.what === 'set' ? await this.#checkMethods(goal.fence) : [];
    const answer = leader === self ? this.#obey(goal, by) : await this.#host.ask(leader, 'table-step', { ...goal, by });
    if (typeof answer !== 'object' || answer === null) {
      throw new TsdlmError('TSDLM_OUTCOME_UNKNOWN', `node ${ref(leader).name}, which leads, did not answer: ask again`);
    }
    const { state, why, code, text } = answer as Record<string, unknown>;
    if (state === 'error') throw new TsdlmError(codeFrom(code, 'TSDLM_NOT_ALLOWED'), short(text, 500));
    return { done: state === 'done', why: short(why, 500), leader: ref(leader), unasked };
  }

  /** A question of another daemon. */
  onQuery(verb: string, args: Record<string, unknown>): unknown {
    if (verb === 'table-methods') return [...this.#host.methods, ...BUILT_IN_METHODS];
    try {
      return this.#obey(parseGoal(args), short(args.by, 100));
    } catch (error) {
      if (error instanceof TsdlmError) return { state: 'error', code: error.code, text: error.message };
      throw error;
    }
  }

  #obey(goal: TableGoal, by: string): Answer {
    const { core, now, log } = this.#host;
    try {
      const command = nextStep(core.view, goal);
      if (command === null) return { state: 'done', why: '' };
      if (typeof command === 'string') return { state: 'wait', why: command };
      const verdict = core.changeTable(now(), command);
      if (verdict.what === 'wait') return { state: 'wait', why: verdict.why };
      const level = verdict.what === 'taken' ? 'info' : 'warn';
      log(level, `table-change-${verdict.what}`, {
        by,
        ...plainCommand(command),
        ...(verdict.what === 'refuse' ? { why: verdict.text } : {}),
      });
      if (verdict.what === 'refuse') return { state: 'error', code: 'TSDLM_NOT_ALLOWED', text: verdict.text };
      return { state: 'wait', why: 'the change is on its way through the log' };
    } catch (error) {
      if (error instanceof TsdlmError) return { state: 'error', code: error.code, text: error.message };
      throw error;
    }
  }

  /** Throws TSDLM_NOT_ALLOWED naming a voter that has no definition; gives the names of those that did not answer. */
  async #checkMethods(fence: readonly (readonly string[])[]): Promise<string[]> {
    const { core, self, methods } = this.#host;
    const named = [...new Set(fence.flat())].filter((m) => !BUILT_IN_METHODS.includes(m));
    if (named.length === 0) return [];
    const unasked: string[] = [];
    await Promise.all(
      core.view.nodes
        .filter((n) => n.voter && !n.witness)
        .map(async (node) => {
          const known = node.id === self ? [...methods] : await this.#host.ask(node.id, 'table-methods', {});
          if (!Array.isArray(known)) {
            unasked.push(node.name);
            return;
          }
          const missing = named.find((m) => !known.includes(m));
          if (missing === undefined) return;
          throw new TsdlmError(
            'TSDLM_NOT_ALLOWED',
            `fence method "${missing}" is not defined on node ${node.name}, which votes and may have to use it: define it there with [fence.${missing}]`,
          );
        }),
    );
    return unasked.sort();
  }
}

/** A command for the log of the daemon. */
function plainCommand(command: object): Record<string, unknown> {
  return { change: JSON.stringify(command).slice(0, 500) };
}

/** Printable and bounded: it came from a client, or from another daemon. */
function short(value: unknown, chars: number): string {
  const text = typeof value === 'string' ? value : '';
  return text.replace(/[^\x20-\x7e]/g, '?').slice(0, chars);
}
