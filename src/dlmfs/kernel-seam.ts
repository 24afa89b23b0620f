/** Where the kernel's backend is asked for: null when no ocfs2_dlmfs is mounted at the path. */
import type { Dlmfs } from './types.js';

export async function kernelDlmfs(_path: string): Promise<Dlmfs | null> {
  return null;
}
