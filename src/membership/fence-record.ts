/**
 * What the log remembers of fencing: one record per operation, and the devices that nobody trusts any more.
 *
 * The problem: who was fenced, why, by whom and with what result must outlive the leader that did it, be the same on every node, and
 * not depend on anybody's memory; a person's confirmation above all. A device that said "off" and lied must not be believed
 * again after a change of leaders (rule 12). So all of it is part of the view: pure data, changed only by commands of the log.
 * Times are wall-clock times of the leader that wrote the entry, for people only: nothing is decided by them.
 * When a command is proposed is gate.ts; what a fence means for membership is view.ts.
 */
import type { NodeId, StartCount } from '../protocol/ids.js';
import type { Command, FenceRecord, NodeView, View } from './types.js';

/** Operations kept; the oldest that is over goes. */
export const FENCE_RECORDS_MAX = 100;
/** Tries kept of each operation, the newest. */
export const FENCE_TRIES_MAX = 8;
/** Leaders named in one record. */
export const FENCERS_MAX = 8;
export const DISTRUSTED_MAX = 256;
/** Bytes of a try's detail. */
export const FENCE_DETAIL_BYTES = 200;

/** Decided by the core, not by a device: what they say cannot be a device's lie. */
const NO_DEVICE: readonly string[] = ['self', 'manual', 'reboot', 'left', 'lost-history', ''];

/** The methods behind `fencedBy` that are devices (or verified scripts): they claim that the machine was ended. */
export function devicesIn(fencedBy: string): string[] {
  return fencedBy.split('+').filter((method) => !NO_DEVICE.includes(method));
}

/** The operation that is under way for this incarnation. */
export function openFence(view: View, node: NodeId, startCount: StartCount): FenceRecord | undefined {
  return view.fencings.find((r) => r.node === node && r.startCount === startCount && r.outcome === '');
}

export function isDistrusted(view: View, node: NodeId, method: string): boolean {
  return view.distrusted.some((d) => d.node === node && d.method === method);
}

/**
 * What claims to have ended exactly this boot of the node's machine, where that were devices; '' = nothing does. `isNew`: no
 * conclusion was drawn from it yet.
 */
export function endedBoot(view: View, id: NodeId, bootId: string): { by: string; startCount: StartCount; isNew: boolean } {
  const record = view.fencings.findLast(
    (r) => r.node === id && r.bootId === bootId && r.outcome === 'fenced' && devicesIn(r.method).length > 0,
  );
  if (record !== undefined) return { by: record.method, startCount: record.startCount, isNew: !record.doubted };
  // The record may be gone for its age; the node's own entry knows as much.
  const node = view.nodes.find((n) => n.id === id);
  const isOver = node?.state === 'fenced' || node?.state === 'evicted';
  const by = isOver && node.incarnation?.bootId === bootId && devicesIn(node.fencedBy).length > 0 ? node.fencedBy : '';
  return { by, startCount: 0, isNew: false };
}

/** Printable and bounded: it came from a device or a person, and goes into the log. */
export function logText(text: string, chars = FENCE_DETAIL_BYTES): string {
  return text.replace(/[^\x20-\x7e]/g, '?').slice(0, chars);
}

/** The view with what `command`, which turned `before` into `after`, leaves behind; the very same object when nothing. */
export function recordFence(before: View, after: View, command: Command): View {
  switch (command.c) {
    case 'fencing':
      return before === after ? after : opened(after, command.node, command.startCount, command.reason);
    case 'fenceBegin':
      return edit(after, command, (r) =>
        r.fencers.at(-1) === command.by
          ? r
          : { ...r, fencers: [...r.fencers, command.by].slice(-FENCERS_MAX), begunAt: r.begunAt === 0 ? command.at : r.begunAt },
      );
    case 'fenceTry': {
      const { c: _c, node: _n, startCount: _s, ...one } = command;
      return edit(after, command, (r) => {
        const last = r.tries.at(-1);
        if (last?.by === one.by && last.at === one.at && last.methods === one.methods) return r;
        return { ...r, tried: r.tried + 1, tries: [...r.tries, one].slice(-FENCE_TRIES_MAX) };
      });
    }
    case 'fenceConfirm': {
      const { who, by, at } = command;
      return edit(after, command, (r) => (r.confirmed === null ? { ...r, confirmed: { who, by, at } } : r));
    }
    case 'alone': {
      if (before === after) return after;
      const { node: by, peer, startCount, method, reason, detail, attempt, tookMs, at } = command;
      const open = openFence(after, peer, startCount) === undefined ? opened(after, peer, startCount, reason) : after;
      const one = { by, at, level: 0, methods: method, attempt, ok: true, detail, tookMs };
      const fencings = open.fencings.map((r) =>
        r === openFence(open, peer, startCount)
          ? {
              ...r,
              fencers: [...r.fencers, by].slice(-FENCERS_MAX),
              tries: [...r.tries, one].slice(-FENCE_TRIES_MAX),
              tried: r.tried + 1,
            }
          : r,
      );
      return closed({ ...open, fencings }, peer, 'fenced', method);
    }
    case 'lostHistory':
      return before === after
        ? after
        : {
            ...after,
            fencings: after.fencings.map((r) => (r.outcome === '' ? { ...r, outcome: 'fenced', method: 'lost-history' } : r)),
          };
    case 'fenced':
      return before === after ? after : closed(after, command.node, 'fenced', command.method);
    case 'join':
      return before === after ? after : closed(after, command.node, 'returned', '');
    case 'nodeLeave':
      return before === after ? after : closed(after, command.node, 'left', '');
    case 'distrust':
      return doubted(after, command);
    case 'trust': {
      const left = after.distrusted.filter((d) => d.node !== command.node || d.method !== command.method);
      return left.length === after.distrusted.length ? after : { ...after, distrusted: left };
    }
    default:
      return after;
  }
}

function isFencing(node: NodeView, startCount: StartCount): boolean {
  return node.state === 'fencing' && node.incarnation?.startCount === startCount;
}

function opened(view: View, id: NodeId, startCount: StartCount, reason: string): View {
  const node = view.nodes.find((n) => n.id === id);
  const record: FenceRecord = {
    node: id,
    startCount,
    bootId: node?.incarnation?.bootId ?? '',
    reason,
    begunAt: 0,
    fencers: [],
    tries: [],
    tried: 0,
    confirmed: null,
    outcome: '',
    method: '',
    doubted: false,
  };
  return { ...view, fencings: bounded([...view.fencings, record]) };
}

/** Never more than the limit; what is under way is never dropped (there are fewer nodes than records). */
function bounded(records: FenceRecord[]): FenceRecord[] {
  if (records.length <= FENCE_RECORDS_MAX) return records;
  const oldest = records.findIndex((r) => r.outcome !== '');
  return records.filter((_, i) => i !== oldest);
}

function edit(view: View, about: { node: NodeId; startCount: StartCount }, fn: (r: FenceRecord) => FenceRecord): View {
  if (!view.nodes.some((n) => n.id === about.node && isFencing(n, about.startCount))) return view;
  const record = openFence(view, about.node, about.startCount);
  if (record === undefined) return view;
  const next = fn(record);
  return next === record ? view : { ...view, fencings: view.fencings.map((r) => (r === record ? next : r)) };
}

/** Every device that took part in it, once for each fence that turned out to be none. */
function doubted(view: View, command: Extract<Command, { c: 'distrust' }>): View {
  const { node, startCount, why, at } = command;
  const record = view.fencings.find((r) => r.node === node && r.startCount === startCount && r.outcome === 'fenced');
  if (record === undefined || record.doubted) return view;
  const added = devicesIn(record.method).filter((method) => !isDistrusted(view, node, method));
  const distrusted = [...view.distrusted, ...added.map((method) => ({ node, method, why, at }))].slice(-DISTRUSTED_MAX);
  return { ...view, distrusted, fencings: view.fencings.map((r) => (r === record ? { ...r, doubted: true } : r)) };
}

function closed(view: View, node: NodeId, outcome: FenceRecord['outcome'], method: string): View {
  if (!view.fencings.some((r) => r.node === node && r.outcome === '')) return view;
  return { ...view, fencings: view.fencings.map((r) => (r.node === node && r.outcome === '' ? { ...r, outcome, method } : r)) };
}
