/**
 * Runs in the guest: the conformance table by system calls on mounted directories.
 *
 *   node guest-conformance.js kernel|tsdlm DIR-OF-A DIR-OF-B DIR-OF-C [case...]
 *
 * `kernel` wants the kernel's column, `tsdlm` ours (a 9P mount). One JSON object a line: {id, wrong} with wrong = null or what.
 */
import { openKernelDlmfs } from '../../src/dlmfs/kernel.js';
import { CASES, describeResult, type Peer, runCase } from '../dlmfs/conformance.js';

/** What has not ended after this time, under emulation, is said to wait. */
const SETTLE_MS = 400;
/** Leaving a domain takes the kernel four seconds. */
const LIMIT_MS = 20_000;

const [kind, a = '', b = '', c = '', ...only] = process.argv.slice(2);
const isKernel = kind === 'kernel';
const mount = (dir: string): ReturnType<typeof openKernelDlmfs> => openKernelDlmfs(dir, { canPoll: isKernel });
const peer: Peer = {
  kind: isKernel ? 'kernel' : 'tsdlm',
  owners: { A: mount(a), B: mount(b), C: mount(c) },
  settle: () => new Promise((resolve) => setTimeout(resolve, SETTLE_MS)),
  limitMs: LIMIT_MS,
};

let n = 0;
for (const test of CASES) {
  if (only.length > 0 && !only.includes(test.id)) continue;
  if (isKernel && test.kernelSkip !== undefined) {
    console.log(JSON.stringify({ id: test.id, skip: test.kernelSkip }));
    continue;
  }
  const wrong = await runCase(peer, test, `conf${n++}`);
  const [first] = wrong;
  console.log(JSON.stringify({ id: test.id, wrong: first === undefined ? null : describeResult(test, first) }));
}
for (const owner of Object.values(peer.owners)) await owner.close({ force: true });
