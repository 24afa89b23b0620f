/**
 * First start of a cluster without an operator, and the refusal to start again from a lost disk.
 *
 * The problem: an empty journal looks the same on a new node and on one that lost its disk; the first must vote or no cluster
 * ever begins, the second must never vote, for it has forgotten what it promised (design 5, last point).
 * The idea: every journal has a random id. Only when *all* voters say that their journals are blank is this the beginning: each writes
 * down the ids of all. From then on a blank journal is taken into use only by a voter whose id stands in that set (it
 * was there at the beginning and merely slower). The cluster's id follows from the set, so nobody has to hand it out.
 * A probe names the asker's journal and the answer repeats it: an answer to an earlier life of the node counts for nothing.
 */
import type { Millis, NodeId } from '../protocol/ids.js';
import type { ControlMessage } from '../protocol/peer-messages.js';
import { record, text } from '../protocol/schema.js';
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
}

/** `known` of a BootProbe: in a question null; in an answer whose journal asked, and the set if there is one. */
const answerField = record('answer', { asked: text(64) });
const bootField = record('boot', { clusterId: text(64) });
const journalField = text(64);

export class Bootstrap {
  private boot: Boot | null;
  private readonly self: NodeId;
  private readonly voters: readonly NodeId[];
  private readonly journalId: string;
  private readonly hasLog: boolean;
  private readonly periodMs: Millis;
  private readonly durable: Durable;
  private readonly host: BootstrapHost;
  private readonly answers = new Map<NodeId, Answer>();
  private probeAt: Millis = Number.NEGATIVE_INFINITY;
  private deciding = false;
  private lost = false;

  constructor(
    options: {
      self: NodeId;
      /** By the configuration: who must be there at the first start. */
      voters: readonly NodeId[];
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
    this.journalId = options.journalId;
    this.boot = options.boot;
    this.hasLog = options.hasLog;
    this.periodMs = options.periodMs;
    this.durable = durable;
    this.host = host;
    if (this.boot !== null && this.boot.known[String(this.self)] !== this.journalId) this.setLost();
  }

  /** A voter whose journal is not (yet) in use: it takes no part in consensus. */
  get isBlank(): boolean {
    return this.lost || (this.boot === null && !this.hasLog && this.voters.includes(this.self));
  }

  get clusterId(): string {
    return this.boot?.clusterId ?? '';
  }

  /** Journal id noted for a voter at the bootstrap. */
  knownJournal(id: NodeId): string | undefined {
    return this.boot?.known[String(id)];
  }

  get isLost(): boolean {
    return this.lost;
  }

  tick(now: Millis): void {
    if (!this.isBlank || this.deciding || this.boot !== null) return;
    if (this.voters.length === 1) {
      this.decide();
      return;
    }
    if (now - this.probeAt < this.periodMs) return;
    this.probeAt = now;
    for (const voter of this.voters) {
      if (voter !== this.self) {
        this.host.send(voter, { k: 'BootProbe', journalId: this.journalId, reply: false, blank: true, known: null });
      }
    }
  }

  receive(from: NodeId, msg: Probe): void {
    if (!this.voters.includes(from) || !this.voters.includes(this.self)) return;
    if (!msg.reply) {
      const known = { asked: msg.journalId, boot: this.boot };
      this.host.send(from, { k: 'BootProbe', journalId: this.journalId, reply: true, blank: this.boot === null, known });
      return;
    }
    if (this.boot !== null || this.deciding || !answerField.is(msg.known) || msg.known.asked !== this.journalId) return;
    if (msg.blank) {
      if (msg.journalId.length === 0) return;
      this.answers.set(from, { journalId: msg.journalId, blank: true });
      if (this.voters.every((v) => v === this.self || this.answers.get(v)?.blank === true)) this.decide();
      return;
    }
    this.answers.set(from, { journalId: msg.journalId, blank: false });
    const boot = parseBoot((msg.known as { boot?: unknown }).boot, this.voters);
    if (boot === null) return;
    if (boot.known[String(this.self)] === this.journalId) this.take(boot);
    else this.setLost();
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
