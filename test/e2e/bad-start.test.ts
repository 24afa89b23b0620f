/** What a daemon must not start with: each is refused with exit code 78, a stable code, the place, and the way out. */
import { cpSync, mkdirSync, readFileSync, truncateSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { openStore } from '../../src/node/journal-store.js';
import { QUICK, world } from '../fixtures/e2e.js';

const w = await world(t, { nodes: 1, limits: QUICK });
const node = w.cluster.node(1);
const good = readFileSync(node.config, 'utf8');

/** A file for a daemon that would not be in the way of the running one. */
function config(name: string, text: string): string {
  const file = join(w.cluster.dir, `${name}.conf`);
  writeFileSync(file, text.replace(/^socket = .*$/m, `socket = "${join(w.cluster.dir, `${name}.sock`)}"`), { mode: 0o600 });
  return file;
}
const lineOf = (text: string, part: string): number => text.split('\n').findIndex((line) => line.includes(part)) + 1;

for (const { name, text, at, say } of [
  { name: 'unknown-key', text: good.replace('lease_ms', 'leese_ms'), at: 'leese_ms', say: /leese_ms.*lease_ms/ },
  { name: 'limits', text: good.replace(/lease_ms = \d+/, 'lease_ms = 200'), at: 'lease_ms', say: /6 heartbeats/ },
  { name: 'wrong-type', text: good.replace('tls = true', 'tls = "yes"'), at: 'tls', say: /tls/ },
  { name: 'no-toml', text: good.replace('tls = true', 'tls true'), at: 'tls true', say: /not valid TOML/ },
  { name: 'short-key', text: good.replace(/key = "\w+"/, 'key = "secret"'), at: 'key =', say: /16 to 4096/ },
  { name: 'no-such-node', text: good.replace('node = "n1"', 'node = "n7"'), at: 'node = "n7"', say: /n7/ },
]) {
  t.test(`configuration: ${name}`, async (t) => {
    const file = config(name, text);
    const { code, stderr } = await w.cluster.runDaemon(['--config', file]);
    t.equal(code, 78);
    t.match(stderr, /TSDLM_BAD_CONFIG/);
    t.ok(stderr.includes(`${file}:${lineOf(text, at)}`), `names line ${lineOf(text, at)}: ${stderr}`);
    t.match(stderr, say);
    t.notMatch(stderr, /"secret"/, 'but never the key');
  });
}

t.test('configuration: a file that others can read although it holds the key', async (t) => {
  const file = config('exposed', good);
  writeFileSync(file, good, { mode: 0o644 });
  const { chmodSync } = await import('node:fs');
  chmodSync(file, 0o644);
  const { code, stderr } = await w.cluster.runDaemon(['--config', file]);
  t.equal(code, 78);
  t.match(stderr, /chmod 600/);
});

t.test('usage: an unknown option is exit code 64', async (t) => {
  t.equal((await w.cluster.runDaemon(['--confg', 'x'])).code, 64);
});

/** The running daemon's journal, copied while it is quiet, for another daemon to stumble over. */
async function journalTest(
  name: string,
  errorCode: string,
  damage: (dir: string) => void | Promise<void>,
  change: (text: string) => string = (text) => text,
): Promise<void> {
  await t.test(`journal: ${name}`, async (t) => {
    const dir = join(w.cluster.dir, name.replaceAll(' ', '-'));
    mkdirSync(dir, { mode: 0o700 });
    for (const env of ['control', 'locks']) cpSync(join(node.dir, 'state', env), join(dir, env), { recursive: true });
    await damage(dir);
    const before = readFileSync(join(dir, 'control', 'data.mdb'));
    const text = change(good).replace(/^state_dir = .*$/m, `state_dir = "${dir}"`);
    const { code, stderr } = await w.cluster.runDaemon(['--config', config(name.replaceAll(' ', '-'), text)]);
    t.equal(code, 78, stderr);
    t.match(stderr, new RegExp(errorCode));
    t.ok(stderr.includes(dir), `names the place: ${stderr}`);
    t.ok(before.equals(readFileSync(join(dir, 'control', 'data.mdb'))), 'and is left as it was');
  });
}

const otherNode = (text: string): string =>
  text.replace('node = "n1"', 'node = "n2"').replace(/name = "n1"\nid = 1/, 'name = "n2"\nid = 2');

await t.test('stop first', async () => {
  await node.stop();
});
await journalTest('of another node', 'TSDLM_JOURNAL_FOREIGN', () => {}, otherNode);
await journalTest(
  'of another cluster',
  'TSDLM_JOURNAL_FOREIGN',
  () => {},
  (text) => text.replace('cluster = "test"', 'cluster = "other"'),
);
await journalTest('truncated', 'TSDLM_JOURNAL_CORRUPT', (dir) => truncateSync(join(dir, 'control', 'data.mdb'), 5000));
await journalTest('too new', 'TSDLM_JOURNAL_TOO_NEW', async (dir) => {
  const store = openStore(join(dir, 'control'), true);
  const meta = store.load().get('meta') as Record<string, unknown>;
  await store.commit([{ key: 'meta', value: { ...meta, schema: 99 } }]);
  await store.close();
});

await t.test('journal: in use by a running daemon', async (t) => {
  await node.restart();
  const { code, stderr } = await w.cluster.runDaemon(['--config', config('in-use', good)]);
  t.equal(code, 78);
  t.match(stderr, /TSDLM_JOURNAL_IN_USE/);
  t.ok(node.isRunning);
  await (await (await w.owner(1)).lock('still works')).release();
});
