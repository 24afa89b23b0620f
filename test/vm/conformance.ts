/** The conformance table on the real thing: every case is run in the guest against the kernel's ocfs2_dlmfs. */
import { equal } from 'node:assert/strict';
import { CASES } from '../dlmfs/conformance.js';
import { APP } from './image.js';
import type { Machine } from './machine.js';
import type { Check, Report, Suite } from './suite.js';

const LIMIT_MS = 600_000;
/** What three mounts of one node were seen to do; three nodes were not tried. */
const THREE_MOUNTS = {
  'three-order': 'of two mounts that wait, the later may be granted first',
  'three-readers': 'the try of a third mount waits while a second one waits for a holder',
};

/**
 * Runs the table in the guest; one check per case, and a line of what was the same. `differs`: cases that are known to differ,
 * with the reason.
 */
export async function runTable(
  m: Machine,
  check: Check,
  report: Report,
  kind: 'kernel' | 'tsdlm',
  dirs: readonly string[],
  options: { differs?: Readonly<Record<string, string>>; only?: readonly string[] } = {},
): Promise<void> {
  const p = m.start(['node', `${APP}/dist/test/vm/guest-conformance.js`, kind, ...dirs, ...(options.only ?? [])]);
  let seen = 0;
  const differing: string[] = [];
  let same = 0;
  let skipped = 0;
  for (;;) {
    const more = await p.until(() => p.out.indexOf('\n', seen) >= 0 || p.isOver, LIMIT_MS);
    const end = p.out.indexOf('\n', seen);
    if (!more || end < 0) break;
    const line = JSON.parse(p.out.slice(seen, end)) as { id: string; wrong?: string | null; skip?: string };
    seen = end + 1;
    const title = CASES.find((c) => c.id === line.id)?.title ?? '';
    const known = options.differs?.[line.id];
    if (line.skip !== undefined) {
      skipped++;
      report(`skip ${line.id}: ${title}: ${line.skip}`);
    } else if (line.wrong && known !== undefined) {
      differing.push(line.id);
      report(`differs ${line.id}: ${title}: ${known}\n     seen: ${line.wrong.replaceAll('\n', '\n           ')}`);
    } else {
      if (!line.wrong) same++;
      if (known !== undefined) report(`     ${line.id} is as in the table this time, though known to differ: ${known}`);
      await check(`${line.id}: ${title}`, async () => equal(line.wrong ?? null, null));
    }
  }
  const { code, err } = await p.result(30_000);
  p.close();
  const known = differing.length > 0 ? ` (${differing.join(', ')})` : '';
  report(
    `     ${dirs[0]}, ${kind}'s column: ${same} cases the same, ${differing.length} known to differ${known}, ${skipped} skipped`,
  );
  await check('all cases have run', async () => {
    equal(code, 0, err);
    equal(err, '');
  });
}

export const kernelSuite: Suite = {
  name: 'kernel',
  limitMs: 900_000,
  run: (m, check, report) => runTable(m, check, report, 'kernel', ['/dlm', '/dlm2', '/dlm3'], { differs: THREE_MOUNTS }),
};
