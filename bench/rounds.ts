/**
 * How things are measured here: side by side, in turns, with the noise shown.
 *
 * The problem: on a machine with two cores and other work on it, a number alone says nothing; the same program gives half
 * as much a minute later. The idea: the subjects of one comparison take turns (A B C, A B C, ...) inside one run, each turn
 * short; what is reported is the median of each, the spread of its turns, and the median of the ratios *within* a turn, which
 * noise that lasts longer than a turn cannot move. Rates have a second figure, the processor time that one operation took in
 * all processes together: it says what the work costs when others keep the processors busy and the clock says little.
 */
import { readdirSync, readFileSync } from 'node:fs';

export interface Subject {
  name: string;
  /** What `run` returns: 'per second' numbers are better when higher, milliseconds when lower. */
  unit: '/s' | 'ms' | 'ns' | 'us' | 'B' | '';
  /** One turn; returns the value measured. */
  run: () => Promise<number> | number;
  /** Name of the subject that this one is compared with; none for a floor. */
  against?: string | undefined;
  /** For people: what the design asks for. */
  target?: string | undefined;
  /** Processes that do the work, this one included: gives the processor time per operation of a rate. */
  pids?: readonly number[];
}

export interface Row {
  group: string;
  name: string;
  unit: Subject['unit'];
  median: number;
  /** Lowest and highest turn. */
  low: number;
  high: number;
  /** Half the distance between the quartiles, relative to the median: the noise of one turn. */
  noise: number;
  against: string;
  /** Median over the turns of value / value of `against`; NaN for a floor. */
  ratio: number;
  target: string;
  samples: number[];
  /** Processor time per operation, microseconds, of all processes together: median and ratio to `against`; NaN = not measured. */
  cpuUs: number;
  cpuRatio: number;
  cpuSamples: number[];
}

export function median(values: readonly number[]): number {
  return quantile(values, 0.5);
}

export function quantile(values: readonly number[], q: number): number {
  const sorted = [...values].sort((a, b) => a - b);
  if (sorted.length === 0) return Number.NaN;
  const at = (sorted.length - 1) * q;
  const low = sorted[Math.floor(at)] as number;
  const high = sorted[Math.ceil(at)] as number;
  return low + (high - low) * (at - Math.floor(at));
}

/** Processor time that the processes have used so far, all threads, in microseconds; gone ones count as nothing. */
export function processorUs(pids: readonly number[]): number {
  let ns = 0;
  for (const pid of pids) {
    try {
      for (const task of readdirSync(`/proc/${pid}/task`)) {
        ns += Number(readFileSync(`/proc/${pid}/task/${task}/schedstat`, 'utf8').split(' ')[0]);
      }
    } catch {
      // Ended meanwhile.
    }
  }
  return ns / 1000;
}

/** Runs all subjects in turns, `rounds` times after one turn that does not count (compilers, connections, caches). */
export async function inTurns(group: string, subjects: readonly Subject[], rounds: number, warmUp = true): Promise<Row[]> {
  const samples = new Map<string, number[]>(subjects.map((s) => [s.name, []]));
  const cpu = new Map<string, number[]>(subjects.map((s) => [s.name, []]));
  if (warmUp) for (const subject of subjects) await subject.run();
  for (let round = 0; round < rounds; round++) {
    for (const subject of subjects) {
      const before = subject.pids ? processorUs(subject.pids) : 0;
      const began = performance.now();
      const value = await subject.run();
      samples.get(subject.name)?.push(value);
      if (!subject.pids) continue;
      const operations = (value * (performance.now() - began)) / 1000;
      cpu.get(subject.name)?.push((processorUs(subject.pids) - before) / operations);
    }
  }
  return subjects.map((subject) => rowOf(group, subject, samples, cpu));
}

type Samples = ReadonlyMap<string, number[]>;

/** Median over the turns of mine / floor. */
export function ratioOf(mine: readonly number[], floor: readonly number[]): number {
  return median(mine.map((v, i) => v / (floor[i] ?? Number.NaN)));
}

function rowOf(group: string, subject: Subject, all: Samples, cpu: Samples): Row {
  const cpuSamples = cpu.get(subject.name) ?? [];
  const cpuFloor = subject.against === undefined ? [] : (cpu.get(subject.against) ?? []);
  const samples = all.get(subject.name) ?? [];
  const floor = subject.against === undefined ? [] : (all.get(subject.against) ?? []);
  const mid = median(samples);
  return {
    group,
    name: subject.name,
    unit: subject.unit,
    median: mid,
    low: Math.min(...samples),
    high: Math.max(...samples),
    noise: (quantile(samples, 0.75) - quantile(samples, 0.25)) / 2 / mid,
    against: subject.against ?? '',
    ratio: subject.against === undefined ? Number.NaN : ratioOf(samples, floor),
    target: subject.target ?? '',
    samples,
    cpuUs: median(cpuSamples),
    cpuRatio: ratioOf(cpuSamples, cpuFloor),
    cpuSamples,
  };
}

function figure(value: number): string {
  if (Number.isNaN(value)) return '';
  if (value >= 1000) return Math.round(value).toLocaleString('en-US');
  if (value >= 100) return value.toFixed(0);
  return value >= 10 ? value.toFixed(1) : value.toFixed(2);
}

/** The rows of one group as a text table. */
export function printRows(rows: readonly Row[]): void {
  const head = ['what', 'median', 'unit', 'lowest .. highest', 'noise', 'ratio', 'cpu us', 'ratio', 'to', 'target'];
  const body = rows.map((r) => [
    r.name,
    figure(r.median),
    r.unit,
    `${figure(r.low)} .. ${figure(r.high)}`,
    `${(r.noise * 100).toFixed(0)} %`,
    Number.isNaN(r.ratio) ? '' : r.ratio.toFixed(2),
    figure(r.cpuUs),
    Number.isNaN(r.cpuRatio) ? '' : r.cpuRatio.toFixed(2),
    r.against,
    r.target,
  ]);
  const widths = head.map((h, i) => Math.max(h.length, ...body.map((b) => (b[i] as string).length)));
  const isRight = [false, true, false, true, true, true, true, true, false, false];
  const line = (cells: readonly string[]): string =>
    cells
      .map((c, i) => (isRight[i] ? c.padStart(widths[i] as number) : c.padEnd(widths[i] as number)))
      .join('  ')
      .trimEnd();
  console.log(`\n${rows[0]?.group ?? ''}`);
  console.log(line(head));
  for (const b of body) console.log(line(b));
}
