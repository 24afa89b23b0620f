/** What a node is to its cluster and which domains it serves, in the words of `tsdlm status` and `stats`. */
import type { NodeCore } from '../core/node-core.js';
import { listDomains } from '../master/dump.js';
import { DEFAULT_DOM } from '../membership/view.js';
import { majority, votersOf } from '../membership/voter-set.js';
import type { DomainEntry, NodeRef, QuorumData, Role } from '../protocol/admin.js';
import type { Millis, NodeId } from '../protocol/ids.js';

export interface RoleContext {
  core: NodeCore;
  self: NodeId;
  now(): Millis;
  links(): { node: number; state: string }[];
}

export function hasLease({ core, now }: RoleContext): boolean {
  return core.isMember && core.leaseUntil > now();
}

export function roleOf(c: RoleContext): Role {
  const { core, self } = c;
  const votes = votersOf(core.view).includes(self);
  if (hasLease(c)) return core.membership.isLeader ? 'leader' : votes ? 'voter' : 'member';
  return votes && core.leader === 0 ? 'arbitrating' : 'joining';
}

export function quorumOf(c: RoleContext): QuorumData {
  const voters = votersOf(c.core.view);
  const up = new Set(c.links().flatMap((l) => (l.state === 'up' ? [l.node] : [])));
  up.add(c.self);
  const has = voters.filter((id) => up.has(id)).length;
  return { has, needs: majority(voters), voters: voters.length, isQuorate: hasLease(c) };
}

/** Domains that have another policy than this node's configuration asks for: what is made keeps its own. */
export function policyWarnings({ core }: Pick<RoleContext, 'core'>): string[] {
  const { standard, domains } = core.engine.state.mastery;
  return core.view.domains.flatMap((d) => {
    const wished = domains.get(d.name) ?? (d.dom === DEFAULT_DOM ? standard : undefined);
    if (wished === undefined || wished === d.mastery || d.members.length === 0) return [];
    return [`domain ${d.name} has mastery "${d.mastery}" since it was made, and this node's configuration says "${wished}"`];
  });
}

export function domainsOf(c: RoleContext, ref: (id: NodeId) => NodeRef): DomainEntry[] {
  const isLeased = hasLease(c);
  return listDomains(c.core.engine).map((d) => ({
    name: d.name,
    mastery: d.mastery,
    epoch: d.epoch,
    members: d.members.map(ref),
    masters: d.masters.map(ref),
    state: !isLeased || d.masters.length === 0 ? 'arbitrating' : d.isRecovering ? 'recovering' : 'active',
  }));
}
