/**
 * Who may become a member now: the leader's judgement on a node that asks.
 *
 * The problem: a new incarnation must not act before the old one has certainly stopped, a wiped or cloned journal must not pass
 * for the node it was, and a node that cannot reach the others would let their requests hang (trap 2). What is not yet possible
 * is simply not answered: the node asks again at every heartbeat. What will never be possible is refused with the reason.
 */
import type { ErrorCode } from '../protocol/errors.js';
import type { Incarnation, Millis, NodeId, StartCount } from '../protocol/ids.js';
import { endedBoot } from './fence-record.js';
import type { Presence } from './presence.js';
import type { View } from './types.js';
import { findNode, isLive, mayReturn } from './view.js';

/** `lied`: start count of the fence by device that this node disproves by being here. */
export type Refusal = { what: 'refuse'; code: ErrorCode; text: string; lied?: StartCount };
export type JoinVerdict = { what: 'admit'; keeps: boolean } | { what: 'wait'; why: string } | Refusal;

export interface JoinContext {
  view: View;
  presence: Presence;
  /** When the incarnation that the view shows is certainly over. */
  overAt: Millis;
  /** The incarnation that asks answers for what owners on its node hold from before: session locks stay (rules 1, 3). */
  keeps: boolean;
}

const wait = (why: string): JoinVerdict => ({ what: 'wait', why });
const refuse = (code: ErrorCode, text: string): Refusal => ({ what: 'refuse', code, text });

/** Judges the request of `id` to be a member as `inc`. */
export function judgeJoin(now: Millis, id: NodeId, inc: Incarnation, context: JoinContext): JoinVerdict {
  const { view, presence } = context;
  const node = findNode(view, id);
  if (node === undefined) {
    return refuse('TSDLM_UNKNOWN_NODE', `node ${id} is not in the cluster's node table: tsdlm node add puts it there`);
  }
  const old = node.incarnation;
  let keeps = false;
  if (node.journal !== '' && node.journal !== inc.journalId) {
    // It does not get in; but a machine that was booted since proves that its last life is over, whatever became of its disk.
    if (old !== null) presence.asked(now, id, inc);
    return refuse('TSDLM_JOURNAL_LOST', journalLostText(id));
  }
  // It raises its start count above those of its earlier journal as soon as it has seen the view.
  if (inc.startCount <= node.floor) return wait('start count');
  if (old !== null) {
    const same = inc.startCount === old.startCount && inc.bootId === old.bootId && inc.machineId === old.machineId;
    if (inc.startCount <= old.startCount) {
      return same ? wait('known') : refuse('TSDLM_STALE_INCARNATION', staleText(id, inc.startCount, old.startCount));
    }
    const isReturning = node.state === 'fencing' && mayReturn(node, inc);
    if ((node.state === 'fencing' && !isReturning) || node.state === 'fenced') {
      // The gate wants to know of a machine that was rebooted meanwhile.
      presence.asked(now, id, inc);
      return refuse('TSDLM_NOT_ALLOWED', `node ${id} is being fenced: it is admitted once that is done`);
    }
    if (node.state === 'leaving') return wait('leaving');
    const ended = endedBoot(view, id, inc.bootId);
    if (ended.by !== '') {
      const refusal = refuse('TSDLM_NOT_ALLOWED', liedText(node.name, ended.by));
      return ended.isNew ? { ...refusal, lied: ended.startCount } : refusal;
    }
    if (isLive(node) || isReturning || node.state === 'restarting') {
      presence.asked(now, id, inc);
      if (old.machineId !== inc.machineId) {
        return refuse(
          'TSDLM_NOT_ALLOWED',
          `node ${id} is still a member as machine ${old.machineId}: this machine (${inc.machineId}) is admitted once that one was fenced`,
        );
      }
      if (now < presence.replaceableAt(node, context.overAt)) {
        // Owners may still count on what the old daemon told them. On the same boot the next one takes them over: two daemons
        // never share a journal, so the old one is gone.
        if (!context.keeps || old.bootId !== inc.bootId) return wait('lease');
        keeps = true;
      }
    }
  }
  return linksReady(now, id, inc, context) ? { what: 'admit', keeps } : wait('links');
}

/** All links between the node and the members that talk to the leader are up, as both sides see it. */
function linksReady(now: Millis, id: NodeId, inc: Incarnation, context: JoinContext): boolean {
  const own = context.presence.downOf(now, id, inc.startCount);
  if (own === null) return false;
  for (const member of context.view.nodes) {
    if (member.id === id || !isLive(member) || context.presence.isSilent(now, member)) continue;
    const down = context.presence.downOf(now, member.id, member.incarnation?.startCount ?? 0);
    if (own.includes(member.id) || down?.includes(id) === true) return false;
  }
  return true;
}

export function journalLostText(id: NodeId): string {
  return (
    `node ${id} has another journal than the cluster knows: its state directory was lost or replaced. Put the old state ` +
    'directory back, or let it in as a new node: tsdlm node readmit NAME on a node of the quorum'
  );
}

function liedText(name: string, by: string): string {
  return (
    `${by} has called the machine of node ${name} off, and it still runs on the same boot: the device lied or switched another ` +
    `machine off. Reboot ${name} (of a container: set boot_id_file); repair the device, then: tsdlm fence trust ${name} METHOD`
  );
}

function staleText(id: NodeId, asked: number, known: number): string {
  return (
    `node ${id} asks with start count ${asked}, the cluster knows ${known}: its journal was rolled back or copied. ` +
    'Put the newest state directory back; never run two copies of one'
  );
}
