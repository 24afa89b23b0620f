/**
 * Clients that ask for anything in any order. The fake core throws when it is called for a lock that is over or from inside
 * one of its events; here we check that every request is answered exactly once and that nothing is left behind.
 */
import t from 'tap';
import type { ClientMessage } from '../../src/protocol/client-messages.js';
import { startFakeDaemon, until } from '../fixtures/fake-daemon.js';
import { RawClient } from '../fixtures/raw-client.js';

/** A small generator of numbers, so that a seed repeats a run. */
function generator(seed: number): (below: number) => number {
  let state = seed >>> 0;
  return (below) => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return Math.floor((state / 2 ** 32) * below);
  };
}

function randomMessage(rid: number, random: (below: number) => number): ClientMessage {
  const lock = 1 + random(rid);
  const lvb = random(6) === 0 ? new Uint8Array(64).fill(rid & 0xff) : null;
  const mode = random(3) as 0 | 1 | 2;
  const isTry = random(3) === 0 ? 1 : 0;
  const timeoutMs = random(4) === 0 ? 1 + random(30) : 0;
  switch (random(10)) {
    case 0:
    case 1:
    case 2:
    case 3: {
      const flags = isTry | (random(8) === 0 ? 2 : 0) | (random(3) === 0 ? 8 : 0);
      return { k: 'ClientLock', rid, domain: 'default', name: `n${random(4)}`, mode, flags, timeoutMs, why: '' };
    }
    case 4:
    case 5:
      return { k: 'ClientConvert', rid, lock, mode, flags: isTry, timeoutMs, lvb };
    case 6:
    case 7:
      return { k: 'ClientUnlock', rid, lock, lvb };
    case 8:
      return { k: 'ClientCancel', rid, target: lock };
    default: {
      if (random(3) === 0) return { k: 'ClientLvbWrite', rid, lock, lvb };
      const verb = random(2) === 0 ? 'unlock' : 'convert';
      const args = { domain: 'default', name: `n${random(4)}`, mode: 'PR', try: true, timeoutMs: 0 };
      return { k: 'ClientAdmin', rid, verb, args };
    }
  }
}

for (const isLate of [false, true]) {
  t.test(`every request is answered once, events ${isLate ? 'after' : 'inside'} the core's calls`, async (t) => {
    for (let seed = 1; seed <= 25; seed++) {
      const random = generator(seed * 7919 + (isLate ? 1 : 0));
      const daemon = await startFakeDaemon({ isLate, nodeOwnedAllowed: true, limits: { heartbeatMs: 20, leaseMs: 60_000 } });
      const clients = await Promise.all([1, 2, 3].map(() => RawClient.greet(daemon.path)));
      const sent = clients.map(() => 0);
      for (let step = 0; step < 120; step++) {
        const which = random(clients.length);
        const client = clients[which];
        if (client === undefined) continue;
        const burst: ClientMessage[] = [];
        for (let i = random(4); i >= 0; i--) {
          const rid = (sent[which] ?? 0) + 1;
          sent[which] = rid;
          burst.push(randomMessage(rid, random));
        }
        client.send(...burst);
        if (random(3) === 0) await new Promise((resolve) => setImmediate(resolve));
        if (random(40) === 0) daemon.core.loseAll();
      }
      const victim = clients[random(clients.length)];
      // One goes without a word; the others withdraw whatever still waits.
      victim?.close();
      for (const [which, client] of clients.entries()) {
        if (client === victim) continue;
        const last = sent[which] ?? 0;
        for (let target = 1; target <= last; target++) client.send({ k: 'ClientCancel', rid: last + target, target });
        const answers = new Map<number, number>();
        const complete = (): boolean => {
          answers.clear();
          for (const m of client.seen) {
            if (m.k !== 'DaemonGranted' && m.k !== 'DaemonDenied' && m.k !== 'DaemonDone' && m.k !== 'DaemonAdminReply') continue;
            answers.set(m.rid, (answers.get(m.rid) ?? 0) + 1);
          }
          return answers.size === 2 * last;
        };
        await until(complete, `seed ${seed}: all ${2 * last} requests are answered (${answers.size})`);
        const repeated = [...answers].filter(([, count]) => count !== 1);
        if (repeated.length > 0) t.fail(`seed ${seed}: answered more than once: ${JSON.stringify(repeated)}`);
      }
      for (const client of clients) client.close();
      await until(() => daemon.server.sessions().length === 0, `seed ${seed}: no session is left`);
      if (daemon.core.lockCount !== daemon.server.nodeOwnedCount) {
        t.fail(`seed ${seed}: ${daemon.core.lockCount} locks are left, ${daemon.server.nodeOwnedCount} of them the node's`);
      }
      await daemon.stop();
    }
    t.pass('25 seeds');
  });
}
