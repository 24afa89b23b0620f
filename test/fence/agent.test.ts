/** The method agent against fence agents that we play ourselves. */
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { AgentMethod, optionFaults, parseMetadata } from '../../src/fence/agent.js';
import type { AgentFenceConfig } from '../../src/fence/types.js';
import { nowMs } from '../../src/node/facts.js';
import { tempDir } from '../fixtures/journal.js';

const TARGET = { nodeName: 'n2', node: 2, reason: 'silent', attempt: 1, together: 1 };
const never = new AbortController().signal;

const METADATA = `<?xml version="1.0" ?>
<resource-agent name="fence_fake" shortdesc="A fake">
<parameters>
	<parameter name="action" unique="0" required="1"><content type="string" default="reboot"  /></parameter>
	<parameter name="ip" unique="0" required="1" obsoletes="ipaddr"><getopt mixed="-a" /><content type="string"  /></parameter>
	<parameter name="ipaddr" unique="0" required="1" deprecated="1"><content type="string"  /></parameter>
	<parameter name="password" unique="0" required="0" obsoletes="passwd"><content type="string"  /></parameter>
	<parameter name='ipport' unique='0' required='1'><content type='integer' default='623'  /></parameter>
	<parameter name="plug" unique="0" required="1" obsoletes="port"><content type="string"  /></parameter>
</parameters>
<actions>
	<action name="on" automatic="0"/>
	<action name="off" />
	<action name="status" />
	<action name="monitor" />
	<action name="metadata" />
</actions>
</resource-agent>
`;

/** An agent whose actions are shell lines; the options it read are in $dir/in.ACTION. */
function agent(
  t: { teardown(fn: () => void): unknown },
  actions: Record<string, string>,
  more: Partial<AgentFenceConfig> = {},
  metadata = METADATA,
) {
  const dir = tempDir(t);
  const program = join(dir, 'fence_fake');
  writeFileSync(join(dir, 'metadata.xml'), metadata);
  const cases = Object.entries({ metadata: 'cat "$dir/metadata.xml"; exit 0', monitor: 'exit 0', ...actions });
  writeFileSync(
    program,
    `#!/bin/sh
dir='${dir}'
cat > "$dir/input"
action=$(sed -n 's/^action=//p' "$dir/input")
cp "$dir/input" "$dir/in.$action"
echo "$action" >> "$dir/actions"
[ $# -eq 0 ] || exit 1
case $action in
${cases.map(([name, body]) => `${name}) ${body} ;;`).join('\n')}
*) echo "Unrecognised action '$action'" >&2; exit 1 ;;
esac
`,
    { mode: 0o755 },
  );
  const method = new AgentMethod({
    name: 'pdu',
    type: 'agent',
    program,
    plug: '',
    timeoutMs: 5000,
    powerOn: true,
    options: { ip: '10.0.0.9' },
    ...more,
  });
  const read = (name: string): string => (existsSync(join(dir, name)) ? readFileSync(join(dir, name), 'utf8') : '');
  return { dir, method, input: (action: string) => read(`in.${action}`), actions: () => read('actions').trim().split('\n') };
}

t.test('rule 15: off must have worked and its own status must be off (exit 2)', async (t) => {
  const { method, input, actions } = agent(t, { off: 'exit 0', status: 'echo "Status: OFF"; exit 2' }, { plug: 'outlet 7' });
  t.match(await method.fence(TARGET, never), { ok: true });
  t.match(await method.verify(TARGET, never), { ok: true, detail: /says that it is off/ });
  t.equal(input('off'), 'action=off\nplug=outlet 7\nip=10.0.0.9\n');
  t.same(actions(), ['off', 'status'], 'never reboot');
});

t.test('one that calls done what is not is found out by its status', async (t) => {
  const { method, input } = agent(t, { off: 'exit 0', status: 'echo "Status: ON"; exit 0' });
  t.match(await method.fence(TARGET, never), { ok: true });
  t.match(await method.verify(TARGET, never), { ok: false, detail: /it is on, says its own status.*Status: ON/ });
  t.match(input('status'), /^plug=n2$/m, 'without a plug it gets the name of the node');
});

t.test('every other end of status is unknown, and so is not off', async (t) => {
  for (const body of ['exit 1', 'exit 3', 'kill -9 $$', 'echo "Status: OFF"; exit 1', 'sleep 600'])
    t.match(await agent(t, { status: body }, { timeoutMs: 500 }).method.verify(TARGET, never), { ok: false }, body);
  t.match(await agent(t, { off: 'echo "Failed: Timed out waiting to power OFF" >&2; exit 1' }).method.fence(TARGET, never), {
    ok: false,
    detail: /action=off failed with exit code 1 .*Timed out waiting to power OFF/,
  });
});

t.test('F10: an agent that hangs and ignores SIGTERM is killed at its limit', async (t) => {
  const before = nowMs();
  const { method } = agent(t, { off: 'trap "" TERM; sleep 600; sleep 600' }, { timeoutMs: 600 });
  t.match(await method.fence(TARGET, never), { ok: false, detail: /did not end within 600 ms and was killed/ });
  t.ok(nowMs() - before < 3000);
});

t.test('F11: 10 MB of output is cut; a password is never shown', async (t) => {
  const { method } = agent(
    t,
    { off: 'cat "$dir/input"; head -c 10000000 /dev/zero | tr "\\0" x; exit 1', metadata: 'cat "$dir/input"; exit 1' },
    { options: { ip: 'h', password: 'S3cretPw' } },
  );
  const outcome = await method.fence(TARGET, never);
  t.ok(outcome.detail.length < 3000);
  t.match(outcome.detail, /password=\[secret\]/);
  t.notMatch(JSON.stringify([outcome, await method.check(TARGET, never, true)]), /S3cretPw/);
});

t.test('metadata is read: options, their older names, defaults, actions', async (t) => {
  const metadata = parseMetadata(METADATA);
  t.match(metadata?.parameters[1], { name: 'ip', isRequired: true, hasDefault: false, replaces: 'ipaddr' });
  t.same(metadata?.actions, ['on', 'off', 'status', 'monitor', 'metadata']);
  t.equal(parseMetadata('no xml'), null);
  t.equal(parseMetadata('<resource-agent name="x"> cut off'), null);
  if (metadata === null) return;
  t.same(optionFaults(metadata, { ip: 'h' }), []);
  t.same(optionFaults(metadata, { ipaddr: 'h', passwd: 'x' }), [], 'the older names do');
  t.same(optionFaults(metadata, { ip: 'h', pasword: 'x' }), ['it knows no option "pasword"']);
  t.same(optionFaults(metadata, {}), ['it needs the option "ip"', 'it needs the option "ipaddr"']);
  t.same(optionFaults({ ...metadata, actions: ['on', 'metadata'] }, { ip: 'h' }), [
    'it has no action "off"',
    'it has no action "status"',
  ]);
});

t.test('the check finds what is wrong before it is needed', async (t) => {
  const good = agent(t, {});
  t.match(await good.method.check(TARGET, never, true), { ok: true });
  t.same(good.actions(), ['metadata', 'monitor']);
  await good.method.check(TARGET, never, false);
  t.same(good.actions(), ['metadata', 'monitor', 'monitor'], 'a regular look asks the device only');
  t.match(await agent(t, {}, { options: { bogus: '1' } }).method.check(TARGET, never, true), {
    ok: false,
    detail: /it knows no option "bogus"; it needs the option "ip"/,
  });
  t.match(
    await agent(t, { monitor: 'echo "Failed: Unable to obtain correct plug status" >&2; exit 1' }).method.check(
      TARGET,
      never,
      true,
    ),
    {
      ok: false,
      detail: /action=monitor failed with exit code 1 .*Unable to obtain/,
    },
  );
  t.match(await agent(t, {}, {}, 'hello').method.check(TARGET, never, true), { ok: false, detail: /is it a fence agent\?/ });
  t.match(await agent(t, {}, { program: '/no/such/agent' }).method.check(TARGET, never, true), { ok: false, detail: /ENOENT/ });
  const old = agent(t, { status: 'exit 2' }, {}, METADATA.replace('<action name="monitor" />', ''));
  t.match(await old.method.check(TARGET, never, true), { ok: true }, 'one without monitor is asked for its status');
  t.same(old.actions(), ['metadata', 'status']);
});

t.test('on is a step of its own', async (t) => {
  const { method, actions } = agent(t, { on: 'exit 0' });
  t.match(await method.powerOn(TARGET, never), { ok: true });
  t.same(actions(), ['on']);
  t.match(await agent(t, {}, { powerOn: false }).method.powerOn(TARGET, never), { ok: true, detail: /stays off/ });
});
