/**
 * One name in the bridge helper: goes from what it has to what is wanted, one system call at a time.
 *
 * The problem: an open that waits in the kernel can be neither withdrawn nor overtaken; an unlink beside it would hang, and make
 * it fail. And wishes change while it waits. The idea: there is only what is wanted and what is had. At most one call is under
 * way (rule 4); when it has come back the next step is worked out anew. What comes too late is closed at once.
 *
 *   none -> PR, EX   open; waits unless it is a try
 *   PR -> EX         open for EX beside, as a try: the kernel does not notice two nodes that wait for each other (rule 5)
 *   EX -> PR         open for PR beside, then close EX; until then EX is had, which is more than is wanted
 *   any -> none      value block written, close, unlink: nothing stays cached
 */
import { EX, type Mode } from '../protocol/modes.js';
import type { KernelFiles, KernelHold } from './kernel-files.js';
import type { Level } from './protocol.js';

export interface NameEvents {
  have(level: Level, seq: number, value: Uint8Array | null): void;
  refused(seq: number, isBusy: boolean, why: string): void;
  blocked(): void;
  /** Nothing is had, wanted or under way: the record may go. */
  idle(): void;
}

export class NameState {
  readonly domain: string;
  readonly name: string;
  /** Belongs to the node: the deadline of sessions is nothing to it. */
  isForever = false;
  readonly #files: KernelFiles;
  readonly #events: NameEvents;
  #hold: KernelHold | null = null;
  #want: Level = -1;
  #isTry = false;
  #seq = 0;
  #isAnswered = true;
  #busy: 'open' | 'unlink' | 'read' | null = null;
  /** The wish that the open under way was made for. */
  #openSeq = 0;
  /** A file may be there although nothing is held. */
  #isNamed = false;
  /** An open for PR beside EX has failed: it stays EX. */
  #isStuck = false;
  #writes = 0;

  constructor(domain: string, name: string, files: KernelFiles, events: NameEvents) {
    this.domain = domain;
    this.name = name;
    this.#files = files;
    this.#events = events;
  }

  get level(): Level {
    return this.#hold?.mode ?? -1;
  }

  /** What it has and keeps: a step down is under way as soon as it is wanted. */
  get kept(): Level {
    return this.#want < this.level ? this.#want : this.level;
  }

  /** Who wanted more is gone: nobody waits for it any more, and nobody is to be answered. */
  withdraw(): void {
    this.#isAnswered = true;
    if (this.#want <= this.level) return;
    this.#want = this.level;
    this.#step();
  }

  /** A file of this name was left behind, and the level may be kept with it. */
  sweep(): void {
    this.#isNamed = true;
    this.#step();
  }

  want(level: Level, isTry: boolean, seq: number): void {
    this.#want = level;
    this.#isTry = isTry;
    this.#seq = seq;
    this.#isAnswered = false;
    this.#step();
  }

  /** Sets the value block of what is held in EX; others see it when it is given up. */
  value(value: Uint8Array): void {
    const hold = this.#hold;
    if (hold?.mode !== EX) return;
    this.#writes++;
    const done = (): void => {
      this.#writes--;
      this.#step();
    };
    hold.write(value).then(done, done);
  }

  #answer(value: Uint8Array | null): void {
    if (this.#isAnswered) return;
    this.#isAnswered = true;
    this.#events.have(this.level, this.#seq, value);
  }

  #refuse(isBusy: boolean, why: string): void {
    this.#want = this.level;
    if (this.#isAnswered) return;
    this.#isAnswered = true;
    this.#events.refused(this.#seq, isBusy, why);
  }

  #step(): void {
    // A descriptor must not be closed under a call that uses it.
    if (this.#writes > 0) return;
    if (this.#busy === 'open') this.#beside();
    else if (this.#busy !== null) return;
    else if (this.#want < 0) this.#drop();
    else if (this.#want > this.level) this.#open(this.#want as Mode, this.#isTry || this.#hold !== null);
    else if (this.#want === this.level) this.#read();
    else {
      // EX is more than was asked for, so the wish is met; to let others read is the next step.
      this.#answer(null);
      if (!this.#isStuck) this.#open(this.#want as Mode, false);
    }
  }

  /** An open is under way. What can be done at once, is: it may wait for those who wait for what we hold. */
  #beside(): void {
    if (this.#want <= this.level) {
      if (this.#want < 0) this.#close();
      this.#answer(null);
    } else if (this.#isTry && this.#openSeq !== this.#seq)
      this.#refuse(true, 'an earlier request still waits for it in the kernel');
  }

  #open(mode: Mode, isTry: boolean): void {
    this.#busy = 'open';
    this.#openSeq = this.#seq;
    this.#isNamed = true;
    const wasLess = mode > this.level;
    this.#files.open(this.domain, this.name, mode, isTry).then(
      (hold) => {
        this.#busy = null;
        if (this.#want === mode) this.#keep(hold);
        else hold.close();
        this.#step();
      },
      (error: NodeJS.ErrnoException) => {
        this.#busy = null;
        if (!wasLess) this.#isStuck = true;
        else if (this.#openSeq === this.#seq) this.#refuse(error.code === 'ETXTBSY', error.message);
        this.#step();
      },
    );
  }

  #keep(hold: KernelHold): void {
    this.#hold?.close();
    this.#hold = hold;
    this.#isStuck = false;
    hold.onBlocked(() => {
      if (this.#hold === hold) this.#events.blocked();
    });
  }

  #read(): void {
    if (this.#isAnswered) return;
    this.#busy = 'read';
    const done = (value: Uint8Array | null): void => {
      this.#busy = null;
      if (this.#want === this.level) this.#answer(value);
      this.#step();
    };
    (this.#hold as KernelHold).read().then(done, () => done(null));
  }

  #close(): void {
    this.#hold?.close();
    this.#hold = null;
  }

  /** Closes, and unlinks when there is a name: the level must not stay with the node. */
  #drop(): void {
    this.#close();
    if (!this.#isNamed) {
      this.#answer(null);
      this.#events.idle();
      return;
    }
    this.#busy = 'unlink';
    const done = (): void => {
      this.#busy = null;
      // Whatever the kernel said: nobody else has it open on this mount, and a name left behind is swept at the next start.
      this.#isNamed = false;
      this.#step();
    };
    this.#files.unlink(this.domain, this.name).then(done, done);
  }
}
