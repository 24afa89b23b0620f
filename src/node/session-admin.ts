/**
 * Administration requests of a session.
 *
 * The problem: a client may ask for any number of verbs, and those about node-owned locks of this node are answered when the core
 * has decided. The idea: each request gets one reply, so many at a time; the session's own verbs go to the lock's record.
 */
import type { ConvertArgs, ConvertData, UnlockArgs, UnlockData } from '../protocol/admin.js';
import { ERROR_CODES, type ErrorCode, TsdlmError } from '../protocol/errors.js';
import { tokenToBigInt } from '../protocol/ids.js';
import { type Mode, modeFromName, modeName } from '../protocol/modes.js';
import { cutText } from '../protocol/text.js';
import type { Session } from './session.js';
import type { Hold } from './session-hold.js';
import type { HoldCalls } from './session-hold-calls.js';
import { type SessionInfo, sessionInfo } from './session-info.js';
import type { NodeOwnedLocks } from './session-node-owned.js';
import { denialText } from './session-text.js';

/** Administration requests of one session at a time. */
const ADMIN_MAX = 64;

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

/** All verbs but `unlock` and `convert`. A rejection with a TsdlmError is answered as that error. */
type RunVerb = (verb: string, args: unknown, session: SessionInfo) => Promise<AdminResult>;

export class SessionAdmin {
  readonly #owned: OwnedAdmin;
  readonly #now: () => number;
  readonly #run: RunVerb;

  constructor(owned: OwnedAdmin, now: () => number, run: RunVerb) {
    this.#owned = owned;
    this.#now = now;
    this.#run = run;
  }

  request(session: Session, rid: number, verb: string, args: unknown): void {
    const reply = (result: AdminResult): void => {
      session.admin--;
      session.push({
        k: 'DaemonAdminReply',
        rid,
        ok: result.ok,
        code: result.code === undefined ? 0 : ERROR_CODES[result.code],
        text: cutText(result.text ?? '', 2000),
        data: result.data ?? null,
      });
    };
    session.admin++;
    if (session.admin > ADMIN_MAX) {
      reply({ ok: false, code: 'TSDLM_LIMIT_REACHED', text: `${ADMIN_MAX} administration requests wait already` });
    } else if (verb === 'unlock') {
      this.#owned.unlock(args, reply);
    } else if (verb === 'convert') {
      this.#owned.convert(args, reply);
    } else {
      this.#run(verb, args, sessionInfo(session, this.#now())).then(reply, (error: unknown) => {
        if (error instanceof TsdlmError && error.code !== 'TSDLM_INVARIANT') {
          reply({ ok: false, code: error.code, text: error.message });
          return;
        }
        throw error;
      });
    }
  }
}

/** Node-owned locks of this node, by name. */
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
