/** Sums over many seeds, and how they are shown. */
import type { RunResult } from './run.js';

export interface Totals {
  seeds: number;
  events: number;
  virtualMs: number;
  grants: number;
  counts: Record<string, number>;
  faults: Record<string, number>;
  failures: { seed: number; failure: string; report: string }[];
}

export function newTotals(): Totals {
  return { seeds: 0, events: 0, virtualMs: 0, grants: 0, counts: {}, faults: {}, failures: [] };
}

function addAll(into: Record<string, number>, from: Iterable<[string, number]>): void {
  for (const [key, value] of from) into[key] = (into[key] ?? 0) + value;
}

export function addRun(t: Totals, r: RunResult): void {
  t.seeds++;
  t.events += r.events;
  t.virtualMs += r.virtualMs;
  t.grants += r.grants;
  addAll(t.counts, r.counts);
  addAll(t.faults, r.faults);
  if (!r.ok) t.failures.push({ seed: r.seed, failure: r.failure ?? '', report: r.report });
}

export function addTotals(t: Totals, other: Totals): void {
  t.seeds += other.seeds;
  t.events += other.events;
  t.virtualMs += other.virtualMs;
  t.grants += other.grants;
  addAll(t.counts, Object.entries(other.counts));
  addAll(t.faults, Object.entries(other.faults));
  t.failures.push(...other.failures);
}

/** A few lines for people. `wallMs`: how long it took. */
export function showTotals(t: Totals, wallMs: number): string {
  const seconds = wallMs / 1000;
  const list = (r: Record<string, number>): string =>
    Object.entries(r)
      .sort(([a], [b]) => (a < b ? -1 : 1))
      .map(([k, v]) => `${k} ${v}`)
      .join(', ');
  return [
    `${t.seeds} seeds in ${seconds.toFixed(1)} s: ${(t.seeds / seconds).toFixed(1)} seeds/s, ${(t.virtualMs / 3_600_000).toFixed(2)} simulated hours, ${t.events} events, ${t.grants} grants`,
    `faults: ${list(t.faults)}`,
    `counts: ${list(t.counts)}`,
    `${t.failures.length} failed`,
  ].join('\n');
}
