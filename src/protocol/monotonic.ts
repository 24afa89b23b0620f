/**
 * CLOCK_MONOTONIC in milliseconds, the clock that deadlines are told on (rule 10).
 *
 * `process.hrtime()` is that clock, but it allocates; `performance.now()` is the same clock counted from the start of the
 * process and does not. So the distance between the two is taken once.
 *
 * The problem: a process that loses the processor between the two readings is wrong by that time for as long as it lives, and
 * a client whose clock is behind takes a hold for valid when it is over. The idea: `performance.now()` is read before and
 * after, again and again, and the reading counts in which the two were closest together.
 */
export interface ClockReadings {
  /** CLOCK_MONOTONIC in milliseconds. */
  hrtimeMs(): number;
  /** The same clock from another beginning. */
  performanceMs(): number;
}

const READINGS = 50;
/** Closer together than this is close enough, in milliseconds. */
const CLOSE_MS = 0.002;

/** What to add to `performanceMs()`; never wrong by more than the distance of the two closest readings around `hrtimeMs()`. */
export function monotonicOffset({ hrtimeMs, performanceMs }: ClockReadings): number {
  let offset = 0;
  let closest = Number.POSITIVE_INFINITY;
  for (let i = 0; i < READINGS && closest > CLOSE_MS; i++) {
    const before = performanceMs();
    const now = hrtimeMs();
    const distance = performanceMs() - before;
    if (distance >= closest) continue;
    closest = distance;
    // The earlier reading: of what is left of the error, the clock is then ahead, never behind.
    offset = now - before;
  }
  return offset;
}
