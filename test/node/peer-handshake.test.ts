import { randomBytes } from 'node:crypto';
import { connect, type Socket } from 'node:net';
import { connect as tlsConnect } from 'node:tls';
import fc from 'fast-check';
import t, { type Test } from 'tap';
import { derivePeerKeys, PSK_IDENTITY, proofOf, TLS_COMMON } from '../../src/node/peer-keys.js';
import type { PeerNetOptions } from '../../src/node/peer-net.js';
import { type AnyMessage, decodeAt } from '../../src/protocol/codec.js';
import { ERROR_CODES } from '../../src/protocol/errors.js';
import { FrameReader, FrameWriter } from '../../src/protocol/frame.js';
import type { Challenge, Hello, LinkMessage } from '../../src/protocol/link-messages.js';
import { Cluster, incarnation, KEY, LIMITS, numbered, type Recorded, until } from './peer-helpers.js';

const WRONG_KEY = Buffer.from('another key another key another!');

/** Both sides must name the code: the one that refuses in its log, the other in its status. */
async function bothRefuse(a: Recorded, b: Recorded, code: string): Promise<string> {
  const text = (r: Recorded) =>
    r.net
      .status()
      .map((s) => s.lastError)
      .find((e) => e?.code === code)?.text;
  await until(`${code} at both: ${JSON.stringify([a.net.status(), b.net.status()])}`, () => {
    const logged = (r: Recorded) => r.log.some((l) => l.data.code === code);
    return (text(b) !== undefined || text(a) !== undefined) && logged(a) && logged(b);
  });
  return `${text(a) ?? ''} / ${text(b) ?? ''}`;
}

interface Case {
  what: string;
  code: string;
  a?: Partial<PeerNetOptions>;
  b: Partial<PeerNetOptions>;
  say: RegExp;
}
const CASES: Case[] = [
  { what: 'another cluster', code: 'TSDLM_WRONG_CLUSTER', b: { clusterName: 'other' }, say: /"other".*"test"|"test".*"other"/ },
  {
    what: 'other time limits',
    code: 'TSDLM_LIMITS_MISMATCH',
    b: { limits: { ...LIMITS, leaseMs: LIMITS.leaseMs + 1 } },
    say: new RegExp(`leaseMs.*${LIMITS.leaseMs}`),
  },
  { what: 'another configuration', code: 'TSDLM_CONFIG_MISMATCH', b: { configSum: 'sum-2' }, say: /sum-1.*sum-2|sum-2.*sum-1/ },
  {
    what: 'too new a version',
    code: 'TSDLM_VERSION_MISMATCH',
    b: { versions: { versionMin: 2, versionMax: 3 } },
    say: /1 to 1.*2 to 3|2 to 3.*1 to 1/,
  },
];

for (const tls of [true, false]) {
  const kind = tls ? 'TLS' : 'plain';
  for (const { what, code, a, b, say } of CASES) {
    t.test(`${what} is refused at both sides, naming both values (${kind})`, async (t) => {
      const c = new Cluster(t, 2);
      const first = await c.add(1, { tls, ...a });
      const second = await c.add(2, { tls, ...b });
      t.match(await bothRefuse(first, second, code), say);
      t.same(first.ups, []);
      t.same(second.ups, []);
    });
  }

  t.test(`another cluster key is refused and learns nothing of the configuration (${kind})`, async (t) => {
    const c = new Cluster(t, 2);
    const a = await c.add(1, { tls });
    const b = await c.add(2, { tls, clusterKey: WRONG_KEY, clusterName: 'other' });
    await bothRefuse(a, b, 'TSDLM_AUTH_FAILED');
    t.same(a.ups, []);
    t.same(b.ups, []);
    t.notMatch(JSON.stringify(b.log), /"test"|sum-1/);
    t.notMatch(JSON.stringify([a.log, b.log]), new RegExp(KEY.toString()));
  });

  t.test(`a node that is not configured is refused (${kind})`, async (t) => {
    const c = new Cluster(t, 3);
    const a = await c.add(1, { tls, nodes: c.nodes.slice(0, 2) });
    const d = await c.add(3, { tls, nodes: [c.nodes[0], c.nodes[2]] as PeerNetOptions['nodes'] });
    t.match(await bothRefuse(a, d, 'TSDLM_UNKNOWN_NODE'), /node 3 \(n3\) is not in the node table of node 1: tsdlm node add/);
  });

  t.test(`addresses mixed up: another node answers than was dialled (${kind})`, async (t) => {
    const c = new Cluster(t, 3);
    const b = await c.add(2, { tls });
    (c.nodes[0] as { port: number }).port = c.nodes[1]?.port ?? 0;
    const d = await c.add(3, { tls });
    await bothRefuse(b, d, 'TSDLM_UNKNOWN_NODE');
    await until('the right one is up', () => d.net.isUp(2));
    t.same(
      d.ups.map((u) => u.peer),
      [2],
    );
  });
}

t.test('rule 12: a start count that goes back, or comes twice from different boots, is refused as stale', async (t) => {
  const c = new Cluster(t, 2);
  const a = await c.add(1);
  const b = await c.add(2, { incarnation: incarnation(2, 5) });
  await until('up', () => a.net.isUp(2));
  await b.net.close();
  await until('down', () => !a.net.isUp(2));
  const old = await c.add(2, { incarnation: incarnation(2, 4) });
  t.match(await bothRefuse(a, old, 'TSDLM_STALE_INCARNATION'), /start count 4, but 5/);
  await old.net.close();
  const clone = await c.add(2, { incarnation: { ...incarnation(2, 5), bootId: 'other' } });
  await bothRefuse(a, clone, 'TSDLM_STALE_INCARNATION');
  await clone.net.close();
  await c.add(2, { incarnation: incarnation(2, 6) });
  await until('the next life is let in', () => a.net.isUp(2));
});

t.test('a wiped journal counts from one again: the link comes up, admission is not its business', async (t) => {
  const c = new Cluster(t, 2);
  const a = await c.add(1);
  const b = await c.add(2, { incarnation: incarnation(2, 5) });
  await until('up', () => a.net.isUp(2));
  await b.net.close();
  await until('down', () => !a.net.isUp(2));
  await c.add(2, { incarnation: { ...incarnation(2, 1), journalId: 'new' } });
  await until('up again', () => a.net.isUp(2));
  t.same(a.ups.at(-1), { peer: 2, startCount: 1, reset: true });
});

t.test('TLS on one side only is a clear word on both', async (t) => {
  const c = new Cluster(t, 2);
  const a = await c.add(1, { tls: false });
  const b = await c.add(2, { tls: true });
  await until('a says so', () => a.log.some((l) => /speaks TLS/.test(String(l.data.text))));
  await until('b says so', () =>
    b.log.some((l) => l.data.code === 'TSDLM_AUTH_FAILED' && /tls setting/.test(String(l.data.text))),
  );
  t.same(a.ups, []);
  const d = new Cluster(t, 2);
  await d.add(1, { tls: true });
  const plain = await d.add(2, { tls: false });
  await until('the plain side says so', () => plain.log.some((l) => /tls switched on there/.test(String(l.data.text))));
});

// --- Strangers with sockets of their own ---------------------------------------------------------------------------------

/** A raw peer that says what the test wants. */
class Stranger {
  readonly frames: AnyMessage[] = [];
  readonly transcript: Buffer[] = [];
  closed = false;
  readonly socket: Socket;
  readonly #reader = new FrameReader({ frameBytesMax: 1 << 20 });
  constructor(port: number, psk: Buffer | null = null) {
    this.socket = psk
      ? tlsConnect({ ...TLS_COMMON, host: '127.0.0.1', port, pskCallback: () => ({ psk, identity: PSK_IDENTITY }) })
      : connect({ host: '127.0.0.1', port });
    this.socket.on('error', () => {});
    this.socket.on('close', () => {
      this.closed = true;
    });
    this.socket.on('data', (chunk: Buffer) => {
      this.#reader.push(chunk, (type, b, start, end) => {
        this.transcript.push(Buffer.from(b.subarray(start - 5, end)));
        this.frames.push(decodeAt(type, b, start, end, true));
      });
    });
  }
  say(m: LinkMessage): void {
    const w = new FrameWriter();
    w.push(m);
    const frame = w.take();
    this.transcript.push(frame);
    this.socket.write(frame);
  }
  refusal(): number | undefined {
    const last = this.frames.find((m) => m.k === 'LinkRefusal');
    return last?.k === 'LinkRefusal' ? last.code : undefined;
  }
}
const challenge = (over: Partial<Challenge> = {}): Challenge => ({
  k: 'LinkChallenge',
  magic: 'tsdlm peer',
  versionMin: 1,
  versionMax: 1,
  minor: 0,
  from: 2,
  to: 1,
  nonce: randomBytes(32),
  ...over,
});
const hello = (over: Partial<Hello> = {}): Hello => ({
  k: 'LinkHello',
  cluster: 'test',
  clusterId: '',
  name: 'n2',
  configSum: 'sum-1',
  limits: LIMITS,
  features: [],
  incarnation: incarnation(2),
  open: { startCount: 1, peerStartCount: 0, generation: 0, received: 0, keptFrom: 1, sentLast: 0 },
  ...over,
});

async function stranger(t: Test, over: Partial<PeerNetOptions> = {}) {
  const c = new Cluster(t, 2);
  const a = await c.add(1, { tls: false, ...over });
  const port = c.nodes[0]?.port ?? 0;
  const all: Stranger[] = [];
  t.teardown(() => {
    for (const s of all) s.socket.destroy();
  });
  return {
    a,
    dial: (psk: Buffer | null = null) => {
      const s = new Stranger(port, psk);
      all.push(s);
      return s;
    },
  };
}
const proofKey = derivePeerKeys(KEY).proof;

t.test('a hand-made peer that follows docs/protocol.md is let in', async (t) => {
  const { a, dial } = await stranger(t);
  const s = dial();
  s.say(challenge({ minor: 9 }));
  await until('proof', () => s.frames.length === 2);
  const [c2, p2] = s.frames;
  if (p2?.k !== 'LinkProof') throw new Error(`${p2?.k} instead of a proof`);
  t.equal(c2?.k, 'LinkChallenge');
  t.same(Buffer.from(p2.mac), proofOf(proofKey, 'accept', s.transcript.slice(0, 2)), 'the acceptor proves first');
  s.say(hello());
  s.say({ k: 'LinkProof', mac: proofOf(proofKey, 'dial', s.transcript) });
  await until('hello', () => s.frames.length === 4);
  const p4 = s.frames[3];
  if (p4?.k !== 'LinkProof') throw new Error(`${p4?.k} instead of a proof`);
  t.same(Buffer.from(p4.mac), proofOf(proofKey, 'accept', s.transcript.slice(0, -1)));
  t.same(a.ups, [], 'not up before Ready');
  s.say({ k: 'LinkReady' });
  await until('up', () => a.net.isUp(2));
  a.net.send(2, numbered(7));
  await until('message', () => s.frames.some((m) => m.k === 'UnlockDone' || m.k === 'LinkPing'));
});

t.test('a proof that is reflected, replayed or made without the key is refused before anything is said', async (t) => {
  const { a, dial } = await stranger(t);
  const reflect = dial();
  reflect.say(challenge());
  await until('proof', () => reflect.frames.length === 2);
  const theirs = reflect.frames[1];
  reflect.say(hello());
  reflect.say(theirs as LinkMessage);
  await until('refused', () => reflect.closed);
  t.equal(reflect.refusal(), ERROR_CODES.TSDLM_AUTH_FAILED);
  const forged = dial();
  forged.say(challenge());
  await until('proof', () => forged.frames.length === 2);
  forged.say(hello());
  forged.say({ k: 'LinkProof', mac: proofOf(WRONG_KEY, 'dial', forged.transcript) });
  await until('refused', () => forged.closed);
  t.equal(forged.refusal(), ERROR_CODES.TSDLM_AUTH_FAILED);
  t.equal(
    [...reflect.frames, ...forged.frames].some((m) => m.k === 'LinkHello'),
    false,
    'no Hello without a proof',
  );
  t.same(a.ups, []);
});

t.test('messages before, out of order in, or instead of the handshake are refused', async (t) => {
  const { a, dial } = await stranger(t);
  const early = new FrameWriter();
  early.push(numbered(1), 1);
  const bytes = early.take();
  const s1 = dial();
  s1.socket.write(bytes);
  const s2 = dial();
  s2.say(hello());
  const s3 = dial();
  s3.say(challenge());
  s3.say({ k: 'LinkReady' });
  const s4 = dial();
  s4.say(challenge({ magic: 'other' }));
  for (const s of [s1, s2, s3, s4]) await until('closed', () => s.closed);
  t.same(a.got, []);
  t.same(a.ups, []);
  t.equal(s3.refusal(), ERROR_CODES.TSDLM_PROTOCOL);
});

t.test('a stranger may send 4 KB per frame and has its time; 32 MB of garbage end at once', async (t) => {
  const { a, dial } = await stranger(t, { handshakeMs: 200 });
  const big = dial();
  const announce = Buffer.alloc(5);
  announce.writeUInt32LE(4097);
  big.socket.write(announce);
  await until('too large', () => big.closed);
  const silent = dial();
  await until('timed out', () => silent.closed);
  const garbage = dial();
  const chunk = randomBytes(64 * 1024);
  chunk[0] = 0x77;
  const heap = process.memoryUsage().rss;
  for (let i = 0; i < 512 && !garbage.closed; i++) {
    if (!garbage.socket.write(chunk)) await new Promise((resolve) => setImmediate(resolve));
  }
  await until('garbage', () => garbage.closed);
  t.ok(process.memoryUsage().rss - heap < 200e6);
  t.same(a.ups, []);
  const codes = a.log.map((l) => l.data.code);
  t.ok(codes.includes('TSDLM_FRAME_TOO_LARGE'));
  t.ok(codes.includes('TSDLM_TIMEOUT'));
});

t.test('garbage at a TLS door ends there', async (t) => {
  const { a, dial } = await stranger(t, { tls: true });
  const s = dial();
  s.socket.write(randomBytes(100_000));
  await until('closed', () => s.closed);
  const wrong = dial(derivePeerKeys(WRONG_KEY).psk);
  await until('wrong key closed', () => wrong.closed);
  await until('logged', () => a.log.some((l) => l.data.code === 'TSDLM_AUTH_FAILED'));
});

t.test('a flood of connections without proof does not keep a real peer out', async (t) => {
  const c = new Cluster(t, 2);
  const a = await c.add(1, { tls: false });
  const flood: Stranger[] = [];
  t.teardown(() => {
    for (const s of flood) s.socket.destroy();
  });
  for (let i = 0; i < 200; i++) flood.push(new Stranger(c.nodes[0]?.port ?? 0));
  await until('the oldest are gone', () => flood.filter((s) => s.closed).length >= 200 - 64);
  const b = await c.add(2, { tls: false });
  await until('up', () => a.net.isUp(2) && b.net.isUp(1));
  t.ok(flood.filter((s) => !s.closed).length <= 64);
});

t.test('a mutated handshake never gets in and never crashes', async (t) => {
  const { a, dial } = await stranger(t);
  await fc.assert(
    fc.asyncProperty(fc.array(fc.tuple(fc.nat(2000), fc.nat(255)), { minLength: 1, maxLength: 3 }), async (edits) => {
      const w = new FrameWriter();
      w.push(challenge());
      w.push(hello());
      w.push({ k: 'LinkProof', mac: randomBytes(32) });
      w.push({ k: 'LinkReady' });
      const bytes = w.take();
      for (const [at, v] of edits) bytes[at % bytes.length] = v;
      const s = dial();
      s.socket.end(bytes);
      await until('closed', () => s.closed);
    }),
    { numRuns: 150 },
  );
  t.same(a.ups, []);
});

t.test(
  'rule 25: a peer that pings but never reads gets a bounded queue, control messages are dropped, then a reset',
  async (t) => {
    const max = 3 * 1024 * 1024;
    const { a, dial } = await stranger(t, { backlogBytesMax: max });
    const s = dial();
    s.say(challenge());
    await until('proof', () => s.frames.length === 2);
    s.say(hello());
    s.say({ k: 'LinkProof', mac: proofOf(proofKey, 'dial', s.transcript) });
    s.say({ k: 'LinkReady' });
    await until('up', () => a.net.isUp(2));
    s.socket.pause();
    const beat = setInterval(() => s.say({ k: 'LinkPing', id: 1 }), 20);
    t.teardown(() => clearInterval(beat));
    let most = 0;
    let told = 0;
    for (let i = 0; a.downs.length === 0; i++) {
      for (let j = 0; j < 200; j++) {
        a.net.send(2, numbered(i * 200 + j));
        a.net.send(2, { k: 'QueryReply', id: 1, ok: true, data: 'x'.repeat(1000) });
        told++;
      }
      most = Math.max(most, ...a.net.status().map((p) => p.bytesQueued));
      await new Promise((resolve) => setImmediate(resolve));
    }
    t.ok(most < max + 6 * 1024 * 1024, `at most ${most} bytes were queued while ${told * 1000} were offered`);
    t.equal(a.net.status()[0]?.lastError?.code, 'TSDLM_OVERLOADED');
    t.ok(a.log.some((l) => l.event === 'peer_overflow'));
  },
);

t.test(
  'after the handshake: a gap, a bad body, a client message or an impossible ack end the connection with a reset',
  async (t) => {
    const { a, dial } = await stranger(t);
    const up = async (count: number): Promise<Stranger> => {
      const s = dial();
      s.say(challenge());
      await until('proof', () => s.frames.length === 2);
      const inc = { ...incarnation(2), startCount: count };
      s.say(hello({ incarnation: inc, open: { ...hello().open, startCount: count } }));
      s.say({ k: 'LinkProof', mac: proofOf(proofKey, 'dial', s.transcript) });
      s.say({ k: 'LinkReady' });
      await until('up', () => a.net.incarnationOf(2)?.startCount === count && a.net.isUp(2));
      return s;
    };
    const bad: ((w: FrameWriter) => Buffer)[] = [
      (w) => {
        w.push(numbered(1), 2);
        return w.take();
      },
      (w) => {
        w.push(numbered(1), 1);
        const b = w.take();
        return Buffer.concat([Buffer.from([b.length - 5, 0, 0, 0]), b.subarray(4, -1)]);
      },
      () => Buffer.from([3, 0, 0, 0, 0x40, 1, 1]),
      (w) => {
        w.push({ k: 'ClientCancel', rid: 1, target: 1 });
        return w.take();
      },
      (w) => {
        w.push({ k: 'LinkAck', seq: 5 });
        return w.take();
      },
      (w) => {
        w.push({ k: 'LinkReady' });
        return w.take();
      },
      () => Buffer.from([1, 0, 0, 0, 0xee]),
      () => Buffer.from([0xff, 0xff, 0xff, 0x7f]),
    ];
    for (const [i, make] of bad.entries()) {
      const s = await up(i + 1);
      s.socket.write(make(new FrameWriter()));
      await until(`case ${i} closed`, () => s.closed && !a.net.isUp(2));
      t.ok(s.refusal() !== undefined, `case ${i} was told`);
    }
    t.same(a.got, []);
    t.equal(a.downs.length, bad.length);
  },
);
