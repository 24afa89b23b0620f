/** What every benchmark is given, and the small things that several of them need. */
import type { Client, LockHandle } from '../src/client/index.js';
import type { Row } from './rounds.js';

export interface Context {
  isQuick: boolean;
  /** Tells this run's names from another run's. */
  seed: string;
  rounds: number;
  /** Length of one turn. */
  turnMs: number;
}

export type Benchmark = (context: Context) => Promise<Row[][]>;

let counter = 0;

/** A name that nobody has used. */
export function freshName(context: Context): string {
  return `b/${context.seed}/${++counter}`;
}

/** Cycles (lock, then release, both acknowledged) per second, each of `inFlight` loops with the names that `name` gives it. */
export async function cycleRate(client: Client, inFlight: number, ms: number, name: (loop: number) => string): Promise<number> {
  const began = performance.now();
  let count = 0;
  let rate = 0;
  const loop = async (n: number): Promise<void> => {
    for (;;) {
      const handle: LockHandle = await client.lock(name(n), 'EX');
      await handle.release();
      count++;
      const took = performance.now() - began;
      if (took < ms) continue;
      if (rate === 0) rate = (count / took) * 1000;
      return;
    }
  };
  await Promise.all(Array.from({ length: inFlight }, (_, n) => loop(n)));
  return rate;
}
