/** Cases of the conformance table: the value block, and handles of one mount beside each other. */
import { A, type Case, CREAT, HUNDRED, NB, one, R, RW, SIXTYFOUR, ZEROS } from './case.js';

/** The value block, one owner. */
export const VALUES: readonly Case[] = [
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
export const SAME: readonly Case[] = [
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
