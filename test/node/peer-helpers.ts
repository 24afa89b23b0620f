/** Networks on loopback for the tests of the links: ports of their own, everything recorded, closed also on failure. */
import type { Test } from 'tap';
import { deriveTimeLimits, type TimeLimits } from '../../src/membership/time-limits.js';
import { PeerNet, type PeerNetOptions, type PeerNode } from '../../src/node/peer-net.js';
import type { Incarnation, NodeId } from '../../src/protocol/ids.js';
import type { PeerMessage } from '../../src/protocol/peer-messages.js';

export const KEY = Buffer.from('0123456789abcdef0123456789abcdef');
export const LIMITS: TimeLimits = deriveTimeLimits({ heartbeatMs: 50 });

export function incarnation(node: NodeId, startCount = 1): Incarnation {
  return { bootId: `boot-${node}`, machineId: `machine-${node}`, startCount, journalId: `journal-${node}` };
}

/** A condition with a limit; never a fixed sleep. */
export async function until(what: string, is: () => boolean, limitMs = 15_000): Promise<void> {
  const end = performance.now() + limitMs;
  while (!is()) {
    if (performance.now() > end) throw new Error(`not within ${limitMs} ms: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 2));
  }
}

export interface Recorded {
  net: PeerNet;
  got: { from: NodeId; m: PeerMessage }[];
  ups: { peer: NodeId; startCount: number; reset: boolean }[];
  downs: NodeId[];
  /** ups, downs and messages in the order they came. */
  order: string[];
  log: { level: string; event: string; data: Record<string, unknown> }[];
  onMessage: ((from: NodeId, m: PeerMessage) => void) | null;
}

/** The nodes of one test. Ports are filled in as the nodes listen. */
export class Cluster {
  readonly nodes: PeerNode[];
  readonly #nets: PeerNet[] = [];

  constructor(t: Test, count: number) {
    this.nodes = Array.from({ length: count }, (_, i) => ({ id: i + 1, name: `n${i + 1}`, host: '127.0.0.1', port: 1 }));
    t.teardown(() => Promise.all(this.#nets.map((n) => n.close())));
  }

  /** A node that listens; start() is left to the test unless `start`. */
  async add(id: NodeId, over: Partial<PeerNetOptions> = {}, start = true): Promise<Recorded> {
    const r: Omit<Recorded, 'net'> = { got: [], ups: [], downs: [], order: [], log: [], onMessage: null };
    const recorded = r as Recorded;
    recorded.net = new PeerNet({
      self: id,
      incarnation: incarnation(id),
      nodes: this.nodes,
      listen: { host: '127.0.0.1', port: 0 },
      clusterName: 'test',
      clusterKey: KEY,
      configSum: 'sum-1',
      limits: LIMITS,
      tls: true,
      log: (level, event, data) => r.log.push({ level, event, data }),
      onMessage: (from, m) => {
        r.got.push({ from, m });
        r.order.push(m.k);
        recorded.onMessage?.(from, m);
      },
      onUp: (peer, startCount, reset) => {
        r.ups.push({ peer, startCount, reset });
        r.order.push(`up ${peer}`);
      },
      onDown: (peer) => {
        r.downs.push(peer);
        r.order.push(`down ${peer}`);
      },
      ...over,
    });
    this.#nets.push(recorded.net);
    const { port } = await recorded.net.listen();
    (this.nodes[id - 1] as PeerNode).port = port;
    if (start) recorded.net.start();
    return recorded;
  }
}

/** A lock message whose `id` numbers it. */
export function numbered(id: number): PeerMessage {
  return { k: 'UnlockDone', dom: 1, dep: 1, ce: 1, cc: id, id };
}
export function ids(r: Recorded): number[] {
  return r.got.flatMap(({ m }) => (m.k === 'UnlockDone' ? [m.id] : []));
}
