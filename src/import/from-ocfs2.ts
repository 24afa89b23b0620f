/**
 * An ocfs2 cluster (o2cb) in our terms: its nodes and numbers; the disk heartbeat becomes the network heartbeat of voters.
 */
import { NODE_MAX } from '../protocol/ids.js';
import { giveVotes, type Imported, type ImportedNode, notTaken, usableName } from './result.js';
import { type Entry, lineOf, sections, shown, takeText, wrong } from './tree.js';

const REASONS: Readonly<Record<string, string>> = {
  heartbeat_mode: 'tsdlm has no heartbeat on disks: nodes are alive by the network, and a majority of voters decides',
  region: 'tsdlm has no heartbeat on disks',
  ip_port: "this is o2net's port; tsdlmd has a port of its own, 7719, so that both can run (--keep-ports takes it over)",
};

export interface Ocfs2Options {
  /** Which cluster, where the file has several. */
  cluster?: string;
  keepPorts: boolean;
}

/** Throws TSDLM_BAD_CONFIG with file and line for what cannot be a cluster. */
export function fromOcfs2(root: Entry, options: Ocfs2Options): Imported {
  const clusters = sections(root, 'cluster');
  const names = clusters.map((c) => takeText(c, 'name') ?? '');
  for (const [i, c] of clusters.entries()) if (names[i] === '') throw wrong(c.file, c.line, 'this cluster has no name');
  const chosen = options.cluster ?? names[0];
  const at = names.indexOf(chosen ?? '');
  const cluster = clusters[at];
  if (!cluster || chosen === undefined) {
    throw wrong(
      root.file,
      1,
      names.length === 0
        ? 'there is no "cluster:" stanza'
        : `there is no cluster ${shown(chosen ?? '')}; there are ${names.map(shown).join(', ')}`,
    );
  }
  for (const [i, c] of clusters.entries()) {
    if (i === at) continue;
    c.isTaken = false;
    for (const e of c.children) {
      e.isTaken = false;
      e.why = `of the cluster ${shown(names[i] ?? '')}: one import makes one cluster (--cluster chooses)`;
    }
  }
  if (clusters.length > 1 && options.cluster === undefined) {
    throw wrong(
      root.file,
      clusters[1]?.line ?? 1,
      `there are several clusters, ${names.map(shown).join(', ')}: choose one with --cluster`,
    );
  }
  const nodes = readNodes(root, chosen, options);
  const count = takeText(cluster, 'node_count');
  if (count !== undefined && Number(count) !== nodes.length) {
    const e = cluster.children.find((c) => c.key === 'node_count');
    if (e) {
      e.isTaken = false;
      e.why = `there are ${nodes.length} nodes of this cluster; tsdlm counts for itself`;
    }
  }
  giveVotes(nodes);
  return {
    cluster: usableName(chosen, new Set(), 'ocfs2'),
    mastery: 'peer',
    limits: null,
    nodes,
    methods: [],
    secrets: [],
    notCarried: notTaken([root], REASONS),
  };
}

function readNodes(root: Entry, cluster: string, options: Ocfs2Options): ImportedNode[] {
  const found: { node: ImportedNode; entry: Entry; number: number }[] = [];
  const used = new Set<string>();
  const lines = new Map<number, number>();
  for (const n of sections(root, 'node')) {
    const of = n.children.find((c) => c.key === 'cluster');
    if (of?.text !== undefined && of?.text !== null && of.text !== cluster) {
      for (const c of n.children) c.why = `of a node of the cluster ${shown(of.text)}`;
      continue;
    }
    if (of) of.isTaken = true;
    const name = takeText(n, 'name');
    if (name === undefined || name === '') throw wrong(n.file, n.line, 'this node has no name');
    const numberText = takeText(n, 'number');
    if (numberText === undefined || !/^[0-9]{1,3}$/.test(numberText) || Number(numberText) > NODE_MAX) {
      throw wrong(
        n.file,
        lineOf(n, 'number'),
        `the number of node ${shown(name)} must be from 0 to ${NODE_MAX}, not ${shown(numberText ?? '')}`,
      );
    }
    const number = Number(numberText);
    const before = lines.get(number);
    if (before !== undefined)
      throw wrong(n.file, lineOf(n, 'number'), `number ${number} was given to another node in line ${before}`);
    lines.set(number, lineOf(n, 'number'));
    const host = takeText(n, 'ip_address');
    if (host === undefined || !/^[0-9a-fA-F:.]+$/.test(host)) {
      throw wrong(n.file, lineOf(n, 'ip_address'), `node ${shown(name)} needs an ip_address, not ${shown(host ?? '')}`);
    }
    const node: ImportedNode = {
      id: number,
      name: usableName(name, used, `node${number}`),
      host,
      port: null,
      voter: true,
      fenceDelayMs: 0,
      fence: [],
    };
    if (node.name !== name) untake(n, 'name', `tsdlm's names have letters, digits, ".", "_" and "-": it is ${node.name} now`);
    if (options.keepPorts) {
      const port = takeText(n, 'ip_port');
      if (port !== undefined) {
        node.port = /^[0-9]{1,5}$/.test(port) ? Number(port) : 0;
        if (node.port < 1 || node.port > 65_535) throw wrong(n.file, lineOf(n, 'ip_port'), `ip_port ${shown(port)} is no port`);
      }
    }
    found.push({ node, entry: n, number });
  }
  if (found.length === 0) throw wrong(root.file, 1, `no node belongs to the cluster ${shown(cluster)}`);
  const zero = found.find((f) => f.number === 0);
  if (zero) {
    const taken = new Set(found.map((f) => f.number));
    let id = 1;
    while (taken.has(id)) id++;
    if (id > NODE_MAX)
      throw wrong(
        zero.entry.file,
        lineOf(zero.entry, 'number'),
        `all numbers from 1 to ${NODE_MAX} are taken, and tsdlm has no node 0`,
      );
    zero.node.id = id;
    untake(zero.entry, 'number', `tsdlm numbers nodes from 1: it is ${id} now`);
  }
  return found.map((f) => f.node).sort((a, b) => a.id - b.id);
}

function untake(of: Entry, key: string, why: string): void {
  const e = of.children.find((c) => c.key === key);
  if (!e) return;
  e.isTaken = false;
  e.why = why;
}
