/** Goal: what docs/coming-from.md tells people to type exists: each command, and each option of it. */
import { readFileSync } from 'node:fs';
import type { Command } from 'commander';
import t from 'tap';
import { makeProgram } from '../../src/cli/main.js';

// The tests run from dist/test/cli; the document is in the sources.
const text = readFileSync(
  new URL(`${import.meta.url.includes('/dist') ? '../' : ''}../../docs/coming-from.md`, import.meta.url),
  'utf8',
);

/** What is wrong with a command line, or null. */
function fault(program: Command, line: string): string | null {
  let command = program;
  let isVerb = true;
  for (const word of line.split(/\s+/).slice(1)) {
    if (word.startsWith('-')) {
      const known = [...command.options, ...program.options].some((o) => o.long === word || o.short === word);
      if (!known && word !== '--help') return `${command.name()} has no option ${word}`;
      continue;
    }
    const inner: Command | undefined = isVerb ? command.commands.find((c) => c.name() === word) : undefined;
    if (inner) command = inner;
    else if (command.commands.length > 0) return `${command.name()} has no command ${word}`;
    else isVerb = false;
  }
  return command !== program && command.commands.length > 0 ? `${command.name()} needs a command` : null;
}

t.test('every tsdlm command of docs/coming-from.md exists, with its options', async (t) => {
  const { program } = makeProgram();
  const lines = [...text.matchAll(/`(tsdlm [^`]+)`/g)].map((m) => m[1] ?? '');
  t.ok(lines.length > 30, `${lines.length} commands`);
  for (const line of lines) t.equal(fault(program, line), null, line);
  t.match(fault(program, 'tsdlm node reboot x'), /node has no command reboot/);
  t.match(fault(program, 'tsdlm stats --xml'), /stats has no option --xml/);
});

t.test('no option stands alone in the page that no command has', async (t) => {
  const { program } = makeProgram();
  const all = (c: Command): string[] => [...c.options.map((o) => o.long ?? ''), ...c.commands.flatMap(all)];
  const known = new Set(all(program));
  for (const [, option] of text.matchAll(/`(--[a-z-]+)`/g)) t.ok(known.has(option ?? ''), String(option));
});

t.test('each verb of gulm_tool is in the page', async (t) => {
  const verbs =
    'getstats rawstats xmlstats config nodelist nodeinfo servicelist slavelist forceexpire shutdown switchPending setverb rerunqueues version';
  for (const verb of verbs.split(' ')) t.ok(text.includes(`\`${verb}`), verb);
});
