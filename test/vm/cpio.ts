/**
 * An initramfs as the Linux kernel unpacks it: the "newc" form of cpio, written without any tool of the host, so that no
 * root rights are needed and the owner of every file is root.
 */
import { readFileSync } from 'node:fs';

const TYPE_DIR = 0o040000;
const TYPE_FILE = 0o100000;
const TYPE_LINK = 0o120000;
const TYPE_CHAR = 0o020000;

export class CpioWriter {
  #parts: Buffer[] = [];
  #ino = 1;
  #dirs = new Set<string>();

  /** Adds a directory and those above it, once. */
  dir(path: string): void {
    const clean = path.replace(/^\/+|\/+$/g, '');
    if (clean === '' || this.#dirs.has(clean)) return;
    const up = clean.lastIndexOf('/');
    if (up > 0) this.dir(clean.slice(0, up));
    this.#dirs.add(clean);
    this.#entry(clean, TYPE_DIR | 0o755, Buffer.alloc(0));
  }

  file(path: string, content: Buffer | string, mode = 0o644): void {
    this.#parent(path);
    this.#entry(path, TYPE_FILE | mode, typeof content === 'string' ? Buffer.from(content) : content);
  }

  copy(path: string, from: string, mode = 0o644): void {
    this.file(path, readFileSync(from), mode);
  }

  link(path: string, target: string): void {
    this.#parent(path);
    this.#entry(path, TYPE_LINK | 0o777, Buffer.from(target));
  }

  char(path: string, major: number, minor: number): void {
    this.#parent(path);
    this.#entry(path, TYPE_CHAR | 0o600, Buffer.alloc(0), major, minor);
  }

  /** The archive. Several may follow each other in one initramfs: later files win. */
  end(): Buffer {
    this.#entry('TRAILER!!!', 0, Buffer.alloc(0));
    return Buffer.concat(this.#parts);
  }

  #parent(path: string): void {
    const up = path.replace(/^\/+/, '').lastIndexOf('/');
    if (up > 0) this.dir(path.replace(/^\/+/, '').slice(0, up));
  }

  #entry(path: string, mode: number, content: Buffer, major = 0, minor = 0): void {
    const name = Buffer.from(`${path.replace(/^\/+/, '')}\0`);
    const fields = [this.#ino++, mode, 0, 0, 1, 0, content.length, 0, 0, major, minor, name.length, 0];
    const head = Buffer.from(`070701${fields.map((n) => n.toString(16).padStart(8, '0')).join('')}`);
    this.#parts.push(padded(Buffer.concat([head, name])), padded(content));
  }
}

/** To a multiple of four bytes. */
function padded(bytes: Buffer): Buffer {
  const rest = bytes.length % 4;
  return rest === 0 ? bytes : Buffer.concat([bytes, Buffer.alloc(4 - rest)]);
}
