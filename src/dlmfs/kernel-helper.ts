/**
 * The process that makes system calls on a mounted dlmfs for another one (kernel-client.ts).
 *
 * The problem: an open of ocfs2_dlmfs that waits cannot be interrupted, not even by SIGKILL, and it occupies a thread of
 * Node's pool of four; two such opens of an application would stop its file system calls and name look-ups. The idea: this
 * process has a pool of its own that is large, does nothing else, and can be left behind. An open that nobody waits for any
 * more is closed as soon as the kernel grants it; when the other side is gone everything is closed at once, but the process
 * stays until the last open has come back, because until then its node stands in the lock's queue anyway.
 *
 * Talks on descriptor 3. It can also run a command under an open lock, which inherits the descriptor as with flock(1).
 */
import { spawn } from 'node:child_process';
import fs from 'node:fs';
import { Socket } from 'node:net';
import { constants } from 'node:os';
import { promisify } from 'node:util';
import { KernelFile } from './kernel-file.js';
import { type KernelErrorShape, type KernelReply, type KernelRequest, LineReader } from './kernel-protocol.js';
import type { DlmfsAttributes } from './types.js';

const CONTROL_FD = 3;
/** Where a command finds the lock that it runs under; see SESSION_FD in the command line. */
const COMMAND_FD = 63;
/** Threads that must not be taken by calls that may wait in the kernel. */
const THREADS_KEPT = 4;
const THREADS = Number(process.env.UV_THREADPOOL_SIZE ?? 4);
const MAY_WAIT = new Set<KernelRequest['op']>(['open', 'mkdir', 'rmdir', 'readdir', 'stat', 'unlink']);

interface Opened {
  file: KernelFile;
  path: string;
  release: boolean;
}

const call = {
  open: promisify(fs.open),
  read: promisify(fs.read),
  write: promisify(fs.write),
  fstat: promisify(fs.fstat),
  ftruncate: promisify(fs.ftruncate),
  fchmod: promisify(fs.fchmod),
};

const opened = new Map<number, Opened>();
const abandoned = new Set<number>();
const waiting = new Set<number>();
/** Calls under way, and commands. The process ends with the last one once the other side is gone. */
let busy = 0;
let commands = 0;
let isAlone = false;
let nextHandle = 1;

const control = new Socket({ fd: CONTROL_FD, readable: true, writable: true });

function send(reply: KernelReply): void {
  if (!isAlone) control.write(`${JSON.stringify(reply)}\n`);
}

function shape(error: unknown): KernelErrorShape {
  const e = error as NodeJS.ErrnoException;
  // A name with a NUL byte never reaches the kernel. Some errnos have no name in libuv, EDEADLK among them.
  let code = e.code === 'ERR_INVALID_ARG_VALUE' || e.code === undefined ? 'EINVAL' : e.code;
  if (!/^E[A-Z0-9]+$/.test(code)) {
    code = Object.entries(constants.errno).find(([, number]) => number === -(e.errno ?? 0))?.[0] ?? 'EIO';
  }
  return {
    code,
    errno: e.errno ?? -22,
    message: e.message,
    ...(e.syscall === undefined ? {} : { syscall: e.syscall }),
    ...(e.path === undefined ? {} : { path: e.path }),
  };
}

function statShape(s: fs.Stats): DlmfsAttributes {
  const { ino, mode, nlink, uid, gid, size, blksize, blocks, atimeMs, mtimeMs, ctimeMs } = s;
  return { ino, mode, nlink, uid, gid, size, blksize, blocks, atimeMs, mtimeMs, ctimeMs };
}

function handleOf(r: KernelRequest): Opened {
  const found = opened.get(r.h ?? 0);
  if (found === undefined)
    throw Object.assign(new Error(`EBADF: bad file descriptor, ${r.op}`), { code: 'EBADF', errno: -9, syscall: r.op });
  return found;
}

async function open(r: KernelRequest): Promise<unknown> {
  waiting.add(r.id);
  let fd: number;
  try {
    fd = await call.open(r.path ?? '', r.flags ?? 'r', r.mode ?? 0o666);
  } finally {
    waiting.delete(r.id);
  }
  const entry: Opened = { file: new KernelFile(fd), path: r.path ?? '', release: r.release === true };
  if (abandoned.delete(r.id) || isAlone) {
    await letGo(entry);
    return null;
  }
  const h = nextHandle++;
  opened.set(h, entry);
  // Directories have no poll.
  const isWatched =
    r.watch === true && fs.fstatSync(fd).isFile() && entry.file.watch((isBlocked) => send({ event: 'blocked', h, isBlocked }));
  return { h, isWatched };
}

/** Closes a file. With `release` the node gives the lock up too, unless its closing did that: somebody waits for it. */
async function letGo(entry: Opened): Promise<void> {
  const { isBlocked } = entry.file;
  entry.file.close();
  if (!entry.release || isBlocked) return;
  // EBUSY: another process of this node has it open. Anything else: there is nothing more to be done.
  await fs.promises.unlink(entry.path).catch(() => {});
}

async function close(r: KernelRequest): Promise<void> {
  const entry = handleOf(r);
  opened.delete(r.h ?? 0);
  await letGo(entry);
}

async function read(r: KernelRequest): Promise<string> {
  const buffer = Buffer.alloc(Math.min(r.length ?? 64, 4096));
  const { bytesRead } = await call.read(handleOf(r).file.fd, buffer, 0, buffer.length, r.position ?? 0);
  return buffer.toString('base64', 0, bytesRead);
}

async function write(r: KernelRequest): Promise<number> {
  const data = Buffer.from(r.data ?? '', 'base64');
  return (await call.write(handleOf(r).file.fd, data, 0, data.length, r.position ?? 0)).bytesWritten;
}

/** Runs a command that inherits the lock; its end comes as an event. */
async function run(r: KernelRequest): Promise<{ pid: number }> {
  const [file = '', ...args] = r.argv ?? [];
  const stdio: (number | 'ignore')[] = [0, 1, 2];
  while (stdio.length < COMMAND_FD) stdio.push('ignore');
  stdio.push(handleOf(r).file.fd);
  const child = spawn(file, args, { detached: true, stdio, env: r.env ?? {} });
  await new Promise<void>((resolve, reject) => {
    child.once('spawn', resolve);
    child.once('error', reject);
  });
  busy++;
  commands++;
  child.once('exit', (code, signal) => {
    send({ event: 'exit', code, signal });
    commands--;
    // Without the other side the command was the last to need the lock.
    if (isAlone) closeAll();
    done();
  });
  return { pid: child.pid ?? 0 };
}

async function perform(r: KernelRequest): Promise<unknown> {
  const { path = '', to = '' } = r;
  const p = fs.promises;
  switch (r.op) {
    case 'mkdir':
      return p.mkdir(path, r.mode ?? 0o777);
    case 'rmdir':
      return p.rmdir(path);
    case 'readdir':
      return p.readdir(path);
    case 'stat':
      return statShape(await p.stat(path));
    case 'statfs':
      return p.statfs(path);
    case 'unlink':
      return p.unlink(path);
    case 'truncate':
      return p.truncate(path, r.length ?? 0);
    case 'chmod':
      return p.chmod(path, r.mode ?? 0);
    case 'chown':
      return p.chown(path, r.uid ?? 0, r.gid ?? 0);
    case 'utimes':
      return p.utimes(path, (r.atimeMs ?? 0) / 1000, (r.mtimeMs ?? 0) / 1000);
    case 'rename':
      return p.rename(path, to);
    case 'link':
      return p.link(path, to);
    case 'symlink':
      return p.symlink(to, path);
    case 'open':
      return open(r);
    case 'abandon':
      if (r.target !== undefined && waiting.has(r.target)) abandoned.add(r.target);
      return null;
    case 'close':
      return close(r);
    case 'read':
      return read(r);
    case 'write':
      return write(r);
    case 'fstat':
      return statShape(await call.fstat(handleOf(r).file.fd));
    case 'ftruncate':
      return call.ftruncate(handleOf(r).file.fd, r.length ?? 0);
    case 'fchmod':
      return call.fchmod(handleOf(r).file.fd, r.mode ?? 0);
    case 'spawn':
      return run(r);
  }
}

function request(line: string): void {
  const r = JSON.parse(line) as KernelRequest;
  if (MAY_WAIT.has(r.op) && busy >= THREADS - THREADS_KEPT) {
    send({
      id: r.id,
      error: { code: 'EMFILE', errno: -24, message: `EMFILE: ${busy} calls wait in the kernel already`, syscall: r.op },
    });
    return;
  }
  busy++;
  perform(r)
    .then(
      (value) => send({ id: r.id, value: value ?? null }),
      (error: unknown) => send({ id: r.id, error: shape(error) }),
    )
    .finally(done);
}

function done(): void {
  busy--;
  // A thread that is still in the kernel would keep a normal exit waiting.
  if (isAlone && busy === 0) process.kill(process.pid, 'SIGKILL');
}

function closeAll(): void {
  if (commands > 0) return;
  for (const [h, entry] of opened) {
    opened.delete(h);
    busy++;
    letGo(entry).finally(done);
  }
}

function alone(): void {
  if (isAlone) return;
  isAlone = true;
  control.destroy();
  busy++;
  closeAll();
  done();
}

// The other side decides when this ends; a terminal's Ctrl-C is meant for it.
for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP', 'SIGQUIT'] as const) process.on(signal, () => {});
const lines = new LineReader(request);
control.setEncoding('utf8');
control.on('data', (chunk: string) => lines.push(chunk));
control.on('end', alone);
control.on('close', alone);
control.on('error', alone);
