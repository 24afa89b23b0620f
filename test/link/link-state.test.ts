import fc from 'fast-check';
import t from 'tap';
import { type LinkOpen, LinkState } from '../../src/link/link-state.js';
import { InvariantError, TsdlmError } from '../../src/protocol/errors.js';

const MAX = { backlogBytesMax: 1_000_000 };

/** Both sides of a handshake at once. */
function connect<T>(a: LinkState<T>, aCount: number, b: LinkState<T>, bCount: number) {
  const ao = a.opening(aCount);
  const bo = b.opening(bCount);
  return { a: a.opened(ao, bo), b: b.opened(bo, ao) };
}

t.test('a first contact is a reset that loses nothing', async (t) => {
  const a = new LinkState<string>(MAX);
  const b = new LinkState<string>(MAX);
  a.send('early', 5);
  const v = connect(a, 1, b, 1);
  t.equal(v.a.reset, true);
  t.equal(v.b.reset, true);
  t.same(v.a.resend, [{ seq: 1, payload: 'early', bytes: 5 }]);
  t.equal(a.generation, b.generation);
  t.equal(b.onSequenced(1), 'deliver');
  t.equal(b.ackDue(), 1);
});

t.test('a reconnect resends exactly what the peer has not received', async (t) => {
  const a = new LinkState<string>(MAX);
  const b = new LinkState<string>(MAX);
  connect(a, 1, b, 1);
  for (const p of ['one', 'two', 'three']) a.send(p, 3);
  b.onSequenced(1);
  const v = connect(a, 1, b, 1);
  t.equal(v.a.reset, false);
  t.equal(v.b.reset, false);
  t.same(
    v.a.resend.map((i) => i.payload),
    ['two', 'three'],
  );
  t.equal(a.unackedBytes, 6);
});

t.test('numbers: next is delivered, old is a duplicate, a hole is a gap', async (t) => {
  const a = new LinkState<string>(MAX);
  t.equal(a.onSequenced(2), 'gap');
  t.equal(a.onSequenced(1), 'deliver');
  t.equal(a.onSequenced(1), 'duplicate');
  t.equal(a.onSequenced(0), 'duplicate');
  t.equal(a.onSequenced(2), 'deliver');
});

t.test('rule 25: an overflow drops all, refuses more, and resets both sides at the next handshake', async (t) => {
  const a = new LinkState<string>({ backlogBytesMax: 10 });
  const b = new LinkState<string>(MAX);
  connect(a, 1, b, 1);
  b.send('from b', 6);
  t.ok(a.send('12345', 5));
  t.ok(a.send('67890', 5));
  t.equal(a.send('x', 1), null);
  t.equal(a.send('', 0), null, 'nothing may follow a lost message');
  t.equal(a.unackedBytes, 0);
  t.equal(a.overflowed, true);
  const v = connect(a, 1, b, 1);
  t.equal(v.a.reset, true);
  t.equal(v.b.reset, true);
  t.same(v.a.resend, []);
  t.same(v.b.resend, [], "the other side's queue is of the old generation too");
  t.equal(a.send('x', 1)?.seq, 1);
});

t.test('a restarted peer resets the pair, and so does an own new incarnation', async (t) => {
  const a = new LinkState<string>(MAX);
  const b = new LinkState<string>(MAX);
  connect(a, 1, b, 1);
  a.send('lost', 4);
  const b2 = new LinkState<string>(MAX);
  const v = connect(a, 1, b2, 2);
  t.equal(v.a.reset, true);
  t.same(v.a.resend, []);
  a.send('lost too', 8);
  a.reset();
  t.equal(a.unackedBytes, 0);
  const w = connect(a, 2, b2, 2);
  t.equal(w.b.reset, true);
  t.equal(a.generation, b2.generation);
});

t.test('an acknowledgement frees memory; one of a message never sent is refused', async (t) => {
  const a = new LinkState<string>(MAX);
  const b = new LinkState<string>(MAX);
  connect(a, 1, b, 1);
  for (let i = 0; i < 5000; i++) a.send('x', 2);
  a.onAck(4000);
  t.equal(a.unackedBytes, 2000);
  t.equal(a.unackedCount, 1000);
  a.onAck(3000);
  t.equal(a.unackedCount, 1000, 'an old one changes nothing');
  t.throws(() => a.onAck(5001), TsdlmError);
  a.onAck(5000);
  t.equal(a.unackedCount, 0);
  t.equal(a.send('y', 1)?.seq, 5001);
});

t.test('a writer that had to pause goes on where it stopped, in portions', async (t) => {
  const a = new LinkState<number>(MAX);
  connect(a, 1, new LinkState<number>(MAX), 1);
  for (let i = 1; i <= 10; i++) a.send(i, 10);
  const seqs = (after: number, bytes: number) => a.keptAfter(after, bytes).map((i) => i.seq);
  t.same(seqs(0, 35), [1, 2, 3]);
  t.same(seqs(3, 1), [4], 'at least one, however large');
  t.same(seqs(8, 1000), [9, 10]);
  t.same(seqs(10, 1000), []);
  a.onAck(5);
  t.same(seqs(0, 25), [6, 7], 'what is acknowledged is gone');
});

t.test('a stream that is broken off keeps nothing and resets the pair', async (t) => {
  const a = new LinkState<string>(MAX);
  const b = new LinkState<string>(MAX);
  connect(a, 1, b, 1);
  a.send('x', 1);
  a.breakOff();
  t.equal(a.unackedBytes, 0);
  t.equal(a.send('y', 1), null);
  t.equal(connect(a, 1, b, 1).b.reset, true);
});

t.test('a handshake that was overtaken by another one is recognised as stale', async (t) => {
  const a = new LinkState<string>(MAX);
  const b = new LinkState<string>(MAX);
  const old = a.opening(1);
  const bOld = b.opening(1);
  connect(a, 1, b, 1);
  t.equal(a.isCurrent(old), false);
  t.throws(() => a.opened(old, bOld), InvariantError);
  const before = a.opening(1);
  a.reset();
  t.equal(a.isCurrent(before), false);
});

// --- A model: two sides, any number of connections, everything may break at any point ----------------------------------

interface Conn {
  /** Sides that have not closed their end. What a side sent before it closed still arrives at the other. */
  openAt: Set<Side>;
  toA: Frame[];
  toB: Frame[];
}
type Frame = { eof: true } | { hello: LinkOpen } | { seq: number; payload: number } | { ack: number };

class Side {
  link = new LinkState<number>({ backlogBytesMax: 20 });
  startCount = 1;
  /** What was given to the stream named by the key, and what came out of it. */
  sent = new Map<string, number[]>();
  got = new Map<string, number[]>();
  key = '';
  conn: Conn | null = null;
  hellos = new Map<Conn, LinkOpen>();
}

type Op =
  | { op: 'send' | 'take' | 'takeOne' | 'ack' | 'restart' | 'reincarnate'; at: 'A' | 'B' }
  | { op: 'dial' | 'cut' | 'cutAll' };

function run(ops: Op[]): void {
  const A = new Side();
  const B = new Side();
  const conns: Conn[] = [];
  let payload = 0;
  const inbox = (s: Side, c: Conn): Frame[] => (s === A ? c.toA : c.toB);
  const outbox = (s: Side, c: Conn): Frame[] => (s === A ? c.toB : c.toA);
  const close = (s: Side, c: Conn): void => {
    if (!c.openAt.delete(s)) return;
    if (s.conn === c) s.conn = null;
    outbox(s, c).push({ eof: true });
  };
  /** The connection breaks: nothing in flight arrives. */
  const cut = (c: Conn): void => {
    for (const s of [A, B]) close(s, c);
    c.toA = [];
    c.toB = [];
  };
  const put = (s: Side, frame: Frame): void => {
    if (s.conn) outbox(s, s.conn).push(frame);
  };
  const streamKey = (s: Side, own: LinkOpen, peer: LinkOpen): string => {
    const [a, b] = s === A ? [own, peer] : [peer, own];
    return `${a.startCount}/${b.startCount}/${s.link.generation}`;
  };
  const receive = (s: Side, c: Conn, frame: Frame): void => {
    if ('eof' in frame) {
      close(s, c);
    } else if ('hello' in frame) {
      const own = s.hellos.get(c) as LinkOpen;
      if (!s.link.isCurrent(own)) {
        close(s, c);
        return;
      }
      const verdict = s.link.opened(own, frame.hello);
      if (s.conn && s.conn !== c) close(s, s.conn);
      s.conn = c;
      const key = streamKey(s, own, frame.hello);
      if (verdict.reset) {
        if (s.sent.has(key)) throw new Error(`stream ${key} began twice`);
        s.sent.set(
          key,
          verdict.resend.map((i) => i.payload),
        );
        s.got.set(key, []);
      } else if (key !== s.key) throw new Error(`resumed ${key} but held ${s.key}`);
      s.key = key;
      for (const i of verdict.resend) put(s, { seq: i.seq, payload: i.payload });
    } else if (s.conn !== c) {
      return;
    } else if ('ack' in frame) {
      s.link.onAck(frame.ack);
    } else {
      const verdict = s.link.onSequenced(frame.seq);
      if (verdict === 'gap') throw new Error('gap on a sound connection');
      if (verdict === 'deliver') s.got.get(s.key)?.push(frame.payload);
    }
  };
  const check = (): void => {
    for (const [from, to] of [
      [A, B],
      [B, A],
    ] as const) {
      for (const [key, got] of to.got) {
        const sent = from.sent.get(key) ?? [];
        if (got.some((p, i) => sent[i] !== p)) throw new Error(`stream ${key}: sent ${sent} but delivered ${got}`);
      }
    }
  };
  const dial = (): Conn => {
    const c: Conn = { openAt: new Set([A, B]), toA: [], toB: [] };
    conns.push(c);
    for (const s of [A, B]) {
      const hello = s.link.opening(s.startCount);
      s.hellos.set(c, hello);
      outbox(s, c).push({ hello });
    }
    return c;
  };
  const live = (): Conn[] => conns.filter((c) => c.openAt.size > 0);
  for (const o of ops) {
    const s = 'at' in o && o.at === 'B' ? B : A;
    switch (o.op) {
      case 'send': {
        const item = s.link.send(++payload, 1);
        if (item === null) {
          for (const c of live()) close(s, c);
        } else {
          if (s.key !== '') s.sent.get(s.key)?.push(payload);
          put(s, { seq: item.seq, payload });
        }
        break;
      }
      case 'take':
        for (const c of live()) {
          const frame = c.openAt.has(s) ? inbox(s, c).shift() : undefined;
          if (frame) receive(s, c, frame);
        }
        break;
      case 'takeOne': {
        const last = live().at(-1);
        const frame = last?.openAt.has(s) ? inbox(s, last).shift() : undefined;
        if (last && frame) receive(s, last, frame);
        break;
      }
      case 'ack':
        if (s.conn) put(s, { ack: s.link.ackDue() });
        break;
      case 'restart':
      case 'reincarnate':
        for (const c of live()) close(s, c);
        s.startCount++;
        if (o.op === 'restart') s.link = new LinkState<number>({ backlogBytesMax: 20 });
        else s.link.reset();
        s.key = '';
        break;
      case 'dial':
        if (live().length < 3) dial();
        break;
      case 'cut': {
        const first = live()[0];
        if (first) cut(first);
        break;
      }
      case 'cutAll':
        for (const c of live()) cut(c);
        break;
    }
    check();
  }
  // Heal: one sound connection, everything in flight arrives.
  for (const c of live()) cut(c);
  const c = dial();
  for (let i = 0; i < 200; i++) {
    for (const s of [A, B]) {
      const frame = inbox(s, c).shift();
      if (frame) receive(s, c, frame);
    }
  }
  check();
  if (A.key !== B.key) throw new Error(`sides disagree: ${A.key} against ${B.key}`);
  for (const [from, to] of [
    [A, B],
    [B, A],
  ] as const) {
    const sent = from.sent.get(from.key) ?? [];
    const got = to.got.get(to.key) ?? [];
    if (sent.length !== got.length) throw new Error(`stream ${from.key}: ${sent.length} sent, ${got.length} delivered`);
  }
}

const at = fc.constantFrom<'A' | 'B'>('A', 'B');
const op: fc.Arbitrary<Op> = fc.oneof(
  { weight: 8, arbitrary: fc.record({ op: fc.constant('send' as const), at }) },
  { weight: 12, arbitrary: fc.record({ op: fc.constant('take' as const), at }) },
  { weight: 6, arbitrary: fc.record({ op: fc.constant('takeOne' as const), at }) },
  { weight: 3, arbitrary: fc.record({ op: fc.constant('ack' as const), at }) },
  { weight: 4, arbitrary: fc.constant<Op>({ op: 'dial' }) },
  { weight: 2, arbitrary: fc.constantFrom<Op>({ op: 'cut' }, { op: 'cutAll' }) },
  { weight: 1, arbitrary: fc.record({ op: fc.constantFrom('restart' as const, 'reincarnate' as const), at }) },
);

t.test('exactly once and in order within a generation, whatever breaks', async () => {
  fc.assert(
    fc.property(fc.array(op, { maxLength: 200, size: 'max' }), (ops) => run(ops)),
    { numRuns: 2000 },
  );
});
