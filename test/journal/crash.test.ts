import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { join } from 'node:path';
import t from 'tap';
import { openJournal } from '../../src/node/journal.js';
import { BOOT, options, tempDir } from '../fixtures/journal.js';
import { Kept, missingOf, WRITER, writeUntilEnd } from '../fixtures/journal-said.js';

const ROUNDS = 8;

t.test(`S5: killed ${ROUNDS} times at any point, the journal still has what it confirmed`, async (t) => {
  const dir = join(tempDir(t), 'state');
  let starts = 0;
  const kept = new Kept();
  for (let round = 0; round < ROUNDS; round++) {
    const { said } = await writeUntilEnd(dir, 1 + Math.floor(Math.random() * 900));
    starts++;
    t.same(said.get('start'), [String(starts)], `round ${round}: the start count was raised exactly once`);
    t.same(await missingOf(dir, said, kept), []);
  }
});

t.test('a journal whose user was killed is free at once; one whose user is stopped is not', async (t) => {
  const dir = join(tempDir(t), 'state');
  const child = spawn(process.execPath, [WRITER, dir, BOOT], { stdio: ['ignore', 'pipe', 'inherit'] });
  t.teardown(() => child.kill('SIGKILL'));
  await once(child.stdout, 'data');
  child.stdout.resume();
  await t.rejects(openJournal(options(dir)), { code: 'TSDLM_JOURNAL_IN_USE', message: new RegExp(`process ${child.pid} `) });
  child.kill('SIGSTOP');
  await t.rejects(openJournal(options(dir)), { code: 'TSDLM_JOURNAL_IN_USE' });
  child.kill('SIGKILL');
  await once(child, 'close');
  await (await openJournal(options(dir, { clusterName: 'c' }))).close();
});
