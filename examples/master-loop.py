#!/usr/bin/env python3
"""Who is the master? The loop that is usually written on a dlmfs, in Python: the kernel's own at /dlm, or tsdlm's (tsdlm mount).

    master-loop.py [DIR [DOMAIN [LOCK [SECONDS]]]]     defaults: /dlm example master 1

Joins the domain, tries to become master without ever waiting, works while it is, and leaves nothing behind. The file stays
open while this process is master, so the lock goes to nobody else, and is kept by the node should this process die.
"""

import errno
import os
import signal
import sys
import time


def main():
    args = sys.argv[1:] + ["/dlm", "example", "master", "1"][len(sys.argv) - 1 :]
    directory, domain, lock, pause = args[0], args[1], args[2], float(args[3])
    path = os.path.join(directory, domain, lock)

    def stop(_signal, _frame):
        raise SystemExit(0)

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, stop)
    try:
        os.mkdir(os.path.join(directory, domain), 0o755)
    except FileExistsError:
        pass

    fd = None
    role = None
    try:
        while True:
            if fd is None:
                try:
                    # Write access is exclusive; O_NONBLOCK makes it a try.
                    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NONBLOCK, 0o664)
                except OSError as error:
                    # ETXTBSY: somebody else has it. ENOTCONN: the cluster cannot say now (tsdlm only).
                    if error.errno not in (errno.ETXTBSY, errno.ENOTCONN):
                        raise
            now = "standby" if fd is None else "master"
            if now != role:
                print(now, flush=True)
            role = now
            if fd is not None:
                work(fd)
            time.sleep(pause)
    finally:
        if fd is not None:
            os.close(fd)
        try:
            # Closing alone would keep the lock for this node.
            os.unlink(path)
        except OSError:
            pass
        try:
            os.rmdir(os.path.join(directory, domain))
        except OSError:
            pass
        print("left", flush=True)


def work(fd):
    """What only the master does. The lock's 64 bytes are a good place for who it is."""
    os.pwrite(fd, os.uname().nodename.encode()[:64], 0)


if __name__ == "__main__":
    main()
