/**
 * What each operation of the file API gives, as data, for every backend: the in-process shim, the 9P server through a
 * test client, and the real ocfs2_dlmfs in a virtual machine.
 *
 * A case is a list of steps. Each step is done by one owner (A, B, C: one mount each) and says what must come of it, as a
 * short text that `runCase` compares: 'ok', an errno name, 'waits', or the result itself. Where the kernel differs from
 * tsdlm, `kernel` says what it was seen to give; a step that makes sense on one of them only is marked `only`.
 * In paths the first component D or D2 stands for a domain name that is this run's own.
 */
import type { Dlmfs, DlmfsHandle } from '../../src/dlmfs/types.js';

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

const R = 0;
const W = 1;
const RW = 2;
const CREAT = 0o100;
const EXCL = 0o200;
const TRUNC = 0o1000;
const APPEND = 0o2000;
const NB = 0o4000;
const DIRECT = 0o40000;
const DIRECTORY = 0o200000;

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
const A = owner('A');
const B = owner('B');
const C = owner('C');

const long = (n: number): string => 'n'.repeat(n);
/** 64 bytes as `read` shows them: the count, and the bytes without the zeros at the end. */
const ZEROS = '64:';
const HUNDRED = 'x'.repeat(100);
const SIXTYFOUR = `64:${'x'.repeat(64)}`;

function one(id: string, title: string, ...steps: Step[]): Case {
  return { id, title, owners: 1, steps: [A.mkdir('/D'), ...steps] };
}
function two(id: string, title: string, ...steps: Step[]): Case {
  return { id, title, owners: 2, steps: [A.mkdir('/D'), B.mkdir('/D'), ...steps] };
}

/** Names and attributes, one owner. */
const NAMES: Case[] = [
  { id: 'statfs', title: 'statfs says ocfs2_dlmfs', owners: 1, steps: [A.statfs('0x76a9f425 4096')] },
  { id: 'root', title: 'stat of the root', owners: 1, steps: [A.stat('/', 'dir 0755 size 0')] },
  one('domain-stat', 'stat of a domain', A.stat('/D', 'dir 0755 size 0 nlink 2')),
  one('mkdir-again', 'mkdir of a domain that is there', A.mkdir('/D', 'EEXIST')),
  one('mkdir-nested', 'no directories in a domain', A.mkdir('/D/sub', 'EPERM')),
  {
    id: 'mkdir-names',
    title: 'domain names: 63 bytes at most, anything else allowed',
    owners: 1,
    steps: [
      A.mkdir(`/${long(62)}`),
      A.mkdir(`/${long(63)}`),
      A.mkdir(`/${long(64)}`, 'EINVAL'),
      A.mkdir(`/${long(255)}`, 'EINVAL'),
      A.mkdir(`/${long(256)}`, 'ENAMETOOLONG'),
      A.mkdir('/$x'),
      A.mkdir('/.hidden'),
      A.mkdir('/a b é'),
      A.rmdir(`/${long(62)}`),
      A.rmdir(`/${long(63)}`),
      A.rmdir('/$x'),
      A.rmdir('/.hidden'),
      A.rmdir('/a b é'),
    ],
  },
  {
    id: 'root-files',
    title: 'no files in the root',
    owners: 1,
    steps: [A.open('h', '/rootfile', RW | CREAT, 'EACCES'), A.open('h', '/rootfile', RW, 'ENOENT')],
  },
  one(
    'missing',
    'a lock that is not there',
    A.open('h', '/D/no', R, 'ENOENT'),
    A.open('h', '/D/no', RW, 'ENOENT'),
    A.open('h', '/D/no', RW | NB, 'ENOENT'),
    A.open('h', `/D/${long(40)}`, RW, 'ENOENT'),
    A.stat('/D/no', 'ENOENT'),
    A.unlink('/D/no', 'ENOENT'),
    A.open('h', '/nodomain/l', RW | CREAT, 'ENOENT'),
    A.rmdir('/nodomain', 'ENOENT'),
    A.readdir('/nodomain', 'ENOENT'),
  ),
  one(
    'lock-names',
    'lock names: 31 bytes at most, no $ in front',
    A.open('a', `/D/${long(31)}`, RW | CREAT),
    A.open('b', `/D/${long(32)}`, RW | CREAT, 'EINVAL'),
    A.open('c', `/D/${long(255)}`, RW | CREAT, 'EINVAL'),
    A.open('d', `/D/${long(256)}`, RW | CREAT, 'ENAMETOOLONG'),
    A.open('e', '/D/$x', RW | CREAT, 'EINVAL'),
    A.open('f', '/D/.x', RW | CREAT),
    A.open('g', '/D/new\nline', RW | CREAT),
    A.open('h', '/D/é€', RW | CREAT),
    A.open('i', `/D/${'é'.repeat(16)}`, RW | CREAT, 'EINVAL'),
  ),
  one('two-slashes', 'a slash too many is no matter', A.open('h', '/D//contendme', R | CREAT), A.readdir('/D', 'contendme')),
  one(
    'lock-stat',
    'stat of a lock: 64 bytes, the mode as created',
    A.open('h', '/D/l', RW | CREAT, 'ok', { mode: 0o755 }),
    A.stat('/D/l', 'file 0755 size 64 nlink 1'),
    A.fstat('h', 'file 0755 size 64 nlink 1'),
    A.chmod('/D/l', 0o640),
    A.stat('/D/l', 'file 0640 size 64 nlink 1'),
  ),
  one(
    'excl',
    'O_EXCL is about the name on this mount',
    A.open('a', '/D/l', RW | CREAT | EXCL),
    A.open('b', '/D/l', RW | CREAT | EXCL, 'EEXIST'),
    A.open('c', '/D', RW | CREAT | EXCL, 'EEXIST'),
    A.close('a'),
    A.unlink('/D/l'),
  ),
  one('direct', 'O_DIRECT', A.open('a', '/D/l', RW | CREAT), A.open('b', '/D/l', RW | DIRECT, 'EINVAL')),
  one(
    'trunc-append',
    'O_TRUNC and O_APPEND change nothing',
    A.open('a', '/D/l', RW | CREAT),
    A.write('a', 'keep', '4'),
    A.close('a'),
    A.open('b', '/D/l', RW | CREAT | TRUNC | APPEND),
    A.read('b', '64:keep'),
    A.write('b', 'KE', '2', null),
    A.read('b', '64:KEep'),
    A.truncate('/D/l'),
    A.read('b', '64:KEep'),
    A.stat('/D/l', 'file 0644 size 64 nlink 1'),
  ),
  one(
    'absent-ops',
    'rename, link, symlink',
    A.open('a', '/D/l', RW | CREAT),
    A.rename('/D/l', 'EPERM'),
    A.link('/D/l', 'EPERM'),
    A.symlink('/D/s', 'EPERM'),
    A.rename('/D', 'EPERM'),
  ),
  one(
    'wrong-kind',
    'a lock is no directory and the other way round',
    A.open('a', '/D/l', RW | CREAT),
    A.rmdir('/D/l', 'ENOTDIR'),
    A.unlink('/D', 'EISDIR'),
    A.open('b', '/D', RW, 'EISDIR'),
    A.open('c', '/D/l/x', R, 'ENOTDIR'),
    A.open('d', '/D/l', R | DIRECTORY, 'ENOTDIR'),
    A.mkdir('/D/l/x', 'ENOTDIR'),
  ),
  one('opendir', 'a directory is opened without a lock', A.open('a', '/D', R | NB | DIRECTORY), A.close('a')),
  one(
    'rmdir',
    'rmdir of a domain with lock files',
    A.open('a', '/D/l', RW | CREAT),
    A.close('a'),
    A.rmdir('/D', 'ENOTEMPTY'),
    A.unlink('/D/l'),
    A.rmdir('/D'),
    A.stat('/D', 'ENOENT'),
    A.mkdir('/D'),
  ),
  one(
    'unlink-open',
    'unlink of an open lock',
    A.open('a', '/D/l', R | CREAT),
    A.unlink('/D/l', 'EBUSY'),
    A.close('a'),
    A.unlink('/D/l'),
    A.readdir('/D', ''),
  ),
  one(
    'access',
    'reading and writing by access mode',
    A.open('w', '/D/l', W | CREAT),
    A.read('w', 'EBADF'),
    A.write('w', 'w', '1'),
    A.open('r', '/D/l', R),
    A.write('r', 'x', 'EBADF'),
    A.read('r', '64:w'),
    A.open('n', '/D/l', 3),
    A.read('n', 'EBADF'),
    A.write('n', 'x', 'EBADF'),
  ),
];

/** The value block, one owner. */
const VALUES: Case[] = [
  one('lvb-fresh', 'a fresh lock reads as zeros', A.open('a', '/D/l', R | CREAT), A.read('a', ZEROS)),
  one(
    'lvb-position',
    'reads follow the position',
    A.open('a', '/D/l', RW | CREAT),
    A.write('a', 'hello', '5', null),
    A.read('a', '59:', null),
    A.read('a', '0:', null),
    A.read('a', '64:hello', 0, 100),
    A.read('a', '2:lo', 3, 2),
    A.read('a', '4:', 60),
    A.read('a', '0:', 64),
    A.read('a', '0:', 1000),
  ),
  one(
    'lvb-long',
    'a write is cut at 64 bytes, and refused behind them',
    A.open('a', '/D/l', RW | CREAT),
    A.write('a', HUNDRED, '64'),
    A.read('a', SIXTYFOUR),
    A.write('a', 'y', 'ENOSPC', 64),
    A.write('a', 'y', 'ENOSPC', 1000),
    A.write('a', '', '0'),
  ),
  one(
    'lvb-offset',
    'a write goes where it is said to',
    A.open('a', '/D/l', RW | CREAT),
    A.write('a', 'abcdef', '6'),
    A.write('a', 'XYZ', '3', 10),
    A.read('a', '64:abcdef\0\0\0\0XYZ', 0, 64, { kernel: '64:XYZdef' }),
    A.write('a', '0123456789', '4', 60),
    A.write('a', '!', '1', 63),
  ),
  one(
    'lvb-kept',
    'short writes leave the rest',
    A.open('a', '/D/l', RW | CREAT),
    A.write('a', 'from A', '6'),
    A.write('a', 'B!', '2'),
    A.read('a', '64:B!om A'),
  ),
];

/** One node is one owner. */
const SAME: Case[] = [
  one(
    'same-owner',
    'handles of one mount never exclude each other',
    A.open('a', '/D/l', RW | CREAT),
    A.open('b', '/D/l', RW | NB),
    A.open('c', '/D/l', R | NB),
    A.open('d', '/D/l', RW),
    A.close('a'),
    A.close('b'),
    A.close('c'),
    A.unlink('/D/l', 'EBUSY'),
    A.close('d'),
    A.close('d', 'EBADF'),
    A.unlink('/D/l'),
  ),
  one(
    'same-upgrade',
    'a reader does not hinder a writer of the same mount',
    A.open('a', '/D/l', R | CREAT),
    A.open('b', '/D/l', RW | NB),
    A.write('b', 'new', '3'),
    A.read('a', '64:new'),
    A.close('b'),
    A.open('c', '/D/l', RW),
  ),
];

/** Between two owners. */
const BETWEEN: Case[] = [
  {
    id: 'own-names',
    title: 'each mount sees only what it made itself',
    owners: 2,
    steps: [
      A.mkdir('/D'),
      A.open('a', '/D/l', RW | CREAT),
      B.open('b', '/D/l', RW, 'ENOENT'),
      B.mkdir('/D'),
      B.readdir('/D', ''),
      B.open('b', '/D/l', RW | NB, 'ENOENT'),
      B.open('b', '/D/l', RW | CREAT | NB, 'ETXTBSY'),
      B.readdir('/D', 'l'),
      B.open('b', '/D/l', RW | CREAT | EXCL, 'EEXIST'),
      B.stat('/D/l', 'file 0644 size 64 nlink 1'),
      B.unlink('/D/l'),
    ],
  },
  two(
    'try-busy',
    'a try against a holder fails with ETXTBSY and sends no BAST (rule 22)',
    A.open('a', '/D/l', RW | CREAT),
    B.open('b', '/D/l', RW | CREAT | NB, 'ETXTBSY'),
    B.open('b', '/D/l', R | CREAT | NB, 'ETXTBSY'),
    A.blocked('a', 'no'),
    A.close('a'),
  ),
  two(
    'try-kept',
    'a try against a lock that is closed but kept fails, and recalls nothing (rule 22)',
    B.open('b', '/D/l', RW | CREAT),
    B.close('b'),
    A.open('a', '/D/l', RW | CREAT | NB, 'ETXTBSY'),
    A.open('a', '/D/l', R | NB, 'ETXTBSY'),
    A.open('a', '/D/l', RW | NB, 'ETXTBSY'),
    B.open('b', '/D/l', RW | NB),
    B.close('b'),
    A.open('a', '/D/l', RW),
    B.open('b', '/D/l', RW | NB, 'ETXTBSY'),
  ),
  two(
    'try-unlinked',
    'unlink gives the lock up',
    A.open('a', '/D/l', RW | CREAT),
    A.close('a'),
    A.unlink('/D/l'),
    B.open('b', '/D/l', RW | CREAT | NB),
  ),
  two(
    'wait',
    'a blocking open waits, the holder can see it, its close hands over',
    A.open('a', '/D/l', RW | CREAT),
    B.open('b', '/D/l', RW | CREAT, 'waits'),
    A.blocked('a', 'yes'),
    A.unlink('/D/l', 'EBUSY'),
    A.close('a'),
    B.join('b', 'ok'),
    A.open('a2', '/D/l', RW | NB, 'ETXTBSY'),
  ),
  two(
    'shared',
    'readers share; a kept PR refuses a try for EX and yields to a wait',
    A.open('a', '/D/l', R | CREAT | NB),
    B.open('b', '/D/l', R | CREAT | NB),
    B.open('x', '/D/l', RW | NB, 'ETXTBSY'),
    A.close('a'),
    B.open('x', '/D/l', RW | NB, 'ETXTBSY'),
    B.close('b'),
    B.open('x', '/D/l', RW),
    A.open('a', '/D/l', R | NB, 'ETXTBSY'),
  ),
  two(
    'down-to-pr',
    'a kept EX goes down to PR for a reader, and is kept as that',
    B.open('b', '/D/l', RW | CREAT),
    B.close('b'),
    A.open('a', '/D/l', R | CREAT),
    B.open('r', '/D/l', R | NB),
    B.open('w', '/D/l', RW | NB, 'ETXTBSY'),
  ),
  two(
    'down-to-nl',
    'a kept PR goes away for a writer',
    B.open('b', '/D/l', R | CREAT),
    B.close('b'),
    A.open('a', '/D/l', RW | CREAT),
    B.open('r', '/D/l', R | NB, 'ETXTBSY'),
  ),
  two(
    'blocked-local-try',
    'a local try while others wait is refused at once; the kernel lets it wait',
    A.open('a', '/D/l', RW | CREAT),
    B.open('b', '/D/l', RW | CREAT, 'waits'),
    A.open('t', '/D/l', RW | NB, 'ETXTBSY', { kernel: 'waits' }),
    A.open('u', '/D/l', R | NB, 'ETXTBSY', { kernel: 'waits' }),
    A.close('a'),
    B.join('b', 'ok'),
    A.join('t', 'ETXTBSY', { only: 'kernel' }),
    A.join('u', 'ETXTBSY', { only: 'kernel' }),
  ),
  two(
    'blocked-local-wait',
    'local openers wait behind those who waited before',
    A.open('a', '/D/l', RW | CREAT),
    B.open('b', '/D/l', RW | CREAT, 'waits'),
    A.open('c', '/D/l', RW, 'waits'),
    A.close('a'),
    B.join('b', 'ok'),
    B.close('b'),
    A.join('c', 'ok'),
  ),
  two(
    'blocked-pr',
    'a reader is let in beside readers while another mount waits to read',
    A.open('a', '/D/l', RW | CREAT),
    B.open('b', '/D/l', R | CREAT, 'waits'),
    A.open('r', '/D/l', R),
    A.close('a'),
    B.join('b', 'ok'),
    A.open('x', '/D/l', RW | NB, 'ETXTBSY'),
  ),
  two(
    'waiter-try',
    'a try of the mount that waits is refused; the kernel lets it wait too',
    A.open('a', '/D/l', RW | CREAT),
    B.open('b', '/D/l', RW | CREAT, 'waits'),
    B.open('t', '/D/l', RW | NB, 'ETXTBSY', { kernel: 'waits' }),
    A.close('a'),
    B.join('b', 'ok'),
    B.join('t', 'ok', { only: 'kernel' }),
  ),
  two(
    'waiter-unlink',
    'unlink of a name that a handle waits for: refused; the kernel waits and gives the waiter EAGAIN',
    A.open('a', '/D/l', RW | CREAT),
    B.open('b', '/D/l', RW | CREAT, 'waits'),
    B.unlink('/D/l', 'EBUSY', { kernel: 'waits', as: 'u' }),
    A.close('a'),
    B.join('u', 'ok', { only: 'kernel' }),
    B.join('b', 'ok', { kernel: 'EAGAIN' }),
  ),
  two(
    'waiter-abort',
    'a waiting open can be withdrawn, and nothing is left of it',
    A.open('a', '/D/l', RW | CREAT),
    B.open('b', '/D/l', RW | CREAT, 'waits', { only: 'tsdlm' }),
    B.abort('b', { only: 'tsdlm' }),
    B.join('b', 'aborted', { only: 'tsdlm' }),
    A.close('a'),
    // Not a try: whoever masters the lock may hear of the withdrawal a moment later than the one who withdrew.
    A.open('c', '/D/l', RW, 'ok'),
    A.close('c'),
    B.open('d', '/D/l', RW | CREAT | NB, 'ETXTBSY'),
  ),
  {
    ...two(
      'upgrade-deadlock',
      'two mounts that share and both want it alone: one is told so',
      A.open('a', '/D/l', R | CREAT),
      B.open('b', '/D/l', R | CREAT),
      A.open('ax', '/D/l', RW, 'waits'),
      B.open('bx', '/D/l', RW, 'EDEADLK'),
      B.close('b'),
      A.join('ax', 'ok'),
    ),
    kernelSkip: 'it deadlocks and does not notice',
  },
  two(
    'upgrade-kept',
    'two mounts that keep PR and both want EX get it one after the other',
    A.open('a', '/D/l', R | CREAT),
    B.open('b', '/D/l', R | CREAT),
    A.close('a'),
    B.close('b'),
    A.open('ax', '/D/l', RW),
    B.open('bx', '/D/l', RW, 'waits'),
    A.close('ax'),
    B.join('bx', 'ok'),
  ),
  two(
    'lvb-over',
    'the value block goes where the lock goes',
    A.open('a', '/D/l', RW | CREAT),
    A.write('a', 'from A', '6'),
    A.close('a'),
    B.open('r', '/D/l', R | CREAT),
    B.read('r', '64:from A'),
    B.close('r'),
    B.open('w', '/D/l', RW),
    B.write('w', 'B!', '2'),
    B.close('w'),
    A.open('r', '/D/l', R),
    A.read('r', '64:B!om A'),
  ),
  two(
    'lvb-unlink',
    'unlink publishes the value block',
    B.open('n', '/D/l', RW | CREAT),
    B.close('n'),
    A.open('a', '/D/l', RW | CREAT),
    A.write('a', 'last words', '10'),
    A.close('a'),
    A.unlink('/D/l'),
    B.open('b', '/D/l', R | CREAT),
    B.read('b', '64:last words'),
    A.open('a', '/D/l', R | CREAT),
    A.read('a', '64:last words'),
  ),
  two(
    'rmdir-other',
    'a domain may be left while others hold locks in it',
    B.open('b', '/D/l', RW | CREAT),
    A.rmdir('/D'),
    A.mkdir('/D'),
    A.open('a', '/D/l', RW | CREAT | NB, 'ETXTBSY'),
  ),
];

/** Three owners. */
const THREE: Case[] = [
  {
    id: 'three-order',
    title: 'waiters are served in the order in which they came',
    owners: 3,
    steps: [
      A.mkdir('/D'),
      B.mkdir('/D'),
      C.mkdir('/D'),
      A.open('a', '/D/l', RW | CREAT),
      B.open('b', '/D/l', RW | CREAT, 'waits'),
      C.open('c', '/D/l', RW | CREAT, 'waits'),
      A.close('a'),
      B.join('b', 'ok'),
      B.blocked('b', 'yes'),
      B.close('b'),
      C.join('c', 'ok'),
    ],
  },
  {
    id: 'three-readers',
    title: 'readers behind a writer that waits do not overtake it',
    owners: 3,
    steps: [
      A.mkdir('/D'),
      B.mkdir('/D'),
      C.mkdir('/D'),
      A.open('a', '/D/l', R | CREAT),
      B.open('b', '/D/l', RW | CREAT, 'waits'),
      C.open('t', '/D/l', R | CREAT | NB, 'ETXTBSY'),
      A.open('r', '/D/l', R | NB, 'ETXTBSY', { kernel: 'waits' }),
      A.close('a'),
      B.join('b', 'ok'),
      A.join('r', 'ETXTBSY', { only: 'kernel' }),
    ],
  },
];

export const CASES: readonly Case[] = [...NAMES, ...VALUES, ...SAME, ...BETWEEN, ...THREE];

/** What a case is run against. */
export interface Peer {
  /** Which of the two columns counts. */
  kind: 'kernel' | 'tsdlm';
  /** The mount of each owner. */
  owners: Record<string, Dlmfs>;
  /** Resolves when what was started has had the time to end: everything else is said to wait. */
  settle(): Promise<void>;
  /** Longest wait for a step that must end now, in milliseconds. */
  limitMs: number;
}

export interface StepResult {
  step: Step;
  want: string;
  got: string;
}

interface Running {
  promise: Promise<string>;
  result: string | null;
  abort: AbortController;
}

/** Runs a case; returns the steps that gave something else than was wanted. `domain` must be unused. */
export async function runCase(peer: Peer, c: Case, domain: string): Promise<StepResult[]> {
  const run = new CaseRun(peer, domain);
  const wrong: StepResult[] = [];
  try {
    for (const step of c.steps) {
      if (step.only !== undefined && step.only !== peer.kind) continue;
      const want = peer.kind === 'kernel' ? (step.kernel ?? step.want) : step.want;
      const got = await run.step(step, want);
      if (got !== want) {
        wrong.push({ step, want, got });
        break;
      }
    }
  } finally {
    await run.cleanUp();
  }
  return wrong;
}

/** One line for a step that went wrong. */
export function describeResult(c: Case, r: StepResult): string {
  return `${c.id}, step ${c.steps.indexOf(r.step) + 1}: ${r.step.by} ${JSON.stringify(r.step.call)}: wanted ${r.want}, got ${r.got}`;
}

class CaseRun {
  readonly #peer: Peer;
  readonly #domain: string;
  readonly #handles = new Map<string, DlmfsHandle>();
  readonly #running = new Map<string, Running>();
  readonly #domains = new Map<string, Set<string>>();

  constructor(peer: Peer, domain: string) {
    this.#peer = peer;
    this.#domain = domain;
  }

  async step(step: Step, want: string): Promise<string> {
    const { call, by } = step;
    if (call.op === 'abort') {
      this.#running.get(`${by}.${call.of}`)?.abort.abort();
      return 'ok';
    }
    if (call.op === 'join') {
      const running = this.#running.get(`${by}.${call.of}`);
      return running ? this.#end(running) : 'nothing to join';
    }
    const abort = new AbortController();
    const running: Running = { promise: Promise.resolve(''), result: null, abort };
    running.promise = this.#do(by, call, abort.signal).then(
      (text) => {
        running.result = text;
        return text;
      },
      (error: unknown) => {
        running.result = textOf(error, abort.signal);
        return running.result;
      },
    );
    if (step.as !== undefined) this.#running.set(`${by}.${step.as}`, running);
    if (want !== 'waits') return this.#end(running);
    await this.#peer.settle();
    return running.result ?? 'waits';
  }

  async #end(running: Running): Promise<string> {
    // A bed without a clock of its own runs only when it is driven.
    void this.#peer.settle();
    let timer: NodeJS.Timeout | undefined;
    const limit = new Promise<string>((resolve) => {
      timer = setTimeout(() => resolve('waits'), this.#peer.limitMs);
    });
    const result = await Promise.race([running.promise, limit]);
    clearTimeout(timer);
    return result;
  }

  #path(path: string): string {
    return path.replace(/^\/D(2?)(?=\/|$)/, (_, n: string) => `/${this.#domain}${n}`);
  }

  #handle(by: Owner, of: string): DlmfsHandle {
    const handle = this.#handles.get(`${by}.${of}`);
    if (!handle) throw new Error(`no handle ${by}.${of}`);
    return handle;
  }

  async #do(by: Owner, call: Exclude<Call, { op: 'abort' | 'join' }>, signal: AbortSignal): Promise<string> {
    const fs = this.#peer.owners[by];
    if (!fs) throw new Error(`no owner ${by}`);
    switch (call.op) {
      case 'mkdir':
        await fs.mkdir(this.#path(call.path), call.mode ?? 0o755);
        this.#domainsOf(by).add(this.#path(call.path));
        return 'ok';
      case 'rmdir':
        await fs.rmdir(this.#path(call.path));
        this.#domainsOf(by).delete(this.#path(call.path));
        return 'ok';
      case 'unlink':
        await fs.unlink(this.#path(call.path));
        return 'ok';
      case 'readdir':
        return (await fs.readdir(this.#path(call.path))).sort().join(',');
      case 'stat': {
        const s = await fs.stat(this.#path(call.path));
        const text = `${s.isDirectory() ? 'dir' : 'file'} 0${(s.mode & 0o7777).toString(8)} size ${s.size}`;
        return call.path === '/' ? text : `${text} nlink ${s.nlink}`;
      }
      case 'chmod':
        await fs.chmod(this.#path(call.path), call.mode);
        return 'ok';
      case 'truncate':
        await fs.truncate(this.#path(call.path), 3);
        return 'ok';
      case 'rename':
        await fs.rename(this.#path(call.path), `${this.#path(call.path)}2`);
        return 'ok';
      case 'link':
        await fs.link(this.#path(call.path), `${this.#path(call.path)}2`);
        return 'ok';
      case 'symlink':
        await fs.symlink('target', this.#path(call.path));
        return 'ok';
      case 'statfs': {
        const s = await fs.statfs();
        return `0x${s.type.toString(16)} ${s.bsize}`;
      }
      case 'open': {
        const handle = await fs.open(this.#path(call.path), call.flags, call.mode ?? 0o644, { signal });
        this.#handles.set(`${by}.${call.as}`, handle);
        return 'ok';
      }
      case 'read': {
        const length = call.length ?? 64;
        const { bytesRead, buffer } = await this.#handle(by, call.of).read(new Uint8Array(length), 0, length, call.position);
        return `${bytesRead}:${Buffer.from(buffer.subarray(0, bytesRead)).toString('latin1').replace(/\0+$/, '')}`;
      }
      case 'write': {
        const data = Buffer.from(call.data);
        return String((await this.#handle(by, call.of).write(data, 0, data.length, call.position)).bytesWritten);
      }
      case 'blocked': {
        const handle = this.#handle(by, call.of);
        await this.#peer.settle();
        return handle.isBlocked ? 'yes' : 'no';
      }
      case 'fstat': {
        const s = await this.#handle(by, call.of).stat();
        return `${s.isDirectory() ? 'dir' : 'file'} 0${(s.mode & 0o7777).toString(8)} size ${s.size} nlink ${s.nlink}`;
      }
      case 'close':
        await this.#handle(by, call.of).close();
        return 'ok';
    }
  }

  #domainsOf(by: string): Set<string> {
    let set = this.#domains.get(by);
    if (!set) {
      set = new Set();
      this.#domains.set(by, set);
    }
    return set;
  }

  /** Closes and removes everything, so that the next case finds an empty world. */
  async cleanUp(): Promise<void> {
    const closeAll = (): Promise<unknown> => Promise.allSettled([...this.#handles.values()].map((h) => h.close()));
    for (const running of this.#running.values()) if (running.result === null) running.abort.abort();
    // Closing one handle may let another be granted.
    for (let round = 0; round < 4; round++) {
      await closeAll();
      const open = [...this.#running.values()].filter((r) => r.result === null);
      if (open.length === 0) break;
      await Promise.all(open.map((r) => this.#end(r)));
    }
    await closeAll();
    for (const [by, domains] of this.#domains) {
      const fs = this.#peer.owners[by] as Dlmfs;
      for (const domain of domains) {
        const names = await fs.readdir(domain).catch(() => []);
        for (const name of names) await fs.unlink(`${domain}/${name}`).catch(() => {});
        await fs.rmdir(domain).catch(() => {});
      }
    }
  }
}

function textOf(error: unknown, signal: AbortSignal): string {
  if (signal.aborted) return 'aborted';
  const code = (error as { code?: unknown }).code;
  return typeof code === 'string' ? (code === 'ENOTSUP' ? 'EOPNOTSUPP' : code) : String(error);
}
