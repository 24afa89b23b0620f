/** S5 on a disk whose calls really fail: after some good ones a write or a sync returns an error to a process that writes. */
import { join } from 'node:path';
import t from 'tap';
import { DiskFault, type FailingCall, type FailureName } from '../fixtures/disk-fault.js';
import { tempDir } from '../fixtures/journal.js';
import { Kept, missingOf, writeUntilEnd } from '../fixtures/journal-said.js';

const CASES: { call: FailingCall; how: FailureName; word: string; code: RegExp }[] = [
  { call: 'sync', how: 'EIO', word: 'control/data.mdb', code: /FAILED/ },
  { call: 'sync', how: 'ENOSPC', word: 'control/data.mdb', code: /FULL|FAILED/ },
  { call: 'sync', how: 'EIO', word: 'stamps', code: /FAILED/ },
  { call: 'write', how: 'EIO', word: 'control/data.mdb', code: /FAILED/ },
  { call: 'write', how: 'ENOSPC', word: 'control/data.mdb', code: /FULL/ },
  { call: 'write', how: 'EROFS', word: 'control/data.mdb', code: /FAILED/ },
  { call: 'write', how: 'EIO', word: 'locks/data.mdb', code: /FAILED/ },
  { call: 'write', how: 'ENOSPC', word: 'locks/data.mdb', code: /FULL|FAILED/ },
  { call: 'write', how: 'EIO', word: 'stamps', code: /FAILED/ },
];
const SKIPS = [0, 3, 30];
/** Locks are confirmed much faster than what waits for a sync: so many lines are said before the last of those has failed. */
const LINES_MAX = 50_000;

t.test('S5: whichever call fails, what was confirmed before is there', async (t) => {
  t.setTimeout(120_000);
  const dir = tempDir(t);
  const disk = DiskFault.create(dir);
  if (disk === null) {
    t.comment('there is no gcc here: left out');
    return;
  }
  for (const { call, how, word, code } of CASES) {
    const state = join(dir, `${call}-${how}-${word.replace('/', '-')}`);
    const kept = new Kept();
    const first = await writeUntilEnd(state, 60);
    t.same(await missingOf(state, first.said, kept), []);
    for (const skip of SKIPS) {
      const what = `${call} of ${word} fails with ${how} after ${skip}`;
      disk.fail(call, how, `${state.slice(dir.length)}/${word}`, skip);
      const { said, code: exit } = await writeUntilEnd(state, LINES_MAX, disk.env);
      // lmdb writes past a buffer of its own when the write of a page fails: the process may be aborted before it can tell.
      const isAborted = call === 'write' && exit === null;
      t.ok(
        exit === 9 || isAborted,
        `${what}: it was told and ended, exit ${exit}, ${JSON.stringify(said.get('unhandled') ?? [])}`,
      );
      if (!isAborted) t.match(said.get('failed')?.[0], new RegExp(`^TSDLM_JOURNAL_(${code.source})$`), what);
      t.same(await missingOf(state, said, kept), [], what);
    }
  }
});
