/**
 * The method `ipmi`: the victim's management controller (BMC) switches its power off, by way of ipmitool.
 *
 * The problem: a controller acknowledges what it has not done yet, or never does; ipmitool ends with 1 for every failure alike;
 * and a request that timed out may still be carried out later. So the exit code of `off` proves nothing, success included: only
 * an answer "Chassis Power is off" does. The idea: `off`, then ask for the state every second until it says so or the limit has
 * passed, and repeat `off` (which is harmless when it is off) where it is not known to have arrived. A controller that refuses
 * both at once, as with a wrong password, is given up at once, so that the next level gets its turn. `on` is a step of its own,
 * never "cycle": a node that was cycled is not known to have been off.
 * The password is handed over as a file, never as an argument or in the environment, where others could read it.
 */
import { readFileSync } from 'node:fs';
import { type ProgramEnd, runProgram, saying } from './program.js';
import { secretFileFault } from './secret-file.js';
import type { FenceMethod, FenceOutcome, FenceTarget, IpmiFenceConfig } from './types.js';

/** ipmitool's -N (seconds per try) and -R (tries): an address that does not answer costs N * R * (R + 1) seconds. */
const TRY_SECONDS = 2;
const TRIES = 2;
/** Above that, so that ipmitool's own words are heard where it has any. */
const CALL_MS_MAX = 15_000;
const POLL_MS = 1000;
/** `off` is sent again after so many answers "on": an acknowledged one may have been dropped. */
const POLLS_PER_OFF = 5;
/** A refusal that comes faster than one try can time out was said by the controller itself. */
const REFUSAL_MS = 900;
/** A call with less time than this would only be cut off (an answer takes 30 to 40 ms), and hide what was known before. */
const CALL_MS_MIN = 100;
const CHECK_MS = 15_000;
const POWER_ON_MS = 60_000;
const POWER_LINE = /^Chassis Power is (on|off)$/;

type Power = 'on' | 'off' | 'unknown';

/** What `chassis power status` said: this one line on standard output, nothing else, and a clean exit. */
export function parsePower(end: Pick<ProgramEnd, 'code' | 'stdout'>): Power {
  const found = end.code === 0 ? POWER_LINE.exec(end.stdout.trim()) : null;
  return found === null ? 'unknown' : (found[1] as 'on' | 'off');
}

export class IpmiMethod implements FenceMethod {
  readonly name: string;
  readonly endsMachine = true;
  readonly #c: IpmiFenceConfig;

  constructor(config: IpmiFenceConfig) {
    this.name = config.name;
    this.#c = config;
  }

  async fence(_target: FenceTarget, signal: AbortSignal): Promise<FenceOutcome> {
    const fault = secretFileFault(this.#c.passwordFile, process.getuid?.() ?? 0);
    if (fault !== undefined) return { ok: false, detail: `password_file ${this.#c.passwordFile} ${fault}` };
    const end = performance.now() + this.#c.timeoutMs;
    const left = (): number => end - performance.now();
    let isSent = false;
    let last = '';
    for (let round = 0; (round === 0 || left() > CALL_MS_MIN) && !signal.aborted; round++) {
      let refusal: ProgramEnd | null = null;
      if (!isSent || round % POLLS_PER_OFF === 0) {
        const off = await this.#call('off', left(), signal);
        isSent = off.code === 0;
        if (!isSent) {
          last = `off ${off.how}${saying(off)}`;
          refusal = isRefusal(off) ? off : null;
        }
        if (left() <= CALL_MS_MIN) break;
      }
      const status = await this.#call('status', left(), signal);
      const power = parsePower(status);
      if (power === 'off') return { ok: true, detail: `${this.#where()} says: Chassis Power is off` };
      if (power === 'on') last = isSent ? 'off was acknowledged, but the power is still on' : `the power is still on; ${last}`;
      else if (isSent || last === '') last = `its state is not known: status ${status.how}${saying(status)}`;
      if (refusal !== null && isRefusal(status)) return { ok: false, detail: `${this.#where()} refuses: ${last}` };
      await pause(Math.min(POLL_MS, Math.max(0, left())), signal);
    }
    const why = signal.aborted ? 'it is not needed any more, or the daemon stops' : `within ${this.#c.timeoutMs} ms`;
    return { ok: false, detail: `${this.#where()} did not say that the power is off (${why}): ${last}` };
  }

  async verify(_target: FenceTarget, signal: AbortSignal): Promise<FenceOutcome> {
    const status = await this.#call('status', CHECK_MS, signal);
    if (parsePower(status) === 'off') return { ok: true, detail: `${this.#where()} still says: Chassis Power is off` };
    return { ok: false, detail: `${this.#where()} does not say that the power is off: ${status.how}${saying(status)}` };
  }

  async powerOn(_target: FenceTarget, signal: AbortSignal): Promise<FenceOutcome> {
    if (!this.#c.powerOn) return { ok: true, detail: 'stays off: power_on = false' };
    const end = performance.now() + POWER_ON_MS;
    for (;;) {
      const on = await this.#call('on', end - performance.now(), signal);
      if (on.code === 0) return { ok: true, detail: `${this.#where()} was told to switch on` };
      if (signal.aborted || performance.now() + POLL_MS >= end) return { ok: false, detail: `on ${on.how}${saying(on)}` };
      await pause(POLL_MS, signal);
    }
  }

  async check(_target: unknown, signal: AbortSignal): Promise<FenceOutcome> {
    const fault = secretFileFault(this.#c.passwordFile, process.getuid?.() ?? 0);
    if (fault !== undefined) return { ok: false, detail: `password_file ${this.#c.passwordFile} ${fault}` };
    const status = await this.#call('status', CHECK_MS, signal);
    const power = parsePower(status);
    if (power === 'unknown') return { ok: false, detail: `${this.#where()}: status ${status.how}${saying(status)}` };
    return { ok: true, detail: `${this.#where()} says: Chassis Power is ${power}` };
  }

  #where(): string {
    return `${this.#c.host}:${this.#c.port}`;
  }

  #call(what: 'on' | 'off' | 'status', leftMs: number, signal: AbortSignal): Promise<ProgramEnd> {
    const { program, host, port, user, passwordFile, cipher, privilege } = this.#c;
    const args = ['-I', 'lanplus', '-H', host, '-p', String(port), '-U', user, '-f', passwordFile];
    args.push('-N', String(TRY_SECONDS), '-R', String(TRIES));
    if (cipher !== null) args.push('-C', String(cipher));
    if (privilege !== '') args.push('-L', privilege);
    args.push('chassis', 'power', what);
    return runProgram({
      program,
      args,
      env: { PATH: process.env.PATH ?? '/usr/sbin:/usr/bin:/sbin:/bin', HOME: '/', LC_ALL: 'C' },
      input: '',
      timeoutMs: Math.max(1, Math.min(CALL_MS_MAX, Math.ceil(leftMs))),
      signal,
      secrets: this.#secrets(),
    });
  }

  /** ipmitool does not print it; but what we show must not depend on that. */
  #secrets(): string[] {
    try {
      const text = readFileSync(this.#c.passwordFile, 'utf8').replace(/\r?\n[\s\S]*$/, '');
      return text === '' ? [] : [text];
    } catch {
      return [];
    }
  }
}

function isRefusal(end: ProgramEnd): boolean {
  return end.code !== null && end.code !== 0 && end.ms < REFUSAL_MS;
}

function pause(ms: number, signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    const done = (): void => {
      clearTimeout(timer);
      signal.removeEventListener('abort', done);
      resolve();
    };
    const timer = setTimeout(done, ms);
    signal.addEventListener('abort', done, { once: true });
  });
}
