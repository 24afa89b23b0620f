/** The two ends of the socket between the daemon and its bridge helper: what is known to the other side, and who is there at all. */
import { mkdtempSync, rmSync } from 'node:fs';
import { createServer, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import { HelperCore } from '../../src/bridge/helper-core.js';
import { type DaemonSocket, HelperDoor } from '../../src/bridge/helper-door.js';
import { HelperLink } from '../../src/bridge/link.js';
import { BRIDGE_VERSION, type ToHelper } from '../../src/bridge/protocol.js';
import { EX, NL } from '../../src/protocol/modes.js';
import { until } from '../fixtures/until.js';
import { FakeKernel } from './fake-kernel.js';

const HELLO = `${JSON.stringify({ k: 'hello', version: BRIDGE_VERSION, names: [] })}\n`;

/** A link to a helper that the test plays; `said` is what the daemon's side hears. */
async function linked(t: Test, play: (socket: Socket) => void, silenceMs?: number) {
  const dir = mkdtempSync(join(tmpdir(), 'tsdlm-link-'));
  const sockets: Socket[] = [];
  const server = createServer({ pauseOnConnect: true }, (socket) => {
    sockets.push(socket);
    socket.on('error', () => {});
    play(socket);
  });
  await new Promise<void>((resolve) => server.listen(join(dir, 's'), resolve));
  const said: string[] = [];
  const link = new HelperLink({
    socket: join(dir, 's'),
    users: '/nowhere',
    own: join(dir, 'own'),
    domains: ['web'],
    ...(silenceMs === undefined ? {} : { silenceMs }),
    events: {
      attached: () => said.push('attached'),
      message: (m) => said.push(m.k),
      detached: (why) => said.push(why),
      absent: () => said.push('absent'),
      drained: () => said.push('drained'),
    },
  });
  t.teardown(() => {
    link.close();
    for (const socket of sockets) socket.destroy();
    server.close();
    rmSync(dir, { recursive: true, force: true });
  });
  return { link, said, sockets };
}

t.test('rule 5: a message counts as known to the helper once it would survive the daemon', async (t) => {
  const { link, said, sockets } = await linked(t, (socket) => void socket.write(HELLO));
  await until('attached', () => said.includes('attached'));
  t.equal(link.send({ k: 'until', until: 1, isAll: false }), true, 'it lies in the socket');
  // The helper reads nothing: at some time the socket is full.
  const value = 'x'.repeat(1000);
  let sent = 0;
  while (link.send({ k: 'value', domain: 'web', name: 'r', value })) t.ok(++sent < 10_000, 'it gets full');
  t.equal(link.send({ k: 'until', until: 2, isAll: false }), false);
  t.notOk(said.includes('drained'));
  let heard = '';
  sockets[0]?.setEncoding('utf8').on('data', (chunk: string) => {
    heard += chunk;
  });
  sockets[0]?.resume();
  await until('drained', () => said.includes('drained'));
  await until('the deadline is there', () => heard.includes('"until":2'));
  t.equal(link.send({ k: 'until', until: 3, isAll: false }), true);
});

t.test('a helper that does not answer is given up, and no other one is started beside it', async (t) => {
  const { said, sockets } = await linked(t, (socket) => void socket.write(HELLO), 1500);
  await until('attached', () => said.includes('attached'));
  await until('given up', () => said.includes('the bridge helper does not answer'), 10_000);
  await until('tried again', () => sockets.length > 1);
  t.notOk(said.includes('absent'));
});

t.test('a helper that is half dead does not even greet: said so', async (t) => {
  const { said } = await linked(t, () => {}, 500);
  await until('given up', () => said.includes('the bridge helper does not answer'), 10_000);
  t.notOk(said.includes('attached'));
});

t.test('nobody listens: nothing of before is held, and a helper is started', async (t) => {
  const dir = mkdtempSync(join(tmpdir(), 'tsdlm-link-'));
  const said: string[] = [];
  const link = new HelperLink({
    socket: join(dir, 's'),
    users: '/nowhere',
    own: join(dir, 'own'),
    domains: ['web'],
    events: {
      attached: (names) => said.push(`attached ${names.length}`),
      message: (m) => said.push(m.k === 'state' ? m.why : m.k),
      detached: (why) => said.push(why),
      absent: () => said.push('absent'),
      drained: () => {},
    },
  });
  t.teardown(() => {
    link.close();
    rmSync(dir, { recursive: true, force: true });
  });
  await until('a helper', () => said.length > 2 && said.includes('pong'), 30_000);
  t.equal(said[0], 'absent');
  t.equal(said[1], 'attached 0');
  t.match(said.join(), /\/nowhere is not the kernel's ocfs2_dlmfs/);
});

/** A connection as the helper sees it, which delivers what the test says. */
class FakeSocket implements DaemonSocket {
  readonly written: string[] = [];
  #data: (chunk: string) => void = () => {};
  #ends: (() => void)[] = [];
  isRunning = false;
  setEncoding(): void {}
  on(event: string, listener: (chunk: string) => void): void {
    if (event === 'data') this.#data = listener;
    else this.#ends.push(listener as () => void);
  }
  write(text: string): void {
    this.written.push(text);
  }
  resume(): void {
    this.isRunning = true;
  }
  destroy(): void {}
  deliver(message: ToHelper): void {
    this.#data(`${JSON.stringify(message)}\n`);
  }
  end(): void {
    for (const listener of this.#ends) listener();
  }
}

t.test('rule 5: what a killed daemon told last is read before the next one is heard', async (t) => {
  const kernel = new FakeKernel();
  let now = 1000;
  const core = new HelperCore({ files: kernel.mount('bridge'), now: () => now, onIdle: () => {} });
  const door = new HelperDoor(core, () => {});
  const first = new FakeSocket();
  door.accept(first);
  first.deliver({ k: 'hello', version: BRIDGE_VERSION, domains: ['web'] });
  await until('joined', () => first.written.some((line) => line.includes('state')));
  first.deliver({ k: 'want', domain: 'web', name: 'r', level: EX, isTry: false, isForever: false, seq: 1 });
  await until('held', () => kernel.level('bridge', 'web', 'r') === EX);
  first.deliver({ k: 'until', until: 1100, isAll: false });
  // It told one more deadline and was killed; the next daemon knocks before that was read, and dies as well.
  const second = new FakeSocket();
  door.accept(second);
  t.equal(second.isRunning, false);
  first.deliver({ k: 'until', until: 1600, isAll: false });
  first.end();
  t.equal(second.isRunning, true);
  second.end();
  now = 1200;
  await new Promise((resolve) => setTimeout(resolve, 150));
  t.equal(kernel.level('bridge', 'web', 'r'), EX, 'the owner was told 1600');
  now = 1611;
  await until('let go', () => kernel.level('bridge', 'web', 'r') === NL);
});
