/**
 * A GFS cluster with lock_gulmd in our terms, from the three `.ccs` files of GFS 6.0 or from cluster.xml: the lock servers become the
 * voters, `mastery = "servers"`. A cluster.xml without <gulm> (cman, fs/dlm) becomes a cluster of peers.
 */

import { deriveTimeLimits } from '../membership/time-limits.js';
import { NODE_MAX } from '../protocol/ids.js';
import { VOTERS_MAX } from '../protocol/limits.js';
import { type FenceDevice, FenceMethods, type FenceUse } from './gulm-fence.js';
import { giveVotes, type Imported, type ImportedNode, notTaken, usableName } from './result.js';
import { type Entry, leave, lineOf, sections, shown, takeText, wrong } from './tree.js';

const PORTS = 'tsdlmd has one port for all, 7719 (listen, or port of a node)';
const POOL = 'tsdlm takes memory as it needs it';
const REASONS: Readonly<Record<string, string>> = {
  config_version: 'tsdlm compares a checksum of the configuration instead of a version',
  new_connection_timeout: 'fixed in tsdlm',
  master_scan_delay: 'the leader is elected by the voters, nobody scans for it',
  coreport: PORTS,
  ltpxport: PORTS,
  ltport: PORTS,
  lt_partitions: 'each name is given to a server by a hash: there are no lock tables to split',
  lt_high_locks: 'tsdlm asks nobody to drop locks: unused ones are forgotten after a while',
  lt_drop_req_rate: 'tsdlm asks nobody to drop locks: unused ones are forgotten after a while',
  prealloc_locks: POOL,
  prealloc_holders: POOL,
  prealloc_lkrqs: POOL,
  fence_bin: 'fence methods are part of the configuration ([fence.NAME])',
  run_as: 'the service manager decides that',
  lock_dir: 'the journal has the place: state_dir',
  verbosity: 'log_level is the nearest: debug, info, warn or error',
  rm: 'tsdlm manages no resources',
  two_node: 'see two nodes in tsdlm.conf(5)',
  expected_votes: 'a majority of the voters decides',
  votes: 'a voter has one vote',
};

const GULM_HEARTBEAT_S = 15;
const GULM_MISSES = 2;

interface Source {
  roots: Entry[];
  cluster: Entry;
  name: string;
  /** Section with gulm's options; null: another lock manager. */
  gulm: Entry | null;
  servers: { text: string; entry: Entry }[];
  nodes: { entry: Entry; name: string; host: string; id: number | null; hasNoVote: boolean; fence: FenceUse[][] }[];
  devices: Map<string, FenceDevice>;
}

/** From `.ccs` files, all of which are given together. Throws TSDLM_BAD_CONFIG with file and line. */
export function fromCcs(roots: Entry[], secretsDir: string): Imported {
  const top = (key: string): Entry[] => roots.flatMap((r) => sections(r, key));
  const one = (key: string): Entry | null => {
    const [first, second] = top(key);
    if (second)
      throw wrong(second.file, second.line, `there is a second section ${key}; the first is at ${first?.file}:${first?.line}`);
    return first ?? null;
  };
  const cluster = one('cluster');
  const nodes = one('nodes');
  const devices = one('fence_devices');
  const file = roots[0]?.file ?? '';
  if (!cluster) throw wrong(file, 1, 'there is no section cluster { ... }: give all three files, or their directory');
  if (!nodes) throw wrong(file, 1, 'there is no section nodes { ... }: give all three files, or their directory');
  const name = takeText(cluster, 'name');
  if (!name) throw wrong(cluster.file, cluster.line, 'the cluster has no name');
  const gulm = sections(cluster, 'lock_gulm')[0] ?? null;
  const servers = gulm?.children.find((c) => c.key === 'servers') ?? null;
  if (servers) servers.isTaken = true;
  return convert(
    {
      roots,
      cluster,
      name,
      gulm,
      servers: (servers?.list ?? (servers?.text ? [servers.text] : [])).map((text) => ({ text, entry: servers as Entry })),
      nodes: nodes.children.filter((n) => n.text === null && n.list === null).map(ccsNode),
      devices: new Map(
        (devices?.children ?? [])
          .filter((d) => d.text === null && d.list === null)
          .map((d) => {
            d.isTaken = true;
            const agent = takeText(d, 'agent');
            if (agent === undefined) throw wrong(d.file, d.line, `device ${shown(d.key)} has no agent`);
            return [d.key, { entry: d, agent, parameters: d.children.filter((c) => c.key !== 'agent' && c.text !== null) }];
          }),
      ),
    },
    secretsDir,
  );
}

function ccsNode(n: Entry): Source['nodes'][number] {
  n.isTaken = true;
  const interfaces = sections(n, 'ip_interfaces')[0];
  const used = takeText(n, 'usedev');
  const address = interfaces?.children.find((c) => c.text !== null && (used === undefined || c.key === used));
  if (used !== undefined && !address)
    throw wrong(n.file, lineOf(n, 'usedev'), `node ${shown(n.key)} has no interface ${shown(used)}`);
  for (const c of interfaces?.children ?? []) c.why = 'a node has one address in tsdlm';
  if (address) address.isTaken = true;
  const fence = sections(n, 'fence')[0];
  return {
    entry: n,
    name: n.key,
    host: address?.text ?? n.key,
    id: null,
    hasNoVote: false,
    fence: (fence?.children ?? []).map((method) => {
      method.isTaken = true;
      return method.children
        .filter((d) => d.text === null && d.list === null)
        .map((d) => {
          d.isTaken = true;
          return { device: d, name: d.key, parameters: d.children.filter((c) => c.text !== null) };
        });
    }),
  };
}

/** From cluster.xml. Throws TSDLM_BAD_CONFIG with file and line. */
export function fromXml(root: Entry, secretsDir: string): Imported {
  const cluster = sections(root, 'cluster')[0];
  if (!cluster)
    throw wrong(
      root.file,
      root.children[0]?.line ?? 1,
      `the element at the top is <${root.children[0]?.key ?? ''}>, not <cluster>`,
    );
  const name = takeText(cluster, 'name');
  if (!name) throw wrong(cluster.file, cluster.line, '<cluster> has no name');
  const gulm = sections(cluster, 'gulm')[0] ?? null;
  const servers = (gulm ? sections(gulm, 'lockserver') : []).map((s) => {
    const text = takeText(s, 'name');
    if (text === undefined) throw wrong(s.file, s.line, '<lockserver> has no name');
    return { text, entry: s };
  });
  const devices = new Map<string, FenceDevice>();
  for (const list of sections(cluster, 'fencedevices')) {
    for (const d of sections(list, 'fencedevice')) {
      const device = takeText(d, 'name');
      const agent = takeText(d, 'agent');
      if (device === undefined || agent === undefined) throw wrong(d.file, d.line, '<fencedevice> needs a name and an agent');
      if (devices.has(device)) throw wrong(d.file, d.line, `there are two fence devices ${shown(device)}`);
      devices.set(device, {
        entry: d,
        agent,
        parameters: d.children.filter((c) => c.text !== null && c.key !== 'name' && c.key !== 'agent'),
      });
    }
  }
  const nodes = sections(cluster, 'clusternodes')
    .flatMap((list) => sections(list, 'clusternode'))
    .map(xmlNode);
  return convert({ roots: [root], cluster, name, gulm, servers, nodes, devices }, secretsDir);
}

function xmlNode(n: Entry): Source['nodes'][number] {
  const name = takeText(n, 'name');
  if (!name) throw wrong(n.file, n.line, '<clusternode> has no name');
  const id = takeText(n, 'nodeid');
  if (id !== undefined && (!/^[0-9]{1,3}$/.test(id) || Number(id) < 1 || Number(id) > NODE_MAX)) {
    throw wrong(n.file, lineOf(n, 'nodeid'), `nodeid ${shown(id)} of ${shown(name)} must be from 1 to ${NODE_MAX}`);
  }
  const votes = n.children.find((c) => c.key === 'votes');
  if (votes && (votes.text === '0' || votes.text === '1')) votes.isTaken = true;
  const fence = sections(n, 'fence').flatMap((f) => sections(f, 'method'));
  return {
    entry: n,
    name,
    host: name,
    id: id === undefined ? null : Number(id),
    hasNoVote: votes?.text === '0',
    fence: fence.map((m) => {
      takeText(m, 'name');
      return sections(m, 'device').map((d) => {
        const device = takeText(d, 'name');
        if (device === undefined) throw wrong(d.file, d.line, '<device> has no name');
        return { device: d, name: device, parameters: d.children.filter((c) => c.text !== null && c.key !== 'name') };
      });
    }),
  };
}

function convert(source: Source, secretsDir: string): Imported {
  const { roots, cluster, gulm } = source;
  if (source.nodes.length === 0) throw wrong(cluster.file, cluster.line, 'there are no nodes');
  if (source.nodes.length > NODE_MAX)
    throw wrong(cluster.file, cluster.line, `${source.nodes.length} nodes are more than tsdlm has numbers for (${NODE_MAX})`);
  const methods = new FenceMethods(source.devices, secretsDir);
  const used = new Set<string>();
  const ids = new Set(source.nodes.flatMap((n) => (n.id === null ? [] : [n.id])));
  if (ids.size < source.nodes.filter((n) => n.id !== null).length) {
    throw wrong(cluster.file, cluster.line, 'two nodes have the same nodeid');
  }
  const byName = new Map<string, ImportedNode>();
  const nodes: ImportedNode[] = [];
  let next = 1;
  for (const n of source.nodes) {
    if (byName.has(n.name)) throw wrong(n.entry.file, n.entry.line, `there are two nodes ${shown(n.name)}`);
    if (!/^[^\s[\]]{1,255}$/.test(n.host)) throw wrong(n.entry.file, n.entry.line, `${shown(n.host)} is no host name or address`);
    while (ids.has(next)) next++;
    const id = n.id ?? next++;
    ids.add(id);
    const name = usableName(n.name, used, `node${id}`);
    const node: ImportedNode = {
      id,
      name,
      host: n.host,
      port: null,
      voter: true,
      fenceDelayMs: 0,
      fence: methods.levels(name, n.fence),
    };
    nodes.push(node);
    byName.set(n.name, node);
  }
  nodes.sort((a, b) => a.id - b.id);
  for (const d of source.devices.values()) {
    const isUsed = d.parameters.some((p) => p.isTaken) || d.agent === 'fence_manual';
    if (!isUsed && d.parameters.every((p) => p.why === '')) leave(d.entry, 'no node is fenced by this device');
  }
  if (gulm) giveServersVotes(source, gulm, nodes, byName);
  else {
    giveVotes(nodes.filter((n) => !source.nodes.find((s) => byName.get(s.name) === n)?.hasNoVote));
    for (const s of source.nodes) if (s.hasNoVote) (byName.get(s.name) as ImportedNode).voter = false;
  }
  const limits = gulm ? readLimits(gulm) : null;
  return {
    cluster: usableName(source.name, new Set(), 'gfs'),
    mastery: gulm ? 'servers' : 'peer',
    limits,
    nodes,
    methods: methods.methods,
    secrets: methods.secrets,
    notCarried: notTaken(roots, REASONS),
  };
}

function giveServersVotes(source: Source, gulm: Entry, nodes: ImportedNode[], byName: Map<string, ImportedNode>): void {
  if (source.servers.length === 0) throw wrong(gulm.file, gulm.line, 'lock_gulm names no servers');
  for (const n of nodes) n.voter = false;
  for (const { text, entry } of source.servers) {
    const node = byName.get(text) ?? nodes.find((n) => n.host === text);
    if (!node) throw wrong(entry.file, entry.line, `the server ${shown(text)} is none of the nodes`);
    if (node.voter) throw wrong(entry.file, entry.line, `the server ${shown(text)} is named twice`);
    node.voter = true;
  }
  const count = source.servers.length;
  if (count > VOTERS_MAX) throw wrong(gulm.file, gulm.line, `${count} servers: the most are ${VOTERS_MAX}`);
}

/** Gulm expires a node after rate x (misses + 1); here a silent node is taken over after lease + margin. */
function readLimits(gulm: Entry): Imported['limits'] {
  const rateText = takeText(gulm, 'heartbeat_rate');
  const missesText = takeText(gulm, 'allowed_misses');
  if (rateText === undefined && missesText === undefined) return null;
  const rate = rateText === undefined ? GULM_HEARTBEAT_S : Number(rateText);
  const misses = missesText === undefined ? GULM_MISSES : Number(missesText);
  const seconds = rate * (misses + 1);
  const was = `heartbeat_rate ${rate} s x (allowed_misses ${misses} + 1) = ${Math.round(seconds * 1000) / 1000} s until a silent node is expired`;
  const leaseMs = Math.floor((seconds * 1000 - 50) / 1.184);
  const heartbeatMs = Math.floor(leaseMs / 12);
  try {
    if (!(rate > 0) || !(misses >= 0) || leaseMs < 120 || heartbeatMs > 60_000) throw new Error('out of range');
    deriveTimeLimits({ heartbeatMs, leaseMs });
    return { heartbeatMs, leaseMs, was };
  } catch {
    for (const e of gulm.children) {
      if (e.key !== 'heartbeat_rate' && e.key !== 'allowed_misses') continue;
      e.isTaken = false;
      e.why = 'the time that follows is none that a lease can have (about 0.3 s to 11 min): the default is taken';
    }
    return null;
  }
}
