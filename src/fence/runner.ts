/**
 * Who runs fence methods, and what became of it.
 *
 * The problem: several reasons may ask for the same victim at once, and shooting a node twice can hit it after it came back; and an
 * operator must see what failed, how often, and why.
 * The idea: one run per victim, life, method and step, shared by all who ask while it is under way; nothing is remembered as a success
 * afterwards (rule 15). A run that nobody wants any more (a person confirmed, another leader was faster) is killed, so that no late
 * `off` hits a node that is a member again. Which victims this node has switched off is remembered only to switch them on again
 * once they count as fenced. The last results are kept for status and history.
 * It leaves order, retries and pauses to the membership core's fencing gate.
 */
import { setMaxListeners } from 'node:events';
import { AgentMethod } from './agent.js';
import { IpmiMethod } from './ipmi.js';
import { ScriptMethod } from './script.js';
import { MANUAL_METHOD, SELF_METHOD } from './self.js';
import type { FenceMethod, FenceMethodConfig, FenceOutcome, FenceTarget } from './types.js';

export type FenceStep = 'off' | 'verify' | 'on' | 'confirm';

/** As the membership core asks for it, with the victim's name. */
export interface FenceRun {
  op: number;
  node: number;
  nodeName: string;
  startCount: number;
  method: string;
  reason: string;
  attempt: number;
  step: 'off' | 'verify';
  /** Number of methods of the level. */
  together: number;
}

export interface FenceResult extends Omit<FenceRun, 'step'>, FenceOutcome {
  step: FenceStep;
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

/** What the view says of a node, as far as fencing cares. */
export interface FenceView {
  id: number;
  state: string;
  fencedBy: string;
  incarnation: { startCount: number } | null;
}

const HISTORY_MAX = 100;

export function makeMethod(config: FenceMethodConfig): FenceMethod {
  switch (config.type) {
    case 'script':
      return new ScriptMethod(config);
    case 'ipmi':
      return new IpmiMethod(config);
    case 'agent':
      return new AgentMethod(config);
  }
}

interface Under {
  node: number;
  startCount: number;
  outcome: Promise<FenceOutcome>;
  withdraw: AbortController;
}

export class FenceRunner {
  readonly #methods = new Map<string, FenceMethod>([
    [SELF_METHOD.name, SELF_METHOD],
    [MANUAL_METHOD.name, MANUAL_METHOD],
  ]);
  readonly #log: FenceRunnerOptions['log'];
  readonly #running = new Map<string, Under>();
  readonly #stop = new AbortController();
  readonly #history: FenceResult[] = [];
  /** Tries in a row that failed, by victim and method. At most one entry per node and method of the configuration. */
  readonly #failing = new Map<string, { run: FenceRun; times: number; detail: string }>();
  /** What this node has switched off, by victim: to be switched on again. */
  readonly #off = new Map<number, { startCount: number; runs: Map<string, FenceRun> }>();
  /** Victims being switched on again; that gives way to the next `off`. */
  readonly #switchingOn = new Map<number, AbortController>();

  constructor(options: FenceRunnerOptions) {
    this.#log = options.log;
    // Each program under way listens to it.
    setMaxListeners(0, this.#stop.signal);
    for (const config of options.methods.values()) this.#methods.set(config.name, makeMethod(config));
    for (const method of options.extra ?? []) this.#methods.set(method.name, method);
  }

  /** Runs the method on the victim, or joins the run that is under way. Never rejects: what cannot be run has failed. */
  run(request: FenceRun): Promise<FenceOutcome> {
    const { node, startCount, method, step } = request;
    const key = `${node}/${startCount}/${method}/${step}`;
    const under = this.#running.get(key);
    if (under && !under.withdraw.signal.aborted) {
      this.#log('info', 'fence-joined', { node: request.nodeName, method, step, op: request.op });
      return under.outcome;
    }
    this.#switchingOn.get(node)?.abort();
    const withdraw = new AbortController();
    const outcome = this.#run(request, withdraw.signal).finally(() => {
      if (this.#running.get(key)?.withdraw === withdraw) this.#running.delete(key);
    });
    this.#running.set(key, { node, startCount, outcome, withdraw });
    return outcome;
  }

  /** Kills the runs whose victim `isWanted` denies. */
  withdraw(isWanted: (node: number, startCount: number) => boolean): void {
    for (const { node, startCount, withdraw } of this.#running.values()) {
      if (!isWanted(node, startCount)) withdraw.abort();
    }
  }

  /**
   * Switches on again, best effort, what this node has switched off and what counts as fenced by that now. Not where it does not
   * lead any more (`mayAct`): then another one has done it too, or a person has decided otherwise meanwhile.
   */
  seen(view: readonly FenceView[], mayAct: boolean): void {
    for (const [id, { startCount, runs }] of this.#off) {
      const node = view.find((n) => n.id === id);
      if (node?.state === 'fencing' && node.incarnation?.startCount === startCount) continue;
      this.#off.delete(id);
      if (!mayAct || node?.incarnation?.startCount !== startCount || !['fenced', 'evicted'].includes(node.state)) continue;
      const by = node.fencedBy.split('+');
      const wanted = [...runs.values()].filter((run) => by.includes(run.method) && this.#methods.get(run.method)?.powerOn);
      if (wanted.length > 0) void this.#switchOn(id, wanted);
    }
  }

  /** Something that was decided elsewhere and belongs into the history: a person's confirmation. */
  note(result: FenceResult): void {
    this.#history.push(result);
    if (this.#history.length > HISTORY_MAX) this.#history.shift();
  }

  /** Would the method work now? `thorough`: with a look at its configuration. Never rejects. */
  async check(method: string, nodeName: string, thorough: boolean): Promise<FenceOutcome> {
    const found = this.#methods.get(method);
    if (!found) return notConfigured(method);
    if (!found.check) return { ok: true, detail: 'needs no device' };
    try {
      return await found.check({ nodeName }, this.#stop.signal, thorough);
    } catch (error) {
      return broken(method, error);
    }
  }

  /** True when there is something to look at before it is needed. */
  hasDevice(method: string): boolean {
    return this.#methods.get(method)?.check !== undefined;
  }

  async #run(request: FenceRun, withdrawn: AbortSignal): Promise<FenceOutcome> {
    const { nodeName, node, startCount, method, reason, attempt, op, step } = request;
    const signal = AbortSignal.any([this.#stop.signal, withdrawn]);
    const at = Date.now();
    const under = this.#outcome(request, signal);
    if (under === null) return { ok: true, detail: 'verified before' };
    this.#log(step === 'off' ? 'warn' : 'info', 'fence-started', { node: nodeName, method, step, reason, attempt, op });
    if (step === 'off') {
      // Whatever comes of it: it may have gone off, and is to be switched on again when it counts as fenced.
      let off = this.#off.get(node);
      if (off?.startCount !== startCount) off = { startCount, runs: new Map() };
      off.runs.set(method, request);
      this.#off.set(node, off);
    }
    const outcome = await under;
    const ms = Date.now() - at;
    if (withdrawn.aborted && !outcome.ok) {
      this.#log('info', 'fence-withdrawn', { node: nodeName, method, step, attempt, op, ms });
      this.note({ ...request, ok: false, detail: 'withdrawn: it was not needed any more', at, ms });
      return outcome;
    }
    this.note({ ...request, ...outcome, at, ms });
    const failing = `${node}/${method}`;
    if (!outcome.ok) {
      this.#failing.set(failing, { run: request, times: (this.#failing.get(failing)?.times ?? 0) + 1, detail: outcome.detail });
    } else if (step === 'verify' || request.together === 1) this.#failing.delete(failing);
    this.#log(outcome.ok ? 'warn' : 'error', outcome.ok ? 'fence-done' : 'fence-failed', {
      node: nodeName,
      method,
      step,
      attempt,
      op,
      ms,
      detail: outcome.detail,
    });
    return outcome;
  }

  /** null = a verification that the method does not need. */
  #outcome(request: FenceRun, signal: AbortSignal): Promise<FenceOutcome> | null {
    const { method, step } = request;
    const found = this.#methods.get(method);
    if (!found) return Promise.resolve(notConfigured(method));
    const target = targetOf(request);
    const under = step === 'off' ? found.fence(target, signal) : (found.verify?.(target, signal) ?? null);
    return under === null ? null : under.catch((error: unknown) => broken(method, error));
  }

  async #switchOn(node: number, runs: readonly FenceRun[]): Promise<void> {
    const giveUp = new AbortController();
    this.#switchingOn.set(node, giveUp);
    const signal = AbortSignal.any([this.#stop.signal, giveUp.signal]);
    await Promise.all(
      runs.map(async (run) => {
        const at = Date.now();
        const method = this.#methods.get(run.method);
        const outcome = await (method?.powerOn?.(targetOf(run), signal) ?? Promise.resolve(notConfigured(run.method))).catch(
          (error: unknown) => broken(run.method, error),
        );
        const ms = Date.now() - at;
        this.note({ ...run, step: 'on', ...outcome, at, ms });
        const { nodeName, op } = run;
        this.#log(outcome.ok ? 'info' : 'warn', outcome.ok ? 'fence-power-on' : 'fence-power-on-failed', {
          node: nodeName,
          method: run.method,
          op,
          ms,
          detail: outcome.detail,
        });
      }),
    );
    if (this.#switchingOn.get(node) === giveUp) this.#switchingOn.delete(node);
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

function targetOf({ nodeName, node, reason, attempt, together }: FenceRun): FenceTarget {
  return { nodeName, node, reason, attempt, together };
}

function notConfigured(method: string): FenceOutcome {
  return { ok: false, detail: `this node's configuration has no fence method "${method}": add [fence.${method}]` };
}

function broken(method: string, error: unknown): FenceOutcome {
  return { ok: false, detail: `${method} broke: ${error instanceof Error ? error.message : String(error)}` };
}
