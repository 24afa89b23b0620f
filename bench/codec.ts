/**
 * What one message costs in the codec: the fixed layout against the msgpack form of the same message. Run:
 * `node dist/bench/codec.js`. The answer decides which messages have fixed layouts (src/protocol/fixed-*.ts).
 */
import { Packr } from 'msgpackr';
import type { ClientMessage, DaemonMessage } from '../src/protocol/client-messages.js';
import { type AnyMessage, codecOf, decodeAt } from '../src/protocol/codec.js';
import { FrameWriter } from '../src/protocol/frame.js';
import { guardMsgpack } from '../src/protocol/msgpack-guard.js';
import type { PeerMessage } from '../src/protocol/peer-messages.js';

const head = { dom: 1, dep: 7, ce: 7, cc: 123456 };
const name = 'job/alpha-123456';
const MESSAGES: (PeerMessage | ClientMessage | DaemonMessage)[] = [
  { k: 'ClientLock', rid: 12345, domain: 'default', name, mode: 2, flags: 0, timeoutMs: 0, why: '' },
  { k: 'ClientUnlock', rid: 12346, lock: 12345, lvb: null },
  { k: 'DaemonGranted', rid: 12345, mode: 2, te: 7, tc: 123456, deadline: 123456.5, lvbState: 0, lvb: null, id: 4294967297 },
  { k: 'DaemonDone', rid: 12346 },
  { k: 'MasterRequest', ...head, name },
  { k: 'MasterReply', ...head, name, answer: 1, owner: 2, gen: 7 },
  { k: 'AssertMaster', ...head, name, owner: 2, gen: 7 },
  { k: 'LockRequest', ...head, name, id: 2 ** 32 + 5, mode: 2, flags: 0, se: 7, sc: 12345, who: 'host:1234 tsdlm', why: '' },
  { k: 'Grant', ...head, id: 2 ** 32 + 5, mode: 2, te: 7, tc: 123457, lvbState: 0, lvb: null },
  { k: 'UnlockRequest', ...head, name, id: 2 ** 32 + 5, lvbState: 0, lvb: null },
  { k: 'UnlockDone', ...head, id: 2 ** 32 + 5 },
  { k: 'Bast', ...head, id: 2 ** 32 + 5, mode: 2 },
  { k: 'Deref', ...head, name },
];
const ROUNDS = 300_000;
let sink = 0;

function nsPer(run: () => void): number {
  for (let i = 0; i < 20_000; i++) run();
  let best = Number.POSITIVE_INFINITY;
  for (let pass = 0; pass < 3; pass++) {
    const from = process.hrtime.bigint();
    for (let i = 0; i < ROUNDS; i++) run();
    best = Math.min(best, Number(process.hrtime.bigint() - from) / ROUNDS);
  }
  return best;
}

const packr = new Packr({ useRecords: false, moreTypes: false });
console.log('ns per message          encode (in frame)  decode   msgpack: encode  decode  guard');
for (const m of MESSAGES) {
  const writer = new FrameWriter();
  const encode = nsPer(() => {
    writer.push(m as AnyMessage, 5);
    if (writer.bytes > 8192) sink += writer.take().length;
  });
  writer.take();
  writer.push(m as AnyMessage, 5);
  const frame = writer.take();
  const { type } = codecOf(m);
  const start = type >= 0x40 && type < 0x80 ? 11 : 5;
  const decode = nsPer(() => {
    sink += decodeAt(type, frame, start, frame.length).k.length;
  });
  const values = Object.values(m).slice(1);
  const packed = packr.pack(values);
  const packedEncode = nsPer(() => {
    sink += packr.pack(values).length;
  });
  const packedDecode = nsPer(() => {
    sink += packr.unpack(packed).length;
  });
  const guard = nsPer(() => guardMsgpack(packed, 0, packed.length));
  const column = (v: number, width: number) => v.toFixed(0).padStart(width);
  console.log(
    `${m.k.padEnd(22)} ${column(encode, 12)} ${column(decode, 12)} ${column(packedEncode, 15)} ${column(packedDecode, 9)} ${column(guard, 6)}`,
  );
}
if (sink === 0) throw new Error('nothing was measured');
