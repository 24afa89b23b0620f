/** The sentences that go with the codes of denied and lost locks: what, which lock, and what to do about it. */
import type { LocalLock } from '../master/types.js';
import type { ErrorCode } from '../protocol/errors.js';
import { type Mode, modeName } from '../protocol/modes.js';

/** Rule 2. */
export const NODE_OWNED_REFUSED =
  'node-owned locks outlive every process, so only a fence method that ends the machine makes them safe and this node has none: ' +
  'configure one (a device or a verified script), or accept the risk with unsafe_node_owned = true';

function nameOf(lock: LocalLock): string {
  const name = lock.name.length > 80 ? `${lock.name.slice(0, 77)}...` : lock.name;
  return `'${name}' in domain '${lock.domain}'`;
}

/** Why a request was not granted. `isConvert`: the lock keeps its mode. */
export function denialText(code: ErrorCode, lock: LocalLock, isConvert: boolean): string {
  const what = nameOf(lock);
  const mode = lock.want >= 0 ? ` ${modeName(lock.want as Mode)}` : '';
  const keeps = isConvert && lock.mode >= 0 ? `; ${modeName(lock.mode as Mode)} is still held` : '';
  switch (code) {
    case 'TSDLM_CONFLICT':
      return `${what} is held by another owner in a mode that does not go with${mode || ' this one'}${keeps}`;
    case 'TSDLM_TIMEOUT':
      return `${what} was not granted${mode ? ` in${mode}` : ''} within the time given${keeps}`;
    case 'TSDLM_CANCELLED':
      return `the request for ${what} was withdrawn${keeps}`;
    case 'TSDLM_DEADLOCK':
      return `two holders of ${what} want to convert to EX and wait for each other: release it and ask again${keeps}`;
    case 'TSDLM_UNAVAILABLE':
      return `it cannot be decided now whether ${what} is free (no quorum, or a recovery is under way): try again, or wait without --try${keeps}`;
    case 'TSDLM_STOPPING':
      return `this daemon is stopping and grants nothing more; ${what} was not granted${keeps}`;
    case 'TSDLM_BRIDGE_DOWN':
      return `${what} must be held in the kernel's dlmfs of this node as well, which cannot be used now (tsdlm status says why)${keeps}`;
    case 'TSDLM_NAME_TOO_LONG':
      return `${what} is too long for the kernel's dlmfs, to which its domain is bridged: at most 31 bytes`;
    case 'TSDLM_LOST':
      return `${what} was lost while the request waited: this node's lease ended`;
    case 'TSDLM_LIMIT_REACHED':
      return `a limit is reached on ${what}: too many requests wait for it, or there are too many domains${keeps}`;
    default:
      return `the request for ${what} was refused${keeps}`;
  }
}

export function lostText(code: ErrorCode, lock: LocalLock): string {
  const why =
    code === 'TSDLM_LOST'
      ? "this node's lease ended or it was evicted"
      : code === 'TSDLM_BRIDGE_DOWN'
        ? "the kernel's dlmfs no longer holds it for this node"
        : code === 'TSDLM_STOPPING'
          ? 'the daemon stops'
          : 'the cluster ended it';
  return `${nameOf(lock)} is lost: ${why}`;
}
