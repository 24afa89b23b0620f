/**
 * Journal speed against its floor in the same run: the floor is lmdb itself with the same environments and the same bytes.
 * Prints microseconds per synced persist with one in flight, and writes per second of node-owned locks at 1, 16 and 128 in flight.
 *
 *   node dist/bench/journal.js [SECONDS per figure, default 1]
 */
import { mkdirSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { open, type RootDatabase } from 'lmdb';
import type { NodeOwnedRecord } from '../src/master/types.js';
import { nowMs } from '../src/node/facts.js';
import { type Journal, openJournal } from '../src/node/journal.js';
import { encodeValue } from '../src/node/journal-store.js';
import { SILENT_LOG } from '../src/node/log.js';

const seconds = Number(process.argv[2] ?? 1);

/** Runs `one` with `width` in flight for the given time; operations per second. */
async function rate(width: number, one: (n: number) => Promise<unknown>): Promise<number> {
  let n = 0;
  const started = nowMs();
  const end = started + seconds * 1000;
  const worker = async (): Promise<void> => {
    while (nowMs() < end) await one(n++);
  };
  await Promise.all(Array.from({ length: width }, worker));
  return (n * 1000) / (nowMs() - started);
}

function record(id: number): NodeOwnedRecord {
  return {
    id,
    domain: 'default',
    name: `resource-${id}`,
    mode: 2,
    te: 3,
    tc: id,
    lvbState: 0,
    lvb: null,
    who: 'host:4711 bench',
    why: '',
    since: 1_700_000_000_000,
  };
}

const base = mkdtempSync(join(tmpdir(), 'tsdlm-bench-'));
try {
  const floor = (name: string, noSync: boolean): RootDatabase<Buffer, number> => {
    mkdirSync(join(base, name));
    return open<Buffer, number>({ path: join(base, name), encoding: 'binary', noSync, overlappingSync: false, noSubdir: false });
  };
  const journal: Journal = await openJournal({
    dir: join(base, 'state'),
    nodeId: 1,
    clusterName: 'bench',
    bootId: 'bench',
    log: SILENT_LOG,
  });

  const synced = floor('synced', false);
  const bytes = encodeValue('hard', { term: 1, vote: 1 });
  const floorSync = await rate(1, (n) => synced.put(n % 100, bytes));
  await synced.close();
  const persist = await rate(1, (n) => journal.persist({ ticket: n + 1, hard: { term: n + 1, vote: 1 } }));
  const us = (perSecond: number): string => `${(1e6 / perSecond).toFixed(0)} us`;
  console.log(
    `synced persist, 1 in flight: ${us(persist)} (floor ${us(floorSync)}, ${((100 * persist) / floorSync).toFixed(0)} % of its speed)`,
  );

  for (const width of [1, 16, 128]) {
    const bare = floor(`locks${width}`, true);
    const floorRate = await rate(width, (n) => bare.put(n % 50_000, encodeValue(n % 50_000, record(n % 50_000))));
    await bare.close();
    const own = await rate(width, (n) => journal.writeNodeOwned({ op: 'put', record: record(n % 50_000) }));
    console.log(
      `node-owned put, ${width} in flight: ${Math.round(own)}/s (floor ${Math.round(floorRate)}/s, ${((100 * own) / floorRate).toFixed(0)} %)`,
    );
    await journal.clearNodeOwned();
  }
  await journal.close();
} finally {
  rmSync(base, { recursive: true, force: true });
}
