/** What programs import from 'tsdlm'. Everything else under src/ may change without notice. */
export { type ErrorCode, TsdlmError } from '../protocol/errors.js';
export { LVB_BYTES, NAME_BYTES_MAX } from '../protocol/limits.js';
export { EX, type Mode, type ModeName, modeFromName, modeName, NL, PR } from '../protocol/modes.js';
export { Client, connect } from './client.js';
export { monotonicMs } from './clock.js';
export type { HandleEvents, LockHandle, LvbStateName, SuspendReason } from './handle.js';
export { defaultAbortBefore } from './lease-watch.js';
export type { CancelSignal, ConnectOptions, ConvertOptions, LockOptions } from './options.js';
