/**
 * Messages to bytes and back: the bodies, without their frames.
 *
 * The problem: what arrives is anybody's bytes, and the handlers behind want typed messages only. The idea: the tables of
 * fields are the single source; from them each message gets an encoder and a checking decoder once, at load. A body is a
 * msgpack array of the fields in table order, records inside it likewise; the hot messages have fixed layouts instead.
 * What a decoder returns satisfies its table; everything else is TSDLM_BAD_FRAME.
 *
 * Left to others: frames and their limits (frame.ts), the fixed layouts (fixed-*.ts), who may send what when.
 */
import { Packr } from 'msgpackr';
import { BodyReader, badFrame, putU53 } from './bytes.js';
import { CLIENT_TO_DAEMON, type ClientMessage, DAEMON_TO_CLIENT, type DaemonMessage } from './client-messages.js';
import { InvariantError, TsdlmError } from './errors.js';
import { FIXED_CLIENT_DECODE, FIXED_CLIENT_ENCODE } from './fixed-client.js';
import { FIXED_PEER_DECODE, FIXED_PEER_ENCODE, type FixedDecode, type FixedEncode } from './fixed-peer.js';
import { LINK_MESSAGES, type LinkMessage } from './link-messages.js';
import { guardMsgpack } from './msgpack-guard.js';
import { CONTROL_MESSAGES, LOCK_MESSAGES, type PeerMessage } from './peer-messages.js';
import type { Field, FieldTable, ListField, MessageDef, NullableField, RecordField } from './schema.js';

export type AnyMessage = PeerMessage | ClientMessage | DaemonMessage | LinkMessage;

/** No body of a fixed layout is longer: head, three texts of at most 255 bytes with their lengths, value block, numbers. */
export const FIXED_BYTES_MAX = 1024;

/** One message as the codec knows it. Exactly one of the two encoders is set. */
export interface Codec {
  readonly type: number;
  readonly name: string;
  /** Fixed layout: writes at `p`, at most FIXED_BYTES_MAX bytes, returns the offset behind. */
  readonly encodeFixed: FixedEncode<AnyMessage> | null;
  /** msgpack layout: the body as bytes of its own. */
  readonly encodePacked: ((m: AnyMessage) => Buffer) | null;
  readonly decode: (b: Buffer, start: number, end: number, lenient: boolean) => AnyMessage;
}

const packr = new Packr({
  useRecords: false,
  mapsAsObjects: true,
  variableMapSize: true,
  moreTypes: false,
  encodeUndefinedAsNil: true,
  int64AsType: 'number',
  copyBuffers: true,
});
const reader = new BodyReader();

type Convert = (v: unknown) => unknown;

/** How a field's value becomes wire data; null = it travels as it is. */
function wireOf(field: Field<unknown>): Convert | null {
  if ('table' in field) {
    const { table, order } = field as RecordField<FieldTable>;
    const inner = order.map((key) => [key, wireOf(table[key] as Field<unknown>)] as const);
    return (v) => inner.map(([key, to]) => (to ? to((v as Record<string, unknown>)[key]) : (v as Record<string, unknown>)[key]));
  }
  if ('item' in field) {
    const to = wireOf((field as ListField<unknown>).item);
    return to && ((v) => (v as unknown[]).map(to));
  }
  if ('inner' in field) {
    const to = wireOf((field as NullableField<unknown>).inner);
    return to && ((v) => (v === null ? null : to(v)));
  }
  return null;
}

/** The inverse of {@link wireOf}. What does not have the shape is passed on as it is and fails the field's check. */
function memoryOf(field: Field<unknown>): Convert | null {
  if ('table' in field) {
    const { table, order } = field as RecordField<FieldTable>;
    const inner = order.map((key) => [key, memoryOf(table[key] as Field<unknown>)] as const);
    return (v) => {
      if (!Array.isArray(v) || v.length < inner.length) return undefined;
      const record: Record<string, unknown> = {};
      for (let i = 0; i < inner.length; i++) {
        const [key, from] = inner[i] as (typeof inner)[number];
        record[key] = from ? from(v[i]) : v[i];
      }
      return record;
    };
  }
  if ('item' in field) {
    const from = memoryOf((field as ListField<unknown>).item);
    return from && ((v) => (Array.isArray(v) ? v.map(from) : undefined));
  }
  if ('inner' in field) {
    const from = memoryOf((field as NullableField<unknown>).inner);
    return from && ((v) => (v === null ? null : from(v)));
  }
  return null;
}

function packed(def: MessageDef): Codec {
  const names = def.order;
  const fields = names.map((key) => def.fields[key] as Field<unknown>);
  const to = fields.map(wireOf);
  const from = fields.map(memoryOf);
  return {
    type: def.type,
    name: def.name,
    encodeFixed: null,
    encodePacked: (m) => {
      const body: unknown[] = [];
      for (let i = 0; i < names.length; i++) {
        const v = (m as unknown as Record<string, unknown>)[names[i] as string];
        const convert = to[i];
        body.push(convert ? convert(v) : v);
      }
      return packr.pack(body);
    },
    decode: (b, start, end, lenient) => {
      guardMsgpack(b, start, end);
      const body: unknown = packr.unpack(b, { start, end });
      if (!Array.isArray(body)) throw badFrame('body is not an array');
      if (body.length < names.length || (body.length > names.length && !lenient)) {
        throw badFrame(`body has ${body.length} fields, must be ${names.length}`);
      }
      const m: Record<string, unknown> = { k: def.name };
      for (let i = 0; i < names.length; i++) {
        const convert = from[i];
        const v = convert ? convert(body[i]) : body[i];
        const field = fields[i] as Field<unknown>;
        if (!field.is(v)) throw badFrame(`field ${names[i]} is not of kind ${field.kind}`);
        m[names[i] as string] = v;
      }
      return m as AnyMessage;
    },
  };
}

function fixed(def: MessageDef, encode: FixedEncode<AnyMessage>, decode: FixedDecode<AnyMessage>): Codec {
  return {
    type: def.type,
    name: def.name,
    encodeFixed: encode,
    encodePacked: null,
    decode: (b, start, end, lenient) => {
      reader.start(b, start, end);
      const m = decode(reader);
      reader.finish(lenient);
      return m;
    },
  };
}

const ENCODERS = {
  ...FIXED_PEER_ENCODE,
  ...FIXED_CLIENT_ENCODE,
  LinkAck: ((b, p, m) => putU53(b, p, m.seq)) as FixedEncode<Ack>,
};
const DECODERS = {
  ...FIXED_PEER_DECODE,
  ...FIXED_CLIENT_DECODE,
  LinkAck: ((r) => ({ k: 'LinkAck', seq: r.u53() })) as FixedDecode<Ack>,
};
type Ack = Extract<LinkMessage, { k: 'LinkAck' }>;

const BY_TYPE: (Codec | undefined)[] = new Array<Codec | undefined>(256).fill(undefined);
const BY_NAME = new Map<string, Codec>();

const ALL: readonly MessageDef[] = [
  ...CONTROL_MESSAGES,
  ...LINK_MESSAGES,
  ...LOCK_MESSAGES,
  ...CLIENT_TO_DAEMON,
  ...DAEMON_TO_CLIENT,
] as unknown as readonly MessageDef[];
for (const def of ALL) {
  const encode = (ENCODERS as unknown as Record<string, FixedEncode<AnyMessage> | undefined>)[def.name];
  const decode = (DECODERS as unknown as Record<string, FixedDecode<AnyMessage> | undefined>)[def.name];
  const codec = encode && decode ? fixed(def, encode, decode) : packed(def);
  if (BY_TYPE[def.type]) throw new InvariantError(`message type 0x${def.type.toString(16)} is used twice`);
  BY_TYPE[def.type] = codec;
  BY_NAME.set(def.name, codec);
}
/** All message definitions, for documentation and tests. */
export const ALL_MESSAGES = ALL;

/** The codec of a message of ours. */
export function codecOf(m: AnyMessage): Codec {
  const codec = BY_NAME.get(m.k);
  if (!codec) throw new InvariantError(`no message is called ${m.k}`);
  return codec;
}

/** True when the message travels in a fixed layout. */
export function isFixed(name: string): boolean {
  return BY_NAME.get(name)?.encodeFixed != null;
}

/** The body of a message as bytes of its own. Hot paths use FrameWriter instead. */
export function encodeBody(m: AnyMessage): Buffer {
  const codec = codecOf(m);
  if (codec.encodePacked) return codec.encodePacked(m);
  const b = Buffer.alloc(FIXED_BYTES_MAX);
  return b.subarray(0, (codec.encodeFixed as FixedEncode<AnyMessage>)(b, 0, m));
}

/**
 * Decodes and checks the body b[start..end). `lenient`: the sender speaks a newer minor version, fields behind the last one we
 * know are passed over. Throws TSDLM_BAD_FRAME that names the message and what is wrong.
 */
export function decodeAt(type: number, b: Buffer, start: number, end: number, lenient = false): AnyMessage {
  const codec = BY_TYPE[type];
  if (!codec) throw badFrame(`message type 0x${type.toString(16)} is unknown`);
  try {
    return codec.decode(b, start, end, lenient);
  } catch (error) {
    if (error instanceof InvariantError) throw error;
    const text = error instanceof Error ? error.message : String(error);
    throw new TsdlmError('TSDLM_BAD_FRAME', `${codec.name}: ${text}`);
  }
}

/** {@link decodeAt} for a body that stands alone. */
export function decodeBody(type: number, bytes: Uint8Array, lenient = false): AnyMessage {
  const b = Buffer.isBuffer(bytes) ? bytes : Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  return decodeAt(type, b, 0, b.length, lenient);
}
