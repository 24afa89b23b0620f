/** An imported cluster as the text of our configuration. */
import type { Imported, ImportedNode } from './result.js';

/** A basic string of TOML. */
function text(value: string): string {
  return JSON.stringify(value).replace(/[\u007f-\u009f]/g, (c) => `\\u${c.charCodeAt(0).toString(16).padStart(4, '0')}`);
}

function value(v: string | number): string {
  return typeof v === 'number' ? String(v) : text(v);
}

/** A comment: one line, whatever was in it. */
function comment(line: string): string {
  return `# ${line.replace(/[^\P{Cc}\t]|[\u2028\u2029]/gu, '?')}`;
}

export function tomlOf(i: Imported, from: string, secretsDir: string): string {
  const lines = [
    comment(`Made by tsdlm config import from ${from}. The same file goes on every node.`),
    '',
    `cluster = ${text(i.cluster)}`,
  ];
  if (i.mastery === 'servers') lines.push('mastery = "servers"');
  if (i.nodes.length > 1) {
    lines.push('', '# Shared secret: openssl rand -hex 32 > FILE; chmod 600 FILE; the same on every node.');
    lines.push(`key_file = ${text(`${secretsDir}/cluster.key`)}`);
  }
  if (i.limits) {
    lines.push('', comment(`Was ${i.limits.was}; here lease + margin.`), '[limits]');
    lines.push(`heartbeat_ms = ${i.limits.heartbeatMs}`, `lease_ms = ${i.limits.leaseMs}`);
  }
  for (const n of i.nodes) lines.push('', ...nodeLines(n));
  for (const m of i.methods) {
    lines.push('', `[fence.${text(m.name)}]`, `type = ${text(m.type)}`);
    for (const [key, v] of m.settings) lines.push(`${key} = ${value(v)}`);
    if (m.options.length > 0) lines.push(`[fence.${text(m.name)}.options]`);
    for (const [key, v] of m.options) lines.push(`${text(key)} = ${value(v)}`);
  }
  if (i.notCarried.length > 0) {
    lines.push('', '# Not carried over:');
    for (const n of i.notCarried) lines.push(comment(`${n.file}:${n.line}: ${n.key} = ${n.value}: ${n.why}`));
  }
  return `${lines.join('\n')}\n`;
}

function nodeLines(n: ImportedNode): string[] {
  const lines = ['[[nodes]]', `name = ${text(n.name)}`, `id = ${n.id}`, `host = ${text(n.host)}`];
  if (n.port !== null) lines.push(`port = ${n.port}`);
  if (!n.voter) lines.push('voter = false');
  if (n.fenceDelayMs > 0) {
    lines.push('# Of two voters that lose each other this one goes on: it is fenced later than the other.');
    lines.push(`fence_delay_base_ms = ${n.fenceDelayMs}`);
  }
  if (n.fence.length > 0) lines.push(`fence = [${n.fence.map((level) => `[${level.map(text).join(', ')}]`).join(', ')}]`);
  return lines;
}

export function notCarriedText(i: Imported): string {
  return i.notCarried.map((n) => `not carried over: ${n.file}:${n.line}: ${n.key} = ${n.value}: ${n.why}\n`).join('');
}
