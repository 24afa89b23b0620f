/** Delays against fence duels: what may be drawn for two nodes never comes closer than one gap. */
import t from 'tap';
import { delaysOf, drawDelay, duelGapMs, leastDifference } from '../../src/membership/duel.js';

const gap = duelGapMs({ heartbeatMs: 250 });

t.test('a fixed delay is what it says, a random one comes in steps that the other node does not have', async (t) => {
  t.equal(gap, 1500);
  t.same(delaysOf({ baseMs: 700, maxMs: 0 }, true, gap), [700]);
  t.same(delaysOf({ baseMs: 0, maxMs: 6000 }, false, gap), [0, 4000]);
  t.same(delaysOf({ baseMs: 0, maxMs: 6000 }, true, gap), [2000, 6000]);
  t.same(delaysOf({ baseMs: 0, maxMs: 10 }, true, gap), [1500, 4500], 'a step is never below one gap');
  for (const random of [0, 0.3, 0.6, 0.999999]) {
    t.ok(
      delaysOf({ baseMs: 100, maxMs: 9000 }, false, gap).includes(drawDelay({ baseMs: 100, maxMs: 9000 }, false, gap, random)),
    );
  }
});

t.test('the least difference between two nodes', async (t) => {
  const none = { baseMs: 0, maxMs: 0 };
  t.equal(leastDifference(none, none, gap), 0);
  t.equal(leastDifference(none, { baseMs: 5000, maxMs: 0 }, gap), 5000);
  t.equal(leastDifference({ baseMs: 0, maxMs: 9000 }, { baseMs: 0, maxMs: 9000 }, gap), 3000);
  t.equal(
    leastDifference({ baseMs: 3000, maxMs: 9000 }, { baseMs: 0, maxMs: 9000 }, gap),
    0,
    'a base of one step spoils the steps',
  );
  t.ok(leastDifference(none, { baseMs: 0, maxMs: 9000 }, gap) >= gap, 'the higher number alone at random');
  t.equal(leastDifference({ baseMs: 0, maxMs: 9000 }, none, gap), 0, 'the lower one may draw 0');
});
