/** Two voters with fence devices: delays against duels are demanded, and named when they are wrong. */
import { chmodSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import t from 'tap';
import { type Config, configChecksum, loadConfig } from '../../src/node/config.js';

const dir = mkdtempSync(join(tmpdir(), 'tsdlm-pair-'));
t.teardown(() => rmSync(dir, { recursive: true, force: true }));
const script = join(dir, 'off.sh');
writeFileSync(script, '#!/bin/sh\n');
chmodSync(script, 0o755);

function text(one: string, two: string, fence = '[["off"]]'): string {
  const node = (id: number, more: string): string =>
    `[[nodes]]\nname = "n${id}"\nid = ${id}\nhost = "10.0.0.${id}"\nfence = ${fence}\n${more}\n`;
  return `cluster = "c"\nnode = "n1"\nkey = "0123456789abcdef0123456789abcdef"\n${node(1, one)}${node(2, two)}[fence.off]\ntype = "script"\ncommand = ["${script}"]\n`;
}
const load = (source: string): Config => loadConfig({ text: source, env: {}, uid: 0 });
const base = (ms: number): string => `fence_delay_base_ms = ${ms}`;
const random = (ms: number): string => `fence_delay_max_ms = ${ms}`;

t.test('two voters with devices and no, or too like, delays are refused, both named', async (t) => {
  for (const [one, two] of [
    ['', ''],
    [base(5000), base(5000)],
    [base(1000), ''],
    [random(9000), ''],
    [`${base(3000)}\n${random(9000)}`, random(9000)],
  ] as const) {
    t.throws(() => load(text(one, two)), {
      code: 'TSDLM_BAD_CONFIG',
      message: /n1 \(fence_delay_base_ms = \d+, fence_delay_max_ms = \d+\) and n2 \(.*must by 1500/,
    });
  }
});

t.test(
  'a difference, or the same base and a random part on both, is accepted; nobody is warned of two voters then',
  async (t) => {
    for (const [one, two] of [
      [base(5000), ''],
      ['', base(1500)],
      [random(9000), random(9000)],
      [`${base(700)}\n${random(9000)}`, `${base(700)}\n${random(9000)}`],
    ] as const) {
      t.notMatch(load(text(one, two)).warnings.join(), /two voters/);
    }
    t.not(configChecksum(load(text(base(5000), ''))), configChecksum(load(text(base(6000), ''))), 'both nodes must know it');
    t.match(load(text('', '', '[["self"]]')).warnings.join(), /two voters/, 'without devices there is no duel, and no survivor');
  },
);

t.test('the example of two nodes parses', async (t) => {
  const key = join(dir, 'key');
  writeFileSync(key, '0123456789abcdef0123456789abcdef\n', { mode: 0o600 });
  const example = readFileSync('examples/two-nodes.toml', 'utf8')
    .replaceAll('/etc/tsdlm/cluster.key', key)
    .replaceAll('/etc/tsdlm/bmc.password', key);
  const config = loadConfig({ text: example, hostname: 'n2', env: {}, uid: process.getuid?.() ?? 0 });
  t.same(
    config.nodes.map((n) => n.fenceDelay.baseMs),
    [5000, 0],
  );
});
