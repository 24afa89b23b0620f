/** What a leader hears of the nodes. */
import t from 'tap';
import { Presence } from '../../src/membership/presence.js';
import { deriveTimeLimits } from '../../src/membership/time-limits.js';

const limits = { ...deriveTimeLimits({ heartbeatMs: 100, leaseMs: 1200 }), waitMs: 1300 };

t.test('a late acknowledgement of an older incarnation says nothing', (t) => {
  const presence = new Presence(1, [2], limits);
  presence.heard(0, 2, { startCount: 3, down: [], limits: 0, journal: 'a' });
  presence.heard(1, 2, { startCount: 2, down: [1], limits: 0, journal: 'a' });
  t.same(presence.downOf(2, 2, 3), []);
  t.equal(presence.downOf(2, 2, 2), null);
  t.end();
});

// A node started twice under a leader that had not admitted it again, lost its disk and was readmitted as new: its start count
// began anew, all that it said counted as late, and it was never admitted (L2). Found by simulator seed 400652.
t.test('a node that was readmitted with a new journal is heard, however low its start count', (t) => {
  const presence = new Presence(1, [2], limits);
  presence.heard(0, 2, { startCount: 5, down: [], limits: 0, journal: 'lost' });
  presence.heard(10, 2, { startCount: 2, down: [], limits: 0, journal: 'new' });
  t.ok(presence.isHeard(11, 2));
  t.same(presence.downOf(11, 2, 2), []);
  t.end();
});
