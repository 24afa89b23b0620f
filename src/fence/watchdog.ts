/**
 * The kernel's watchdog device (`/dev/watchdog`): opening it arms it, each byte written keeps the machine alive for another
 * time-out, "V" before the end of file disarms it. Its own time-out cannot be set without an ioctl, so it is read from sysfs and
 * must not be longer than what the others are told.
 */
import { closeSync, constants, openSync, readFileSync, writeSync } from 'node:fs';
import { basename } from 'node:path';
import { KEEP_ALIVES, type SelfEnd, type SelfEndConfig, type SelfEndLog } from './self-end.js';

/** An attempt to open a device that is not there (yet) is repeated no faster. */
const REOPEN_MS = 5000;

/** Where sysfs shows the device's time-out. */
export function timeoutFileOf(device: string): string {
  const name = basename(device) === 'watchdog' ? 'watchdog0' : basename(device);
  return `/sys/class/watchdog/${name}/timeout`;
}

/** Why the device's time-out does not fit, as the end of a sentence; '' when it does or cannot be read. */
export function timeoutFault(timeoutFile: string, timeoutMs: number): string {
  let seconds: number;
  try {
    seconds = Number(readFileSync(timeoutFile, 'utf8').trim());
  } catch {
    return '';
  }
  if (seconds * 1000 <= timeoutMs) return '';
  return `fires after ${seconds} s (${timeoutFile}), which is later than timeout_ms = ${timeoutMs}: raise timeout_ms to at least ${seconds * 1000}, or shorten the device's time-out`;
}

export class Watchdog implements SelfEnd {
  readonly #c: SelfEndConfig;
  readonly #log: SelfEndLog;
  readonly #now: () => number;
  #fd: number | null = null;
  #last = Number.NEGATIVE_INFINITY;
  #fault = '';
  #isEnding = false;

  constructor(config: SelfEndConfig, log: SelfEndLog, now: () => number = () => performance.now()) {
    this.#c = config;
    this.#log = log;
    this.#now = now;
  }

  get armedMs(): number {
    return this.#fd === null ? 0 : this.#c.timeoutMs;
  }

  keepAlive(): void {
    if (this.#isEnding) return;
    const now = this.#now();
    if (now - this.#last < (this.#fd === null ? REOPEN_MS : this.#c.timeoutMs / KEEP_ALIVES)) return;
    this.#last = now;
    const { device, timeoutMs, timeoutFile } = this.#c;
    try {
      if (this.#fd === null) {
        const fault = timeoutFault(timeoutFile, timeoutMs);
        if (fault !== '') throw new Error(`it ${fault}`);
        this.#fd = openSync(device, constants.O_WRONLY | constants.O_NONBLOCK);
        this.#log('warn', 'self-end-armed', { method: 'watchdog', device, timeoutMs });
      }
      writeSync(this.#fd, '\0');
      this.#fault = '';
    } catch (error) {
      const text = `watchdog ${device}: ${(error as Error).message}`;
      if (text !== this.#fault) this.#log('error', 'self-end-failed', { error: text });
      this.#fault = text;
      // Not closed with "V": if it still works, it fires.
      if (this.#fd !== null) closeSync(this.#fd);
      this.#fd = null;
    }
  }

  endNow(why: string): void {
    if (this.#isEnding) return;
    this.#isEnding = true;
    this.#log('error', 'self-end', { method: 'watchdog', why, withinMs: this.#c.timeoutMs, armed: this.#fd !== null });
  }

  async disarm(): Promise<void> {
    if (this.#fd === null || this.#isEnding) return;
    try {
      writeSync(this.#fd, 'V');
      closeSync(this.#fd);
      this.#fd = null;
      this.#log('info', 'self-end-disarmed', { method: 'watchdog' });
    } catch (error) {
      this.#log('error', 'self-end-failed', {
        error: `watchdog ${this.#c.device} was not disarmed: ${(error as Error).message}`,
      });
    }
  }

  warnings(): string[] {
    return this.#fault === '' ? [] : [`this machine would not end itself: ${this.#fault}`];
  }
}
