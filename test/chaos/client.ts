/**
 * A program that increments counters in plain files under EX locks: `client.js SOCKET DIR ID SEED NAME...`.
 *
 * Read, yield, write: two at a time would lose an increment. It checks what rule 11 demands of a program: directly before it
 * writes, that the hold is valid and that no higher token stands in the file. On SIGTERM it waits for what it has asked for,
 * then ends; it also ends when its standard input does (its parent is gone).
 */
import { openSync, readFileSync, renameSync, writeFileSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as pause } from 'node:timers/promises';
import { type Client, connect, type LockHandle, monotonicMs, TsdlmError } from '../../src/client/index.js';
import { Prng } from '../sim/prng.js';
import { type ClientRecord, counterText, parseCounter } from './records.js';

const [socket = '', dir = '', id = '', seed = '0', ...names] = process.argv.slice(2);
const LOOPS = 2;
const log = openSync(join(dir, `client-${id}.jsonl`), 'a');
let isStopping = false;
let holds = 0;
let waits = 0;

process.stdin.resume().once('end', () => process.exit(3));
process.on('SIGTERM', () => {
  isStopping = true;
});

function note(record: ClientRecord): void {
  writeSync(log, `${JSON.stringify(record)}\n`);
}

function bad(text: string): void {
  note({ e: 'bad', text: `client ${id}: ${text}`, at: monotonicMs() });
}

/** One hold, from its grant on; its end is noted once. */
class Hold {
  readonly handle: LockHandle;
  readonly h = ++holds;
  #isOver = false;

  constructor(handle: LockHandle) {
    this.handle = handle;
    note({ e: 'grant', h: this.h, n: handle.name, m: handle.mode, t: String(handle.token), at: monotonicMs() });
    handle.on('lost', () => this.end('lost'));
  }

  end(why: 'release' | 'lost'): void {
    if (this.#isOver) return;
    this.#isOver = true;
    const now = monotonicMs();
    const { deadline } = this.handle;
    note({ e: 'end', h: this.h, until: Math.min(now, deadline), why: deadline < now ? 'deadline' : why });
  }

  alive(): void {
    const now = monotonicMs();
    if (!this.#isOver && this.handle.held && now < this.handle.deadline) note({ e: 'alive', h: this.h, at: now });
  }
}

/** Reads, yields, writes. */
async function increment({ handle, h }: Hold, random: Prng): Promise<void> {
  const file = join(dir, handle.name);
  const before = parseCounter(readFileSync(file, 'utf8'));
  if (before.token >= handle.token) {
    if (handle.valid()) bad(`'${handle.name}' was written under token ${before.token}, mine is ${handle.token} and valid`);
    return;
  }
  if (random.chance(0.7)) await pause(random.int(4));
  const now = parseCounter(readFileSync(file, 'utf8'));
  if (now.token !== before.token) {
    if (handle.valid()) bad(`'${handle.name}' went from token ${before.token} to ${now.token} while I held ${handle.token}`);
    return;
  }
  const value = before.value + 1;
  note({ e: 'intent', h, n: handle.name, v: value, at: monotonicMs() });
  const temporary = `${file}.${id}`;
  writeFileSync(temporary, counterText({ value, token: handle.token }));
  // From here to the rename nothing may come between but a stop of this process, which shows afterwards.
  const { deadline } = handle;
  if (!handle.valid()) return;
  renameSync(temporary, file);
  note({ e: 'done', h, n: handle.name, v: value, late: monotonicMs() >= deadline });
}

/** Looks at the counter for as long as it is shared: nobody may write it. */
async function watch({ handle }: Hold, random: Prng): Promise<void> {
  const file = join(dir, handle.name);
  const first = parseCounter(readFileSync(file, 'utf8'));
  await pause(random.int(8));
  const second = parseCounter(readFileSync(file, 'utf8'));
  if (first.value !== second.value && handle.valid()) bad(`'${handle.name}' was written while I held PR`);
}

async function turn(client: Client, random: Prng): Promise<void> {
  const name = random.pick(names);
  const mode = random.chance(0.85) ? 'EX' : 'PR';
  const options = random.weighted({ wait: 5, limit: 4, try: 1 });
  const w = ++waits;
  note({ e: 'wait', w, n: name, at: monotonicMs() });
  let handle: LockHandle;
  try {
    const timeout = random.between(50, 4000);
    handle = await client.lock(name, mode, options === 'try' ? { try: true } : options === 'limit' ? { timeout } : {});
  } catch (error) {
    note({ e: 'served', w, code: error instanceof TsdlmError ? error.code : String(error), at: monotonicMs() });
    throw error;
  }
  const hold = new Hold(handle);
  note({ e: 'served', w, code: 'granted', at: monotonicMs() });
  try {
    if (mode === 'EX') await increment(hold, random);
    else await watch(hold, random);
    // Some are slow to give back, so that faults find holders.
    if (random.chance(0.03)) {
      for (let left = random.int(30); left > 0 && handle.valid() && !isStopping; left--) {
        hold.alive();
        await pause(50);
      }
    }
  } finally {
    hold.end('release');
    await handle.release();
  }
}

/** Refused for a reason that faults and competition explain. */
const EXPECTED = new Set([
  'TSDLM_CONFLICT',
  'TSDLM_TIMEOUT',
  'TSDLM_CANCELLED',
  'TSDLM_LOST',
  'TSDLM_UNAVAILABLE',
  'TSDLM_OUTCOME_UNKNOWN',
  'TSDLM_NOT_HELD',
  'TSDLM_STOPPING',
  'TSDLM_DAEMON_UNREACHABLE',
]);

async function loop(client: Client, random: Prng): Promise<void> {
  while (!isStopping) {
    try {
      await turn(client, random);
    } catch (error) {
      const code = error instanceof TsdlmError ? error.code : '';
      if (!EXPECTED.has(code)) bad(error instanceof Error ? (error.stack ?? error.message) : String(error));
      await pause(20 + random.int(100));
    }
    if (random.chance(0.3)) await pause(random.int(10));
  }
}

async function connected(): Promise<Client> {
  for (;;) {
    try {
      return await connect({ socket, label: `chaos ${id}` });
    } catch (error) {
      if (isStopping) process.exit(0);
      if (!(error instanceof TsdlmError)) throw error;
      await pause(100);
    }
  }
}

const client = await connected();
await Promise.all(Array.from({ length: LOOPS }, (_, i) => loop(client, new Prng(Number(seed), i))));
await client.close();
process.exit(0);
