/** `tsdlm domain`: the domains that this node is in, and joining one before the first lock. */
import { type Command, Option } from 'commander';
import type { DomainEntry, DomainJoinArgs, StatusData } from '../protocol/admin.js';
import type { Context } from './context.js';
import { table } from './table.js';

/** The daemon waits for the log that long. */
const JOIN_WAIT_MS = 20_000;

export function domainCommand(program: Command, context: () => Context): void {
  const domain = program.command('domain').description('domains: who is in them, who masters');
  domain
    .command('ls')
    .description('list the domains that this node is in')
    .action(async () => {
      const c = context();
      const data = (await c.withClient('tsdlm domain ls', (client) => client.admin('status'))) as StatusData;
      c.print({ domains: data.domains }, ({ domains }) => domainsText(domains));
    });
  domain
    .command('join')
    .description('join a domain; who masters in it is decided when it is made')
    .argument('<domain>', 'name of the domain')
    .addOption(new Option('--mastery <policy>', 'who masters there (default: as configured)').choices(['peer', 'servers']))
    .action(async (name: string, flags: { mastery?: 'peer' | 'servers' }) => {
      const c = context();
      const args: DomainJoinArgs = { domain: name, ...(flags.mastery === undefined ? {} : { mastery: flags.mastery }) };
      const data = (await c.withClient('tsdlm domain join', (client) =>
        client.admin('domain-join', args, JOIN_WAIT_MS),
      )) as DomainEntry;
      c.print(data, (d) => domainsText([d]));
    });
}

function domainsText(domains: DomainEntry[]): string {
  const rows = domains.map((d) => [
    d.name,
    d.mastery,
    d.state,
    String(d.epoch),
    d.members.map((m) => m.name).join(' '),
    d.masters.map((m) => m.name).join(' ') || '-',
  ]);
  return table(['DOMAIN', 'MASTERY', 'STATE', 'EPOCH', 'MEMBERS', 'MASTERS'], rows);
}
