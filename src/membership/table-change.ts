/**
 * When the leader takes a change of the node table or of the time limits.
 *
 * The problem: a change that is well-formed may still be unsafe or useless now: a node that still acts must not be removed, its way
 * of being ended not loosened while it is being ended, its place not given to another journal. The idea: one judgement per command,
 * made at the leader on the view after all entries of its log; `wait` for what time will bring, `refuse` with the way out
 * for the rest. What the command then does is node-table.ts; votes are voter-change.ts.
 */
import { TsdlmError } from '../protocol/errors.js';
import type { Millis, NodeId } from '../protocol/ids.js';
import { endsWithMachine } from './fence-levels.js';
import { waitOf } from './limits-in-force.js';
import { addProblem, isGone } from './node-table.js';
import { deriveTimeLimits } from './time-limits.js';
import type { NodeView, TableCommand, View } from './types.js';
import { isLive } from './view.js';
import type { TableVerdict } from './voter-change.js';

export interface TableContext {
  /** The view after all entries of the log. */
  ahead: View;
  /** Journal with which the node asked lately to be taken in, although another is known for it; '' for none. */
  askedWith(node: NodeId): string;
  judgeVoter(node: NodeId, on: boolean): TableVerdict;
}

const TAKEN: TableVerdict = { what: 'taken' };
const wait = (why: string): TableVerdict => ({ what: 'wait', why });
const refuse = (text: string): TableVerdict => ({ what: 'refuse', text });

export function judgeTable(command: TableCommand, c: TableContext): TableVerdict {
  const view = c.ahead;
  if (view.clusterId === '') return wait('the cluster is only just beginning');
  if (command.table !== view.table) return wait('the node table has changed meanwhile: it is looked at again');
  switch (command.c) {
    case 'nodeAdd': {
      const problem = addProblem(view, command.spec);
      return problem === '' ? TAKEN : refuse(problem);
    }
    case 'limits':
      return judgeLimits(command, view);
    case 'limitsSettled':
      return refuse('only the leader says that a change of the time limits is settled');
  }
  const node = view.nodes.find((n) => n.id === command.node);
  if (node === undefined) return refuse(`node ${command.node} is not in the table: tsdlm nodes lists them`);
  switch (command.c) {
    case 'voter':
      if (command.on && !isLive(node)) return wait(`node ${node.name} is ${node.state}: it must be a member to get a vote`);
      return c.judgeVoter(node.id, command.on);
    case 'wantVote':
      return TAKEN;
    case 'nodeSet':
      return judgeSet(command, node);
    case 'nodeRemove':
      if (isLive(node))
        return refuse(`node ${node.name} is a member: stop it first (or fence it: tsdlm fence node ${node.name})`);
      if (!isGone(node)) return wait(`node ${node.name} is ${node.state}`);
      return node.voter ? refuse(`node ${node.name} still has a vote: take it first`) : TAKEN;
    case 'readmit':
      return judgeReadmit(command, node, c);
  }
}

function judgeSet(command: Extract<TableCommand, { c: 'nodeSet' }>, node: NodeView): TableVerdict {
  if (command.fence.length === 0) return TAKEN;
  if (node.witness) return refuse(`node ${node.name} is a witness: it owns nothing, only its lease is waited for`);
  if (node.state === 'fencing') return wait(`node ${node.name} is being fenced`);
  const isSelfOnly = command.fence.every((level) => level.every((method) => method === 'self'));
  if (isSelfOnly && node.nodeOwned) {
    return refuse(`node ${node.name} holds node-owned locks, which "self" never frees (rule 2): release them first`);
  }
  if (endsWithMachine(node.fence) && !endsWithMachine(command.fence) && !isGone(node)) {
    return refuse(
      `node ${node.name} keeps what it holds beyond its lease, because only devices end it (rule 20): stop it before it may be ended otherwise`,
    );
  }
  return TAKEN;
}

function judgeLimits(command: Extract<TableCommand, { c: 'limits' }>, view: View): TableVerdict {
  if (view.limits?.former != null) return wait('the last change of the time limits is not settled yet');
  try {
    deriveTimeLimits(command.limits);
  } catch (error) {
    if (error instanceof TsdlmError) return refuse(error.message);
    throw error;
  }
  return TAKEN;
}

function judgeReadmit(command: Extract<TableCommand, { c: 'readmit' }>, node: NodeView, c: TableContext): TableVerdict {
  if (isLive(node)) return refuse(`node ${node.name} is a member with the journal that the cluster knows: nothing to readmit`);
  if (!isGone(node)) return wait(`the last incarnation of node ${node.name} is ${node.state}, not over yet`);
  if (node.voter) return refuse(`node ${node.name} still has a vote, which its new journal must not use: take it first`);
  const asked = c.askedWith(node.id);
  if (asked === '') return wait(`node ${node.name} does not ask to be taken in: start tsdlmd there`);
  if (asked !== command.journal) return wait(`node ${node.name} has yet another journal now`);
  return TAKEN;
}

/** Watches a change of the time limits until it is settled (rule 14). For one time of leading. */
export class LimitsChange {
  private version = 0;
  private allSince: Millis = Number.NEGATIVE_INFINITY;

  begin(): void {
    this.version = 0;
  }

  /** True when every member has acknowledged the limits of `view` and one former lease and margin have passed since then. */
  isSettled(now: Millis, view: View, versionOf: (node: NodeView) => number): boolean {
    const { limits } = view;
    if (limits === null || limits.former === null) return false;
    // Who is on its way out may still count by the former limits, until it is over.
    const isOver = (n: NodeView): boolean => isGone(n) || n.state === 'fenced';
    const isKnown = view.nodes.every((n) => isOver(n) || versionOf(n) >= limits.version);
    if (!isKnown || this.version !== limits.version) {
      this.version = isKnown ? limits.version : 0;
      this.allSince = now;
      return false;
    }
    return now >= this.allSince + waitOf(deriveTimeLimits(limits.former));
  }
}
