/** `tsdlm stats`: one daemon in figures, as `key = value` (gulm_tool's getstats) or JSON. */
import type { Command } from 'commander';
import type { StatsArgs, StatsData } from '../protocol/admin.js';
import type { Context } from './context.js';
import { plain } from './table.js';

export function statsCommand(program: Command, context: () => Context): void {
  program
    .command('stats')
    .description("show one daemon's figures: role, quorum, locks, counters, links, memory")
    .argument('[node]', 'of this node instead of the one that is asked')
    .option('--raw', 'one blank around "=", nothing aligned')
    .action(async (node: string | undefined, flags: { raw?: boolean }) => {
      const c = context();
      const args: StatsArgs = node === undefined ? {} : { node };
      const data = (await c.withClient('tsdlm stats', (client) => client.admin('stats', args))) as StatsData;
      c.print(data, (d) => statsText(d, flags.raw === true));
    });
}

/** Keys in the order of the data; lists are flattened by name, so every line is one key and one value. */
export function statsPairs(d: StatsData): [key: string, value: string][] {
  const pairs: [string, string][] = [
    ['node', d.node.name],
    ['cluster', d.cluster],
    ['version', d.version],
    ['pid', String(d.pid)],
    ['run_time_ms', String(d.uptimeMs)],
    ['role', d.role],
    ['state', d.state],
    ['epoch', String(d.epoch)],
    ['term', String(d.term)],
    ['rank', String(d.rank)],
    ['leader', d.leader?.name ?? ''],
    ['quorate', String(d.quorum.isQuorate)],
    ['quorum_has', String(d.quorum.has)],
    ['quorum_needs', String(d.quorum.needs)],
    ['voters', String(d.quorum.voters)],
    ['lease_left_ms', String(d.leaseLeftMs)],
    ['config_sum', d.configSum],
    ['sessions', String(d.sessions)],
  ];
  const group = (name: string, values: Record<string, number>): void => {
    for (const [key, value] of Object.entries(values)) pairs.push([`${name}_${snake(key)}`, String(value)]);
  };
  group('mastered', d.mastered);
  group('owned', d.owned);
  for (const [key, value] of Object.entries(d.counters)) pairs.push([snake(key), String(value)]);
  for (const x of d.domains) {
    pairs.push([`domain.${x.name}.mastery`, x.mastery]);
    pairs.push([`domain.${x.name}.state`, x.state]);
    pairs.push([`domain.${x.name}.epoch`, String(x.epoch)]);
    pairs.push([`domain.${x.name}.masters`, x.masters.map((m) => m.name).join(' ')]);
  }
  for (const l of d.links) {
    pairs.push([`link.${l.name}.state`, l.state]);
    pairs.push([`link.${l.name}.queued_bytes`, String(l.backlogBytes)]);
  }
  pairs.push(['journal_state', d.journal.state], ['journal_bytes', String(d.journal.sizeBytes)]);
  group('memory', d.memory);
  return pairs;
}

function statsText(d: StatsData, isRaw: boolean): string {
  const pairs = statsPairs(d).map(([key, value]): [string, string] => [plain(key), plain(value)]);
  const width = isRaw ? 0 : Math.max(...pairs.map(([key]) => key.length));
  return pairs.map(([key, value]) => `${`${key.padEnd(width)} = ${value}`.trimEnd()}\n`).join('');
}

function snake(key: string): string {
  return key.replace(/[A-Z]/g, (c) => `_${c.toLowerCase()}`);
}
