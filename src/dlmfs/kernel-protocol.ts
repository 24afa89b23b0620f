/** What a process and its helper (kernel-helper.ts) say to each other: one JSON object a line. Bytes travel as base64. */

export interface KernelRequest {
  id: number;
  op:
    | 'mkdir'
    | 'rmdir'
    | 'readdir'
    | 'stat'
    | 'statfs'
    | 'unlink'
    | 'truncate'
    | 'chmod'
    | 'chown'
    | 'utimes'
    | 'rename'
    | 'link'
    | 'symlink'
    | 'open'
    | 'abandon'
    | 'close'
    | 'read'
    | 'write'
    | 'fstat'
    | 'ftruncate'
    | 'fchmod'
    | 'spawn';
  path?: string;
  to?: string;
  flags?: string | number;
  mode?: number;
  length?: number;
  /** open: report when others want the lock. Only for files of ocfs2_dlmfs. */
  watch?: boolean;
  /** open: when this side is gone, give the lock up altogether (unlink), not just close it. */
  release?: boolean;
  /** Number of an open file. */
  h?: number;
  /** abandon: the request that nobody waits for any more. */
  target?: number;
  data?: string;
  position?: number;
  uid?: number;
  gid?: number;
  atimeMs?: number;
  mtimeMs?: number;
  argv?: string[];
  env?: Record<string, string>;
}

/** As node:fs gives it. */
export interface KernelErrorShape {
  code: string;
  errno: number;
  message: string;
  syscall?: string;
  path?: string;
}

export type KernelReply =
  | { id: number; value: unknown }
  | { id: number; error: KernelErrorShape }
  | { event: 'blocked'; h: number; isBlocked: boolean }
  | { event: 'exit'; code: number | null; signal: string | null };

/** Where a file stands in the helper, for `read`: what was read. */
export interface KernelOpened {
  h: number;
  /** Blocking notices will come. */
  isWatched: boolean;
}

/** Calls `line` for each complete line of a stream of text. Throws when one is longer than `bytesMax`. */
export class LineReader {
  #rest = '';
  readonly #line: (line: string) => void;
  readonly #charsMax: number;

  constructor(line: (line: string) => void, charsMax = 1024 * 1024) {
    this.#line = line;
    this.#charsMax = charsMax;
  }

  push(chunk: string): void {
    this.#rest += chunk;
    for (let end = this.#rest.indexOf('\n'); end >= 0; end = this.#rest.indexOf('\n')) {
      const line = this.#rest.slice(0, end);
      this.#rest = this.#rest.slice(end + 1);
      if (line !== '') this.#line(line);
    }
    if (this.#rest.length > this.#charsMax) throw new Error(`a line of more than ${this.#charsMax} characters`);
  }
}
