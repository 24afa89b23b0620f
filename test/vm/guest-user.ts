/**
 * Runs in the guest: a program on tsdlm with the orders and answers of guest/kernel-user.py.
 *
 *   node guest-user.js SOCKET DOMAIN
 *
 * Besides: `deadline NAME`; a lock that is lost is said without being asked.
 */
import fs from 'node:fs';
import { createInterface } from 'node:readline';
import { setTimeout as sleep } from 'node:timers/promises';
import { connect, type LockHandle, monotonicMs, TsdlmError } from '../../src/client/index.js';

const DEVICE = '/dev/vda';
const OFFSET = 512 * 1024;
const BLOCK = 512;

function say(...words: (string | number)[]): void {
  fs.writeSync(1, `${words.join(' ')}\n`);
}

/** The block of kernel-user.py's Counter. */
class Counter {
  readonly #fd = fs.openSync(DEVICE, fs.constants.O_RDWR | fs.constants.O_DIRECT);
  readonly #block = this.#aligned();

  /** O_DIRECT needs memory at a multiple of the block; where ours lies nobody tells, but the kernel says when it is wrong. */
  #aligned(): Buffer {
    const space = Buffer.from(new ArrayBuffer(2 * BLOCK));
    for (let at = 0; at < BLOCK; at += 8) {
      const block = space.subarray(at, at + BLOCK);
      try {
        fs.readSync(this.#fd, block, 0, BLOCK, OFFSET);
        return block;
      } catch (error) {
        if ((error as NodeJS.ErrnoException).code !== 'EINVAL') throw error;
      }
    }
    throw new Error('no aligned memory');
  }

  load(): { count: number; inside: number } {
    fs.readSync(this.#fd, this.#block, 0, BLOCK, OFFSET);
    return { count: this.#block.readUInt32LE(0), inside: this.#block.readUInt32LE(4) };
  }

  store(count: number, inside: number): void {
    this.#block.writeUInt32LE(count, 0);
    this.#block.writeUInt32LE(inside, 4);
    fs.writeSync(this.#fd, this.#block, 0, BLOCK, OFFSET);
  }
}

async function write(counter: Counter, me: number): Promise<number> {
  const { count, inside } = counter.load();
  let seen = inside === 0 ? 0 : 1;
  counter.store(count, me);
  await sleep(3);
  const now = counter.load();
  if (now.count !== count || now.inside !== me) seen++;
  counter.store(count + 1, 0);
  return seen;
}

async function read(counter: Counter): Promise<number> {
  const first = counter.load();
  await sleep(3);
  const now = counter.load();
  return first.inside !== 0 || now.inside !== 0 || now.count !== first.count ? 1 : 0;
}

const [socket = '', domain = ''] = process.argv.slice(2);
const client = await connect({ socket, label: 'guest-user', connectTimeout: 60_000 });
const held = new Map<string, LockHandle>();

async function hammer(name: string, ms: number, me: number, isMixed: boolean): Promise<void> {
  const counter = new Counter();
  const end = monotonicMs() + ms;
  let [done, reads, seen, longest, invalid] = [0, 0, 0, 0, 0];
  while (monotonicMs() < end) {
    const isRead = isMixed && Math.random() < 0.2;
    const asked = monotonicMs();
    const handle = await client.lock(name, isRead ? 'PR' : 'EX', { domain });
    longest = Math.max(longest, monotonicMs() - asked);
    if (isRead) {
      seen += await read(counter);
      reads++;
    } else {
      seen += await write(counter, me);
      done++;
    }
    // Under emulation a busy machine may stand still for longer than the lease: then it says nothing about exclusion.
    if (!handle.valid()) invalid++;
    await handle.release();
    await sleep(Math.random() * 20);
  }
  if (invalid > 0) say('invalid', invalid);
  say('hammered', done, reads, seen, Math.round(longest), Math.round(monotonicMs()));
}

async function obey(verb: string, name: string, rest: string[]): Promise<void> {
  const handle = held.get(name);
  if (verb === 'open') {
    say('asking', name, monotonicMs());
    const lock = await client.lock(name, rest[0] === 'pr' ? 'PR' : 'EX', { domain, lvb: true, try: rest.includes('try') });
    held.set(name, lock);
    say('granted', name, monotonicMs());
    lock.on('lost', (error) => say('lost', name, error.code, monotonicMs()));
    lock.on('blocking', (mode) => say('blocking', name, mode, monotonicMs()));
  } else if (verb === 'hammer') await hammer(name, Number(rest[0]), Number(rest[1]), rest.includes('mixed'));
  else if (handle === undefined) throw new Error(`${name} is not held`);
  else if (verb === 'close') {
    await handle.release();
    held.delete(name);
    say('closed', name, monotonicMs());
  } else if (verb === 'write') {
    const value = Buffer.alloc(64);
    value.write(rest[0] ?? '');
    await handle.writeLvb(value);
    say('written', name, monotonicMs());
  } else if (verb === 'read') {
    const text = handle.lvb?.toString('utf8').replace(/\0+$/, '');
    say('value', name, text === undefined || text === '' ? '-' : text, monotonicMs());
  } else if (verb === 'deadline') say('deadline', name, handle.deadline, monotonicMs());
}

say('ready', monotonicMs());
for await (const line of createInterface({ input: process.stdin })) {
  const [verb = '', name = '', ...rest] = line.split(' ');
  obey(verb, name, rest).catch((error: unknown) => {
    say('failed', name, error instanceof TsdlmError ? error.code : String(error), monotonicMs());
  });
}
