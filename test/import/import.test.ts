/**
 * Goal: what `tsdlm config import` makes of ocfs2's and GFS's configurations. All inputs are made up.
 * Method: texts in, cluster out; and for every configuration that comes out, our own reader must take it.
 */
import { mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import fc from 'fast-check';
import t, { type Test } from 'tap';
import { formatOf, importTexts } from '../../src/import/import.js';
import { tomlOf } from '../../src/import/toml-text.js';
import { loadConfig } from '../../src/node/config.js';
import { TsdlmError } from '../../src/protocol/errors.js';
import { runCli as run } from '../fixtures/cli.js';

/** No daemon is needed. */
const runCli = (args: string[]) => run('/nowhere', args);

const OCFS2 = `cluster:
\tnode_count = 2
\theartbeat_mode = global
\tname = shared

node:
\tnumber = 0
\tcluster = shared
\tip_port = 7777
\tip_address = 10.1.0.1
\tname = ora-a

node:
\tnumber = 5
\tcluster = shared
\tip_port = 7777
\tip_address = fd00::5
\tname = ora-b

heartbeat:
\tcluster = shared
\tregion = 7DA5015346C245E6A41AA85E2E7EA3CF
`;

const CLUSTER_CCS = `# made up
cluster {
    name = "orchard"
    lock_gulm {
        servers = ["pear1", "pear2", "10.44.0.3"]
        heartbeat_rate = 6.0
        allowed_misses = 3
        lt_high_locks = 1048576
    }
}
`;
const NODES_CCS = `nodes {
    pear1 { ip_interfaces { eth0 = "10.44.0.1" } fence { power { strip-a { port = 5 } } } }
    pear2 { ip_interfaces { eth0 = "10.9.0.2" eth1 = "10.44.0.2" } usedev = "eth1" fence { human { hand { ipaddr = "x" } } } }
    pear3 { ip_interfaces { eth0 = "10.44.0.3" } fence { bmc { ilo3 { } } both { strip-a { port = 7 } strip-b { port = 7 } } } }
    apple1 { ip_interfaces { eth0 = "10.44.0.4" } fence { power { strip-a { port = 8 option = "off" } } } }
}
`;
const FENCE_CCS = `fence_devices {
    strip-a { agent = "fence_apc" ipaddr = "10.44.9.9" login = "op" passwd = "first-secret" }
    strip-b { agent = "fence_apc" ipaddr = "10.44.9.8" login = "op" passwd = "second-secret" community = "third-secret" }
    ilo3 { agent = "fence_ipmilan" ipaddr = "10.44.9.3" login = "fence" passwd = "fourth-secret" cipher = 3 privlvl = "operator" lanplus = 1 }
    hand { agent = "fence_manual" }
}
`;
const XML = `<?xml version="1.0"?>
<!-- made up -->
<cluster name="orchard" config_version="3">
  <gulm heartbeat_rate="0.5" allowed_misses="2">
    <lockserver name="pear1"/>
  </gulm>
  <clusternodes>
    <clusternode name="pear1" nodeid="7" votes="1"><fence><method name="power">
      <device name="strip-a" port="5"/></method></fence></clusternode>
    <clusternode name="apple&amp;1"/>
  </clusternodes>
  <fencedevices><fencedevice name="strip-a" agent='fence_apc' ipaddr="10.44.9.9" login="op" passwd="fifth-secret"/></fencedevices>
  <rm><resources><ip address="10.0.0.9"/></resources></rm>
</cluster>
`;

const SECRETS = ['first-secret', 'second-secret', 'third-secret', 'fourth-secret', 'fifth-secret'];
const ccs = [
  { file: 'cluster.ccs', text: CLUSTER_CCS },
  { file: 'nodes.ccs', text: NODES_CCS },
  { file: 'fence.ccs', text: FENCE_CCS },
];
const options = { keepPorts: false, secretsDir: '/etc/tsdlm' };
const one = (text: string, more = {}) => importTexts([{ file: 'f', text }], { ...options, ...more });

/** Our own reader takes what came out: every node, with the secrets in place. */
function checked(t: Test, made: ReturnType<typeof importTexts>): ReturnType<typeof loadConfig> {
  const dir = mkdtempSync(join(tmpdir(), 'tsdlm-import-'));
  t.teardown(() => rmSync(dir, { recursive: true, force: true }));
  for (const s of [{ name: 'cluster.key', content: 'k'.repeat(40), mode: 0o600 }, ...made.secrets]) {
    writeFileSync(join(dir, s.name), s.content ?? 'x\n', { mode: s.mode });
  }
  const text = tomlOf(made, 'x', '/etc/tsdlm').replaceAll('"/etc/tsdlm/', `"${dir}/`);
  const load = (hostname: string) => loadConfig({ text, file: join(dir, 'c.toml'), hostname, env: {} });
  const configs = made.nodes.map((n) => load(n.name));
  return configs[0] as ReturnType<typeof loadConfig>;
}

const left = (made: ReturnType<typeof importTexts>) => made.notCarried.map((n) => `${n.file}:${n.line} ${n.key}`);

t.test('ocfs2: nodes, numbers and addresses; everything else is named with its line', async (t) => {
  const made = one(OCFS2);
  t.match(made, { format: 'ocfs2', cluster: 'shared', mastery: 'peer', limits: null });
  t.match(made.nodes, [
    { id: 1, name: 'ora-a', host: '10.1.0.1', port: null, voter: true },
    { id: 5, name: 'ora-b', host: 'fd00::5' },
  ]);
  t.same(left(made), [
    'f:3 cluster.heartbeat_mode',
    'f:7 node.number',
    'f:9 node.ip_port',
    'f:16 node.ip_port',
    'f:21 heartbeat.cluster',
    'f:22 heartbeat.region',
  ]);
  t.match(made.notCarried[1]?.why, /numbers nodes from 1: it is 1 now/);
  t.match(checked(t, made), { cluster: 'shared', mastery: 'peer' });
  const ports = one(OCFS2, { keepPorts: true });
  t.same(
    ports.nodes.map((n) => n.port),
    [7777, 7777],
  );
  checked(t, ports);
});

t.test('ocfs2: one cluster of several is chosen; more than seven nodes have seven votes', async (t) => {
  const two = `${OCFS2}\ncluster:\n\tname = other\n\tnode_count = 1\n\nnode:\n\tnumber = 3\n\tcluster = other\n\tip_address = 10.1.0.9\n\tname = x\n`;
  t.throws(() => one(two), /several clusters, "shared", "other": choose one with --cluster/);
  t.match(one(two, { cluster: 'other' }).nodes, [{ id: 3, name: 'x' }]);
  t.throws(() => one(two, { cluster: 'none' }), /no cluster "none"; there are "shared", "other"/);
  const many = Array.from(
    { length: 9 },
    (_, i) => `node:\n number = ${i + 1}\n cluster = big\n ip_address = 10.0.0.${i}\n name = n${i}\n`,
  ).join('');
  const made = one(`cluster:\n name = big\n node_count = 12\n${many}`);
  t.equal(made.nodes.filter((n) => n.voter).length, 7);
  t.match(made.notCarried[0], { key: 'cluster.node_count', value: '12', why: /there are 9 nodes/ });
  checked(t, made);
});

t.test('GFS 6.0: servers vote, levels keep their order, passwords stay out', async (t) => {
  const made = importTexts(ccs, options);
  t.match(made, { format: 'ccs', cluster: 'orchard', mastery: 'servers' });
  t.match(made.nodes, [
    { id: 1, name: 'pear1', host: '10.44.0.1', voter: true, fence: [['strip-a-pear1']] },
    { id: 2, name: 'pear2', host: '10.44.0.2', voter: true, fence: [['manual']] },
    { id: 3, name: 'pear3', host: '10.44.0.3', voter: true, fence: [['ilo3'], ['strip-a-pear3', 'strip-b-pear3']] },
    { id: 4, name: 'apple1', voter: false, fence: [['strip-a-apple1']] },
  ]);
  const ilo = made.methods.find((m) => m.name === 'ilo3');
  t.same(ilo?.settings, [
    ['host', '10.44.9.3'],
    ['user', 'fence'],
    ['password_file', '/etc/tsdlm/ilo3.password'],
    ['cipher', 3],
    ['privilege', 'OPERATOR'],
  ]);
  t.same(left(made), [
    'cluster.ccs:8 cluster.lock_gulm.lt_high_locks',
    'nodes.ccs:3 nodes.pear2.ip_interfaces.eth0',
    'nodes.ccs:5 nodes.apple1.fence.power.strip-a.option',
    'fence.ccs:3 fence_devices.strip-b.community',
  ]);
  const toml = tomlOf(made, 'x', '/etc/tsdlm');
  const notes = JSON.stringify(made.notCarried);
  for (const secret of SECRETS) t.notOk((toml + notes).includes(secret), 'no secret in the configuration, nor in what is said');
  t.same(
    made.secrets.filter((s) => s.name.startsWith('ilo3')).map((s) => [s.name, s.mode, s.content]),
    [['ilo3.password', 0o600, 'fourth-secret\n']],
  );
  const config = checked(t, made);
  t.match(config, { mastery: 'servers', limits: { leaseMs: 20_228 } });
  t.ok(config.limits.leaseMs + config.limits.marginMs <= 24_001, 'a silent node is over when gulm would have expired it');
});

t.test('cluster.xml: attributes, entities, node ids; unknown elements are named with all that is in them', async (t) => {
  const made = one(XML);
  t.match(made, { format: 'xml', cluster: 'orchard', mastery: 'servers' });
  t.match(made.nodes, [
    { id: 1, name: 'apple-1', host: 'apple&1', voter: false },
    { id: 7, name: 'pear1', host: 'pear1', voter: true, fence: [['strip-a-pear1']] },
  ]);
  t.same(left(made), ['f:3 cluster.config_version', 'f:13 cluster.rm.resources.ip.address']);
  checked(t, made);
  const cman = one(
    '<cluster name="c"><cman two_node="1"/><clusternodes><clusternode name="a" votes="0"/><clusternode name="b"/></clusternodes></cluster>',
  );
  t.match(cman, { mastery: 'peer', nodes: [{ voter: false }, { voter: true }] });
  t.same(left(cman), ['f:1 cluster.cman.two_node']);
  checked(t, cman);
});

t.test('two voters with fence devices do not duel: the lower number is fenced later', async (t) => {
  const node = (n: string, port: number) =>
    `<clusternode name="${n}"><fence><method name="m"><device name="d" port="${port}"/></method></fence></clusternode>`;
  const made = one(
    `<cluster name="c"><cman two_node="1"/><clusternodes>${node('a', 1)}${node('b', 2)}</clusternodes>` +
      '<fencedevices><fencedevice name="d" agent="fence_apc" ipaddr="10.0.0.1"/></fencedevices></cluster>',
  );
  t.ok((made.nodes[0]?.fenceDelayMs ?? 0) >= 1000);
  t.equal(made.nodes[1]?.fenceDelayMs, 0);
  checked(t, made);
});

t.test('times that no lease can have are named, not clamped', async (t) => {
  const made = importTexts([{ file: 'c', text: CLUSTER_CCS.replace('6.0', '1e99') }, ...ccs.slice(1)], options);
  t.equal(made.limits, null);
  t.match(made.notCarried[0], { key: 'cluster.lock_gulm.heartbeat_rate', why: /none that a lease can have/ });
  checked(t, made);
});

const deep = (open: string, n: number): string => open.repeat(n);
const BAD: [what: string, text: string, wanted: RegExp][] = [
  ['empty', '', /f:1: there is no "cluster:" stanza/],
  ['no stanza', 'name = x\n', /f:1: name stands before the first stanza/],
  ['no pair', 'cluster:\n\tname\n', /f:2: "name" is neither a stanza/],
  ['twice', 'cluster:\n name = a\n name = b\n', /f:3: name was given before in this stanza, in line 2/],
  ['a number too many', OCFS2.replace('number = 5', 'number = 0'), /f:14: number 0 was given to another node in line 7/],
  [
    'no number',
    OCFS2.replace('number = 5', 'number = five'),
    /f:14: the number of node "ora-b" must be from 0 to 254, not "five"/,
  ],
  ['a huge number', OCFS2.replace('number = 5', `number = ${'9'.repeat(4000)}`), /f:14: the number of node/],
  ['no address', OCFS2.replace('ip_address = fd00::5', 'ip_address = $(reboot)'), /f:17: node "ora-b" needs an ip_address/],
  ['a control character', OCFS2.replace('ora-b', 'ora\u001b[2Jb'), /f:18: control character U\+001b is refused/],
  ['a NUL', 'cluster:\n name = a\0b', /f:2: control character U\+0000/],
  ['a huge value', `cluster:\n name = ${'a'.repeat(5000)}`, /f:2: the value of name has more than 4096 characters/],
  ['a huge file', 'x'.repeat(2 ** 20 + 1), /f:1: 1048577 characters are more than a configuration may have/],
  ['too many lines', 'a:\n'.repeat(20_001), /f:20001: more than 20000 lines/],
  ['ccs not closed', 'cluster {\n name = "x"\n', /f:3: the section cluster of line 1 is not closed/],
  ['ccs closed twice', 'cluster { }\n}', /f:2: "}" closes no section/],
  ['ccs no value', 'cluster {\n name =\n}', /f:3: "}" where the value of "name" is expected/],
  ['ccs no sign', 'cluster {\n name "x"\n}', /f:2: "x" after "name": "=" or "{" is expected/],
  ['ccs open text', 'cluster {\n name = "x\n}', /f:2: a text in quotes does not end on its line/],
  ['ccs open list', 'cluster {\n a = ["x",', /f:2: the list "a" is not closed/],
  ['ccs key twice', 'cluster {\n a = 1\n a = 2\n}', /f:3: "a" was given before in this section, in line 2/],
  ['ccs deep', deep('a {\n', 10_000), /f:32: sections are nested deeper than 32/],
  ['ccs no nodes', CLUSTER_CCS, /there is no section nodes/],
  [
    'ccs a device that is not there',
    `${CLUSTER_CCS}${NODES_CCS}`,
    /f:\d+: node "pear1" is fenced by "strip-a", and there is no such device/,
  ],
  [
    'ccs a server that is no node',
    `${CLUSTER_CCS.replace('pear2', 'plum')}${NODES_CCS}${FENCE_CCS}`,
    /f:5: the server "plum" is none of the nodes/,
  ],
  [
    'ccs an agent that is a path',
    `${CLUSTER_CCS}${NODES_CCS}${FENCE_CCS.replace('"fence_apc" ipaddr = "10.44.9.9"', '"../../bin/sh" ipaddr = "10.44.9.9"')}`,
    /the agent of "strip-a" is "..\/..\/bin\/sh": the name of a fence agent is expected/,
  ],
  ['xml no cluster', '<x/>', /the element at the top is <x>, not <cluster>/],
  ['xml not closed', '<cluster name="a">\n<gulm>', /f:2: <gulm> of line 2 is not closed/],
  ['xml crossed', '<cluster>\n<a>\n</cluster>', /f:3: <\/cluster> where <\/a> \(line 2\) is expected/],
  ['xml two at the top', '<cluster name="a"/><x/>', /a second element at the top/],
  ['xml no quotes', '<cluster name=a/>', /the value of name must stand in quotes/],
  ['xml open quote', '<cluster name="a/>\n<b c="d"/>', /the value of name contains "<": a quote is missing/],
  ['xml attribute twice', '<cluster name="a" name="b"/>', /attribute name is given twice/],
  ['xml text', '<cluster name="a">\n hello </cluster>', /f:2: "hello" stands in <cluster>/],
  ['xml deep', deep('<a>\n', 100_000), /f:32: elements are nested deeper than 32/],
  [
    'xml an entity bomb',
    '<!DOCTYPE lolz [<!ENTITY a "ha"><!ENTITY b "&a;&a;&a;&a;">]>\n<cluster name="&b;"/>',
    /f:1: a document type .* is refused/,
  ],
  ['xml a file as entity', '<!DOCTYPE x SYSTEM "file:///etc/passwd"><cluster/>', /a document type .* is refused/],
  ['xml an unknown entity', '<cluster name="&lol;"/>', /the entity "&lol;" is refused/],
  ['xml a control character by number', '<cluster name="a&#27;b"/>', /the entity "&#27;" is refused/],
  ['xml a bare ampersand', '<cluster name="a & b"/>', /begins no entity: write &amp;/],
  ['xml CDATA', '<cluster><![CDATA[x]]></cluster>', /CDATA is refused/],
  [
    'xml many attributes',
    `<cluster ${Array.from({ length: 20_001 }, (_, i) => `a${i}="1"`).join(' ')}/>`,
    /<cluster> has more than 256 attributes/,
  ],
  ['xml many elements', `<cluster>${'<a/>'.repeat(20_001)}</cluster>`, /more than 20000 elements/],
  [
    'ccs many keys',
    `cluster {\n${Array.from({ length: 20_001 }, (_, n) => `a${n}=1`).join('\n')}\n}`,
    /f:20001: more than 20000 entries/,
  ],
];
for (const [what, text, wanted] of BAD) {
  t.test(`bad input, ${what}: refused with file and line`, async (t) => {
    const started = process.hrtime.bigint();
    try {
      one(text);
      t.fail('was taken');
    } catch (error) {
      t.ok(error instanceof TsdlmError && error.code === 'TSDLM_BAD_CONFIG', String(error));
      t.match((error as Error).message, wanted);
      t.ok((error as Error).message.length < 500);
    }
    t.ok(process.hrtime.bigint() - started < 5_000_000_000n, 'in bounded time');
  });
}

t.test('bad input: damaged files are refused or taken, and what is taken our own reader takes', async (t) => {
  const whole = [OCFS2, `${CLUSTER_CCS}${NODES_CCS}${FENCE_CCS}`, XML];
  const damage = fc.tuple(
    fc.constantFrom(...whole),
    fc.nat(2000),
    fc.nat(30),
    fc.oneof(
      fc.string({ maxLength: 8 }),
      fc.constantFrom('"', '{', '}', '\n', '=', '<', '/>', '&lt;', '#', '"]\n[[nodes]]\nname="x"'),
    ),
  );
  fc.assert(
    fc.property(damage, ([text, at, cut, put]) => {
      const from = at % text.length;
      const damaged = text.slice(0, from) + put + text.slice(from + cut);
      let made: ReturnType<typeof importTexts>;
      try {
        made = one(damaged);
      } catch (error) {
        if (error instanceof TsdlmError) return;
        throw error;
      }
      checked(t, made);
    }),
    { numRuns: 1500, seed: 20 },
  );
});

t.test('the format is seen in the text', async (t) => {
  t.equal(formatOf({ file: 'x', text: '# a\n\n  # b\ncluster:\n' }), 'ocfs2');
  t.equal(formatOf({ file: 'x', text: '\ufeff<cluster/>' }), 'xml');
  t.equal(formatOf({ file: 'x', text: '# a {\nnodes {\n' }), 'ccs');
  t.throws(() => importTexts([...ccs, { file: 'y', text: XML }], options), /cluster.ccs is ccs and y is xml/);
});

t.test('tsdlm config import: a directory, secrets in files of 0600 and never over others, --json, exit codes', async (t) => {
  const dir = mkdtempSync(join(tmpdir(), 'tsdlm-import-'));
  t.teardown(() => rmSync(dir, { recursive: true, force: true }));
  for (const { file, text } of ccs) writeFileSync(join(dir, file), text);
  const plain = await runCli(['config', 'import', dir]);
  t.equal(plain.code, 0);
  t.match(plain.stdout, /mastery = "servers"/);
  t.match(plain.stderr, /not carried over: .*fence.ccs:3: fence_devices.strip-b.community = \(not shown\)/);
  t.match(plain.stderr, /to be made: \/etc\/tsdlm\/ilo3.password \(0600\)/);
  for (const secret of SECRETS) t.notOk((plain.stdout + plain.stderr).includes(secret));
  const secrets = join(dir, 'secrets');
  const args = ['config', 'import', dir, '--secrets-dir', secrets, '--write-secrets', '-o', join(dir, 'tsdlm.toml')];
  const made = await runCli(args);
  t.equal(made.code, 0, made.stderr);
  t.equal(made.stdout, '');
  t.equal(statSync(join(secrets, 'ilo3.password')).mode & 0o777, 0o600);
  t.equal(statSync(join(secrets, 'strip-a-pear1.password-script')).mode & 0o777, 0o700);
  t.match(readFileSync(join(secrets, 'cluster.key'), 'utf8'), /^[0-9a-f]{64}\n$/);
  t.match(loadConfig({ file: join(dir, 'tsdlm.toml'), hostname: 'pear3', env: {} }), { self: { id: 3 } });
  const again = await runCli(args);
  t.equal(again.code, 64);
  t.match(again.stderr, /cluster.key cannot be written: EEXIST/);
  const json = await runCli(['--json', 'config', 'import', dir]);
  t.match(JSON.parse(json.stdout), { format: 'ccs', notCarried: Array, files: Array, toml: String });
  for (const secret of SECRETS) t.notOk(json.stdout.includes(secret));
  writeFileSync(join(dir, 'bad.xml'), '<cluster>\n<a>');
  const bad = await runCli(['config', 'import', join(dir, 'bad.xml')]);
  t.equal(bad.code, 78);
  t.match(bad.stderr, /bad.xml:2: <a> of line 2 is not closed.*TSDLM_BAD_CONFIG/);
  t.equal((await runCli(['config', 'import', join(dir, 'none')])).code, 78);
  t.equal((await runCli(['config', 'import', dir, '--secrets-dir', 'here'])).code, 64);
});
