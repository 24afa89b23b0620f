/**
 * What stands in control/: consensus state as records, and the checks that it is a state consensus could have written.
 *
 * Records: `meta`, `start` (start count), `locksBoot`, `hard` {term, vote}, `snapshot`, `boot`, and each log entry under its
 * index. This file turns batches into record changes and records into {@link PersistedState}; it does no I/O.
 */
import type { PersistBatch, PersistedState, Snapshot } from '../membership/types.js';
import { invariant, TsdlmError } from '../protocol/errors.js';
import type { LogEntry } from '../protocol/peer-messages.js';
import { WAY_OUT } from './journal-disk.js';
import type { StoreKey, StoreOp } from './journal-store.js';

/** Where the log stands, to know which records to remove and that no batch leaves a gap. */
interface LogRange {
  /** Index before the first entry: the snapshot's, or 0. */
  base: number;
  last: number;
}

type Hard = NonNullable<PersistBatch['hard']>;
type Boot = NonNullable<PersistBatch['boot']>;

const isCount = (v: unknown): v is number => typeof v === 'number' && Number.isSafeInteger(v) && v >= 0;
const isObject = (v: unknown): v is Record<string, unknown> => typeof v === 'object' && v !== null && !Array.isArray(v);

/** Builds the record changes of batches, in order, and keeps the log gapless. */
export class ControlRecords {
  #range: LogRange;
  #ticket = -1;

  constructor(state: PersistedState) {
    const base = state.snapshot?.index ?? 0;
    this.#range = { base, last: base + state.entries.length };
  }

  /** The changes of one batch. Throws InvariantError for one that is out of order or would leave a gap. */
  opsOf(batch: PersistBatch): StoreOp[] {
    invariant(batch.ticket > this.#ticket, `journal: batch ${batch.ticket} after batch ${this.#ticket}`);
    const range = { ...this.#range };
    const ops: StoreOp[] = [];
    if (batch.hard) ops.push({ key: 'hard', value: batch.hard });
    if (batch.boot) ops.push({ key: 'boot', value: batch.boot });
    if (batch.truncateFrom !== undefined) {
      invariant(batch.truncateFrom > range.base, `journal: cut at ${batch.truncateFrom} inside the snapshot ${range.base}`);
      for (let index = batch.truncateFrom; index <= range.last; index++) ops.push({ key: index });
      range.last = Math.min(range.last, batch.truncateFrom - 1);
    }
    if (batch.snapshot) {
      const { index } = batch.snapshot;
      invariant(index >= range.base, `journal: snapshot ${index} is older than the snapshot ${range.base}`);
      ops.push({ key: 'snapshot', value: batch.snapshot });
      for (let i = range.base + 1; i <= Math.min(index, range.last); i++) ops.push({ key: i });
      range.base = index;
      range.last = Math.max(range.last, index);
    }
    for (const entry of batch.entries ?? []) {
      // An entry that the snapshot of the same batch holds already.
      if (entry.index <= range.base) continue;
      invariant(entry.index <= range.last + 1, `journal: entry ${entry.index} after ${range.last} leaves a gap`);
      ops.push({ key: entry.index, value: entry });
      range.last = Math.max(range.last, entry.index);
    }
    this.#range = range;
    this.#ticket = batch.ticket;
    return ops;
  }
}

/**
 * The consensus state among the records. Throws TSDLM_JOURNAL_CORRUPT when a record has another shape, the log has a gap,
 * or its terms go down: consensus never writes such a state, so it is damage.
 */
export function controlState(records: ReadonlyMap<StoreKey, unknown>, path: string): PersistedState {
  const damaged = (why: string): never => {
    throw new TsdlmError('TSDLM_JOURNAL_CORRUPT', `journal ${path} is damaged: ${why}. ${WAY_OUT}`);
  };
  const hard = records.get('hard') ?? { term: 0, vote: 0 };
  if (!isObject(hard) || !isCount(hard.term) || !isCount(hard.vote)) return damaged('the record of the vote has another shape');
  const snapshot = records.get('snapshot') ?? null;
  if (
    snapshot !== null &&
    !(isObject(snapshot) && isCount(snapshot.index) && isCount(snapshot.term) && isObject(snapshot.view))
  ) {
    return damaged('the snapshot has another shape');
  }
  const boot = records.get('boot') ?? null;
  if (boot !== null && !(isObject(boot) && typeof boot.clusterId === 'string' && isObject(boot.known))) {
    return damaged('the record of the bootstrap has another shape');
  }
  const indexes: number[] = [];
  for (const key of records.keys()) if (typeof key === 'number') indexes.push(key);
  indexes.sort((a, b) => a - b);
  const entries: LogEntry[] = [];
  let last = (snapshot as Snapshot | null)?.index ?? 0;
  let term = (snapshot as Snapshot | null)?.term ?? 0;
  for (const index of indexes) {
    if (index !== last + 1) damaged(`after log entry ${last} comes ${index}`);
    const entry = records.get(index);
    if (!isObject(entry) || entry.index !== index || !isCount(entry.term) || !isObject(entry.cmd)) {
      return damaged(`log entry ${index} has another shape`);
    }
    if (entry.term < term) damaged(`log entry ${index} is of term ${entry.term}, below the term ${term} before it`);
    last = index;
    term = entry.term;
    entries.push(entry as unknown as LogEntry);
  }
  if (term > hard.term) damaged(`the log is of term ${term}, above the known term ${hard.term}`);
  return {
    term: (hard as Hard).term,
    vote: (hard as Hard).vote,
    snapshot: snapshot as Snapshot | null,
    entries,
    boot: boot as Boot | null,
  };
}
