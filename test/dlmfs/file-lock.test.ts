/** Rules of the file semantics that a table of calls does not show: what goes over the wire, crossings, deaths. */
import t from 'tap';
import type { DlmfsHandle } from '../../src/dlmfs/types.js';
import { Bed } from './bed.js';

const RW_CREAT = 0o102;
const R_CREAT = 0o100;
const NB = 0o4000;

async function open(bed: Bed, who: string, flags: number, signal?: AbortSignal): Promise<DlmfsHandle> {
  const handle = bed.mounts[who]?.open('/d/l', flags, 0o644, signal ? { signal } : {});
  await bed.settle();
  return handle as Promise<DlmfsHandle>;
}
/** An open that is not to be awaited yet: its result as a word. */
function later(bed: Bed, who: string, flags: number, signal?: AbortSignal): { result: string; handle: DlmfsHandle | null } {
  const out: { result: string; handle: DlmfsHandle | null } = { result: 'waits', handle: null };
  bed.mounts[who]?.open('/d/l', flags, 0o644, signal ? { signal } : {}).then(
    (handle) => {
      out.result = 'ok';
      out.handle = handle;
    },
    (error: { code?: unknown; name: string }) => {
      out.result = typeof error.code === 'string' ? error.code : error.name;
    },
  );
  return out;
}
async function joined(bed: Bed): Promise<void> {
  for (const mount of Object.values(bed.mounts)) {
    const made = mount.mkdir('/d');
    await bed.settle();
    await made;
  }
}
/** Messages sent while `work` runs. */
async function messages(bed: Bed, work: () => Promise<unknown>): Promise<string[]> {
  const seen: string[] = [];
  const deliver = bed.world.deliver.bind(bed.world);
  bed.world.deliver = (from, to) => {
    const message = deliver(from, to);
    if (message) seen.push(message.k);
    return message;
  };
  await work();
  await bed.settle();
  bed.world.deliver = deliver;
  return seen;
}

t.test('rule 22: a try against a kept file sends no BAST and leaves nothing behind; a blocking open recalls it', async (t) => {
  const bed = new Bed([1, 2], [1, 2]);
  await joined(bed);
  await (await open(bed, 'A', RW_CREAT)).close();
  const first = later(bed, 'B', RW_CREAT | NB);
  await bed.settle();
  t.equal(first.result, 'ETXTBSY');
  const tried = await messages(bed, async () => {
    const again = later(bed, 'B', RW_CREAT | NB);
    await bed.settle();
    t.equal(again.result, 'ETXTBSY');
  });
  t.notOk(tried.includes('Bast'), 'a try sends no BAST');
  const reopened = await messages(bed, async () => {
    await (await open(bed, 'A', RW_CREAT | NB)).close();
  });
  t.same(reopened, [], 'the keeper opens again without a message');
  const waited = await messages(bed, async () => {
    const blocking = later(bed, 'B', RW_CREAT);
    await bed.settle();
    t.equal(blocking.result, 'ok');
  });
  t.ok(waited.filter((k) => k === 'Bast').length <= 1);
});

t.test('rule 22: a try is refused when anyone waits, also by the mount that keeps the lock', async (t) => {
  const bed = new Bed([1, 2], [1, 2]);
  await joined(bed);
  const a = await open(bed, 'A', R_CREAT);
  const waiting = later(bed, 'B', RW_CREAT);
  await bed.settle();
  t.equal(waiting.result, 'waits');
  const local = later(bed, 'A', R_CREAT | NB);
  await bed.settle();
  t.equal(local.result, 'ETXTBSY');
  await a.close();
  await bed.settle();
  t.equal(waiting.result, 'ok');
});

t.test('rule 22: a try that cannot be decided is ENOTCONN, never ETXTBSY', async (t) => {
  const bed = new Bed([1, 2], [1, 2]);
  await joined(bed);
  bed.world.engine(2).setLeased(bed.world.now, false);
  const tried = later(bed, 'B', RW_CREAT | NB);
  await bed.settle();
  bed.world.advance(1000);
  await bed.settle();
  t.equal(tried.result, 'ENOTCONN');
});

t.test('rule 2: a lapse of the lease frees no file; what was open is confirmed again', async (t) => {
  const bed = new Bed([1, 2], [1, 2]);
  await joined(bed);
  const b = await open(bed, 'B', RW_CREAT);
  await b.write('before', 0, undefined, 0);
  const { world } = bed;
  world.engine(2).reset(world.now);
  const other = later(bed, 'A', RW_CREAT);
  await bed.settle();
  t.equal(other.result, 'waits', 'nobody else is granted it meanwhile');
  world.members = world.members.map((m) => (m.node === 2 ? { node: 2, startCount: 2, continues: 1, keeps: false } : m));
  world.engine(2).reincarnate(2);
  world.epoch++;
  world.setView();
  await bed.settle();
  t.equal(other.result, 'waits');
  t.equal((await b.read(new Uint8Array(64), 0, 64, 0)).bytesRead, 64, 'it is held, and its value is known');
  await b.close();
  await bed.settle();
  t.equal(other.result, 'ok');
  const { bytesRead, buffer } = (await other.handle?.read(new Uint8Array(64), 0, 64, 0)) ?? {
    bytesRead: 0,
    buffer: new Uint8Array(),
  };
  t.equal(
    Buffer.from(buffer.subarray(0, Math.min(bytesRead, 6))).toString(),
    'before',
    'written before the lapse, published after it',
  );
});

t.test('S3: the value block of a writer that died reads as nothing, not as zeros', async (t) => {
  const bed = new Bed([1, 2], [1, 2]);
  await joined(bed);
  const a = await open(bed, 'A', RW_CREAT);
  await a.close();
  const b = await open(bed, 'B', RW_CREAT);
  await b.write('lost');
  bed.world.evict(2);
  await bed.settle();
  const again = later(bed, 'A', RW_CREAT);
  await bed.settle();
  t.equal(again.result, 'ok');
  const handle = again.handle as DlmfsHandle;
  t.equal((await handle.read(new Uint8Array(64), 0, 64, 0)).bytesRead, 0);
  await handle.write('new', 0, undefined, 0);
  t.equal((await handle.read(new Uint8Array(64), 0, 64, 0)).bytesRead, 64, 'until somebody writes it');
});

t.test('a withdrawn open leaves its place, whenever it comes', async (t) => {
  for (let steps = 0; steps < 12; steps++) {
    const bed = new Bed([1, 2], [1, 2]);
    await joined(bed);
    const a = await open(bed, 'A', RW_CREAT);
    const abort = new AbortController();
    const waiting = later(bed, 'B', RW_CREAT, abort.signal);
    // Some messages of it are delivered, then it is withdrawn; the holder closes in the middle.
    const queues = (): [string, number][] => [...bed.world.queues].map(([k, q]) => [k, q.length]);
    for (let i = 0; i < steps; i++) {
      for (const [key, length] of queues()) {
        const [from, to] = key.split('>').map(Number) as [number, number];
        if (length > 0) bed.world.deliver(from, to);
      }
      if (i === 4) await a.close();
      await new Promise<void>((resolve) => setImmediate(resolve));
    }
    abort.abort();
    await bed.settle();
    if (steps <= 4) await a.close();
    await bed.settle();
    t.ok(['AbortError', 'ok'].includes(waiting.result), `after ${steps} steps: ${waiting.result}`);
    await waiting.handle?.close();
    const next = later(bed, 'A', RW_CREAT);
    await bed.settle();
    t.equal(next.result, 'ok', `after ${steps} steps the lock can be had`);
  }
});

t.test('local openers cannot starve another mount', async (t) => {
  const bed = new Bed([1, 2], [1, 2]);
  await joined(bed);
  let current = await open(bed, 'A', RW_CREAT);
  const other = later(bed, 'B', RW_CREAT);
  await bed.settle();
  for (let i = 0; i < 5; i++) {
    const next = later(bed, 'A', RW_CREAT);
    await bed.settle();
    await current.close();
    await bed.settle();
    t.equal(other.result, 'ok', 'the other is served first');
    await other.handle?.close();
    other.handle = null;
    await bed.settle();
    t.equal(next.result, 'ok');
    current = next.handle as DlmfsHandle;
  }
});

t.test('a writer behind its own readers goes first when others wait: no deadlock within one process', async (t) => {
  const bed = new Bed([1, 2], [1, 2]);
  await joined(bed);
  const reader = await open(bed, 'A', R_CREAT);
  const other = later(bed, 'B', RW_CREAT);
  await bed.settle();
  const writer = later(bed, 'A', RW_CREAT);
  await bed.settle();
  t.equal(writer.result, 'ok');
  await writer.handle?.close();
  await reader.close();
  await bed.settle();
  t.equal(other.result, 'ok');
});
