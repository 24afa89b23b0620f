/**
 * The problem: the pure folders must behave the same under the simulator and in production, so they may not reach for a
 * clock, randomness, a timer or a promise by themselves. A linter knows imports but not `Math.random` or `await`.
 * The idea: strip comments and strings, then look for the forbidden words; each hit is named with file and line.
 * It leaves imports between folders to biome.json (noRestrictedImports).
 */
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';

const FOLDERS = ['src/protocol', 'src/link', 'src/membership', 'src/master', 'src/core'];

const FORBIDDEN = [
  [/\bDate\s*\.\s*now\b/, 'reads the wall clock'],
  [/\bnew\s+Date\b/, 'reads the wall clock'],
  [/\bMath\s*\.\s*random\b/, 'draws randomness'],
  [/\bcrypto\s*\.\s*(getRandomValues|randomUUID)\b/, 'draws randomness'],
  [/\b(setTimeout|setInterval|setImmediate|queueMicrotask)\b/, 'starts a timer or a task'],
  [/\bperformance\s*\./, 'reads a clock'],
  [/\bprocess\s*\./, 'reaches for the process'],
  [/\bconsole\s*\./, 'writes output'],
  [/\bawait\b/, 'waits'],
  [/\basync\b/, 'is asynchronous'],
  [/\bnew\s+Promise\b/, 'is asynchronous'],
];

/** src/protocol computes proofs of the cluster key; hashing is a pure function. */
const NODE_IMPORTS_ALLOWED = new Map([['src/protocol', new Set(['node:crypto', 'node:buffer'])]]);

/** Blanks out comments, and the text of strings, keeping line breaks; `${}` parts of templates stay visible. */
function stripped(source) {
  return source.replace(/\/\*[\s\S]*?\*\/|\/\/[^\n]*|'(?:[^'\\\n]|\\.)*'|"(?:[^"\\\n]|\\.)*"/g, (m) =>
    m[0] === '/' ? m.replace(/[^\n]/g, ' ') : m[0] + ' '.repeat(m.length - 2) + m[0],
  );
}

let bad = 0;
for (const folder of FOLDERS) {
  let names;
  try {
    names = readdirSync(folder, { recursive: true });
  } catch {
    continue;
  }
  for (const name of names) {
    if (!name.endsWith('.ts')) continue;
    const file = join(folder, name);
    const source = readFileSync(file, 'utf8');
    const complain = (index, text) => {
      bad++;
      const line = source.slice(0, index).split('\n').length;
      console.error(`${file}:${line}: ${text}; pure folders get time, randomness and I/O as arguments`);
    };
    const lines = stripped(source).split('\n');
    let at = 0;
    for (const line of lines) {
      for (const [pattern, why] of FORBIDDEN) {
        const hit = pattern.exec(line);
        if (hit) complain(at + hit.index, `"${hit[0]}" ${why}`);
      }
      at += line.length + 1;
    }
    for (const hit of source.matchAll(/(?:from|import)\s*\(?\s*['"](node:[^'"]+)['"]/g)) {
      if (!NODE_IMPORTS_ALLOWED.get(folder)?.has(hit[1])) complain(hit.index, `imports ${hit[1]}`);
    }
  }
}
if (bad > 0) process.exit(1);
