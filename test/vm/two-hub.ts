/**
 * The network between the machines of a cluster: a hub for Ethernet frames in UDP datagrams, on loopback only.
 *
 * qemu's listening socket does not outlive its listener, and multicast cannot be cut. So every machine sends its frames to this
 * hub, which passes them on to all others, unless the test has pulled the cable.
 */
import { createSocket, type Socket } from 'node:dgram';

const HOST = '127.0.0.1';

function bound(): Promise<Socket> {
  return new Promise((resolve, reject) => {
    const socket = createSocket('udp4');
    socket.once('error', reject);
    socket.bind(0, HOST, () => resolve(socket));
  });
}

export class Hub {
  readonly #socket: Socket;
  readonly #ports = new Set<number>();
  isCut = false;

  static async open(): Promise<Hub> {
    return new Hub(await bound());
  }

  private constructor(socket: Socket) {
    this.#socket = socket;
    socket.on('message', (frame, from) => {
      if (this.isCut) return;
      for (const port of this.#ports) if (port !== from.port) socket.send(frame, port, HOST);
    });
    // A machine that is off refuses its datagrams.
    socket.on('error', () => {});
  }

  /** qemu's arguments for the second network card of a machine. */
  async card(node: number): Promise<string[]> {
    const probe = await bound();
    const { port } = probe.address();
    await new Promise<void>((resolve) => probe.close(() => resolve()));
    this.#ports.add(port);
    return [
      '-netdev',
      `socket,id=cluster,udp=${HOST}:${this.#socket.address().port},localaddr=${HOST}:${port}`,
      '-device',
      `virtio-net-pci,netdev=cluster,mac=52:54:00:10:01:${node.toString(16).padStart(2, '0')}`,
    ];
  }

  close(): void {
    this.#socket.close();
  }
}
