/** `tsdlm ls`, `show`, `status` and `nodes`: what the daemon knows, laid out. The data is described in protocol/admin.ts. */
import type { Command } from 'commander';
import { detectDlmfs, type Found } from '../dlmfs/kernel-detect.js';
import type { FilesData, ListArgs, ListData, ListEntry, NodesData, ShowArgs, ShowData, StatusData } from '../protocol/admin.js';
import type { Context } from './context.js';
import { foundText } from './dlmfs.js';
import { formatDuration } from './duration.js';
import { pairs, plain, table } from './table.js';

export function lsCommand(program: Command, context: () => Context): void {
  program
    .command('ls')
    .description('list the locks that are known')
    .option('--domain <domain>', 'only this domain')
    .action(async (flags: { domain?: string }) => {
      const c = context();
      const locks = await c.withClient('tsdlm ls', async (client) => {
        const all: ListEntry[] = [];
        const args: ListArgs = flags.domain === undefined ? {} : { domain: flags.domain };
        for (;;) {
          const page = (await client.admin('ls', args)) as ListData;
          all.push(...page.locks);
          if (page.next === null) return all;
          args.after = page.next;
        }
      });
      c.print({ locks }, () =>
        locks.length === 0 ? 'no locks\n' : table(['DOMAIN', 'NAME', 'MODE', 'WAITING', 'NODE', 'OWNER'], locks.map(listRow)),
      );
    });
}

function listRow(lock: ListEntry): string[] {
  const others = lock.holders > 1 ? ` and ${lock.holders - 1} more` : '';
  const owner = lock.isOrphan ? 'orphan hold of a file' : lock.isNodeOwned ? 'the node' : lock.owner;
  return [
    lock.domain,
    lock.name,
    lock.mode,
    String(lock.waiting),
    lock.node?.name ?? '-',
    owner === '' ? '-' : `${owner}${others}`,
  ];
}

export function showCommand(program: Command, context: () => Context): void {
  program
    .command('show')
    .description('show who holds a lock, since when and why, and who waits behind whom')
    .argument('<name>', 'name of the lock')
    .option('--domain <domain>', 'domain of the lock', 'default')
    .action(async (name: string, flags: { domain: string }) => {
      const c = context();
      const args: ShowArgs = { domain: flags.domain, name };
      const data = (await c.withClient('tsdlm show', (client) => client.admin('show', args))) as ShowData;
      c.print(data, showText);
    });
}

function showText(d: ShowData): string {
  const why = (text: string): string => (text === '' ? '' : `: ${plain(text)}`);
  const lines = [
    `${plain(d.name)} in domain ${plain(d.domain)}, mastered by ${d.master?.name ?? 'nobody'}, value block ${d.lvbState}`,
  ];
  if (d.holders.length === 0) lines.push('  held by nobody');
  for (const h of d.holders) {
    const owner = h.isNodeOwned ? `node ${h.node.name} itself` : h.who;
    const token = h.token === '0' ? '' : ` token ${h.token}`;
    lines.push(`  held     ${h.mode}  ${plain(owner)} for ${formatDuration(h.sinceMs)}${token}${why(h.why)}`);
  }
  let before = d.holders.length === 1 ? (d.holders[0]?.who ?? '') : `${d.holders.length} holders`;
  for (const w of d.waiting) {
    const what = w.from === null ? `${w.mode}   ` : `${w.from}>${w.mode}`;
    const behind = before === '' ? '' : ` behind ${plain(before)}`;
    lines.push(`  waiting  ${what.trimEnd()}  ${plain(w.who)} for ${formatDuration(w.sinceMs)}${behind}${why(w.why)}`);
    before = w.who;
  }
  if (d.moreWaiting > 0) lines.push(`  and ${d.moreWaiting} more wait`);
  return `${lines.join('\n')}\n`;
}

export function statusCommand(program: Command, context: () => Context): void {
  program
    .command('status')
    .description('show the state of this node and of its daemon')
    .action(async () => {
      const c = context();
      const data = (await c.withClient('tsdlm status', (client) => client.admin('status'))) as StatusData;
      const dlm = await detectDlmfs();
      c.print({ ...data, dlm }, (d) => statusText(d, dlm));
    });
}

function statusText(s: StatusData, dlm: Found): string {
  const members = s.members
    .map((m) => `${m.name} ${m.state}${m.witness ? ' (witness)' : m.voter ? '' : ' (no vote)'}`)
    .join(', ');
  const links = s.links.map((l) => `${l.name} ${l.state}`).join(', ');
  const megabytes = (s.journal.sizeBytes / 1024 / 1024).toFixed(1);
  const text = pairs([
    ['node', `${s.node.name} (${s.node.id}), ${s.isMember ? 'member' : 'not a member'}, ${s.state}, start ${s.startCount}`],
    ['cluster', s.cluster],
    ['daemon', `tsdlmd ${s.version}, process ${s.pid}, up ${formatDuration(s.uptimeMs)}`],
    ['role', roleText(s)],
    ['epoch', String(s.epoch)],
    ['leader', s.leader === null ? 'none' : `${s.leader.name} (${s.leader.id})`],
    [
      'lease',
      s.leaseLeftMs > 0
        ? `${formatDuration(s.leaseLeftMs)} left`
        : `none: nothing is granted here${s.isSuspended ? ', what is held is kept (suspended)' : ''}`,
    ],
    ['domains', s.domains.length === 0 ? '-' : s.domains.map(domainText).join(', ')],
    ...(s.waitsFor === null ? [] : [['waits for', `${s.waitsFor.node.name}: ${s.waitsFor.why}`] as [string, string]]),
    ...(s.alone === null
      ? []
      : [['alone', `${s.alone.survivor.name} went on without ${s.alone.peer.name} (${s.alone.method})`] as [string, string]]),
    ['members', members === '' ? '-' : members],
    ['links', links === '' ? '-' : links],
    [
      'limits',
      `heartbeat ${s.limits.heartbeatMs} ms, lease ${s.limits.leaseMs} ms, margin ${s.limits.marginMs} ms, dead after ${s.limits.deadMs} ms${s.limits.isSettling ? '; the former ones are still waited for' : ''}`,
    ],
    ['journal', `${s.journal.state}, ${megabytes} MB, ${s.journal.path}`],
    ['locks', `${s.locks.held} held, ${s.locks.waiting} waiting, ${s.sessions} sessions`],
    ['files', filesText(s.files)],
    ['self end', s.armedMs === 0 ? 'not armed' : `armed: this machine ends within ${formatDuration(s.armedMs)} of its lease`],
    ['node-owned', s.nodeOwnedAllowed ? 'allowed' : 'refused: no fence method ends this machine'],
    ['dlmfs', foundText(dlm)],
    ...(s.bridge === null ? [] : [['bridge', bridgeText(s.bridge)] as [string, string]]),
  ]);
  const orphans = s.files.orphans.map(
    (o) =>
      `orphan hold: ${plain(o.domain)}/${plain(o.name)} ${o.mode} of mount ${plain(o.mount)} for ${formatDuration(o.sinceMs)}: ` +
      'unmount it (tsdlm umount), or when nobody uses it any more: tsdlm unlock --orphan\n',
  );
  return text + orphans.join('') + s.warnings.map((warning) => `warning: ${plain(warning)}\n`).join('');
}

function filesText(f: FilesData): string {
  if (f.refusal !== null) return 'refused: no fence method ends this machine';
  if (f.socket === null && f.listen === null) return 'not served';
  const where = [f.socket, f.listen].filter((x) => x !== null).join(', ');
  const open = f.mounts.reduce((sum, m) => sum + m.open, 0);
  return `${where}, ${f.mounts.length} mounts, ${open} open, ${f.orphans.length} orphan holds`;
}

/** Also what `tsdlm stats` says of it. */
function roleText(s: Pick<StatusData, 'role' | 'quorum'>): string {
  const { has, needs, voters } = s.quorum;
  const what = s.role === 'arbitrating' ? 'arbitrating: without a quorum nothing is granted' : s.role;
  return `${what}; ${has} of ${voters} voters reached, ${needs} needed`;
}

function domainText(d: StatusData['domains'][number]): string {
  const masters = d.mastery === 'peer' ? 'peer' : `servers ${d.masters.map((m) => m.name).join(' ') || 'none'}`;
  return `${d.name} (${masters}${d.state === 'active' ? '' : `, ${d.state}`})`;
}

function bridgeText(b: NonNullable<StatusData['bridge']>): string {
  if (b.state === 'up') return `up, ${b.held} held in the kernel`;
  return b.state === 'starting' ? 'starting' : `down, nothing is granted in bridged domains: ${plain(b.why)}`;
}

export function nodesCommand(program: Command, context: () => Context): void {
  program
    .command('nodes')
    .description('list the nodes of the cluster')
    .action(async () => {
      const c = context();
      const data = (await c.withClient('tsdlm nodes', (client) => client.admin('nodes'))) as NodesData;
      c.print(data, nodesText);
    });
}

/** A witness may lead: that it owns nothing stays visible then. */
function nodeRole(n: NodesData['nodes'][number]): string {
  if (n.witness) return n.isLeader ? 'witness, leader' : 'witness';
  if (n.isLeader) return 'leader';
  return n.voter ? 'voter' : n.wantsVote ? 'to vote' : 'member';
}

function nodesText(data: NodesData): string {
  const rows = data.nodes.map((n) => [
    String(n.id),
    n.isSelf ? `${n.name} *` : n.name,
    n.state,
    nodeRole(n),
    n.incarnation === null ? '-' : `${n.incarnation.startCount}/${n.incarnation.bootId.slice(0, 8)}`,
    n.link,
    n.address === '' ? '-' : n.address,
    n.fencedBy === '' ? '-' : n.fencedBy,
  ]);
  return table(['ID', 'NAME', 'STATE', 'ROLE', 'START/BOOT', 'LINK', 'ADDRESS', 'FENCED BY'], rows);
}
