/**
 * A process of its own that reads every record of a journal (see journal-files.ts): a damaged page may kill it, and that
 * must not be the daemon. Arguments: control/, locks/, boot id. locks/ of another boot is not read, it does not count.
 * Exit 0 = all records are whole; else one JSON line says what is not.
 */
import { TsdlmError } from '../protocol/errors.js';
import { checkFiles } from './journal-files.js';
import { LOCKS_BOOT_KEY, openStore } from './journal-store.js';

const [control, locks, bootId] = process.argv.slice(2);
try {
  if (control === undefined || locks === undefined)
    throw new TsdlmError('TSDLM_USAGE', 'usage: journal-check CONTROL LOCKS BOOT');
  const records = openStore(control, true).load();
  if (records.get(LOCKS_BOOT_KEY) === bootId) {
    checkFiles(locks);
    openStore(locks, false).load();
  }
} catch (error) {
  const code = error instanceof TsdlmError ? error.code : 'TSDLM_JOURNAL_CORRUPT';
  process.stdout.write(`${JSON.stringify({ code, message: (error as Error).message })}\n`);
  process.exitCode = 1;
}
