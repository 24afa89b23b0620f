import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { ScriptMethod } from '../../src/fence/script.js';
import type { ScriptFenceConfig } from '../../src/fence/types.js';
import { nowMs } from '../../src/node/facts.js';
import { tempDir } from '../fixtures/journal.js';

const TARGET = { nodeName: 'n2', node: 2, reason: 'silent for 1800 ms', attempt: 3, together: 1 };
const never = new AbortController().signal;

/** A method that runs `body` as a shell script. */
function script(t: { teardown(fn: () => void): unknown }, body: string, more: Partial<ScriptFenceConfig> = {}) {
  const dir = tempDir(t);
  const path = join(dir, 'fence.sh');
  writeFileSync(path, `#!/bin/sh\ndir='${dir}'\n${body}\n`, { mode: 0o755 });
  return {
    dir,
    method: new ScriptMethod({ name: 'power', type: 'script', command: [path], timeoutMs: 10_000, options: {}, ...more }),
  };
}

/** True while a process with this id exists and is not a zombie. */
function isRunning(pid: number): boolean {
  try {
    return !/^\d+ \(.*\) [ZX]/.test(readFileSync(`/proc/${pid}/stat`, 'utf8'));
  } catch {
    return false;
  }
}

async function until(condition: () => boolean, limitMs = 5000): Promise<boolean> {
  const end = nowMs() + limitMs;
  while (!condition() && nowMs() < end) await new Promise((resolve) => setTimeout(resolve, 10));
  return condition();
}

t.test('exit 0 means verified; input and environment name the victim', async (t) => {
  const { dir, method } = script(t, 'cat > "$dir/in"; env | grep ^TSDLM_FENCE > "$dir/env"; echo "is off now"', {
    options: { ip: '10.0.0.9', plug: 'outlet 7' },
  });
  const outcome = await method.fence(TARGET, never);
  t.match(outcome, { ok: true, detail: /fence.sh verified \(exit code 0\) after \d+ ms, saying: is off now$/ });
  t.equal(readFileSync(join(dir, 'in'), 'utf8'), 'action=off\nplug=outlet 7\nip=10.0.0.9\nnodename=n2\n');
  t.same(readFileSync(join(dir, 'env'), 'utf8').trim().split('\n').sort(), [
    'TSDLM_FENCE_ACTION=off',
    'TSDLM_FENCE_ATTEMPT=3',
    'TSDLM_FENCE_NODE=n2',
    'TSDLM_FENCE_NODEID=2',
    'TSDLM_FENCE_REASON=silent for 1800 ms',
  ]);
  t.equal(method.endsMachine, true);
});

t.test('any other exit means: not known to be off', async (t) => {
  t.match(await script(t, 'echo "no route to BMC" >&2; exit 1').method.fence(TARGET, never), {
    ok: false,
    detail: /failed with exit code 1 after \d+ ms, saying: no route to BMC/,
  });
  t.match(await script(t, 'exit 2').method.fence(TARGET, never), { ok: false, detail: /exit code 2/ });
  t.match(await script(t, 'kill -9 $$').method.fence(TARGET, never), { ok: false, detail: /was ended by SIGKILL/ });
});

t.test('a program that is not there or cannot run is a failure, not a crash', async (t) => {
  const missing = new ScriptMethod({ name: 'x', type: 'script', command: ['/no/such'], timeoutMs: 1000, options: {} });
  t.match(await missing.fence(TARGET, never), { ok: false, detail: /could not be started .*ENOENT/ });
  const empty = new ScriptMethod({ name: 'x', type: 'script', command: [], timeoutMs: 1000, options: {} });
  await t.resolves(empty.fence(TARGET, never).catch(() => undefined));
});

t.test('F10: one that hangs and ignores SIGTERM is killed at its limit with its whole group', async (t) => {
  const { dir, method } = script(
    t,
    'trap "" TERM; sh -c \'trap "" TERM; echo $$ > "$0/child"; sleep 600\' "$dir" & echo $$ > "$dir/main"; wait',
    {
      timeoutMs: 700,
    },
  );
  const before = nowMs();
  const outcome = await method.fence(TARGET, never);
  const took = nowMs() - before;
  t.match(outcome, { ok: false, detail: /did not end within 700 ms and was killed/ });
  t.ok(took >= 690 && took < 3000, `after ${took} ms`);
  for (const name of ['main', 'child']) {
    const pid = Number(readFileSync(join(dir, name), 'utf8'));
    t.ok(await until(() => !isRunning(pid)), `${name} is gone`);
  }
});

t.test('what a finished script leaves in its group ends with it', async (t) => {
  const { dir, method } = script(t, 'sleep 600 & echo $! > "$dir/child"; exit 0');
  const before = nowMs();
  t.equal((await method.fence(TARGET, never)).ok, true);
  t.ok(nowMs() - before < 3000, 'its open output does not hold us up');
  t.ok(await until(() => !isRunning(Number(readFileSync(join(dir, 'child'), 'utf8')))));
});

t.test('F11: 10 MB of output, or binary, is cut and cleaned', async (t) => {
  const big = await script(t, 'echo begin; head -c 10000000 /dev/zero | tr "\\0" x; echo; echo end').method.fence(TARGET, never);
  t.equal(big.ok, true);
  t.ok(big.detail.length < 2500, `${big.detail.length} characters`);
  t.match(big.detail, /saying: begin; xxx.* \.\.\. \d+ characters \.\.\. x.*; end$/);
  const binary = await script(t, 'head -c 3000 /dev/urandom; exit 1').method.fence(TARGET, never);
  t.equal(binary.ok, false);
  // biome-ignore lint/suspicious/noControlCharactersInRegex: that there are none is the point
  t.notMatch(binary.detail, /[\u0000-\u001f\u007f]/);
});

t.test('S6: a password among the options is never in the outcome, whatever the program prints', async (t) => {
  const { method } = script(t, 'cat >&2; exit 1', { options: { password: 'S3cretPw', passwd_script: '/x/y', login: 'fence' } });
  const outcome = await method.fence(TARGET, never);
  t.notMatch(outcome.detail, /S3cretPw/);
  t.match(outcome.detail, /password=\[secret\].*login=fence/);
});

t.test('a program that does not read its input is fine', async (t) => {
  const { method } = script(t, 'exec 0<&-; exit 0', { options: { pad: 'x'.repeat(4000) } });
  t.equal((await method.fence(TARGET, never)).ok, true);
});

t.test('when the daemon stops, what is under way is killed and counts as failed', async (t) => {
  const { dir, method } = script(t, 'echo $$ > "$dir/main"; sleep 600; exit 0');
  const stop = new AbortController();
  const run = method.fence(TARGET, stop.signal);
  t.ok(await until(() => existsSync(join(dir, 'main')) && readFileSync(join(dir, 'main'), 'utf8').endsWith('\n')));
  stop.abort();
  t.match(await run, { ok: false, detail: /was killed: the daemon stops, or/ });
  t.match(await method.fence(TARGET, stop.signal), { ok: false, detail: /was not started/ });
});
