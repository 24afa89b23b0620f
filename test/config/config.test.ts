import { chmodSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { type ConfigSource, configChecksum, loadConfig, votersOf } from '../../src/node/config.js';
import type { TsdlmError } from '../../src/protocol/errors.js';
import { tempDir } from '../fixtures/journal.js';

const HOME = { HOME: '/home/u' };
const KEY = 'key = "0123456789abcdef0123"';
const NODES = '[[nodes]]\nname = "n1"\nid = 1\nhost = "10.0.0.1"\n[[nodes]]\nname = "n2"\nid = 2\nhost = "10.0.0.2"\n';

const load = (text: string, more: Partial<ConfigSource> = {}) =>
  loadConfig({ text, file: 'tsdlm.toml', env: HOME, uid: 1000, hostname: 'n1', ...more });

/** The complaint lines of a configuration that must be refused. */
function complaints(text: string, more: Partial<ConfigSource> = {}): string[] {
  try {
    load(text, more);
  } catch (error) {
    if ((error as TsdlmError).code !== 'TSDLM_BAD_CONFIG') throw error;
    return (error as Error).message.split('\n');
  }
  return ['accepted'];
}

t.test('without a file: a cluster of one, by the environment', async (t) => {
  const root = loadConfig({ env: {}, uid: 0, hostname: 'box' });
  t.match(root, {
    cluster: 'local',
    stateDir: '/var/lib/tsdlm',
    socket: '/run/tsdlm/tsdlmd.sock',
    listen: null,
    key: null,
    tls: true,
  });
  t.match(root.self, { id: 1, name: 'box', voter: true, fence: [['self']] });
  t.equal(root.nodes.length, 1);
  t.equal(root.socketMode, 0o660);
  t.equal(root.nodeOwnedAllowed, false, 'rule 2: self alone does not allow node-owned locks');
  t.match(loadConfig({ env: { HOME: '/home/u' }, uid: 1000, hostname: 'box' }), {
    stateDir: '/home/u/.local/state/tsdlm',
    socket: '/tmp/tsdlm-1000/tsdlmd.sock',
  });
  t.match(loadConfig({ env: { XDG_STATE_HOME: '/s', XDG_RUNTIME_DIR: '/r' }, uid: 1000, hostname: 'box' }), {
    stateDir: '/s/tsdlm',
    socket: '/r/tsdlm/tsdlmd.sock',
  });
  t.match(loadConfig({ env: { STATE_DIRECTORY: '/a:/b', RUNTIME_DIRECTORY: '/c' }, uid: 1000, hostname: 'box' }), {
    stateDir: '/a',
    socket: '/c/tsdlmd.sock',
  });
  t.match(loadConfig({ env: { TSDLM_SOCKET: '/x.sock' }, uid: 0, hostname: '' }), { socket: '/x.sock', self: { name: 'node1' } });
  const o = loadConfig({
    env: {},
    uid: 0,
    hostname: 'box',
    overrides: { node: 'me', stateDir: '/o', socket: '/o.sock', logLevel: 'debug' },
  });
  t.match(o, { self: { name: 'me' }, stateDir: '/o', socket: '/o.sock', logLevel: 'debug' });
});

t.test('a cluster of several: this node by name, by option, by host name', async (t) => {
  const text = `cluster = "c"\n${KEY}\n${NODES}`;
  const config = load(text);
  t.equal(config.self.id, 1);
  t.same(config.listen, { host: '10.0.0.1', port: 7719 });
  t.same(votersOf(config.nodes), [1, 2]);
  t.match(config.warnings, [/two voters/]);
  t.equal(load(text, { hostname: 'n2.example.org' }).self.id, 2);
  t.equal(load(`node = "n2"\n${text}`).self.id, 2);
  t.equal(load(`node = "n2"\n${text}`, { overrides: { node: 'n1' } }).self.id, 1);
  t.match(complaints(text, { hostname: 'elsewhere' }), [/which node is this\? None of n1, n2 .*--node NAME/]);
  t.match(complaints(`node = "n3"\n${text}`), [/^tsdlm.toml:1: node "n3" is not one of the \[\[nodes\]\]: n1, n2/]);
});

t.test('listen may differ from the address the others use', async (t) => {
  const text = `cluster = "c"\n${KEY}\n${NODES}`;
  t.same(load(`listen = "0.0.0.0:99"\n${text}`).listen, { host: '0.0.0.0', port: 99 });
  t.same(load(`listen = "[::]:99"\n${text}`).listen, { host: '::', port: 99 });
  t.same(load(`listen = "99"\n${text}`).listen, { host: '10.0.0.1', port: 99 });
  t.match(complaints(`listen = "::1"\n${text}`), [/tsdlm.toml:1: listen = "::1" must be HOST:PORT/]);
});

t.test('an unknown key is named with its line and the nearest known one', async (t) => {
  t.match(complaints('\ncluster = "c"\nscoket = "/x"'), [/^tsdlm.toml:3: unknown key "scoket"; did you mean "socket"\?$/]);
  t.match(complaints('[limits]\nlease = 3000'), [/^tsdlm.toml:2: unknown key "limits.lease"; did you mean "lease_ms"\?/]);
  t.match(complaints('zzzzzzzzzzzzzzzzzzzzzzzz = 1'), [/unknown key .*known here: boot_id_file, cluster, domains, fence/]);
  t.match(complaints('[[nodes]]\nname = "n1"\nid = 1\nhots = "x"'), [
    /^tsdlm.toml:4: unknown key "nodes.hots"; did you mean "host"/,
  ]);
});

t.test('a value of the wrong kind or out of range is named with its line and what is allowed', async (t) => {
  const cases: [string, RegExp][] = [
    ['[limits]\nheartbeat_ms = 5', /^tsdlm.toml:2: limits.heartbeat_ms = 5 must be a whole number from 20 to 60000 milliseconds/],
    ['[limits]\nheartbeat_ms = "fast"', /:2: limits.heartbeat_ms = "fast" must be a whole number/],
    ['[limits]\nlease_ms = 1.5', /:2: limits.lease_ms = 1.5 must be a whole number/],
    ['limits = 3', /:1: limits = 3 must be a table: write \[limits\]/],
    ['tls = "yes"', /:1: tls = "yes" must be true or false/],
    ['log_level = "wran"', /:1: log_level = "wran" must be one of .*did you mean "warn"/],
    ['socket_mode = "rw"', /socket_mode = "rw" must be permissions in octal/],
    ['socket_mode = 660', /socket_mode = 660 must be permissions in octal/],
    ['state_dir = "here"', /state_dir = "here" must be an absolute path/],
    ['cluster = "a b"', /cluster = "a b" must be a name/],
    ['machine_id = "x"', /32 hexadecimal digits/],
    ['nodes = 3', /nodes = 3 must be a list of tables: write \[\[nodes\]\]/],
    ['[[nodes]]\nname = "a"\nid = 300\nhost = "h"', /:3: nodes.id = 300 must be a whole number from 1 to 254/],
    ['[[nodes]]\nid = 1\nhost = "h"', /:1: this node has no name/],
    ['[domains.x]\nmastery = "pear"', /:2: domains.x.mastery = "pear" must be one of "peer", "servers"; did you mean "peer"\?/],
    ['cluster = 1979-05-27', /cluster = .* must be a name/],
    [`cluster = ["${'x'}"]`, /cluster = a list must be a name/],
  ];
  for (const [text, wanted] of cases) t.match(complaints(text)[0], wanted, text);
});

t.test('rule 24: time limits that do not fit together are refused at the line of the one to change', async (t) => {
  t.match(complaints('cluster = "c"\n[limits]\nheartbeat_ms = 1000\nlease_ms = 2000'), [
    /^tsdlm.toml:4: limits: lease 2000 ms must be at least 6 heartbeats/,
  ]);
  t.match(complaints('[limits]\nelection_ms = 100'), [/^tsdlm.toml:2: limits: election 100 ms must be at least 2 heartbeats/]);
  t.match(complaints('[limits]\nsuspect_ms = 3000\ndead_ms = 1000'), [
    /^tsdlm.toml:3: limits: dead_after 1000 ms must not be below/,
  ]);
  t.equal(load('[limits]\nheartbeat_ms = 100').limits.leaseMs, 1200);
});

t.test('nodes: ids and names once, at least one voter, at most seven', async (t) => {
  const one = (name: string, id: number, more = ''): string => `[[nodes]]\nname = "${name}"\nid = ${id}\nhost = "h"\n${more}\n`;
  const head = `cluster = "c"\n${KEY}\n`;
  t.match(complaints(head + one('n1', 1) + one('n2', 1)), [/^tsdlm.toml:10: id 1 is already taken at tsdlm.toml:5/]);
  t.match(complaints(head + one('n1', 1) + one('n1', 2)), [/name "n1" is already taken at tsdlm.toml:4/]);
  t.match(complaints(head + one('n1', 1, 'voter = false')), [/no node votes/]);
  const eight = [1, 2, 3, 4, 5, 6, 7, 8].map((id) => one(`n${id}`, id)).join('');
  t.match(complaints(head + eight), [/8 nodes vote, the most is 7/]);
  t.match(complaints(`${head}${one('n1', 1)}[[nodes]]\nname = "n2"\nid = 2`), [/this node has no host/]);
});

t.test('several nodes need a cluster name and a key', async (t) => {
  t.match(complaints(NODES), [/cluster is missing/, /key_file is missing: .*openssl rand/]);
});

t.test('S6: a key that others can read, is too short or missing is refused; its text is never shown', async (t) => {
  const uid = process.getuid?.() ?? 0;
  const dir = tempDir(t);
  const keyFile = join(dir, 'cluster.key');
  writeFileSync(keyFile, 'a-secret-of-enough-characters\n', { mode: 0o600 });
  const file = join(dir, 'tsdlm.toml');
  writeFileSync(file, `cluster = "c"\nkey_file = "cluster.key"\n${NODES}`, { mode: 0o644 });
  const source = { file, env: HOME, uid, hostname: 'n1' };
  t.same(loadConfig(source).key, Buffer.from('a-secret-of-enough-characters'), 'relative to the configuration');
  chmodSync(keyFile, 0o640);
  t.throws(() => loadConfig(source), {
    code: 'TSDLM_BAD_CONFIG',
    message: /tsdlm.toml:2: key_file .*mode 0640\): run chmod 600/,
  });
  chmodSync(keyFile, 0o600);
  if (uid !== 0) t.throws(() => loadConfig({ ...source, uid: uid + 7 }), { message: /belongs to user/ });
  writeFileSync(keyFile, 'short');
  t.throws(() => loadConfig(source), { message: /must hold text of 16 to/ });
  writeFileSync(file, `cluster = "c"\nkey_file = "none.key"\n${NODES}`);
  t.throws(() => loadConfig(source), { message: /none.key cannot be read: ENOENT/ });
  writeFileSync(file, `cluster = "c"\n${KEY}\n${NODES}`);
  t.throws(() => loadConfig(source), { message: /:2: this file holds the key and can be read by others/ });
  chmodSync(file, 0o600);
  t.equal(String(loadConfig(source).key), '0123456789abcdef0123');
  const [line] = complaints(`cluster = "c"\nkey = "tooshort"\n${NODES}`);
  t.match(line, /:2: key must be text of 16/);
  t.notMatch(line, /tooshort/);
  t.match(complaints(`${KEY}\nkey_file = "x"`), [/both given/]);
});

t.test('fence methods: defined, runnable, and used as levels', async (t) => {
  const dir = tempDir(t);
  const script = join(dir, 'off.sh');
  writeFileSync(script, '#!/bin/sh\nexit 0\n', { mode: 0o755 });
  const method = `[fence.power]\ntype = "script"\ncommand = ["${script}", "-x"]\n`;
  const node = (fence: string): string => `[[nodes]]\nname = "n1"\nid = 1\nhost = "h"\nfence = ${fence}\n`;
  const good = load(node('[["power"], ["self"]]') + method);
  t.same(good.self.fence, [['power'], ['self']]);
  t.same(good.fenceMethods.get('power'), {
    name: 'power',
    type: 'script',
    command: [script, '-x'],
    timeoutMs: 60_000,
    options: {},
  });
  t.equal(good.nodeOwnedAllowed, true, 'rule 2: a level that ends the machine allows node-owned locks');
  t.equal(load(node('[["self"]]')).nodeOwnedAllowed, false);
  const unsafe = load(`unsafe_node_owned = true\n${node('[["self"]]')}`);
  t.equal(unsafe.nodeOwnedAllowed, true);
  t.match(unsafe.warnings.join(), /unsafe_node_owned/);
  t.match(load(method).warnings, [/"power" is used by no node/]);
  t.match(load(`${method}[fence.power.options]\nip = "10.1.1.1"`).fenceMethods.get('power'), { options: { ip: '10.1.1.1' } });

  const cases: [string, RegExp][] = [
    [node('[["pwoer"]]') + method, /^tsdlm.toml:5: fence method "pwoer" is not defined; did you mean "power"\?/],
    [node('[["nothing-near"]]'), /define it with \[fence.nothing-near\]/],
    [node('["power"]') + method, /:5: nodes.fence = "power" must be a list of levels/],
    [node('[]'), /list of levels/],
    [node('[[]]'), /list of levels/],
    [node('[["power", "self"]]') + method, /"self" must stand alone/],
    ['[fence.p]\ncommand = ["/bin/true"]', /:1: fence.p has no type/],
    ['[fence.p]\ntype = "script"', /:1: fence.p has no command/],
    [
      '[fence.p]\ntype = "scirpt"\ncommand = ["/bin/true"]',
      /:2: fence.p.type = "scirpt" must be one of "script", "ipmi", "agent"; did you mean "script"/,
    ],
    ['[fence.p]\ntype = "script"\ncommand = ["true"]', /must begin with the absolute path/],
    ['[fence.p]\ntype = "script"\ncommand = ["/no/such/thing"]', /:3: command \/no\/such\/thing cannot be run: ENOENT/],
    ['[fence.p]\ntype = "script"\ncommand = ["/etc/passwd"]', /cannot be run: EACCES/],
    ['[fence.p]\ntype = "script"\ncommand = []', /absolute path/],
    ['[fence.p]\ntype = "script"\ncommand = "/bin/true"', /must be a list of at most 100 texts/],
    ['[fence.p]\ntype = "script"\ncommand = ["/bin/true"]\ntimeout_ms = 5', /timeout_ms = 5 must be a whole number from 100/],
    ['[fence.self]\ntype = "script"\ncommand = ["/bin/true"]', /fence.self is built in/],
    [`${method}[fence.power.options]\naction = "on"`, /option "action" is set by tsdlmd itself/],
  ];
  for (const [text, wanted] of cases) t.match(complaints(text)[0], wanted, text);
  chmodSync(script, 0o777);
  t.match(complaints(method), [/can be changed by anybody: run chmod o-w/]);
});

t.test('fence methods ipmi, agent and manual: what they need, in the file and beside it', async (t) => {
  const dir = tempDir(t);
  const password = join(dir, 'bmc.password');
  writeFileSync(password, 'S3cretPw\n', { mode: 0o600 });
  const uid = process.getuid?.() ?? 0;
  const ipmi = `[fence.bmc]\ntype = "ipmi"\nhost = "10.0.1.1"\nuser = "fence"\npassword_file = "${password}"\n`;
  t.same(load(ipmi).fenceMethods.get('bmc'), {
    name: 'bmc',
    type: 'ipmi',
    host: '10.0.1.1',
    port: 623,
    user: 'fence',
    passwordFile: password,
    cipher: null,
    privilege: '',
    timeoutMs: 60_000,
    powerOn: true,
    program: 'ipmitool',
  });
  t.match(
    load(`${ipmi}port = 9623\ncipher = 17\nprivilege = "OPERATOR"\npower_on = false\ntimeout_ms = 9000`).fenceMethods.get('bmc'),
    {
      port: 9623,
      cipher: 17,
      privilege: 'OPERATOR',
      powerOn: false,
      timeoutMs: 9000,
    },
  );
  const agent =
    '[fence.pdu]\ntype = "agent"\nprogram = "/no/such/yet"\nplug = "7"\n[fence.pdu.options]\nip = "h"\npassword = "OutletPw"\n';
  t.match(load(agent).fenceMethods.get('pdu'), { type: 'agent', program: '/no/such/yet', plug: '7', options: { ip: 'h' } });
  const node = (fence: string): string => `[[nodes]]\nname = "n1"\nid = 1\nhost = "h"\nfence = ${fence}\n`;
  const manual = load(node('[["bmc"], ["manual"]]') + ipmi);
  t.same(manual.self.fence, [['bmc'], ['manual']]);
  t.equal(manual.nodeOwnedAllowed, true);
  t.equal(load('').fenceMonitorMs, 60_000);
  t.equal(load('fence_monitor_ms = 0').fenceMonitorMs, 0);

  chmodSync(password, 0o640);
  const exposed = complaints(ipmi)[0] ?? '';
  chmodSync(password, 0o600);
  t.match(exposed, /:5: password_file .*can be read by others \(mode 0640\): run chmod 600/);
  const cases: [string, RegExp][] = [
    [node('[["bmc", "manual"]]') + ipmi, /:5: fence: "manual" must stand alone/],
    ['[fence.manual]\ntype = "script"\ncommand = ["/bin/true"]', /fence.manual is built in/],
    ['[fence.b]\ntype = "ipmi"\nuser = "u"\nhost = "h"', /:1: fence.b has no password_file: write password_file = /],
    [ipmi.replace('10.0.1.1', '-oProxy'), /:3: fence.bmc.host = "-oProxy" must be a host name .* not beginning with "-"/],
    [ipmi.replace('10.0.1.1', 'a b'), /host = "a b" must be/],
    [ipmi.replace('"fence"', '"-f"'), /:4: fence.bmc.user = "-f" must be/],
    [ipmi.replace(password, '/no/such/file'), /password_file \/no\/such\/file cannot be read/],
    [`${ipmi}privilege = "operator"`, /must be one of "USER", "OPERATOR", "ADMINISTRATOR"; did you mean "OPERATOR"/],
    [`${ipmi}program = "impitool"`, /:6: program "impitool" must be an absolute path, or "ipmitool"/],
    [`${ipmi}password = "x"`, /unknown key "fence.bmc.password"/],
    ['[fence.p]\ntype = "agent"', /fence.p has no program/],
    ['[fence.p]\ntype = "agent"\nprogram = "fence_apc"', /:3: program "fence_apc" must be an absolute path/],
    [`${agent}plug = "8"`, /option "plug" is set by tsdlmd itself/],
  ];
  for (const [text, wanted] of cases) t.match(complaints(text)[0], wanted, text);

  const file = join(dir, 'tsdlm.toml');
  writeFileSync(file, agent, { mode: 0o644 });
  const read = (): unknown => loadConfig({ file, hostname: 'x', env: {}, uid });
  t.throws(read, { message: /tsdlm.toml:5: this file holds the option "password" of fence.pdu and can be read by others/ });
  chmodSync(file, 0o600);
  t.doesNotThrow(read);
});

t.test('what is not TOML is refused with its line', async (t) => {
  t.match(complaints('cluster = "c"\nsocket = '), [/^tsdlm.toml:2: not valid TOML/]);
  t.match(complaints('cluster = "c"\ncluster = "d"'), [/^tsdlm.toml:2: not valid TOML: .*multiple times/]);
  t.match(complaints('[[['), [/^tsdlm.toml:1: not valid TOML/]);
  t.match(complaints('\u0000'), [/^tsdlm.toml:1: /]);
  t.match(complaints('#'.repeat(2_000_000)), [/2000000 characters are more/]);
  t.throws(() => loadConfig({ file: '/no/such/file' }), { code: 'TSDLM_BAD_CONFIG', message: /\/no\/such\/file cannot be read/ });
});

t.test('all mistakes are told at once, in the order of the file', async (t) => {
  const lines = complaints('tls = 1\nlog_level = 2\nfoo = 3\n[limits]\nlease_ms = 1\n');
  t.same(
    lines.map((l) => l.split(': ')[0]),
    ['tsdlm.toml:1', 'tsdlm.toml:2', 'tsdlm.toml:3', 'tsdlm.toml:5'],
  );
});

t.test('the checksum covers what must agree and nothing else', async (t) => {
  const base = `cluster = "c"\n${KEY}\n${NODES}`;
  const sum = (text: string, more: Partial<ConfigSource> = {}): string => configChecksum(load(text, more));
  const same = sum(base);
  t.match(same, /^[0-9a-f]{64}$/);
  t.equal(sum(base, { hostname: 'n2' }), same, 'another node');
  t.equal(sum(`socket = "/x"\nstate_dir = "/y"\ntls = false\n${base}`), same, 'paths');
  t.equal(sum(base.replace('0123', '9999')), same, 'the key');
  t.equal(sum(`${base}[limits]\nheartbeat_ms = 300`), same, 'time limits are compared by themselves');
  t.equal(sum(base.replace('10.0.0.2', '10.9.9.9')), same, 'addresses may differ');
  t.not(sum(base.replace('"c"', '"d"')), same, 'cluster');
  t.not(sum(`${base}voter = false`), same, 'votes');
  t.not(sum(base.replace('id = 2', 'id = 3')), same, 'ids');
  t.not(sum(base.replaceAll('n2', 'n3')), same, 'names');
  t.not(sum(`${base}[domains.web]\nmastery = "peer"`), same, 'domains');
  t.not(sum(`mastery = "servers"\n${base}`), same, 'who masters');
});

t.test('the examples parse', async (t) => {
  const dir = tempDir(t);
  const key = join(dir, 'cluster.key');
  writeFileSync(key, 'a-secret-of-enough-characters\n', { mode: 0o600 });
  const text = readFileSync('examples/three-nodes.toml', 'utf8').replaceAll('/etc/tsdlm/cluster.key', key);
  const config = loadConfig({ text, file: 'examples/three-nodes.toml', hostname: 'n2', env: {}, uid: process.getuid?.() ?? 0 });
  t.match(config, { cluster: 'web', self: { id: 2 }, listen: { host: '10.0.0.2', port: 7719 } });
  t.same(config.warnings, []);
  const withFence = text
    .replace(/^# (fence|\[fence|type|timeout_ms)/gm, '$1')
    .replace(/^# command = .*/m, 'command = ["/bin/true"]');
  t.same(loadConfig({ text: withFence, hostname: 'n1', env: {}, uid: process.getuid?.() ?? 0 }).nodes[2]?.fence, [
    ['power'],
    ['self'],
  ]);
  const fencing = readFileSync('examples/fencing.toml', 'utf8')
    .replaceAll('/etc/tsdlm/cluster.key', key)
    .replaceAll('/etc/tsdlm/bmc.password', key);
  const devices = loadConfig({ text: fencing, hostname: 'n3', env: {}, uid: process.getuid?.() ?? 0 });
  t.same(devices.self.fence, [['outlet-a', 'outlet-b'], ['manual']]);
  t.same(devices.warnings, []);
  const servers = readFileSync('examples/lock-servers.toml', 'utf8').replaceAll('/etc/tsdlm/cluster.key', key);
  const gulm = loadConfig({ text: servers, hostname: 'web1', env: {}, uid: process.getuid?.() ?? 0 });
  t.match(gulm, { mastery: 'servers', self: { voter: false } });
  t.same(gulm.warnings, []);
  t.match(loadConfig({ file: 'examples/one-node.toml', hostname: 'x', env: {}, uid: 0 }), {
    cluster: 'lab',
    stateDir: '/srv/tsdlm',
  });
});

t.test('[files]: where mounts connect, loopback only, and only where a lost lease does not free them (rule 2)', (t) => {
  const one = loadConfig({ env: {}, uid: 0, hostname: 'box' });
  t.match(one.files, { socket: '/run/tsdlm/9p.sock', listen: null });
  t.equal(one.filesAllowed, true, 'a cluster of one');
  const load = (text: string): ReturnType<typeof loadConfig> => loadConfig({ text, env: {}, uid: 0, hostname: 'box' });
  t.match(load('[files]\nsocket = "/x/9p"\nsocket_mode = "0600"\nlisten = "127.0.0.1:5640"\n').files, {
    socket: '/x/9p',
    mode: 0o600,
    listen: { host: '127.0.0.1', port: 5640 },
  });
  t.match(load('[files]\nenabled = false\n').files, { socket: null, listen: null });
  t.throws(() => load('[files]\nlisten = "0.0.0.0:5640"\n'), /loopback address/);
  t.throws(() => load('[files]\nlisten = "127.0.0.1:70000"\n'), /loopback address/);
  t.throws(() => load('[files]\nsocket = "here"\n'), /absolute path/);
  const nodes = (fence: string): string =>
    `cluster = "c"\nkey = "0123456789abcdef"\n[[nodes]]\nname = "box"\nid = 1\nhost = "a"\nfence = ${fence}\n[[nodes]]\nname = "b"\nid = 2\nhost = "b"\n`;
  const self = load(nodes('[["self"]]'));
  t.equal(self.filesAllowed, false);
  t.throws(() => load(`${nodes('[["self"]]')}[files]\n`), /files cannot be mounted from this node.*unsafe_node_owned/);
  t.equal(load(`${nodes('[["manual"]]')}[files]\n`).filesAllowed, true);
  t.end();
});

t.test('a bridged domain names where the kernel has its dlmfs; a node has only one', (t) => {
  const one = loadConfig({ text: '[domains.web]\nbridge = "/dlm"\n[domains.other]\n', hostname: 'x', env: {}, uid: 0 });
  t.equal(one.domains.get('web')?.bridge, '/dlm');
  t.equal(one.domains.get('other')?.bridge, '');
  const bad = (text: string, message: RegExp): void => {
    t.throws(() => loadConfig({ text, hostname: 'x', env: {}, uid: 0 }), { code: 'TSDLM_BAD_CONFIG', message });
  };
  bad('[domains.web]\nbridge = "dlm"\n', /bridge.*such as "\/dlm"/);
  bad('[domains.a]\nbridge = "/dlm"\n[domains.b]\nbridge = "/dlm2"\n', /:4: bridge = "\/dlm2".*one kernel/);
  const plain = loadConfig({ text: '[domains.web]\n', hostname: 'x', env: {}, uid: 0 });
  t.not(configChecksum(one), configChecksum(plain), 'all nodes must agree');
  t.end();
});
