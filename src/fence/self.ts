/**
 * The methods that need no device. `manual`: a person has looked, and says so with `tsdlm fence confirm`; it counts as ended by a
 * machine's end, for that is what the person vouches for. `self`: nobody is asked; the victim ends itself when its own lease is over, and the others wait that long.
 *
 * Both are decided in the membership core, which knows the leases, and never carried out here: these objects only say that they
 * exist and whether they end the machine (rule 2). A call is answered with "no", because an answer of "yes" without the wait would
 * grant a living node's locks.
 */
import type { FenceMethod, FenceOutcome } from './types.js';

export const SELF_METHOD: FenceMethod = {
  name: 'self',
  endsMachine: false,
  fence: (): Promise<FenceOutcome> => Promise.resolve({ ok: false, detail: 'self is decided by the lease, it cannot be run' }),
};

export const MANUAL_METHOD: FenceMethod = {
  name: 'manual',
  endsMachine: true,
  fence: (): Promise<FenceOutcome> => Promise.resolve({ ok: false, detail: 'manual waits for a person, it cannot be run' }),
};
