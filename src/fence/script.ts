/**
 * The method `script`: a program of the operator's that ends a node and has verified it.
 *
 * Only its exit code says whether the victim is really off: 0 means "I have verified that the node can no longer act"; everything
 * else, a limit passed included, means "not known to be off". It reads `key=value` lines on standard input (the fence agent
 * convention) and finds the same in TSDLM_FENCE_* variables. It has no way to say "still off", so where several methods must hold
 * at the same time (rule 15) it is simply run again. How it is run, and ended, is program.ts.
 */
import { accessSync, constants } from 'node:fs';
import { inputLines, runProgram, saying, secretsOf } from './program.js';
import type { FenceMethod, FenceOutcome, FenceTarget, ScriptFenceConfig } from './types.js';

function environment(target: FenceTarget): NodeJS.ProcessEnv {
  return {
    ...process.env,
    LC_ALL: 'C',
    TSDLM_FENCE_ACTION: 'off',
    TSDLM_FENCE_NODE: target.nodeName,
    TSDLM_FENCE_NODEID: String(target.node),
    TSDLM_FENCE_REASON: target.reason.replace(/[\0\n\r]/g, ' ').slice(0, 500),
    TSDLM_FENCE_ATTEMPT: String(target.attempt),
  };
}

export class ScriptMethod implements FenceMethod {
  readonly name: string;
  readonly endsMachine = true;
  readonly #config: ScriptFenceConfig;
  readonly #secrets: string[];

  constructor(config: ScriptFenceConfig) {
    this.name = config.name;
    this.#config = config;
    this.#secrets = secretsOf(config.options);
  }

  async fence(target: FenceTarget, signal: AbortSignal): Promise<FenceOutcome> {
    const { command, timeoutMs, options } = this.#config;
    const [program = '', ...args] = command;
    const end = await runProgram({
      program,
      args,
      env: environment(target),
      input: inputLines({ action: 'off', plug: target.nodeName, ...options, nodename: target.nodeName }),
      timeoutMs,
      signal,
      secrets: this.#secrets,
    });
    const ok = end.code === 0;
    const how = ok ? end.how.replace(/^ended/, 'verified (exit code 0)') : end.how;
    return { ok, detail: `${program} ${how}${saying(end)}` };
  }

  /** Its exit code was the proof; among several methods it has to give it once more. */
  verify(target: FenceTarget, signal: AbortSignal): Promise<FenceOutcome> | null {
    return target.together > 1 ? this.fence(target, signal) : null;
  }

  /** Nothing of it may be run without need: only whether it could be. */
  check(): Promise<FenceOutcome> {
    const program = this.#config.command[0] ?? '';
    try {
      accessSync(program, constants.X_OK);
      return Promise.resolve({ ok: true, detail: `${program} can be run` });
    } catch (cause) {
      return Promise.resolve({ ok: false, detail: `${program} cannot be run: ${(cause as Error).message}` });
    }
  }
}
