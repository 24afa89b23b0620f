/**
 * Thousands of generated damages: a journal that was flipped, cut, torn, mixed with older or foreign parts, or of which something was
 * removed, is refused with a code and the way out, or starts exactly where it had confirmed to be, and can be written on.
 * Anything else is a silent wrong start. TSDLM_TEST_SEED repeats a run, TSDLM_TEST_CASES sets the number of cases.
 */
import { existsSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import t from 'tap';
import { openJournal } from '../../src/node/journal.js';
import { TsdlmError } from '../../src/protocol/errors.js';
import { entry, nodeOwned, options } from '../fixtures/journal.js';
import { type Around, DAMAGES } from '../fixtures/journal-damage.js';
import { contentsOf, type Files, type Image, type Life, live, writeFiles } from '../fixtures/journal-images.js';
import { Prng } from '../sim/prng.js';

const SEED = Number(process.env.TSDLM_TEST_SEED ?? Math.floor(Math.random() * 2 ** 31));
const CASES = Number(process.env.TSDLM_TEST_CASES ?? 2400);
const LIVES = 12;
const REFUSALS = new Set(['TSDLM_JOURNAL_CORRUPT', 'TSDLM_JOURNAL_FOREIGN', 'TSDLM_JOURNAL_TOO_NEW']);

/** In memory where there is such a place: nothing here is about power loss. */
function makeDir(t: { teardown(fn: () => void): unknown }): string {
  const dir = mkdtempSync(join(existsSync('/dev/shm') ? '/dev/shm' : tmpdir(), 'tsdlm-test-'));
  t.teardown(() => rmSync(dir, { recursive: true, force: true }));
  return dir;
}

/** Opens it, and if that works writes on and looks again. Returns what happened: 'refused', 'harmless', or a complaint. */
async function judge(dir: string, truth: Image, life: Life): Promise<{ what: string; code: string }> {
  const mine = options(dir, { ...life.owner, bootId: truth.bootId });
  let term = 0;
  try {
    const journal = await openJournal(mine);
    try {
      const found = contentsOf(journal);
      if (found !== truth.contents) return { what: `started with ${found.slice(0, 300)}`, code: '' };
      const state = journal.loadControl();
      term = state.term + 1;
      const index = (state.snapshot?.index ?? 0) + state.entries.length + 1;
      await journal.raiseStartCount();
      await Promise.all([
        journal.persist({ ticket: 1, hard: { term, vote: 1 }, entries: [entry(index, term)] }),
        journal.writeNodeOwned({ op: 'put', record: nodeOwned(1000) }),
        journal.writeNodeOwned({ op: 'del', id: 1 }),
      ]);
    } finally {
      await journal.close();
    }
  } catch (error) {
    if (!(error instanceof TsdlmError)) throw error;
    const hasWayOut = /state_dir|state directory/.test(error.message);
    return REFUSALS.has(error.code) && hasWayOut
      ? { what: 'refused', code: error.code }
      : { what: `refused badly: ${error.code} ${error.message}`, code: error.code };
  }
  const journal = await openJournal(mine);
  const state = journal.loadControl();
  const ids = journal.loadNodeOwned().map((r) => r.id);
  await journal.close();
  const isRight = state.term === term && state.entries.at(-1)?.term === term && ids.includes(1000) && !ids.includes(1);
  return { what: isRight ? 'harmless' : 'lost what was written after it had started', code: '' };
}

t.test(`S5: ${CASES} damaged journals, none starts wrong (TSDLM_TEST_SEED=${SEED})`, async (t) => {
  t.setTimeout(240_000);
  const dir = makeDir(t);
  const random = new Prng(SEED);
  const lives: Life[] = [];
  for (let i = 0; i < LIVES; i++) lives.push(await live(dir, {}, random));
  const otherNode = await live(dir, { nodeId: 2 }, random);
  const otherCluster = await live(dir, { clusterName: 'other' }, random);
  const kinds = Object.keys(DAMAGES);
  const seen = new Map<string, number>();
  let wrong = 0;
  let done = 0;
  for (let i = 0; done < CASES; i++) {
    const kind = kinds[i % kinds.length] as string;
    const life = random.pick(lives);
    const at = 1 + random.int(life.images.length - 1);
    const newest = life.images[at] as Image;
    const around: Around = { newest, older: life.images.slice(0, at), otherNode, otherCluster, random };
    const files: Files = new Map(newest.files);
    if (DAMAGES[kind]?.(around, files) === false) continue;
    done++;
    writeFiles(join(dir, 'case'), files);
    const { what, code } = await judge(join(dir, 'case'), newest, life);
    const how = what === 'harmless' || what === 'refused' ? what : 'WRONG';
    seen.set(`${kind} ${how}`, (seen.get(`${kind} ${how}`) ?? 0) + 1);
    if (how === 'WRONG' && ++wrong <= 5) {
      t.fail(
        `case ${i}, ${kind}, image ${at} of ${life.images.length}: ${what} ${code}; right was ${newest.contents.slice(0, 300)}`,
      );
    }
  }
  for (const kind of kinds) {
    const count = (how: string): number => seen.get(`${kind} ${how}`) ?? 0;
    t.comment(`${kind}: ${count('refused')} refused, ${count('harmless')} harmless, ${count('WRONG')} wrong`);
  }
  t.equal(wrong, 0, `${CASES} cases`);
  const refused = [...seen].filter(([key]) => key.endsWith(' refused')).reduce((sum, [, n]) => sum + n, 0);
  t.ok(refused > CASES / 3, `${refused} were refused`);
});

t.test('the whole directory put back as it was starts as it was: only the cluster can tell (rule 12)', async (t) => {
  const dir = makeDir(t);
  const life = await live(dir, {}, new Prng(1));
  const old = life.images[2] as Image;
  writeFiles(join(dir, 'case'), old.files);
  const journal = await openJournal(options(join(dir, 'case'), { bootId: old.bootId }));
  t.equal(contentsOf(journal), old.contents);
  await journal.close();
});
