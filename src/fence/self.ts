/**
 * The method `self`: nobody is asked; the victim ends itself when its own lease is over, and the others wait that long.
 *
 * It is decided in the membership core, which knows the leases, and never carried out here: this object only says that it
 * exists and that it ends no machine (rule 2). A call is answered with "no", because an answer of "yes" without the wait would
 * grant a living node's locks.
 */
import type { FenceMethod, FenceOutcome } from './types.js';

export const SELF_METHOD: FenceMethod = {
  name: 'self',
  endsMachine: false,
  fence: (): Promise<FenceOutcome> => Promise.resolve({ ok: false, detail: 'self is decided by the lease, it cannot be run' }),
};
