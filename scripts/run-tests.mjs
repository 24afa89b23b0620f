/**
 * The problem: one command must run every test, use both cores, never run two tests that start real daemons at the same
 * time, end even when a test hangs, say readably what failed, and print one last line that a program can read.
 * The idea: each compiled test file is a child process that writes TAP; a parser counts tests and collects failures.
 *
 *   node scripts/run-tests.mjs [--jobs N] [word...]     only files whose path contains one of the words
 *
 * A test is a subtest without further subtests, or an assertion at the top of a file. Exit 1 on any failure, also when a file
 * dies, hangs (TSDLM_TEST_LIMIT_MS, default 300000), runs no test at all, or when nothing was found to run.
 */
import { spawn } from 'node:child_process';
import { existsSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import { Parser } from 'tap-parser';

const args = process.argv.slice(2);
let jobs = 2;
const words = [];
for (let i = 0; i < args.length; i++) {
  if (args[i] === '--jobs') jobs = Math.max(1, Number(args[++i]) || 1);
  else words.push(args[i]);
}
const limitMs = Number(process.env.TSDLM_TEST_LIMIT_MS ?? 300_000);
const OUTPUT_KEPT = 20_000;

const running = new Set();
for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP']) {
  process.on(signal, () => {
    for (const pid of running) endGroup(pid);
    process.exit(1);
  });
}

/** Ends what is left of one test file's process group. */
function endGroup(pid) {
  try {
    process.kill(-pid, 'SIGKILL');
  } catch {
    // Nothing is left of it.
  }
}

const total = { passed: 0, failed: 0, skipped: 0 };

/** Compiled tests that still have a source: a deleted test leaves its compiled file behind. */
function findTests() {
  if (!existsSync('dist/test')) return [];
  return readdirSync('dist/test', { recursive: true })
    .filter((name) => name.endsWith('.test.js') && existsSync(join('test', name.replace(/\.js$/, '.ts'))))
    .map((name) => join('dist/test', name))
    .filter((file) => words.length === 0 || words.some((word) => file.includes(word)))
    .sort();
}

/** Counts one parser's test points; subtests report through their own parser first. */
function follow(parser, path, result) {
  const own = { subtests: 0, failures: 0 };
  let child = null;
  parser.on('child', (sub) => {
    own.subtests++;
    const name = sub.name.replace(/^Subtest: /, '');
    child = follow(sub, [...path, name], result);
  });
  parser.on('assert', (point) => {
    const closing = child;
    child = null;
    const good = point.ok || point.todo;
    const isTest = closing !== null ? closing.subtests === 0 : path.length === 0;
    if (point.skip) {
      if (path.length === 0 || closing !== null) result.skipped++;
    } else if (isTest && good) result.passed++;
    else if (isTest || (!good && closing !== null && closing.failures === 0)) result.failed++;
    if (good) return;
    own.failures++;
    if (closing === null || closing.failures === 0) result.failures.push({ path: [...path, point.name], diag: point.diag });
    // A stray assertion beside subtests has no test to count for: it counts itself.
    if (!isTest && closing === null && own.subtests > 0) result.failed++;
  });
  return own;
}

function runFile(file) {
  return new Promise((resolve) => {
    const result = { passed: 0, failed: 0, skipped: 0, failures: [] };
    const started = process.hrtime.bigint();
    const child = spawn(process.execPath, ['--enable-source-maps', file], {
      stdio: ['ignore', 'pipe', 'pipe'],
      detached: true,
      env: { ...process.env, TAP_BAIL: '0', TAP_TIMEOUT: String(Math.ceil(limitMs / 1000)) },
    });
    running.add(child.pid);
    let tail = '';
    const keep = (chunk) => {
      tail = (tail + chunk).slice(-OUTPUT_KEPT);
    };
    const parser = new Parser();
    follow(parser, [], result);
    let bailed = '';
    parser.on('bailout', (reason) => {
      bailed = reason || 'no reason given';
    });
    let settle = () => undefined;
    const parsed = new Promise((done) => {
      settle = done;
    });
    parser.on('complete', (r) => settle(r));
    let stdoutTail = '';
    child.stdout.setEncoding('utf8');
    child.stdout.on('data', (chunk) => {
      stdoutTail = (stdoutTail + chunk).slice(-OUTPUT_KEPT);
      parser.write(chunk);
    });
    child.stdout.on('end', () => parser.end());
    child.stderr.setEncoding('utf8');
    child.stderr.on('data', keep);
    let hung = false;
    const timer = setTimeout(() => {
      hung = true;
      endGroup(child.pid);
    }, limitMs);
    child.on('exit', () => {
      // What the test left running in its process group would keep our pipe open for ever.
      setTimeout(() => endGroup(child.pid), 500).unref();
    });
    child.on('close', async (code, signal) => {
      clearTimeout(timer);
      running.delete(child.pid);
      const final = await parsed;
      const fail = (name) => {
        result.failed++;
        result.failures.push({ path: [name], diag: null });
      };
      const seen = result.failed;
      if (hung) fail(`still running after ${limitMs} ms, killed`);
      else if (bailed) fail(`bailed out: ${bailed}`);
      else if (seen === 0 && (code !== 0 || !final.ok)) {
        fail(code === 0 ? 'the TAP output is not complete' : `ended with ${signal ?? `exit code ${code}`}`);
        tail = stdoutTail.slice(-4000) + tail;
      } else if (seen === 0 && result.passed + result.skipped === 0) fail('ran no test');
      resolve({ file, result, tail, ms: Number((process.hrtime.bigint() - started) / 1_000_000n) });
    });
  });
}

function indent(text, by) {
  return String(text)
    .trimEnd()
    .split('\n')
    .map((line) => ' '.repeat(by) + line)
    .join('\n');
}

function report({ file, result, tail, ms }) {
  const bad = result.failed > 0;
  const skipped = result.skipped > 0 ? `, ${result.skipped} skipped` : '';
  console.log(`${bad ? 'FAIL' : 'ok  '} ${file} (${result.passed} passed, ${result.failed} failed${skipped}; ${ms} ms)`);
  for (const { path, diag } of result.failures) {
    console.log(`     not ok: ${path.join(' > ')}`);
    if (!diag) continue;
    if (diag.at) console.log(`       at ${diag.at.fileName}:${diag.at.lineNumber}`);
    for (const key of ['diff', 'found', 'wanted', 'message', 'code', 'stack']) {
      if (diag[key] === undefined || (key === 'found' && diag.diff) || (key === 'wanted' && diag.diff)) continue;
      const value = typeof diag[key] === 'string' ? diag[key] : JSON.stringify(diag[key]);
      console.log(`       ${key}:\n${indent(value.slice(0, 4000), 9)}`);
    }
  }
  if (bad && tail.trim() !== '') console.log(`     output:\n${indent(tail.slice(-6000), 7)}`);
  total.passed += result.passed;
  total.failed += result.failed;
  total.skipped += result.skipped;
}

async function runAll(files, width) {
  const queue = [...files];
  const worker = async () => {
    for (let file = queue.shift(); file !== undefined; file = queue.shift()) report(await runFile(file));
  };
  await Promise.all(Array.from({ length: width }, worker));
}

const files = findTests();
const isE2e = (file) => file.startsWith(join('dist', 'test', 'e2e'));
// The long ones first, so that the last file does not run alone.
const first = (file) => (file.includes('/sim/') ? 0 : 1);
await runAll(
  files.filter((f) => !isE2e(f)).sort((a, b) => first(a) - first(b)),
  jobs,
);
await runAll(files.filter(isE2e), 1);

if (files.length === 0) console.log('no compiled test was found under dist/test: build first, and check the words given');
const ranNothing = total.passed + total.failed === 0;
console.log(`${total.passed} passed, ${total.failed} failed${total.skipped > 0 ? `, ${total.skipped} skipped` : ''}`);
process.exitCode = total.failed > 0 || ranNothing ? 1 : 0;
