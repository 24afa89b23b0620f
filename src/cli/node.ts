/**
 * `tsdlm node`: what is done to a node as a whole. One function per verb, each of which adds its own command; the parent is made here.
 */
import type { Command } from 'commander';
import type { Client } from '../client/index.js';
import type { NodesData, ShutdownArgs, ShutdownData } from '../protocol/admin.js';
import { TsdlmError } from '../protocol/errors.js';
import type { Context } from './context.js';
import { parseDuration } from './duration.js';
import { order } from './fence.js';
import { plain } from './table.js';

const POLL_MS = 200;

export type NodeVerb = (node: Command, context: () => Context) => void;

const VERBS: readonly NodeVerb[] = [shutdownVerb, expireVerb];

export function nodeCommand(program: Command, context: () => Context): void {
  const node = program
    .command('node')
    .description('nodes: stop one cleanly, expire one that does not answer, change which there are and who votes');
  for (const add of VERBS) add(node, context);
}

function shutdownVerb(node: Command, context: () => Context): void {
  node
    .command('shutdown')
    .description(
      'stop a node cleanly: its owners are told, its masterships handed over; refused when that costs the quorum or locks',
    )
    .argument('[node]', 'name of the node (default: this one)')
    .option('--force', 'whatever it costs')
    .option('-w, --wait <duration>', 'how long to wait until it has left', '60s')
    .action(async (name: string | undefined, flags: { force?: boolean; wait: string }) => {
      const c = context();
      const waitMs = parseDuration(flags.wait, '--wait');
      const args: ShutdownArgs = { ...(name === undefined ? {} : { node: name }), force: flags.force === true };
      const data = await c.withClient('tsdlm node shutdown', async (client) => {
        const taken = (await client.admin('node-shutdown', args)) as ShutdownData;
        for (const cost of taken.costs) process.stderr.write(`tsdlm: warning: ${plain(cost)}\n`);
        await left(client, taken, waitMs);
        return taken;
      });
      c.print({ ...data, state: 'left' }, (d) => `${d.node.name} has left\n`);
    });
}

/** Waits until the node is out of the view, or its daemon (when that is the one we ask) is gone. */
async function left(client: Client, { node, startCount }: ShutdownData, waitMs: number): Promise<void> {
  const end = Date.now() + waitMs;
  for (;;) {
    let nodes: NodesData['nodes'];
    try {
      ({ nodes } = (await client.admin('nodes')) as NodesData);
    } catch (error) {
      const isGone =
        error instanceof TsdlmError &&
        ['TSDLM_DAEMON_UNREACHABLE', 'TSDLM_OUTCOME_UNKNOWN', 'TSDLM_STOPPING'].includes(error.code);
      if (isGone) return;
      throw error;
    }
    const found = nodes.find((n) => n.id === node.id);
    const isLeft =
      found?.state === 'left' || found?.state === 'evicted' || (found?.incarnation?.startCount ?? startCount) > startCount;
    if (isLeft && !found?.isSelf) return;
    if (Date.now() >= end) {
      throw new TsdlmError(
        'TSDLM_TIMEOUT',
        `${node.name} is still ${found?.state ?? 'unknown'}; tsdlm nodes shows how it goes on`,
      );
    }
    await new Promise((resolve) => setTimeout(resolve, POLL_MS));
  }
}

/** LOCK_GULM's forceexpire: the same as `tsdlm fence node`, under the name that its users look for. */
function expireVerb(node: Command, context: () => Context): void {
  node
    .command('expire')
    .description('condemn a node: it is fenced and its locks go; its name is asked for a second time')
    .argument('<node>', 'name of the node')
    .option('--yes', 'do not ask')
    .option('--reason <text>', 'for the log and the history', 'expired by hand')
    .option('-w, --wait <duration>', 'how long to wait until it is fenced', '60s')
    .action((name: string, flags: { yes?: boolean; reason: string; wait: string }) =>
      order(context(), 'fence-node', name, flags.yes === true ? name : undefined, flags.wait, flags.reason),
    );
}
