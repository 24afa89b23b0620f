/** `tsdlm restart`: ends the daemon to be started again, as after an upgrade (rule 23). To stop a node: `tsdlm node shutdown`. */
import type { Command } from 'commander';
import type { EndData } from '../protocol/admin.js';
import type { Context } from './context.js';
import { plain } from './table.js';

export function restartCommand(program: Command, context: () => Context): void {
  program
    .command('restart')
    .description('end the daemon to be started again at once: its owners keep their locks, waiters their places')
    .action(async () => {
      const c = context();
      await c.withClient('tsdlm restart', async (client) => {
        const data = (await client.admin('restart')) as EndData;
        c.print(data, ({ node, pid }) => `the daemon on ${plain(node.name)} (process ${pid}) ends, to be started again\n`);
      });
    });
}
