import fc from 'fast-check';
import t from 'tap';
import type { ClientMessage } from '../../src/protocol/client-messages.js';
import type { AnyMessage } from '../../src/protocol/codec.js';
import { decodeAt } from '../../src/protocol/codec.js';
import { FrameReader, FrameWriter, isSequenced, MessageReader, SEQ_BYTES } from '../../src/protocol/frame.js';
import { CLIENT_FRAME_BYTES_MAX } from '../../src/protocol/limits.js';
import { anyMessage } from './arbitrary.js';

const MAX = { frameBytesMax: CLIENT_FRAME_BYTES_MAX };
const lock = (rid: number, name = `name-${rid}`): ClientMessage => ({
  k: 'ClientLock',
  rid,
  domain: 'd',
  name,
  mode: 2,
  flags: 0,
  timeoutMs: 0,
  why: '',
});

/** All messages that come out of the chunks, or the error. */
function readAll(chunks: Iterable<Buffer>, frameBytesMax = MAX.frameBytesMax): { got: AnyMessage[]; error: string | null } {
  const reader = new FrameReader({ frameBytesMax });
  const got: AnyMessage[] = [];
  for (const chunk of chunks) {
    const error = reader.push(chunk, (type, b, start, end) => {
      got.push(decodeAt(type, b, isSequenced(type) ? start + SEQ_BYTES : start, end));
    });
    if (error) return { got, error: error.code };
  }
  return { got, error: null };
}

t.test('frames split at every byte come out whole', async (t) => {
  const writer = new FrameWriter();
  const sent = [lock(1), { k: 'ClientCancel', rid: 2, target: 1 } as const, lock(3, 'é'.repeat(127))];
  for (const m of sent) writer.push(m);
  const bytes = writer.take();
  for (let i = 0; i <= bytes.length; i++) {
    t.same(readAll([bytes.subarray(0, i), bytes.subarray(i)]), { got: sent, error: null }, `split at ${i}`);
  }
  t.same(readAll([...bytes].map((b) => Buffer.from([b]))), { got: sent, error: null }, 'one byte at a time');
});

t.test('any messages in any pieces come out in order', async () => {
  fc.assert(
    fc.property(fc.array(anyMessage, { maxLength: 12 }), fc.array(fc.integer({ min: 1, max: 400 })), (messages, cuts) => {
      const writer = new FrameWriter();
      for (const [i, m] of messages.entries()) writer.push(m, i);
      let rest = writer.take();
      const chunks: Buffer[] = [];
      for (const n of cuts) {
        chunks.push(rest.subarray(0, n));
        rest = rest.subarray(n);
      }
      chunks.push(rest);
      const { got, error } = readAll(chunks, 4 * 1024 * 1024);
      if (error) throw new Error(error);
      if (got.map((m) => m.k).join() !== messages.map((m) => m.k).join()) throw new Error('order');
    }),
    { numRuns: 500 },
  );
});

t.test('an oversized frame is refused at its length word, after the good ones before it', async (t) => {
  const writer = new FrameWriter();
  writer.push(lock(1));
  const bad = Buffer.alloc(4);
  bad.writeUInt32LE(CLIENT_FRAME_BYTES_MAX + 1);
  const { got, error } = readAll([writer.take(), bad]);
  t.equal(got.length, 1);
  t.equal(error, 'TSDLM_FRAME_TOO_LARGE');
  const split = readAll([bad.subarray(0, 2), bad.subarray(2)]);
  t.equal(split.error, 'TSDLM_FRAME_TOO_LARGE');
});

t.test('a frame without a type is refused', async (t) => {
  t.equal(readAll([Buffer.from([0, 0, 0, 0])]).error, 'TSDLM_BAD_FRAME');
  t.equal(readAll([Buffer.from([0, 0]), Buffer.from([0, 0])]).error, 'TSDLM_BAD_FRAME');
});

t.test('a truncated frame is kept, and costs no more memory than what has arrived', async (t) => {
  const reader = new FrameReader({ frameBytesMax: 4 * 1024 * 1024 });
  const announce = Buffer.alloc(5);
  announce.writeUInt32LE(4 * 1024 * 1024);
  t.equal(
    reader.push(announce, () => t.fail('no frame is complete')),
    null,
  );
  t.equal(reader.heldBytes, 5);
  for (let i = 0; i < 100; i++) reader.push(Buffer.alloc(10), () => t.fail('no frame is complete'));
  t.equal(reader.heldBytes, 1005);
});

t.test('32 MB of garbage end at the first bad length and hold no memory', async (t) => {
  const reader = new FrameReader(MAX);
  let errors = 0;
  const chunk = Buffer.alloc(64 * 1024, 0xa5);
  for (let i = 0; i < 512; i++) if (reader.push(chunk, () => t.fail('garbage is no frame'))) errors++;
  t.equal(errors, 1);
  t.equal(reader.heldBytes, 0);
});

t.test('random bytes never throw out of the reader', async () => {
  fc.assert(
    fc.property(fc.array(fc.uint8Array({ maxLength: 64 }), { maxLength: 30 }), (chunks) => {
      const reader = new MessageReader<ClientMessage>({ ...MAX, from: 'client' });
      for (const c of chunks) {
        const error = reader.push(Buffer.from(c), () => {});
        if (error && error.code !== 'TSDLM_BAD_FRAME' && error.code !== 'TSDLM_FRAME_TOO_LARGE') throw error;
      }
    }),
    { numRuns: 3000 },
  );
});

t.test('a message for the other direction is refused, and nothing follows it', async (t) => {
  const writer = new FrameWriter();
  writer.push(lock(1));
  writer.push({ k: 'DaemonDone', rid: 1 });
  writer.push(lock(2));
  const reader = new MessageReader<ClientMessage>({ ...MAX, from: 'client' });
  const got: ClientMessage[] = [];
  const error = reader.push(writer.take(), (m) => got.push(m));
  t.equal(error?.code, 'TSDLM_BAD_FRAME');
  t.match(error?.message, /not for this direction/);
  t.equal(got.length, 1);
  writer.push(lock(3));
  t.equal(reader.push(writer.take(), (m) => got.push(m))?.code, 'TSDLM_BAD_FRAME');
  t.equal(got.length, 1);
});

t.test('stop() inside a handler ends the chunk under way', async (t) => {
  const writer = new FrameWriter();
  for (let i = 1; i <= 3; i++) writer.push(lock(i));
  const reader = new MessageReader<ClientMessage>({ ...MAX, from: 'client' });
  let seen = 0;
  t.equal(
    reader.push(writer.take(), () => {
      seen++;
      reader.stop();
    }),
    null,
  );
  t.equal(seen, 1);
});

t.test('a writer gives out each byte once and never writes it again', async (t) => {
  const writer = new FrameWriter();
  const taken: Buffer[] = [];
  const copies: Buffer[] = [];
  let total = 0;
  for (let turn = 0; turn < 200; turn++) {
    for (let i = 0; i <= turn % 50; i++) total += writer.push(lock(turn * 100 + i, 'n'.repeat(1 + ((turn * i) % 255))));
    t.ok(writer.bytes > 0);
    const b = writer.take();
    t.equal(writer.bytes, 0);
    taken.push(b);
    copies.push(Buffer.from(b));
  }
  t.equal(writer.take().length, 0);
  t.equal(Buffer.concat(taken).length, total);
  t.ok(Buffer.concat(taken).equals(Buffer.concat(copies)));
});

t.test('the place of the last frame holds exactly its bytes', async (t) => {
  const writer = new FrameWriter();
  writer.push(lock(1));
  const n = writer.push(lock(2));
  const frame = writer.slab.subarray(writer.frameStart, writer.frameEnd);
  t.equal(frame.length, n);
  t.same(readAll([frame]).got, [lock(2)]);
});
