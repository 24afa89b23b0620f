/** Rule 12: a fence method that called a node off while it ran. The node is refused, the method distrusted until a person says otherwise. */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import t from 'tap';
import { QUICK, world } from '../fixtures/e2e.js';
import { operations, roles } from '../fixtures/fence-world.js';
import { until } from '../fixtures/until.js';

t.test('rule 12: a liar is found out, on all nodes', { timeout: 120_000 }, async (t) => {
  const dir = mkdtempSync(join(tmpdir(), 'tsdlm-liar-'));
  t.teardown(() => rmSync(dir, { recursive: true, force: true }));
  const script = join(dir, 'liar.sh');
  writeFileSync(script, '#!/bin/sh\necho "$TSDLM_FENCE_NODE" >> "$(dirname "$0")/asked"\nexit 0\n', { mode: 0o755 });
  const w = await world(t, {
    limits: QUICK,
    nodeLines: () => 'fence = [["liar"]]\n',
    tables: () => `\n[fence.liar]\ntype = "script"\ncommand = ["${script}"]\n`,
  });
  const { victim, other } = await roles(w);
  const n = `n${victim}`;
  const node = w.cluster.node(victim);
  node.signal('SIGSTOP');
  await until('it counts as fenced', async () => (await operations(w, other, n)).at(-1)?.outcome === 'fenced', 20_000);
  const since = node.log.length;
  node.signal('SIGCONT');
  await node.waitLog(
    'the refusal',
    (l) => l.event === 'join-refused' && /still runs on the same boot/.test(String(l.text)),
    20_000,
    since,
  );
  const others = [1, 2, 3].filter((id) => id !== victim);
  for (const id of others) {
    await until(`n${id} warns`, async () =>
      (await w.cluster.status(id)).warnings.some((text) =>
        text.startsWith(`fence method liar is not believed any more about node ${n}`),
      ),
    );
    t.equal((await operations(w, id, n)).at(-1)?.isDisproved, true);
  }
  t.ok(w.cluster.nodes.some((one) => one.log.some((l) => l.event === 'fence-device-lied' && l.level === 50)));
  t.match((await w.cluster.run(other, ['fence', 'history'])).stdout, /fenced, DISPROVED/);

  // Rebooted it is a member again; falls it silent, the liar is not asked.
  await node.kill();
  node.newBoot();
  await node.restart();
  node.signal('SIGSTOP');
  await until(
    'the level fails',
    async () => ((await operations(w, other, n)).at(-1)?.tried ?? 0) > 0 && (await operations(w, other, n)).length === 2,
    20_000,
  );
  const last = (await operations(w, other, n)).at(-1);
  t.match([last?.outcome, last?.tries.at(-1)?.detail], ['running', new RegExp(`tsdlm fence trust ${n} liar`)]);

  t.match(await w.cluster.run(other, ['fence', 'trust', n, 'other']), { code: 77, stderr: /is not distrusted about node/ });
  t.match((await w.cluster.run(other, ['fence', 'trust', 'n9', 'liar'])).stderr, /node "n9" is not in/);
  const said = await w.cluster.run(other, ['fence', 'trust', n, 'liar']);
  t.same([said.code, said.stdout], [0, `liar is believed again about ${n}\n`]);
  await node.kill();
  node.newBoot();
  await until('it is fenced', async () => (await operations(w, other, n)).at(-1)?.outcome === 'fenced', 40_000);
  await node.restart();
  t.notOk((await w.cluster.status(other)).warnings.some((text) => text.includes('not believed')));
});
