/**
 * A case of the conformance table as data, and the words it is written in.
 *
 * A case is a list of steps. Each step is done by one owner (A, B, C: one mount each) and says what must come of it, as a
 * short text: 'ok', an errno name, 'waits', or the result itself. Where the kernel differs from tsdlm, `kernel` says what it
 * was seen to give; a step that makes sense on one of them only is marked `only`.
 * In paths the first component D or D2 stands for a domain name that is this run's own.
 */

export type Owner = 'A' | 'B' | 'C';
export type Call =
  | {
      op: 'mkdir' | 'rmdir' | 'unlink' | 'readdir' | 'stat' | 'link' | 'symlink' | 'rename' | 'truncate';
      path: string;
      mode?: number;
    }
  | { op: 'chmod'; path: string; mode: number }
  | { op: 'statfs' }
  /** `as` names the handle. `wait`: give it a name to be joined later. */
  | { op: 'open'; path: string; flags: number; mode?: number; as: string }
  | { op: 'read'; of: string; length?: number; position?: number | null }
  | { op: 'write'; of: string; data: string; position?: number | null }
  | { op: 'close' | 'blocked' | 'fstat'; of: string }
  /** The step named `of` that was waiting. */
  | { op: 'join'; of: string }
  | { op: 'abort'; of: string };

export interface Step {
  by: Owner;
  call: Call;
  /** 'ok', an errno, 'waits', or the result as text. */
  want: string;
  /** What the kernel gives where it differs. */
  kernel?: string;
  only?: 'kernel' | 'tsdlm';
  /** Name of a step that may wait; an open's handle name does as well. */
  as?: string;
}

export interface Case {
  id: string;
  title: string;
  owners: number;
  steps: Step[];
  /** Why the kernel cannot be asked (it would hang for ever). */
  kernelSkip?: string;
}

export const R = 0;
export const W = 1;
export const RW = 2;
export const CREAT = 0o100;
export const EXCL = 0o200;
export const TRUNC = 0o1000;
export const APPEND = 0o2000;
export const NB = 0o4000;
export const DIRECT = 0o40000;
export const DIRECTORY = 0o200000;

type More = Partial<Pick<Step, 'kernel' | 'only' | 'as'>>;

/** The steps of one owner, to be written in one line each. */
function owner(by: Owner) {
  const step = (call: Call, want: string, more: More = {}): Step => ({ by, call, want, ...more });
  const onPath =
    (op: 'mkdir' | 'rmdir' | 'unlink' | 'readdir' | 'stat' | 'link' | 'symlink' | 'rename' | 'truncate') =>
    (path: string, want = 'ok', more: More & { mode?: number } = {}): Step => {
      const { mode, ...rest } = more;
      return step({ op, path, ...(mode === undefined ? {} : { mode }) }, want, rest);
    };
  return {
    mkdir: onPath('mkdir'),
    rmdir: onPath('rmdir'),
    unlink: onPath('unlink'),
    readdir: onPath('readdir'),
    stat: onPath('stat'),
    link: onPath('link'),
    symlink: onPath('symlink'),
    rename: onPath('rename'),
    truncate: onPath('truncate'),
    chmod: (path: string, mode: number, want = 'ok'): Step => step({ op: 'chmod', path, mode }, want),
    statfs: (want: string): Step => step({ op: 'statfs' }, want),
    open: (as: string, path: string, flags: number, want = 'ok', more: More & { mode?: number } = {}): Step => {
      const { mode, ...rest } = more;
      return step({ op: 'open', path, flags, as, ...(mode === undefined ? {} : { mode }) }, want, { as, ...rest });
    },
    read: (of: string, want: string, position: number | null = 0, length = 64, more: More = {}): Step =>
      step({ op: 'read', of, position, length }, want, more),
    write: (of: string, data: string, want: string, position: number | null = 0, more: More = {}): Step =>
      step({ op: 'write', of, data, position }, want, more),
    close: (of: string, want = 'ok', more: More = {}): Step => step({ op: 'close', of }, want, more),
    blocked: (of: string, want: 'yes' | 'no', more: More = {}): Step => step({ op: 'blocked', of }, want, more),
    fstat: (of: string, want: string): Step => step({ op: 'fstat', of }, want),
    join: (of: string, want: string, more: More = {}): Step => step({ op: 'join', of }, want, more),
    abort: (of: string, more: More = {}): Step => step({ op: 'abort', of }, 'ok', more),
  };
}
export const A = owner('A');
export const B = owner('B');
export const C = owner('C');

export const long = (n: number): string => 'n'.repeat(n);
/** 64 bytes as `read` shows them: the count, and the bytes without the zeros at the end. */
export const ZEROS = '64:';
export const HUNDRED = 'x'.repeat(100);
export const SIXTYFOUR = `64:${'x'.repeat(64)}`;

export function one(id: string, title: string, ...steps: Step[]): Case {
  return { id, title, owners: 1, steps: [A.mkdir('/D'), ...steps] };
}
export function two(id: string, title: string, ...steps: Step[]): Case {
  return { id, title, owners: 2, steps: [A.mkdir('/D'), B.mkdir('/D'), ...steps] };
}
