/**
 * What a client tells the next daemon after a restart: its locks, its places in queues, and what it had asked for.
 *
 * The problem: of what was asked and not answered the client knows neither whether it was done nor whether it arrived. So each
 * request is put so that it may be repeated: a held lock is claimed at the lowest mode that it may have by now (a release or
 * conversion downwards counts as done), a conversion upwards is named beside it, and a request that waits is named with the number it
 * has in its queue, or, when it had not been told that yet, asked anew.
 */
import type { ClientMessage } from '../protocol/client-messages.js';
import type { Mode } from '../protocol/modes.js';
import { LOCK_LVB, LOCK_TRY } from '../protocol/peer-messages.js';
import type { LockHandle } from './handle.js';
import type { Entry } from './pending.js';

/** On the wire: nothing is held, or nothing is wanted. */
const NONE = 255;
/** A request is given up this long after its own limit (connection.ts). */
const ANSWER_SLACK_MS = 2000;

export interface Plan {
  claims: ClientMessage[];
  /** Only of locks that are confirmed. */
  afterwards: ClientMessage[];
}

type Message<K extends ClientMessage['k']> = Extract<ClientMessage, { k: K }>;

export function planOf(handles: readonly LockHandle[], entries: readonly Entry[], now: number): Plan {
  const plan: Plan = { claims: [], afterwards: [] };
  const conversions = new Map<number, Message<'ClientConvert'>>();
  const waiting: ClientMessage[] = [];
  for (const entry of entries) {
    const { message } = entry;
    switch (message?.k) {
      case 'ClientLock':
        waiting.push(placeOf(message, entry, now));
        break;
      case 'ClientConvert':
        conversions.set(message.lock, { ...message, timeoutMs: remaining(message.timeoutMs, entry, now) });
        break;
      case 'ClientUnlock':
        waiting.push(message);
        break;
      case 'ClientLvbWrite':
        plan.afterwards.push(message);
        break;
      default:
        // A process group is registered again anyway.
        break;
    }
  }
  for (const handle of handles) {
    const conversion = conversions.get(handle.rid);
    plan.claims.push(claimOf(handle, conversion));
    if (conversion !== undefined && !isUpwards(handle, conversion)) plan.afterwards.push(conversion);
  }
  plan.claims.push(...waiting);
  return plan;
}

/** A conversion that waits for others, and keeps its place. */
function isUpwards(handle: LockHandle, conversion: Message<'ClientConvert'>): boolean {
  return conversion.mode > handle._mode && (conversion.flags & LOCK_TRY) === 0;
}

function claimOf(handle: LockHandle, conversion: Message<'ClientConvert'> | undefined): Message<'ClientReclaim'> {
  const { id, mode, te, tc, lvbState, lvb } = handle._granted;
  const isUp = conversion !== undefined && isUpwards(handle, conversion);
  const isDown = conversion !== undefined && conversion.mode < mode;
  const put = isDown ? conversion.lvb : null;
  return {
    k: 'ClientReclaim',
    rid: handle.rid,
    id,
    domain: handle.domain,
    name: handle.name,
    mode: isDown ? conversion.mode : mode,
    want: isUp ? conversion.mode : NONE,
    convert: isUp ? conversion.rid : 0,
    flags: handle.usesLvb || handle._isDirty || put !== null ? LOCK_LVB : 0,
    te,
    tc,
    se: 0,
    sc: 0,
    lvbState: put === null ? lvbState : 1,
    lvb: put ?? lvb,
    dirty: handle._isDirty || put !== null,
    timeoutMs: 0,
    why: handle.why,
  };
}

function placeOf(m: Message<'ClientLock'>, entry: Entry, now: number): ClientMessage {
  const timeoutMs = remaining(m.timeoutMs, entry, now);
  if (entry.place === null || (m.flags & LOCK_TRY) !== 0) return { ...m, timeoutMs };
  const { id, se, sc } = entry.place;
  const { rid, domain, name, flags, why } = m;
  const nothing = { mode: NONE, convert: 0, te: 0, tc: 0, lvbState: 0 as const, lvb: null, dirty: false };
  return { k: 'ClientReclaim', rid, id, domain, name, want: m.mode as Mode, flags, se, sc, timeoutMs, why, ...nothing };
}

/** What is left of a request's own limit; 0 = none. */
function remaining(timeoutMs: number, entry: Entry, now: number): number {
  if (timeoutMs === 0 || entry.due === 0) return timeoutMs;
  return Math.max(0.001, entry.due - ANSWER_SLACK_MS - now);
}
