import { readFileSync } from 'node:fs';
import t from 'tap';
import { ALL_MESSAGES, isFixed } from '../../src/protocol/codec.js';
import { ERROR_CODES } from '../../src/protocol/errors.js';
import { PEER_MINOR, PEER_VERSION_MAX } from '../../src/protocol/handshake.js';
import type { Field, FieldTable, ListField, NullableField, RecordField } from '../../src/protocol/schema.js';

// The tests run from dist/test/protocol; the document is in the sources.
const text = readFileSync(
  new URL(`${import.meta.url.includes('/dist') ? '../' : ''}../../docs/protocol.md`, import.meta.url),
  'utf8',
);
const HEAD = 'dom u32, dep u32, ce u32, cc u53';

const fieldsOf = (table: FieldTable, order: readonly string[]): string =>
  order.map((key) => `${key} ${(table[key] as Field<unknown>).kind}`).join(', ');

t.test('docs/protocol.md has every message with its number, its layout and all its fields in order', async (t) => {
  t.ok(text.includes(`*head* = ${HEAD}:`));
  for (const def of ALL_MESSAGES) {
    const fields = fieldsOf(def.fields, def.order).replace(HEAD, '*head*') || 'none';
    const number = `0x${def.type.toString(16).padStart(2, '0')}`;
    const row = `| ${number}${isFixed(def.name) ? ' **F**' : ''} | ${def.name} | ${fields} |`;
    t.ok(text.includes(row), row);
  }
});

t.test('docs/protocol.md has every record', async (t) => {
  const seen = new Set<string>();
  const visit = (field: Field<unknown>): void => {
    if ('item' in field) visit((field as ListField<unknown>).item);
    if ('inner' in field) visit((field as NullableField<unknown>).inner);
    if (!('table' in field)) return;
    const { kind, table, order } = field as RecordField<FieldTable>;
    if (seen.has(kind)) return;
    seen.add(kind);
    const row = `- record ${kind}: ${fieldsOf(table, order)}`;
    t.ok(text.includes(row), row);
    for (const key of order) visit(table[key] as Field<unknown>);
  };
  for (const def of ALL_MESSAGES) for (const key of def.order) visit(def.fields[key] as Field<unknown>);
});

t.test('docs/protocol.md has every error code and the version', async (t) => {
  for (const [name, number] of Object.entries(ERROR_CODES)) t.ok(text.includes(`${number} ${name}`), name);
  t.ok(text.includes(`This text is version ${PEER_VERSION_MAX}, minor ${PEER_MINOR}.`));
});
