/** What a client may claim from the next daemon, and what is refused: a daemon after a restart over the fake core. */
import t, { type Test } from 'tap';
import { monotonicMs } from '../../src/client/clock.js';
import type { ClientMessage } from '../../src/protocol/client-messages.js';
import { errorCodeOf } from '../../src/protocol/errors.js';
import { EX } from '../../src/protocol/modes.js';
import { LOCK_NODE_OWNED } from '../../src/protocol/peer-messages.js';
import { startFakeDaemon } from '../fixtures/fake-daemon.js';
import { RawClient } from '../fixtures/raw-client.js';
import { until } from '../fixtures/until.js';

type Claim = Extract<ClientMessage, { k: 'ClientReclaim' }>;

/** A request that waited for EX at the last daemon. */
function waiting(rid: number, name: string, fields: Partial<Claim> = {}): Claim {
  const nothing = { mode: 255, convert: 0, te: 0, tc: 0, lvbState: 0 as const, lvb: null, dirty: false, timeoutMs: 0, why: '' };
  return { k: 'ClientReclaim', rid, id: rid, domain: 'default', name, want: EX, flags: 0, se: 1, sc: rid, ...nothing, ...fields };
}

/** A client of the last daemon at the next one, which may or may not have node-owned locks. */
async function returned(t: Test, nodeOwnedAllowed: boolean): Promise<RawClient> {
  const last = await startFakeDaemon();
  const first = await RawClient.greet(last.path);
  const { key, secret } = await first.wait('DaemonWelcome');
  first.close();
  await last.stop();
  const next = await startFakeDaemon({ nodeOwnedAllowed, options: { startCount: 2, graceUntil: monotonicMs() + 60_000 } });
  t.teardown(() => next.stop());
  const client = await RawClient.greet(next.path, { session: key, secret });
  t.teardown(() => client.close());
  t.equal((await client.wait('DaemonWelcome')).resumed, true);
  return client;
}

t.test('rule 2: a request for a node-owned lock is not claimed by a node that may not own locks any more', async (t) => {
  const client = await returned(t, false);
  client.send(waiting(7, 'vip', { flags: LOCK_NODE_OWNED }));
  const denied = await client.wait('DaemonDenied', 7);
  t.equal(errorCodeOf(denied.code), 'TSDLM_NOT_ALLOWED');
  t.match(denied.text, /unsafe_node_owned/, 'the way out is named');
  client.send(waiting(8, 'mine'));
  await client.wait('DaemonGranted', 8);
});

t.test('rule 2: where the node may, it is claimed and granted', async (t) => {
  const client = await returned(t, true);
  client.send(waiting(7, 'vip', { flags: LOCK_NODE_OWNED }));
  await client.wait('DaemonGranted', 7);
  client.send(waiting(8, 'vip', { flags: LOCK_NODE_OWNED }));
  t.equal(errorCodeOf((await client.wait('DaemonDenied', 8)).code), 'TSDLM_CONFLICT', 'a node owns a name once');
});

t.test('rule 3: a held node-owned lock comes from the journal, never from a client that says so', async (t) => {
  const client = await returned(t, true);
  client.send(waiting(7, 'vip', { mode: EX, want: 255, flags: LOCK_NODE_OWNED }));
  t.equal(errorCodeOf((await client.wait('DaemonDenied', 7)).code), 'TSDLM_BAD_ARGUMENT');
});

t.test('rule 3: a session that did not come back from anywhere claims nothing', async (t) => {
  const daemon = await startFakeDaemon();
  t.teardown(() => daemon.stop());
  const client = await RawClient.greet(daemon.path, { session: '1.1', secret: '00'.repeat(32) });
  t.teardown(() => client.close());
  t.equal((await client.wait('DaemonWelcome')).resumed, false);
  client.send(waiting(7, 'vip'));
  t.equal(errorCodeOf((await client.wait('DaemonDenied', 7)).code), 'TSDLM_NOT_HELD');
});

t.test(
  'rule 1: after a crash the others wait for the deadline of a restart before it, whoever has come back already',
  async (t) => {
    // Found beside the bridge: the end of any connection at the third daemon (restart, crash) told the others to wait no longer,
    // while clients of the first one, which had not come back yet, still counted on its deadline.
    const last = await startFakeDaemon();
    const first = await RawClient.greet(last.path);
    const { key, secret } = await first.wait('DaemonWelcome');
    first.close();
    await last.stop();
    const graceUntil = monotonicMs() + 1500;
    let settledAt = 0;
    const next = await startFakeDaemon({
      options: {
        startCount: 3,
        graceUntil,
        settled: () => {
          settledAt ||= monotonicMs();
        },
      },
    });
    t.teardown(() => next.stop());
    const client = await RawClient.greet(next.path, { session: key, secret });
    t.equal((await client.wait('DaemonWelcome')).resumed, true);
    client.send({ k: 'ClientResumed', rid: 1 });
    await client.wait('DaemonDone', 1);
    client.send({ k: 'ClientSettled', rid: 2 });
    const other = await RawClient.greet(next.path);
    await other.wait('DaemonWelcome');
    other.close();
    client.close();
    await until('settled', () => settledAt > 0);
    t.ok(settledAt >= graceUntil, 'not before the deadline that others were told');
  },
);
