/**
 * `tsdlm node add|remove|set|voters|readmit` and `tsdlm limits`: who belongs to the cluster, who votes, and its time limits.
 *
 * Each says a goal to the daemon again and again until the leader has nothing left to do, or the time is over
 * (src/protocol/table-goal.ts); what is waited for is said on the way.
 */
import { userInfo } from 'node:os';
import type { Command } from 'commander';
import type { Client } from '../client/index.js';
import type { NodesData, StatusData } from '../protocol/admin.js';
import { TsdlmError } from '../protocol/errors.js';
import { PEER_PORT } from '../protocol/paths.js';
import { type LimitsWish, ROLES, type Role, type TableGoal, type TableStepData } from '../protocol/table-goal.js';
import type { Context } from './context.js';
import { parseDuration } from './duration.js';
import { plain } from './table.js';

const POLL_MS = 200;
/** Of a change that waits for leases to be over, or for a node to catch up. */
const WAIT = '60s';

export function nodeTableCommand(program: Command, context: () => Context): void {
  const node =
    program.commands.find((c) => c.name() === 'node') ??
    program.command('node').description('change which nodes the cluster has');
  const wait = ['-w, --wait <duration>', 'how long to wait until it is done', WAIT] as const;
  node
    .command('add')
    .description('add a node to the running cluster; its daemon may be started before or after')
    .argument('<node>', 'its name')
    .argument('<host>', 'where the others reach it: HOST or HOST:PORT')
    .option('--id <number>', 'its number (default: the least that was never used)')
    .option('--role <role>', `${ROLES.join(', ')}; a voter gets its vote once it has caught up`, 'voter')
    .option('--fence <methods...>', 'fence levels, tried in order; methods of one level are joined with +', ['self'])
    .option(...wait)
    .action((name: string, where: string, flags: { id?: string; role: string; fence: string[]; wait: string }) => {
      const role = ROLES.find((r) => r === flags.role);
      if (role === undefined) throw usage(`--role '${flags.role}' is none of ${ROLES.join(', ')}`);
      const goal: TableGoal = { what: 'add', name, id: idOf(flags.id), ...addressOf(where), fence: levelsOf(flags.fence), role };
      return reach(context(), 'tsdlm node add', flags.wait, async () => goal, addedText(role));
    });
  node
    .command('remove')
    .description('remove a node for good: it must have left or been fenced; its number and name are not used again')
    .argument('<node>', 'its name')
    .option(...wait)
    .action((name: string, flags: { wait: string }) =>
      reach(
        context(),
        'tsdlm node remove',
        flags.wait,
        async () => ({ what: 'remove', name }),
        () => `node ${name} is removed for good\n`,
      ),
    );
  node
    .command('set')
    .description('change the address, the fence levels or the vote of a node')
    .argument('<node>', 'its name')
    .option('--address <host:port>', 'where the others reach it')
    .option('--fence <methods...>', 'fence levels, tried in order; methods of one level are joined with +')
    .option('--role <role>', 'voter or member')
    .option(...wait)
    .action(async (name: string, flags: { address?: string; fence?: string[]; role?: string; wait: string }) => {
      const { address, fence, role } = flags;
      if (address === undefined && fence === undefined && role === undefined) {
        throw usage('nothing to set: give --address, --fence or --role');
      }
      if (role !== undefined && role !== 'voter' && role !== 'member')
        throw usage(`--role '${role}' is neither voter nor member`);
      const where = address === undefined ? { host: '', port: 0 } : addressOf(address);
      if (address !== undefined || fence !== undefined) {
        const goal: TableGoal = { what: 'set', name, ...where, fence: fence === undefined ? [] : levelsOf(fence) };
        const text = (): string => `node ${name} is changed\n`;
        await reach(context(), 'tsdlm node set', flags.wait, async () => goal, text, role === undefined);
      }
      if (role === undefined) return;
      const goal: TableGoal = { what: 'vote', name, on: role === 'voter' };
      await reach(
        context(),
        'tsdlm node set',
        flags.wait,
        async () => goal,
        () => `node ${name} is a ${role}\n`,
      );
    });
  node
    .command('voters')
    .description('make exactly these nodes voters, one change after the other')
    .argument('<nodes...>', 'their names')
    .option(...wait)
    .action((names: string[], flags: { wait: string }) =>
      reach(
        context(),
        'tsdlm node voters',
        flags.wait,
        async () => ({ what: 'voters', names }),
        () => `voters: ${names.join(', ')}\n`,
      ),
    );
  node
    .command('readmit')
    .description('let a node in again that lost its journal: as a new one, which gets its vote back once it has caught up')
    .argument('<node>', 'its name')
    .option('--no-vote', 'it stays without a vote')
    .option(...wait)
    .action((name: string, flags: { vote: boolean; wait: string }) => {
      const goal = async (client: Client): Promise<TableGoal> => {
        const { nodes } = (await client.admin('nodes')) as NodesData;
        const found = nodes.find((n) => n.name === name);
        if (found === undefined)
          throw new TsdlmError('TSDLM_BAD_ARGUMENT', `there is no node ${plain(name)}: tsdlm nodes lists them`);
        if (found.journal === '')
          throw new TsdlmError('TSDLM_NOT_ALLOWED', `node ${name} was never a member: it needs no readmission`);
        return { what: 'readmit', name, journal: found.journal, vote: flags.vote && (found.voter || found.wantsVote) };
      };
      return reach(context(), 'tsdlm node readmit', flags.wait, goal, () => `node ${name} is a member with its new journal\n`);
    });
  limitsCommand(program, context);
}

function limitsCommand(program: Command, context: () => Context): void {
  const limits = program.command('limits').description("show the cluster's time limits, or change them while it runs");
  limits
    .command('show')
    .description('show the time limits in force')
    .action(async () => {
      const c = context();
      const { limits } = (await c.withClient('tsdlm limits', (client) => client.admin('status'))) as StatusData;
      c.print(limits, limitsText);
    });
  limits
    .command('set')
    .description('change them; what is not given stays, or follows from the lease and the heartbeat as before')
    .option('--lease <duration>', 'how long a member may act without word from a quorum')
    .option('--heartbeat <duration>', 'time between two heartbeats')
    .option('--suspect-after <duration>', 'silence after which a member is suspect')
    .option('--dead-after <duration>', 'silence after which a member is fenced')
    .option('--election <duration>', 'least time without a leader before another runs')
    .option('-w, --wait <duration>', 'how long to wait until they are in force', WAIT)
    .action((flags: Record<string, string | undefined>) => {
      const wish: LimitsWish = {
        ...given('heartbeatMs', '--heartbeat', flags.heartbeat),
        ...given('leaseMs', '--lease', flags.lease),
        ...given('suspectMs', '--suspect-after', flags.suspectAfter),
        ...given('deadMs', '--dead-after', flags.deadAfter),
        ...given('electionMs', '--election', flags.election),
      };
      if (Object.keys(wish).length === 0) throw usage('nothing to set: tsdlm limits set --help lists the limits');
      const text = (): string =>
        'the time limits are in force; who waits for a lease still counts by the former ones until all have them\n';
      return reach(context(), 'tsdlm limits set', flags.wait ?? WAIT, async () => ({ what: 'limits', limits: wish }), text);
    });
}

function limitsText(l: StatusData['limits']): string {
  const values = `heartbeat ${l.heartbeatMs} ms, lease ${l.leaseMs} ms, margin ${l.marginMs} ms, suspect after ${l.suspectMs} ms, dead after ${l.deadMs} ms, election ${l.electionMs} ms`;
  return `${values}${l.isSettling ? '; the former ones are still waited for' : ''}\n`;
}

function given(key: keyof LimitsWish, option: string, text: string | undefined): LimitsWish {
  return text === undefined ? {} : { [key]: parseDuration(text, option) };
}

function addedText(role: Role): (step: TableStepData) => string {
  const later = role === 'member' ? '' : '; it gets its vote once it has caught up';
  return (step) => {
    const asked =
      step.unasked.length === 0 ? '' : `\nnot asked whether they define its fence methods: ${step.unasked.join(', ')}`;
    return `the node is in the table: start tsdlmd there${later}${asked}\n`;
  };
}

/** Says the goal until it is reached. Throws TSDLM_TIMEOUT with what was waited for. */
async function reach(
  c: Context,
  label: string,
  wait: string,
  goalOf: (client: Client) => Promise<TableGoal>,
  text: (step: TableStepData) => string,
  prints = true,
): Promise<void> {
  const end = Date.now() + parseDuration(wait, '--wait');
  const { uid, username } = userInfo();
  await c.withClient(`${label}, uid ${uid} ${username}`, async (client) => {
    const goal = await goalOf(client);
    let said = '';
    for (;;) {
      const step = await stepOf(client, goal);
      if (typeof step !== 'string' && step.done) {
        if (prints) c.print({ ...step, goal }, text);
        return;
      }
      const why = typeof step === 'string' ? step : step.why;
      if (Date.now() >= end) {
        throw new TsdlmError('TSDLM_TIMEOUT', `not done after ${wait}: ${why}. What was begun stays; say it again to go on`);
      }
      // Times count down in it: said when it is about something else.
      const kind = why.replace(/\d+/g, '#');
      if (kind !== said && !c.json) process.stderr.write(`tsdlm: ${plain(why)}\n`);
      said = kind;
      await new Promise((resolve) => setTimeout(resolve, POLL_MS));
    }
  });
}

/** One step, or what stands in the way of asking for it now. */
async function stepOf(client: Client, goal: TableGoal): Promise<TableStepData | string> {
  try {
    return (await client.admin('table-step', { ...goal })) as TableStepData;
  } catch (error) {
    const isPassing = error instanceof TsdlmError && ['TSDLM_UNAVAILABLE', 'TSDLM_OUTCOME_UNKNOWN'].includes(error.code);
    if (isPassing) return error.message;
    throw error;
  }
}

function idOf(text: string | undefined): number {
  if (text === undefined) return 0;
  const id = Number(text);
  if (!Number.isInteger(id) || id < 1 || id > 254) throw usage(`--id '${text}' is no number from 1 to 254`);
  return id;
}

/** HOST, HOST:PORT or [IPv6]:PORT. */
function addressOf(text: string): { host: string; port: number } {
  const found = /^(?:\[([^\]]+)\]|([^:\s[\]]+))(?::(\d+))?$/.exec(text) ?? /^([0-9a-fA-F:]+)$/.exec(text);
  const port = Number(found?.[3] ?? PEER_PORT);
  const host = found?.[1] ?? found?.[2];
  if (host === undefined || port < 1 || port > 65535) throw usage(`'${text}' is no address: HOST, HOST:PORT or [IPv6]:PORT`);
  return { host, port };
}

function levelsOf(levels: readonly string[]): string[][] {
  return levels.map((level) => level.split('+'));
}

function usage(text: string): TsdlmError {
  return new TsdlmError('TSDLM_USAGE', text);
}
