/** 9P sessions over the bed of engines: no sockets; bytes go straight from client to session and back. */
import { FrameReader } from '../../src/dlmfs/9p-codec.js';
import { NinepSession } from '../../src/dlmfs/9p-session.js';
import { Tree } from '../../src/dlmfs/tree.js';
import { NinepFs, NinepRpc } from '../fixtures/9p-client.js';
import type { Bed } from './bed.js';
import type { Peer } from './conformance.js';

/** One connection. */
export class Wire {
  readonly session: NinepSession;
  readonly rpc: NinepRpc;
  readonly faults: string[] = [];
  readonly refused: string[] = [];
  readonly orphaned: Tree[] = [];
  readonly #reader: FrameReader;
  isClosed = false;

  /** `cut`: how the bytes of the client are cut into pieces; `back`: the server's. */
  constructor(bed: Bed, letter: string, node: number, cut: (bytes: Buffer) => Buffer[] = (b) => [b], back = cut) {
    this.session = new NinepSession({
      send: (bytes) => {
        for (const part of back(bytes)) this.rpc.receive(part);
      },
      mount: () => new Tree(bed.service(letter, node), { mode: 0o755, uid: 0, gid: 0 }, () => 0),
      unmounted: (tree) => this.orphaned.push(tree),
      fault: (why) => {
        this.faults.push(why);
        this.end();
      },
      refused: (why) => this.refused.push(why),
      now: () => 0,
    });
    this.#reader = new FrameReader(this.session.frameMax);
    this.rpc = new NinepRpc((bytes) => {
      for (const part of cut(bytes)) this.raw(part);
    });
  }

  /** Bytes as they come from a socket. */
  raw(bytes: Buffer): void {
    if (this.isClosed) return;
    const isOk = this.#reader.push(bytes, (frame) => {
      if (this.isClosed) return;
      this.session.receive(frame);
      this.#reader.limit = this.session.frameMax;
    });
    if (!isOk && !this.isClosed) {
      this.faults.push('frame size');
      this.end();
    }
  }

  end(): void {
    if (this.isClosed) return;
    this.isClosed = true;
    this.session.end();
    this.rpc.close(new Error('connection closed'));
  }

  mount(): Promise<NinepFs> {
    return NinepFs.mount(this.rpc, () => this.end());
  }
}

export async function ninepPeer(bed: Bed, on: number[], cut?: (bytes: Buffer) => Buffer[]): Promise<Peer & { wires: Wire[] }> {
  const owners: Record<string, NinepFs> = {};
  const wires: Wire[] = [];
  for (const [at, node] of on.entries()) {
    const letter = 'ABC'[at] as string;
    const wire = new Wire(bed, letter, node, cut);
    wires.push(wire);
    owners[letter] = await wire.mount();
  }
  return { kind: 'tsdlm', owners, settle: () => bed.settle(), limitMs: 2000, wires };
}
