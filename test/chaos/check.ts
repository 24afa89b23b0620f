/** Judges what the clients of a chaos run wrote down: could all of it be true at once, and is every increment where it belongs? */
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { checkHistory, type Hold } from '../fixtures/history.js';
import { type ClientRecord, parseCounter } from './records.js';

export interface Judgement {
  problems: string[];
  grants: number;
  /** Increments that were acknowledged, and those of which nobody knows (their client was killed). */
  acknowledged: number;
  unknown: number;
  /** Writes that came back after their deadline: the hold's owner was stopped in the middle of one. */
  late: number;
  /** Waits by how they ended. */
  outcomes: Record<string, number>;
  /** Longest time in which nobody was granted one name, and that name. */
  gapMs: number;
  gapName: string;
}

function readRecords(file: string): ClientRecord[] {
  const lines = readFileSync(file, 'utf8').split('\n');
  // A client that was killed leaves half a line at most at the end.
  return lines.flatMap((line, i) => {
    try {
      return line === '' ? [] : [JSON.parse(line) as ClientRecord];
    } catch (error) {
      if (i >= lines.length - 2) return [];
      throw error;
    }
  });
}

interface Sums {
  acknowledged: number;
  unknown: number;
  late: number;
}

/** `killed`: ids of clients that were not asked to end, so their last request may be without an answer. */
export function judge(
  dir: string,
  names: readonly string[],
  isKilled: (client: string) => boolean,
  more: readonly Hold[],
): Judgement {
  const problems: string[] = [];
  const holds: Hold[] = [...more];
  const sums = new Map<string, Sums>(names.map((name) => [name, { acknowledged: 0, unknown: 0, late: 0 }]));
  const outcomes: Record<string, number> = {};
  let grants = 0;
  for (const file of readdirSync(dir).filter((name) => /^client-.*\.jsonl$/.test(name))) {
    const client = file.slice('client-'.length, -'.jsonl'.length);
    const open = new Map<number, Hold>();
    const waiting = new Map<number, string>();
    const intents = new Map<number, string>();
    for (const r of readRecords(join(dir, file))) {
      switch (r.e) {
        case 'wait':
          waiting.set(r.w, r.n);
          break;
        case 'served':
          waiting.delete(r.w);
          outcomes[r.code] = (outcomes[r.code] ?? 0) + 1;
          break;
        case 'grant': {
          grants++;
          const hold: Hold = {
            resource: r.n,
            node: `client ${client}`,
            mode: r.m,
            token: r.m === 'EX' ? BigInt(r.t) : 0n,
            grantedAt: r.at,
            from: r.at,
            // Until more is known; of a killed client no more may be known.
            until: r.at,
            ending: 'killed',
          };
          holds.push(hold);
          open.set(r.h, hold);
          break;
        }
        case 'alive': {
          const hold = open.get(r.h);
          if (hold) hold.until = Math.max(hold.until, r.at);
          break;
        }
        case 'end': {
          const hold = open.get(r.h);
          if (hold) {
            hold.until = Math.max(hold.from, r.until);
            hold.ending = r.why;
          }
          break;
        }
        case 'intent':
          intents.set(r.h, r.n);
          break;
        case 'done': {
          intents.delete(r.h);
          const sum = sums.get(r.n) as Sums;
          sum.acknowledged++;
          if (r.late) sum.late++;
          break;
        }
        case 'bad':
          problems.push(r.text);
          break;
      }
    }
    if (!isKilled(client))
      for (const name of waiting.values()) problems.push(`client ${client} was never answered for '${name}'`);
    // Of a client that ended by itself an intent without "done" was not carried out: its hold was over.
    if (isKilled(client)) for (const name of intents.values()) (sums.get(name) as Sums).unknown++;
  }
  problems.push(...checkHistory(holds).map((v) => `${v.rule}: ${v.text}`));
  const total: Sums = { acknowledged: 0, unknown: 0, late: 0 };
  for (const [name, sum] of sums) {
    const { value } = parseCounter(readFileSync(join(dir, name), 'utf8'));
    // A late write may have undone others' increments: then only the upper bound holds.
    const least = sum.late > 0 ? 0 : sum.acknowledged;
    const most = sum.acknowledged + sum.unknown;
    if (value < least || value > most) {
      problems.push(`counter '${name}' is ${value}: ${sum.acknowledged} acknowledged, ${sum.unknown} unknown, ${sum.late} late`);
    }
    total.acknowledged += sum.acknowledged;
    total.unknown += sum.unknown;
    total.late += sum.late;
  }
  return { problems, grants, ...total, outcomes, ...longestGap(names, holds) };
}

function longestGap(names: readonly string[], holds: readonly Hold[]): { gapMs: number; gapName: string } {
  let gapMs = 0;
  let gapName = '';
  for (const name of names) {
    const times = holds
      .filter((h) => h.resource === name)
      .map((h) => h.grantedAt)
      .sort((a, b) => a - b);
    for (const [i, at] of times.entries()) {
      const gap = at - (times[i - 1] ?? at);
      if (gap > gapMs) [gapMs, gapName] = [gap, name];
    }
  }
  return { gapMs, gapName };
}
