/**
 * What each operation of the file API gives, as data, for every backend: the in-process shim, the 9P server through a
 * test client, and the real ocfs2_dlmfs in a virtual machine.
 *
 * The cases stand in cases-*.ts, in the words of case.ts; here they are run and compared.
 */
import type { Dlmfs, DlmfsHandle } from '../../src/dlmfs/types.js';
import type { Call, Case, Owner, Step } from './case.js';
import { BETWEEN, THREE } from './cases-between.js';
import { NAMES } from './cases-names.js';
import { SAME, VALUES } from './cases-values.js';

export const CASES: readonly Case[] = [...NAMES, ...VALUES, ...SAME, ...BETWEEN, ...THREE];

/** What a case is run against. */
export interface Peer {
  /** Which of the two columns counts. */
  kind: 'kernel' | 'tsdlm';
  /** The mount of each owner. */
  owners: Record<string, Dlmfs>;
  /** Resolves when what was started has had the time to end: everything else is said to wait. */
  settle(): Promise<void>;
  /** Longest wait for a step that must end now, in milliseconds. */
  limitMs: number;
}

export interface StepResult {
  step: Step;
  want: string;
  got: string;
}

interface Running {
  promise: Promise<string>;
  result: string | null;
  abort: AbortController;
}

/** Runs a case; returns the steps that gave something else than was wanted. `domain` must be unused. */
export async function runCase(peer: Peer, c: Case, domain: string): Promise<StepResult[]> {
  const run = new CaseRun(peer, domain);
  const wrong: StepResult[] = [];
  try {
    for (const step of c.steps) {
      if (step.only !== undefined && step.only !== peer.kind) continue;
      const want = peer.kind === 'kernel' ? (step.kernel ?? step.want) : step.want;
      const got = await run.step(step, want);
      if (got !== want) {
        wrong.push({ step, want, got });
        break;
      }
    }
  } finally {
    await run.cleanUp();
  }
  return wrong;
}

/** One line for a step that went wrong. */
export function describeResult(c: Case, r: StepResult): string {
  return `${c.id}, step ${c.steps.indexOf(r.step) + 1}: ${r.step.by} ${JSON.stringify(r.step.call)}: wanted ${r.want}, got ${r.got}`;
}

class CaseRun {
  readonly #peer: Peer;
  readonly #domain: string;
  readonly #handles = new Map<string, DlmfsHandle>();
  readonly #running = new Map<string, Running>();
  readonly #domains = new Map<string, Set<string>>();

  constructor(peer: Peer, domain: string) {
    this.#peer = peer;
    this.#domain = domain;
  }

  async step(step: Step, want: string): Promise<string> {
    const { call, by } = step;
    if (call.op === 'abort') {
      this.#running.get(`${by}.${call.of}`)?.abort.abort();
      return 'ok';
    }
    if (call.op === 'join') {
      const running = this.#running.get(`${by}.${call.of}`);
      return running ? this.#end(running) : 'nothing to join';
    }
    const abort = new AbortController();
    const running: Running = { promise: Promise.resolve(''), result: null, abort };
    running.promise = this.#do(by, call, abort.signal).then(
      (text) => {
        running.result = text;
        return text;
      },
      (error: unknown) => {
        running.result = textOf(error, abort.signal);
        return running.result;
      },
    );
    if (step.as !== undefined) this.#running.set(`${by}.${step.as}`, running);
    if (want !== 'waits') return this.#end(running);
    await this.#peer.settle();
    return running.result ?? 'waits';
  }

  async #end(running: Running): Promise<string> {
    // A bed without a clock of its own runs only when it is driven.
    void this.#peer.settle();
    let timer: NodeJS.Timeout | undefined;
    const limit = new Promise<string>((resolve) => {
      timer = setTimeout(() => resolve('waits'), this.#peer.limitMs);
    });
    const result = await Promise.race([running.promise, limit]);
    clearTimeout(timer);
    return result;
  }

  #path(path: string): string {
    return path.replace(/^\/D(2?)(?=\/|$)/, (_, n: string) => `/${this.#domain}${n}`);
  }

  #handle(by: Owner, of: string): DlmfsHandle {
    const handle = this.#handles.get(`${by}.${of}`);
    if (!handle) throw new Error(`no handle ${by}.${of}`);
    return handle;
  }

  async #do(by: Owner, call: Exclude<Call, { op: 'abort' | 'join' }>, signal: AbortSignal): Promise<string> {
    const fs = this.#peer.owners[by];
    if (!fs) throw new Error(`no owner ${by}`);
    switch (call.op) {
      case 'mkdir':
        await fs.mkdir(this.#path(call.path), call.mode ?? 0o755);
        this.#domainsOf(by).add(this.#path(call.path));
        return 'ok';
      case 'rmdir':
        await fs.rmdir(this.#path(call.path));
        this.#domainsOf(by).delete(this.#path(call.path));
        return 'ok';
      case 'unlink':
        await fs.unlink(this.#path(call.path));
        return 'ok';
      case 'readdir':
        return (await fs.readdir(this.#path(call.path))).sort().join(',');
      case 'stat': {
        const s = await fs.stat(this.#path(call.path));
        const text = `${s.isDirectory() ? 'dir' : 'file'} 0${(s.mode & 0o7777).toString(8)} size ${s.size}`;
        return call.path === '/' ? text : `${text} nlink ${s.nlink}`;
      }
      case 'chmod':
        await fs.chmod(this.#path(call.path), call.mode);
        return 'ok';
      case 'truncate':
        await fs.truncate(this.#path(call.path), 3);
        return 'ok';
      case 'rename':
        await fs.rename(this.#path(call.path), `${this.#path(call.path)}2`);
        return 'ok';
      case 'link':
        await fs.link(this.#path(call.path), `${this.#path(call.path)}2`);
        return 'ok';
      case 'symlink':
        await fs.symlink('target', this.#path(call.path));
        return 'ok';
      case 'statfs': {
        const s = await fs.statfs();
        return `0x${s.type.toString(16)} ${s.bsize}`;
      }
      case 'open': {
        const handle = await fs.open(this.#path(call.path), call.flags, call.mode ?? 0o644, { signal });
        this.#handles.set(`${by}.${call.as}`, handle);
        return 'ok';
      }
      case 'read': {
        const length = call.length ?? 64;
        const { bytesRead, buffer } = await this.#handle(by, call.of).read(new Uint8Array(length), 0, length, call.position);
        return `${bytesRead}:${Buffer.from(buffer.subarray(0, bytesRead)).toString('latin1').replace(/\0+$/, '')}`;
      }
      case 'write': {
        const data = Buffer.from(call.data);
        return String((await this.#handle(by, call.of).write(data, 0, data.length, call.position)).bytesWritten);
      }
      case 'blocked': {
        const handle = this.#handle(by, call.of);
        await this.#peer.settle();
        return handle.isBlocked ? 'yes' : 'no';
      }
      case 'fstat': {
        const s = await this.#handle(by, call.of).stat();
        return `${s.isDirectory() ? 'dir' : 'file'} 0${(s.mode & 0o7777).toString(8)} size ${s.size} nlink ${s.nlink}`;
      }
      case 'close':
        await this.#handle(by, call.of).close();
        return 'ok';
    }
  }

  #domainsOf(by: string): Set<string> {
    let set = this.#domains.get(by);
    if (!set) {
      set = new Set();
      this.#domains.set(by, set);
    }
    return set;
  }

  /** Closes and removes everything, so that the next case finds an empty world. */
  async cleanUp(): Promise<void> {
    const closeAll = (): Promise<unknown> => Promise.allSettled([...this.#handles.values()].map((h) => h.close()));
    for (const running of this.#running.values()) if (running.result === null) running.abort.abort();
    // Closing one handle may let another be granted.
    for (let round = 0; round < 4; round++) {
      await closeAll();
      const open = [...this.#running.values()].filter((r) => r.result === null);
      if (open.length === 0) break;
      await Promise.all(open.map((r) => this.#end(r)));
    }
    await closeAll();
    for (const [by, domains] of this.#domains) {
      const fs = this.#peer.owners[by] as Dlmfs;
      for (const domain of domains) {
        const names = await fs.readdir(domain).catch(() => []);
        for (const name of names) await fs.unlink(`${domain}/${name}`).catch(() => {});
        await fs.rmdir(domain).catch(() => {});
      }
    }
  }
}

function textOf(error: unknown, signal: AbortSignal): string {
  if (signal.aborted) return 'aborted';
  const code = (error as { code?: unknown }).code;
  return typeof code === 'string' ? (code === 'ENOTSUP' ? 'EOPNOTSUPP' : code) : String(error);
}
