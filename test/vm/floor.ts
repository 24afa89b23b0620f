/**
 * Figures of the mount beside its floor: what the kernel's 9P client and a server that does nothing but answer cost in the same machine.
 *
 * `npm run test:vm -- floor`: for each operation the kernel's dlmfs, the floor (bench/floor-ninep.ts) and tsdlm take turns; compare
 * the ratios, not the times, which are those of an emulated processor.
 */
import { ok } from 'node:assert/strict';
import { inTurns, median, printRows } from '../../bench/rounds.js';
import { APP } from './image.js';
import type { GuestProcess, Machine } from './machine.js';
import { startAlone } from './mount.js';
import type { Suite } from './suite.js';

const SOCKET = '/run/p/tsdlm.sock';
const FLOOR_SOCKET = '/run/p/floor.sock';
const PATIENCE_MS = 120_000;
const ROUNDS = 9;
/** Compilers of an emulated processor are slow too. */
const WARM_UP_S = 6;
const TURN_S = 0.7;

const DIRS = {
  /** What the caller and the system calls cost. */
  tmpfs: '/tmp/fig',
  kernel: '/dlm/fig',
  floor: '/mnt/floor/fig',
  tsdlm: '/mnt/a/fig',
} as const;
type Where = keyof typeof DIRS;
const NAMES: Readonly<Record<Where, string>> = {
  tmpfs: 'tmpfs',
  kernel: "the kernel's dlmfs",
  floor: 'floor: 9P server without locks',
  tsdlm: 'tsdlm over 9P',
};
type What = 'kept' | 'fresh';
const TITLES: Readonly<Record<What, string>> = { kept: 'open + close of a kept lock', fresh: 'new lock + close + unlink' };

/** The guest's timer: one turn after the other. */
class Turns {
  readonly #p: GuestProcess;
  #turn = 0;

  constructor(p: GuestProcess) {
    this.#p = p;
  }

  /** Mean microseconds of the operation, and of its three calls for `fresh`. */
  async take(dir: string, what: What, seconds: number): Promise<number[]> {
    const turn = ++this.#turn;
    this.#p.write(`${dir} ${what} ${seconds}\n`);
    const [, figures = ''] = await this.#p.expect(new RegExp(`^turn ${turn} (.*)$`, 'm'), PATIENCE_MS);
    return figures.split(' ').slice(1).map(Number);
  }
}

/** Messages that the kernel's client sends for one operation. */
async function messages(m: Machine, floor: GuestProcess, turns: Turns, what: What): Promise<number> {
  const served = async (): Promise<number> => {
    const before = floor.out.length;
    await m.sh(`kill -USR2 ${floor.pid}`);
    await floor.until(() => floor.out.indexOf('\n', before) >= 0, PATIENCE_MS);
    return Number(/served (\d+)/.exec(floor.out.slice(before))?.[1]);
  };
  const before = await served();
  await turns.take(DIRS.floor, what, 0);
  return (await served()) - before;
}

async function measure(turns: Turns, what: What, report: (text: string) => void): Promise<void> {
  const parts = new Map<Where, number[][]>();
  const rows = await inTurns(
    `${TITLES[what]}, one caller, in the virtual machine`,
    (Object.keys(DIRS) as Where[]).map((where) => ({
      name: NAMES[where],
      unit: '/s' as const,
      ...(where === 'floor' ? {} : { against: NAMES.floor }),
      run: async () => {
        const [mean = Number.NaN, ...calls] = await turns.take(DIRS[where], what, TURN_S);
        const all = parts.get(where) ?? [];
        parts.set(where, all);
        all.push(calls);
        return 1e6 / mean;
      },
    })),
    ROUNDS,
    false,
  );
  ok(
    rows.every((r) => r.median > 0),
    JSON.stringify(rows),
  );
  printRows(rows);
  if (what !== 'fresh') return;
  for (const [where, all] of parts) {
    const call = (i: number): string => `${Math.round(median(all.map((calls) => calls[i] ?? Number.NaN)))} us`;
    report(`     ${NAMES[where]}: open ${call(0)}, close ${call(1)}, unlink ${call(2)}`);
  }
}

export const floorSuite: Suite = {
  name: 'floor',
  limitMs: 600_000,
  run: async (m: Machine, check, report) => {
    const daemon = await startAlone(m);
    const floor = m.start(['node', `${APP}/dist/bench/floor-server.js`, 'files', FLOOR_SOCKET]);
    const timer = m.start(['python3', `${APP}/turns.py`]);
    try {
      await check('the kernel mounts a 9P server without locks', async () => {
        await floor.expect(/ready/, PATIENCE_MS);
        await m.sh(`mkdir -p /mnt/floor && mount -t 9p -o trans=unix,version=9p2000.L,cache=none,access=any,msize=65536 \
          ${FLOOR_SOCKET} /mnt/floor`);
        await m.sh(`tsdlm --socket ${SOCKET} mount /mnt/a`, PATIENCE_MS);
        for (const dir of Object.values(DIRS)) await m.sh(`mkdir ${dir} && : >${dir}/kept`);
      });
      const turns = new Turns(timer);
      for (const what of ['kept', 'fresh'] as const) {
        await check(TITLES[what], async () => {
          for (const where of ['floor', 'tsdlm'] as const) await turns.take(DIRS[where], what, WARM_UP_S);
          report(`     the kernel's client sends ${await messages(m, floor, turns, what)} messages: ${TITLES[what]}`);
          await measure(turns, what, report);
        });
      }
    } finally {
      timer.close();
      for (const dir of Object.values(DIRS)) await m.run(['sh', '-c', `rm -f ${dir}/kept; rmdir ${dir}`]);
      await m.run(['tsdlm', '--socket', SOCKET, 'umount', '/mnt/a'], PATIENCE_MS);
      await m.run(['umount', '/mnt/floor']);
      floor.close();
      await m.run(['kill', '-TERM', String(daemon.pid)]);
      await daemon.result(PATIENCE_MS);
      daemon.close();
    }
  },
};
