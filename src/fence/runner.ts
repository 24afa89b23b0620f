/**
 * Who runs fence methods, and what became of it.
 *
 * The problem: several reasons may ask for the same victim at once, and shooting a node twice can hit it after it came back; and an
 * operator must see what failed, how often, and why.
 * The idea: one run per victim, life and method, shared by all who ask while it is under way; nothing is remembered as a success
 * afterwards (rule 15). The last results are kept for status.
 * It leaves order, retries and pauses to the membership core's fencing gate.
 */
import { ScriptMethod } from './script.js';
import { SELF_METHOD } from './self.js';
import type { FenceMethod, FenceMethodConfig, FenceOutcome } from './types.js';

/** As the membership core asks for it, with the victim's name. */
export interface FenceRun {
  op: number;
  node: number;
  nodeName: string;
  startCount: number;
  method: string;
  reason: string;
  attempt: number;
}

export interface FenceResult extends FenceRun, FenceOutcome {
  /** Wall clock, ms since 1970, for people only. */
  at: number;
  ms: number;
}

export interface FenceRunnerOptions {
  methods: ReadonlyMap<string, FenceMethodConfig>;
  log: (level: 'info' | 'warn' | 'error', event: string, data: Record<string, unknown>) => void;
  /** For tests and embedding: ready-made methods, instead of or besides configured ones. */
  extra?: readonly FenceMethod[];
}

const HISTORY_MAX = 100;

export function makeMethod(config: FenceMethodConfig): FenceMethod {
  switch (config.type) {
    case 'script':
      return new ScriptMethod(config);
  }
}

export class FenceRunner {
  readonly #methods = new Map<string, FenceMethod>([[SELF_METHOD.name, SELF_METHOD]]);
  readonly #log: FenceRunnerOptions['log'];
  readonly #running = new Map<string, Promise<FenceOutcome>>();
  readonly #stop = new AbortController();
  readonly #history: FenceResult[] = [];
  /** Tries in a row that failed, by victim and method. At most one entry per node and method of the configuration. */
  readonly #failing = new Map<string, { run: FenceRun; times: number; detail: string }>();

  constructor(options: FenceRunnerOptions) {
    this.#log = options.log;
    for (const config of options.methods.values()) this.#methods.set(config.name, makeMethod(config));
    for (const method of options.extra ?? []) this.#methods.set(method.name, method);
  }

  /** Runs the method on the victim, or joins the run that is under way. Never rejects: what cannot be run has failed. */
  run(request: FenceRun): Promise<FenceOutcome> {
    const key = `${request.node}/${request.startCount}/${request.method}`;
    const under = this.#running.get(key);
    if (under) {
      this.#log('info', 'fence-joined', { node: request.nodeName, method: request.method, op: request.op });
      return under;
    }
    const run = this.#run(request).finally(() => this.#running.delete(key));
    this.#running.set(key, run);
    return run;
  }

  async #run(request: FenceRun): Promise<FenceOutcome> {
    const { nodeName, node, method, reason, attempt, op } = request;
    const at = Date.now();
    this.#log('warn', 'fence-started', { node: nodeName, method, reason, attempt, op });
    const outcome = await this.#outcome(request);
    const ms = Date.now() - at;
    this.#history.push({ ...request, ...outcome, at, ms });
    if (this.#history.length > HISTORY_MAX) this.#history.shift();
    const failing = `${node}/${method}`;
    if (outcome.ok) this.#failing.delete(failing);
    else
      this.#failing.set(failing, { run: request, times: (this.#failing.get(failing)?.times ?? 0) + 1, detail: outcome.detail });
    this.#log(outcome.ok ? 'warn' : 'error', outcome.ok ? 'fence-done' : 'fence-failed', {
      node: nodeName,
      method,
      attempt,
      op,
      ms,
      detail: outcome.detail,
    });
    return outcome;
  }

  async #outcome({ nodeName, node, method, reason, attempt }: FenceRun): Promise<FenceOutcome> {
    const found = this.#methods.get(method);
    if (!found) return { ok: false, detail: `this node's configuration has no fence method "${method}": add [fence.${method}]` };
    try {
      return await found.fence({ nodeName, node, reason, attempt }, this.#stop.signal);
    } catch (error) {
      return { ok: false, detail: `${method} broke: ${error instanceof Error ? error.message : String(error)}` };
    }
  }

  /** True when the method ends the machine (rule 2). */
  endsMachine(method: string): boolean {
    return this.#methods.get(method)?.endsMachine ?? false;
  }

  /** The last results, oldest first. */
  history(): readonly FenceResult[] {
    return this.#history;
  }

  /** For status: methods whose last try failed. */
  warnings(): string[] {
    return [...this.#failing.values()].map(
      ({ run, times, detail }) =>
        `fencing ${run.nodeName} by ${run.method} has failed ${times === 1 ? 'once' : `${times} times`}: ${detail}`,
    );
  }

  /** Gives up what is under way: its process groups are killed. */
  close(): void {
    this.#stop.abort();
  }
}
