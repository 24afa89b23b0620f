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

/** A management controller (BMC) that speaks IPMI 2.0 over the network. */
export interface IpmiFenceConfig {
  name: string;
  type: 'ipmi';
  host: string;
  port: number;
  user: string;
  /** Holds the password, readable by the daemon's user only. */
  passwordFile: string;
  /** Cipher suite; null = ipmitool chooses. */
  cipher: number | null;
  /** Privilege level asked for, such as OPERATOR; '' = ipmitool's own. */
  privilege: string;
  /** For the whole operation "off and verified". */
  timeoutMs: number;
  /** Whether the node is switched on again once it counts as fenced. */
  powerOn: boolean;
  /** ipmitool, by path or name. */
  program: string;
}

/** A fence agent (the fence-agents packages, or one's own with the same interface). */
export interface AgentFenceConfig {
  name: string;
  type: 'agent';
  program: string;
  /** Which outlet or machine; '' = the victim's name. */
  plug: string;
  timeoutMs: number;
  powerOn: boolean;
  /** `key=value` lines for its standard input. May hold secrets: never logged. */
  options: Record<string, string>;
}

export type FenceMethodConfig = ScriptFenceConfig | IpmiFenceConfig | AgentFenceConfig;

/** One try at one victim. */
export interface FenceTarget {
  nodeName: string;
  node: number;
  /** For people: why it is fenced. */
  reason: string;
  /** 1 for the first try of this operation, then 2, ... */
  attempt: number;
  /** Number of methods of this level, which must all have worked at the same time. */
  together: number;
}

/** `ok` only when the method has *verified* that the victim can no longer act. Anything unknown is false. */
export interface FenceOutcome {
  ok: boolean;
  /** One line for status, log and history; never holds a secret. */
  detail: string;
}

/** None of these ever rejects. `signal`: the daemon stops, or the run is not wanted any more; give up. */
export interface FenceMethod {
  readonly name: string;
  /** It ends the machine, so it also frees node-owned locks (rule 2). */
  readonly endsMachine: boolean;
  fence(target: FenceTarget, signal: AbortSignal): Promise<FenceOutcome>;
  /** Is it off now? Asked after the last `fence` of a level (rule 15). null or missing = the method's own proof was enough. */
  verify?(target: FenceTarget, signal: AbortSignal): Promise<FenceOutcome> | null;
  /** Switches the node on again, best effort. Missing = the method does not. */
  powerOn?(target: FenceTarget, signal: AbortSignal): Promise<FenceOutcome>;
  /** Would it work now? Changes nothing. `thorough`: look at the configuration too. Missing = nothing to look at. */
  check?(target: Pick<FenceTarget, 'nodeName'>, signal: AbortSignal, thorough: boolean): Promise<FenceOutcome>;
}
