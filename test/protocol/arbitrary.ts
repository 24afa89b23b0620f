/** Random messages from their own tables, for the tests of the codec and of the doors. */
import fc from 'fast-check';
import { ALL_MESSAGES, type AnyMessage } from '../../src/protocol/codec.js';
import type { Field, FieldTable, ListField, MessageDef, NullableField, RecordField } from '../../src/protocol/schema.js';

const fits = (max: number) => (s: string) => Buffer.byteLength(s) <= max;
/** Text as it survives UTF-8: no half of a surrogate pair. */
const unicode = (max: number, min = 0): fc.Arbitrary<string> =>
  fc.string({ unit: 'grapheme', minLength: min, maxLength: max }).filter(fits(max));

function fieldArbitrary(field: Field<unknown>): fc.Arbitrary<unknown> {
  if ('table' in field) {
    const table = (field as RecordField<FieldTable>).table;
    return fc.record(Object.fromEntries(Object.entries(table).map(([k, f]) => [k, fieldArbitrary(f)])), {
      noNullPrototype: true,
    });
  }
  if ('item' in field) {
    const max = Number(/,(\d+)\)$/.exec(field.kind)?.[1]);
    return fc.array(fieldArbitrary((field as ListField<unknown>).item), { maxLength: Math.min(4, max) });
  }
  if ('inner' in field) return fc.option(fieldArbitrary((field as NullableField<unknown>).inner), { nil: null });
  const sized = /^(text|bytes)\((\d+)\)$/.exec(field.kind);
  if (sized) {
    const n = Number(sized[2]);
    return sized[1] === 'text' ? unicode(n) : fc.uint8Array({ minLength: n, maxLength: n });
  }
  switch (field.kind) {
    case 'u8':
      return fc.integer({ min: 0, max: 255 });
    case 'u32':
      return fc.oneof(fc.integer({ min: 0, max: 0xffff_ffff }), fc.constant(0xffff_ffff));
    case 'u53':
      return fc.oneof(fc.maxSafeNat(), fc.constantFrom(0, 2 ** 31, 2 ** 32, 2 ** 32 - 1, Number.MAX_SAFE_INTEGER));
    case 'number':
      return fc.double({ noNaN: true, noDefaultInfinity: true }).map((v) => (Object.is(v, -0) ? 0 : v));
    case 'bool':
      return fc.boolean();
    case 'mode':
    case 'lvbState':
      return fc.constantFrom(0, 1, 2);
    case 'node':
      return fc.integer({ min: 0, max: 254 });
    case 'name':
      return unicode(255, 1).filter((s) => !s.includes('\0'));
    case 'domain':
      return unicode(63, 1).filter((s) => !s.includes('\0') && !s.includes('/'));
    case 'lvb':
      return fc.option(fc.uint8Array({ minLength: 64, maxLength: 64 }), { nil: null });
    case 'plain':
      return fc.oneof(
        fc.constant(null),
        fc.record(
          { op: fc.string({ unit: 'grapheme' }), n: fc.maxSafeNat(), list: fc.array(fc.boolean()) },
          { noNullPrototype: true },
        ),
        fc.array(fc.double({ noNaN: true, noDefaultInfinity: true }).map((v) => (Object.is(v, -0) ? 0 : v))),
      );
    default:
      throw new Error(`no generator for fields of kind ${field.kind}`);
  }
}

export function messageArbitrary(def: MessageDef): fc.Arbitrary<AnyMessage> {
  const fields = Object.fromEntries(def.order.map((k) => [k, fieldArbitrary(def.fields[k] as Field<unknown>)]));
  return fc.record({ k: fc.constant(def.name), ...fields }, { noNullPrototype: true }) as unknown as fc.Arbitrary<AnyMessage>;
}

export const anyMessage: fc.Arbitrary<AnyMessage> = fc.oneof(...ALL_MESSAGES.map((def) => messageArbitrary(def)));
