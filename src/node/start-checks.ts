/** What is judged before a daemon's start count is raised: a start that is refused must cost nothing. */
import { RaftLog } from '../membership/log.js';
import type { View } from '../membership/types.js';
import { initialView } from '../membership/view.js';
import { parseView } from '../membership/view-check.js';
import { LogTail } from '../membership/voter-set.js';
import { TsdlmError } from '../protocol/errors.js';
import type { Config } from './config.js';
import { checkAgainstView, copyOf, parseCopy } from './config-view.js';
import { isVirtualMachine } from './facts.js';
import type { Journal } from './journal.js';
import type { Log } from './log.js';

/**
 * A paused virtual machine's own clock stops with it, so its lease seems valid when it goes on: where others count on the
 * lease alone, the operator has to vouch that this never happens (rule 10). Throws TSDLM_BAD_CONFIG.
 */
export function checkClocks(config: Config): void {
  if (config.neverPaused || config.nodes.length === 1 || !isVirtualMachine()) return;
  if (!config.self.fence.some((level) => level.every((method) => method === 'self'))) return;
  throw new TsdlmError(
    'TSDLM_BAD_CONFIG',
    `${config.file}: node ${config.self.name} is a virtual machine and is fenced by its own lease ("self"), which a paused machine does not see end: ` +
      'set never_paused = true if it is never suspended, saved or paused, or give it a fence method that ends the machine',
  );
}

/**
 * The file against what the journal knows of the cluster (config-view.ts). Gives the view after all entries of the journal's log.
 */
export async function acceptConfig(config: Config, journal: Journal, log: Log): Promise<View> {
  const { snapshot, entries } = journal.loadControl();
  const base = snapshot ?? { index: 0, term: 0, view: initialView(config.nodes, '') };
  const view = parseView(base.view);
  // A snapshot that is none is said so where it is used.
  if (view === null) return initialView(config.nodes, '');
  const { view: ahead } = new LogTail(config.self.id, new RaftLog({ ...base, view }, entries));
  const accepted = parseCopy(journal.acceptedConfig);
  const older = checkAgainstView(config, ahead, accepted);
  if (older.length > 0) log.info('config-older', { file: config.file, differs: older.slice(0, 20) });
  const fence = ahead.nodes.find((n) => n.id === config.self.id)?.fence;
  if (fence !== undefined && ahead.clusterId !== '') checkClocks({ ...config, self: { ...config.self, fence } });
  const copy = copyOf(config);
  if (JSON.stringify(copy) !== JSON.stringify(accepted)) await journal.acceptConfig(copy);
  return ahead;
}
