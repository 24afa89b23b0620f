import assert from 'node:assert/strict';
import fc from 'fast-check';
import { pack } from 'msgpackr';
import t, { type Test } from 'tap';
import { ALL_MESSAGES, type AnyMessage, codecOf, decodeBody, encodeBody, isFixed } from '../../src/protocol/codec.js';
import { InvariantError, TsdlmError } from '../../src/protocol/errors.js';
import { Deny, Grant, LockRequest, Query, RaftAppend, Register } from '../../src/protocol/peer-messages.js';
import { domain, name } from '../../src/protocol/schema.js';
import { anyMessage, messageArbitrary } from './arbitrary.js';

const head = { dom: 1, dep: 2, ce: 3, cc: 2 ** 40 + 5 };

/** Buffers and Uint8Arrays with the same bytes are the same here. */
function plainBytes(v: unknown): unknown {
  if (v instanceof Uint8Array) return `bytes:${Buffer.from(v).toString('hex')}`;
  if (Array.isArray(v)) return v.map(plainBytes);
  if (typeof v === 'object' && v !== null) return Object.fromEntries(Object.entries(v).map(([k, x]) => [k, plainBytes(x)]));
  return v;
}

function refused(t: Test, type: number, bytes: Uint8Array, say: RegExp): void {
  try {
    decodeBody(type, bytes);
  } catch (error) {
    t.equal(error instanceof TsdlmError && error.code, 'TSDLM_BAD_FRAME', String(error));
    t.match((error as Error).message, say);
    return;
  }
  t.fail(`accepted ${Buffer.from(bytes).toString('hex').slice(0, 60)}`);
}

for (const def of ALL_MESSAGES) {
  t.test(`${def.name} comes back as it was sent`, async () => {
    const { type } = codecOf({ k: def.name } as AnyMessage);
    fc.assert(
      fc.property(messageArbitrary(def), (m) => {
        const back = decodeBody(type, encodeBody(m));
        assert.deepEqual(plainBytes(back), plainBytes(m));
        assert.equal(back.k, def.name);
      }),
      { numRuns: 50 },
    );
  });
}

t.test('the largest values of a fixed layout fit its room', async (t) => {
  const text = (n: number) => 'é'.repeat(Math.floor(n / 2));
  const big: AnyMessage = {
    k: 'LockRequest',
    dom: 0xffff_ffff,
    dep: 0xffff_ffff,
    ce: 0xffff_ffff,
    cc: Number.MAX_SAFE_INTEGER,
    name: text(255),
    id: Number.MAX_SAFE_INTEGER,
    mode: 2,
    flags: 255,
    se: 1,
    sc: 2 ** 32,
    who: text(120),
    why: text(200),
  };
  t.same(decodeBody(LockRequest.type, encodeBody(big)), big);
  t.throws(() => encodeBody({ ...big, name: 'x'.repeat(256) }), InvariantError);
  t.throws(() => encodeBody({ ...big, who: text(124) }), InvariantError);
});

t.test('a value block is a copy, not a view of the network buffer', async (t) => {
  const m: AnyMessage = { k: 'Grant', ...head, id: 1, mode: 2, te: 1, tc: 1, lvbState: 1, lvb: new Uint8Array(64).fill(7) };
  const bytes = encodeBody(m);
  const back = decodeBody(Grant.type, bytes) as typeof m;
  bytes.fill(0);
  t.equal(back.lvb?.[0], 7);
  const reg: AnyMessage = {
    k: 'Register',
    ...head,
    locks: [
      {
        name: 'n',
        id: 1,
        mode: 2,
        want: 255,
        flags: 0,
        te: 1,
        tc: 1,
        se: 1,
        sc: 1,
        lvbState: 1,
        lvb: m.lvb,
        who: '',
        why: '',
        ageMs: 1.5,
      },
    ],
  };
  const packed = encodeBody(reg);
  const again = decodeBody(Register.type, packed) as typeof reg;
  packed.fill(0);
  t.equal(again.locks[0]?.lvb?.[63], 7);
});

t.test('fixed layouts refuse what their table refuses', async (t) => {
  const good = encodeBody({ k: 'Grant', ...head, id: 9, mode: 2, te: 1, tc: 1, lvbState: 1, lvb: null });
  const at = (i: number, v: number) => {
    const b = Buffer.from(good);
    b[i] = v;
    return b;
  };
  refused(t, Grant.type, at(28, 3), /mode 3/);
  refused(t, Grant.type, at(41, 3), /lvbState 3/);
  refused(t, Grant.type, at(42, 63), /value block of 63 bytes/);
  refused(t, Grant.type, at(42, 64), /ends 64 bytes too early/);
  refused(t, Grant.type, at(27, 0x20), /2\^53/);
  refused(t, Grant.type, Buffer.concat([good, Buffer.alloc(1)]), /1 bytes too many/);
  for (let n = 0; n < good.length; n++) refused(t, Grant.type, good.subarray(0, n), /too early/);
  const lock = encodeBody({ k: 'MasterRequest', ...head, name: 'ab' });
  for (const [name, say] of [
    [[0], /text of 0 bytes/],
    [[2, 0x61, 0], /NUL/],
    [[2, 0xc3, 0x28], /UTF-8/],
    [[2, 0xed, 0xa0], /UTF-8/],
  ] as const) {
    refused(t, 0x40, Buffer.concat([lock.subarray(0, 20), Buffer.from(name)]), say);
  }
});

t.test('msgpack bodies refuse what their table refuses', async (t) => {
  const body = (...fields: unknown[]) => pack(fields);
  refused(t, Deny.type, body(1, 2, 3, 4, 5), /5 fields, must be 6/);
  refused(t, Deny.type, body(1, 2, 3, 4, 5, 6, 7), /7 fields, must be 6/);
  refused(t, Deny.type, body(1, 2, 3, 4, -5, 6), /field id is not of kind u53/);
  refused(t, Deny.type, body(1, 2, 3, 4, 1.5, 6), /field id/);
  refused(t, Deny.type, body(1, 2, 3, 4, 2n ** 53n, 6), /field id/);
  refused(t, Deny.type, body(1, 2, 3, 4, 5, 256), /field code/);
  refused(t, Deny.type, pack({ dom: 1 }), /not an array/);
  refused(t, RaftAppend.type, body(1, 1, 1, 1, [[1, 2]]), /field entries/);
  refused(t, RaftAppend.type, body(1, 1, 1, 1, 7), /field entries/);
  refused(t, 0x7e, body(), /type 0x7e is unknown/);
});

t.test('fields added by a newer minor version are passed over', async (t) => {
  const more = pack([1, 2, 3, 4, 5, 6, 'new']);
  t.same(decodeBody(Deny.type, more, true), { k: 'Deny', dom: 1, dep: 2, ce: 3, cc: 4, id: 5, code: 6 });
  const done = encodeBody({ k: 'UnlockDone', ...head, id: 4 });
  t.same(decodeBody(0x48, Buffer.concat([done, Buffer.from('new')]), true), { k: 'UnlockDone', ...head, id: 4 });
});

t.test('integers of 64 bits come back as numbers, above 2^53 they are refused', async (t) => {
  const u64 = (n: bigint) => {
    const b = Buffer.alloc(9);
    b[0] = 0xcf;
    b.writeBigUInt64BE(n, 1);
    return b;
  };
  const deny = (id: Buffer) => Buffer.concat([Buffer.from([0x96, 1, 2, 3, 4]), id, Buffer.from([6])]);
  t.equal((decodeBody(Deny.type, deny(u64(2n ** 53n - 1n))) as { id: unknown }).id, Number.MAX_SAFE_INTEGER);
  refused(t, Deny.type, deny(u64(2n ** 53n)), /field id/);
  refused(t, Deny.type, deny(u64(2n ** 64n - 1n)), /field id/);
});

t.test('msgpack bombs are refused before memory is spent', async (t) => {
  const bytes = (...b: number[]) => Uint8Array.from(b);
  refused(t, Deny.type, bytes(0xdd, 0x01, 0xff, 0xff, 0xff), /announces 33554431 elements in 0 bytes/);
  refused(t, Deny.type, bytes(0xdf, 0xff, 0xff, 0xff, 0xff), /announces 4294967295 pairs/);
  refused(t, Deny.type, bytes(0xdb, 0xff, 0xff, 0xff, 0xff), /ends inside/);
  refused(t, Deny.type, bytes(0xc6, 0xff, 0xff, 0xff, 0xff), /ends inside/);
  refused(t, Deny.type, new Uint8Array(1_000_000).fill(0x91), /nested deeper/);
  refused(t, Deny.type, new Uint8Array(1_000_000).fill(0x81), /map key|nested deeper/);
  for (const ext of [0xc7, 0xc8, 0xc9, 0xd4, 0xd5, 0xd6, 0xd7, 0xd8, 0xc1]) {
    refused(t, Deny.type, bytes(0x96, ext, 0, 0, 0, 0, 0, 0, 0, 0), /not used in this protocol/);
  }
  refused(t, Deny.type, bytes(0x91, 0x81, 0x01, 0x01), /map key is not text/);
  const before = process.memoryUsage().heapUsed;
  const nested = Buffer.alloc(4000);
  for (let i = 0; i + 5 <= nested.length; i += 5) nested.set([0xdd, 0x01, 0xff, 0xff, 0xff], i);
  refused(t, Deny.type, nested, /announces/);
  t.ok(process.memoryUsage().heapUsed - before < 50e6);
});

t.test('a __proto__ key in plain data pollutes nothing', async (t) => {
  const evil = Buffer.concat([
    Buffer.from([0x93, 1, 0xa1, 0x78, 0x81, 0xa9]),
    Buffer.from('__proto__'),
    Buffer.from([0x81, 0xa1, 0x61, 1]),
  ]);
  const m = decodeBody(Query.type, evil) as { args: Record<string, unknown> };
  t.equal(({} as Record<string, unknown>).a, undefined);
  t.equal(Object.getPrototypeOf(m.args), Object.prototype);
});

t.test('random bytes and mutated messages give a message or TSDLM_BAD_FRAME, nothing else', async () => {
  const tryDecode = (type: number, bytes: Uint8Array): void => {
    try {
      encodeBody(decodeBody(type, bytes));
    } catch (error) {
      if (!(error instanceof TsdlmError) || error.code !== 'TSDLM_BAD_FRAME') throw error;
    }
  };
  const types = ALL_MESSAGES.map((d) => d.type);
  fc.assert(
    fc.property(fc.constantFrom(...types), fc.uint8Array({ maxLength: 200 }), (type, bytes) => tryDecode(type, bytes)),
    { numRuns: 5000 },
  );
  fc.assert(
    fc.property(anyMessage, fc.array(fc.tuple(fc.nat(), fc.nat(255)), { minLength: 1, maxLength: 4 }), (m, edits) => {
      const bytes = Buffer.from(encodeBody(m));
      for (const [at, value] of edits) if (bytes.length > 0) bytes[at % bytes.length] = value;
      tryDecode(codecOf(m).type, bytes);
    }),
    { numRuns: 3000 },
  );
});

t.test('a name that UTF-8 cannot carry is no name', async (t) => {
  t.ok(name.is('ä😀'));
  for (const bad of ['', 'a\0', 'x\ud800', '\udc00x', 'x'.repeat(256), 7, null]) t.notOk(name.is(bad), String(bad));
  t.ok(domain.is('d.1'));
  for (const bad of ['', 'a/b', 'x\ud800', 'x'.repeat(64)]) t.notOk(domain.is(bad), bad);
});

t.test('the messages of the lock path have fixed layouts', async (t) => {
  for (const name of ['ClientLock', 'ClientUnlock', 'DaemonGranted', 'DaemonDone', 'LockRequest', 'Grant', 'UnlockDone']) {
    t.ok(isFixed(name), name);
  }
  t.notOk(isFixed('Register'));
});
