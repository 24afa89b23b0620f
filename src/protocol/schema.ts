/**
 * How messages are described: once, as a table of fields, from which their TypeScript type, their check on arrival and
 * their documentation follow. A body travels as a msgpack array of the fields in table order.
 */
import { DOMAIN_BYTES_MAX, LVB_BYTES, NAME_BYTES_MAX } from './limits.js';

/** One field: its name in docs/protocol.md and the check that turns an untrusted value into a T (undefined = refused). */
export interface Field<T> {
  readonly kind: string;
  /** True when the value is acceptable. Must not throw, must not allocate for good values. */
  is(value: unknown): value is T;
}

export type FieldTable = Readonly<Record<string, Field<unknown>>>;
export type Fields<F extends FieldTable> = { [K in keyof F]: F[K] extends Field<infer T> ? T : never };

/** A message definition. `type` is its number on the wire, never reused. */
export interface MessageDef<N extends string = string, F extends FieldTable = FieldTable> {
  readonly name: N;
  readonly type: number;
  readonly fields: F;
  /** Field names in wire order. */
  readonly order: readonly string[];
}
export type MessageOf<D> = D extends MessageDef<infer N, infer F> ? { k: N } & Fields<F> : never;

export function message<N extends string, F extends FieldTable>(name: N, type: number, fields: F): MessageDef<N, F> {
  return { name, type, fields, order: Object.keys(fields) };
}

function field<T>(kind: string, is: (v: unknown) => boolean): Field<T> {
  return { kind, is: is as (v: unknown) => v is T };
}

const isInt = (v: unknown, max: number): boolean => typeof v === 'number' && v >= 0 && v <= max && Number.isInteger(v);

export const u8 = field<number>('u8', (v) => isInt(v, 0xff));
export const u32 = field<number>('u32', (v) => isInt(v, 0xffff_ffff));
/** Unsigned integer below 2^53. */
export const u53 = field<number>('u53', (v) => isInt(v, Number.MAX_SAFE_INTEGER));
/** Any finite number (times in milliseconds). */
export const num = field<number>('number', (v) => typeof v === 'number' && Number.isFinite(v));
export const bool = field<boolean>('bool', (v) => typeof v === 'boolean');
export const mode = field<0 | 1 | 2>('mode', (v) => isInt(v, 2));
export const node = field<number>('node', (v) => isInt(v, 254));

/** UTF-8 text of at most `max` bytes. A JavaScript string of n units is at most 3n bytes: cheap test first. */
export function text(max: number): Field<string> {
  return field(`text(${max})`, (v) => {
    if (typeof v !== 'string' || v.length > max) return false;
    return v.length * 3 <= max || Buffer.byteLength(v) <= max;
  });
}
/** Half of a surrogate pair has no UTF-8: two such names would become one on the wire. */
const NOT_UTF8 = /\p{Surrogate}/u;
/** Resource name: 1..255 bytes, no NUL. */
const nameText = text(NAME_BYTES_MAX);
export const name = field<string>('name', (v) => nameText.is(v) && v.length > 0 && !v.includes('\0') && !NOT_UTF8.test(v));
const domainText = text(DOMAIN_BYTES_MAX);
/** Domain name: 1..63 bytes, no NUL, no '/'. */
export const domain = field<string>(
  'domain',
  (v) => domainText.is(v) && v.length > 0 && !v.includes('\0') && !v.includes('/') && !NOT_UTF8.test(v),
);
/** Lock value block: exactly 64 bytes, or null for none. */
export const lvb = field<Uint8Array | null>('lvb', (v) => v === null || (v instanceof Uint8Array && v.length === LVB_BYTES));
/** 0 = none (new, no history known), 1 = valid, 2 = invalid. */
export const lvbState = field<0 | 1 | 2>('lvbState', (v) => isInt(v, 2));

/** `item` and `inner` let the codec reach a record inside a list or behind a null. */
export interface ListField<T> extends Field<T[]> {
  readonly item: Field<T>;
}
export function list<T>(item: Field<T>, max: number): ListField<T> {
  const checked = field<T[]>(`list(${item.kind},${max})`, (v) => {
    if (!Array.isArray(v) || v.length > max) return false;
    for (const x of v) if (!item.is(x)) return false;
    return true;
  });
  return { ...checked, item };
}
export interface NullableField<T> extends Field<T | null> {
  readonly inner: Field<T>;
}
export function nullable<T>(inner: Field<T>): NullableField<T> {
  return { ...field<T | null>(`${inner.kind}|null`, (v) => v === null || inner.is(v)), inner };
}
/** A nested record: a plain object in memory, on the wire an array of its fields in table order like a body. */
export interface RecordField<F extends FieldTable> extends Field<Fields<F>> {
  readonly table: F;
  readonly order: readonly string[];
}
export function record<F extends FieldTable>(kind: string, table: F): RecordField<F> {
  const order = Object.keys(table);
  return {
    kind,
    table,
    order,
    is: (v: unknown): v is Fields<F> => {
      if (typeof v !== 'object' || v === null) return false;
      for (const key of order) if (!(table[key] as Field<unknown>).is((v as Record<string, unknown>)[key])) return false;
      return true;
    },
  };
}
/** Plain data of at most `depth` levels (administration only; never on the lock path). */
export function plain(depth: number): Field<unknown> {
  const ok = (v: unknown, left: number): boolean => {
    if (v === null || typeof v === 'boolean' || typeof v === 'string') return true;
    if (typeof v === 'number') return Number.isFinite(v);
    if (left === 0) return false;
    if (Array.isArray(v)) return v.every((x) => ok(x, left - 1));
    if (typeof v !== 'object' || v instanceof Uint8Array) return false;
    return Object.values(v as object).every((x) => ok(x, left - 1));
  };
  return field('plain', (v) => ok(v, depth));
}
