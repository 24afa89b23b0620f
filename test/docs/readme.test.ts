/**
 * What the README shows must work: its program is compiled and run as it stands, against a real daemon, with only what its text
 * leaves to the reader (`writeIndex`) put in front; what it links to and what it tells to run exists.
 */
import { execFile } from 'node:child_process';
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import t from 'tap';
import ts from 'typescript';
import { TEST_LIMIT_MS, world } from '../fixtures/e2e.js';

const run = promisify(execFile);
const ROOT = dirname(dirname(dirname(dirname(fileURLToPath(import.meta.url)))));
const README = readFileSync(join(ROOT, 'README.md'), 'utf8');

const PRELUDE = `
let written = null;
async function writeIndex(work) {
  written = work;
}
`;
const EPILOGUE = `
console.log(JSON.stringify({ token: String(written.token), aborted: written.signal.aborted }));
await lock.release();
await client.close();
`;

t.setTimeout(TEST_LIMIT_MS);

t.test("the README's program compiles and runs as it stands", async (t) => {
  const blocks = [...README.matchAll(/```ts\n([\s\S]*?)```/g)].map((m) => m[1] as string);
  t.equal(blocks.length, 1, 'one program');
  // Inside the package, so that it may import it by its name as a user's program does.
  const dir = mkdtempSync(join(ROOT, 'dist', 'readme-'));
  t.teardown(() => rmSync(dir, { recursive: true, force: true }));
  const source = `${PRELUDE}${blocks[0]}${EPILOGUE}`;
  const { outputText, diagnostics } = ts.transpileModule(source, {
    reportDiagnostics: true,
    compilerOptions: { target: ts.ScriptTarget.ES2022, module: ts.ModuleKind.ESNext },
  });
  t.same(diagnostics, []);
  const file = join(dir, 'program.mjs');
  writeFileSync(file, outputText);
  const { cluster } = await world(t, { nodes: 1 });
  const { stdout } = await run(process.execPath, [file], { env: { ...process.env, TSDLM_SOCKET: cluster.node(1).socket } });
  const said = JSON.parse(stdout) as { token: string; aborted: boolean };
  t.ok(BigInt(said.token) > 0n, said.token);
  t.equal(said.aborted, false);
});

t.test('every link of the README leads to a file', async (t) => {
  const links = [...README.matchAll(/\]\(([^)#]+)\)/g)].map((m) => m[1] as string).filter((l) => !l.includes(':'));
  t.ok(links.length > 3);
  for (const link of links) t.doesNotThrow(() => readFileSync(join(ROOT, link)), link);
});

t.test('every script that the README and docs name exists', async (t) => {
  const { scripts } = JSON.parse(readFileSync(join(ROOT, 'package.json'), 'utf8')) as { scripts: Record<string, string> };
  const texts = [README, ...readdirSync(join(ROOT, 'docs')).map((name) => readFileSync(join(ROOT, 'docs', name), 'utf8'))];
  const named = new Set(
    texts.flatMap((text) => [...text.matchAll(/npm run (?:-s )?([a-z][a-z:-]*)/g)].map((m) => m[1] as string)),
  );
  t.ok(named.has('demo'));
  for (const name of named) t.ok(name in scripts, `npm run ${name}`);
});
