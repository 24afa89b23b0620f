/**
 * `tsdlm fence`: fence a member by order, confirm a fence by hand, look at what was done, look at the devices.
 *
 * The two orders end a machine or vouch that it has ended; a wrong one lets two owners act at once. So the node's name is asked
 * for twice, and what was seen between (its incarnation) goes with the order: it never counts for the node's next life.
 * An order counts once it is in the log. When the leader that took it is gone before that, it is given again, and that is said.
 */
import { userInfo } from 'node:os';
import { createInterface } from 'node:readline';
import type { Command } from 'commander';
import type { Client } from '../client/index.js';
import type {
  FenceCheckData,
  FenceHistoryData,
  FenceOperation,
  FenceOrderArgs,
  FenceOrderData,
  FenceStepEntry,
  FenceStepsData,
  FenceTrustData,
  LostHistoryData,
  NodeEntry,
  NodesData,
  StatusData,
} from '../protocol/admin.js';
import { TsdlmError } from '../protocol/errors.js';
import type { Context } from './context.js';
import { formatDuration, parseDuration } from './duration.js';
import { EXIT_FAILED } from './exit-codes.js';
import { plain, table } from './table.js';

/** A device may take its time to answer. */
const CHECK_WAIT_MS = 300_000;
const POLL_MS = 200;
/** An order that does not show in the view so long after it was taken was lost with its leader. */
const ORDER_SHOWS_MS = 2000;

export function fenceCommand(program: Command, context: () => Context): void {
  const fence = program.command('fence').description('end nodes, confirm that one has ended, check the devices');
  fence
    .command('node')
    .description('fence a member now; its name is asked for a second time')
    .argument('<node>', 'name of the node')
    .option('--yes <node>', 'its name a second time, instead of being asked')
    .option('--reason <text>', 'for the log and the history', '')
    .option('-w, --wait <duration>', 'how long to wait until it is fenced', '60s')
    .action((name: string, flags: { yes?: string; reason: string; wait: string }) =>
      order(context(), 'fence-node', name, flags.yes, flags.wait, flags.reason),
    );
  fence
    .command('confirm')
    .description('vouch that a node which is being fenced can not act any more; its name is asked for a second time')
    .argument('<node>', 'name of the node')
    .option('--yes-i-have-verified <node>', 'its name a second time, instead of being asked')
    .option('-w, --wait <duration>', 'how long to wait until it counts as fenced', '60s')
    .action((name: string, flags: { yesIHaveVerified?: string; wait: string }) =>
      order(context(), 'fence-confirm', name, flags.yesIHaveVerified, flags.wait, ''),
    );
  fence
    .command('alone')
    .description(
      'go on from this node without the other of two voters, giving up whatever that one did last: all locks are void; its name is asked for a second time',
    )
    .argument('<node>', 'name of the other voter, which you have verified to be off for good')
    .option('--accept-lost-history <node>', 'its name a second time, instead of being asked')
    .option('-w, --wait <duration>', 'how long to wait until this node leads', '60s')
    .action((name: string, flags: { acceptLostHistory?: string; wait: string }) =>
      alone(context(), name, flags.acceptLostHistory, flags.wait),
    );
  fence
    .command('history')
    .description('list what was fenced lately: who, why, by which method and leader, how often it was tried, with what result')
    .argument('[node]', 'only this node')
    .option('--steps', 'each step at each device instead, as the daemons that took it remember it since they started')
    .action(async (node: string | undefined, flags: { steps?: boolean }) => {
      const c = context();
      if (flags.steps) {
        const data = (await c.withClient('tsdlm fence history', (client) => client.admin('fence-steps'))) as FenceStepsData;
        c.print({ ...data, results: data.results.filter((r) => node === undefined || r.node === node) }, stepsText);
        return;
      }
      const args = node === undefined ? {} : { node };
      const data = (await c.withClient('tsdlm fence history', (client) =>
        client.admin('fence-history', args),
      )) as FenceHistoryData;
      c.print(data, historyText);
    });
  fence
    .command('trust')
    .description('believe a fence method again that called a node off while it ran')
    .argument('<node>', 'name of the node')
    .argument('<method>', 'name of the method, as tsdlm status shows it')
    .action(async (node: string, method: string) => {
      const c = context();
      const { uid, username } = userInfo();
      const label = `tsdlm fence trust, uid ${uid} ${username}`;
      const data = (await c.withClient(label, (client) => client.admin('fence-trust', { node, method }))) as FenceTrustData;
      c.print(data, (d) => `${d.method} is believed again about ${d.node}\n`);
    });
  fence
    .command('check')
    .description('look at the fence devices now, from this node; exits 1 when one would not work')
    .argument('[node]', 'only the devices of this node')
    .action(async (node?: string) => {
      const c = context();
      const data = (await c.withClient('tsdlm fence check', (client) =>
        client.admin('fence-check', node === undefined ? {} : { node }, CHECK_WAIT_MS),
      )) as FenceCheckData;
      c.print(data, checkText);
      if (data.devices.some((device) => !device.ok)) c.exitCode = EXIT_FAILED;
    });
}

type Verb = 'fence-node' | 'fence-confirm';

/** Has the node that is asked go on without the other of two voters, and waits until it is a member again. */
async function alone(c: Context, name: string, again: string | undefined, wait: string): Promise<void> {
  const waitMs = parseDuration(wait, '--wait');
  const { uid, username } = userInfo();
  await c.withClient(`tsdlm fence alone, uid ${uid} ${username}`, async (client) => {
    const { waitsFor, node } = (await client.admin('status')) as StatusData;
    const typed = again ?? (await askAlone(name, node.name, waitsFor?.why ?? ''));
    if (typed !== name) {
      throw new TsdlmError(
        'TSDLM_USAGE',
        `the second name ${JSON.stringify(typed.slice(0, 80))} is not ${name}: nothing was done`,
      );
    }
    const data = (await client.admin('fence-lost-history', { node: name })) as LostHistoryData;
    const end = Date.now() + waitMs;
    for (;;) {
      const status = (await client.admin('status')) as StatusData;
      if (status.isMember && status.leader?.id === status.node.id && status.epoch >= data.epoch) {
        c.print(
          { node: status.node.name, without: name, epoch: status.epoch },
          (d) => `${d.node} goes on without ${d.without}, epoch ${d.epoch}\n`,
        );
        return;
      }
      if (Date.now() >= end)
        throw new TsdlmError('TSDLM_TIMEOUT', `${status.node.name} does not lead yet; tsdlm status says why`);
      await new Promise((resolve) => setTimeout(resolve, POLL_MS));
    }
  });
}

async function askAlone(name: string, self: string, why: string): Promise<string> {
  process.stderr.write(
    `${why === '' ? '' : `${self}: ${why}.\n`}Going on without ${name} gives up whatever it did since ${self} knew of it, and makes all locks void. If ${name} runs, ` +
      `or ever starts again with its state directory, two clusters act at the same time.\n` +
      `Only go on when ${name} is off, and will be wiped before it comes back.\n`,
  );
  return askAgain();
}

/** Gives an order about a node, its name typed twice, and waits until the node is over. */
export async function order(
  c: Context,
  verb: Verb,
  name: string,
  again: string | undefined,
  wait: string,
  reason: string,
): Promise<void> {
  const waitMs = parseDuration(wait, '--wait');
  const { uid, username } = userInfo();
  await c.withClient(`tsdlm ${verb}, uid ${uid} ${username}`, async (client) => {
    const before = await nodeOf(client, name);
    const { state, incarnation } = before;
    if (incarnation === null || (verb === 'fence-confirm' && state !== 'fencing')) {
      throw new TsdlmError(
        'TSDLM_NOT_ALLOWED',
        `node ${name} is ${state}: there is nothing to ${verb === 'fence-node' ? 'fence' : 'confirm'}`,
      );
    }
    const typed = again ?? (await askName(verb, name));
    if (typed !== name) {
      throw new TsdlmError(
        'TSDLM_USAGE',
        `the second name ${JSON.stringify(typed.slice(0, 80))} is not ${name}: nothing was done`,
      );
    }
    const args: FenceOrderArgs = { node: name, startCount: incarnation.startCount, ...(reason === '' ? {} : { reason }) };
    const after = await carryOut(client, verb, args, waitMs);
    c.print({ node: name, state: after.state, fencedBy: after.fencedBy }, (d) =>
      d.fencedBy === '' ? `${d.node} was expired, and is back\n` : `${d.node} counts as fenced by ${d.fencedBy}\n`,
    );
  });
}

async function nodeOf(client: Client, name: string): Promise<NodeEntry> {
  const { nodes } = (await client.admin('nodes')) as NodesData;
  const found = nodes.find((n) => n.name === name);
  if (found !== undefined) return found;
  throw new TsdlmError('TSDLM_BAD_ARGUMENT', `there is no node ${plain(name)}; there are ${nodes.map((n) => n.name).join(', ')}`);
}

/** Gives the order until it shows in the log, and waits until that incarnation is over in the view of the node asked. */
async function carryOut(client: Client, verb: Verb, args: FenceOrderArgs, waitMs: number): Promise<NodeEntry> {
  const { node: name, startCount } = args;
  const end = Date.now() + waitMs;
  let given = await give(client, verb, args);
  let givenAt = Date.now();
  for (;;) {
    const node = await nodeOf(client, name);
    const isOther = (node.incarnation?.startCount ?? 0) > startCount;
    if (node.state === 'fenced' || node.state === 'evicted' || isOther) return node;
    const shows = verb === 'fence-confirm' ? node.isConfirmed : node.state === 'fencing';
    if (Date.now() >= end) {
      const what = shows
        ? `${name} is still ${node.state}`
        : `the order is not in the cluster's log and does not count; ${name} is ${node.state}`;
      throw new TsdlmError('TSDLM_TIMEOUT', `${what}; tsdlm status and tsdlm fence history say why`);
    }
    if (!shows && Date.now() - givenAt > ORDER_SHOWS_MS) {
      const taken =
        given === null
          ? 'no leader has said that it took the order'
          : `${given} took the order, but it is not in the cluster's log`;
      process.stderr.write(`tsdlm: ${taken}: giving it again\n`);
      given = await give(client, verb, args);
      givenAt = Date.now();
    }
    await new Promise((resolve) => setTimeout(resolve, POLL_MS));
  }
}

/** Name of the leader that took the order; null when there is none now, or it did not answer: to be asked again. */
async function give(client: Client, verb: Verb, args: FenceOrderArgs): Promise<string | null> {
  try {
    return ((await client.admin(verb, args)) as FenceOrderData).leader.name;
  } catch (error) {
    if (error instanceof TsdlmError && (error.code === 'TSDLM_UNAVAILABLE' || error.code === 'TSDLM_OUTCOME_UNKNOWN'))
      return null;
    throw error;
  }
}

/** The name a second time, from standard input. */
async function askName(verb: Verb, name: string): Promise<string> {
  process.stderr.write(
    verb === 'fence-confirm'
      ? `Confirming that ${name} can not act any more frees all its locks at once. If it still runs, two owners act at the same time.\n` +
          `Only go on when you have seen yourself that ${name} is off or was restarted.\n`
      : `This ends ${name}, with all that runs there.\n`,
  );
  return askAgain();
}

async function askAgain(): Promise<string> {
  process.stderr.write('The name of the node once more: ');
  const lines = createInterface({ input: process.stdin });
  try {
    for await (const line of lines) return line.trim();
    return '';
  } finally {
    lines.close();
  }
}

function historyText(data: FenceHistoryData): string {
  const row = (r: FenceOperation): string[] => {
    const last = r.tries.at(-1);
    const by =
      r.confirmed === null ? '' : `, confirmed by ${r.confirmed.who} through ${r.confirmed.through} at ${r.confirmed.at}`;
    return [
      r.began === '' ? '-' : r.began,
      r.node,
      String(r.startCount),
      r.isDisproved ? `${r.outcome}, DISPROVED` : r.outcome,
      r.method === '' ? '-' : r.method,
      String(r.tried),
      r.began === '' || last === undefined ? '-' : formatDuration(Math.max(0, Date.parse(last.at) - Date.parse(r.began))),
      r.fencers.length === 0 ? '-' : r.fencers.join(','),
      r.reason,
      `${last === undefined ? '' : last.detail}${by}`,
    ];
  };
  const headings = ['WHEN', 'NODE', 'START', 'RESULT', 'METHOD', 'TRIES', 'TOOK', 'BY', 'WHY', 'WHAT'];
  return data.operations.length === 0 ? 'nothing was fenced\n' : table(headings, data.operations.map(row));
}

function stepsText(data: FenceStepsData): string {
  const row = (r: FenceStepEntry): string[] => [
    `${formatDuration(r.agoMs)} ago`,
    r.node,
    String(r.startCount),
    r.method,
    r.step,
    r.ok ? 'ok' : 'failed',
    formatDuration(r.tookMs),
    r.by.name,
    r.reason,
    r.detail,
  ];
  const headings = ['WHEN', 'NODE', 'START', 'METHOD', 'STEP', 'RESULT', 'TOOK', 'BY', 'WHY', 'WHAT'];
  const silent = data.silent.length === 0 ? '' : `no answer from ${data.silent.map((n) => n.name).join(', ')}\n`;
  return `${data.results.length === 0 ? 'nothing was done at a device\n' : table(headings, data.results.map(row))}${silent}`;
}

function checkText(data: FenceCheckData): string {
  if (data.devices.length === 0) return 'no fence devices are configured\n';
  const rows = data.devices.map((d) => [d.node, d.method, d.ok ? 'ok' : 'FAILS', d.detail]);
  return table(['NODE', 'METHOD', 'STATE', 'WHAT IT SAID'], rows);
}
