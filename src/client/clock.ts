/** The clock of deadlines. Client and daemon must share a time namespace (rule 10). */
import { performance } from 'node:perf_hooks';
import { monotonicOffset } from '../protocol/monotonic.js';

const OFFSET_MS = monotonicOffset({
  hrtimeMs: () => {
    const [seconds, nanoseconds] = process.hrtime();
    return seconds * 1000 + nanoseconds / 1e6;
  },
  performanceMs: () => performance.now(),
});

/** Now, in milliseconds on CLOCK_MONOTONIC. */
export function monotonicMs(): number {
  return performance.now() + OFFSET_MS;
}
