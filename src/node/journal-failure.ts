/** Whatever the journal threw, as the error that ends the daemon. */
import { TsdlmError } from '../protocol/errors.js';

export function asJournalError(error: unknown): TsdlmError {
  if (error instanceof TsdlmError) return error;
  return new TsdlmError('TSDLM_JOURNAL_FAILED', `the journal failed: ${String(error)}`, { cause: error });
}
