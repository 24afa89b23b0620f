/** What programs import from 'tsdlm/dlmfs'. */
export { DlmfsError, type Errno } from './errno.js';
export { type OpenDlmfsOptions, openDlmfs } from './open.js';
export {
  DLMFS_MAGIC,
  type Dlmfs,
  type DlmfsBackend,
  type DlmfsHandle,
  type DlmfsOpenOptions,
  type DlmfsStatFs,
  type DlmfsStats,
  FILE_DOMAIN_BYTES_MAX,
  FILE_LOCK_BYTES_MAX,
  LOCK_FILE_SIZE,
} from './types.js';
