import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import t from 'tap';
import { openJournal } from '../../src/node/journal.js';
import { BOOT, options, tempDir } from '../fixtures/journal.js';

const WRITER = fileURLToPath(new URL('../fixtures/journal-writer.js', import.meta.url));
const ROUNDS = 8;

/** Starts a writer and collects what it says was confirmed, until it has said `lines` lines; then kills it. */
async function writeUntilKilled(dir: string, lines: number): Promise<Map<string, number[]>> {
  const child: ChildProcess = spawn(process.execPath, [WRITER, dir, BOOT], { stdio: ['ignore', 'pipe', 'inherit'] });
  const said = new Map<string, number[]>();
  const closed = once(child, 'close');
  const timer = setTimeout(() => child.kill('SIGKILL'), 20_000);
  let count = 0;
  if (!child.stdout) throw new Error('no output');
  for await (const line of createInterface({ input: child.stdout })) {
    const [word, value] = line.split(' ') as [string, string];
    const list = said.get(word) ?? [];
    list.push(Number(value));
    said.set(word, list);
    if (++count === lines) child.kill('SIGKILL');
  }
  clearTimeout(timer);
  await closed;
  return said;
}

t.test(`S5: killed ${ROUNDS} times at any point, the journal still has what it confirmed`, async (t) => {
  const dir = join(tempDir(t), 'state');
  let starts = 0;
  const alive = new Set<number>();
  for (let round = 0; round < ROUNDS; round++) {
    const said = await writeUntilKilled(dir, 1 + Math.floor(Math.random() * 900));
    const last = (word: string): number => said.get(word)?.at(-1) ?? 0;
    starts++;
    t.equal(last('start'), starts, `round ${round}: the start count was raised exactly once`);
    for (const id of said.get('put') ?? []) alive.add(id);
    const gone = new Set(said.get('del'));
    const journal = await openJournal(options(dir, { clusterName: 'c' }));
    t.equal(journal.startCount, starts);
    const state = journal.loadControl();
    const end = (state.snapshot?.index ?? 0) + state.entries.length;
    t.ok(state.term >= last('term'), `term ${state.term} is not below the confirmed ${last('term')}`);
    t.ok(end >= last('entry') - 1, `log ends at ${end}, confirmed ${last('entry')}`);
    t.ok((state.snapshot?.index ?? 0) >= last('snap'), 'the snapshot is not older than the confirmed one');
    const found = new Set(journal.loadNodeOwned().map((r) => r.id));
    const missing = [...(said.get('put') ?? [])].filter((id) => !found.has(id) && !gone.has(id) && id % 3 !== 0);
    t.same(missing, [], 'no confirmed node-owned lock is missing');
    const risen = [...gone].filter((id) => found.has(id));
    t.same(risen, [], 'no lock whose deletion was confirmed is back');
    for (const r of journal.loadNodeOwned()) if (r.lvb?.some((b) => b !== r.id % 256)) t.fail(`value block of ${r.id}`);
    await journal.close();
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
