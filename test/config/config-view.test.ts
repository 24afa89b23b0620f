/** The configuration file against the cluster's table: what is older is passed over, what was edited against it is refused. */
import t from 'tap';
import { limitValues } from '../../src/membership/limits-in-force.js';
import type { Command, View } from '../../src/membership/types.js';
import { applyCommand, initialView } from '../../src/membership/view.js';
import { type Config, loadConfig } from '../../src/node/config.js';
import { checkAgainstView, copyOf, parseCopy } from '../../src/node/config-view.js';
import { nextStep, parseGoal } from '../../src/node/table-goal.js';

const TEXT = `cluster = "c"
node = "a"
key = "0123456789abcdef0123456789abcdef"
[limits]
lease_ms = 3000
[[nodes]]
name = "a"
id = 1
host = "10.0.0.1"
[[nodes]]
name = "b"
id = 2
host = "10.0.0.2"
[[nodes]]
name = "w"
id = 3
host = "10.0.0.3"
role = "witness"
`;
const load = (text: string): Config => loadConfig({ text, hostname: 'x', file: 'f' });
const config = load(TEXT);

function clusterOf({ nodes, limits }: Config): View {
  const first: Command = { c: 'cluster', id: 'id', nodes, journals: {}, limits: limitValues(limits), mastery: 'peer' };
  return applyCommand(initialView(nodes, ''), first);
}
const view = clusterOf(config);
const change = (command: (table: number) => Command): View => applyCommand(view, command(view.table));

t.test('a file that says what the cluster has, or a cluster that has no log yet', async (t) => {
  t.same(checkAgainstView(config, view, copyOf(config)), []);
  t.same(checkAgainstView(config, initialView(config.nodes, ''), null), []);
  t.equal(view.nodes.find((n) => n.id === 3)?.witness, true);
  t.same(parseCopy(JSON.parse(JSON.stringify(copyOf(config)))), copyOf(config), 'the copy survives the journal');
  t.equal(parseCopy('x'), null);
});

t.test('an untouched file is merely older, whatever was changed by command', async (t) => {
  for (const command of [
    (table: number): Command => ({ c: 'voter', table, node: 2, on: false }),
    (table: number): Command => ({ c: 'nodeSet', table, node: 2, host: '10.9.9.9', port: 0, fence: [] }),
    (table: number): Command => ({ c: 'limits', table, limits: limitValues(load(TEXT.replace('3000', '5000')).limits) }),
  ]) {
    const old = checkAgainstView(config, change(command), copyOf(config));
    t.ok(old.length > 0, old.join('; '));
  }
});

t.test('a file edited against the cluster is refused with both values and the way out', async (t) => {
  const accepted = copyOf(config);
  for (const [text, code, say] of [
    [TEXT.replace('3000', '5000'), 'TSDLM_LIMITS_MISMATCH', /leaseMs is 5000 here and 3000 in the cluster.*tsdlm limits set/],
    [TEXT.replace('10.0.0.2', '10.0.0.7'), 'TSDLM_CONFIG_MISMATCH', /10\.0\.0\.7.*10\.0\.0\.2.*tsdlm node set b --address/],
    [TEXT.replace('"10.0.0.2"', '"10.0.0.2"\nvoter = false'), 'TSDLM_CONFIG_MISMATCH', /"member" here and "voter".*--role/],
    [`${TEXT}[[nodes]]\nname = "d"\nid = 4\nhost = "x"\n`, 'TSDLM_CONFIG_MISMATCH', /node d.*not in the table.*tsdlm node add d/],
    [TEXT.replace(/\[\[nodes\]\]\nname = "w"[^[]*$/, ''), 'TSDLM_CONFIG_MISMATCH', /node w.*tsdlm node remove w/],
  ] as const) {
    t.throws(() => checkAgainstView(load(text), view, accepted), { code, message: say });
  }
  const moved = change((table) => ({ c: 'nodeSet', table, node: 2, host: '10.0.0.7', port: 0, fence: [] }));
  t.same(checkAgainstView(load(TEXT.replace('10.0.0.2', '10.0.0.7')), moved, accepted), [], 'edited to what the cluster has');
});

t.test('a node that was removed does not start', async (t) => {
  const demoted = change((table) => ({ c: 'voter', table, node: 1, on: false }));
  const removed = applyCommand(demoted, { c: 'nodeRemove', table: demoted.table, node: 1 });
  t.throws(() => checkAgainstView(config, removed, copyOf(config)), { code: 'TSDLM_NODE_REMOVED' });
});

t.test('a witness needs no fence method, and gets none', async (t) => {
  t.throws(() => load(TEXT.replace('role = "witness"', 'role = "witness"\nfence = [["self"]]')), {
    message: /a witness owns nothing.*remove fence/,
  });
  t.throws(() => load(TEXT.replace('role = "witness"', 'role = "witness"\nvoter = true')), {
    message: /role or voter, not both/,
  });
});

t.test('goals: the next step, and nothing when there is none', async (t) => {
  const add = parseGoal({ what: 'add', name: 'd', id: 0, host: 'h', port: 7, fence: [['self']], role: 'voter' });
  t.match(nextStep(view, add), { c: 'nodeAdd', spec: { id: 4, name: 'd', voter: true } });
  t.match(nextStep(view, parseGoal({ what: 'remove', name: 'b' })), { c: 'voter', node: 2, on: false }, 'its vote goes first');
  t.equal(nextStep(view, parseGoal({ what: 'vote', name: 'b', on: true })), null);
  t.match(nextStep(view, parseGoal({ what: 'voters', names: ['a', 'w'] })), { c: 'voter', node: 2, on: false });
  t.match(nextStep(view, parseGoal({ what: 'limits', limits: { leaseMs: 6000 } })), {
    limits: { leaseMs: 6000, deadMs: 3600, electionMs: 1000, heartbeatMs: 250 },
  });
  t.equal(nextStep(view, parseGoal({ what: 'limits', limits: { leaseMs: 3000 } })), null);
  t.throws(() => nextStep(view, parseGoal({ what: 'limits', limits: { leaseMs: 300 } })), { code: 'TSDLM_BAD_CONFIG' });
  t.throws(() => nextStep(view, parseGoal({ what: 'remove', name: 'nobody' })), { code: 'TSDLM_NOT_ALLOWED' });
  for (const bad of [
    {},
    { what: 'add' },
    { what: 'remove', name: '../x' },
    { what: 'voters', names: [] },
    { what: 'limits', limits: { leaseMs: -1 } },
  ]) {
    t.throws(() => parseGoal(bad), { code: 'TSDLM_BAD_ARGUMENT' }, JSON.stringify(bad));
  }
});
