/**
 * Checks that a resource has one master per domain epoch, read off the messages in which nodes speak as its master.
 *
 * Mastership may change hands inside one epoch only after the earlier master forgot the resource, which it may do only when
 * nobody holds or waits for it. So: while a lock that a node granted as master still counts, no other node grants as master
 * in the same epoch. In a domain of policy `servers` it must also be a server of that epoch. Only grants to other nodes travel, which is enough: a second master grants to somebody sooner or later.
 */
import type { View } from '../../src/membership/types.js';
import type { PeerMessage } from '../../src/protocol/peer-messages.js';

interface Claim {
  node: number;
  gen: number;
}

export class MasterChecker {
  readonly #fail: (text: string) => void;
  /** By domain, epoch and name: the newest generation asserted. */
  readonly #claims = new Map<string, Claim>();

  constructor(fail: (text: string) => void) {
    this.#fail = fail;
  }

  /** By domain and epoch, for policy `servers`. */
  readonly #servers = new Map<string, string>();

  /** Some node has applied this view. All of them must agree on the servers of an epoch. */
  viewed(view: View): void {
    for (const d of view.domains) {
      if (d.mastery !== 'servers') continue;
      const key = `${d.dom}@${d.epoch}`;
      // The only server, about to restart, ends what it has begun: nobody else can be master, and no answer of its counts elsewhere.
      const last = d.servers.length === 0 ? d.leaving.map((m) => m.node) : [];
      const servers = `,${[...d.servers, ...last].join()},`;
      const known = this.#servers.get(key);
      if (known === undefined) this.#servers.set(key, servers);
      else if (known !== servers) this.#fail(`servers: ${key} has the servers ${known} by one view and ${servers} by another`);
    }
  }

  #mustServe(node: number, epoch: string, what: string): void {
    const servers = this.#servers.get(epoch);
    if (servers !== undefined && !servers.includes(`,${node},`)) {
      this.#fail(`servers: n${node} ${what} in ${epoch}, where only ${servers} may master`);
    }
  }

  sent(from: number, msg: PeerMessage): void {
    if (msg.k === 'Grant') this.#mustServe(from, `${msg.dom}@${msg.dep}`, 'grants');
    if (msg.k !== 'AssertMaster' && msg.k !== 'MasterReply') return;
    if (msg.k === 'AssertMaster' && msg.owner !== from) return;
    if (msg.k === 'MasterReply' && msg.answer !== 1) return;
    const key = `${msg.dom}@${msg.dep}/${msg.name}`;
    this.#mustServe(from, `${msg.dom}@${msg.dep}`, `says that it masters ${msg.name}`);
    const claim = this.#claims.get(key);
    if (claim !== undefined && claim.node !== from && claim.gen > msg.gen) {
      this.#fail(
        `one master: n${from} speaks as master of ${key} in generation ${msg.gen}, but n${claim.node} did in ${claim.gen}`,
      );
    }
    if (this.#claims.size > 50_000) this.#claims.clear();
    if (claim === undefined || msg.gen >= claim.gen) this.#claims.set(key, { node: from, gen: msg.gen });
  }

  /**
   * What each node believes to master at one instant, as far as it has the same epoch of the domain. `masters`: domain@epoch/name
   * to node.
   */
  sample(beliefs: readonly { node: number; masters: readonly string[] }[]): void {
    const seen = new Map<string, number>();
    for (const { node, masters } of beliefs) {
      for (const key of masters) {
        this.#mustServe(node, key.slice(0, key.indexOf('/')), `masters ${key}`);
        const other = seen.get(key);
        if (other !== undefined && other !== node) this.#fail(`one master: n${other} and n${node} both master ${key}`);
        seen.set(key, node);
      }
    }
  }
}
