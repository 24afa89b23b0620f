/**
 * Flush races by the thousand, bytes cut anywhere, and clients that send anything. The seed of a run that fails is in its
 * message; the same seed gives the same run.
 */
import t from 'tap';
import { encode } from '../../src/dlmfs/9p-codec.js';
import { type Kind, MESSAGES, type Message, type MessageName, NOFID, NOTAG, VERSION } from '../../src/dlmfs/9p-messages.js';
import type { DlmfsHandle } from '../../src/dlmfs/types.js';
import { Wire } from './9p-bed.js';
import { Bed } from './bed.js';

const RW = 2;
const RW_CREAT = 0o102;
const NB = 0o4000;

type Random = (below: number) => number;
function generator(seed: number): Random {
  let state = (seed * 2654435761) >>> 0;
  return (below) => {
    state = (Math.imul(state ^ (state >>> 15), 2246822519) + 3266489917) >>> 0;
    return Math.floor((state / 2 ** 32) * below);
  };
}

/** A bed whose wires hold bytes back until `step` lets some through, in any order. */
class SlowBed {
  readonly bed: Bed;
  readonly random: Random;
  readonly wires: Wire[] = [];
  readonly #held: (() => void)[][] = [];

  constructor(seed: number, nodes: number[]) {
    this.random = generator(seed);
    this.bed = new Bed(nodes, []);
  }

  wire(letter: string, node: number): Wire {
    const queue: (() => void)[] = [];
    this.#held.push(queue);
    const cut = (bytes: Buffer): Buffer[] => {
      for (let at = 0; at < bytes.length; ) {
        const end = Math.min(bytes.length, at + 1 + this.random(40));
        const part = bytes.subarray(at, end);
        queue.push(() => wire.raw(Buffer.from(part)));
        at = end;
      }
      return [];
    };
    const wire = new Wire(this.bed, letter, node, cut, (b) => [b]);
    this.wires.push(wire);
    return wire;
  }

  /** Something happens: bytes of one wire arrive, messages between nodes, or deferred work. */
  async step(): Promise<void> {
    const queue = this.#held[this.random(this.#held.length)];
    for (let i = this.random(6); i > 0; i--) queue?.shift()?.();
    if (this.random(3) === 0) {
      const keys = [...this.bed.world.queues].filter(([, q]) => q.length > 0).map(([k]) => k);
      const key = keys[this.random(keys.length)];
      if (key !== undefined) this.bed.world.deliver(...(key.split('>').map(Number) as [number, number]));
      this.bed.world.writeJournals();
      this.bed.runLater();
    }
    await Promise.resolve();
  }

  async settle(): Promise<void> {
    for (let quiet = 0; quiet < 2; quiet++) {
      for (const queue of this.#held) for (let f = queue.shift(); f; f = queue.shift()) f();
      await this.bed.settle();
      if (this.#held.some((q) => q.length > 0)) quiet = -1;
    }
  }
}

t.test('flush races: an open and its flush cross at every point, on one lock of two mounts', async (t) => {
  t.setTimeout(180_000);
  const rounds = 1000;
  const outcomes = { aborted: 0, ok: 0, busy: 0 };
  for (let seed = 1; seed <= rounds / 50; seed++) {
    const slow = new SlowBed(seed, seed % 2 === 0 ? [1] : [1, 2]);
    const { random } = slow;
    const fast = async <T>(work: Promise<T>): Promise<T> => {
      await slow.settle();
      return work;
    };
    const [a, b] = [slow.wire('A', 1), slow.wire('B', seed % 2 === 0 ? 1 : 2)];
    const fsA = a.mount();
    const fsB = b.mount();
    await slow.settle();
    const mounts = [await fast(fsA), await fast(fsB)];
    for (const fs of mounts) await fast(fs.mkdir('/d'));
    for (let round = 0; round < 50; round++) {
      const done: Promise<void>[] = [];
      const handles: DlmfsHandle[] = [];
      for (const fs of mounts) {
        for (let i = 0; i < 2; i++) {
          const abort = new AbortController();
          const flags = [RW, RW_CREAT, 0o100, RW_CREAT | NB][random(4)] as number;
          done.push(
            fs.open('/d/l', flags, 0o644, { signal: abort.signal }).then(
              (handle) => {
                outcomes.ok++;
                handles.push(handle);
              },
              (error: { code?: unknown }) => {
                if (error.code === 'ETXTBSY' || error.code === 'EDEADLK') outcomes.busy++;
                else if (abort.signal.aborted) outcomes.aborted++;
                else if (error.code !== 'ENOENT') throw error;
              },
            ),
          );
          for (let n = random(60); n > 0; n--) await slow.step();
          const handle = random(2) === 0 ? handles.shift() : undefined;
          if (handle !== undefined) done.push(handle.close());
          if (random(4) > 0) abort.abort();
        }
      }
      // Whoever still waits gets the lock when the others have closed.
      let isOver = false;
      const all = Promise.all(done).then(() => {
        isOver = true;
      });
      for (let i = 0; i < 40 && !isOver; i++) {
        await slow.settle();
        for (const handle of handles.splice(0)) done.push(handle.close());
        await slow.settle();
      }
      if (!isOver) throw new Error(`seed ${seed} round ${round}: somebody waits for ever`);
      await all;
      for (const handle of handles.splice(0)) await fast(handle.close());
      for (const wire of slow.wires) {
        if (wire.rpc.strays.length > 0 || wire.faults.length > 0 || wire.session.counts.fids !== 1) {
          throw new Error(`seed ${seed} round ${round}: ${JSON.stringify([wire.rpc.strays, wire.faults, wire.session.counts])}`);
        }
      }
      // Nothing is left that would be in anybody's way.
      const fs = mounts[random(2)] as (typeof mounts)[0];
      const last = await fast(fs.open('/d/l', RW_CREAT));
      await fast(last.close());
    }
  }
  t.ok(outcomes.aborted > 200 && outcomes.ok > 200, JSON.stringify(outcomes));
});

/** A body of random values, mostly of sensible ones. */
function randomMessage(random: Random): Message {
  const names = Object.keys(MESSAGES) as MessageName[];
  const k = names[random(names.length)] as MessageName;
  const name = (): string => ['d', 'l', 'e', '..', '', 'a/b', 'x'.repeat(random(300)), '\u0000'][random(8)] as string;
  const value = (field: string, kind: Kind): unknown => {
    switch (kind) {
      case 'u8':
        return random(256);
      case 'u16':
        return random(12);
      case 'u32':
        if (field === 'afid') return NOFID;
        if (field === 'msize') return 8192;
        if (/fid/i.test(field)) return random(8) === 0 ? random(2 ** 32) : random(10);
        if (field === 'flags') return [0, 2, 0o4002, 0o100, 0o4102, 0o4000, 0x200, random(2 ** 32)][random(8)];
        return random(3) === 0 ? random(2 ** 32) : random(100);
      case 'u64':
        return random(3) === 0 ? random(2 ** 32) * 2 ** 20 : random(80);
      case 'str':
        return field === 'version' ? VERSION : name();
      case 'names':
        return Array.from({ length: random(4) }, name);
      case 'qid':
        return { type: 0, version: 0, path: 0 };
      case 'qids':
        return [];
      case 'data':
        return Buffer.alloc(random(70), 7);
    }
  };
  const body = Object.fromEntries(Object.entries(MESSAGES[k].fields).map(([f, kind]) => [f, value(f, kind)]));
  return { k, tag: random(40), ...body } as unknown as Message;
}

t.test('a client that sends anything: no throw, no growth, and the other mount is not disturbed', async (t) => {
  t.setTimeout(180_000);
  let answered = 0;
  let closed = 0;
  for (let seed = 1; seed <= 60; seed++) {
    const random = generator(seed);
    const bed = new Bed([1, 2], []);
    const good = new Wire(bed, 'A', 1);
    const mounting = good.mount();
    await bed.settle();
    const fs = await mounting;
    const made = fs.mkdir('/good');
    await bed.settle();
    await made;
    let bad = new Wire(bed, 'B', 2);
    const start = (): void => {
      bad = new Wire(bed, 'B', 2);
      bad.raw(encode({ k: 'Tversion', tag: NOTAG, msize: 8192, version: VERSION }));
      for (const fid of [0, 1]) bad.raw(encode({ k: 'Tattach', tag: fid, fid, afid: NOFID, uname: '', aname: '', nUname: 0 }));
    };
    start();
    for (let i = 0; i < 400; i++) {
      if (bad.isClosed) {
        closed++;
        start();
      }
      const bytes = encode(randomMessage(random));
      if (random(4) === 0) bytes[4 + random(bytes.length - 4)] = random(256);
      if (random(60) === 0) bytes[random(4)] = random(256);
      const cut = random(bytes.length);
      bad.raw(bytes.subarray(0, cut));
      bad.raw(bytes.subarray(cut));
      answered += bad.rpc.strays.splice(0).length;
      if (random(20) === 0) await bed.settle();
      const { tags, fids } = bad.session.counts;
      if (tags > 40 || fids > 65_536) throw new Error(`seed ${seed}: ${tags} tags, ${fids} fids`);
    }
    const opening = fs.open('/good/l', RW_CREAT);
    await bed.settle();
    const handle = await opening;
    t.equal((await handle.write('fine')).bytesWritten, 4, `seed ${seed}`);
    bad.end();
    await bed.settle();
    await handle.close();
    if (good.faults.length > 0 || good.rpc.strays.length > 0) throw new Error(`seed ${seed}: ${good.faults.join()}`);
  }
  t.ok(answered > 5000 && closed > 50, `${answered} answers, ${closed} connections closed`);
});

t.test('pure noise', (t) => {
  for (let seed = 1; seed <= 300; seed++) {
    const random = generator(seed);
    const bed = new Bed([1], []);
    const wire = new Wire(bed, 'A', 1);
    if (seed % 2 === 0) wire.raw(encode({ k: 'Tversion', tag: NOTAG, msize: 8192, version: VERSION }));
    for (let i = 0; i < 20 && !wire.isClosed; i++) wire.raw(Buffer.from(Array.from({ length: random(200) }, () => random(256))));
  }
  t.end();
});
