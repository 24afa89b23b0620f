/**
 * The master's answers to the owner of a lock: a local one directly, another by message.
 *
 * The problem: the master's side (serve.ts) must not care where an owner lives, nor import the owner's side.
 *
 * The idea: it answers through the hooks of the state, and these functions are behind them.
 */
import { ERROR_CODES, type ErrorCode } from '../protocol/errors.js';
import type { Mode } from '../protocol/modes.js';
import { onBast, onDenied, onGranted, onUnlocked } from './answers.js';
import type { Lock } from './lock.js';
import type { EngineState } from './state.js';

export function tellGranted(s: EngineState, lock: Lock): void {
  if (lock.node === s.self) return onGranted(s, lock);
  s.send(lock.res.domain, lock.node, {
    k: 'Grant',
    id: lock.id,
    mode: lock.mode as Mode,
    te: lock.te,
    tc: lock.tc,
    lvbState: lock.lvbState,
    lvb: lock.lvb,
  });
}

export function tellDenied(s: EngineState, lock: Lock, code: ErrorCode): void {
  if (lock.node === s.self) return onDenied(s, lock, code);
  if (lock.mode === -1) lock.res.domain.remote.get(lock.node)?.delete(lock.id);
  s.send(lock.res.domain, lock.node, { k: 'Deny', id: lock.id, code: ERROR_CODES[code] });
}

export function tellUnlocked(s: EngineState, lock: Lock): void {
  if (lock.node === s.self) return onUnlocked(s, lock);
  lock.res.domain.remote.get(lock.node)?.delete(lock.id);
  s.send(lock.res.domain, lock.node, { k: 'UnlockDone', id: lock.id });
}

export function tellBast(s: EngineState, lock: Lock, mode: Mode): void {
  if (lock.node === s.self) return onBast(s, lock, mode);
  s.send(lock.res.domain, lock.node, { k: 'Bast', id: lock.id, mode });
}
