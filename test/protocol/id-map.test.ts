/** IdMap does what Map does, for any history of a table. */
import fc from 'fast-check';
import t from 'tap';
import { IdMap } from '../../src/protocol/id-map.js';

const key = fc.oneof(
  fc.integer({ min: 0, max: 40 }),
  fc.maxSafeNat(),
  fc.integer({ min: 0, max: 30 }).map((n) => n * 2 ** 32 + 7),
);
const step = fc.record({
  what: fc.constantFrom('set', 'set', 'delete', 'get', 'clear'),
  key,
  rare: fc.integer({ min: 0, max: 50 }),
});

t.test('behaves like a Map, order of insertion included', async (t) => {
  fc.assert(
    fc.property(fc.integer(), fc.array(step, { maxLength: 400 }), (salt, steps) => {
      const mine = new IdMap<number>(salt);
      const map = new Map<number, number>();
      steps.forEach(({ what, key, rare }, n) => {
        if (what === 'set') {
          mine.set(key, n);
          map.set(key, n);
        } else if (what === 'delete') {
          if (mine.delete(key) !== map.delete(key)) throw new Error(`delete ${key}`);
        } else if (what === 'clear' && rare === 0) {
          mine.clear();
          map.clear();
        }
        if (mine.get(key) !== map.get(key) || mine.has(key) !== map.has(key) || mine.size !== map.size) {
          throw new Error(`${what} ${key}: ${mine.get(key)} for ${map.get(key)}`);
        }
      });
      const [a, b] = [mine.values().join(), [...map.values()].join()];
      if (a !== b) throw new Error(`order: ${a} for ${b}`);
    }),
    { numRuns: 500 },
  );
  t.pass('500 histories');
});

t.test('a table whose entries come and go does not grow', async (t) => {
  const table = new IdMap<object>();
  const first = 3 * 2 ** 32;
  for (let i = 0; i < 100_000; i++) {
    table.set(first + i, { i });
    if (i >= 100) table.delete(first + i - 100);
  }
  t.equal(table.size, 100);
  t.same(table.values()[0], { i: 99_900 });
});

t.test('300,000 entries are found again', async (t) => {
  const table = new IdMap<number>(12345);
  for (let i = 0; i < 300_000; i++) table.set(i * 16, i);
  let wrong = 0;
  for (let i = 0; i < 300_000; i++) if (table.get(i * 16) !== i || table.has(i * 16 + 1)) wrong++;
  t.equal(wrong, 0);
  for (let i = 0; i < 300_000; i += 2) table.delete(i * 16);
  t.equal(table.size, 150_000);
  t.equal(table.get(16), 1);
  t.equal(table.get(32), undefined);
});
