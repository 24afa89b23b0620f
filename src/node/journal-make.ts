/**
 * Making a journal, and telling one of ours from anything else.
 *
 * The problem: a first start that dies half-way must be possible again, but nothing that was ever used may be taken for it.
 * The idea: each environment is made beside its place and moved there; the stamps (journal-stamp.ts) come first and say "nothing
 * confirmed" until control/ stands. Whatever else is found in the directory is refused.
 */
import { randomBytes, randomUUID } from 'node:crypto';
import { mkdirSync, readdirSync, renameSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { TsdlmError } from '../protocol/errors.js';
import type { NodeId } from '../protocol/ids.js';
import { isLockFile } from './dir-lock.js';
import { syncDirectory, WAY_OUT } from './journal-disk.js';
import { STAMPS_FILE, Stamps } from './journal-stamp.js';
import { openStore, type StoreKey } from './journal-store.js';

/** Record of control/: the key that proves sessions to the next daemon. */
export const SESSION_KEY = 'sessionKey';
/** Version of the records. A journal of a higher one is refused; lower ones are brought up at open (there are none yet). */
export const JOURNAL_SCHEMA = 1;
const MAGIC = 'tsdlm journal';

/** Whose journal it must be. */
export interface Owner {
  dir: string;
  nodeId: NodeId;
  clusterName: string;
}

export interface Meta {
  magic: string;
  schema: number;
  journalId: string;
  nodeId: NodeId;
  clusterName: string;
}

/** Names of ours in the directory, whole or half made, and what a mount point brings by itself. */
function isOwnName(name: string): boolean {
  const own = ['control', 'locks', 'control.new', 'locks.new', STAMPS_FILE, `${STAMPS_FILE}.new`, 'lost+found'];
  return isLockFile(name) || own.includes(name);
}

/** Makes an environment with its first records beside its place, then moves it there: it is never half made. */
export async function createStore(
  dir: string,
  name: 'control' | 'locks',
  synced: boolean,
  first: Record<string, unknown>,
): Promise<void> {
  const building = join(dir, `${name}.new`);
  rmSync(building, { recursive: true, force: true });
  mkdirSync(building, { mode: 0o700 });
  const store = openStore(building, synced);
  try {
    await store.commit(Object.entries(first).map(([key, value]) => ({ key, value })));
  } finally {
    await store.close();
  }
  syncDirectory(building);
  renameSync(building, join(dir, name));
  syncDirectory(dir);
}

/** Throws TSDLM_JOURNAL_FOREIGN or _TOO_NEW unless the records are those of this owner's journal. */
export function checkMeta(records: ReadonlyMap<StoreKey, unknown>, owner: Owner): Meta {
  const path = join(owner.dir, 'control');
  const meta = records.get('meta') as Meta | undefined;
  if (meta?.magic !== MAGIC) {
    throw new TsdlmError('TSDLM_JOURNAL_FOREIGN', `${path} is a database of something else: give this node another state_dir`);
  }
  if (meta.schema > JOURNAL_SCHEMA) {
    throw new TsdlmError(
      'TSDLM_JOURNAL_TOO_NEW',
      `journal ${path} has schema ${meta.schema}, this version knows up to ${JOURNAL_SCHEMA}: start the newer tsdlmd that wrote it`,
    );
  }
  if (meta.nodeId !== owner.nodeId || meta.clusterName !== owner.clusterName) {
    throw new TsdlmError(
      'TSDLM_JOURNAL_FOREIGN',
      `journal ${path} belongs to node ${meta.nodeId} of cluster ${JSON.stringify(meta.clusterName)}, this is node ${owner.nodeId} of ` +
        `cluster ${JSON.stringify(owner.clusterName)}: correct the configuration, or give this node another state_dir`,
    );
  }
  return meta;
}

/** Nothing was ever confirmed by the journal that these stamps belong to. */
function isUnused(dir: string): boolean {
  const stamps = Stamps.open(dir);
  try {
    return stamps.countOf('control') === 0;
  } finally {
    stamps.close();
  }
}

/** Finds or makes control/ and the stamps, or says why not. Returns true when it made them. */
export async function ensureControl(owner: Owner): Promise<boolean> {
  const { dir } = owner;
  const names = readdirSync(dir);
  if (names.includes('control')) return false;
  if (names.includes('locks')) {
    throw new TsdlmError('TSDLM_JOURNAL_CORRUPT', `journal ${dir} is damaged: it has locks/ but no control/. ${WAY_OUT}`);
  }
  if (names.includes(STAMPS_FILE) && !isUnused(dir)) {
    throw new TsdlmError(
      'TSDLM_JOURNAL_CORRUPT',
      `journal ${dir} is damaged: it has the file ${STAMPS_FILE} but no control/. ${WAY_OUT}`,
    );
  }
  const foreign = names.find((name) => !isOwnName(name));
  if (foreign !== undefined) {
    throw new TsdlmError(
      'TSDLM_JOURNAL_FOREIGN',
      `the state directory ${dir} holds something else (${JSON.stringify(foreign)}): give this node an empty state_dir`,
    );
  }
  const journalId = randomUUID();
  const { nodeId, clusterName } = owner;
  const meta: Meta = { magic: MAGIC, schema: JOURNAL_SCHEMA, journalId, nodeId, clusterName };
  Stamps.create(dir, journalId);
  await createStore(dir, 'control', true, { meta, start: 0, [SESSION_KEY]: randomBytes(32) });
  return true;
}
