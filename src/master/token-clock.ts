/**
 * The token clock of one node: a hybrid Lamport clock whose value is (epoch, counter).
 *
 * The problem: each EX grant on a resource must carry a larger token than every earlier one, though the resource's master
 * may change, be forgotten and be made anew (S2). The idea: every lock message carries the sender's whole clock, a
 * received one lifts ours, a new view lifts it to (epoch, 0), and an EX grant advances it. Mastery asks every member and
 * every change of members is a new epoch, so a new master's clock is past all earlier grants (rules 16, 17).
 */
import { InvariantError } from '../protocol/errors.js';
import { COUNTER_MAX, EPOCH_MAX } from '../protocol/ids.js';

/** From here on the node asks for a new epoch (rule 17: at three quarters of the counter). */
export const COUNTER_HIGH = Math.floor((COUNTER_MAX / 4) * 3);

export class TokenClock {
  epoch = 0;
  counter = 0;

  /** Lifts the clock to at least (epoch, counter). */
  lift(epoch: number, counter: number): void {
    if (epoch > this.epoch) {
      this.epoch = epoch;
      this.counter = counter;
    } else if (epoch === this.epoch && counter > this.counter) {
      this.counter = counter;
    }
  }

  /** Advances by one. The counter never carries into the epoch: at its end the node must not grant EX (rule 17). */
  advance(): void {
    if (this.counter >= COUNTER_MAX) throw new InvariantError(`token counter is used up in epoch ${this.epoch}`);
    this.counter++;
  }

  get isHigh(): boolean {
    return this.counter >= COUNTER_HIGH;
  }

  /** True when no further EX may be granted before a new epoch. */
  get isUsedUp(): boolean {
    return this.counter >= COUNTER_MAX || this.epoch > EPOCH_MAX;
  }
}
