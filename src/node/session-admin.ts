/** The administration verbs that the session server answers itself: node-owned locks of this node, by name. */
import type { ConvertArgs, ConvertData, UnlockArgs, UnlockData } from '../protocol/admin.js';
import type { ErrorCode } from '../protocol/errors.js';
import { tokenToBigInt } from '../protocol/ids.js';
import { type Mode, modeFromName, modeName } from '../protocol/modes.js';
import type { Hold } from './session-hold.js';
import type { HoldCalls } from './session-hold-calls.js';
import type { NodeOwnedLocks } from './session-node-owned.js';
import { denialText } from './session-text.js';

/** Outcome of an administration verb; `data` is plain data of src/protocol/admin.ts. */
export interface AdminResult {
  ok: boolean;
  code?: ErrorCode;
  text?: string;
  data?: unknown;
}

export function refused(code: ErrorCode, text: string): AdminResult {
  return { ok: false, code, text };
}

type Reply = (result: AdminResult) => void;

export class OwnedAdmin {
  #calls: HoldCalls;
  #nodeOwned: NodeOwnedLocks;
  #nodeName: string;

  constructor(calls: HoldCalls, nodeOwned: NodeOwnedLocks, nodeName: string) {
    this.#calls = calls;
    this.#nodeOwned = nodeOwned;
    this.#nodeName = nodeName;
  }

  unlock(args: unknown, reply: Reply): void {
    const hold = this.#find(args, reply);
    if (hold === null) return;
    const { domain, name } = args as UnlockArgs;
    const data: UnlockData = { domain, name };
    this.#calls.release(hold, 0, null, (outcome) => {
      reply(outcome === 'done' ? { ok: true, data } : refused(outcome, `'${short(name)}' was lost before its release was done`));
    });
  }

  convert(args: unknown, reply: Reply): void {
    const { mode, try: isTry, timeoutMs } = (args ?? {}) as Partial<ConvertArgs>;
    const wanted = typeof mode === 'string' ? modeFromName(mode) : undefined;
    if (wanted === undefined) {
      reply(refused('TSDLM_BAD_ARGUMENT', `mode '${short(String(mode))}' must be one of NL, PR and EX`));
      return;
    }
    const hold = this.#find(args, reply);
    if (hold === null) return;
    const limit = typeof timeoutMs === 'number' && timeoutMs > 0 ? timeoutMs : 0;
    this.#calls.convertOwned(hold, wanted, isTry === true, limit, (outcome, lock) => {
      if (outcome !== 'done') {
        reply(refused(outcome, denialText(outcome, lock, true)));
        return;
      }
      const token = tokenToBigInt(lock.te, lock.tc).toString();
      const data: ConvertData = { domain: lock.domain, name: lock.name, mode: modeName(lock.mode as Mode), token };
      reply({ ok: true, data });
    });
  }

  /** The node-owned lock that the arguments name, when it is held and nothing is under way with it. */
  #find(args: unknown, reply: Reply): Hold | null {
    const { domain, name } = (args ?? {}) as { domain?: unknown; name?: unknown };
    if (typeof domain !== 'string' || typeof name !== 'string') {
      reply(refused('TSDLM_BAD_ARGUMENT', 'domain and name must be given as texts'));
      return null;
    }
    const hold = this.#nodeOwned.find(domain, name);
    if (hold === undefined || hold.lock === null || !hold.isGranted) {
      const where = `node ${this.#nodeName} itself owns no lock '${short(name)}' in domain '${short(domain)}'`;
      reply(refused('TSDLM_NOT_HELD', `${where}; a session's lock is released by that session, a node's lock on that node`));
      return null;
    }
    if (hold.asked !== 0 || hold.converted !== null || hold.release !== null) {
      reply(refused('TSDLM_CONFLICT', `'${short(name)}' is being converted or released already`));
      return null;
    }
    return hold;
  }
}

function short(text: string): string {
  return text.length > 80 ? `${text.slice(0, 77)}...` : text;
}
