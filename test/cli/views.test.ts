import t from 'tap';
import type { ListData, NodesData, ShowData, StatusData } from '../../src/protocol/admin.js';
import { runCli } from '../fixtures/cli.js';
import { startFakeDaemon } from '../fixtures/fake-daemon.js';

const n1 = { id: 1, name: 'alpha' };
const n2 = { id: 2, name: 'beta' };

const STATUS: StatusData = {
  node: n1,
  role: 'voter',
  quorum: { has: 1, needs: 1, voters: 1, isQuorate: true },
  domains: [
    { name: 'default', mastery: 'peer', epoch: 12, members: [n1, n2], masters: [n1, n2], state: 'active' },
    { name: 'web', mastery: 'servers', epoch: 9, members: [n2], masters: [], state: 'arbitrating' },
  ],
  cluster: 'lab',
  version: '0.1.0',
  pid: 4711,
  uptimeMs: 3_720_000,
  isMember: true,
  state: 'in',
  startCount: 3,
  epoch: 12,
  leader: n2,
  leaseLeftMs: 2800,
  isSuspended: false,
  waitsFor: null,
  alone: null,
  members: [
    { ...n1, state: 'in', voter: true, witness: false },
    { ...n2, state: 'suspect', voter: false, witness: false },
  ],
  limits: { heartbeatMs: 250, leaseMs: 3000, marginMs: 601, suspectMs: 1000, deadMs: 1800, electionMs: 500, isSettling: false },
  journal: { path: '/var/lib/tsdlm', state: 'open', sizeBytes: 2 * 1024 * 1024 },
  links: [{ node: 2, name: 'beta', address: '10.0.0.2:7719', state: 'up', backlogBytes: 0 }],
  sessions: 4,
  locks: { held: 2, waiting: 1 },
  armedMs: 0,
  nodeOwnedAllowed: false,
  bridge: null,
  files: {
    socket: '/run/tsdlm/9p.sock',
    listen: null,
    refusal: null,
    mounts: [{ mount: '00112233445566aa:/dlm', sinceMs: 5000, domains: 1, files: 2, open: 1, waiting: 0 }],
    orphans: [{ mount: '99:/old', domain: 'vip', name: 'master', mode: 'EX', holders: 1, sinceMs: 61_000 }],
    refusedMessages: 0,
    endedConnections: 0,
  },
  warnings: ['fence method ipmi of node beta failed 3 times'],
};
const NODES: NodesData = {
  epoch: 12,
  nodes: [
    {
      ...n1,
      state: 'in',
      voter: true,
      witness: false,
      wantsVote: false,
      fence: [['self']],
      journal: 'j',
      isLeader: false,
      isSelf: true,
      address: '10.0.0.1:7719',
      incarnation: { startCount: 3, bootId: '0123456789abcdef' },
      link: 'self',
      fencedBy: '',
      isConfirmed: false,
    },
    {
      ...n2,
      state: 'out',
      voter: false,
      witness: false,
      wantsVote: false,
      fence: [['self']],
      journal: 'j',
      isLeader: false,
      isSelf: false,
      address: '',
      incarnation: null,
      link: 'down',
      fencedBy: 'self',
      isConfirmed: false,
    },
  ],
};
const entry = (name: string): ListData['locks'][number] => ({
  domain: 'default',
  name,
  mode: 'EX',
  owner: 'alpha:17 job',
  node: n1,
  holders: 1,
  waiting: 2,
  isNodeOwned: false,
  isOrphan: false,
});
const SHOW: ShowData = {
  domain: 'default',
  name: 'master',
  master: n2,
  lvbState: 'valid',
  holders: [
    { mode: 'EX', node: n1, who: 'alpha:17 job', why: 'backup', token: '13194139533313', sinceMs: 61_500, isNodeOwned: false },
  ],
  waiting: [
    { from: null, mode: 'EX', node: n2, who: 'beta:18 job', why: '', sinceMs: 4000 },
    { from: 'PR', mode: 'EX', node: n2, who: 'beta:19 evil\u001b[2J', why: 'x', sinceMs: 100 },
  ],
  moreWaiting: 7,
};

t.test('status, nodes, ls and show are laid out for people and given whole as JSON', async (t) => {
  const asked: { verb: string; args: unknown }[] = [];
  const daemon = await startFakeDaemon({
    admin: async (verb, args) => {
      asked.push({ verb, args });
      if (verb === 'status') return { ok: true, data: STATUS };
      if (verb === 'nodes') return { ok: true, data: NODES };
      if (verb === 'show') return { ok: true, data: SHOW };
      const after = (args as { after?: string }).after;
      if (verb === 'ls')
        return {
          ok: true,
          data: after === undefined ? { locks: [entry('a')], next: 'a' } : { locks: [entry('long name')], next: null },
        };
      return { ok: false, code: 'TSDLM_USAGE', text: 'no such verb' };
    },
  });
  t.teardown(() => daemon.stop());

  const status = await runCli(daemon.path, ['status']);
  t.equal(status.code, 0);
  t.match(status.stdout, /^node +alpha \(1\), member, in, start 3$/m);
  t.match(status.stdout, /^leader +beta \(2\)$/m);
  t.match(status.stdout, /^lease +2\.8 s left$/m);
  t.match(status.stdout, /^members +alpha in, beta suspect \(no vote\)$/m);
  t.match(status.stdout, /up 1 h 2 min/);
  t.match(status.stdout, /^warning: fence method ipmi/m);
  t.match(status.stdout, /^dlmfs +\S.* \/dlm/m, 'what is mounted there, by whatever name');
  const { dlm, ...rest } = JSON.parse((await runCli(daemon.path, ['status', '--json'])).stdout);
  t.same(rest, STATUS);
  t.match(dlm, { dir: '/dlm', kind: String });

  const nodes = await runCli(daemon.path, ['nodes']);
  const lines = nodes.stdout.split('\n');
  t.match(lines[0], /^ID {2}NAME +STATE +ROLE +START\/BOOT +LINK +ADDRESS +FENCED BY$/);
  t.match(lines[1], /^1 +alpha \* +in +voter +3\/01234567 +self +10\.0\.0\.1:7719 +-$/);
  t.match(lines[2], /^2 +beta +out +member +- +down +- +self$/);

  const ls = await runCli(daemon.path, ['ls', '--domain', 'default']);
  t.equal(ls.stdout.split('\n').length, 4, 'all pages are fetched');
  t.match(ls.stdout, /^default {2}long name {2}EX +2 +alpha +alpha:17 job$/m);
  t.same(
    asked.filter((a) => a.verb === 'ls').map((a) => a.args),
    [{ domain: 'default' }, { domain: 'default', after: 'a' }],
  );
  t.equal(JSON.parse((await runCli(daemon.path, ['--json', 'ls'])).stdout).locks.length, 2);

  const show = await runCli(daemon.path, ['show', 'master']);
  t.match(show.stdout, /^master in domain default, mastered by beta, value block valid$/m);
  t.match(show.stdout, /^ {2}held {5}EX {2}alpha:17 job for 1 min 1 s token 13194139533313: backup$/m);
  t.match(show.stdout, /^ {2}waiting {2}EX {2}beta:18 job for 4\.0 s behind alpha:17 job$/m);
  t.match(
    show.stdout,
    /waiting {2}PR>EX {2}beta:19 evil\\x1b\[2J for 100 ms behind beta:18 job: x$/m,
    'control characters are shown',
  );
  t.match(show.stdout, /and 7 more wait/);
  t.same(asked.find((a) => a.verb === 'show')?.args, { domain: 'default', name: 'master' });
});

t.test('a reader that goes away is no fault', async (t) => {
  const daemon = await startFakeDaemon({ admin: async () => ({ ok: true, data: { locks: [], next: null } }) });
  t.teardown(() => daemon.stop());
  t.match(await runCli(daemon.path, ['ls']), { code: 0, stdout: 'no locks\n' });
});
