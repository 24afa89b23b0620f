/**
 * The method `agent`: one of the fence agents that every distribution ships, or one's own with the same interface.
 *
 * The interface: `key=value` lines on standard input; `action=off` ends with 0 when it was done; `action=status` with 0 for "on"
 * and 2 for "off"; 1 is every failure; `action=metadata` prints, as XML, which options and actions there are. An agent may call
 * done what is not, so its status is asked after the last `off` of the level and must be 2 (rule 15). `reboot` is never used.
 * The metadata is read before the agent is needed: an option that it does not know, or one that it needs and was not given, is a
 * warning then and not a failure at night.
 */
import { cleaned, inputLines, type ProgramEnd, runProgram, saying, secretsOf } from './program.js';
import type { AgentFenceConfig, FenceMethod, FenceOutcome, FenceTarget } from './types.js';

const STATUS_OFF = 2;
const METADATA_CHARS_MAX = 500_000;
const METADATA_MS = 30_000;
/** Options that every request carries, by us. */
const GIVEN_BY_US = ['action', 'plug', 'port', 'nodename'];

export interface AgentMetadata {
  /** Options that it knows; `replaces` = older names of the same. */
  parameters: { name: string; isRequired: boolean; hasDefault: boolean; replaces: string }[];
  actions: string[];
}

function attribute(tag: string, name: string): string {
  const found = new RegExp(`\\s${name}\\s*=\\s*(?:"([^"]*)"|'([^']*)')`).exec(tag);
  return found?.[1] ?? found?.[2] ?? '';
}

/** What its XML says; null when it is not such XML. */
export function parseMetadata(xml: string): AgentMetadata | null {
  if (!/<resource-agent[\s>]/.test(xml) || !/<\/resource-agent>/.test(xml)) return null;
  const parameters: AgentMetadata['parameters'] = [];
  for (const [whole] of xml.matchAll(/<parameter\s[^>]*?(?:\/>|>[\s\S]*?<\/parameter>)/g)) {
    const tag = whole.slice(0, whole.indexOf('>') + 1);
    const content = /<content\s[^>]*>/.exec(whole)?.[0] ?? '';
    parameters.push({
      name: attribute(tag, 'name'),
      isRequired: attribute(tag, 'required') === '1',
      hasDefault: /\sdefault\s*=/.test(content),
      replaces: attribute(tag, 'obsoletes'),
    });
  }
  const actions = [...xml.matchAll(/<action\s[^>]*>/g)].map(([tag]) => attribute(tag, 'name'));
  return { parameters, actions };
}

/** What does not fit between an agent and its options; empty when all does. */
export function optionFaults(metadata: AgentMetadata, options: Readonly<Record<string, string>>): string[] {
  const given = new Set([...Object.keys(options), ...GIVEN_BY_US]);
  const known = new Set(metadata.parameters.flatMap((p) => [p.name, p.replaces]));
  const faults: string[] = [];
  for (const key of Object.keys(options)) if (!known.has(key)) faults.push(`it knows no option "${key}"`);
  for (const p of metadata.parameters) {
    const replacedBy = metadata.parameters.some((other) => other.replaces === p.name && given.has(other.name));
    if (p.isRequired && !p.hasDefault && !given.has(p.name) && !given.has(p.replaces) && !replacedBy)
      faults.push(`it needs the option "${p.name}"`);
  }
  for (const action of ['off', 'status']) {
    if (!metadata.actions.includes(action)) faults.push(`it has no action "${action}"`);
  }
  return faults;
}

export class AgentMethod implements FenceMethod {
  readonly name: string;
  readonly endsMachine = true;
  readonly #c: AgentFenceConfig;
  readonly #secrets: string[];
  #hasMonitor = true;

  constructor(config: AgentFenceConfig) {
    this.name = config.name;
    this.#c = config;
    this.#secrets = secretsOf(config.options);
  }

  async fence(target: FenceTarget, signal: AbortSignal): Promise<FenceOutcome> {
    const end = await this.#act('off', target, signal);
    return { ok: end.code === 0, detail: this.#sentence('off', end) };
  }

  async verify(target: FenceTarget, signal: AbortSignal): Promise<FenceOutcome> {
    const end = await this.#act('status', target, signal);
    const detail = this.#sentence('status', end);
    if (end.code === STATUS_OFF) return { ok: true, detail: `${this.#c.program} says that it is off` };
    return { ok: false, detail: end.code === 0 ? `it is on, says its own status: ${detail}` : detail };
  }

  async powerOn(target: FenceTarget, signal: AbortSignal): Promise<FenceOutcome> {
    if (!this.#c.powerOn) return { ok: true, detail: 'stays off: power_on = false' };
    const end = await this.#act('on', target, signal);
    return { ok: end.code === 0, detail: this.#sentence('on', end) };
  }

  async check(target: Pick<FenceTarget, 'nodeName'>, signal: AbortSignal, thorough: boolean): Promise<FenceOutcome> {
    if (thorough) {
      const end = await this.#act('metadata', target, signal, Math.min(METADATA_MS, this.#c.timeoutMs));
      if (end.code !== 0) return { ok: false, detail: this.#sentence('metadata', end) };
      const metadata = parseMetadata(end.stdout);
      if (metadata === null) return { ok: false, detail: `${this.#c.program} printed no metadata: is it a fence agent?` };
      const faults = optionFaults(metadata, this.#c.options);
      if (faults.length > 0) return { ok: false, detail: `${this.#c.program}: ${cleaned(faults.join('; '), this.#secrets)}` };
      this.#hasMonitor = metadata.actions.includes('monitor');
    }
    const action = this.#hasMonitor ? 'monitor' : 'status';
    const end = await this.#act(action, target, signal);
    const ok = end.code === 0 || (action === 'status' && end.code === STATUS_OFF);
    return { ok, detail: this.#sentence(action, end) };
  }

  #sentence(action: string, end: ProgramEnd): string {
    const said = action === 'metadata' && end.code === 0 ? '' : saying(end);
    return `${this.#c.program} action=${action} ${end.how}${said}`;
  }

  #act(action: string, target: Pick<FenceTarget, 'nodeName'>, signal: AbortSignal, timeoutMs?: number): Promise<ProgramEnd> {
    const { program, options, plug } = this.#c;
    const pairs = action === 'metadata' ? { action } : { action, plug: plug === '' ? target.nodeName : plug, ...options };
    return runProgram({
      program,
      args: [],
      env: { ...process.env, LC_ALL: 'C' },
      input: inputLines(pairs),
      timeoutMs: timeoutMs ?? this.#c.timeoutMs,
      signal,
      secrets: this.#secrets,
      headChars: action === 'metadata' ? METADATA_CHARS_MAX : 1000,
    });
  }
}
