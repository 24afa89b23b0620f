/** Ticks and heartbeats are handled millions of times by the simulator: they must stay cheap. Limits are generous; they catch accidents. */

import { performance } from 'node:perf_hooks';
import t from 'tap';
import { Cluster } from './harness.js';

t.test('an idle tick and a heartbeat round cost microseconds', async (t) => {
  const c = new Cluster({ seed: 1, voters: 5 });
  c.startAll();
  c.until(() => c.settled(), 10_000);
  const leader = c.leaderId();
  const follower = leader === 1 ? 2 : 1;
  const [lead, follow] = [c.m(leader), c.m(follower)];
  const [leadNow, followNow] = [c.local(c.host(leader)), c.local(c.host(follower))];
  // The harness itself shall cost nothing here.
  c.loss = 2;
  const rounds = 50_000;
  const began = performance.now();
  for (let i = 0; i < rounds; i++) {
    const at = i / rounds;
    follow.tick(followNow + at);
    lead.tick(leadNow + at);
    follow.receive(followNow + at, leader, { k: 'Heartbeat', term: lead.term, commit: 0, sentAt: leadNow + at });
    lead.receive(leadNow + at, follower, {
      k: 'HeartbeatAck',
      term: lead.term,
      echo: leadNow + at,
      sentAt: followNow + at,
      startCount: 1,
      match: 0,
      down: [],
      limits: 1,
      journal: 'j2',
    });
  }
  const each = ((performance.now() - began) * 1000) / rounds / 4;
  t.comment(`${each.toFixed(2)} us for each call`);
  t.ok(each < 50);
});
