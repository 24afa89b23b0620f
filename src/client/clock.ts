/**
 * CLOCK_MONOTONIC in milliseconds, the clock that deadlines are told on (rule 10).
 *
 * `process.hrtime()` is that clock, but it allocates; `performance.now()` is the same clock counted from the start of the
 * process and does not. So the distance between the two is taken once. Client and daemon must share a time namespace.
 */
import { performance } from 'node:perf_hooks';

function hrtimeMs(): number {
  const [seconds, nanoseconds] = process.hrtime();
  return seconds * 1000 + nanoseconds / 1e6;
}

const OFFSET_MS = hrtimeMs() - performance.now();

/** Now, in milliseconds on CLOCK_MONOTONIC. */
export function monotonicMs(): number {
  return performance.now() + OFFSET_MS;
}
