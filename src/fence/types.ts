/**
 * What a fence method is: a way to make sure that a node can no longer act, or an honest "no".
 */

/** A program that ends a node and has verified it when it exits 0. */
export interface ScriptFenceConfig {
  name: string;
  type: 'script';
  /** Program and its arguments; never through a shell. */
  command: string[];
  /** Its process group is killed after this long. */
  timeoutMs: number;
  /** Extra `key=value` lines for its standard input (fence agents take their options so). May hold secrets: never logged. */
  options: Record<string, string>;
}

export type FenceMethodConfig = ScriptFenceConfig;

/** One try at one victim. */
export interface FenceTarget {
  nodeName: string;
  node: number;
  /** For people: why it is fenced. */
  reason: string;
  /** 1 for the first try of this operation, then 2, ... */
  attempt: number;
}

/** `ok` only when the method has *verified* that the victim can no longer act. Anything unknown is false. */
export interface FenceOutcome {
  ok: boolean;
  /** One line for status, log and history; never holds a secret. */
  detail: string;
}

export interface FenceMethod {
  readonly name: string;
  /** It ends the machine, so it also frees node-owned locks (rule 2). */
  readonly endsMachine: boolean;
  /** Never rejects. `signal`: the daemon stops, give up. */
  fence(target: FenceTarget, signal: AbortSignal): Promise<FenceOutcome>;
}
