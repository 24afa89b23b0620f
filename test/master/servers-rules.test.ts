/**
 * Goal: domains of policy `servers`, one rule one test. Method as in queue-rules.test.ts: servers are given by number, views by hand.
 */
import t from 'tap';
import { placeResource } from '../../src/master/placement.js';
import { EX, NL, PR } from '../../src/protocol/modes.js';
import { EngineWorld } from './harness.js';

/** A name that rendezvous hashing gives to `node` among these. */
function nameFor(node: number, among: number[]): string {
  const members = among.map((n) => ({ node: n, startCount: 1, continues: 0, keeps: false }));
  for (let i = 0; ; i++) if (placeResource(`r${i}`, members) === node) return `r${i}`;
}

/** Every kind of lock message sent so far to a node that is not in `to`. */
function recordTo(w: EngineWorld, node: number): string[] {
  const kinds: string[] = [];
  const engine = w.engine(node);
  const receive = engine.receive.bind(engine);
  engine.receive = (now, from, msg) => {
    kinds.push(msg.k);
    receive(now, from, msg);
  };
  return kinds;
}

t.test('servers: whoever asks, the server that hashing names masters; two askers of one epoch name the same', async (t) => {
  const w = new EngineWorld([1, 2, 3, 4, 5], [1, 2, 3]);
  w.settle();
  const name = nameFor(2, [1, 2, 3]);
  const a = w.lock(4, name, EX);
  const b = w.lock(5, name, EX);
  w.settle();
  t.strictSame(w.mastersOf(name), [2]);
  t.strictSame([w.last(a), w.last(b)].sort(), ['granted EX', undefined]);
});

t.test('servers: a client is not asked about names that it does not use', async (t) => {
  const w = new EngineWorld([1, 2, 3, 4, 5], [1, 2, 3]);
  w.settle();
  const heard = recordTo(w, 5);
  for (let i = 0; i < 20; i++) w.lock(4, `n${i}`, EX);
  for (let i = 0; i < 20; i++) w.lock(1, `m${i}`, EX);
  w.settle();
  t.strictSame(heard, []);
});

t.test('servers: one server (SLM) needs nobody to become master', async (t) => {
  const w = new EngineWorld([1, 2, 3], [1]);
  w.settle();
  const heard = recordTo(w, 2);
  const own = w.lock(1, 'a', EX);
  t.equal(w.last(own), 'granted EX', 'at once');
  const other = w.lock(3, 'b', EX);
  w.settle();
  t.equal(w.last(other), 'granted EX');
  t.strictSame(w.mastersOf('b'), [1]);
  t.strictSame(heard, []);
});

t.test('servers: the only member of a domain does not master when it is no server; it waits for one', async (t) => {
  const w = new EngineWorld([2], [1]);
  const l = w.lock(2, 'a', EX);
  w.advance(1000);
  t.equal(w.last(l), undefined);
  w.addEngine(1, 1);
  w.members = [{ node: 1, startCount: 1, continues: 0, keeps: false }, ...w.members];
  w.epoch++;
  w.setView();
  w.settle();
  t.equal(w.last(l), 'granted EX');
  t.strictSame(w.mastersOf('a'), [1]);
});

t.test('servers: a server that joins gets new names, and finds the masters of old ones', async (t) => {
  const w = new EngineWorld([1, 2, 4], [1, 2, 3]);
  w.settle();
  const old = nameFor(3, [1, 2, 3]);
  const held = w.lock(4, old, PR);
  w.settle();
  const before = w.masterOf(old);
  t.not(before, 3);
  w.addEngine(3, 1);
  w.members = [1, 2, 3, 4].map((node) => ({ node, startCount: 1, continues: 0, keeps: false }));
  w.epoch++;
  w.setView();
  w.settle();
  const more = [w.lock(3, old, PR), w.lock(1, old, PR)];
  w.settle();
  t.strictSame(w.mastersOf(old), [before], 'it stays where it was');
  t.strictSame(
    more.map((l) => w.last(l)),
    ['granted PR', 'granted PR'],
  );
  t.equal(w.last(held), 'granted PR');
  const fresh = nameFor(3, [1, 2, 3]).concat();
  t.equal(fresh, old);
  for (let i = 0; i < 30; i++) w.lock(4, `x${i}`, EX);
  w.settle();
  t.ok(Array.from({ length: 30 }, (_, i) => w.masterOf(`x${i}`)).includes(3), 'new names go to it');
});

t.test('servers: a server dies: its names go to the servers that are left, holders and waiters keep their places', async (t) => {
  const w = new EngineWorld([1, 2, 3, 4, 5], [1, 2, 3]);
  w.settle();
  const name = nameFor(2, [1, 2, 3]);
  const held = w.lock(4, name, EX);
  w.settle();
  const first = w.lock(5, name, EX);
  w.settle();
  const second = w.lock(4, name, EX);
  w.settle();
  w.evict(2);
  w.settle();
  t.ok([1, 3].includes(w.masterOf(name)));
  t.equal(w.last(first), undefined);
  w.unlock(4, held);
  w.settle();
  t.strictSame([w.last(first), w.last(second)], ['granted EX', undefined], 'in order');
});

t.test('servers: without a living server nothing is granted, and what is held stays held', async (t) => {
  const w = new EngineWorld([1, 4, 5], [1]);
  w.settle();
  const held = w.lock(4, 'a', EX);
  w.settle();
  const waiting = w.lock(5, 'a', EX);
  w.settle();
  const ending = w.lock(5, 'b', EX);
  w.settle();
  w.evict(1);
  w.settle();
  const fresh = w.lock(5, 'c', EX);
  const down = w.lock(4, 'a', NL);
  w.advance(2000);
  t.strictSame([w.last(held), w.last(waiting), w.last(fresh), w.last(down)], ['granted EX', undefined, undefined, undefined]);
  t.strictSame(w.mastersOf('a'), []);
  w.unlock(5, ending);
  t.equal(w.last(ending), 'released', 'a release needs nobody');
  w.addEngine(1, 2);
  w.members = [{ node: 1, startCount: 2, continues: 0, keeps: false }, ...w.members];
  w.epoch++;
  w.setView();
  w.advance(200);
  t.strictSame([w.last(held), w.last(waiting), w.last(fresh)], ['granted EX', undefined, 'granted EX']);
  w.unlock(4, held);
  w.settle();
  t.equal(w.last(waiting), 'granted EX');
});

t.test('servers: a node that loses its vote hands its names over and keeps its own locks', async (t) => {
  const w = new EngineWorld([1, 2, 4], [1, 2]);
  w.settle();
  const name = nameFor(2, [1, 2]);
  const value = new Uint8Array(64).fill(7);
  const writer = w.lock(2, name, EX, { lvb: true });
  w.settle();
  t.strictSame(w.mastersOf(name), [2]);
  w.unlock(2, writer, value);
  const own = w.lock(2, name, PR, { lvb: true });
  const waiting = w.lock(4, name, EX, { lvb: true });
  w.settle();
  w.servers = [1];
  w.epoch++;
  w.setView();
  w.settle();
  t.strictSame(w.mastersOf(name), [1]);
  t.strictSame([w.last(own), w.last(waiting)], ['granted PR', undefined]);
  w.unlock(2, own);
  w.settle();
  t.equal(w.last(waiting), 'granted EX');
  t.equal(waiting.lvbState, 1);
  t.strictSame(waiting.lvb, value, 'the value block went along');
});

t.test('servers: a vote lost and given back in the middle of the hand-over loses nothing (seed 1066)', async (t) => {
  const w = new EngineWorld([1, 2, 4], [1, 2]);
  w.settle();
  const name = nameFor(1, [1, 2]);
  const own = w.lock(1, name, EX);
  w.settle();
  const waiting = w.lock(4, name, EX);
  w.settle();
  w.servers = [2];
  w.epoch++;
  w.setView(); // 1 hands over to 2; nothing is delivered yet
  w.servers = [1];
  w.evict(2); // 2 dies; 1 is a server again
  w.advance(200);
  t.strictSame(w.mastersOf(name), [1]);
  w.unlock(1, own);
  w.settle();
  t.equal(w.last(waiting), 'granted EX');
});

t.test('servers: a new master that may know us from the epoch before is not forgotten silently (seed 4587)', async (t) => {
  const w = new EngineWorld([1, 2, 3, 4], [1, 2]);
  w.settle();
  const name = nameFor(1, [1, 2]);
  const held = w.lock(4, name, NL);
  w.settle();
  w.evict(1); // 2 is the only server: everything is registered with it
  for (const from of [3, 4]) for (let i = 0; i < 5; i++) w.deliver(from, 2);
  t.equal(w.masterOf(name), 2, 'it serves, and node 4 has not heard of it');
  w.unlock(4, held);
  w.epoch++;
  w.setView();
  w.settle();
  t.equal(w.last(held), 'released');
  w.advance(2000);
  t.equal(w.engine(2).state.domains.get('default')?.resources.size, 0, 'nothing of it is left at the master');
});

t.test('servers: a node that is no server refuses to be taken for one', async (t) => {
  const w = new EngineWorld([1, 2, 4], [1, 2]);
  w.settle();
  w.epoch++;
  w.setView();
  const head = { dom: 1, dep: 2, ce: 2, cc: 0 };
  w.engine(4).receive(w.now, 1, { k: 'MasterRequest', ...head, name: 'a' });
  w.engine(4).receive(w.now, 1, {
    k: 'HandOver',
    ...head,
    resources: [{ name: 'a', lvbState: 0, lvb: null, exNode: 0, exId: 0, converting: [], blocked: [] }],
  });
  w.engine(4).receive(w.now, 1, { k: 'Register', ...head, locks: [] });
  w.settle();
  w.engine(4).receive(w.now, 1, { k: 'MasterRequest', ...head, name: 'a' });
  t.match((w.queues.get('4>1') ?? []).at(-1), { k: 'MasterReply', answer: 0 });
  t.strictSame(w.mastersOf('a'), []);
  t.equal(w.engine(4).state.domains.get('default')?.resources.size, 0);
});

t.test('servers: a domain has the policy that it was made with; a contradiction is refused with both values', async (t) => {
  const w = new EngineWorld([1, 2], [1]);
  const text = w.engine(2).joinDomain(w.now, 'default', 'peer');
  t.match(text, /domain default has mastery "servers".*says "peer"/);
  t.equal(w.engine(2).joinDomain(w.now, 'default', null), null);
  w.engine(2).state.domains.delete('other');
  w.engine(2).state.mastery = { standard: 'peer', domains: new Map([['other', 'peer']]) };
  const l = w.lock(2, 'x', EX, { domain: 'other' });
  t.equal(w.last(l), 'denied TSDLM_NOT_ALLOWED');
  t.equal(w.engine(2).joinDomain(w.now, 'new', null), null);
  t.match(w.commands.at(-1)?.command, { c: 'domainJoin', name: 'new', mastery: 'peer' });
});
