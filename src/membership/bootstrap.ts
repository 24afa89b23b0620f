/**
 * First start of a cluster without an operator, and the refusal to start again from a lost disk.
 *
 * The problem: an empty journal looks the same on a new node and on one that lost its disk; the first must vote or no cluster
 * ever begins, the second must never vote, for it has forgotten what it promised (design 5, last point).
 * The idea: every journal has a random id. Only when *all* voters say that their journals are blank is this the beginning: each writes
 * down the ids of all. From then on a blank journal is taken into use only by a voter whose id stands in that set (it
 * was there at the beginning and merely slower). The cluster's id follows from the set, so nobody has to hand it out.
 * A probe names the asker's journal and the answer repeats it: an answer to an earlier life of the node counts for nothing.
 * Once the cluster exists, every node whose journal is empty asks, with or without a vote: the answer says which journal the log knows
 * for it. None, or this very one (it is new, or was readmitted): it may take part, as a learner unless the log gives it a vote.
 * Another: it is lost. An answer may be outdated, so whoever counts votes and disks looks at the journal himself (raft.ts).
 */
import { type Millis, NODE_MAX, type NodeId, type StartCount } from '../protocol/ids.js';
import type { ControlMessage } from '../protocol/peer-messages.js';
import { list, node, record, text, u32, u53 } from '../protocol/schema.js';
import type { Durable } from './durable.js';
import { journalLostText } from './joins.js';
import type { PersistedState } from './types.js';

type Probe = Extract<ControlMessage, { k: 'BootProbe' }>;
export type Boot = NonNullable<PersistedState['boot']>;

interface Answer {
  journalId: string;
  blank: boolean;
}

export interface BootstrapHost {
  send(to: NodeId, msg: ControlMessage): void;
  note(level: 'info' | 'warn' | 'error', event: string, data: Record<string, unknown>): void;
  /** What our log knows of a node, null when it is not in the table; undefined: our log names no cluster. */
  record(node: NodeId): { journal: string; floor: StartCount } | null | undefined;
  /** This journal may be filled; incarnations with start counts up to `floor` were of an earlier one. */
  admitted(floor: StartCount): void;
  /** Where all nodes are reached, by our log. */
  places(): NodePlace[];
}

/** Where a node is reached. */
export interface NodePlace {
  id: NodeId;
  name: string;
  host: string;
  port: number;
}
const placesField = list(record('place', { id: node, name: text(255), host: text(255), port: u32 }), NODE_MAX);

/** How long a question of a node with another journal is remembered, for its readmission. */
const ASKED_MS = 10_000;

/**
 * `known` of a BootProbe: in a question null; in an answer whose journal asked, the set if there is one, and what the log of the
 * cluster says of the asker: the journal it knows for it, '' for none; null when the asker is not in the node table; and for who is in
 * it, the start counts that its earlier journal used, and where the others are reached (its configuration may name a few only).
 */
const answerField = record('answer', { asked: text(64) });
const bootField = record('boot', { clusterId: text(64) });
const journalField = text(64);

interface Asked {
  journalId: string;
  at: Millis;
}

export class Bootstrap {
  private boot: Boot | null;
  private readonly self: NodeId;
  private readonly voters: readonly NodeId[];
  private readonly peers: readonly NodeId[];
  private readonly journalId: string;
  private readonly hasLog: boolean;
  private readonly periodMs: Millis;
  private readonly durable: Durable;
  private readonly host: BootstrapHost;
  private readonly answers = new Map<NodeId, Answer>();
  private probeAt: Millis = Number.NEGATIVE_INFINITY;
  /** Where the others are, by the word of one that was asked; [] while nobody said so. */
  places: readonly NodePlace[] = [];
  private readonly heard = new Set<NodeId>();
  private deciding = false;
  private lost = false;
  /** The log knows no other journal for this node: it may be filled. */
  private admitted = false;
  /** Nodes with an empty journal that asked us. */
  private readonly asked = new Map<NodeId, Asked>();

  constructor(
    options: {
      self: NodeId;
      /** By the configuration: who must be there at the first start. */
      voters: readonly NodeId[];
      /** All others of the configuration: any of them may know. */
      peers: readonly NodeId[];
      journalId: string;
      boot: Boot | null;
      /** The journal holds log entries: it is in use, whatever vote the configuration gives this node now. */
      hasLog: boolean;
      periodMs: Millis;
    },
    durable: Durable,
    host: BootstrapHost,
  ) {
    this.self = options.self;
    this.voters = options.voters;
    this.peers = options.peers;
    this.journalId = options.journalId;
    this.boot = options.boot;
    this.hasLog = options.hasLog;
    this.periodMs = options.periodMs;
    this.durable = durable;
    this.host = host;
    if (this.boot !== null && this.boot.known[String(this.self)] !== this.journalId) this.setLost();
  }

  /** A node whose journal is not (yet) in use: it takes no part in consensus. */
  get isBlank(): boolean {
    return this.lost || (this.boot === null && !this.hasLog && !this.admitted);
  }

  get clusterId(): string {
    return this.boot?.clusterId ?? '';
  }

  /** Journal ids noted at the bootstrap, by node number. */
  get journals(): Record<string, string> {
    return { ...this.boot?.known };
  }

  /** Journal with which a node asked lately, '' for none. */
  askedWith(now: Millis, node: NodeId): string {
    const asked = this.asked.get(node);
    return asked !== undefined && now - asked.at <= ASKED_MS ? asked.journalId : '';
  }

  get isLost(): boolean {
    return this.lost;
  }

  tick(now: Millis): void {
    if (!this.isBlank || this.deciding || this.boot !== null) return;
    if (this.voters.length === 1 && this.voters[0] === this.self && !this.lost) {
      this.decide();
      return;
    }
    if (now - this.probeAt < this.periodMs) return;
    this.probeAt = now;
    // Also those that only an answer named: the leader must know with which journal we ask.
    const others = new Set([...this.peers, ...this.places.map((p) => p.id), ...this.heard]);
    for (const peer of others) {
      if (peer === this.self) continue;
      this.host.send(peer, { k: 'BootProbe', journalId: this.journalId, reply: false, blank: true, known: null });
    }
  }

  receive(now: Millis, from: NodeId, msg: Probe): void {
    if (!msg.reply) {
      const node = this.host.record(from);
      if (msg.blank && node != null) this.asked.set(from, { journalId: msg.journalId, at: now });
      const log = node == null ? null : { log: node.journal, floor: node.floor, places: this.host.places() };
      const known = { asked: msg.journalId, boot: this.boot, ...(log ?? {}) };
      this.host.send(from, { k: 'BootProbe', journalId: this.journalId, reply: true, blank: this.isBlank, known });
      return;
    }
    if (this.boot !== null || this.deciding || !answerField.is(msg.known) || msg.known.asked !== this.journalId) return;
    const known = msg.known as { boot?: unknown; log?: unknown; floor?: unknown; places?: unknown };
    if (placesField.is(known.places)) this.places = known.places.map(({ id, name, host, port }) => ({ id, name, host, port }));
    const boot = parseBoot(known.boot, this.voters);
    if (boot?.known[String(this.self)] === this.journalId) {
      this.take(boot);
      return;
    }
    if (this.takeLogWord(known.log, known.floor)) return;
    if (!this.voters.includes(from) || !this.voters.includes(this.self)) return;
    if (msg.blank) {
      if (msg.journalId.length === 0) return;
      this.answers.set(from, { journalId: msg.journalId, blank: true });
      if (this.voters.every((v) => v === this.self || this.answers.get(v)?.blank === true)) this.decide();
      return;
    }
    this.answers.set(from, { journalId: msg.journalId, blank: false });
    if (boot !== null) this.setLost();
  }

  /** What the other side's log says of our journal. True when that settles it. */
  private takeLogWord(log: unknown, floor: unknown): boolean {
    if (!journalField.is(log) || !u53.is(floor)) return false;
    if (log !== '' && log !== this.journalId) {
      if (!this.admitted) this.setLost();
      return true;
    }
    if (!this.isBlank) return true;
    this.lost = false;
    this.admitted = true;
    this.host.admitted(floor);
    this.host.note('info', 'journal-admitted', { journalId: this.journalId });
    return true;
  }

  private decide(): void {
    const known: Record<string, string> = {};
    for (const voter of this.voters) {
      known[String(voter)] = voter === this.self ? this.journalId : (this.answers.get(voter)?.journalId ?? '');
    }
    this.take({ clusterId: clusterIdOf(known), known });
  }

  private take(boot: Boot): void {
    this.deciding = true;
    this.durable.boot(boot);
    this.durable.after(() => {
      this.boot = boot;
      this.deciding = false;
      this.lost = false;
      this.host.note('info', 'bootstrap', { clusterId: boot.clusterId, voters: Object.keys(boot.known).length });
    });
  }

  /** A leader spoke to us while our journal is empty: it may be none of those that we were configured with. */
  hears(from: NodeId): void {
    if (this.heard.size < NODE_MAX) this.heard.add(from);
  }

  /** The leader knows another journal for this node: whoever said that ours may be filled had an old log. */
  disown(): void {
    this.admitted = false;
    this.setLost();
  }

  private setLost(): void {
    if (this.lost) return;
    this.lost = true;
    this.host.note('error', 'journal-lost', { code: 'TSDLM_JOURNAL_LOST', text: journalLostText(this.self) });
  }
}

/** The cluster id that follows from the voters' journal ids: FNV-1a of 64 bits over the sorted pairs, in hex. */
export function clusterIdOf(known: Readonly<Record<string, string>>): string {
  let hash = 0xcbf29ce484222325n;
  const pairs = Object.keys(known)
    .map(Number)
    .sort((a, b) => a - b)
    .map((n) => `${n}=${known[String(n)]}`);
  const joined = pairs.join('\n');
  for (let i = 0; i < joined.length; i++) {
    hash = BigInt.asUintN(64, (hash ^ BigInt(joined.charCodeAt(i))) * 0x100000001b3n);
  }
  return hash.toString(16).padStart(16, '0');
}

function parseBoot(value: unknown, voters: readonly NodeId[]): Boot | null {
  if (!bootField.is(value)) return null;
  const raw = (value as { known?: unknown }).known;
  if (typeof raw !== 'object' || raw === null) return null;
  const known: Record<string, string> = {};
  for (const voter of voters) {
    const journal = (raw as Record<string, unknown>)[String(voter)];
    if (journalField.is(journal)) known[String(voter)] = journal;
  }
  return { clusterId: value.clusterId, known };
}
